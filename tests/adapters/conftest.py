"""Builders for the adapters: a configuration for the running Kafka, and what a reader sees of a topic."""

import secrets

import pytest


@pytest.fixture
def make_config(kafka):
    """Make a KafkaConfig for the running broker; every test has a group of its own."""
    from stream_iwae.adapters.kafka_config import KafkaConfig

    group = f"group-{secrets.token_hex(4)}"

    def make(**settings):
        wanted = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "group": group,
            "instance": "a",
            "topics": {"events": "unused"},
            "session_timeout": "10s",
            "transaction_timeout": "4s",
            "max_message": "64KiB",
            **settings,
        }
        return KafkaConfig.model_validate(wanted)

    return make


@pytest.fixture
def opened():
    """Close at the end what a test has opened: ``source = opened(KafkaEventSource(...))``."""
    several = []

    def run(one):
        several.append(one)
        return one

    yield run
    for one in reversed(several):
        one.close()


@pytest.fixture
def visible(kafka):
    """Values of a topic's partition 0 that a read_committed reader sees, once no transaction is open there."""
    from kafka import KafkaConsumer, TopicPartition

    settings = {"bootstrap_servers": kafka.bootstrap_servers, "enable_auto_commit": False}
    plain = KafkaConsumer(**settings, isolation_level="read_uncommitted")
    reader = KafkaConsumer(**settings, isolation_level="read_committed", auto_offset_reset="earliest")

    def read(topic):
        partition = TopicPartition(topic, 0)
        # A commit is answered before its markers are written, so the last stable offset may lag behind it.
        end = plain.end_offsets([partition])[partition]
        reader.assign([partition])
        reader.seek_to_beginning(partition)
        found = []
        while reader.position(partition) < end:
            found += [record.value for record in reader.poll(timeout_ms=200).get(partition, ())]
        return found

    yield read
    plain.close(autocommit=False)
    reader.close(autocommit=False)
