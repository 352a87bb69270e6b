"""FeatureBatch -> what looks unusual before there is a model: for people who look, never for alerts.

Each feature is compared with its running mean and spread over all windows so far, bounded, and added up; rare
categories add too. Measured beside river's HalfSpaceTrees (docs/results/cold_start.md): on the whole it finds more, at
a twentieth of the time, which a history read back at full speed would feel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import FeatureBatch, Kind

MIN_WINDOWS: Final = 256  # learnt before the first score: a spread of fewer says little
TOP: Final = 5  # entities that are told
TOLD_MS: Final = 3_600_000  # event time for which an entity is told
_FLOOR: Final = 0.05  # of a spread
_RAREST: Final = 1e-3  # frequency of a category
_CATEGORY_WEIGHT: Final = 0.3
_MAX_CLASSES: Final = 10_000  # counted for a category; further ones stay rare
_HIGHEST: Final = 2.1  # of a score: -0.3 ln 1e-3, and some
_BINS: Final = 420
_LOGARITHMIC: Final = frozenset({Kind.MAGNITUDE, Kind.COUNT})
_SHOWN: Final = (0.5, 0.99, 1.0)  # quantiles of the scores

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Suspect:
    """An entity that has had an unusual window."""

    entity: str
    window_end_ms: int
    score: float  # 0 to 2.1; higher is more unusual
    rarity: float  # share of all windows before with at least this score


class Provisional:
    """Scores windows by all before them, then learns them; not kept across a restart."""

    def __init__(self) -> None:
        self.n_windows = 0
        self.suspects: list[Suspect] = []  # most unusual first, each entity once
        self._kinds: Sequence[Kind] = ()
        self._n = self._mean = self._squares = np.empty(0)  # (D,) each: known values, their mean, squared deviations
        self._classes: dict[int, dict[float, int]] = {}  # column -> windows by class
        self._histogram = np.zeros(_BINS)

    def observe(self, features: FeatureBatch) -> None:
        """Score the windows, remember the most unusual, and learn from all."""
        rows = np.flatnonzero(np.isnan(features.silence_p_values))  # a source as a whole is no entity
        if not len(rows):
            return
        if not len(self._n):
            self._begin(features.schema.kinds)
        values = self._flattened(features.values[rows])
        if self.n_windows >= MIN_WINDOWS:
            scores = self._scores(values)
            self._tell(features, rows, scores)
            self._histogram += np.bincount(_bins(scores), minlength=_BINS)
        self._learn(values)
        self.n_windows += len(rows)

    def quantiles(self) -> dict[str, float]:
        """The median, 99 % quantile and maximum of the scores so far; nothing before there are any."""
        total = self._histogram.sum()
        if not total:
            return {}
        reached = np.cumsum(self._histogram) / total
        places = np.searchsorted(reached, np.array(_SHOWN) - 1e-12)
        return {f"{q:g}": round((int(at) + 1) * _HIGHEST / _BINS, 3) for q, at in zip(_SHOWN, places, strict=True)}

    def _begin(self, kinds: Sequence[Kind]) -> None:
        self._kinds = kinds
        self._n, self._mean, self._squares = (np.zeros(len(kinds)) for _ in range(3))
        self._classes = {j: {} for j, kind in enumerate(kinds) if kind is Kind.CATEGORY}

    def _flattened(self, values: Values) -> Values:
        flat = values.clip(-1e100, 1e100)
        logged = [j for j, kind in enumerate(self._kinds) if kind in _LOGARITHMIC]
        flat[:, logged] = np.sign(flat[:, logged]) * np.log1p(np.abs(flat[:, logged]))
        return flat

    def _scores(self, values: Values) -> Values:
        """The mean over the known features, (N,): |tanh(z / 2)|, or -0.3 ln of a category's frequency."""
        spread = np.sqrt(self._squares / np.maximum(self._n, 1))
        parts = np.abs(np.tanh((values - self._mean) / (2 * np.maximum(spread, _FLOOR))))  # (N, D)
        for j, counts in self._classes.items():
            total = sum(counts.values()) + 1
            classes, places = np.unique(values[:, j], return_inverse=True)
            shares = np.array([(counts.get(code, 0) + 0.5) / total for code in classes.tolist()])
            parts[:, j] = -_CATEGORY_WEIGHT * np.log(np.maximum(shares, _RAREST))[places]
        is_known = np.isfinite(values)
        sums = np.where(is_known, parts, 0.0).sum(axis=1)
        scores: Values = sums / np.maximum(is_known.sum(axis=1), 1)
        return scores

    def _tell(self, features: FeatureBatch, rows: NDArray[np.int64], scores: Values) -> None:
        beyond = np.cumsum(self._histogram[::-1])[::-1]
        total = self._histogram.sum() + 1
        best = np.argsort(-scores, kind="stable")[:TOP]
        found = [
            Suspect(
                features.entities[int(rows[at])],
                int(features.window_end_ms[rows[at]]),
                round(float(scores[at]), 3),
                float((beyond[_bins(scores[at])] + 1) / total),
            )
            for at in best.tolist()
        ]
        newest_ms = int(features.window_end_ms.max())
        told: dict[str, Suspect] = {}
        for suspect in sorted([*self.suspects, *found], key=lambda one: (-one.score, one.entity)):
            if suspect.window_end_ms > newest_ms - TOLD_MS:
                told.setdefault(suspect.entity, suspect)
        self.suspects = list(told.values())[:TOP]

    def _learn(self, values: Values) -> None:
        """Add the batch's means and squared deviations (Chan, Golub, LeVeque 1979)."""
        is_known = np.isfinite(values)
        n = is_known.sum(axis=0)
        mean = np.where(is_known, values, 0.0).sum(axis=0) / np.maximum(n, 1)
        squares = np.square(np.where(is_known, values - mean, 0.0)).sum(axis=0)
        total, shift = self._n + n, mean - self._mean
        share = n / np.maximum(total, 1)
        self._squares = self._squares + squares + shift**2 * self._n * share
        self._mean = self._mean + shift * share
        self._n = total
        for j, counts in self._classes.items():
            classes, times = np.unique(values[is_known[:, j], j], return_counts=True)
            for code, count in zip(classes.tolist(), times.tolist(), strict=True):
                if code in counts or len(counts) < _MAX_CLASSES:
                    counts[code] = counts.get(code, 0) + count


def _bins(scores: Values) -> NDArray[np.int64]:
    return (scores * (_BINS / _HIGHEST)).astype(np.int64).clip(0, _BINS - 1)
