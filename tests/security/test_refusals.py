"""Why a broker does not let us in is told in full: key, value and remedy, and never as a time-out alone."""

import socket
import time

import pytest

from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.adapters.kafka_client import tls_context
from stream_iwae.adapters.kafka_permissions import check_permissions
from stream_iwae.adapters.kafka_probe import probe
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError

pytestmark = pytest.mark.kafka

WRONG = "wrong-canary"
WAYS = pytest.mark.parametrize("way", ["scram", "mutual-tls"])
CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "confluent"])


def told_by(config):
    """What the probe and a client of each kind say, the latter after their own attempts."""
    with pytest.raises(ConfigurationError) as first:
        check_permissions(config, ())
    with pytest.raises(ConfigurationError) as second:
        open_source(config, config.topics.events, config.group)
    with pytest.raises(ConfigurationError) as third:
        open_sink(config, "id")
    assert str(first.value) == str(second.value) == str(third.value)
    return first.value


@WAYS
def test_who_is_let_in_is_told_nothing(secure_config, way):
    config = secure_config(way)

    probe(config, tls_context(config))


@CLIENTS
def test_a_wrong_password_is_named_at_once_and_not_shown(secure_config, client):
    config = secure_config(client=client, sasl_password=WRONG, connect_timeout="60s")
    started_s = time.monotonic()

    with pytest.raises(ConfigurationError) as told:
        check_permissions(config, ())

    assert time.monotonic() - started_s < 10
    assert told.value.key == "kafka.sasl_username"
    assert "password" in told.value.remedy
    assert "canary" not in str(told.value)


@CLIENTS
@pytest.mark.parametrize(
    ("way", "changes", "key", "words"),
    [
        ("scram", {"sasl_password": "wrong"}, "kafka.sasl_username", "refuses this user or its password"),
        ("scram", {"sasl_username": "nobody"}, "kafka.sasl_username", "refuses this user or its password"),
        ("scram", {"sasl_mechanism": "SCRAM-SHA-256"}, "kafka.sasl_mechanism", "offers SCRAM-SHA-512"),
        ("scram", {"ssl_cafile": "other_authority"}, "kafka.ssl_cafile", "is not signed by this authority"),
        ("scram", {"bootstrap_servers": "plain"}, "kafka.security_protocol", "does not speak TLS"),
        ("scram", {"security_protocol": "SASL_PLAINTEXT"}, "kafka.security_protocol", "a listener with TLS"),
        ("scram", {"security_protocol": "PLAINTEXT"}, "kafka.security_protocol", "a listener with TLS"),
        ("scram", {"security_protocol": "SSL"}, "kafka.security_protocol", "wants SASL; take SASL_SSL"),
        (
            "scram",
            {"security_protocol": "SASL_PLAINTEXT", "bootstrap_servers": "plain"},
            "kafka.security_protocol",
            "takes no SASL .*take PLAINTEXT",
        ),
        ("mutual-tls", {"ssl_certfile": None, "ssl_keyfile": None}, "kafka.ssl_certfile", "wants a certificate"),
        (
            "mutual-tls",
            {"ssl_certfile": "stranger", "ssl_keyfile": "stranger_key"},
            "kafka.ssl_certfile",
            "refuses this certificate",
        ),
        ("mutual-tls", {"bootstrap_servers": "plain"}, "kafka.security_protocol", "does not speak TLS"),
    ],
)
def test_each_refusal_names_the_key_that_is_wrong(
    secure_config, secured, certificates, client, way, changes, key, words
):
    def of(name, value):
        if name == "bootstrap_servers":
            return secured.plain
        return str(getattr(certificates, value)) if name.startswith("ssl_") and value else value

    changed = {name: of(name, value) for name, value in changes.items()}
    told = told_by(secure_config(way, client=client, connect_timeout="1s", transaction_timeout="1s", **changed))

    assert told.key == key
    assert told.exit_code == 78
    assert pytest.importorskip("re").search(words, told.remedy), told.remedy


def test_a_name_that_the_certificate_does_not_hold_is_told_from_a_wrong_authority(secure_config, secured):
    other_name = secured.sasl.replace("127.0.0.1", "127.0.0.2")  # all of 127/8 is this machine
    with pytest.raises((ConfigurationError, BrokerUnreachableError)) as told:
        check_permissions(secure_config(bootstrap_servers=other_name), ())
    if isinstance(told.value, BrokerUnreachableError):
        pytest.skip("the broker listens on 127.0.0.1 alone")
    assert told.value.key == "kafka.bootstrap_servers"


@CLIENTS
def test_a_broker_that_is_away_is_told_from_all_of_these(secure_config, client):
    config = secure_config(client=client, bootstrap_servers="127.0.0.1:1", connect_timeout="1s")

    with pytest.raises(BrokerUnreachableError, match=r"127\.0\.0\.1:1"):
        check_permissions(config, ())


def test_a_broker_that_answers_and_refuses_counts_more_than_one_that_is_away(secure_config, secured):
    config = secure_config(bootstrap_servers=f"127.0.0.1:1,{secured.sasl}", sasl_password=WRONG)

    with pytest.raises(ConfigurationError, match="refuses this user"):
        check_permissions(config, ())


def test_what_accepts_and_never_answers_is_no_broker(secure_config, monkeypatch):
    monkeypatch.setattr("stream_iwae.adapters.kafka_probe._STEP_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        for protocol in ("PLAINTEXT", "SSL"):
            config = secure_config("mutual-tls", bootstrap_servers=address, security_protocol=protocol)
            with pytest.raises(BrokerUnreachableError, match="does not answer"):
                probe(config, tls_context(config))


@pytest.mark.parametrize("key", ["ssl_cafile", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_missing_or_no_pem_is_named(secure_config, tmp_path, key):
    for path in (tmp_path / "absent", tmp_path / "none.pem"):
        (tmp_path / "none.pem").write_text("no certificate")
        with pytest.raises(ConfigurationError) as told:
            check_permissions(secure_config("mutual-tls", **{key: str(path)}), ())
        assert told.value.key in {f"kafka.{key}", "kafka.ssl_certfile"}


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe canary"])
def test_a_password_file_that_cannot_be_used_is_named(secure_config, tmp_path, content):
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError) as told:
        check_permissions(secure_config(sasl_password=None, sasl_password_file=str(path)), ())
    assert told.value.key == "kafka.sasl_password_file"
    assert "canary" not in str(told.value)
