"""What every client of kafka-python is told."""

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer

from stream_iwae.adapters.kafka_client import client_settings

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("kind", [KafkaConsumer, KafkaProducer, KafkaAdminClient])
def test_a_broker_that_is_away_is_tried_again_within_a_second(kind, make_config, opened):
    """While it waits, the client does not ask another broker who leads now: seen as 30 s without state to read."""
    client = opened(kind(**client_settings(make_config(), "test")))

    assert client.config["reconnect_backoff_max_ms"] <= 1_000
