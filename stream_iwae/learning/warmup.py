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

_HEAVY_ETA: Final = 0.75
_HEAVY_MASS: Final = 0.28
_FLOOR: Final = 0.05  # of a spread; a constant column says nothing
_RAREST: Final = 1e-3  # frequency of a category
_CATEGORY_WEIGHT: Final = 0.3
_LOGARITHMIC: Final = frozenset({Kind.MAGNITUDE, Kind.COUNT})


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
