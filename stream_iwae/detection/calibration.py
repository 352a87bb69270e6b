"""Scores -> p-values: the empirical distribution, continued by a fitted tail."""

import math
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_iwae.detection.tail import MIN_SCALE, Tail, fit_tail
from stream_iwae.errors import ArtefactError

TAIL_QUANTILE: Final = 0.98  # where the tail begins
LOWEST_TAIL_QUANTILE: Final = 0.8  # small samples begin it earlier, but the body is no tail
MIN_EXCESSES: Final = 50  # a fit to fewer is worse than the former one
MAX_KNOTS: Final = 512  # of the body; 16 KB of JSON
SUPPORTING_EXCESSES: Final = 10  # a threshold with fewer observed scores above it is extrapolated
P_VALUE_FLOOR: Final = 1e-12  # no sample tells smaller ones apart, and none is ever 0
_VERSION: Final = 1


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON form of a calibration."""

    version: int
    scores: list[float]
    p_values: list[float]
    shape: float
    scale: float
    n_rows: int
    windows_per_day: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How probable a score at least as high is on the stream that the calibration was fitted to."""

    knot_scores: tuple[float, ...]  # nats, ascending; the last one is where the tail begins
    knot_p_values: tuple[float, ...]  # descending, in (0, 1)
    tail: Tail
    n_rows: int  # scores that it was fitted to
    windows_per_day: float  # of the whole stream, which turns a budget into a p-value

    def __post_init__(self) -> None:
        scores, p_values = np.asarray(self.knot_scores), np.asarray(self.knot_p_values)
        if not 1 <= len(scores) == len(p_values) <= MAX_KNOTS:
            raise ValueError(f"need 1 to {MAX_KNOTS} knots, got {len(scores)} scores and {len(p_values)} p-values")
        if not np.all(np.isfinite(scores)) or np.any(np.diff(scores) <= 0):
            raise ValueError("the scores of the knots must be finite and ascend")
        if not np.all((p_values > 0) & (p_values < 1)) or np.any(np.diff(p_values) >= 0):
            raise ValueError("the p-values of the knots must lie in (0, 1) and descend")
        if self.n_rows < 1 or not 0 < self.windows_per_day < math.inf:
            raise ValueError(f"need rows and windows a day, got {self.n_rows} and {self.windows_per_day}")

    @classmethod
    def fit(
        cls,
        scores: NDArray[np.float64],
        windows_per_day: float,
        former: Self | None = None,
        censor_above: float | None = None,
        min_excesses: int = MIN_EXCESSES,
    ) -> Self:
        """Fit to an ungated sample; a sample cut at some p-value has no tail left to fit.

        Args:
            scores: Shape (n,), nats; NaN rows are left out.
            windows_per_day: How many windows a day the whole stream has.
            former: Its tail is kept where there are fewer than `min_excesses` excesses.
            censor_above: Scores past it are counted, but how far they went past it is not used:
                they may be attacks. Typically the former model's threshold of severity major.
            min_excesses: What a fit of the tail needs.

        Raises:
            ValueError: No score is finite.
        """
        ordered = np.sort(scores[np.isfinite(scores)])  # (n,)
        if not len(ordered):
            raise ValueError(f"need finite scores to calibrate on, got {len(scores)} of which none is")
        quantile = TAIL_QUANTILE
        if former is None:  # nothing to fall back on: a longer tail rather than a guessed one
            quantile = min(quantile, max(LOWEST_TAIL_QUANTILE, 1 - (min_excesses + 1) / len(ordered)))
        start = float(np.quantile(ordered, quantile, method="lower"))
        knot_scores, knot_p_values = _knots(ordered, start)
        tail = _tail(ordered, start, former.tail if former else None, censor_above, min_excesses)
        return cls(knot_scores, knot_p_values, tail, len(ordered), windows_per_day)

    @property
    def tail_start(self) -> float:
        """The score beyond which the fitted tail takes over, nats."""
        return self.knot_scores[-1]

    def p_values(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share of windows with a score at least as high; in (0, 1), NaN for NaN.

        Never rises with the score, and continuous where the tail begins.
        """
        p_values = np.interp(scores, self.knot_scores, self.knot_p_values)  # (N,)
        is_tail = scores > self.tail_start  # False for NaN
        survival = self.tail.survival(scores[is_tail] - self.tail_start)
        p_values[is_tail] = np.maximum(self.knot_p_values[-1] * survival, P_VALUE_FLOOR)
        return p_values

    def score_at(self, p_value: float) -> float:
        """The score whose p-value this is, nats.

        Raises:
            ValueError: The p-value is not in (0, 1].
        """
        if not 0 < p_value <= 1:
            raise ValueError(f"need a p-value in (0, 1], got {p_value}")
        if p_value < self.knot_p_values[-1]:
            return self.tail_start + self.tail.excess_at(p_value / self.knot_p_values[-1])
        return float(np.interp(-p_value, [-p for p in self.knot_p_values], self.knot_scores))

    def is_extrapolated(self, p_value: float) -> bool:
        """Whether fewer than ten of the fitted scores can be expected beyond this p-value."""
        return self.n_rows * p_value < SUPPORTING_EXCESSES

    def to_json(self) -> str:
        """A document that `from_json` reads back to an equal calibration."""
        document = _Document(
            version=_VERSION,
            scores=list(self.knot_scores),
            p_values=list(self.knot_p_values),
            shape=self.tail.shape,
            scale=self.tail.scale,
            n_rows=self.n_rows,
            windows_per_day=self.windows_per_day,
        )
        return msgspec.json.encode(document).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read a document of `to_json`.

        Raises:
            ArtefactError: It is no such document, or its numbers do not make a calibration.
        """
        try:
            document = msgspec.json.decode(text, type=_Document)
            if document.version != _VERSION:
                raise ArtefactError(f"need a calibration of version {_VERSION}, got {document.version}")
            return cls(
                tuple(document.scores),
                tuple(document.p_values),
                Tail(document.shape, document.scale),
                document.n_rows,
                document.windows_per_day,
            )
        except (msgspec.MsgspecError, ValueError) as error:
            raise ArtefactError(f"the calibration is damaged: {error}") from error


def _knots(ordered: NDArray[np.float64], start: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mid-rank p-values at up to 512 distinct scores from the lowest to `start`."""
    n = len(ordered)
    n_body = int(np.searchsorted(ordered, start, side="right"))
    ranks = np.unique(np.linspace(0, n_body - 1, MAX_KNOTS).round().astype(np.int64))
    scores = np.unique(ordered[ranks])  # ends with `start`
    n_above = n - np.searchsorted(ordered, scores, side="right")
    n_equal = n - np.searchsorted(ordered, scores, side="left") - n_above
    # Half a row is added on both sides, so that no p-value is 0 or 1.
    p_values = (n_above + n_equal / 2 + 0.5) / (n + 1)
    return tuple(scores.tolist()), tuple(p_values.tolist())


def _tail(
    ordered: NDArray[np.float64], start: float, former: Tail | None, censor_above: float | None, min_excesses: int
) -> Tail:
    excesses = ordered[ordered > start] - start
    if len(excesses) < min_excesses and former is not None:
        return former
    if not len(excesses):
        return Tail(shape=0.0, scale=1.0)  # all scores alike: one nat is a factor e of likelihood
    if len(excesses) < min_excesses:
        return Tail(shape=0.0, scale=max(float(np.mean(excesses)), MIN_SCALE))
    limit = math.inf if censor_above is None else censor_above - start
    observed = excesses[excesses <= limit]
    if len(observed) < min_excesses:  # nearly all lie beyond it: the stream has moved, not some rows
        return fit_tail(excesses)
    return fit_tail(observed, n_censored=len(excesses) - len(observed), censored_at=limit)
