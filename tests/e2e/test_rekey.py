"""Events under random keys on four partitions, two replicas, and a re-keyer that is killed: as if all were in order."""

import json
import os
import secrets
import signal
from collections import Counter
from contextlib import ExitStack

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from network import a_day_in_the_network

from stream_iwae.config import Config
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import needed_fields
from stream_iwae.lab.service_process import RekeyerProcess, ServiceProcess
from stream_iwae.rekey.batch import decode_events, decode_header
from stream_iwae.rekey.reader import RekeyedReader
from stream_iwae.wire import decode_scores

pytestmark = pytest.mark.kafka

N_SOURCES, N_TARGETS = 4, 3
BROKEN = [b'{"ts": broken', b"17", b'{"ts": 1767571200000}']
CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "confluent"])


def consumed(status):
    return int(status["events"]["consumed"])


def alerts_of(records):
    found = Counter()
    for record in records:
        alert = json.loads(record.value)
        for name in ("detected_at", "origin", "group_id"):  # a group lies within one partition
            del alert[name]
        found[json.dumps(alert, sort_keys=True)] += 1
    return found


def scores_of(records):
    rows = Counter()
    for record in records:
        scores = decode_scores(record.value)
        rows.update(zip(map(json.dumps, scores.entities), scores.window_end_ms, scores.scores, strict=True))
    return rows


@pytest.fixture
def network(kafka, topic):
    """The same messages in order on one partition, and under random keys on four."""
    rng = np.random.default_rng(5)
    messages = a_day_in_the_network(3, 120)
    for at in rng.choice(len(messages), 30, replace=False).tolist():
        messages.insert(at, BROKEN[at % 3])
    ordered, scattered = topic(), topic(partitions=N_SOURCES)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=20)
    futures = [producer.send(ordered, message) for message in messages]
    futures += [producer.send(scattered, message, key=rng.bytes(8)) for message in messages]
    producer.flush()
    assert all(future.succeeded() for future in futures)
    producer.close()
    return ordered, scattered, len(messages)


def rekeyed_config(write_config, events_topic, name, client, **sections):
    settings = {"partitions": N_TARGETS, "commit_interval": "50ms"}
    kafka = {"client": client, "group": name, **sections.pop("kafka", {})}
    events = {"preset": "simulated", "rekey": True}
    return write_config(events_topic, name, kafka=kafka, events=events, rekey=settings, detector=name, **sections)


@CLIENTS
def test_a_killed_rekeyer_and_two_replicas_give_what_one_partition_in_order_gives(
    client, network, kafka, write_config, pin_model, read_topic, tmp_path
):
    ordered, scattered, n_messages = network
    name = f"scattered-{secrets.token_hex(4)}"
    calm = write_config(ordered, f"{name}-calm", detector=name)
    first = rekeyed_config(write_config, scattered, name, client)
    second = first.with_name("second.yaml")
    second.write_text(first.read_text().replace(f"instance: {name}-1", f"instance: {name}-2"))
    slow = first.with_name("slow.yaml")  # a transaction for every few records, so that it dies with work left
    slow.write_text(
        first.read_text()
        .replace("max_poll_records: 200", "max_poll_records: 20")
        .replace("commit_interval: 50ms\n  partitions", "commit_interval: '0'\n  partitions")
    )
    assert Config.load(slow).rekey.commit_interval == 0
    pin_model(calm)
    pin_model(first, N_TARGETS)
    with ExitStack() as stack:
        undisturbed = stack.enter_context(ServiceProcess(calm, tmp_path / "calm.log", "--no-trainer"))
        replicas = [
            stack.enter_context(ServiceProcess(path, tmp_path / f"{path.stem}.log", "--no-trainer", "--no-rekeyer"))
            for path in (first, second)
        ]
        for target in (0.1, 0.3):
            with RekeyerProcess(slow, tmp_path / f"rekeyer-{target}.log") as rekeyer:
                rekeyer.wait_until(lambda status, at=target: position(status) >= at * n_messages, 90, lambda _: None)
                os.kill(rekeyer.pid, signal.SIGKILL)
        last = stack.enter_context(RekeyerProcess(slow, tmp_path / "rekeyer-last.log"))
        done = last.wait_until(lambda status: position(status) >= n_messages, 90, lambda _: None)
        assert 0 < consumed(done) < 0.9 * n_messages  # the others died with work left, and had done some
        n_events = n_messages - 30
        # Each replica counts what has been committed; together they have had every event once.
        replicas[0].wait_until(lambda _: sum(map(events_of, replicas)) >= n_events, 90, lambda _: None)
        undisturbed.wait_until(lambda status: consumed(status) >= n_messages, 90, lambda _: None)
        assert sum(map(events_of, replicas)) == n_events
        assert all(len(replica.status()["partitions"]) in {1, 2} for replica in replicas)
        assert sum(replica.status()["events"]["late"] for replica in replicas) == 0

    expected, found = read_topic(f"{name}-calm.alerts"), read_topic(f"{name}.alerts")
    assert len(expected) > 10
    assert alerts_of(found) == alerts_of(expected)
    assert scores_of(read_topic(f"{name}.scores")) == scores_of(read_topic(f"{name}-calm.scores"))
    letters = read_topic(f"{name}.dead_letters")
    assert Counter(letter.value for letter in letters) == Counter(
        letter.value for letter in read_topic(f"{name}-calm.dead_letters")
    )
    assert_letters_tell_where_they_came_from(kafka, scattered, letters)


