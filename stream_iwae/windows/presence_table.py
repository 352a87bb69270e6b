"""The presence of many entities as columns, behind the mapping that state is stored by."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX
from stream_iwae.state import KeyedState, shard_of

Record = list[int | str]  # [bits, n_windows, last_end_ms, source]
_FIRST_CAPACITY: Final = 1024


class PresenceTable(KeyedState[Record]):
    """A `KeyedState` whose values are rows of columns, so that a wave of windows is a few array operations.

    Row r of every column belongs to one entity; rows of forgotten entities are used again. The few records
    under the names of whole sources have another meaning, and stay in the mapping.
    """

    def __init__(self) -> None:
        super().__init__()
        self._row_of: dict[str, int] = {}
        self._removed: set[str] = set()
        self._allocate(_FIRST_CAPACITY)

    def _allocate(self, capacity: int) -> None:
        self.bits = np.zeros(capacity, dtype=np.uint64)  # newest window lowest; 0 where the row is free
        self.n_windows = np.zeros(capacity, dtype=np.int64)
        self.last_end_ms = np.zeros(capacity, dtype=np.int64)
        self.sources: NDArray[np.object_] = np.full(capacity, "", dtype=np.object_)
        self._entities: NDArray[np.object_] = np.full(capacity, "", dtype=np.object_)
        self._is_changed = np.zeros(capacity, dtype=np.bool_)
        self._shards = np.zeros(capacity, dtype=np.uint8)  # one more than the number of the shard; 0 where free
        self._free = list(range(capacity - 1, -1, -1))

    # --- by row ---------------------------------------------------------------------------------

    @property
    def n_entities(self) -> int:
        """How many there are, whole sources set aside."""
        return len(self._row_of)

    def rows(self, entities: Sequence[str]) -> NDArray[np.int64]:
        """The row of each entity, (N,), -1 where there is none."""
        find = self._row_of.get
        return np.fromiter((find(entity, -1) for entity in entities), dtype=np.int64, count=len(entities))

    def occupied(self) -> NDArray[np.intp]:
        """The rows in use, ascending."""
        return np.flatnonzero(self.bits)

    def entities(self, rows: NDArray[np.intp]) -> list[str]:
        """Whom the rows belong to."""
        names: list[str] = self._entities[rows].tolist()
        return names

    def touch(self, rows: NDArray[np.intp]) -> None:
        """Note that the columns were changed there."""
        self._is_changed[rows] = True

    def whole_sources(self) -> dict[str, Record]:
        """The records under the names of whole sources."""
        return super().snapshot()

    # --- by key, as a KeyedState ----------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._row_of) + super().__len__()

    def __contains__(self, key: object) -> bool:
        return key in self._row_of or super().__contains__(key)

    def __iter__(self) -> Iterator[str]:
        yield from self._row_of
        yield from super().__iter__()

    def get(self, key: str) -> Record | None:
        """The record of a key, or None."""
        row = self._row_of.get(key)
        return super().get(key) if row is None else self._records(np.array([row]))[key]

    def items(self) -> Iterator[tuple[str, Record]]:
        """All keys and their records."""
        return iter(self.snapshot().items())

    def put(self, key: str, value: Record) -> None:
        """Set a record; an entity's bits are not zero."""
        if key.startswith(SOURCE_PREFIX):
            super().put(key, value)
            return
        row = self._row_of.get(key)
        if row is None:
            row = self._take_row()
            self._row_of[key] = row
            self._entities[row], self._shards[row] = key, shard_of(key) + 1
            self._removed.discard(key)
        self.bits[row], self.n_windows[row], self.last_end_ms[row], self.sources[row] = value
        self._is_changed[row] = True

    def remove(self, key: str) -> None:
        """Forget a key; no error where it is unknown."""
        row = self._row_of.pop(key, None)
        if row is None:
            super().remove(key)
            return
        self.bits[row] = self._shards[row] = 0
        self._entities[row] = self.sources[row] = ""
        self._is_changed[row] = False
        self._free.append(row)
        self._removed.add(key)

    def take_changes(self) -> dict[str, Record | None]:
        """What changed since the last call; None for a forgotten key."""
        rows = np.flatnonzero(self._is_changed)
        changes = {**super().take_changes(), **dict.fromkeys(self._removed), **self._records(rows)}
        self._is_changed[rows] = False
        self._removed.clear()
        return dict(sorted(changes.items()))

    def snapshot(self) -> dict[str, Record]:
        """All records, as a copy."""
        return {**self._records(self.occupied()), **super().snapshot()}

    def shard(self, number: int) -> dict[str, Record]:
        """The records of one shard, without a look at all others."""
        return {**self._records(np.flatnonzero(self._shards == number + 1)), **super().shard(number)}

    def restore(self, values: Mapping[str, Record]) -> None:
        """Replace everything; nothing counts as changed."""
        super().restore({key: value for key, value in values.items() if key.startswith(SOURCE_PREFIX)})
        self._row_of.clear()
        self._removed.clear()
        self._allocate(max(_FIRST_CAPACITY, len(values)))
        for key, value in values.items():
            if not key.startswith(SOURCE_PREFIX):
                self.put(key, value)
        self._is_changed[:] = False

    def _records(self, rows: NDArray[np.intp]) -> dict[str, Record]:
        columns = (self.bits, self.n_windows, self.last_end_ms, self.sources)
        records = map(list, zip(*(column[rows].tolist() for column in columns), strict=True))
        return dict(zip(self.entities(rows), records, strict=True))

    def _take_row(self) -> int:
        if not self._free:
            capacity = len(self.bits)
            for name in ("bits", "n_windows", "last_end_ms", "sources", "_entities", "_is_changed", "_shards"):
                column = getattr(self, name)
                added = np.full(capacity, "" if column.dtype == np.object_ else 0, dtype=column.dtype)
                setattr(self, name, np.concatenate([column, added]))
            self._free = list(range(2 * capacity - 1, capacity - 1, -1))
        return self._free.pop()
