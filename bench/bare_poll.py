"""Events a second that kafka-python alone delivers, in a process of its own that has imported nothing else."""

import sys
import time

from kafka import KafkaConsumer, TopicPartition


def main() -> None:
    servers, topic, n_events = sys.argv[1], sys.argv[2], int(sys.argv[3])
    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=10_000,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    consumer.assign([TopicPartition(topic, 0)])
    n, began = 0, None
    while n < n_events:
        for records in consumer.poll(timeout_ms=1000).values():
            began = began or time.perf_counter()
            n += len(records)
    print(n / (time.perf_counter() - began))
    consumer.close()


if __name__ == "__main__":
    main()
