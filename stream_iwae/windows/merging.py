"""Columns of several partials -> one, each entity's rows merged.

An entity has at most one row in a partial, so taking a partial's column in is one scatter by the entities' numbers.
A column at a time and with nothing side by side first: grouping all columns of all partials took three times the
memory of what came of it, which at 100,000 entities was the service's peak.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

Merging = Literal["sum", "least", "greatest", "last", "last_present"]
"""What comes of an entity's values in time order; all but `last` pass over missing ones."""

_INTO: Final = {"sum": np.add, "least": np.fmin, "greatest": np.fmax}  # fmin and fmax pass over NaN


class Merged:
    """Which row of the merged partial each row of its parts belongs to."""

    def __init__(self, rows: Sequence[NDArray[np.uint32]], n_rows: int) -> None:
        """Merge into `n_rows`: row i of part p is taken into row `rows[p][i]`, each at most once a part."""
        self._rows, self._n_rows = rows, n_rows

    def column(self, parts: Sequence[pl.Series], merging: Merging) -> pl.Series:
        """One column of the merged partial from that of each part, in time order."""
        if merging in {"last", "last_present"}:
            return self._last(parts, is_present_only=merging == "last_present")
        dtype = parts[0].dtype
        first = self._spread(parts[0].to_numpy(), merging)
        for rows, part in zip(self._rows[1:], parts[1:], strict=True):
            first[rows] = _INTO[merging](first[rows], part.to_numpy())
        return pl.Series(parts[0].name, first, dtype=dtype, nan_to_null=merging != "sum")

    def squares(self, squares: Sequence[pl.Series], totals: Sequence[pl.Series], n: Sequence[pl.Series]) -> pl.Series:
        """Sums of squares about the mean of all, from those about each part's own.

        Source: Chan, Golub, LeVeque 1983, Algorithms for computing the sample variance, equation 2.1.
        """
        with np.errstate(divide="ignore", invalid="ignore"):  # 0/0 where an entity has no value
            mean = self.column(totals, "sum").to_numpy() / self.column(n, "sum").to_numpy()
            merged = np.zeros(self._n_rows)
            for rows, own, total, count in zip(self._rows, squares, totals, n, strict=True):
                apart = total.to_numpy() / count.to_numpy() - mean[rows]
                about = own.to_numpy() + count.to_numpy() * apart * apart
                merged[rows] += np.where(count.to_numpy() > 0, about, 0.0)
        return pl.Series(squares[0].name, merged)

    def _spread(self, values: NDArray[Any], merging: Merging) -> NDArray[Any]:
        """The first part's values where they belong, and elsewhere what changes nothing."""
        nothing: float = 0 if merging == "sum" else np.nan
        if merging != "sum" and np.issubdtype(values.dtype, np.integer):
            limits = np.iinfo(values.dtype)
            nothing = limits.max if merging == "least" else limits.min
        spread = np.full(self._n_rows, nothing, dtype=values.dtype)
        spread[self._rows[0]] = values
        return spread

    def _last(self, parts: Sequence[pl.Series], *, is_present_only: bool) -> pl.Series:
        together = pl.concat(parts)
        chosen = np.full(self._n_rows, -1, dtype=np.int64)
        start = 0
        for rows, part in zip(self._rows, parts, strict=True):
            at = np.arange(start, start + len(part))
            is_taken = part.is_not_null().to_numpy() if is_present_only else slice(None)
            chosen[rows[is_taken]] = at[is_taken]
            start += len(part)
        places = pl.Series(chosen)
        return together.gather(places.set(places < 0, None))
