"""Events a second that a client alone delivers, in a process of its own that has imported nothing else."""

import sys
import time
from collections.abc import Iterator


def kafka_python(servers: str, topic: str) -> Iterator[int]:
    """Sizes of polls."""
    from kafka import KafkaConsumer, TopicPartition  # noqa: PLC0415  # the other client is not to be imported

    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=10_000,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    consumer.assign([TopicPartition(topic, 0)])
    while True:
        yield sum(map(len, consumer.poll(timeout_ms=1000).values()))


def confluent(servers: str, topic: str) -> Iterator[int]:
    """Sizes of polls."""
    from confluent_kafka import Consumer, TopicPartition  # noqa: PLC0415

    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "bare",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "max.partition.fetch.bytes": 8 * 1024 * 1024,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    while True:
        yield len(consumer.consume(10_000, 1.0))


def main() -> None:
    client, servers, topic, n_events = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    n, began = 0, None
    for size in (confluent if client == "confluent" else kafka_python)(servers, topic):
        if size:
            began = began or time.perf_counter()
            n += size
        if n >= n_events:
            break
    print(n / (time.perf_counter() - began))


if __name__ == "__main__":
    main()
