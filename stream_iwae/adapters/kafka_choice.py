"""The client library that the configuration names: its source and its sink."""

from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_source import KafkaEventSource
from stream_iwae.errors import ConfigurationError
from stream_iwae.ports import EventSource, OutputSink


def open_source(config: KafkaConfig, topic: str, group: str) -> EventSource:
    """A member of a group on a topic.

    Raises:
        ConfigurationError: The client is not installed, there is no such topic, or the broker refuses us.
        BrokerUnreachableError: No broker answers.
    """
    if config.client == "confluent":
        _require_confluent()
        from stream_iwae.adapters.confluent_source import ConfluentEventSource  # noqa: PLC0415  # an extra

        return ConfluentEventSource(config, topic, group)
    return KafkaEventSource(config, topic, group)


def open_sink(config: KafkaConfig, transactional_id: str) -> OutputSink:
    """A transactional producer.

    Raises:
        ConfigurationError: The client is not installed.
        BrokerUnreachableError: No broker answers.
        DeliveryError: The broker gives no transactions.
    """
    if config.client == "confluent":
        _require_confluent()
        from stream_iwae.adapters.confluent_sink import ConfluentOutputSink  # noqa: PLC0415  # an extra

        return ConfluentOutputSink(config, transactional_id)
    return KafkaOutputSink(config, transactional_id)


def _require_confluent() -> None:
    try:
        import confluent_kafka  # noqa: F401, PLC0415  # an extra
    except ImportError as error:
        remedy = "is not installed; install stream-iwae with the extra `fast`, or take kafka-python"
        raise ConfigurationError("kafka.client", "confluent", remedy) from error
