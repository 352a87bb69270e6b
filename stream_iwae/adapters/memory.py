"""In-memory twins of the ports, for replays and tests; they keep the promises of the real ones."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from stream_iwae.adapters.memory_broker import MAX_METADATA_BYTES, Membership, MemoryBroker
from stream_iwae.adapters.prometheus import COUNTERS, GAUGES, HISTOGRAMS
from stream_iwae.batches import RecordBatch
from stream_iwae.errors import ArtefactError, DeliveryError, FencedError
from stream_iwae.ports import CommittedOffset, Fence, GroupToken, ModelAnnouncement, OutputRecord, Polled

KEPT_VERSIONS: Final = 5  # as model_store.py, which would load the Kafka client


class VirtualClock:
    """Time that moves when it is told to."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._started_ms = now_ms

    def now_ms(self) -> int:
        """Wall-clock milliseconds."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        return (self._now_ms - self._started_ms) / 1000

    def advance(self, duration_ms: int) -> None:
        """Let time pass."""
        self._now_ms += duration_ms


class MemoryEventSource:
    """A member of a group on a MemoryBroker; `cut` says how many offsets the next poll may take."""

    def __init__(
        self, broker: MemoryBroker, topic: str, group: str, member: str, cut: Callable[[], int] = lambda: 10_000
    ) -> None:
        self.topic = topic
        self._broker, self._group, self._member, self._cut = broker, group, member, cut
        self._incarnation = broker.join(group, member)
        self._generation = -1
        self._positions: dict[int, int] = {}
        self._paused: set[int] = set()

    def poll(self, timeout_s: float) -> Polled:  # noqa: ARG002  # never waits
        """Records of partitions that are not paused, and changes of the assignment.

        Raises:
            FencedError: Another process has come under this member's name.
        """
        self._broker.check_incarnation(self.group_token())
        assigned, revoked, lost = self._rejoin()
        gaps = tuple(self._skip_deleted(sorted(set(self._positions) - self._paused - assigned)))
        records = [
            batch
            for partition in sorted(set(self._positions) - self._paused - assigned)
            if (batch := self._fetch(partition)) is not None
        ]
        return Polled(tuple(records), frozenset(assigned), frozenset(revoked), frozenset(lost), gaps)

    def _skip_deleted(self, partitions: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Go on at the first record there is; (partition, how many were lost)."""
        for partition in partitions:
            first = self._broker.first_offset(self.topic, partition)
            lost = first - self._positions[partition]
            if lost > 0:
                self._positions[partition] = first
                yield partition, lost

    def _rejoin(self) -> tuple[set[int], set[int], set[int]]:
        """Assigned, revoked and lost partitions; who slept through a generation has lost all it had."""
        group = self._broker.group(self._group)
        if group.generation == self._generation:
            return set(), set(), set()
        has_missed_one = group.generation > self._generation + 1
        self._generation = group.seen[self._member] = group.generation
        mine = set(group.assignment.get(self._member, frozenset()))
        held = set(self._positions)
        lost = held if has_missed_one else set()
        revoked = held - mine - lost
        assigned = mine - (held - lost)
        self._positions = {p: at for p, at in self._positions.items() if p in mine - assigned}
        self._paused &= set(self._positions)
        for partition in assigned:
            self._positions[partition] = 0
            self._paused.add(partition)
        return assigned, revoked, lost

    def _fetch(self, partition: int) -> RecordBatch | None:
        start = self._positions[partition]
        end = min(self._broker.stable_end(self.topic, partition), self._reach(partition, start))
        log = self._broker.logs[self.topic][partition]
        if end <= start:
            return None
        self._positions[partition] = end
        seen = [(at, log[at]) for at in range(start, end) if log[at].is_visible and not log[at].is_marker]
        if not seen:
            return None
        return RecordBatch(
            topic=self.topic,
            partition=partition,
            offsets=np.array([at for at, _ in seen], dtype=np.int64),
            timestamps_ms=np.array([entry.timestamp_ms for _, entry in seen], dtype=np.int64),
            values=[entry.value for _, entry in seen],
            next_offset=end,
        )

    def _reach(self, partition: int, start: int) -> int:  # noqa: ARG002  # where one may be cut otherwise
        """The offset before which a poll that begins at `start` ends."""
        return start + self._cut()

    def n_partitions(self) -> int:
        """How many partitions the topic has."""
        return len(self._broker.logs[self.topic])

    def committed(self, partitions: frozenset[int]) -> dict[int, CommittedOffset | None]:
        """What the group has committed; waits for what a transaction is about to commit."""
        return {
            partition: self._broker.committed(self._group, (self.topic, partition)) for partition in sorted(partitions)
        }

    def beginning_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The first offset that the log still holds."""
        return {partition: self._broker.first_offset(self.topic, partition) for partition in partitions}

    def end_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The offset after the last stable record."""
        return {partition: self._broker.stable_end(self.topic, partition) for partition in partitions}

    def offsets_for_time(self, partitions: frozenset[int], timestamp_ms: int) -> dict[int, int]:
        """The first offset with a record time at or after `timestamp_ms`, else the end."""
        ends = self.end_offsets(partitions)
        return {
            partition: next(
                (
                    at
                    for at, entry in enumerate(self._broker.logs[self.topic][partition][: ends[partition]])
                    if not entry.is_marker and entry.timestamp_ms >= timestamp_ms
                ),
                ends[partition],
            )
            for partition in partitions
        }

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""
        self._positions[partition] = offset

    def position(self, partition: int) -> int:
        """The offset of the next record to be polled."""
        return self._positions[partition]

    def high_water(self, partition: int) -> int | None:
        """The end of the partition."""
        return len(self._broker.logs[self.topic][partition])

    def pause(self, partitions: frozenset[int]) -> None:
        """Fetch nothing from these until resumed."""
        self._paused |= partitions & set(self._positions)

    def resume(self, partitions: frozenset[int]) -> None:
        """Fetch from these again."""
        self._paused -= partitions

    def group_token(self) -> Membership:
        """The membership that fences a commit."""
        return Membership(self._group, self._member, self._generation, self._incarnation)

    def close(self) -> None:
        """Nothing is held."""


