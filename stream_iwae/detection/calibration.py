"""Scores -> p-values: how often the stream has a score at least as high, and how often one at least as low."""

import math
from dataclasses import dataclass
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_iwae.detection.survival import MIN_EXCESSES, Survival
from stream_iwae.detection.tail import Tail
from stream_iwae.errors import ArtefactError

SUPPORTING_EXCESSES: Final = 10  # a threshold with fewer observed scores above it is extrapolated
_VERSION: Final = 2


class _Side(msgspec.Struct, forbid_unknown_fields=True):
    scores: list[float]
    p_values: list[float]
    excesses: list[float]


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """The JSON form of a calibration."""

    version: int
    high: _Side
    low: _Side
    n_rows: int
    windows_per_day: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How probable a score is on the stream that the calibration was fitted to, on either side."""

    high: Survival  # of scores
    low: Survival  # of minus scores: too quiet, nothing happens that usually does
    n_rows: int  # scores that it was fitted to; fewer where some stand for more windows than others
    windows_per_day: float  # of the whole stream, which turns a budget into a p-value

    def __post_init__(self) -> None:
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
        weights: NDArray[np.float64] | None = None,
    ) -> Self:
        """Fit to an ungated sample; a sample cut at some p-value has no tail left to fit.

        Args:
            scores: Shape (n,), nats; NaN rows are left out.
            windows_per_day: How many windows a day the whole stream has.
            former: Its tails are kept where the sample is too small for others.
            censor_above: Scores past it are counted, but how far they went past it is not used:
                they may be attacks. Typically the former model's threshold of severity major.
            min_excesses: What a fit of a tail needs.
            weights: Shape (n,), how many windows each row stands for; None: all the same.

        Raises:
            ValueError: No score is finite.
        """
        is_known = np.isfinite(scores)
        known, counts = scores[is_known], np.ones(len(scores))[is_known] if weights is None else weights[is_known]
        if not len(known):
            raise ValueError(f"need finite scores to calibrate on, got {len(scores)} of which none is")
        high = Survival.fit(known, counts, former.high.tail if former else None, censor_above, min_excesses)
        low = Survival.fit(-known, counts, former.low.tail if former else None, None, min_excesses)
        n_rows = int(counts.sum() ** 2 / np.square(counts).sum() + 0.5)  # Kish 1965, the effective size
        return cls(high, low, n_rows, windows_per_day)

    def p_values(self, scores: NDArray[np.float64], low_share: float = 0.0) -> NDArray[np.float64]:
        """One p-value for each score, (N,); in (0, 1], NaN for NaN.

        A window that is unusual on one side is not so on the other. So the chance of a p-value at or below p is
        at most p when each side is given a share of it: (1 - low_share) p above, and low_share p below.

        Args:
            scores: Shape (N,), nats.
            low_share: Of the chance, for scores that are too low; 0: only high ones count.
        """
        high = self.high.p_values_of(scores) / (1 - low_share)
        return np.minimum(1.0, np.minimum(high, self._low(scores, low_share)))

    def is_low(self, scores: NDArray[np.float64], low_share: float) -> NDArray[np.bool_]:
        """Whether the lower side gave the p-value, (N,)."""
        return self._low(scores, low_share) < self.high.p_values_of(scores) / (1 - low_share)

    def _low(self, scores: NDArray[np.float64], low_share: float) -> NDArray[np.float64]:
        if not low_share:
            return np.where(np.isnan(scores), np.nan, np.inf)
        return self.low.p_values_of(-scores) / low_share

    def score_at(self, p_value: float) -> float:
        """The score that as high a share of windows reaches, nats.

        Raises:
            ValueError: The p-value is not in (0, 1].
        """
        return self.high.score_at(p_value)

    def low_score_at(self, p_value: float) -> float:
        """The score that so high a share of windows stays at or below, nats.

        Raises:
            ValueError: The p-value is not in (0, 1].
        """
        return -self.low.score_at(p_value)

    def is_extrapolated(self, p_value: float) -> bool:
        """Whether fewer than ten of the fitted scores can be expected beyond this p-value of one side."""
        return self.n_rows * p_value < SUPPORTING_EXCESSES

    def to_json(self) -> str:
        """A document that `from_json` reads back to an equal calibration."""
        high, low = (
            _Side(list(side.scores), list(side.p_values), list(side.tail.excesses)) for side in (self.high, self.low)
        )
        return msgspec.json.encode(_Document(_VERSION, high, low, self.n_rows, self.windows_per_day)).decode()

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
            high, low = (
                Survival(tuple(side.scores), tuple(side.p_values), Tail(tuple(side.excesses)))
                for side in (document.high, document.low)
            )
            return cls(high, low, document.n_rows, document.windows_per_day)
        except (msgspec.MsgspecError, TypeError, ValueError) as error:
            raise ArtefactError(f"the calibration is damaged: {error}") from error
