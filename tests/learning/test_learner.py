from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ArtefactError
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.learner import Learner
from stream_iwae.learning.schedule import Job
from stream_iwae.learning.served import read_calibration

HOUR = 3_600_000


@pytest.fixture
def make_learner(schema, method):
    def make(**overrides):
        settings = {"min_windows": 500, "max_source_share": 1.0} | overrides
        return Learner(LearningConfig(**settings), DetectionConfig(), schema, method)

    return make


def cut(batch, *at):
    edges = [0, *at, len(batch)]
    parts = []
    for low, high in pairwise(edges):
        part = slice(low, high)
        columns = ("row_ids", "entity_ids", "window_end_ms", "values", "scores", "p_values", "in_incident")
        parts.append(
            replace(
                batch,
                **{name: getattr(batch, name)[part] for name in columns},
                history_ended=batch.history_ended and high == len(batch),
            )
        )
    return parts


def together(one, other):
    """Two batches as one, in order of time."""
    columns = ("row_ids", "entity_ids", "window_end_ms", "values", "scores", "p_values", "in_incident")
    joined = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in columns}
    order = np.argsort(joined["window_end_ms"], kind="stable")
    return replace(one, **{name: column[order] for name, column in joined.items()})


def learn(learner, batches):
    outcomes = []
    for batch in batches:
        learner.add(batch)
        while learner.due() is not None:
            outcomes.append(learner.step())
    return outcomes


def test_the_first_model_is_trained_when_enough_windows_are_there(make_learner, make_stream, method):
    learner = make_learner()
    learner.add(cut(make_stream(1), 499)[0])
    assert learner.due() is None

    learner = make_learner()
    (outcome,) = learn(learner, [make_stream(1)])

    assert (outcome.job, outcome.outcome, outcome.version) == (Job.FIRST, "promoted", "1.0")
    assert method.n_first_rows is not None
    assert 300 < method.n_first_rows < 400  # 500 less a fifth for calibration and a tenth of the rest
    assert learner.n_rows == 1_000
    assert outcome.elbo == pytest.approx(-1.0, abs=0.6)  # of two standard normals, without their constant


def test_the_first_model_waits_for_the_end_of_every_history(make_learner, make_stream):
    learner = make_learner()
    first, second = make_stream(1), make_stream(1, start_hour=1)
    learner.add(replace(first, in_history=True, partition=0))
    learner.add(replace(second, in_history=True, partition=1, history_ended=True))
    assert learner.due() is None

    nothing = cut(first, 0)[0]
    learner.add(replace(nothing, in_history=True, partition=0, history_ended=True))

    assert learner.due() is Job.FIRST
    assert learner.n_rows == 2_000


def test_p_values_are_fitted_to_rows_that_were_not_learnt_at_the_rate_of_the_stream(make_learner, make_stream, method):
    learner = make_learner()
    (outcome,) = learn(learner, [make_stream(1)])

    calibration = read_calibration(method.unpack(outcome.blob)[2])

    assert 70 <= calibration.n_rows <= 130
    assert calibration.windows_per_day == pytest.approx(24_000, rel=0.01)


def test_where_the_rows_are_cut_changes_no_artefact(make_learner, make_stream):
    stream = make_stream(5)

    whole = learn(make_learner(), [stream])
    pieces = learn(make_learner(), cut(stream, 3, 499, 500, 501, 1_700, 3_333))

    assert [outcome.job for outcome in whole][:2] == [Job.FIRST, Job.TUNE]
    assert whole == pieces


def test_what_moved_for_good_is_learnt_at_the_next_fine_tuning(make_learner, make_stream):
    learner = make_learner(min_windows=4_000)
    learn(learner, [make_stream(1, per_hour=4_000)])
    shifted = make_stream(3, per_hour=4_000, start_hour=1, mean=0.4)

    outcomes = learn(learner, [shifted])

    promoted = [outcome for outcome in outcomes if outcome.job is Job.TUNE and outcome.outcome == "promoted"]
    assert [outcome.version for outcome in promoted][:1] == ["2.0"]
    assert learner.served.weights.mean[0] > 0.15