class MemoryOutputSink:
    """A transactional producer on a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, transactional_id: str) -> None:
        self._broker, self._id = broker, transactional_id
        self._epoch = broker.init_transactions(transactional_id)

    def commit(
        self,
        records: Sequence[OutputRecord],
        offsets: Mapping[int, CommittedOffset],
        source_topic: str,
        group: GroupToken,
    ) -> None:
        """Publish and commit in one transaction, by the steps of the real ones."""
        if group is not None and not isinstance(group, Membership):
            raise DeliveryError(f"{group!r} is no membership of this broker's")
        for partition, found in offsets.items():
            if len(found.metadata.encode()) > MAX_METADATA_BYTES:
                raise DeliveryError(
                    f"commit metadata of more than {MAX_METADATA_BYTES} bytes for partition {partition}"
                )
        broker, mine = self._broker, (self._id, self._epoch)
        broker.before_effect("begin")
        broker.begin(*mine)
        try:
            self.check([broker.send(*mine, record) for record in records])
            if offsets and group is not None:
                broker.add_offsets(*mine, {(source_topic, p): found for p, found in offsets.items()}, group)
        except DeliveryError as error:
            self._abort(error)
            raise
        broker.before_effect("commit")
        broker.end(*mine, is_committed=True)
        broker.before_effect("committed")

    def check(self, arrived: Sequence[bool]) -> None:
        """A record that expired fails its future alone: without a look at each the commit would leave it out."""
        self._broker.before_effect("flush")
        if not all(arrived):
            raise DeliveryError(f"{arrived.count(False)} of {len(arrived)} records expired on their way")

    def _abort(self, error: DeliveryError) -> None:
        """End the transaction in order, unless it is no longer ours."""
        if self._broker.is_current(self._id, self._epoch):
            self._broker.end(self._id, self._epoch, is_committed=False)
        elif not isinstance(error, FencedError):
            raise FencedError(f"another producer uses {self._id!r}") from error

    def recover(self) -> None:
        """A new epoch; what was open is aborted."""
        self._epoch = self._broker.init_transactions(self._id)

    def close(self) -> None:
        """Nothing is held."""


class MemoryStateReader:
    """Reads a compacted topic of a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, topic: str) -> None:
        self._broker, self._topic = broker, topic

    def read(self, partition: int) -> list[tuple[bytes, bytes]]:
        """All committed (key, value), the last value of each key, in order of the log."""
        values: dict[bytes, bytes] = {}
        for at, _, entry in self._broker.committed_records(self._topic):
            if at != partition or entry.key is None:
                continue
            values.pop(entry.key, None)
            if entry.value is not None:
                values[entry.key] = entry.value
        return list(values.items())

    def close(self) -> None:
        """Nothing is held."""


