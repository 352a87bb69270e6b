"""FeatureBatch, ScoreBatch -> VerdictBatch: p-values, severities and the features behind them."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Direction, Explanations, FeatureBatch, Finding, ScoreBatch, Severity, VerdictBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.explanation import direction_of, findings_of_rows, silence_finding
from stream_iwae.detection.survival import P_VALUE_FLOOR

Explain = Callable[[NDArray[np.float64]], Explanations]
"""Raw values (R, D) -> the explanation of each row."""

_SEVERITIES: Final = (Severity.WARNING, Severity.MAJOR, Severity.CRITICAL)


class Judge:
    """Judges windows by one calibration and one budget."""

    def __init__(self, calibration: Calibration, config: DetectionConfig) -> None:
        warning = config.warning_p_value(calibration.windows_per_day)
        self.p_value_limits = (warning, warning * config.major_share, warning * config.critical_share)
        self._low_share = config.low_share
        self.threshold_nats = calibration.score_at(warning * (1 - config.low_share))
        self.low_threshold_nats = calibration.low_score_at(warning * config.low_share) if config.low_share else -np.inf
        self.is_extrapolated = calibration.is_extrapolated(warning * (1 - config.low_share))
        self._calibration = calibration
        self._top_features = config.top_features

    @property
    def warning_p_value(self) -> float:
        """The p-value at or below which a window is anomalous."""
        return self.p_value_limits[0]

    def judge(self, features: FeatureBatch, scores: ScoreBatch, explain: Explain) -> VerdictBatch:
        """Judge each row; `explain` is asked about the anomalous ones alone.

        A row of a source gone quiet as a whole has a p-value of its own, in place of the model's.

        Raises:
            ValueError: There are not as many scores as rows.
        """
        if len(features) != len(scores):
            raise ValueError(f"need a score for each of {len(features)} rows, got {len(scores)}")
        is_silence = np.isfinite(features.silence_p_values)  # (N,)
        p_values = self._calibration.p_values(scores.scores, self._low_share)
        p_values[is_silence] = np.maximum(features.silence_p_values[is_silence], P_VALUE_FLOOR)
        is_low = self._calibration.is_low(scores.scores, self._low_share) & ~is_silence
        severities = self._severities(p_values)
        rows = np.flatnonzero(severities > Severity.NONE)
        findings = self._findings(features, rows, is_silence, is_low, explain)
        return VerdictBatch(
            features=features,
            scores=scores,
            p_values=p_values,
            severities=severities,
            directions=self._directions(features, findings, is_silence | is_low),
            is_low=is_low,
            thresholds_nats=np.where(is_low, self.low_threshold_nats, self.threshold_nats),
            is_extrapolated=self._is_extrapolated(severities, is_low),
            findings=findings,
            warning_p_value=self.warning_p_value,
        )

    def _severities(self, p_values: NDArray[np.float64]) -> NDArray[np.int8]:
        severities = np.full(len(p_values), Severity.NONE, dtype=np.int8)
        for severity, limit in zip(_SEVERITIES, self.p_value_limits, strict=True):
            severities[p_values <= limit] = severity
        severities[np.isnan(p_values)] = Severity.UNSCORABLE
        return severities

    def _is_extrapolated(self, severities: NDArray[np.int8], is_low: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether the threshold that each row has passed lies beyond what was observed on its side, (N,)."""
        extrapolated = np.zeros(len(severities), dtype=np.bool_)
        for severity, limit in zip(_SEVERITIES, self.p_value_limits, strict=True):
            for side, share in ((is_low, self._low_share), (~is_low, 1 - self._low_share)):
                if self._calibration.is_extrapolated(limit * share):
                    extrapolated |= side & (severities == severity)
        return extrapolated

    def _findings(
        self,
        features: FeatureBatch,
        rows: NDArray[np.int64],
        is_silence: NDArray[np.bool_],
        is_low: NDArray[np.bool_],
        explain: Explain,
    ) -> dict[int, tuple[Finding, ...]]:
        findings: dict[int, tuple[Finding, ...]] = {
            int(row): (silence_finding(int(features.n_events[row])),) for row in rows[is_silence[rows]]
        }
        explained = rows[~is_silence[rows]]
        if len(explained):
            explanations = explain(features.values[explained])
            findings |= findings_of_rows(features, explained, explanations, is_low[explained], self._top_features)
        return dict(sorted(findings.items()))

    @staticmethod
    def _directions(
        features: FeatureBatch, findings: dict[int, tuple[Finding, ...]], is_quiet: NDArray[np.bool_]
    ) -> tuple[Direction, ...]:
        directions = [Direction.HIGH] * len(features)  # of rows that are not anomalous: nobody asks
        for row, found in findings.items():
            is_empty = features.n_events[row] == 0 or is_quiet[row]
            directions[row] = Direction.LOW if is_empty else direction_of(found, features.schema)
        return tuple(directions)
