"""The pasts of many entities as columns, behind the mapping that state is stored by."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX
from stream_iwae.state import KeyedState, shard_of

Record = list[Any]  # of an entity: [last wave, P means, P variances, P counts], the last three as bytes
SHARED_KEY: Final = SOURCE_PREFIX + "kinds"  # what all entities share; no entity has such a name
_FIRST_CAPACITY: Final = 1024


class ProfileTable(KeyedState[Record]):
    """A `KeyedState` whose values are rows of columns; rows of forgotten entities are used again.

    Numbers are float32, so that what is stored is, to the bit, what is worked with.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self._n_features = n_features
        self._row_of: dict[str, int] = {}
        self._removed: set[str] = set()
        self._allocate(_FIRST_CAPACITY)

    def _allocate(self, capacity: int) -> None:
        shape = (capacity, self._n_features)
        self.mean = np.zeros(shape, dtype=np.float32)
        self.variance = np.zeros(shape, dtype=np.float32)
        self.count = np.zeros(shape, dtype=np.uint16)  # windows that the mean rests on
        self.last_wave = np.zeros(capacity, dtype=np.int64)
        self._entities: NDArray[np.object_] = np.full(capacity, "", dtype=np.object_)
        self._is_changed = np.zeros(capacity, dtype=np.bool_)
        self._shards = np.zeros(capacity, dtype=np.uint8)  # one more than the number of the shard; 0 where free
        self._free = list(range(capacity - 1, -1, -1))

    # --- by row ---------------------------------------------------------------------------------

    @property
    def n_entities(self) -> int:
        """How many have a past."""
        return len(self._row_of)

    def rows(self, entities: Sequence[str]) -> NDArray[np.int64]:
        """The row of each entity, (N,), -1 where there is none."""
        find = self._row_of.get
        return np.fromiter((find(entity, -1) for entity in entities), dtype=np.int64, count=len(entities))

    def add(self, entity: str) -> int:
        """A row of zeros for a newcomer."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._row_of[entity] = row
        self._entities[row], self._shards[row] = entity, shard_of(entity) + 1
        self._removed.discard(entity)
        self.mean[row] = self.variance[row] = 0.0
        self.count[row] = 0
        return row

    def touch(self, rows: NDArray[np.int64]) -> None:
        """Note that the columns were changed there."""
        self._is_changed[rows] = True

    def forget_before(self, wave: int) -> None:
        """Forget whoever has been away for as many waves as there are windows in its past."""
        rows = np.fromiter(self._row_of.values(), dtype=np.int64, count=len(self._row_of))
        kept_until = self.last_wave[rows] + self.count[rows].max(axis=1, initial=0)
        for entity in self._entities[rows[kept_until < wave]].tolist():
            self.remove(entity)

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
        """Set a record."""
        if key == SHARED_KEY:
            super().put(key, value)
            return
        row = self._row_of.get(key)
        row = self.add(key) if row is None else row
        self.last_wave[row] = value[0]
        self.mean[row] = np.frombuffer(value[1], "<f4")
        self.variance[row] = np.frombuffer(value[2], "<f4")
        self.count[row] = np.frombuffer(value[3], "<u2")
        self._is_changed[row] = True

    def remove(self, key: str) -> None:
        """Forget a key; no error where it is unknown."""
        row = self._row_of.pop(key, None)
        if row is None:
            super().remove(key)
            return
        self._entities[row], self._shards[row] = "", 0
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
        rows = np.fromiter(self._row_of.values(), dtype=np.int64, count=len(self._row_of))
        return {**self._records(rows), **super().snapshot()}

    def shard(self, number: int) -> dict[str, Record]:
        """The records of one shard, without a look at all others."""
        return {**self._records(np.flatnonzero(self._shards == number + 1)), **super().shard(number)}

    def restore(self, values: Mapping[str, Record]) -> None:
        """Replace everything; nothing counts as changed."""
        super().restore({key: value for key, value in values.items() if key == SHARED_KEY})
        self._row_of.clear()
        self._removed.clear()
        self._allocate(max(_FIRST_CAPACITY, len(values)))
        for key, value in values.items():
            if key != SHARED_KEY:
                self.put(key, value)
        self._is_changed[:] = False

    def _records(self, rows: NDArray[np.int64]) -> dict[str, Record]:
        parts = [self.mean.astype("<f4"), self.variance.astype("<f4"), self.count.astype("<u2")]
        columns = [_row_bytes(part[rows]) for part in parts]
        records = map(list, zip(self.last_wave[rows].tolist(), *columns, strict=True))
        return dict(zip(self._entities[rows].tolist(), records, strict=True))

    def _grow(self) -> None:
        capacity = len(self.last_wave)
        for name in ("mean", "variance", "count", "last_wave", "_entities", "_is_changed", "_shards"):
            column = getattr(self, name)
            added = np.full(column.shape, "" if column.dtype == np.object_ else 0, dtype=column.dtype)
            setattr(self, name, np.concatenate([column, added]))
        self._free = list(range(2 * capacity - 1, capacity - 1, -1))


def _row_bytes(columns: NDArray[Any]) -> list[bytes]:
    """The bytes of each row."""
    width, whole = max(1, columns.shape[1] * columns.itemsize), columns.tobytes()
    return [whole[at : at + width] for at in range(0, len(whole), width)]
