"""Detectors to be compared with, on the same rows: each learns from the warm-up and scores every row."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from river.anomaly import HalfSpaceTrees
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

from stream_iwae.batches import Kind
from stream_iwae.lab.labelled_rows import LabelledRows

Values = NDArray[np.float64]
_FLOOR: Final = 0.05  # of a standard deviation
_VARIANCE_KEPT: Final = 0.95
_TREES: Final[dict[str, Any]] = {"n_trees": 25, "height": 8, "window_size": 250}


class Encoder:
    """Rows -> standardised numbers and one-hot categories, fitted on the warm-up: what each rival sees."""

    def __init__(self, warmup: LabelledRows) -> None:
        self._kinds = warmup.schema.kinds
        numbers = self._numbers(warmup.values)
        self._mean, self._scale = numbers.mean(axis=0), np.maximum(numbers.std(axis=0), _FLOOR)
        self._known = [
            np.unique(column[np.isfinite(column)])
            for column, kind in zip(warmup.values.T, self._kinds, strict=True)
            if kind is Kind.CATEGORY
        ]

    def encode(self, values: Values) -> Values:
        """(N, D) raw values -> (N, E) numbers; an unseen category has no 1 at all."""
        hot = [
            (column[:, None] == known[None, :]).astype(np.float64)
            for column, known in zip(
                (c for c, kind in zip(values.T, self._kinds, strict=True) if kind is Kind.CATEGORY),
                self._known,
                strict=True,
            )
        ]
        return np.column_stack([(self._numbers(values) - self._mean) / self._scale, *hot])

    def _numbers(self, values: Values) -> Values:
        columns = []
        for column, kind in zip(values.T, self._kinds, strict=True):
            if kind is Kind.CATEGORY:
                continue
            known = np.nan_to_num(column)
            columns.append(np.sign(known) * np.log1p(np.abs(known)) if kind is Kind.MAGNITUDE else known)
        return np.column_stack(columns)


Rival = Callable[[Values, int], Callable[[Values], Values]]


def isolation_forest(warmup: Values, seed: int) -> Callable[[Values], Values]:
    """Liu, Ting, Zhou 2008, Isolation forest: scikit-learn's defaults."""
    fitted = IsolationForest(random_state=seed).fit(warmup)
    return lambda rows: -fitted.score_samples(rows)


def pca(warmup: Values, seed: int) -> Callable[[Values], Values]:
    """Squared distance from the subspace that holds 95 % of the variance."""
    fitted = PCA(n_components=_VARIANCE_KEPT, svd_solver="full", random_state=seed).fit(warmup)
    return lambda rows: ((rows - fitted.inverse_transform(fitted.transform(rows))) ** 2).sum(axis=1)


def nearest_neighbour(warmup: Values, _: int) -> Callable[[Values], Values]:
    """Distance to the nearest row of the warm-up, each number bounded by tanh."""
    fitted = NearestNeighbors(n_neighbors=1).fit(np.tanh(warmup / 2))
    return lambda rows: fitted.kneighbors(np.tanh(rows / 2))[0][:, 0]


def half_space_trees(warmup: Values, seed: int) -> Callable[[Values], Values]:
    """Tan, Ting, Liu 2011, Fast anomaly detection for streaming data; learns each row after scoring it."""
    low, high = warmup.min(axis=0), warmup.max(axis=0)
    trees: Any = HalfSpaceTrees(**_TREES, seed=seed)

    def scaled(rows: Values) -> list[dict[int, float]]:
        bounded = np.clip((rows - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
        return [dict(enumerate(row)) for row in bounded.tolist()]

    for row in scaled(warmup):
        trees.learn_one(row)

    def score(rows: Values) -> Values:
        found = np.empty(len(rows))
        for i, row in enumerate(scaled(rows)):
            found[i] = trees.score_one(row)
            trees.learn_one(row)
        return found

    return score


RIVALS: Final[dict[str, Rival]] = {
    "isolation-forest": isolation_forest,
    "pca": pca,
    "nearest-neighbour": nearest_neighbour,
    "half-space-trees": half_space_trees,
}
