"""Scores of one side -> the share of windows that lie at least as far out: observed shares, then a fitted tail."""

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from stream_iwae.detection.tail import Tail, fit_tail

MIN_EXCESSES: Final = 50  # a fit to fewer is worse than the former one
TAIL_SHARE: Final = 0.02  # the tail is never longer, where there is a former one to keep instead
MAX_KNOTS: Final = 256  # of the body; 8 KB of JSON
P_VALUE_FLOOR: Final = 1e-12  # no sample tells smaller ones apart, and none is ever 0
_STEP: Final = 0.99  # a smaller fall of the p-value is none
_ROUNDING: Final = 1e-3  # nats, and share of a score: scores of two builds differ by less

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survival:
    """P(S >= s) on the stream that it was fitted to, higher being farther out.

    Windows that are alike have the same score, and all of them count: none is rarer than its kind.
    """

    scores: tuple[float, ...]  # nats, ascending knots; the last one is where the tail begins
    p_values: tuple[float, ...]  # of the knots, descending, in (0, 1)
    tail: Tail  # of what lies beyond the last knot

    def __post_init__(self) -> None:
        scores, p_values = np.asarray(self.scores), np.asarray(self.p_values)
        if not 1 <= len(scores) == len(p_values) <= MAX_KNOTS:
            raise ValueError(f"need 1 to {MAX_KNOTS} knots, got {len(scores)} scores and {len(p_values)} p-values")
        if not np.all(np.isfinite(scores)) or np.any(np.diff(scores) <= 0):
            raise ValueError("the scores of the knots must be finite and ascend")
        if not np.all((p_values > 0) & (p_values < 1)) or np.any(np.diff(p_values) >= 0):
            raise ValueError("the p-values of the knots must lie in (0, 1) and descend")

    @classmethod
    def fit(
        cls,
        scores: Values,
        weights: Values,
        former: Tail | None = None,
        censor_above: float | None = None,
        min_excesses: int = MIN_EXCESSES,
    ) -> Self:
        """Fit to n finite scores of an ungated sample; a sample cut at some p-value has no tail left to fit.

        Args:
            scores: Shape (n,), nats, at least one.
            weights: Shape (n,), how many windows of the stream each stands for, on any scale.
            former: Kept where there are fewer than `min_excesses` excesses.
            censor_above: Scores past it are counted, but how far they went past it is not used: they may be attacks.
            min_excesses: What a fit of the tail needs.
        """
        ladder = _Ladder.of(scores, weights)
        start = ladder.tail_start(min_excesses)
        knots = ladder.knots(start)
        found, p_values = ladder.scores[knots], ladder.p_values[knots]
        beyond = (float(ladder.counts[start + 1 :].sum()) + 1) / (ladder.n + 1)  # the share to expect past the start
        if beyond < _STEP * p_values[-1]:  # many windows share the last score, and are no part of the tail
            found = np.append(found, found[-1] + _ROUNDING * max(1.0, abs(found[-1])))
            p_values = np.append(p_values, beyond)
        excesses, counts = ladder.scores[start + 1 :] - found[-1], ladder.counts[start + 1 :]
        counts, excesses = counts[excesses > 0], excesses[excesses > 0]
        if former is not None and ladder.n * TAIL_SHARE < min_excesses:
            tail = former
        elif not len(excesses):
            tail = Tail.exponential(ladder.spread)
        else:
            tail = _tail(excesses, counts, math.inf if censor_above is None else censor_above - found[-1])
        return cls(tuple(found.tolist()), tuple(p_values.tolist()), tail)

    @property
    def tail_start(self) -> float:
        """The score beyond which the fitted tail takes over, nats."""
        return self.scores[-1]

    def p_values_of(self, scores: Values) -> Values:
        """The share of windows with a score at least as high, (N,); in (0, 1), NaN for NaN.

        Never rises with the score, and continuous.
        """
        p_values = np.interp(scores, self.scores, self.p_values)  # (N,)
        is_tail = scores > self.tail_start  # False for NaN
        survival = self.tail.survival(scores[is_tail] - self.tail_start)
        p_values[is_tail] = np.maximum(self.p_values[-1] * survival, P_VALUE_FLOOR)
        return p_values

    def score_at(self, p_value: float) -> float:
        """The score whose p-value this is, nats.

        Raises:
            ValueError: The p-value is not in (0, 1].
        """
        if not 0 < p_value <= 1:
            raise ValueError(f"need a p-value in (0, 1], got {p_value}")
        if p_value < self.p_values[-1]:
            return self.tail_start + self.tail.excess_at(p_value / self.p_values[-1])
        return float(np.interp(-p_value, [-p for p in self.p_values], self.scores))


@dataclass(frozen=True, slots=True)
class _Ladder:
    """A sample as distinct scores, each with the rows that have it."""

    scores: Values  # (m,), ascending
    counts: Values  # (m,), rows, in units that add up to n
    p_values: Values  # (m,), descending
    n: float  # rows that the sample is worth: fewer than it has where weights differ

    @classmethod
    def of(cls, scores: Values, weights: Values) -> Self:
        n = float(weights.sum() ** 2 / np.square(weights).sum())  # Kish 1965, the effective size
        distinct, owners = np.unique(scores, return_inverse=True)
        counts = np.bincount(owners.reshape(-1), weights=weights) * (n / weights.sum())
        # A new window is at least as far out as the r-th of n with probability r / (n + 1).
        p_values = np.cumsum(counts[::-1])[::-1] / (n + 1)
        return cls(distinct, counts, p_values, n)

    def tail_start(self, wanted: float) -> int:
        """Where about `wanted` rows, but no more than a fifth, lie beyond."""
        beyond = self.p_values * (self.n + 1) - self.counts  # (m,) rows that lie farther out
        return int(np.argmax(beyond <= min(wanted, self.n / 5) + 0.5))

    def knots(self, start: int) -> NDArray[np.int64]:
        """Up to 255 places from the lowest to `start`: even in rank, and ever closer towards the tail."""
        n_knots = MAX_KNOTS - 1  # one is kept for the edge of what was seen
        if start < n_knots:
            return np.arange(start + 1)
        levels = np.concatenate(
            [
                np.linspace(self.p_values[0], self.p_values[start], n_knots // 2),
                np.geomspace(self.p_values[0], self.p_values[start], n_knots // 2),
            ]
        )
        places = np.searchsorted(-self.p_values[: start + 1], -levels).clip(0, start)
        return np.unique(np.append(places, [0, start]))

    @property
    def spread(self) -> float:
        """The mean distance from the mean, nats: the only measure left where nothing lies beyond."""
        mean = np.average(self.scores, weights=self.counts)
        spread = float(np.average(np.abs(self.scores - mean), weights=self.counts))
        return spread if spread > 0 else 1.0  # all scores alike: one nat is a factor e of likelihood


def _tail(excesses: Values, counts: Values, limit: float) -> Tail:
    is_seen = excesses <= limit
    n_censored = float(counts[~is_seen].sum())
    if n_censored > counts.sum() / 2:  # most lie beyond it: the stream has moved, not some rows
        return fit_tail(excesses, counts)
    return fit_tail(excesses[is_seen], counts[is_seen], n_censored, limit)
