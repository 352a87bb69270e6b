"""How often the values of a field occur, all entities together, beside their own fading past.

One past an aggregate, in a count-min sketch of a fixed size, however many values there are: a flood of forged
addresses makes all values look more usual, and takes no memory. Waves of windows with the same end are taken in
order, so where a poll cuts the log changes nothing.

Source: Cormode, Muthukrishnan 2005, An improved data stream summary: the count-min sketch and its applications;
the comparison with the past is that of MIDAS (Bhatia et al. 2020, section 4.2), as a factor.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.state import KeyedState
from stream_iwae.windows.value_counts import ValueCounts

_BITS: Final = 14
BUCKETS: Final = 2**_BITS  # of a row
ROWS: Final = 2  # a value's count is the lesser of its buckets
_BLOCK: Final = 256  # buckets that are stored together, in 2 KiB
_SALTS: Final = (0x9E3779B97F4A7C15, 0xD1B54A32D192ED03)  # odd, one a row

Record = list[Any]  # of a block: [sums, the waves they are of], as bytes; of a past: [waves so far]
Values = NDArray[np.float64]


class ValuePast:
    """The past of one field's values; it fades over `n_windows`, to 1/e."""

    def __init__(self, name: str, n_windows: int) -> None:
        self._name, self._n_windows = name, n_windows
        self._clear()

    def _clear(self) -> None:
        self._wave = 0
        self._sums = np.zeros((ROWS, BUCKETS), dtype=np.float32)  # events, faded as of `_last`
        self._last = np.zeros((ROWS, BUCKETS), dtype=np.int32)  # the last wave that added to the bucket
        self._is_changed = np.zeros((ROWS, BUCKETS // _BLOCK), dtype=np.bool_)

    # --- waves ----------------------------------------------------------------------------------

    def surge(self, counts: ValueCounts, windows: NDArray[np.uint32]) -> Values:
        """How many times its mean in a wave any value of each entity occurs at most, (E,); NaN for one without.

        A value that occurs alike in every wave has 1; one never seen before as many as there were waves, those long
        past counting less. Takes the waves in, each once. `windows` numbers the window of each entity, (E,), ascending.
        """
        hashes = _hashes(counts.values)
        cuts = np.searchsorted(windows[counts.entities], np.arange(int(windows.max(initial=0)) + 2))
        factors = np.empty(len(counts))
        for start, stop in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
            values, at = np.unique(counts.value_numbers[start:stop], return_inverse=True)
            n = np.bincount(at, weights=counts.n[start:stop], minlength=len(values))
            factors[start:stop] = self._take(hashes[values], n)[at]
        return counts.largest(factors, len(windows))

    def _take(self, hashes: NDArray[np.uint64], n: NDArray[Any]) -> Values:
        """Take in one wave: how often each of V distinct values occurred; how many times its mean that is, (V,)."""
        self._wave += 1
        total = np.full(len(n), np.inf)
        for row, salt in enumerate(_SALTS):
            buckets, at = np.unique(hashes * np.uint64(salt) >> np.uint64(64 - _BITS), return_inverse=True)
            faded = self._sums[row, buckets] * self._share_left(self._wave - self._last[row, buckets])
            # Whole numbers add up exactly: the order of the values, which a poll may change, is none of the result's.
            sums = (faded + np.bincount(at, weights=n, minlength=len(buckets))).astype(np.float32)
            self._sums[row, buckets], self._last[row, buckets] = sums, self._wave
            self._is_changed[row, buckets // np.uint64(_BLOCK)] = True
            total = np.minimum(total, sums[at])
        n_waves = (1 - self._share_left(self._wave)) / (1 - self._share_left(1))  # those long past count less
        factors: Values = n * n_waves / total
        return factors

    def _share_left(self, n_waves: int | NDArray[np.int32]) -> Values:
        left: Values = np.exp(np.negative(n_waves) / self._n_windows)
        return left

    # --- what is kept ---------------------------------------------------------------------------

    def store(self, state: KeyedState[Record]) -> None:
        """Write what changed since the last time."""
        if not self._is_changed.any() and self._wave == (state.get(self._name) or [0])[0]:
            return
        state.put(self._name, [self._wave])
        for row, block in np.argwhere(self._is_changed).tolist():
            state.put(self._key(row, block), [part.tobytes() for part in self._parts(row, block)])
        self._is_changed[:] = False

    def load(self, state: Mapping[str, Record]) -> None:
        """Go on from what was stored."""
        self._clear()
        self._wave = int(state.get(self._name, [0])[0])
        for row, block in np.ndindex(self._is_changed.shape):
            record = state.get(self._key(row, block))
            if record is not None:
                for part, stored in zip(self._parts(row, block), record, strict=True):
                    part[:] = np.frombuffer(stored, part.dtype)

    def _key(self, row: int, block: int) -> str:
        return f"{self._name}/{row}/{block}"

    def _parts(self, row: int, block: int) -> tuple[NDArray[Any], NDArray[Any]]:
        at = slice(block * _BLOCK, (block + 1) * _BLOCK)
        return self._sums[row, at], self._last[row, at]


class ValuePasts:
    """The pasts of all aggregates that ask for one."""

    def __init__(self, n_windows: Mapping[str, int]) -> None:
        """`n_windows`: aggregate -> windows over which its past fades."""
        self._pasts = {name: ValuePast(name, n) for name, n in n_windows.items()}
        self._state: KeyedState[Record] = KeyedState()

    def __getitem__(self, name: str) -> ValuePast:
        return self._pasts[name]

    @property
    def state(self) -> KeyedState[Record]:
        """All that has to survive, up to the last window that closed."""
        for past in self._pasts.values():
            past.store(self._state)
        return self._state

    def restore(self, values: Mapping[str, Record]) -> None:
        """Go on from a snapshot of `state`."""
        self._state.restore(values)
        for past in self._pasts.values():
            past.load(values)


def _hashes(values: pl.Series) -> NDArray[np.uint64]:
    """32 bits of each value, (V,), the same in every process."""
    texts: Sequence[Any] = values.to_list()
    parts = (value.encode() if isinstance(value, str) else struct.pack("<d", value) for value in texts)
    return np.fromiter(map(zlib.crc32, parts), dtype=np.uint64, count=len(texts))
