"""Serving model, candidate -> evidence: both on the same rows, with the same noise."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import FeatureSchema
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.learning.canaries import plant
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.promotion import Evidence
from stream_iwae.learning.samples import Samples
from stream_iwae.learning.served import Served, Tick, Weights

COMPARED_ROWS: Final = 5_000  # at most, of each sample
_CANARIES: Final = 500


class Comparison:
    """Gathers what `promotion.decide` asks for."""

    def __init__(
        self, config: LearningConfig, detection: DetectionConfig, schema: FeatureSchema, samples: Samples, seed: int
    ) -> None:
        self._config, self._detection, self._schema = config, detection, schema
        self._samples, self._seed = samples, seed

    def evidence(
        self, served: Served, weights: Weights, calibration: Calibration, tick: Tick, *, has_learnt_odd: bool
    ) -> Evidence:
        """Score held-out, reference, recent and planted rows under both.

        What astonishes the serving model is held out only where the candidate has learnt such rows: one that was
        kept from them is not to be measured by them.
        """
        held_out = self._samples.held_out().values[:COMPARED_ROWS]
        if not has_learnt_odd:
            held_out = held_out[~served.weights.astonished(held_out, tick)]
        reference = self._samples.reference().values[:COMPARED_ROWS]
        planted = plant(held_out, self._schema.kinds, _CANARIES, self._seed)
        before, after = served.weights.score(held_out, tick), weights.score(held_out, tick)
        return Evidence(
            held_out_serving=before.bounds,
            held_out_candidate=after.bounds,
            reference_serving=served.weights.score(reference, tick).bounds,
            reference_candidate=weights.score(reference, tick).bounds,
            recent_p_values=self._p_values(calibration, weights, self._recent(), tick),
            budget_p=self._budget_p(calibration),
            canary_recall_serving=self._recall(served.weights, served.calibration, planted, tick),
            canary_recall_candidate=self._recall(weights, calibration, planted, tick),
            effective_serving=_median(before.effective_samples),
            effective_candidate=_median(after.effective_samples),
        )

    def _recent(self) -> NDArray[np.float64]:
        rows = self._samples.calibrate()
        return rows.values[rows.window_end_ms > (self._samples.newest_ms or 0) - self._config.recent_span]

    def _recall(self, weights: Weights, calibration: Calibration, planted: NDArray[np.float64], tick: Tick) -> float:
        if not len(planted):
            return 1.0
        p_values = self._p_values(calibration, weights, planted, tick)
        return float(np.mean(p_values <= self._budget_p(calibration)))

    def _p_values(
        self, calibration: Calibration, weights: Weights, values: NDArray[np.float64], tick: Tick
    ) -> NDArray[np.float64]:
        return calibration.p_values(weights.score(values, tick).scores, self._detection.low_share)

    def _budget_p(self, calibration: Calibration) -> float:
        return self._detection.warning_p_value(calibration.windows_per_day)


def _median(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else 0.0
