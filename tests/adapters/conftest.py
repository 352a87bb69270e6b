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
    """Values of a topic that a read_committed reader sees up to its last stable offset."""
    from kafka import KafkaConsumer, TopicPartition

    from stream_iwae.adapters.kafka_state import read_compacted

    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    yield lambda topic: sorted(read_compacted(consumer, TopicPartition(topic, 0)).values())
    consumer.close(autocommit=False)
