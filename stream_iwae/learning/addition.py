"""Odd windows beside the usual ones, or in their place: whether the stream has moved, or something was added to it.

Where the ordinary has changed, the usual windows become fewer. An attack on many hosts adds windows, however many,
and leaves the usual ones as they were. What was added is not learnt, however ordinary its p-values have become by
then, unless it has lasted.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FEW: Final = 0.1  # share of odd windows up to which there is nothing to ask
_LEFT: Final = 0.5  # of the usual windows: with fewer the stream has moved


@dataclass(frozen=True, slots=True)
class Sighting:
    """An ungated sample of the stream, N windows, and which of them astonish the serving model."""

    window_end_ms: NDArray[np.int64]  # (N,)
    weights: NDArray[np.float64]  # (N,), windows of the stream that each stands for
    is_odd: NDArray[np.bool_]  # (N,)


def is_addition(seen: Sighting, now_ms: int, day_ms: int, past_ms: int, stratum_ms: int) -> bool:
    """Whether the odd windows of the last day came beside the usual ones, which are still there.

    Args:
        seen: The stream's past.
        now_ms: The newest event time.
        day_ms: What counts as recent.
        past_ms: How much there has to be known of the usual, and how long an addition has to last to be usual.
        stratum_ms: Span of event time over which windows are counted.
    """
    age_ms = now_ms - seen.window_end_ms
    known = age_ms < past_ms
    is_recent, is_oldest = age_ms < day_ms, known & (age_ms >= past_ms - day_ms)
    if not is_oldest.any() or not is_recent.any():
        return False  # too young to know what is usual
    if np.average(seen.is_odd[is_oldest], weights=seen.weights[is_oldest]) > FEW:
        return False  # it has lasted
    left = _usual_rate(seen, is_recent, stratum_ms) / max(_usual_rate(seen, known & ~is_recent, stratum_ms), 1e-9)
    return left >= _LEFT


def _usual_rate(seen: Sighting, among: NDArray[np.bool_], stratum_ms: int) -> float:
    """Windows that do not astonish, by stratum in which there was any window."""
    strata = np.unique(seen.window_end_ms[among] // stratum_ms)
    return float(seen.weights[among & ~seen.is_odd].sum()) / len(strata)
