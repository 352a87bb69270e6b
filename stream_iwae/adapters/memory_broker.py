"""An in-memory Kafka: logs, transactions, groups, and a place to put faults.

Enough of Kafka's promises to prove ours against: a transaction is visible to read_committed readers whole
or not at all; its marker occupies an offset; offsets commit with it, and who asks for them meanwhile waits;
an old generation, incarnation and epoch are refused; a transaction that takes too long is aborted and its
producer fenced. `before_effect` is called before every effect, so that a test can end the process there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from stream_iwae.errors import DeliveryError, FencedError, StaleGroupError
from stream_iwae.ports import CommittedOffset, OutputRecord

Topic = str
Place = tuple[str, int]  # topic, partition
MAX_METADATA_BYTES: Final = 4096
MAX_MESSAGE_BYTES: Final = 1_048_576  # what a broker takes unless told otherwise
TRANSACTION_TIMEOUT_MS: Final = 60_000


@dataclass(slots=True)
class Entry:
    """One offset of a log."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()
    is_marker: bool = False
    is_visible: bool = True  # False while its transaction is open, and for ever once it is aborted


@dataclass(frozen=True, slots=True)
class Membership:
    """A group token: who, in which generation; two processes that call themselves alike differ in `incarnation`."""

    group: str
    member: str
    generation: int
    incarnation: int = 1


@dataclass(slots=True)
class Transaction:
    """What one transactional id has under way."""

    transactional_id: str
    began_ms: int
    entries: list[Entry] = field(default_factory=list)
    places: dict[Place, int] = field(default_factory=dict)  # touched -> the first offset there
    offsets: dict[Place, CommittedOffset] = field(default_factory=dict)  # pending until it ends
    membership: Membership | None = None  # whose offsets they are
    owned: frozenset[int] = frozenset()  # what that member owned when the coordinator took them


@dataclass(slots=True)
class Group:
    """A consumer group."""

    generation: int = 0
    assignment: dict[str, frozenset[int]] = field(default_factory=dict)
    committed: dict[Place, CommittedOffset] = field(default_factory=dict)
    incarnations: dict[str, int] = field(default_factory=dict)  # how often a member of this name has come
    seen: dict[str, int] = field(default_factory=dict)  # the generation that a member's last poll learnt of


def _nothing(_: object) -> None:
    """No fault, nobody who listens."""


