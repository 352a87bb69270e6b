"""Warm-up rows -> how contaminated they look, without labels.

Source of the statistic and its two constants: measured on NSL-KDD and KDD-99 (clean warm-ups have a
mass of up to .24, one with 20 % attacks .30, one with 46 % .48).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Kind

_HEAVY_ETA: Final = 0.78  # two kinds of hosts in a clean simulated network reach .76
_HEAVY_MASS: Final = 0.28
_LIMIT: Final = 1e100  # a square of it is still a number
_FLOOR: Final = 0.05  # of a spread; a constant column says nothing
_RAREST: Final = 1e-3  # frequency of a category
_CATEGORY_WEIGHT: Final = 0.3
_LOGARITHMIC: Final = frozenset({Kind.MAGNITUDE, Kind.COUNT})
_REJECTED: Final = 0.05  # share of the rows, those that the trimmed model likes least
_STILL_ODD: Final = 0.9  # share of all rows that a model finds more ordinary than these, unless it has learnt them
KEPT: Final = 0.9  # share of the rows that a contaminated warm-up is cut down to


@dataclass(frozen=True, slots=True)
class Split:
    """Two groups of rows, as far apart as they get."""

    eta: float  # variance between the groups, as a share of all variance
    mass: float  # share of the rows in the upper group

    @property
    def is_heavy(self) -> bool:
        """Whether the upper group is a population of its own rather than a tail."""
        return self.eta >= _HEAVY_ETA and self.mass >= _HEAVY_MASS


def distances(values: NDArray[np.float64], kinds: Sequence[Kind]) -> NDArray[np.float64]:
    """How far each row is from the middle of all, (N,): bounded for each feature, so that none rules.

    Args:
        values: Raw values, shape (N, D); NaN adds nothing.
        kinds: What each of the D features is.
    """
    total = np.zeros(len(values))
    for column, kind in zip(values.T, kinds, strict=True):
        is_known = np.isfinite(column)
        known = column[is_known]
        if not len(known):
            continue
        if kind is Kind.CATEGORY:
            _, codes, counts = np.unique(known, return_inverse=True, return_counts=True)
            frequency = np.maximum(counts[codes] / len(known), _RAREST)
            total[is_known] -= _CATEGORY_WEIGHT * np.log(frequency)
        else:
            x = np.sign(known) * np.log1p(np.abs(known)) if kind in _LOGARITHMIC else known
            x = x.clip(-_LIMIT, _LIMIT)
            total[is_known] += np.abs(np.tanh((x - np.median(x)) / (2 * max(float(x.std()), _FLOOR))))
    return total


def otsu(sample: NDArray[np.float64]) -> Split:
    """The split of a sample into two groups with the most variance between them.

    Source: Otsu 1979, over the 2 % to 98 % quantiles.
    """
    ordered = np.sort(sample)
    variance = float(ordered.var()) if len(ordered) else 0.0
    if variance <= 0:
        return Split(0.0, 0.0)
    cuts = np.unique(np.searchsorted(ordered, np.quantile(ordered, np.linspace(0.02, 0.98, 97)), side="right"))
    cuts = cuts[(cuts > 0) & (cuts < len(ordered))]
    if not len(cuts):
        return Split(0.0, 0.0)
    below = cuts / len(ordered)
    sums = np.cumsum(ordered)
    mean_below = sums[cuts - 1] / cuts
    mean_above = (sums[-1] - sums[cuts - 1]) / (len(ordered) - cuts)
    between = below * (1 - below) * (mean_above - mean_below) ** 2
    best = int(np.argmax(between))
    return Split(float(between[best] / variance), float(1 - below[best]))


def inliers(scores: NDArray[np.float64], core: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows whose score lies within the core's upper fence, q3 + 1.5 (q3 - q1); (N,)."""
    known = scores[core & np.isfinite(scores)]
    if not len(known):
        return core
    q1, q3 = (float(np.quantile(known, quantile)) for quantile in (0.25, 0.75))
    fence = q3 + 1.5 * (q3 - q1)
    return scores <= fence


def has_memorised(scores: NDArray[np.float64], trimmed: NDArray[np.float64]) -> bool:
    """Whether a model finds ordinary what one that may leave a tenth out rejects: attacks that came again and again.

    Rare habits are rejected by the trimmed model as well, but stay rare to the other one.

    Args:
        scores: Of the model that had to learn all rows, (N,); NaN rows are left out.
        trimmed: Of the model that could leave out what fitted worst, (N,).
    """
    is_known = np.isfinite(scores) & np.isfinite(trimmed)
    scores, trimmed = scores[is_known], trimmed[is_known]
    if not len(scores):
        return False
    is_rejected = trimmed >= np.quantile(trimmed, 1 - _REJECTED)
    return float(np.mean(scores < np.median(scores[is_rejected]))) < _STILL_ODD
