"""How often each value of a field occurred, an entity: what distinct, entropy, top share, reach and quantile merge.

Entities and values are numbered, and a pair of numbers is one 64-bit key, because counting and merging
keys is ten times as fast as counting pairs of texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

_SHIFT: Final = np.uint64(32)
_LOW: Final = np.uint64(2**32 - 1)
_SLICE: Final = 65_536  # pairs that are renumbered at once


def numbered(column: pl.Series) -> tuple[NDArray[np.uint32], pl.Series]:
    """Number the values of a column by first appearance.

    Returns:
        The number of each row's value, (N,), and the distinct values, (V,): `values[numbers]` is the column.
    """
    rows = np.arange(len(column), dtype=np.uint32)
    frame = pl.DataFrame({"value": column, "row": rows})
    first = frame.select(pl.col("row").first().over("value")).to_series().to_numpy()
    is_first = first == rows
    numbers = (np.cumsum(is_first) - 1).astype(np.uint32)
    return numbers[first], column.filter(pl.Series(is_first, dtype=pl.Boolean))


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """P pairs of entity and value, and how often each occurred."""

    values: pl.Series  # (V,), the distinct values
    keys: NDArray[np.uint64]  # (P,), number of the entity << 32 | number of the value, ascending
    n: NDArray[np.int64]  # (P,)

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def count(cls, entities: NDArray[np.uint32], column: pl.Series) -> Self:
        """Count the present values of a column; `entities` numbers the entity of each row, (N,)."""
        is_present = column.is_not_null().to_numpy()
        numbers, values = numbered(column.drop_nulls())
        keys = (entities[is_present].astype(np.uint64) << _SHIFT) | numbers
        keys.sort()
        starts = _starts(keys)
        return cls(values, keys[starts], np.diff(starts, append=len(keys)))

    @classmethod
    def merge(cls, parts: "Sequence[tuple[ValueCounts, NDArray[np.uint32]]]") -> Self:
        """Add counts up; each comes with the merged number of each of its entities."""
        numbers, values = numbered(pl.concat([part.values for part, _ in parts], rechunk=True))
        per_part = np.split(numbers, np.cumsum([len(part.values) for part, _ in parts])[:-1])
        keys = np.empty(sum(len(part) for part, _ in parts), dtype=np.uint64)
        at = 0
        for (part, entities), renumbered in zip(parts, per_part, strict=True):
            for start in range(0, len(part), _SLICE):  # slices of what may be millions: the temporaries stay small
                pairs = part.keys[start : start + _SLICE]
                keys[at : at + len(pairs)] = _of_entities(pairs, entities) | renumbered[(pairs & _LOW).astype(np.intp)]
                at += len(pairs)
        return cls(values, *_summed(keys, np.concatenate([part.n for part, _ in parts])))

    def renumbered(self, entities: NDArray[np.uint32]) -> Self:
        """The same counts; entity i becomes `entities[i]`, which differ."""
        keys = _of_entities(self.keys, entities) | (self.keys & _LOW)
        if np.all(keys[1:] > keys[:-1]):  # those that were first keep their order, and often their numbers
            return type(self)(self.values, keys, self.n)
        order = np.argsort(keys)
        return type(self)(self.values, keys[order], self.n[order])

    def bounded(self, limit: int) -> Self:
        """Keep the `limit` most frequent values of each entity; among equals the earlier seen."""
        if not len(self) or int(np.diff(self._starts, append=len(self)).max()) <= limit:
            return self
        order = np.lexsort((self.keys & _LOW, -self.n, self.entities))
        rank = np.arange(len(self)) - np.repeat(self._starts, np.diff(self._starts, append=len(self)))
        kept = np.sort(order[rank < limit])
        used, numbers = np.unique(self.keys[kept] & _LOW, return_inverse=True)
        keys = (self.keys[kept] & ~_LOW) | numbers.astype(np.uint64)
        return type(self)(self.values[used], keys, self.n[kept])

    @property
    def entities(self) -> NDArray[np.intp]:
        """Number of each pair's entity, (P,)."""
        return (self.keys >> _SHIFT).astype(np.intp)

    @property
    def value_numbers(self) -> NDArray[np.intp]:
        """Number of each pair's value, (P,)."""
        return (self.keys & _LOW).astype(np.intp)

    @property
    def _starts(self) -> NDArray[np.intp]:
        """Where each entity's pairs begin; entities without a value have none."""
        return np.flatnonzero(np.diff(self.keys >> _SHIFT, prepend=_LOW))

    # --- what comes of it: (E,), NaN for an entity without a value ------------------------------

    def distinct(self, n_entities: int) -> NDArray[np.float64]:
        """How many values there are; zero is a number."""
        return np.bincount(self.entities, minlength=n_entities).astype(np.float64)

    def entropy(self, n_entities: int) -> NDArray[np.float64]:
        """Shannon entropy in nats."""
        total = self._sums(self.n)
        # Of counts c with total t: log t - sum(c log c) / t; rounding must not take a lone value below zero.
        # Summed in the order of the counts: that of the values depends on what else the rows hold.
        n = self.n[np.lexsort((self.n, self.entities))]
        found = np.log(total) - self._sums(n * np.log(n)) / total
        return self._spread(np.maximum(found, 0.0), n_entities)

    def top_share(self, n_entities: int) -> NDArray[np.float64]:
        """Share of the most frequent value."""
        top = np.maximum.reduceat(self.n, self._starts) if len(self) else self.n
        return self._spread(top / self._sums(self.n), n_entities)

    def reach(self, windows: NDArray[np.uint32]) -> NDArray[np.float64]:
        """The most entities of the same window, itself among them, that share any one of its values.

        `windows` numbers the window of each entity, (E,).
        """
        values = (self.keys & _LOW) | (windows[self.entities].astype(np.uint64) << _SHIFT)
        _, numbers, n_met = np.unique(values, return_inverse=True, return_counts=True)  # a pair is one entity
        return self.largest(n_met[numbers], len(windows))

    def largest(self, of_pairs: NDArray[np.float64] | NDArray[np.int64], n_entities: int) -> NDArray[np.float64]:
        """The largest of an entity's pairs."""
        return self._spread(np.maximum.reduceat(of_pairs, self._starts) if len(self) else of_pairs, n_entities)

    def quantile(self, q: float, n_entities: int) -> NDArray[np.float64]:
        """The value at rank floor(q (n - 1)) of each entity, among values that are numbers."""
        if not len(self):
            return np.full(n_entities, np.nan)
        values = self.values.cast(pl.Float64).to_numpy()
        numbers, entities = (self.keys & _LOW).astype(np.intp), self.entities
        order = np.lexsort((values[numbers], entities))
        n, starts = self.n[order], self._starts
        before = np.cumsum(n) - n
        lengths = np.diff(starts, append=len(n))
        below = before - np.repeat(before[starts], lengths)  # events of the same entity with a smaller value
        rank = np.repeat(np.floor(q * (self._sums(n) - 1)), lengths)
        at = order[(below <= rank) & (rank < below + n)]
        return self._spread(values[numbers[at]], n_entities)

    def _sums(self, amounts: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
        return (np.add.reduceat(amounts, self._starts) if len(self) else amounts).astype(np.float64)

    def _spread(self, found: NDArray[np.float64] | NDArray[np.int64], n_entities: int) -> NDArray[np.float64]:
        out = np.full(n_entities, np.nan)
        out[self.entities[self._starts]] = found
        return out


def _of_entities(keys: NDArray[np.uint64], entities: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """The upper half of each key, for entities numbered anew."""
    return entities[(keys >> _SHIFT).astype(np.intp)].astype(np.uint64) << _SHIFT


def _summed(keys: NDArray[np.uint64], n: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    if not len(keys):
        return keys, n
    order = pl.Series(keys).arg_sort().to_numpy()
    keys = keys[order]
    starts = _starts(keys)
    return keys[starts], np.add.reduceat(n[order], starts)


def _starts(ascending: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Where each distinct key begins."""
    is_start = np.ones(len(ascending), dtype=np.bool_)
    np.not_equal(ascending[1:], ascending[:-1], out=is_start[1:])
    return np.flatnonzero(is_start)
