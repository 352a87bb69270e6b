"""StateReader on kafka-python: the compacted state of one input partition, read to its end."""

from kafka import KafkaConsumer, TopicPartition

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig


class KafkaStateReader:
    """Reads partitions of the state topic; belongs to no group."""

    def __init__(self, config: KafkaConfig) -> None:
        self._topic = config.topics.state
        self._consumer = connected(
            config,
            lambda: KafkaConsumer(
                **client_settings(config, "state"),
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                max_poll_records=10_000,
            ),
        )

    def read(self, partition: int) -> list[tuple[bytes, bytes]]:
        """All committed (key, value), the last value of each key, in order of the log."""
        return list(read_compacted(self._consumer, TopicPartition(self._topic, partition)).items())

    def close(self) -> None:
        """Release the sockets."""
        self._consumer.close(autocommit=False)


def read_compacted(consumer: KafkaConsumer, partition: TopicPartition) -> dict[bytes, bytes]:
    """The last value of each key from the beginning to the present end; tombstones remove.

    The end is reached by position, not by count: transaction markers occupy offsets too.
    """
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    end = consumer.end_offsets([partition])[partition]
    values: dict[bytes, bytes] = {}
    while consumer.position(partition) < end:
        for record in consumer.poll(timeout_ms=500).get(partition, ()):
            values.pop(record.key, None)
            if record.value is not None:
                values[record.key] = record.value
    return values
