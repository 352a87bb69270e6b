"""EventSource on confluent-kafka: the same promises as `kafka_source`, by librdkafka, at more than twice the rate.

Its callbacks run inside our own calls of `consume`, so they may act at once. Positions are kept here: the
client's own stop before transaction markers, and only its notice of a partition's end tells that it is past them.
"""

from collections.abc import Iterable
from operator import methodcaller
from typing import Any, Final

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

from stream_iwae.adapters.confluent_client import Errors, confluent_settings, n_partitions_of, refusal
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_permissions import topic_permission
from stream_iwae.adapters.kafka_source import check_topic
from stream_iwae.batches import RecordBatch
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError, FencedError, StreamIwaeError
from stream_iwae.ports import CommittedOffset, GroupToken, Polled

_FETCH_BYTES: Final = 8 * 1024 * 1024  # per partition and fetch
_QUEUED_KIB: Final = 32 * 1024  # fetched ahead of us, per partition
_REQUEST_S: Final = 30.0
_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001  # the client's own names for public numbers
_OUT_OF_RANGE: Final = KafkaError._AUTO_OFFSET_RESET  # noqa: SLF001
_FATAL: Final = frozenset({KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID})  # noqa: SLF001
_UNREADABLE: Final = frozenset({KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG})  # noqa: SLF001
_OFFSET, _VALUE, _TIME = methodcaller("offset"), methodcaller("value"), methodcaller("timestamp")


