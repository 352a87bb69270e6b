from dataclasses import replace

import numpy as np
import pytest

from stream_iwae.learning.config import PromotionConfig
from stream_iwae.learning.promotion import Evidence, decide

CONFIG = PromotionConfig()


@pytest.fixture
def better():
    """A candidate a little better everywhere."""
    rng = np.random.default_rng(0)
    serving = rng.normal(size=500)
    return Evidence(
        held_out_serving=serving,
        held_out_candidate=serving - 0.1 + rng.normal(scale=0.1, size=500),
        reference_serving=serving,
        reference_candidate=serving,
        recent_p_values=np.linspace(0, 1, 10_001)[1:],
        budget_p=1e-3,
        canary_recall_serving=0.8,
        canary_recall_candidate=0.79,
        effective_serving=4.0,
        effective_candidate=2.0,
    )


def test_a_candidate_that_is_better_and_worse_nowhere_is_promoted(better):
    decision = decide(better, CONFIG, seed=1)

    assert decision.is_promoted
    assert "0.1" in decision.detail


def changed(better, name):
    shifted = better.held_out_serving + 0.3
    with_nan = better.reference_candidate.copy()
    with_nan[3] = np.nan
    changes = {
        "non_finite": {"reference_candidate": with_nan},
        "held_out": {"held_out_candidate": shifted},
        "reference": {"reference_candidate": shifted},
        "alert_rate": {"recent_p_values": better.recent_p_values / 5},
        "canaries": {"canary_recall_candidate": 0.78},
        "effective_samples": {"effective_candidate": 1.9},
    }
    return replace(better, **changes[name])


@pytest.mark.parametrize(
    "reason", ["non_finite", "held_out", "reference", "alert_rate", "canaries", "effective_samples"]
)
def test_one_failure_is_enough_to_be_rejected_and_is_named(better, reason):
    decision = decide(changed(better, reason), CONFIG, seed=1)

    assert not decision.is_promoted
    assert decision.reason == reason
    assert decision.detail


def test_a_gain_within_the_noise_is_no_gain(better):
    noise = np.random.default_rng(1).normal(scale=1.0, size=500)
    noise -= noise.mean() + 0.01  # 0.01 nats better, give or take 0.045

    decision = decide(replace(better, held_out_candidate=better.held_out_serving + noise), CONFIG, seed=1)

    assert decision.reason == "held_out"


def test_too_few_alerts_are_as_suspicious_as_too_many(better):
    silent = replace(better, recent_p_values=np.linspace(0.01, 1, 10_000))

    assert decide(silent, CONFIG, seed=1).reason == "alert_rate"


def test_one_alert_where_none_was_expected_is_an_accident(better):
    p_values = np.full(100, 0.5)
    p_values[0] = 1e-4

    assert decide(replace(better, recent_p_values=p_values), CONFIG, seed=1).is_promoted


def test_without_held_out_rows_nothing_is_promoted(better):
    none = np.empty(0)

    assert decide(replace(better, held_out_serving=none, held_out_candidate=none), CONFIG, 1).reason == "held_out"
