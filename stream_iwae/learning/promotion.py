"""Evidence about a candidate -> promoted or rejected, with the reason."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import poisson

from stream_iwae.learning.config import PromotionConfig

_RESAMPLES: Final = 1_000
_MAX_ROWS: Final = 5_000  # of a bootstrap; more rows hardly narrow it
_SURE: Final = 0.05  # chance of so odd a number of alerts below which it is no accident


@dataclass(frozen=True, slots=True)
class Evidence:
    """The same rows under the serving model and the candidate; scores in nats, lower fits better."""

    held_out_serving: NDArray[np.float64]  # (N,)
    held_out_candidate: NDArray[np.float64]  # (N,)
    reference_serving: NDArray[np.float64]  # (R,)
    reference_candidate: NDArray[np.float64]  # (R,)
    recent_p_values: NDArray[np.float64]  # (C,), ungated, under the candidate's own calibration
    budget_p: float  # the p-value that the operator's budget comes to
    canary_recall_serving: float  # share of planted anomalies past each model's own threshold
    canary_recall_candidate: float
    effective_serving: float  # median effective sample size
    effective_candidate: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate replaces the serving model."""

    is_promoted: bool
    reason: str  # one word: promoted, non_finite, held_out, reference, alert_rate, canaries, effective_samples
    detail: str  # the numbers, for people


def decide(evidence: Evidence, config: PromotionConfig, seed: int) -> Decision:
    """Promote only what is better on held-out rows and worse nowhere that matters."""
    checks = (
        ("non_finite", _non_finite(evidence)),
        ("held_out", _held_out(evidence, config, seed)),
        ("reference", _reference(evidence, config)),
        ("alert_rate", _alert_rate(evidence, config)),
        ("canaries", _canaries(evidence, config)),
        ("effective_samples", _effective_samples(evidence, config)),
    )
    for reason, detail in checks:
        if detail:
            return Decision(False, reason, detail)
    gain = float(np.mean(_improvement(evidence.held_out_serving, evidence.held_out_candidate)))
    return Decision(True, "promoted", f"held-out rows gain {gain:.4f} nats on average")


def _non_finite(evidence: Evidence) -> str:
    lost = sum(
        int(np.count_nonzero(np.isfinite(serving) & ~np.isfinite(candidate)))
        for serving, candidate in (
            (evidence.held_out_serving, evidence.held_out_candidate),
            (evidence.reference_serving, evidence.reference_candidate),
        )
    )
    return f"{lost} rows have a score under the serving model and none under the candidate" if lost else ""


def _held_out(evidence: Evidence, config: PromotionConfig, seed: int) -> str:
    gain = _improvement(evidence.held_out_serving, evidence.held_out_candidate)
    if not len(gain):
        return "there are no held-out rows"
    low = float(np.quantile(_bootstrap_means(gain, seed), 1 - config.confidence))
    if low >= 0:
        return ""
    return f"the mean gain on {len(gain)} held-out rows is {gain.mean():.4f} nats, its lower bound {low:.4f}"


def _reference(evidence: Evidence, config: PromotionConfig) -> str:
    gain = _improvement(evidence.reference_serving, evidence.reference_candidate)
    if not len(gain) or gain.mean() >= -config.reference_tolerance:
        return ""
    return f"the reference loses {-gain.mean():.4f} nats on average, more than {config.reference_tolerance}"


def _alert_rate(evidence: Evidence, config: PromotionConfig) -> str:
    p_values = evidence.recent_p_values[np.isfinite(evidence.recent_p_values)]
    alerts = int(np.count_nonzero(p_values <= evidence.budget_p))
    expected = len(p_values) * evidence.budget_p
    too_many = alerts > expected * config.alert_rate_factor and poisson.sf(alerts - 1, expected) < _SURE
    too_few = alerts < expected / config.alert_rate_factor and poisson.cdf(alerts, expected) < _SURE
    if not too_many and not too_few:
        return ""
    return f"{alerts} of {len(p_values)} recent windows would alert where the budget means {expected:.2f}"


def _canaries(evidence: Evidence, config: PromotionConfig) -> str:
    if evidence.canary_recall_candidate >= evidence.canary_recall_serving - config.canary_loss:
        return ""
    return (
        f"planted anomalies are seen at {evidence.canary_recall_candidate:.3f}, "
        f"by the serving model at {evidence.canary_recall_serving:.3f}"
    )


def _effective_samples(evidence: Evidence, config: PromotionConfig) -> str:
    if evidence.effective_candidate >= config.effective_share * evidence.effective_serving:
        return ""
    return (
        f"the median effective sample size falls from {evidence.effective_serving:.2f} "
        f"to {evidence.effective_candidate:.2f}"
    )


def _improvement(serving: NDArray[np.float64], candidate: NDArray[np.float64]) -> NDArray[np.float64]:
    gain = serving - candidate
    return gain[np.isfinite(gain)][:_MAX_ROWS]


def _bootstrap_means(sample: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return np.array([sample[rng.integers(len(sample), size=len(sample))].mean() for _ in range(_RESAMPLES)])