class ConfluentEventSource:
    """The partitions of one topic that the group gives us."""

    def __init__(self, config: KafkaConfig, topic: str, group: str) -> None:
        self.topic = topic
        self._config = config
        self._permission = topic_permission(config, "READ", topic)
        self._errors = Errors()
        self._positions: dict[int, int] = {}  # of the partitions that are ours
        self._paused: set[int] = set()
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()
        self._lost: set[int] = set()
        self._consumer = Consumer(
            {
                **confluent_settings(config, f"source-{topic}", self._errors),
                "group.id": group,
                "group.instance.id": config.instance,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",  # we choose the start, and count what is missing
                "allow.auto.create.topics": False,
                "partition.assignment.strategy": "cooperative-sticky",
                "max.poll.interval.ms": max(config.max_poll_interval, config.session_timeout),
                "session.timeout.ms": config.session_timeout,
                "heartbeat.interval.ms": max(1000, config.session_timeout // 15),
                "max.partition.fetch.bytes": _FETCH_BYTES,
                "queued.max.messages.kbytes": _QUEUED_KIB,
                "fetch.wait.max.ms": 100,
                "enable.partition.eof": True,
            }
        )
        try:
            check_topic(config, topic, self.n_partitions())
        except (BrokerUnreachableError, ConfigurationError):
            self._consumer.close()
            raise
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def poll(self, timeout_s: float) -> Polled:
        """Records of partitions that are not paused, and changes of the assignment."""
        # The client waits until it has all that it was asked for: one is worth waiting for, the others are taken along.
        messages = self._consumer.consume(1, timeout_s)
        messages += self._consumer.consume(self._config.max_poll_records - 1, 0.0)
        found: dict[int, list[Message[bytes, bytes]]] = {}
        gaps: list[tuple[int, int]] = []
        for message in messages:
            partition, error = message.partition(), message.error()
            if error is not None and error.code() in _FATAL:  # told once; from then on the client is silent
                raise FencedError(f"kafka.instance {self._config.instance!r} is used twice: {error.str()}")
            if error is not None and (refused := refusal(self._config, error, self._permission)) is not None:
                raise refused
            if partition is None or partition not in self._positions or partition in self._assigned:
                continue  # given up, or given anew, since it was fetched
            if error is None:
                found.setdefault(partition, []).append(message)
                self._positions[partition] = int(message.offset() or 0) + 1
            elif error.code() == _END:
                self._positions[partition] = max(self._positions[partition], int(message.offset() or 0))
            elif error.code() == _OUT_OF_RANGE:
                gaps.append(self._seek_to_beginning(partition))
            elif error.code() in _UNREADABLE:  # the client would come back to it for ever
                raise StreamIwaeError(
                    f"a batch of {self.topic}/{partition} at or after offset {self._positions[partition]} cannot be "
                    f"unpacked ({error.str()}); kafka.client: kafka-python reads batches of any size"
                )
        records = tuple(record_batch(self.topic, *fetched) for fetched in sorted(found.items()))
        assigned, revoked, lost = frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost)
        self._assigned, self._revoked, self._lost = set(), set(), set()
        return Polled(records, assigned, revoked, lost, tuple(gaps))

    def _seek_to_beginning(self, partition: int) -> tuple[int, int]:
        """Go on at the first record there is; how many were lost to retention."""
        first = self.beginning_offsets(frozenset({partition}))[partition]
        lost = max(0, first - self._positions[partition])
        self.seek(partition, first)
        return partition, lost

    def n_partitions(self) -> int:
        """How many partitions the topic has; 0 where there is no such topic."""
        return n_partitions_of(self._consumer, self.topic, self._config, self._errors)

    def committed(self, partitions: frozenset[int]) -> dict[int, CommittedOffset | None]:
        """What the group has committed."""
        found = self._consumer.committed(self._partitions(partitions), timeout=_REQUEST_S)
        return {at.partition: CommittedOffset(at.offset, at.metadata or "") if at.offset >= 0 else None for at in found}

    def beginning_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The first offset that the log still holds."""
        return {partition: self._ends(partition)[0] for partition in partitions}

    def end_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The offset after the last stable record."""
        return {partition: self._ends(partition)[1] for partition in partitions}

    def _ends(self, partition: int) -> tuple[int, int]:
        asked = TopicPartition(self.topic, partition)
        ends: tuple[int, int] = self._consumer.get_watermark_offsets(asked, timeout=_REQUEST_S, cached=False)
        return ends

    def offsets_for_time(self, partitions: frozenset[int], timestamp_ms: int) -> dict[int, int]:
        """The first offset with a record time at or after `timestamp_ms`, else the end."""
        asked = [TopicPartition(self.topic, partition, timestamp_ms) for partition in sorted(partitions)]
        ends = self.end_offsets(partitions)
        found = self._consumer.offsets_for_times(asked, timeout=_REQUEST_S)
        return {at.partition: at.offset if at.offset >= 0 else ends[at.partition] for at in found}

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        # The client's seek fails on a partition that it has not begun to fetch; to assign it anew never does.
        self._consumer.incremental_unassign([TopicPartition(self.topic, partition)])
        self._assign({partition: offset})

    def _assign(self, offsets: dict[int, int]) -> None:
        self._consumer.incremental_assign(
            [TopicPartition(self.topic, partition, offset) for partition, offset in sorted(offsets.items())]
        )
        self._positions |= offsets
        # A pause outlives the assignment that it was made in.
        self._consumer.pause(self._partitions(offsets.keys() & self._paused))
        self._consumer.resume(self._partitions(offsets.keys() - self._paused))

    def position(self, partition: int) -> int:
        """The offset of the next record to be polled."""
        return self._positions[partition]

    def high_water(self, partition: int) -> int | None:
        """The end of the partition as the last fetch saw it."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, partition), cached=True)
        return int(high) if high >= 0 else None

    def pause(self, partitions: frozenset[int]) -> None:
        """Fetch nothing from these until resumed."""
        self._paused |= partitions
        self._consumer.pause(self._partitions(partitions))

    def resume(self, partitions: frozenset[int]) -> None:
        """Fetch from these again."""
        for partition in partitions & self._paused:  # what was fetched ahead before the pause is read again
            self._paused.discard(partition)
            self.seek(partition, self._positions[partition])

    def group_token(self) -> GroupToken:
        """The membership that fences a commit."""
        token: GroupToken = self._consumer.consumer_group_metadata()
        return token

    def close(self) -> None:
        """Close without a commit; a static member keeps its partitions for the session time-out."""
        self._consumer.close()

    # --- rebalances: called from within `consume` --------------------------------------------

    def _on_assign(self, _: Any, partitions: list[TopicPartition]) -> None:
        numbers = {at.partition for at in partitions}
        self._assigned |= numbers
        self._paused |= numbers
        self._assign(dict.fromkeys(numbers, OFFSET_BEGINNING))
        self._positions |= dict.fromkeys(numbers, 0)  # the caller seeks

    def _on_revoke(self, _: Any, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, self._revoked)

    def _on_lost(self, _: Any, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, self._lost)

    def _give_up(self, partitions: list[TopicPartition], target: set[int]) -> None:
        self._consumer.incremental_unassign(partitions)
        numbers = {at.partition for at in partitions}
        target |= numbers
        self._assigned -= numbers
        self._paused -= numbers
        for number in numbers:
            self._positions.pop(number, None)

    def _partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in sorted(numbers)]


def record_batch(topic: str, partition: int, messages: "list[Message[bytes, bytes]]") -> RecordBatch:
    """The client's messages of one partition, at least one, column by column."""
    offsets = list(map(_OFFSET, messages))
    return RecordBatch(
        topic=topic,
        partition=partition,
        offsets=np.array(offsets, dtype=np.int64),
        timestamps_ms=np.array([time_ms for _, time_ms in map(_TIME, messages)], dtype=np.int64),
        values=list(map(_VALUE, messages)),
        next_offset=offsets[-1] + 1,
    )
