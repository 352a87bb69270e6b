import numpy as np
import pytest

from stream_iwae.batches import Direction, Severity
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge


@pytest.fixture
def judge(exponential):
    """Warning 1e-3, major 1e-4, critical 1e-5; of high scores alone."""
    return Judge(exponential, DetectionConfig(budget="100/day", low_share=0))


@pytest.fixture
def judged(judge, features, scores, explainer, a_row):
    """One row with this score."""

    def judge_one(score, row=a_row, explain=None, **columns):
        return judge.judge(features(row, **columns), scores([score]), explain or explainer())

    return judge_one


@pytest.mark.parametrize(
    ("p", "severity"),
    [
        (0.5, Severity.NONE),
        (2e-3, Severity.NONE),
        (5e-4, Severity.WARNING),
        (5e-5, Severity.MAJOR),
        (3e-6, Severity.CRITICAL),
    ],
)
def test_severities_are_shares_of_the_budget(judged, exponential, p, severity):
    verdicts = judged(exponential.score_at(p))

    assert verdicts.severities.tolist() == [severity]
    assert verdicts.p_values[0] == pytest.approx(p, rel=1e-3)


def test_the_threshold_is_the_score_of_a_warning(judge, judged, exponential):
    verdicts = judged(0.0)

    assert verdicts.thresholds_nats[0] == judge.threshold_nats == exponential.score_at(1e-3)
    assert verdicts.warning_p_value == 1e-3
    assert not verdicts.is_extrapolated[0]
    assert judged(np.nextafter(judge.threshold_nats, np.inf)).severities[0] == Severity.WARNING


def test_a_budget_below_what_was_observed_is_extrapolated(exponential):
    assert Judge(exponential, DetectionConfig(budget="5/day")).is_extrapolated


def test_a_row_is_extrapolated_where_the_threshold_of_its_severity_is(judged, exponential):
    """Of 100,000 scores 100 lie beyond a warning, 10 beyond major, 1 beyond critical."""
    found = [judged(exponential.score_at(p)).is_extrapolated[0] for p in (0.5, 5e-4, 9e-5, 5e-6)]

    assert [bool(one) for one in found] == [False, False, False, True]


@pytest.fixture
def two_sided():
    """Scores of a standard normal; a warning is 1e-3: 9e-4 above and 1e-4 below."""
    sample = np.random.default_rng(31).normal(size=200_000)
    calibration = Calibration.fit(sample, windows_per_day=100_000.0)
    return Judge(calibration, DetectionConfig(budget="100/day"))


def test_a_score_that_is_too_low_is_an_anomaly_of_the_low_side(two_sided, features, scores, explainer, a_row):
    verdicts = two_sided.judge(features([a_row] * 3), scores([-4.5, 0.0, 4.5]), explainer())

    assert verdicts.severities.tolist() == [Severity.MAJOR, Severity.NONE, Severity.CRITICAL]
    assert verdicts.is_low.tolist() == [True, False, False]
    assert verdicts.directions[0] == Direction.LOW
    assert verdicts.thresholds_nats[[0, 2]] == pytest.approx([-3.72, 3.12], abs=0.15)
    assert verdicts.findings[0][0].name == "hour"  # the most ordinary one
    assert verdicts.findings[2][0].name == "dst_ports"


def test_the_low_side_needs_more_to_be_sure(two_sided, features, scores, explainer, a_row):
    verdicts = two_sided.judge(features([a_row] * 2), scores([-3.5, 3.5]), explainer())

    assert verdicts.severities.tolist() == [Severity.NONE, Severity.WARNING]


def test_a_score_of_nan_is_unscorable_and_not_explained(judged, explainer):
    explain = explainer()

    verdicts = judged(np.nan, explain=explain)

    assert verdicts.severities.tolist() == [Severity.UNSCORABLE]
    assert np.isnan(verdicts.p_values[0])
    assert not verdicts.findings
    assert not explain.asked


def test_only_anomalous_rows_are_explained(judge, features, scores, explainer, a_row):
    rows = np.tile(a_row, (4, 1))
    rows[:, 0] = [1, 2, 3, 4]
    explain = explainer()

    verdicts = judge.judge(features(rows), scores([0.0, 50.0, np.nan, 60.0]), explain)

    assert list(verdicts.findings) == [1, 3]
    assert [asked[:, 0].tolist() for asked in explain.asked] == [[2.0, 4.0]]


def test_an_empty_batch_is_a_batch(judge, features, scores, explainer):
    verdicts = judge.judge(features([]), scores([]), explainer())

    assert len(verdicts) == 0
    assert verdicts.directions == ()


def test_rows_and_scores_must_be_as_many(judge, features, scores, explainer, a_row):
    with pytest.raises(ValueError, match="score for each of 1 rows, got 2"):
        judge.judge(features(a_row), scores([1.0, 2.0]), explainer())


def test_a_quiet_source_is_judged_by_its_own_p_value(judged, explainer):
    explain = explainer()

    verdicts = judged(0.0, n_events=[0], silence=[1e-7], explain=explain)

    assert verdicts.severities.tolist() == [Severity.CRITICAL]
    assert verdicts.p_values.tolist() == [1e-7]
    assert verdicts.directions == (Direction.LOW,)
    assert [finding.name for finding in verdicts.findings[0]] == ["n_events"]
    assert not explain.asked


def test_a_quiet_source_that_is_quiet_often_is_ordinary_whatever_the_model_says(judged):
    verdicts = judged(90.0, n_events=[0], silence=[0.3])

    assert verdicts.severities.tolist() == [Severity.NONE]


def test_a_silence_of_probability_0_keeps_a_p_value_above_0(judged):
    assert judged(0.0, n_events=[0], silence=[0.0]).p_values[0] > 0


def test_an_anomalous_empty_window_is_low(judged):
    assert judged(50.0, n_events=[0]).directions == (Direction.LOW,)


def test_judging_rows_together_or_alone_is_the_same(judge, features, scores, explainer, a_row):
    rows, found = np.tile(a_row, (3, 1)), [50.0, 0.0, 9.0]

    together = judge.judge(features(rows), scores(found), explainer())
    alone = [judge.judge(features(rows[i]), scores([found[i]]), explainer()) for i in range(3)]

    assert together.p_values.tolist() == [one.p_values[0] for one in alone]
    assert together.severities.tolist() == [one.severities[0] for one in alone]
    assert [together.findings.get(i) for i in range(3)] == [one.findings.get(0) for one in alone]