class ModelShelf:
    """Artefacts by version, shared by the stores of several processes."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.n_announced = 0
        self.current: ModelAnnouncement | None = None
        self.damaged: set[str] = set()

    def blob(self, version: str) -> bytes:
        """One artefact.

        Raises:
            ArtefactError: It is missing or was declared damaged.
        """
        if version not in self.blobs or version in self.damaged:
            raise ArtefactError(f"there is no sound model {version!r}")
        return self.blobs[version]


class MemoryModelStore:
    """One process's view of a shelf."""

    def __init__(self, shelf: ModelShelf) -> None:
        self._shelf = shelf
        self._n_seen = 0

    def poll(self) -> ModelAnnouncement | None:
        """The newest announcement since the last call."""
        if self._n_seen == self._shelf.n_announced:
            return None
        self._n_seen = self._shelf.n_announced
        current = self._shelf.current
        if current is not None:
            self._shelf.blob(current.version)
        return current

    def publish(self, version: str, blob: bytes, announced_ms: int, fence: Fence | None = None) -> None:  # noqa: ARG002  # the port's
        """Store and announce; the newest five are kept."""
        blobs = self._shelf.blobs
        blobs.pop(version, None)
        blobs[version] = blob
        for old in list(blobs)[:-KEPT_VERSIONS]:
            del blobs[old]
        self._shelf.current = ModelAnnouncement(version, blob)
        self._shelf.n_announced += 1

    def versions(self) -> list[str]:
        """The versions stored, oldest first."""
        return list(self._shelf.blobs)

    def load(self, version: str) -> bytes:
        """The artefact of one version."""
        return self._shelf.blob(version)

    def close(self) -> None:
        """Nothing is held."""


class MemoryTelemetry:
    """Counters and gauges as plain numbers; names and labels are those of the real one."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.gauges: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self.observations: dict[str, list[float]] = {}
        self.infos: dict[str, dict[str, str]] = {}
        self.sections: dict[str, Mapping[str, object]] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = self._key(COUNTERS, name, labels)
        self.counters[key] = self.counters.get(key, 0) + amount

    def total(self, name: str) -> float:
        """A counter summed over its labels."""
        return sum(value for (counter, _), value in self.counters.items() if counter == name)

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.gauges[self._key(GAUGES, name, labels)] = value

    def forget(self, name: str, **labels: str) -> None:
        """Take a gauge away."""
        self.gauges.pop(self._key(GAUGES, name, labels), None)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation."""
        self._key(HISTOGRAMS, name, labels)
        self.observations.setdefault(name, []).append(value)

    def info(self, name: str, **labels: str) -> None:
        """Set an info metric."""
        self.infos[name] = labels

    def status(self, section: str, values: Mapping[str, object]) -> None:
        """Replace one section of the status."""
        self.sections[section] = values

    def progress(self, component: str, now_s: float) -> None:
        """Nobody asks for health here."""

    @staticmethod
    def _key(
        families: Mapping[str, Any], name: str, labels: Mapping[str, str]
    ) -> tuple[str, frozenset[tuple[str, str]]]:
        if set(families[name].labels) != set(labels):
            raise ValueError(f"{name} has the labels {families[name].labels}, got {sorted(labels)}")
        return name, frozenset(labels.items())
