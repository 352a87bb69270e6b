"""An in-memory Kafka: logs, transactions, groups, and a place to put faults.

Enough of Kafka's promises to prove ours against: a transaction is visible to read_committed readers whole
or not at all; its marker occupies an offset; offsets commit with it; an old generation and an old epoch
are refused. `before_effect` is called before every effect, so that a test can end the process there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stream_iwae.errors import AmbiguousCommitError, DeliveryError, FencedError, StaleGroupError
from stream_iwae.ports import CommittedOffset, OutputRecord

Topic = str
Place = tuple[str, int]  # topic, partition
MAX_METADATA_BYTES: Final = 4096
MAX_MESSAGE_BYTES: Final = 1_048_576  # what a broker takes unless told otherwise


@dataclass(slots=True)
class Entry:
    """One offset of a log."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()
    is_marker: bool = False
    is_visible: bool = True  # False while its transaction is open, and for ever once it is aborted
    is_open: bool = False  # its transaction is open


@dataclass(slots=True)
class Transaction:
    """What one transactional id has under way."""

    entries: list[Entry] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)  # touched, in order


@dataclass(frozen=True, slots=True)
class Membership:
    """A group token: who, in which generation."""

    group: str
    member: str
    generation: int


@dataclass(slots=True)
class Group:
    """A consumer group."""

    generation: int = 0
    assignment: dict[str, frozenset[int]] = field(default_factory=dict)
    committed: dict[Place, CommittedOffset] = field(default_factory=dict)


def _nothing(_: str) -> None:
    """No fault."""


class MemoryBroker:
    """Topics, groups and transactional ids of one broker."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self.logs: dict[Topic, list[list[Entry]]] = {}
        self._first: dict[Place, int] = {}  # offset of the first record that retention has left
        self.groups: dict[str, Group] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[str, Transaction] = {}
        self.before_effect: Callable[[str], None] = _nothing  # raises to end the process at that point

    # --- topics ------------------------------------------------------------------------------

    def create_topic(self, topic: Topic, partitions: int = 1) -> None:
        """Make a topic; no error where it exists."""
        self.logs.setdefault(topic, [[] for _ in range(partitions)])

    def append(self, topic: Topic, partition: int, key: bytes | None, value: bytes | None, timestamp_ms: int) -> int:
        """Append a record outside any transaction; returns its offset."""
        log = self.logs[topic][partition]
        log.append(Entry(key, value, timestamp_ms))
        return len(log) - 1

    def first_offset(self, topic: Topic, partition: int) -> int:
        """The first offset that the log still holds."""
        return self._first.get((topic, partition), 0)

    def delete_before(self, topic: Topic, partition: int, offset: int) -> None:
        """Let retention delete what lies before `offset`."""
        self._first[topic, partition] = offset

    def stable_end(self, topic: Topic, partition: int) -> int:
        """The offset after the last stable record: where the first open transaction begins."""
        log = self.logs[topic][partition]
        return next((offset for offset, entry in enumerate(log) if entry.is_open), len(log))

    def committed_records(self, topic: Topic) -> list[tuple[int, int, Entry]]:
        """(partition, offset, entry) that a read_committed reader sees."""
        return [
            (partition, offset, log[offset])
            for partition, log in enumerate(self.logs[topic])
            for offset in range(self.first_offset(topic, partition), self.stable_end(topic, partition))
            if log[offset].is_visible and not log[offset].is_marker
        ]

    # --- groups ------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        """The group, made where it is missing."""
        return self.groups.setdefault(name, Group())

    def rebalance(self, name: str, assignment: Mapping[str, frozenset[int]]) -> None:
        """Begin a new generation with this assignment."""
        group = self.group(name)
        group.generation += 1
        group.assignment = dict(assignment)

    # --- transactions ------------------------------------------------------------------------

    def init_transactions(self, transactional_id: str) -> int:
        """A new epoch: fences the former holder of the id and aborts what it left open."""
        self._end(transactional_id, is_committed=False)
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return self._epochs[transactional_id]

    def transact(
        self,
        transactional_id: str,
        epoch: int,
        records: list[OutputRecord],
        offsets: Mapping[Place, CommittedOffset],
        membership: Membership | None,
    ) -> None:
        """One whole transaction, with an effect before each of its steps."""
        for (_, partition), found in offsets.items():
            if len(found.metadata.encode()) > MAX_METADATA_BYTES:
                raise DeliveryError(
                    f"commit metadata of more than {MAX_METADATA_BYTES} bytes for partition {partition}"
                )
        self._end(transactional_id, is_committed=False)  # of an attempt that was aborted
        self._check_epoch(transactional_id, epoch)
        transaction = self._open[transactional_id] = Transaction()
        for record in records:
            self.before_effect("append")
            self._check_epoch(transactional_id, epoch)
            try:
                self._append(transaction, record)
            except DeliveryError:
                self._end(transactional_id, is_committed=False)
                raise
        self.before_effect("offsets")
        if membership is not None and offsets:
            self._check_membership(transactional_id, membership)
        self.before_effect("commit")
        self._check_epoch(transactional_id, epoch)
        # The coordinator takes offsets and markers as one decision.
        self._end(transactional_id, is_committed=True)
        if membership is not None:
            self.group(membership.group).committed.update(offsets)
        self.before_effect("committed")

    def _append(self, transaction: Transaction, record: OutputRecord) -> None:
        if record.topic not in self.logs:
            raise DeliveryError(f"there is no topic {record.topic}")
        size = len(record.key or b"") + len(record.value or b"")
        if size > MAX_MESSAGE_BYTES:
            raise DeliveryError(f"a record of {size} bytes for {record.topic}")
        logs = self.logs[record.topic]
        partition = record.partition
        if partition is None:
            partition = sum(record.key or b"") % len(logs)
        if partition >= len(logs):
            raise DeliveryError(f"topic {record.topic} has no partition {partition}")
        entry = Entry(record.key, record.value, self._now_ms(), record.headers, is_visible=False, is_open=True)
        logs[partition].append(entry)
        transaction.entries.append(entry)
        if (record.topic, partition) not in transaction.places:
            transaction.places.append((record.topic, partition))

    def _end(self, transactional_id: str, *, is_committed: bool) -> None:
        transaction = self._open.pop(transactional_id, None)
        if transaction is None:
            return
        for entry in transaction.entries:
            entry.is_open = False
            entry.is_visible = is_committed
        for topic, partition in transaction.places:
            self.logs[topic][partition].append(Entry(None, None, self._now_ms(), is_marker=True))

    def _check_epoch(self, transactional_id: str, epoch: int) -> None:
        if self._epochs[transactional_id] != epoch:
            raise FencedError(f"another producer uses {transactional_id!r}")

    def _check_membership(self, transactional_id: str, membership: Membership) -> None:
        if self.group(membership.group).generation != membership.generation:
            self._end(transactional_id, is_committed=False)
            raise StaleGroupError("the group has rebalanced")


AMBIGUOUS: Final = AmbiguousCommitError("the coordinator did not answer in time")
