"""Reads the alerts topic as its consumers do, read_committed, and times how long alerts took."""

import time
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition

AlertData = dict[str, Any]


class AlertReader:
    """All alerts from the beginning of the topic."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=20,
        )
        self._topic = topic
        self._partitions: list[TopicPartition] = []
        self.seen: list[AlertData] = []

    def __enter__(self) -> Self:
        """It is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the consumer."""
        self._consumer.close()

    def poll(self, timeout_s: float = 0.0) -> list[AlertData]:
        """New alerts."""
        if not self._partitions:
            numbers = self._consumer.partitions_for_topic(self._topic) or ()
            self._partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
            if not self._partitions:
                return []
            self._consumer.assign(self._partitions)
        polled = self._consumer.poll(timeout_ms=int(timeout_s * 1000))
        new = [msgspec.json.decode(record.value) for records in polled.values() for record in records]
        self.seen += new
        return new

    def read_to_end(self) -> list[AlertData]:
        """Everything that is committed by now."""
        new = self.poll()
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(partition) < end for partition, end in ends.items()):
            new += self.poll(0.1)
        return new


class Latencies:
    """From sending the first event that closes a window, to reading its alert."""

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._sent_s: list[tuple[int, float]] = []  # (event time, when it was sent), both ascending
        self.seconds: list[float] = []

    def sent(self, event_ms: int) -> None:
        """An event of that time was sent just now."""
        if not self._sent_s or event_ms >= self._sent_s[-1][0] + 1000:
            self._sent_s.append((event_ms, time.monotonic()))

    def arrived(self, window_end: str) -> None:
        """The alert of a window that ended then (RFC 3339) was read just now."""
        closes_ms = datetime.fromisoformat(window_end).timestamp() * 1000 + self._grace_ms
        sent_s = next((at_s for event_ms, at_s in self._sent_s if event_ms >= closes_ms), None)
        if sent_s is not None:
            self.seconds.append(time.monotonic() - sent_s)

    def quantiles(self) -> dict[str, float | None]:
        """Median and 99 % quantile in seconds; None where no alert was timed."""
        if not self.seconds:
            return {"p50": None, "p99": None}
        p50, p99 = np.quantile(self.seconds, [0.5, 0.99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
