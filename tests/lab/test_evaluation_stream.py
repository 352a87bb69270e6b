"""Score first, then learn: the trainer's learner beside the scorer, triggered by event time."""

from dataclasses import replace

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.lab.evaluate import evaluate, learns_on
from stream_iwae.lab.evaluation_stream import frozen, learning, windows_per_day
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.protocols import Source, part
from stream_iwae.lab.timeline import Timeline

SETTINGS = ModelSettings(steps=150, device="cpu")


def nothing():
    pass


@pytest.fixture(scope="module")
def trial():
    """Two gauges, a row each 10 s of ten hosts: six hours that double for good after the first two."""
    rng = np.random.default_rng(0)
    n = 2_160
    level = np.where(np.arange(n) < n // 3, 20.0, 40.0)
    values = np.column_stack([rng.normal(level, 1.0), rng.normal(2 * level, 1.5)])
    truth = np.zeros(n, dtype=bool)
    truth[2_000:2_010] = True
    values[truth] = [30.0, 10.0]
    at = np.arange(n) * 10_000
    timeline = replace(
        Timeline.made_up(n), start_ms=at, end_ms=at + 10_000, entities=[f"h{i % 10}" for i in range(n)], is_real=True
    )
    schema = FeatureSchema(("a", "b"), (Kind.GAUGE, Kind.GAUGE), ("", ""))
    return part(Source(LabelledRows(schema, values, truth, {}, timeline)), "unlabelled", 0, 500)


def test_a_row_is_scored_by_a_model_that_has_not_seen_it(trial):
    """What comes later changes no earlier score."""
    later = trial.judged.values.copy()
    later[1_500:] = 0.0
    changed = replace(trial, judged=replace(trial.judged, values=later))

    one, other = (learning(each, SETTINGS, DetectionConfig(), 0, nothing) for each in (trial, changed))

    assert np.array_equal(one.scores[:1_500], other.scores[:1_500])
    assert np.array_equal(one.p_values[:1_500], other.p_values[:1_500])
    assert not np.array_equal(one.scores[1_500:], other.scores[1_500:])


def test_learning_goes_on_and_frozen_does_not(trial):
    learnt = learning(trial, SETTINGS, DetectionConfig(), 0, nothing)
    stayed = frozen(trial, SETTINGS, DetectionConfig(), 0, nothing)

    assert learnt.n_models > 1
    assert stayed.n_models == 1
    moved = slice(1_800, 2_000)  # an hour and more after the change
    assert np.median(learnt.p_values[moved]) > 10 * np.median(stayed.p_values[moved])


def test_runs_repeat(trial):
    one, same = (learning(trial, SETTINGS, DetectionConfig(), 1, nothing) for _ in range(2))

    assert np.array_equal(one.scores, same.scores)
    assert np.array_equal(one.is_alert, same.is_alert)


def test_a_frozen_model_learns_the_whole_warm_up_and_is_calibrated_on_what_follows(trial):
    shifted = replace(trial, calibration=replace(trial.calibration, values=trial.calibration.values + 7))
    high_side = DetectionConfig(low_share=0)  # else ordinary rows are too quiet beside shifted ones
    one, other = (frozen(each, SETTINGS, high_side, 0, nothing) for each in (trial, shifted))

    assert np.array_equal(one.scores, other.scores)
    assert np.nanmean(other.p_values[:700]) > np.nanmean(one.p_values[:700])


def test_learning_is_the_default_where_rows_have_a_time(trial):
    timeless = replace(trial, judged=replace(trial.judged, timeline=None))

    assert learns_on(trial)
    assert not learns_on(timeless)
    assert not evaluate("made-up", "unlabelled", timeless, "iwae", 0).is_learning


def test_windows_a_day_are_those_of_event_time(trial):
    assert windows_per_day(trial.judged) == pytest.approx(8_640, rel=0.001)
