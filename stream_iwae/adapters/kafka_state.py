"""StateReader on kafka-python: the compacted state of one input partition, read to its end."""

from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig

_ASK_MS: Final = 4_000
_ATTEMPTS: Final = 8  # together as long as the client would try by itself


class KafkaStateReader:
    """Reads partitions of the state topic; belongs to no group."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config, self._topic = config, config.topics.state
        self._consumer = self._connect()

    def _connect(self) -> KafkaConsumer:
        return connected(
            self._config,
            lambda: KafkaConsumer(
                **client_settings(self._config, "state"),
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                max_poll_records=10_000,
            ),
        )

    def read(self, partition: int) -> list[tuple[bytes, bytes]]:
        """All committed (key, value), the last value of each key, in order of the log.

        A consumer that has been idle may ask a broker that is gone, and nobody else, until its time is over: a new one
        asks those that there are.
        """
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._read(partition)
            except KafkaTimeoutError:
                self._consumer.close(autocommit=False)
                self._consumer = self._connect()
        return self._read(partition)

    def _read(self, partition: int) -> list[tuple[bytes, bytes]]:
        return list(read_compacted(self._consumer, TopicPartition(self._topic, partition), _ASK_MS).items())

    def close(self) -> None:
        """Release the sockets."""
        self._consumer.close(autocommit=False)


def read_compacted(
    consumer: KafkaConsumer, partition: TopicPartition, timeout_ms: int | None = None
) -> dict[bytes, bytes]:
    """The last value of each key from the beginning to the present end; tombstones remove.

    The end is reached by position, not by count: transaction markers occupy offsets too.
    """
    consumer.assign([partition])
    consumer.seek_to_beginning(partition)
    end = consumer.end_offsets([partition], timeout_ms=timeout_ms)[partition]
    values: dict[bytes, bytes] = {}
    while consumer.position(partition) < end:
        for record in consumer.poll(timeout_ms=500).get(partition, ()):
            values.pop(record.key, None)
            if record.value is not None:
                values[record.key] = record.value
    return values
