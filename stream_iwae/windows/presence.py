"""Which entities are usually there, and were not: silence can be scored too."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX
from stream_iwae.state import KeyedState
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.known import are_known
from stream_iwae.windows.presence_table import PresenceTable, Record

MEMORY: Final = 64  # windows remembered an entity
_RECOVERY_WAVES: Final = 3  # ordinary rows after a source is back, so that its incident closes
_LOWEST_P: Final = 1e-300
_ONE: Final = np.uint64(1)


class Absence(NamedTuple):
    """One empty window: an entity's own, or a whole source's with the probability of its silence."""

    entity: str
    silence_p_value: float | None


@dataclass(frozen=True, slots=True)
class _Past:
    """What R entities were like before their present silence, if there is one; (R,) each."""

    is_expected: NDArray[np.bool_]
    absent: NDArray[np.int64]  # windows
    n: NDArray[np.int64]  # windows


class Presence:
    """The last windows of each entity of one partition, as bits, the newest lowest.

    A source that has gone quiet as a whole has a record too, under its prefixed name:
    [1, rows left to emit once it is back, end of its last empty window, source].
    """

    def __init__(self, config: WindowsConfig) -> None:
        self._config = config
        self._table = PresenceTable()

    @property
    def state(self) -> KeyedState[Record]:
        """All records."""
        return self._table

    @property
    def is_empty(self) -> bool:
        """Whether there is nobody to miss."""
        return self._table.n_entities == 0

    def known(self, entities: Sequence[str], known_at_ms: int, closed_ms: int, end_ms: int) -> NDArray[np.bool_]:
        """Whether each was there lately, by the waves up to `known_at_ms`; those up to `closed_ms` are noted."""
        step = self._config.step
        n_since, n_until = (closed_ms - known_at_ms) // step, (end_ms - known_at_ms) // step
        return are_known(self._table, entities, n_since, n_until, self._config.absent_windows)

    def wave(self, end_ms: int, entities: Sequence[str], sources: Sequence[str]) -> list[Absence]:
        """Take note of one wave of windows that ended at `end_ms`, and tell who is missing.

        Args:
            end_ms: End of the windows.
            entities: Everyone who was there.
            sources: The source of each, "" where there is none.

        Returns:
            Empty windows, sorted by entity.
        """
        table = self._table
        known, seen = table.rows(entities), np.zeros(len(table.bits), dtype=np.bool_)
        seen[known[known >= 0]] = True
        rows = table.occupied()
        past = self._past(rows)
        absences = self._absences(rows[past.is_expected & ~seen[rows]], rows, past, end_ms)
        if table.whole_sources():
            absences += self._recoveries(set(sources), {absence.entity for absence in absences}, end_ms)
        self._shift(rows, seen[rows], end_ms)
        self._greet(known, entities, sources, end_ms)
        self._forget_sources()
        return sorted(absences)

    def _past(self, rows: NDArray[np.intp]) -> _Past:
        bits = self._table.bits[rows]
        silent = _trailing_zeros(bits)
        n = self._table.n_windows[rows] - silent
        present = np.bitwise_count(bits).astype(np.int64)
        is_regular = (n >= self._config.present_history) & (present >= self._config.present_share * n)
        return _Past(is_regular & (silent < self._config.absent_windows), n - present, n)

    # --- who is missing -------------------------------------------------------------------------

    def _absences(self, missing: NDArray[np.intp], rows: NDArray[np.intp], past: _Past, end_ms: int) -> list[Absence]:
        if not len(missing):
            return []
        config, table = self._config, self._table
        n_expected = Counter(table.sources[rows[past.is_expected]].tolist())
        # By name: rows are in another order after a restart, and a product in another order has other last bits.
        by_source: dict[str, list[tuple[str, int]]] = defaultdict(list)
        at = np.searchsorted(rows, missing).tolist()
        named = zip(table.entities(missing), table.sources[missing].tolist(), at, strict=True)
        for entity, source, row in sorted(named):
            by_source[source].append((entity, row))
        absences = []
        for source, silent in by_source.items():
            n_all = n_expected[source]
            is_whole = n_all >= config.source_min_entities and len(silent) >= config.source_share * n_all
            if not source or not is_whole:
                absences += [Absence(entity, None) for entity, _ in silent]
                continue
            p_value = 1.0
            for _, row in silent:
                # Rule of succession: how often each was away before, independently.
                p_value = max(p_value * float(past.absent[row] + 1) / float(past.n[row] + 2), _LOWEST_P)
            table.put(SOURCE_PREFIX + source, [1, _RECOVERY_WAVES, end_ms, source])
            absences.append(Absence(SOURCE_PREFIX + source, p_value))
        return absences

    def _recoveries(self, sources: set[str], silent: set[str], end_ms: int) -> list[Absence]:
        """Ordinary rows for sources that are back."""
        back = []
        for key, record in sorted(self._table.whole_sources().items()):
            source, left = str(record[3]), int(record[1]) - 1
            if key in silent or source not in sources:
                continue
            back.append(Absence(key, 1.0))
            if left:
                self._table.put(key, [1, left, end_ms, source])
            else:
                self._table.remove(key)
        return back

    def _forget_sources(self) -> None:
        """Forget whole sources of which no entity is left."""
        table = self._table
        if whole := table.whole_sources():
            remembered = set(table.sources[table.occupied()].tolist())
            for key, record in whole.items():
                if record[3] not in remembered:
                    table.remove(key)

    # --- who was there --------------------------------------------------------------------------

    def _shift(self, rows: NDArray[np.intp], is_present: NDArray[np.bool_], end_ms: int) -> None:
        """One more window for everyone known; forgets those who were away longer than they were there."""
        table = self._table
        bits = (table.bits[rows] << _ONE) | is_present
        away, there = _trailing_zeros(bits), np.bitwise_count(bits).astype(np.int64)
        table.n_windows[rows] = np.minimum(table.n_windows[rows] + 1, MEMORY)
        table.last_end_ms[rows[is_present]] = end_ms
        # So forged entities that are seen once cost memory for a few windows, not for all of MEMORY.
        is_kept = (bits != 0) & (away <= np.maximum(there, self._config.absent_windows))
        for entity in table.entities(rows[~is_kept]):
            table.remove(entity)
        table.bits[rows[is_kept]] = bits[is_kept]
        table.touch(rows[is_kept])

    def _greet(self, known: NDArray[np.int64], entities: Sequence[str], sources: Sequence[str], end_ms: int) -> None:
        """Add newcomers while there is room, and note the present source of the others."""
        table = self._table
        named = np.array(sources, dtype=np.object_)
        is_named = (known >= 0) & (named != "")
        table.sources[known[is_named]] = named[is_named]
        for at in np.flatnonzero(known < 0).tolist():
            if table.n_entities >= self._config.max_entities:
                break
            if not entities[at].startswith(SOURCE_PREFIX):  # those folded into `other` are nobody
                table.put(entities[at], [1, 1, end_ms, sources[at]])


def _trailing_zeros(bits: NDArray[np.uint64]) -> NDArray[np.int64]:
    """How many of the newest windows were empty, (N,); all 64 for zero."""
    return np.bitwise_count((bits & (~bits + _ONE)) - _ONE).astype(np.int64)
