"""Too quiet windows from raw values to the verdict: what is unusually ordinary has a low score, and is found by it."""

import numpy as np
import pytest
import torch

from stream_iwae.batches import Direction, Explanations, FeatureBatch, FeatureSchema, Kind, ScoreBatch, Severity
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train

N = 24
SCHEMA = FeatureSchema(tuple(f"g{i}" for i in range(N)), (Kind.GAUGE,) * N, ("",) * N)
MIXING = np.random.default_rng(0).normal(size=(6, N))


def a_host(n, seed):
    """N gauges that six causes and their own noise move, around 50."""
    rng = np.random.default_rng(seed)
    return 50 + 5 * (rng.normal(size=(n, 6)) @ MIXING + rng.normal(size=(n, N)))


@pytest.fixture(scope="module")
def scorer():
    torch.set_num_threads(1)
    features = Features(SCHEMA.names, tuple(map(str, SCHEMA.kinds)), SCHEMA.digest, {})
    return Scorer(train(a_host(4_000, 1), features, ModelSettings(steps=600, device="cpu"), seed=0))


@pytest.fixture(scope="module")
def judge_rows(scorer):
    """1,440 windows a day and 20 alarms: a warning is p = 1e-2, of which the low side has a tenth."""
    calibration = Calibration.fit(scorer.score(a_host(20_000, 2)).scores, windows_per_day=1_440.0)

    def judge(values, low_share=0.1):
        n = len(values)
        at = np.arange(n, dtype=np.int64)
        features = FeatureBatch(
            SCHEMA, values, ["h"] * n, at * 60_000, (at + 1) * 60_000, at + 1, at, at, np.full(n, np.nan)
        )
        scores = scorer.score(values)
        batch = ScoreBatch(
            "1.0", scores.scores, scores.standard_errors, scores.effective_samples, scores.reconstructions
        )

        def explain(values):
            found = scorer.explain(values)
            return Explanations(found.contributions, found.expected, found.expected_low, found.expected_high, {})

        return Judge(calibration, DetectionConfig(low_share=low_share)).judge(features, batch, explain)

    return judge


def shrunk(values):
    """A fifth of every deviation from the ordinary."""
    return 50 + (values - 50) / 5


def test_windows_shrunk_to_a_fifth_are_found_by_the_low_side_and_by_it_alone(judge_rows):
    quiet = shrunk(a_host(200, 3))

    both, high = judge_rows(quiet), judge_rows(quiet, low_share=0)

    assert np.mean(both.severities >= Severity.WARNING) > 0.95
    assert np.mean(high.severities >= Severity.WARNING) == 0.0
    assert both.is_low.all()
    assert {both.directions[row] for row in both.findings} == {Direction.LOW}


def test_a_flat_line_is_found(judge_rows):
    """The exporter repeats one ordinary value of each gauge."""
    verdicts = judge_rows(np.full((5, N), 50.0))

    assert (verdicts.severities >= Severity.WARNING).all()
    assert set(verdicts.directions) == {Direction.LOW}
    assert all(len(found) >= 1 for found in verdicts.findings.values())


def test_ordinary_windows_keep_the_budget_of_both_sides(judge_rows):
    verdicts = judge_rows(a_host(20_000, 4))
    is_warning = verdicts.severities >= Severity.WARNING

    assert 0.01 / 1.5 < np.mean(is_warning) < 0.01 * 1.5
    assert 1e-3 / 2 < np.mean(is_warning & verdicts.is_low) < 1e-3 * 2


def test_loud_windows_are_found_by_the_high_side_as_before(judge_rows):
    verdicts = judge_rows(50 + (a_host(200, 5) - 50) * 3)

    assert np.mean(verdicts.severities >= Severity.WARNING) > 0.9
    assert not verdicts.is_low.any()