class MemoryBroker:
    """Topics, groups and transactional ids of one broker."""

    def __init__(self, now_ms: Callable[[], int], transaction_timeout_ms: int = TRANSACTION_TIMEOUT_MS) -> None:
        self._now_ms = now_ms
        self._transaction_timeout_ms = transaction_timeout_ms
        self.logs: dict[Topic, list[list[Entry]]] = {}
        self._first: dict[Place, int] = {}  # offset of the first record that retention has left
        self.groups: dict[str, Group] = {}
        self._epochs: dict[str, int] = {}
        self.open: dict[str, Transaction] = {}  # by transactional id
        self.before_effect: Callable[[str], None] = _nothing  # raises to end the process at that point
        self.on_commit: Callable[[Transaction], None] = _nothing  # hears of every transaction that was committed
        self.on_wait: Callable[[int], None] = _nothing  # lets so many milliseconds pass for a client that waits
        self.is_losing = False  # the next record sent expires on its way

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
        end, place = len(self.logs[topic][partition]), (topic, partition)
        if not self.open:
            return end
        return min((transaction.places.get(place, end) for transaction in self.open.values()), default=end)

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
        found = self.groups.get(name)
        if found is None:
            found = self.groups[name] = Group()
        return found

    def join(self, name: str, member: str) -> int:
        """A process comes under a static member's name; returns its incarnation, which fences the one before."""
        incarnations = self.group(name).incarnations
        incarnations[member] = incarnations.get(member, 0) + 1
        return incarnations[member]

    def rebalance(self, name: str, assignment: Mapping[str, frozenset[int]]) -> None:
        """Begin a new generation with this assignment."""
        group = self.group(name)
        group.generation += 1
        group.assignment = dict(assignment)

    def check_incarnation(self, membership: Membership) -> None:
        """Refuse a process whose name another has taken."""
        if self.group(membership.group).incarnations.get(membership.member, 1) != membership.incarnation:
            raise FencedError(f"kafka.instance {membership.member!r} is used twice")

    def committed(self, name: str, place: Place) -> CommittedOffset | None:
        """What the group has committed; waits for a transaction that is about to commit another offset there."""
        for transaction in list(self.open.values()):
            if place in transaction.offsets:
                self.on_wait(transaction.began_ms + self._transaction_timeout_ms - self._now_ms())
                if self.open.get(transaction.transactional_id) is transaction:
                    raise DeliveryError(f"the offset of {place} is part of a transaction that does not end")
        return self.group(name).committed.get(place)

    # --- transactions ------------------------------------------------------------------------

    def init_transactions(self, transactional_id: str) -> int:
        """A new epoch: fences the former holder of the id and aborts what it left open."""
        self._end(transactional_id, is_committed=False)
        self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
        return self._epochs[transactional_id]

    def begin(self, transactional_id: str, epoch: int) -> None:
        """Open a transaction.

        Raises:
            FencedError: The id has been taken by another producer, or a transaction of it has timed out.
        """
        self._check_epoch(transactional_id, epoch)
        self._end(transactional_id, is_committed=False)  # a client would have aborted it first
        self.open[transactional_id] = Transaction(transactional_id, self._now_ms())

    def send(self, transactional_id: str, epoch: int, record: OutputRecord) -> bool:
        """Append a record to the open transaction; False where it expired on its way, which fails its future alone."""
        self.before_effect("append")
        self._check_epoch(transactional_id, epoch)
        if self.is_losing:
            self.is_losing = False
            return False
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
        entry = Entry(record.key, record.value, self._now_ms(), record.headers, is_visible=False)
        transaction = self.open[transactional_id]
        transaction.places.setdefault((record.topic, partition), len(logs[partition]))
        transaction.entries.append(entry)
        logs[partition].append(entry)
        return True

    def add_offsets(
        self,
        transactional_id: str,
        epoch: int,
        offsets: Mapping[Place, CommittedOffset],
        membership: Membership,
    ) -> None:
        """Make offsets part of the open transaction; only a member of the present generation may.

        Raises:
            StaleGroupError: The group has rebalanced.
            FencedError: Another process has taken the member's name, or the producer's.
        """
        self.before_effect("offsets")
        self._check_epoch(transactional_id, epoch)
        group = self.group(membership.group)
        self.check_incarnation(membership)
        if group.generation != membership.generation or membership.member not in group.assignment:
            raise StaleGroupError("the group has rebalanced")
        transaction = self.open[transactional_id]
        transaction.offsets.update(offsets)
        transaction.membership, transaction.owned = membership, group.assignment[membership.member]

    def end(self, transactional_id: str, epoch: int, *, is_committed: bool) -> None:
        """Commit or abort what is open: offsets and markers are one decision of the coordinator's."""
        self._check_epoch(transactional_id, epoch)
        self._end(transactional_id, is_committed=is_committed)

    def abort_expired(self) -> None:
        """Abort what has been open too long, and fence whoever left it so."""
        for transaction in list(self.open.values()):
            if self._now_ms() - transaction.began_ms >= self._transaction_timeout_ms:
                self.init_transactions(transaction.transactional_id)

    def _end(self, transactional_id: str, *, is_committed: bool) -> None:
        transaction = self.open.pop(transactional_id, None)
        if transaction is None:
            return
        for entry in transaction.entries:
            entry.is_visible = is_committed
        for topic, partition in transaction.places:
            self.logs[topic][partition].append(Entry(None, None, self._now_ms(), is_marker=True))
        if is_committed:
            if transaction.membership is not None:
                self.group(transaction.membership.group).committed.update(transaction.offsets)
            self.on_commit(transaction)

    def epoch(self, transactional_id: str) -> int:
        """The present epoch of an id."""
        return self._epochs[transactional_id]

    def is_current(self, transactional_id: str, epoch: int) -> bool:
        """Whether nobody has taken the id since `epoch` began."""
        return self._epochs[transactional_id] == epoch

    def _check_epoch(self, transactional_id: str, epoch: int) -> None:
        if not self.is_current(transactional_id, epoch):
            raise FencedError(f"another producer uses {transactional_id!r}, or a transaction of it timed out")
