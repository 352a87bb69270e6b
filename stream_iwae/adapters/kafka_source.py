"""EventSource on kafka-python: a group member that hands out columnar batches.

The client is not thread safe, and its rebalance listener may run on a thread of its own: the listener
only records what changed, and the poll that returns it acts.
"""

import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    AuthorizationError,
    FencedInstanceIdError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_permissions import refused, topic_permission
from stream_iwae.adapters.kafka_records import Record, read_plain_records
from stream_iwae.adapters.kafka_rejoin import keep_finished_joins, tell_fenced, tell_settled
from stream_iwae.adapters.kafka_sink import METADATA_END
from stream_iwae.batches import RecordBatch
from stream_iwae.errors import ConfigurationError, FencedError
from stream_iwae.ports import CommittedOffset, GroupToken, Polled

_SHORTEST_POLL_MS: Final = 50  # the client takes no step of a rebalance in a poll that does not wait
_FETCH_BYTES: Final = 8 * 1024 * 1024  # per partition and fetch


class KafkaEventSource:
    """The partitions of one topic that the group gives us."""

    def __init__(self, config: KafkaConfig, topic: str, group: str) -> None:
        self.topic = topic
        self._config = config
        self._changes = _Changes()
        self._passed_over: list[tuple[int, int, int]] = []
        self._consumer = connected(
            config,
            lambda: KafkaConsumer(
                **client_settings(config, f"source-{topic}"),
                group_id=group,
                group_instance_id=config.instance,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="none",  # we choose the start, and count what is missing
                allow_auto_create_topics=False,
                partition_assignment_strategy=[CooperativeStickyAssignor],
                max_poll_records=config.max_poll_records,
                max_poll_interval_ms=config.max_poll_interval,
                session_timeout_ms=config.session_timeout,
                heartbeat_interval_ms=max(1000, config.session_timeout // 15),
                max_partition_fetch_bytes=_FETCH_BYTES,
                fetch_max_wait_ms=100,
            ),
        )
        try:
            check_topic(config, topic, self.n_partitions())
        except ConfigurationError:
            self._consumer.close(autocommit=False)
            raise
        keep_finished_joins(self._consumer)
        self._token: GroupToken = self._consumer.group_metadata()
        tell_settled(self._consumer, self._changes.settle)
        self._fenced_by: Exception | None = None
        tell_fenced(self._consumer, self._fence)
        read_plain_records(self._consumer, config.max_unpacked, self._pass_over)
        self._consumer.subscribe([topic], listener=self._changes)

    def poll(self, timeout_s: float) -> Polled:
        """Records of partitions that are not paused, and changes of the assignment."""
        gaps: tuple[tuple[int, int], ...] = ()
        try:
            if self._fenced_by is not None:
                raise self._fenced_by
            found = self._consumer.poll(timeout_ms=max(_SHORTEST_POLL_MS, int(timeout_s * 1000)))
        except NoOffsetForPartitionError:
            found = {}  # newly assigned and without a commit: the caller seeks
        except OffsetOutOfRangeError as error:
            found, gaps = {}, self._seek_to_beginning(error)
        except FencedInstanceIdError as error:
            raise FencedError(f"kafka.instance {self._config.instance!r} is used twice: {error!r}") from error
        except AuthorizationError as error:
            raise refused(self._config, error, topic_permission(self._config, "READ", self.topic)) from error
        token, assigned, revoked, lost = self._changes.take()
        self._token = token or self._token
        if assigned:
            # Whatever was fetched of them is read again from where the caller seeks to.
            self._consumer.pause(*self._partitions(assigned))
        records = tuple(
            record_batch(partition, fetched, self._consumer.position(partition))
            for partition, fetched in sorted(found.items())
            if fetched and partition.partition not in assigned
        )
        passed_over = tuple(batch for batch in self._passed_over if batch[0] not in assigned)
        self._passed_over.clear()
        return Polled(records, assigned, revoked, lost, gaps, passed_over)

    def _pass_over(self, partition: int, offset: int, n_records: int) -> None:
        self._passed_over.append((partition, offset, n_records))

    def _fence(self, error: Exception) -> None:
        self._fenced_by = error

    def _seek_to_beginning(self, error: OffsetOutOfRangeError) -> tuple[tuple[int, int], ...]:
        """Go on at the first record there is; how many were lost to retention, by partition."""
        positions: dict[TopicPartition, int] = error.args[0]
        first = self._consumer.beginning_offsets(list(positions))
        for partition, offset in first.items():
            self._consumer.seek(partition, offset)
        return tuple((partition.partition, max(0, first[partition] - at)) for partition, at in positions.items())

    def n_partitions(self) -> int:
        """How many partitions the topic has; 0 where there is no such topic."""
        return len(self._consumer.partitions_for_topic(self.topic) or ())

    def committed(self, partitions: frozenset[int]) -> dict[int, CommittedOffset | None]:
        """What the group has committed."""
        out: dict[int, CommittedOffset | None] = {}
        for partition in self._partitions(partitions):
            found = self._consumer.committed(partition, metadata=True)
            out[partition.partition] = (
                CommittedOffset(found.offset, found.metadata.removesuffix(METADATA_END)) if found else None
            )
        return out

    def beginning_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The first offset that the log still holds."""
        return _by_number(self._consumer.beginning_offsets(self._partitions(partitions)))

    def end_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The offset after the last stable record."""
        return _by_number(self._consumer.end_offsets(self._partitions(partitions)))

    def offsets_for_time(self, partitions: frozenset[int], timestamp_ms: int) -> dict[int, int]:
        """The first offset with a record time at or after `timestamp_ms`, else the end."""
        asked = dict.fromkeys(self._partitions(partitions), timestamp_ms)
        ends = self.end_offsets(partitions)
        found = self._consumer.offsets_for_times(asked)
        return {tp.partition: hit.offset if hit else ends[tp.partition] for tp, hit in found.items()}

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._consumer.seek(TopicPartition(self.topic, partition), offset)

    def position(self, partition: int) -> int:
        """The offset of the next record to be polled."""
        return int(self._consumer.position(TopicPartition(self.topic, partition)))

    def high_water(self, partition: int) -> int | None:
        """The end of the partition as the last fetch saw it."""
        found: int | None = self._consumer.highwater(TopicPartition(self.topic, partition))
        return found

    def pause(self, partitions: frozenset[int]) -> None:
        """Fetch nothing from these until resumed."""
        self._consumer.pause(*self._partitions(partitions))

    def resume(self, partitions: frozenset[int]) -> None:
        """Fetch from these again."""
        self._consumer.resume(*self._partitions(partitions))

    def group_token(self) -> GroupToken:
        """The membership that fences a commit: that of the changes that polls have told, not a later one."""
        return self._token

    def close(self) -> None:
        """Close without a commit; a static member keeps its partitions for the session time-out."""
        self._consumer.close(autocommit=False)

    def _partitions(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in sorted(numbers)]


def check_topic(config: KafkaConfig, topic: str, n_partitions: int) -> None:
    """Raise ConfigurationError, with the key that names it, where there is no such topic."""
    if n_partitions == 0:
        key = next((f"kafka.topics.{name}" for name, value in config.topics if value == topic), "kafka.topics")
        raise ConfigurationError(key, topic, "there is no such topic; make it, or correct the name")


def record_batch(partition: TopicPartition, records: Sequence[Record], next_offset: int) -> RecordBatch:
    """The records of one partition, at least one, column by column."""
    offsets, times_ms, values = zip(*records, strict=True)
    return RecordBatch(
        topic=partition.topic,
        partition=partition.partition,
        offsets=np.array(offsets, dtype=np.int64),
        timestamps_ms=np.array(times_ms, dtype=np.int64),
        values=values,
        next_offset=next_offset,
    )


class _Changes(ConsumerRebalanceListener):  # type: ignore[misc]  # the client publishes no types
    """What rebalances did since the last poll returned, and the membership in which they did it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._coming: set[int] = set()  # assigned in a join that has not settled
        self._assigned: set[int] = set()
        self._revoked: set[int] = set()
        self._lost: set[int] = set()
        self._token: GroupToken | None = None
        self._member_id: str | None = None

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        with self._lock:
            self._coming |= {partition.partition for partition in assigned}

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        self._give_up(revoked, self._revoked)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        self._give_up(lost, self._lost)

    def settle(self, token: Any, owned: Iterable[TopicPartition]) -> None:
        """A join is over, and all its changes were told, but for one.

        Where a member learns only from its request to join that it has slept past its session, the client keeps what
        it owned and tells nothing. Others may have owned it meanwhile: under another member id it is lost and assigned.
        """
        with self._lock:
            if self._member_id not in {None, token.member_id}:
                kept = {partition.partition for partition in owned} - self._coming - self._assigned
                self._lost |= kept
                self._assigned |= kept
            self._member_id = token.member_id
            self._assigned |= self._coming
            self._coming.clear()
            self._token = token

    def take(self) -> tuple[GroupToken | None, frozenset[int], frozenset[int], frozenset[int]]:
        """The membership, and what was assigned, revoked and lost; a partition that came back is in two of them."""
        with self._lock:
            taken = self._token, frozenset(self._assigned), frozenset(self._revoked), frozenset(self._lost)
            for changed in (self._assigned, self._revoked, self._lost):
                changed.clear()
        return taken

    def _give_up(self, partitions: Iterable[TopicPartition], target: set[int]) -> None:
        numbers = {partition.partition for partition in partitions}
        with self._lock:
            target |= numbers
            self._assigned -= numbers
            self._coming -= numbers


def _by_number(offsets: dict[TopicPartition, int]) -> dict[int, int]:
    return {partition.partition: offset for partition, offset in offsets.items()}
