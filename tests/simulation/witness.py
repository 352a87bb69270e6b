"""What is noted while a world runs, and read from its logs afterwards, for the invariants to look at."""

import functools
from collections import Counter
from dataclasses import dataclass

from stream_iwae.adapters.memory_broker import Membership, MemoryBroker, Transaction
from stream_iwae.windows.progress import decode_metadata
from stream_iwae.wire import decode_state, decode_training
from tests.simulation.processes import GROUP, REKEYERS


@dataclass(frozen=True, slots=True)
class Committed:
    """One partition's share of a transaction that was committed."""

    topic: str
    partition: int
    offset: int
    position: int
    watermark_ms: int | None
    seq: int
    is_owner: bool  # the member owned the partition when the coordinator took its offsets
    log_end: int


@functools.lru_cache(maxsize=20_000)
def _decoded(records: tuple[tuple[bytes, bytes], ...]) -> dict:
    return decode_state(records)[0]


@functools.lru_cache(maxsize=20_000)
def _row_ids(value: bytes) -> list[int]:
    return decode_training(value).row_ids.tolist()


class Witness:
    """Notes of one run."""

    broker: MemoryBroker
    scored: str  # the topic that the service reads

    def __init__(self) -> None:
        self.commits: list[Committed] = []
        self.restores: list[tuple[int, int, dict]] = []  # (partition, position, state)
        self.invisible: list[tuple[str, int, int]] = []  # delivered, and not committed
        self.unclean: list[str] = []  # what SIGTERM left behind
        self.stalled: list[str] = []
        self.errors: list[str] = []  # that ended a process, and are none that the broker may cause
        self.totals: list = []
        self.rekeyer_totals: list = []
        self._n_identities = 0
        self.counts: Counter = Counter()
        self.n_deaths = 0  # by kill or error: their counts may be incomplete

    def new_identity(self) -> str:
        """Of one process."""
        self._n_identities += 1
        return f"process {self._n_identities}"

    def delivered(self, records) -> None:
        """A consumer was given these."""
        log = self.broker.logs[records.topic][records.partition]
        for offset in records.offsets.tolist():
            if not log[offset].is_visible or offset >= self.broker.stable_end(records.topic, records.partition):
                self.invisible.append((records.topic, records.partition, offset))

    def restored(self, token: Membership, partition: int, metadata, state) -> None:
        """A pipeline goes on from what was committed; what a zombie takes for its own is of no consequence."""
        group = self.broker.group(GROUP)
        is_newest = group.incarnations[token.member] == token.incarnation and group.generation == token.generation
        if not is_newest or partition not in group.assignment.get(token.member, ()):
            return
        self.restores.append((partition, metadata.progress.position, state))

    def note_commit(self, transaction: Transaction) -> None:
        for (topic, partition), found in transaction.offsets.items():
            if topic not in {"events", self.scored}:
                continue
            metadata = decode_metadata(found.metadata, min(found.offset, 0))
            progress = metadata.progress
            self.commits.append(
                Committed(
                    topic,
                    partition,
                    found.offset,
                    progress.position,
                    progress.watermark_ms,
                    metadata.seq,
                    partition in transaction.owned,
                    len(self.broker.logs[topic][partition]),
                )
            )

    def positions(self) -> dict[int, int]:
        """The committed position of each partition of the service that has one."""
        return self._positions(GROUP, self.scored)

    def source_positions(self) -> dict[int, int]:
        """The committed position of each source of the re-keyers that has one."""
        return self._positions(REKEYERS, "events")

    def _positions(self, group: str, topic: str) -> dict[int, int]:
        return {
            partition: decode_metadata(found.metadata, 0).progress.position
            for (of, partition), found in sorted(self.broker.group(group).committed.items())
            if of == topic
        }

    def state(self, partition: int) -> dict:
        """The state topic as a reader would restore it."""
        values: dict[bytes, bytes] = {}
        for entry in self.broker.logs["state"][partition]:
            if entry.is_visible and not entry.is_marker:
                values.pop(entry.key, None)
                if entry.value is not None:
                    values[entry.key] = entry.value
        return _decoded(tuple(values.items()))

    def training_rows(self) -> list[list[int]]:
        """Row ids of each committed training record, in the order of the topic."""
        records = self.broker.committed_records("training")
        return [_row_ids(entry.value) for _, _, entry in records]
