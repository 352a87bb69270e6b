"""Scores of a time series and its labelled ranges -> VUS-PR, which forgives a detection that is a little early or late.

Source: Paparrizos, Boniol, Palpanas, Tsay, Elmore, Franklin 2022, Volume under the surface: a new accuracy
evaluation measure for time-series anomaly detection (VLDB), section 3; weights and recall as in the authors' code.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

SLIDING_WINDOW: Final = 100
"""Longest buffer in rows, for every series: the authors take the series' period, which few of ours have."""

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


def vus_pr(is_anomaly: Mask, scores: Values, longest: int = SLIDING_WINDOW) -> float:
    """The mean of `range_auc_pr` over the buffers 0, 1, ... `longest`."""
    order = _descending(scores)
    return float(np.mean([_range_auc_pr(is_anomaly, scores, order, buffer) for buffer in range(longest + 1)]))


def range_auc_pr(is_anomaly: Mask, scores: Values, buffer: int) -> float:
    """Area under precision against range recall, over every threshold (the published code takes 250).

    Rows up to `buffer` / 2 beyond a range count as anomalous with a weight that falls as a square root. Recall
    is the weight found times the share of ranges of which anything was found.

    Args:
        is_anomaly: Shape (N,), at least one True.
        scores: Shape (N,), finite; higher is more anomalous.
        buffer: In rows; 0 leaves the ranges as they are.
    """
    return _range_auc_pr(is_anomaly, scores, _descending(scores), buffer)


def buffered_labels(is_anomaly: Mask, buffer: int) -> Values:
    """Weight of each row: 1 in a range, sqrt(1 - d / buffer) at distance d <= buffer / 2 from one, else 0.

    >>> buffered_labels(np.array([False, True, False, False]), 2).round(3).tolist()
    [0.707, 1.0, 0.707, 0.0]
    """
    weights = is_anomaly.astype(np.float64)
    n = len(weights)
    for start, stop in ranges(is_anomaly):
        after = np.arange(stop, min(stop + buffer // 2, n))
        before = np.arange(max(start - buffer // 2, 0), start)
        weights[after] += np.sqrt(1 - (after - stop + 1) / max(buffer, 1))
        weights[before] += np.sqrt(1 - (start - before) / max(buffer, 1))
    return np.minimum(weights, 1.0)


def ranges(mask: Mask) -> list[tuple[int, int]]:
    """[start, stop) of each run of True.

    >>> ranges(np.array([True, False, True, True]))
    [(0, 1), (2, 4)]
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def _descending(scores: Values) -> NDArray[np.int64]:
    return np.argsort(-scores, kind="stable")


def _range_auc_pr(is_anomaly: Mask, scores: Values, order: NDArray[np.int64], buffer: int) -> float:
    weights = buffered_labels(is_anomaly, buffer)
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # the last row of each distinct score
    n_found = last + 1.0
    # A row of a true range counts in full for the positives even where it is not found; a row of a buffer only
    # by what is found of it.
    true_positives = np.cumsum(weights[order])[last]
    in_buffer = np.where(is_anomaly, 0.0, weights)
    n_true = int(is_anomaly.sum())
    positives = (n_true + n_true + np.cumsum(in_buffer[order])[last]) / 2
    tops = np.array([scores[start:stop].max() for start, stop in ranges(weights > 0)])
    existence = np.searchsorted(np.sort(-tops), -ordered[last], side="right") / len(tops)
    recall = np.minimum(true_positives / positives, 1.0) * existence
    precision = true_positives / n_found
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))
