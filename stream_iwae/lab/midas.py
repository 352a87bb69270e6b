"""Edges of a graph in time -> anomaly scores: MIDAS and MIDAS-R, as published.

Source: Bhatia, Hooi, Yoon, Shin, Faloutsos 2020, MIDAS: Microcluster-Based Detector of Anomalies in Edge
Streams (AAAI), sections 4.2 (MIDAS) and 5 (MIDAS-R); two hash functions of 1024 buckets and a decay of .5 as in
the authors' code. What they compute edge by edge is computed here for all edges at once, with the same counts.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.learning.rows import mix

BUCKETS: Final = 1_024
ROWS: Final = 2
DECAY: Final = 0.5

Values = NDArray[np.float64]
Keys = NDArray[np.uint64]
Ticks = NDArray[np.int64]


def midas(sources: Keys, destinations: Keys, ticks: Ticks, seed: int) -> Values:
    """How suddenly each edge (N,) is frequent, against all of its past; higher is more anomalous.

    Args:
        sources: One number for each source, (N,).
        destinations: The same for destinations.
        ticks: Number of the time step, from 1, in ascending order.
        seed: Of the hash functions.
    """
    return _scores(_paired(sources, destinations), ticks, seed, decay=0.0)


def midas_r(sources: Keys, destinations: Keys, ticks: Ticks, seed: int) -> Values:
    """The same with counts of the recent past that fade, and of sources and destinations too; the largest counts."""
    pair = _paired(sources, destinations)
    scores = [_scores(keys, ticks, seed + salt, DECAY) for salt, keys in enumerate((pair, sources, destinations))]
    largest: Values = np.maximum.reduce(scores)
    return largest


def _paired(sources: Keys, destinations: Keys) -> Keys:
    # One inside the other: two mixed apart and then joined would let (0, 0) and (3, 3) be one edge.
    return mix(mix(sources, 0x5EED_1001) ^ destinations, 0x5EED_1002)


def _scores(keys: Keys, ticks: Ticks, seed: int, decay: float) -> Values:
    """Chi-squared of the current count a against the mean s / t of all ticks: (a - s/t)^2 t^2 / (s (t - 1))."""
    mixed = mix(keys, 0x5EED_2000)
    current, total = np.full(len(keys), np.inf), np.full(len(keys), np.inf)
    for row in range(ROWS):  # a count-min sketch: the least of the rows
        buckets = (mix(mixed, 0x5EED_2001 + seed * 8_191 + row) % np.uint64(BUCKETS)).astype(np.int64)
        total = np.minimum(total, _rank_within(buckets) + 1)
        current = np.minimum(current, _fading_counts(buckets, ticks, decay))
    t = ticks.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (current - total / t) ** 2 * t**2 / (total * (t - 1))
    return np.where(t > 1, scores, 0.0)


def _fading_counts(buckets: Ticks, ticks: Ticks, decay: float) -> Values:
    """Count of each bucket up to and with each edge; at the first edge of a new tick all are multiplied by `decay`."""
    within = _rank_within(ticks * BUCKETS + buckets) + 1.0
    if decay == 0.0:
        return within
    counts, carried = np.zeros(BUCKETS), np.empty(len(buckets))
    starts = np.flatnonzero(np.diff(ticks, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(ticks)], strict=True):
        counts *= decay
        inside = buckets[start:stop]
        carried[start:stop] = counts[inside]
        np.add.at(counts, inside, 1.0)
    return carried + within


def _rank_within(groups: Ticks) -> Values:
    """How many earlier entries are equal, (N,)."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    firsts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    begins = np.repeat(firsts, np.diff(np.append(firsts, len(groups))))
    ranks = np.empty(len(groups))
    ranks[order] = np.arange(len(groups)) - begins
    return ranks
