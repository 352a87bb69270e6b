"""Detectors to be compared with, on the same rows: each learns from the warm-up and scores every row."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from stream_iwae.batches import Kind
from stream_iwae.iwae.kinds import resolve
from stream_iwae.iwae.transform import MAX_CLASSES
from stream_iwae.lab.half_space_trees import WINDOW, BlockwiseTrees
from stream_iwae.lab.labelled_rows import LabelledRows

Values = NDArray[np.float64]
_KNOWN: Final = {"signed": "magnitude"}  # what a number looks like -> the kind that is encoded alike
_FLOOR: Final = 0.05  # of a logarithm's deviation, and of the range of anything else
_LIMIT: Final = 1e100  # beyond it squares overflow
_LOGGED: Final = (Kind.MAGNITUDE, Kind.COUNT)
_VARIANCE_KEPT: Final = 0.95
_NEIGHBOURS_AT_ONCE: Final = 20_000  # rows


class Encoder:
    """Rows -> standardised numbers and one-hot categories, fitted on the warm-up: what each rival sees.

    Logarithms, floors of scales and the number of classes are those of the model's own transform; a missing
    number is the warm-up's mean.
    """

    def __init__(self, warmup: LabelledRows) -> None:
        columns = zip(warmup.values.T, warmup.schema.kinds, strict=True)
        self._kinds = [Kind(_KNOWN.get(looks, looks)) for looks in (resolve(c, str(kind)) for c, kind in columns)]
        numbers = self._numbers(warmup.values)
        is_known = np.isfinite(numbers)
        counts = np.maximum(is_known.sum(axis=0), 1)
        known = np.where(is_known, numbers, 0.0)
        self._mean = known.sum(axis=0) / counts
        spread = np.sqrt((np.where(is_known, numbers - self._mean, 0.0) ** 2).sum(axis=0) / counts)
        low, high = np.where(is_known, numbers, np.inf).min(axis=0), np.where(is_known, numbers, -np.inf).max(axis=0)
        self._scale = np.maximum(spread, self._floors(low, high))
        self._known = [_frequent(column[np.isfinite(column)]) for column in self._categories(warmup.values)]

    def encode(self, values: Values) -> Values:
        """(N, D) raw values -> (N, E) numbers; an unseen category has no 1 at all."""
        hot = [
            (column[:, None] == known[None, :]).astype(np.float64)
            for column, known in zip(self._categories(values), self._known, strict=True)
        ]
        return np.column_stack([np.nan_to_num((self._numbers(values) - self._mean) / self._scale), *hot])

    def _categories(self, values: Values) -> list[Values]:
        return [column for column, kind in zip(values.T, self._kinds, strict=True) if kind is Kind.CATEGORY]

    def _numbers(self, values: Values) -> Values:
        """(N, C), NaN where missing."""
        columns = [np.empty((len(values), 0))]
        for column, kind in zip(values.T, self._kinds, strict=True):
            if kind is Kind.CATEGORY:
                continue
            bounded = column.clip(-_LIMIT, _LIMIT)
            columns.append(np.sign(bounded) * np.log1p(np.abs(bounded)) if kind in _LOGGED else bounded)
        return np.column_stack(columns)

    def _floors(self, low: Values, high: Values) -> Values:
        """Least scale of each number, (C,): columns that all lie in [-1, 1] share a unit, and so a floor."""
        is_logged = np.array([kind in _LOGGED for kind in self._kinds if kind is not Kind.CATEGORY], dtype=np.bool_)
        is_known = ~is_logged & (high >= low)
        if not is_known.any():
            return np.full(len(low), _FLOOR)
        spread = np.where(is_known, high - np.where(is_known, low, 0.0), 0.0)
        if low[is_known].min() >= -1 and high[is_known].max() <= 1:
            spread = np.full(len(low), spread.max())
        return np.where(is_logged | (spread <= 0), _FLOOR, _FLOOR * spread)


def _frequent(codes: Values) -> Values:
    known, counts = np.unique(codes, return_counts=True)
    return np.sort(known[np.argsort(-counts, kind="stable")[:MAX_CLASSES]])


Rival = Callable[[Values, int], Callable[[Values], Values]]


def isolation_forest(warmup: Values, seed: int) -> Callable[[Values], Values]:
    """Liu, Ting, Zhou 2008, Isolation forest: scikit-learn's defaults."""
    fitted = IsolationForest(random_state=seed).fit(warmup)
    return lambda rows: -fitted.score_samples(rows)


def pca(warmup: Values, seed: int) -> Callable[[Values], Values]:
    """Squared distance from the subspace that holds 95 % of the variance; one dimension at least is left out of it.

    Where it would hold all of it nothing could be far from it: a single number, or rows that are all alike.
    """
    most = warmup.shape[1] - 1
    if most == 0 or np.ptp(warmup, axis=0).max() <= 0:
        middle = warmup.mean(axis=0)
        return lambda rows: ((rows - middle) ** 2).sum(axis=1)
    fitted = PCA(n_components=_VARIANCE_KEPT, svd_solver="full", random_state=seed).fit(warmup)
    kept = fitted.components_[:most]  # (P, E)

    def score(rows: Values) -> Values:
        centred = rows - fitted.mean_
        distances: Values = ((centred - centred @ kept.T @ kept) ** 2).sum(axis=1)
        return distances

    return score


def nearest_neighbour(warmup: Values, _: int) -> Callable[[Values], Values]:
    """Distance to the nearest row of the warm-up, each number bounded by tanh."""
    fitted = NearestNeighbors(n_neighbors=1).fit(np.tanh(warmup / 2))

    def score(rows: Values) -> Values:
        blocks = np.array_split(rows, max(1, len(rows) // _NEIGHBOURS_AT_ONCE))
        return np.concatenate([fitted.kneighbors(np.tanh(block / 2))[0][:, 0] for block in blocks])

    return score


def half_space_trees(warmup: Values, seed: int) -> Callable[[Values], Values]:
    """Tan, Ting, Liu 2011, Fast anomaly detection for streaming data; learns each row after scoring it."""
    low, high = warmup.min(axis=0), warmup.max(axis=0)
    trees = BlockwiseTrees(warmup.shape[1], seed, min(WINDOW, len(warmup)))

    def score(rows: Values) -> Values:
        return trees.score_and_learn(np.clip((rows - low) / np.maximum(high - low, 1e-9), 0.0, 1.0))

    score(warmup)
    return score


RIVALS: Final[dict[str, Rival]] = {
    "isolation-forest": isolation_forest,
    "pca": pca,
    "nearest-neighbour": nearest_neighbour,
    "half-space-trees": half_space_trees,
}
