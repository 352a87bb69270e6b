"""Scores of all rows -> drift: a lasting change in what is normal.

Watched on ungated scores: the rows of a shift are just those that a gate hides.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN
from scipy.stats import ks_2samp

from stream_iwae.learning.config import DriftConfig


@dataclass(frozen=True, slots=True)
class Drift:
    """A confirmed change, at one row."""

    index: int  # of the row in the array given to `add`
    distance: float  # of the Kolmogorov-Smirnov test, in [0, 1]
    p_value: float


class DriftDetector:
    """ADWIN over medians of blocks of scores, confirmed against scores of the reference."""

    def __init__(self, config: DriftConfig, reference_scores: NDArray[np.float64]) -> None:
        self._config = config
        self._reference = reference_scores[np.isfinite(reference_scores)]
        self._adwin = self._new_adwin()
        self._block: list[float] = []
        self._recent: deque[float] = deque(maxlen=config.recent)

    def add(self, scores: NDArray[np.float64]) -> Drift | None:
        """Take the next scores, in nats, up to the first drift; NaN is passed over.

        After a drift the rest of the array is not taken: hand it in again from `Drift.index + 1`.
        """
        for index in np.flatnonzero(np.isfinite(scores)).tolist():
            score = float(scores[index])
            self._block.append(score)
            self._recent.append(score)
            if len(self._block) < self._config.block:
                continue
            self._adwin.update(float(np.median(self._block)))
            self._block.clear()
            if self._adwin.drift_detected:
                drift = self._confirmed(index)
                if drift is not None:
                    return drift
        return None

    @property
    def distance(self) -> float:
        """Between the latest scores and the reference, in [0, 1]; 0 with less than a block."""
        if len(self._recent) < self._config.block or not len(self._reference):
            return 0.0
        return float(ks_2samp(np.array(self._recent), self._reference, method="asymp").statistic)

    def _confirmed(self, index: int) -> Drift | None:
        if not len(self._reference):
            return None
        test = ks_2samp(np.array(self._recent), self._reference, method="asymp")
        distance, p_value = float(test.statistic), float(test.pvalue)
        if p_value >= self._config.confirm_p or distance < self._config.confirm_distance:
            return None
        self._adwin = self._new_adwin()
        return Drift(index, distance, p_value)

    def _new_adwin(self) -> Any:
        # clock 1: an observation stands for a whole block already
        adwin: Any = ADWIN  # river publishes no types
        return adwin(delta=self._config.delta, clock=1)