@pytest.mark.parametrize(
    ("usual_left", "past_hours", "is_learnt"),
    [
        pytest.param(1.0, 8, False, id="beside the usual windows"),
        pytest.param(0.2, 8, True, id="in place of the usual windows"),
        pytest.param(1.0, 2, True, id="before the usual is known"),
    ],
)
def test_many_odd_windows_are_learnt_only_where_the_stream_has_moved(
    make_learner, make_stream, monkeypatch, usual_left, past_hours, is_learnt
):
    spans = {"interval": f"{past_hours}h", "recent_span": "30m", "calibrate_span": "5h", "stratum": "10m"}
    learner = make_learner(**spans, tuning_rows=1_000)
    learn(learner, [make_stream(past_hours)])  # the first model comes in the middle of the first hour
    version, n_usual = learner.served.version, int(1_000 * usual_left)
    usual = make_stream(1, start_hour=past_hours, version=version)
    usual = cut(usual, n_usual)[0] if n_usual < len(usual) else usual
    usual = replace(usual, window_end_ms=past_hours * HOUR + np.arange(1, n_usual + 1) * HOUR // n_usual)
    odd = make_stream(1, start_hour=past_hours + 100, mean=20.0, version=version)
    both = together(usual, replace(odd, window_end_ms=odd.window_end_ms - 100 * HOUR))
    learnt = []
    tuned = type(learner.served.weights).tuned
    monkeypatch.setattr(
        type(learner.served.weights), "tuned", lambda *given: learnt.append(given[1].values) or tuned(*given)
    )

    learn(learner, [both])  # and the fine-tuning in the middle of this one

    assert len(learnt) == 1
    assert (np.max(learnt[0]) > 10) == is_learnt


def test_a_fine_tuning_without_any_row_to_learn_is_left_out(make_learner, make_stream):
    first = make_learner()
    learn(first, [make_stream(1)])
    learner = make_learner()
    learner.restore(first.served.pack())  # and the rows of before are gone from the topic

    gated = make_stream(3, start_hour=5, version=first.served.version, p_value=0.001)
    tuned = [outcome for outcome in learn(learner, [gated]) if outcome.job is Job.TUNE]

    assert {(outcome.outcome, outcome.reason) for outcome in tuned} == {("skipped", "few_rows")}


def test_rows_below_the_gate_teach_nothing(make_learner, make_stream):
    learner = make_learner()
    learn(learner, [make_stream(1)])
    before = learner.served.weights.mean.copy()

    outcomes = learn(learner, [make_stream(3, start_hour=1, mean=50.0, version="1.0", p_value=0.001)])

    assert not any(o.outcome == "promoted" and o.job is Job.TUNE for o in outcomes)
    np.testing.assert_array_equal(learner.served.weights.mean, before)
    assert learner.gated_share > 0.7


def test_a_drift_of_the_scores_is_answered_before_the_hour_is_over(make_learner, make_stream):
    learner = make_learner(interval="1d")
    learn(learner, [make_stream(6, per_hour=2_000)])
    calm = make_stream(2, per_hour=2_000, start_hour=6, version=learner.served.version)
    assert not [o for o in learn(learner, [calm]) if o.job is Job.TUNE]

    version = learner.served.version
    shifted = make_stream(2, per_hour=2_000, start_hour=8, mean=2.0, version=version)
    outcomes = learn(learner, [shifted])

    assert learner.last_drift is not None
    assert outcomes[0].job is Job.TUNE


def test_a_new_calibration_of_the_same_weights_is_a_minor_version(make_learner, make_stream):
    learner = make_learner(interval=0)

    outcomes = learn(learner, [make_stream(8)])

    assert [(o.job, o.version) for o in outcomes] == [
        (Job.FIRST, "1.0"),
        (Job.CALIBRATE, "1.1"),  # an hour later, and then whenever the span of rows has doubled
        (Job.CALIBRATE, "1.2"),
        (Job.CALIBRATE, "1.3"),
    ]


def test_a_failed_first_training_is_tried_again_with_more_rows(make_learner, make_stream, method):
    method.failures = 1

    outcomes = learn(make_learner(), [make_stream(1)])

    assert [(o.outcome, o.version) for o in outcomes] == [("failed", ""), ("promoted", "1.0")]
    assert outcomes[0].detail == "loss became nan"
    assert method.n_first_rows > 450


def test_a_failed_fine_tuning_leaves_the_former_model(make_learner, make_stream, monkeypatch):
    learner = make_learner()
    learn(learner, [make_stream(1)])

    def fail(rows, seed, tick):
        raise FloatingPointError("gradient is not finite")

    monkeypatch.setattr(learner.served.weights, "tuned", fail)
    outcomes = learn(learner, [make_stream(1, start_hour=1)])

    tunings = [o for o in outcomes if o.job is Job.TUNE]
    assert [(o.outcome, o.version, o.blob) for o in tunings] == [("failed", tunings[0].version, None)]
    assert learner.served.version.startswith("1.")


def test_a_candidate_that_is_no_better_is_rejected(make_learner, make_stream, monkeypatch):
    learner = make_learner()
    learn(learner, [make_stream(1)])
    weights = learner.served.weights

    def worse(rows, seed, tick):
        return type(weights)(weights.mean + 1.0, weights.std)

    monkeypatch.setattr(weights, "tuned", worse)
    outcomes = [o for o in learn(learner, [make_stream(1, start_hour=1)]) if o.job is Job.TUNE]

    assert [(o.outcome, o.reason) for o in outcomes] == [("rejected", "held_out")]


def test_rows_of_another_feature_schema_are_counted_and_left_out(make_learner, make_stream):
    learner = make_learner()

    assert learn(learner, [replace(make_stream(1), schema_digest="another")]) == []
    assert learner.n_foreign == 1_000
    assert learner.n_rows == 0


def test_an_interrupted_training_is_still_due(make_learner, make_stream):
    class StopError(Exception):
        pass

    def stop():
        raise StopError

    learner = make_learner()
    learner.add(make_stream(1))
    assert learner.due() is Job.FIRST
    with pytest.raises(StopError):
        learner.step(stop)

    assert learner.due() is Job.FIRST
    assert learner.step().outcome == "promoted"


def test_a_restored_learner_goes_on_as_the_undisturbed_one(make_learner, make_stream):
    seen, later = make_stream(4), make_stream(3, start_hour=4, mean=0.5)
    undisturbed = make_learner()
    before = learn(undisturbed, cut(seen, 2_000))
    blob = [outcome.blob for outcome in before if outcome.blob][-1]
    expected = learn(undisturbed, [later])

    restored = make_learner()
    restored.restore(blob)
    restored.add(seen)
    restored.absorb()
    actual = learn(restored, [later])

    assert len(actual) >= 3
    assert actual == expected
    assert restored.sizes() == undisturbed.sizes()


def test_rows_read_again_after_a_restart_train_nothing(make_learner, make_stream):
    first = learn(make_learner(), [make_stream(1)])
    restored = make_learner()
    restored.restore(first[0].blob)
    restored.add(make_stream(30))
    restored.absorb()

    assert restored.due() is None
    outcomes = learn(restored, [make_stream(1, start_hour=30)])
    assert [o.job for o in outcomes].count(Job.TUNE) == 1  # those that fell due meanwhile are left out


def test_major_numbers_in_the_store_are_not_used_again(make_learner, make_stream):
    learner = make_learner()
    learner.reserve(["1.0", "7.3", "best-one"])

    (outcome,) = learn(learner, [make_stream(1)])

    assert outcome.version == "8.0"


def test_a_damaged_artefact_is_refused(make_learner, make_stream, method):
    learner = make_learner()
    (outcome,) = learn(learner, [make_stream(1)])
    without = outcome.blob.replace(b'"learning"', b'"lerning"')

    for blob in (b"{", without):
        with pytest.raises(ArtefactError):
            make_learner().restore(blob)


def test_nothing_due_is_an_error(make_learner):
    with pytest.raises(ValueError, match="nothing is due"):
        make_learner().step()


def test_a_tuning_can_be_left_out_and_the_next_comes_at_its_own_time(make_learner, make_stream):
    learner = make_learner(calibration_interval="40d")
    learn(learner, [make_stream(1)])
    learner.add(make_stream(3, start_hour=1))
    jobs = []
    while (job := learner.due()) is not None:
        jobs.append(job)
        assert learner.skip("busy").outcome == "skipped"

    assert jobs.count(Job.TUNE) == 3
