"""Bugs to plant in the re-keyer and in what reads it; see planted.py."""

from typing import Final

import numpy as np

from stream_iwae.adapters.memory_broker import MemoryBroker
from stream_iwae.delivery import Delivery
from stream_iwae.rekey.batch import decode_header
from stream_iwae.rekey.merge import SourceMerge
from stream_iwae.rekey.source_partition import SourcePartition
from stream_iwae.rekey_outputs import SharePublisher
from stream_iwae.rekeyer import Rekeyer
from tests.simulation.planted import Bug, unfenced


def _offsets_first(honest):
    """Offsets are committed in a transaction of their own, before the batch."""

    def send(self):
        if self._source.topic != "events":
            honest(self)
            return
        offsets = {partition: commit.offset for partition, commit in self.waiting.items()}
        self._sink.commit([], offsets, self._source.topic, self._source.group_token())
        self._sink.commit(self._compose(self.waiting), {}, self._source.topic, self._source.group_token())

    return send


def _from_before(honest):
    """A restart reads again what was committed."""

    def take_over(self, number, committed, first):
        honest(self, number, committed, first)
        if committed is not None and committed.offset > 3:
            self._source.seek(number, committed.offset - 3)

    return take_over


def _by_source(honest):
    """What comes from the last source goes where it came from."""

    def placed(self, frame):
        found, bounds = honest(self, frame)
        return (found, np.array([0, 0, found.height])) if self.partition == 2 else (found, bounds)

    return placed


def _unsorted(honest):
    """Events of a poll are forwarded in no order."""

    def placed(self, frame):
        found, bounds = honest(self, frame)
        cut = list(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True))
        return found[[row for first, end in cut for row in reversed(range(first, end))]], bounds

    return placed


def _ahead(honest):
    """A source says that it is further than it is."""

    def placed(self, frame):
        found = honest(self, frame)
        self.reached_ms += 100_000
        return found

    return placed


def _wordless(honest):
    """Who gets no events of a transaction is not told how far its sources are."""

    def records_of(self, commits, idle):
        return [record for record in honest(self, commits, idle) if record.key != b"events" or _has_events(record)]

    return records_of


def _has_events(record):
    return any(part.n_events for part in decode_header(record.value).parts)


def _hasty_merge(honest):
    """Time is the most that any source has reached, not the least."""

    def least(self, source):
        is_awaited = self._is_awaited()
        if source is not None:
            is_awaited[source] = False
        return int(self._reached[is_awaited].max()) if is_awaited.any() else None

    return least


def _sources_forgotten(honest):
    """A replica that begins again knows nothing of the sources."""
    return lambda self, values: self.state.restore({})


def _letters_uncounted(honest):
    """Events that are rejected are not counted."""

    def take_share(self):
        found = honest(self)
        found.counts.rejected.clear()
        return found

    return take_share


def _awake(honest):
    """A source that is silent is waited for without end."""
    return lambda self: None


def _asleep(honest):
    """A source that was silent once is never waited for again."""

    def tell(self, frame):
        self.is_idle = self._has_slept = self.is_idle or getattr(self, "_has_slept", False)
        honest(self, frame)

    return tell


BUGS: Final = (
    Bug("commits offsets before the batch", "R1", Delivery, "_send", _offsets_first, group="rekey"),
    Bug("reads again what was re-keyed", "R1", Rekeyer, "_take_over", _from_before, frozenset({"R sum"}), "rekey"),
    Bug(
        "leaves events where they came from",
        "R1",
        SourcePartition,
        "_placed",
        _by_source,
        frozenset({"I1", "I4", "R11"}),
        "rekey",
    ),
    Bug("forwards in no order", "R4", SourcePartition, "_placed", _unsorted, group="rekey"),
    Bug("says it is further than it is", "R6", SourcePartition, "_placed", _ahead, group="rekey"),
    Bug("keeps progress from who gets no events", "R6", SharePublisher, "records_of", _wordless, group="rekey"),
    Bug("does not wait for the slowest source", "R11", SourceMerge, "_least_of_others", _hasty_merge, group="rekey"),
    Bug("forgets the sources", "I6", SourceMerge, "restore", _sources_forgotten, group="rekey"),
    Bug("does not fence a re-keyer", "I7", MemoryBroker, "add_offsets", unfenced, group="rekey"),
    Bug("waits for who is silent", "I9", SourcePartition, "mark_idle", _awake, group="rekey"),
    Bug("does not wait for who is back", "R6", SourcePartition, "_tell", _asleep, group="rekey"),
    Bug("does not count dead letters", "R sum", SourcePartition, "take_share", _letters_uncounted, group="rekey"),
)
