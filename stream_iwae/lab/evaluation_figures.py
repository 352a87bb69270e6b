"""Scores, p-values and labels of judged rows -> the figures that a detector is compared by."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.volume_under_surface import vus_pr

SAID: Final = (0.1, 0.01, 0.001)
"""P-values at which calibration is looked at."""
_DAY_MS: Final = 86_400_000

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well scores put anomalies before normal rows."""

    auroc: float
    average_precision: float
    auroc_after_warmup: float
    average_precision_after_warmup: float
    vus_pr: float | None  # of a time series alone


@dataclass(frozen=True, slots=True)
class Decisions:
    """What alerts at the budget come to, on rows after the warm-up; a day is one of event time."""

    alerts_per_day: float  # rows at or below the p-value that the budget allows
    false_alerts_per_day: float  # those of them that tell of no incident
    seen_at: tuple[float, ...]  # share of normal rows at or below each p-value of SAID
    found_at: tuple[float, ...]  # share of anomalies at or below each
    n_segments: int | None  # incidents: stretches of anomalous rows of one entity; None where rows have no time
    segments_caught: float | None  # share with an alert
    detection_delay_seconds: float | None  # median over the caught: from its first row's start to the alert


def ranking(rows: LabelledRows, in_warmup: Mask, scores: Values) -> Ranking:
    """Compare scores (N,) with the labels; a row without a score counts as the most ordinary."""
    known = np.nan_to_num(scores, nan=float(np.nanmin(scores)) if np.isfinite(scores).any() else 0.0)
    truth, after = rows.is_anomaly, ~in_warmup
    return Ranking(
        auroc=float(roc_auc_score(truth, known)),
        average_precision=float(average_precision_score(truth, known)),
        auroc_after_warmup=float(roc_auc_score(truth[after], known[after])),
        average_precision_after_warmup=float(average_precision_score(truth[after], known[after])),
        vus_pr=vus_pr(truth, known) if rows.is_series else None,
    )


def decisions(rows: LabelledRows, in_warmup: Mask, p_values: Values, is_alert: Mask) -> Decisions:
    """What p-values and alerts (N,) come to; NaN is no p-value, and no alert."""
    after = ~in_warmup & np.isfinite(p_values)
    normal, odd = after & ~rows.is_anomaly, after & rows.is_anomaly
    told = _segments(rows, after) if rows.told is None else rows.told
    days = _days(rows.end_ms[~in_warmup])
    n_segments, caught, delay = _caught(rows, told, after, is_alert) if rows.has_time else (None, None, None)
    return Decisions(
        alerts_per_day=float(np.count_nonzero(is_alert & after)) / days,
        false_alerts_per_day=float(np.count_nonzero(is_alert & after & (told < 0))) / days,
        seen_at=_shares(p_values[normal]),
        found_at=_shares(p_values[odd]),
        n_segments=n_segments,
        segments_caught=caught,
        detection_delay_seconds=delay,
    )


def _shares(p_values: Values) -> tuple[float, ...]:
    return tuple(float(np.mean(p_values <= said)) if len(p_values) else float("nan") for said in SAID)


def _days(end_ms: NDArray[np.int64]) -> float:
    """The span of the rows in days, that of the last row's own step included."""
    span_ms = int(end_ms.max() - end_ms.min())
    return max(span_ms * len(end_ms) / max(len(end_ms) - 1, 1), 1.0) / _DAY_MS


def _segments(rows: LabelledRows, after: Mask) -> NDArray[np.int64]:
    """Number of the stretch of anomalous rows of one entity that each row is of, (N,); -1 for none."""
    entities = np.unique(np.asarray(rows.windows.entities, dtype=np.str_), return_inverse=True)[1]
    order = np.lexsort((rows.end_ms, entities))
    odd = (rows.is_anomaly & after)[order]
    is_first = odd & (np.diff(entities[order], prepend=-1).astype(np.bool_) | ~np.concatenate([[False], odd[:-1]]))
    told = np.full(len(rows), -1, dtype=np.int64)
    told[order] = np.where(odd, np.cumsum(is_first) - 1, -1)
    return told


def _caught(
    rows: LabelledRows, told: NDArray[np.int64], after: Mask, is_alert: Mask
) -> tuple[int, float | None, float | None]:
    """How many incidents there are, the share with an alert, and the median delay of the first, in seconds."""
    start_ms, end_ms = rows.windows.start_ms, rows.end_ms
    at = np.flatnonzero((told >= 0) & after)
    if not len(at):
        return 0, None, None
    numbers, place = np.unique(told[at], return_inverse=True)
    never = np.iinfo(np.int64).max
    begun_ms, alerted_ms = np.full(len(numbers), never), np.full(len(numbers), never)
    np.minimum.at(begun_ms, place, start_ms[at])
    is_hit = is_alert[at]
    np.minimum.at(alerted_ms, place[is_hit], end_ms[at][is_hit])
    is_caught = alerted_ms < never
    delays_s = (alerted_ms - begun_ms)[is_caught] / 1_000
    return len(numbers), float(is_caught.mean()), float(np.median(delays_s)) if len(delays_s) else None
