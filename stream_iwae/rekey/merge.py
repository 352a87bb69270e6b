"""How far event time has come, as of all source partitions: the least of those that anybody waits for.

Where nobody is waited for, all having fallen idle, it is the most that any has reached. A source is waited for from
the first word of any, unless it is idle or forgotten. It is forgotten when nothing was heard of it for `forget_after`
of the time in which others were. That time is taken from the records: their own times, pauses cut short. So the log
alone decides, and a replay decides the same.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import NEVER_MS
from stream_iwae.rekey.batch import Header, Part
from stream_iwae.state import KeyedState

_LONGEST_STEP_MS: Final = 10_000  # a longer pause means that nobody was there to hear anything
_OVERALL: Final = "all"  # key of what belongs to no single source

Value = list[int]
"""Of a source: [reached, is_idle, is_history, heard]; of all: [n_sources, clock, last_record, reached], times in ms."""


class SourceMerge:
    """The state of every source partition as one partition of the re-keyed topic has heard it.

    As with counters, what is persisted is the state before the committed offset, because a restart replays from
    there; `_ahead` holds what came after it.
    """

    def __init__(self, forget_after_ms: int) -> None:
        self._forget_after_ms = forget_after_ms
        self.state: KeyedState[Value] = KeyedState()
        self._ahead: list[tuple[int, str, Value]] = []  # (offset, key, value), in offset order
        self._clock_ms = 0  # how long there was anything to hear
        self._last_record_ms = NEVER_MS
        self._reached = np.empty(0, dtype=np.int64)  # (S,) highest event time of each source
        self._is_idle = np.empty(0, dtype=np.bool_)
        self._is_history = np.empty(0, dtype=np.bool_)
        self._heard = np.empty(0, dtype=np.int64)  # (S,) when it was last heard, by `_clock_ms`
        self.reached_ms = NEVER_MS  # never goes back

    @property
    def n_sources(self) -> int:
        """How many source partitions are known to be there."""
        return len(self._reached)

    @property
    def is_history(self) -> bool:
        """Whether a source that anybody waits for has not come to where the first commit began."""
        return self.n_sources == 0 or bool(np.any(self._is_history & self._is_awaited()))

    def take(self, header: Header, offset: int, record_ms: int, before: NDArray[np.int64] | None) -> NDArray[np.int64]:
        """Follow one message.

        Args:
            header: What it says.
            offset: Where it stands.
            record_ms: When it was written.
            before: For each of its N events, what its source had reached just before it, (N,); None where only
                the state after the message is of interest.

        Returns:
            What all sources together had reached just before each event, (N,), never descending.
        """
        self._pass_time(record_ms, header.n_sources, offset)
        merged = np.empty(0 if before is None else len(before), dtype=np.int64)
        at = 0
        for part in header.parts:
            others_ms = self._least_of_others(part.source)
            if before is not None:
                rows = slice(at, at + part.n_events)
                together = before[rows] if others_ms is None else np.minimum(before[rows], others_ms)
                merged[rows] = np.maximum.accumulate(np.maximum(together, self.reached_ms))
                if part.n_events:
                    self.reached_ms = int(merged[rows][-1])
                at += part.n_events
            self._hear(part, offset)
            self.reached_ms = max(self.reached_ms, self._together())
        overall = [self.n_sources, self._clock_ms, self._last_record_ms, self.reached_ms]
        self._ahead.append((offset, _OVERALL, overall))
        return merged

    def _pass_time(self, record_ms: int, n_sources: int, offset: int) -> None:
        if self._last_record_ms != NEVER_MS:
            self._clock_ms += min(max(0, record_ms - self._last_record_ms), _LONGEST_STEP_MS)
        self._last_record_ms = max(self._last_record_ms, record_ms)
        for source in range(self.n_sources, n_sources):
            self._ahead.append((offset, str(source), [NEVER_MS, 0, 1, self._clock_ms]))
        self._grow(n_sources)

    def _grow(self, n_sources: int) -> None:
        """Wait for sources that have not said a word from now on."""
        n_new = n_sources - self.n_sources
        if n_new > 0:
            self._reached = np.append(self._reached, np.full(n_new, NEVER_MS))
            self._is_idle = np.append(self._is_idle, np.zeros(n_new, dtype=np.bool_))
            self._is_history = np.append(self._is_history, np.ones(n_new, dtype=np.bool_))
            self._heard = np.append(self._heard, np.full(n_new, self._clock_ms))

    def _hear(self, part: Part, offset: int) -> None:
        source = part.source
        self._reached[source] = max(int(self._reached[source]), part.reached_ms)
        self._is_idle[source], self._is_history[source] = part.is_idle, part.is_history
        self._heard[source] = self._clock_ms
        value = [int(self._reached[source]), int(part.is_idle), int(part.is_history), self._clock_ms]
        self._ahead.append((offset, str(source), value))

    def _is_awaited(self) -> NDArray[np.bool_]:
        is_forgotten = self._clock_ms - self._heard > self._forget_after_ms
        return ~self._is_idle & ~is_forgotten

    def _together(self) -> int:
        """What the awaited sources have all reached; where all are idle, what any of them has."""
        least_ms = self._least_of_others(None)
        if least_ms is not None:
            return least_ms
        return int(self._reached[self._is_idle].max()) if self._is_idle.any() else NEVER_MS

    def _least_of_others(self, source: int | None) -> int | None:
        """The least that the awaited sources have reached, but for `source`; None where there are none."""
        is_awaited = self._is_awaited()
        if source is not None:
            is_awaited[source] = False
        return int(self._reached[is_awaited].min()) if is_awaited.any() else None

    # --- what is kept ------------------------------------------------------------------------

    def copy(self) -> Self:
        """The same again, to look ahead with."""
        twin = type(self)(self._forget_after_ms)
        twin._clock_ms, twin._last_record_ms = self._clock_ms, self._last_record_ms  # noqa: SLF001  # our own
        twin._grow(self.n_sources)  # noqa: SLF001
        for name in ("_reached", "_is_idle", "_is_history", "_heard"):
            getattr(twin, name)[:] = getattr(self, name)
        twin.reached_ms = self.reached_ms
        return twin

    def settle(self, offset: int) -> None:
        """Move everything heard in records below `offset` into the state that is persisted."""
        n_settled = 0
        for at, key, value in self._ahead:
            if at >= offset:
                break
            self.state.put(key, value)
            n_settled += 1
        del self._ahead[:n_settled]

    def restore(self, values: Mapping[str, Value]) -> None:
        """Go on from a persisted state; the records from its offset on are replayed."""
        self.state.restore(values)
        self._ahead = []
        overall = values.get(_OVERALL)
        if overall is None:
            return
        n_sources, self._clock_ms, self._last_record_ms, self.reached_ms = overall
        self._grow(n_sources)
        for key, (reached_ms, is_idle, is_history, heard_ms) in values.items():
            if key != _OVERALL:
                source = int(key)
                self._reached[source], self._heard[source] = reached_ms, heard_ms
                self._is_idle[source], self._is_history[source] = bool(is_idle), bool(is_history)

    def shown(self) -> Sequence[int]:
        """What each source has reached, for people who ask which one holds the windows open."""
        return [int(reached_ms) for reached_ms in self._reached]
