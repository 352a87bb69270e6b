"""Which entities are usually there, and were not: silence can be scored too."""

from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from stream_iwae.batches import SOURCE_PREFIX
from stream_iwae.state import KeyedState
from stream_iwae.windows.config import WindowsConfig

Record = list[int | str]  # [bits, n_windows, last_end_ms, source]; for a silent source: [1, waves left, end, source]
MEMORY: Final = 32  # windows remembered an entity
_MASK: Final = 2**MEMORY - 1
_RECOVERY_WAVES: Final = 3  # ordinary rows after a source is back, so that its incident closes
_LOWEST_P: Final = 1e-300


class Absence(NamedTuple):
    """One empty window: an entity's own, or a whole source's with the probability of its silence."""

    entity: str
    silence_p_value: float | None


class _Past(NamedTuple):
    is_expected: bool
    zeros: int
    n: int


class Presence:
    """The last windows of each entity of one partition, as bits, the newest lowest."""

    def __init__(self, config: WindowsConfig) -> None:
        self._config = config
        self.state: KeyedState[Record] = KeyedState()

    def wave(self, end_ms: int, present: Mapping[str, str]) -> list[Absence]:
        """Take note of one wave of windows that ended at `end_ms`, and tell who is missing.

        Args:
            end_ms: End of the windows.
            present: Entity -> source ("" where there is none) of everyone who was there.

        Returns:
            Empty windows, sorted by entity.
        """
        missing: dict[str, list[tuple[str, _Past]]] = {}
        expected_by_source: Counter[str] = Counter()
        changes: list[tuple[str, Record | None]] = []
        for entity, record in self.state.items():
            if entity.startswith(SOURCE_PREFIX):
                continue
            bits, n, source = int(record[0]), int(record[1]), str(record[3])
            is_present = entity in present
            past = self._past(bits, n)
            if past.is_expected:
                expected_by_source[source] += 1
                if not is_present:
                    missing.setdefault(source, []).append((entity, past))
            bits = (bits << 1 | is_present) & _MASK
            n = min(n + 1, MEMORY)
            last_end = end_ms if is_present else int(record[2])
            changes.append((entity, [bits, n, last_end, present.get(entity) or source] if bits else None))
        for entity, changed in changes:
            if changed is None:
                self.state.remove(entity)
            else:
                self.state.put(entity, changed)
        for entity, source in present.items():
            if entity not in self.state:
                self.state.put(entity, [1, 1, end_ms, source])
        absences = [
            absence
            for source, entities in missing.items()
            for absence in self._absences(source, entities, expected_by_source[source], end_ms)
        ]
        absences += self._recoveries({*present.values()}, {absence.entity for absence in absences}, end_ms)
        return sorted(absences)

    def _past(self, bits: int, n: int) -> _Past:
        """Whether an entity is to be missed now, judged by its windows before it fell silent."""
        run = (bits & -bits).bit_length() - 1 if bits else n
        before = n - run
        ones = (bits >> run).bit_count()
        is_regular = before >= self._config.present_history and ones >= self._config.present_share * before
        return _Past(is_regular and run < self._config.absent_windows, before - ones, before)

    def _absences(self, source: str, entities: list[tuple[str, _Past]], n_expected: int, end_ms: int) -> list[Absence]:
        config = self._config
        is_whole = n_expected >= config.source_min_entities and len(entities) >= config.source_share * n_expected
        if not source or not is_whole:
            return [Absence(entity, None) for entity, _ in entities]
        p_value = 1.0
        for _, past in entities:
            # Rule of succession: how often each was away before, independently.
            p_value = max(p_value * (past.zeros + 1) / (past.n + 2), _LOWEST_P)
        self.state.put(SOURCE_PREFIX + source, [1, _RECOVERY_WAVES, end_ms, source])
        return [Absence(SOURCE_PREFIX + source, p_value)]

    def _recoveries(self, sources: set[str], silent: set[str], end_ms: int) -> list[Absence]:
        back = [
            (key, record)
            for key, record in self.state.items()
            if key.startswith(SOURCE_PREFIX) and key not in silent and record[3] in sources
        ]
        for key, record in back:
            left = int(record[1]) - 1
            if left:
                self.state.put(key, [1, left, end_ms, record[3]])
            else:
                self.state.remove(key)
        return [Absence(key, 1.0) for key, _ in back]
