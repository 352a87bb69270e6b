"""A secret goes to the broker alone: not into logs, /status, errors, outputs, state or a command line."""

import http.client
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from secured_user import PASSWORD

from stream_iwae.adapters.kafka_permissions import service_permissions, trainer_permissions
from stream_iwae.adapters.kafka_topics import ensure_topics
from stream_iwae.lab.service_process import ServiceProcess

pytestmark = pytest.mark.kafka

TOKEN = "canary-token-0815"  # noqa: S105
FROM_ENVIRONMENT = "${THE_PASSWORD}"
WRONG = "canary-wrong-4711"
DEADLINE_S = 60.0
CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "confluent"])


@pytest.fixture
def written(secure_config, tmp_path):
    """A configuration file without a secret in it, and the environment that has them."""

    def run(client, **kafka):
        config = secure_config(client=client)
        section = {
            "client": client,
            "bootstrap_servers": config.bootstrap_servers,
            "group": config.group,
            "instance": config.instance,
            "topics": config.topics.model_dump(),
            "start": "earliest",
            "commit_interval": "50ms",
            "session_timeout": "6s",
            "transaction_timeout": "5s",
            "connect_timeout": "5s",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": "svc",
            "ssl_cafile": str(config.ssl_cafile),
            **kafka,
        }
        sections = {
            "detector": "secure",
            "kafka": section,
            "events": {"preset": "simulated"},
            "windows": {"size": "10s", "grace": "0s"},
            "features": [{"name": "flows", "aggregate": "count"}],
            "http": {"port": 0, "token": "${THE_TOKEN}"},
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(sections))
        return config, path

    return run


def command_lines():
    """Of every process that runs here."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            found[entry.name] = (entry / "cmdline").read_bytes() if entry.name.isdecimal() else b""
        except OSError:
            continue
    return found


def ask(port, path, token=TOKEN):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def everything_on(servers, topics):
    """Keys, values and headers of all records, as one text of bytes."""
    consumer = KafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", enable_auto_commit=False)
    seen = []
    try:
        for topic in topics:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for polled in consumer.poll(timeout_ms=200).values():
                    seen += [repr((record.key, record.value, record.headers)) for record in polled]
        return "\n".join(seen)
    finally:
        consumer.close()


@CLIENTS
def test_a_service_that_works_shows_no_secret_anywhere(
    written, secured, administrator, rights, monkeypatch, tmp_path, client
):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    config, path = written(client, sasl_password_file=str(tmp_path / "password"))
    monkeypatch.setenv("THE_TOKEN", TOKEN)
    rights.set([*service_permissions(config), *trainer_permissions(config)])
    administrator.create_topics({config.topics.events: {"num_partitions": 1}}, wait_for_metadata=True)
    ensure_topics(config.model_copy(update={"bootstrap_servers": secured.plain, "security_protocol": "PLAINTEXT"}), 1)
    producer = KafkaProducer(bootstrap_servers=secured.plain)
    now_ms = int(time.time() * 1000) - 600_000
    for number in range(200):
        event = {"ts": now_ms + number * 1000, "src": f"10.0.0.{number % 5}", "dst": "b", "bytes": 1, "packets": 1}
        producer.send(config.topics.events, json.dumps(event).encode() if number % 9 else b"{broken")
    producer.flush()
    producer.close()

    log = tmp_path / "log"
    with ServiceProcess(path, log) as service:
        deadline_s = time.monotonic() + DEADLINE_S
        while (
            service.port is None
            or '"200"' not in f'"{position(service)}"'
            or '"component": "trainer"' not in log.read_text()
        ):
            assert service.exit_code is None, log.read_text()
            assert time.monotonic() < deadline_s, log.read_text()
            time.sleep(0.1)
        seen = [ask(service.port, "/status"), ask(service.port, "/metrics"), ask(service.port, "/nowhere")]
        assert "collecting" in seen[0]
        assert ask(service.port, "/status", "wrong") == "a token is needed\n"
        lines = command_lines()
    assert service.exit_code == 0
    children = [line for line in lines.values() if str(path).encode() in line]
    assert len(children) == 2  # the service and its trainer
    topics = [value for name, value in config.topics if name != "events" and value is not None]
    seen += [log.read_text(), everything_on(secured.plain, topics), repr(list(lines.values()))]
    for secret in (PASSWORD, TOKEN):
        assert secret not in "\n".join(seen)


def position(service):
    try:
        found = json.loads(ask(service.port, "/status"))
    except (OSError, ValueError):
        return 0
    partitions = found.get("service", {}).get("partitions", {})
    return sum(int(partition["position"]) for partition in partitions.values())


@pytest.mark.parametrize(
    ("client", "command", "reason"),
    [
        ("kafka-python", "run", "password"),
        ("kafka-python", "train", "permission"),
        ("confluent", "run", "permission"),
        ("confluent", "train", "http"),  # both of its clients are open by then, and must not keep it from ending
    ],
)
def test_one_that_fails_ends_with_78_and_shows_no_secret(
    written, secured, administrator, rights, tmp_path, client, command, reason
):
    config, path = written(client, sasl_password=FROM_ENVIRONMENT)
    wanted = [*service_permissions(config), *trainer_permissions(config)]
    rights.set([] if reason == "permission" else wanted)
    administrator.create_topics({config.topics.events: {"num_partitions": 1}}, wait_for_metadata=True)
    ensure_topics(config.model_copy(update={"bootstrap_servers": secured.plain, "security_protocol": "PLAINTEXT"}), 1)
    secrets = {"THE_PASSWORD": WRONG if reason == "password" else PASSWORD, "THE_TOKEN": TOKEN}
    more = {"STREAM_IWAE__HTTP__TLS_CERTFILE": "/nowhere", "STREAM_IWAE__HTTP__TLS_KEYFILE": "/nowhere"}
    environment = {**os.environ, **secrets, **(more if reason == "http" else {})}

    ended = subprocess.run(
        [sys.executable, "-m", "stream_iwae", command, "--config", str(path)],
        capture_output=True, text=True, env=environment, timeout=60, check=False,
    )  # fmt: skip

    said = ended.stdout + ended.stderr
    assert ended.returncode == 78, said
    expected = {"password": "kafka.sasl_username", "permission": "READ on TOPIC", "http": "http.tls_certfile"}
    assert expected[reason] in ended.stderr.splitlines()[-1]
    assert not any(secret in said for secret in (WRONG, PASSWORD, TOKEN))


def test_commands_that_print_the_configuration_mask_it(written, tmp_path):
    _, path = written("kafka-python", sasl_password=FROM_ENVIRONMENT)
    environment = {**os.environ, "THE_PASSWORD": WRONG, "THE_TOKEN": TOKEN}
    for command in ("print-config", "check-config"):
        ended = subprocess.run(
            [sys.executable, "-m", "stream_iwae", command, "--config", str(path)],
            capture_output=True, text=True, env=environment, timeout=60, check=True,
        )  # fmt: skip
        assert WRONG not in ended.stdout + ended.stderr
        assert TOKEN not in ended.stdout + ended.stderr


def test_the_plain_listener_is_for_the_administrator_alone(secured):
    admin = KafkaAdminClient(bootstrap_servers=secured.plain)
    assert admin.describe_cluster()["brokers"]
    admin.close()