def assert_letters_tell_where_they_came_from(kafka, topic, letters):
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, enable_auto_commit=False)
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["topic"].decode() == topic
        place = TopicPartition(topic, int(headers["partition"]))
        consumer.assign([place])
        consumer.seek(place, int(headers["offset"]))
        found = consumer.poll(timeout_ms=5000, max_records=1)[place]
        assert found[0].value == letter.value
    consumer.close()
    assert len({letter.key for letter in letters}) == len(letters) == 30


def position(status):
    return sum(int(partition["position"]) for partition in status["partitions"].values())


def events_of(replica):
    status = replica.status()
    return consumed(status) if status else 0


# Seen in about one run of four on a busy machine before the membership was taken from polls and stale commits were
# dropped, and in one after the former; not seen since the latter, in too few runs to say that it is mended.
def test_of_two_rekeyers_one_that_slept_through_a_rebalance_repeats_nothing(
    kafka, topic, write_config, read_topic, tmp_path
):
    """SIGSTOP past the session time-out, the other takes over, SIGCONT: its open work is refused."""
    name, scattered = f"zombie-{secrets.token_hex(4)}", topic(partitions=N_SOURCES)
    first = rekeyed_config(write_config, scattered, name, "kafka-python", kafka={"max_poll_records": 20})
    second = first.with_name("other.yaml")
    second.write_text(first.read_text().replace(f"instance: {name}-1", f"instance: {name}-2"))
    messages = a_day_in_the_network(4, 60)
    thirds = [messages[at : at + len(messages) // 3 + 1] for at in range(0, len(messages), len(messages) // 3 + 1)]
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=20)
    with RekeyerProcess(first, tmp_path / "a.log") as one, RekeyerProcess(second, tmp_path / "b.log") as two:
        two.wait_until(lambda status: len(status["partitions"]) == N_SOURCES // 2, 90, lambda _: None)
        one.wait_until(lambda status: len(status["partitions"]) == N_SOURCES // 2, 90, lambda _: None)
        send(producer, scattered, thirds[0])
        os.kill(one.pid, signal.SIGSTOP)
        try:
            send(producer, scattered, thirds[1])
            two.wait_until(lambda status: len(status["partitions"]) == N_SOURCES, 90, lambda _: None)
        finally:
            os.kill(one.pid, signal.SIGCONT)
        send(producer, scattered, thirds[2])
        ends = end_of(kafka, scattered)
        two.wait_until(lambda _: reached_by((one, two)) == ends, 90, lambda _: None)
    producer.close()

    schema = Decoder(Config.load(first).events, needed_fields(Config.load(first).features)).schema
    stored = RekeyedReader(schema, "", 1)._stored
    found = Counter()
    for record in read_topic(f"{name}.rekeyed"):  # fails where a transaction is open
        frame = decode_events(record.value, decode_header(record.value), stored)
        found.update(zip(frame["timestamp_ms"], frame["entity"], frame["bytes"], strict=True))
    events = [json.loads(message) for message in messages]
    assert found == Counter((event["ts"], event["src"], float(event["bytes"])) for event in events)


def send(producer, topic, messages):
    for message in messages:
        producer.send(topic, message)  # no key: round and round
    producer.flush()


def reached_by(rekeyers):
    """Positions together; None while a partition has two owners, as one that slept believes, or none."""
    owned = [rekeyer.status().get("partitions", {}) for rekeyer in rekeyers]
    if sorted(number for each in owned for number in each) != [str(number) for number in range(N_SOURCES)]:
        return None
    return sum(int(partition["position"]) for each in owned for partition in each.values())


def end_of(kafka, topic):
    consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, enable_auto_commit=False)
    ends = consumer.end_offsets([TopicPartition(topic, number) for number in range(N_SOURCES)])
    consumer.close()
    return sum(ends.values())


@CLIENTS
def test_run_brings_its_rekeyer_along_and_takes_it_down(
    client, network, write_config, pin_model, read_topic, metrics, tmp_path
):
    _, scattered, n_messages = network
    name = f"alone-{secrets.token_hex(4)}"
    path = rekeyed_config(write_config, scattered, name, client)
    pin_model(path, N_TARGETS)
    log = tmp_path / "run.log"
    with ServiceProcess(path, log, "--no-trainer") as service:
        service.wait_until(lambda status: consumed(status) >= n_messages - 30, 90, lambda _: None)
        values = {(metric, labels.get("topic")): value for metric, labels, value in metrics(service)}
        assert values["stream_iwae_events_aggregated_total", f"{name}.rekeyed"] == n_messages - 30

    assert service.exit_code == 0
    assert '"component": "rekeyer", "event": "drained"' in log.read_text()
    for output in ("alerts", "state", "dead_letters", "rekeyed"):
        read_topic(f"{name}.{output}")  # fails where a transaction is open
