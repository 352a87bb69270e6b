from dataclasses import fields, replace

import numpy as np
import pytest

from stream_iwae.iwae.cascade import CLOSE_ERRORS, FEW_SAMPLES, THRESHOLD_KEY, Cascade, make_scorer
from stream_iwae.iwae.scoring import Scorer, Scores
from stream_iwae.iwae.settings import ModelSettings

KINDS = ("magnitude", "category", "ratio", "gauge", "cyclic", "count")
SETTINGS = ModelSettings(hidden=(16,), latent=3, score_samples=4, cascade_samples=256, device="cpu")


@pytest.fixture(scope="module")
def rows(make_rows):
    return make_rows(700, KINDS, seed=2)


@pytest.fixture(scope="module")
def model(make_model, rows):
    plain = make_model(rows, KINDS, SETTINGS, gain=0.6)
    threshold = float(np.nanquantile(Scorer(plain).score(rows).scores, 0.9))
    return replace(plain, extra={THRESHOLD_KEY: threshold})


@pytest.fixture(scope="module")
def cascade(model):
    return make_scorer(model, "cpu")


def undecided(model, rows):
    """By hand: within three standard errors of the threshold, or fewer than two effective samples."""
    few = Scorer(model).score(rows)
    is_close = np.abs(few.scores - model.extra[THRESHOLD_KEY]) <= 3 * few.standard_errors
    return is_close | (few.effective_samples < 2)


def test_close_and_uncertain_rows_get_the_score_of_many_samples_and_others_keep_theirs(model, cascade, rows):
    again = undecided(model, rows)
    few = Scorer(model).score(rows)
    many = Scorer(replace(model, settings=replace(SETTINGS, score_samples=256, cascade_samples=0))).score(rows)
    found = cascade.score(rows)

    assert 0.05 < np.mean(again) < 0.95
    for field in fields(Scores):
        column, kept = getattr(found, field.name), getattr(few, field.name)
        assert np.array_equal(column[~again], kept[~again])
        assert column[again] == pytest.approx(getattr(many, field.name)[again], rel=1e-3, abs=1e-3)


def test_the_company_of_a_row_changes_no_bit(cascade, rows):
    whole = cascade.score(rows).scores
    order = np.random.default_rng(5).permutation(len(rows))
    parts = [cascade.score(part).scores for part in np.split(rows, [1, 60, 61, 300])]

    assert np.array_equal(cascade.score(rows[order]).scores, whole[order])
    assert np.array_equal(np.concatenate(parts), whole)


def test_only_the_band_around_the_threshold_is_undecided(cascade):
    scores = Scores(
        scores=cascade.threshold + np.array([0.0, 0.29, -0.29, 0.31, -0.31, 9.0, np.nan]),
        standard_errors=np.full(7, 0.1),
        effective_samples=np.array([4.0, 4.0, 4.0, 4.0, 4.0, 1.9, 1.0]),
        reconstructions=np.zeros(7),
        bounds=np.zeros(7),
    )

    assert (CLOSE_ERRORS, FEW_SAMPLES) == (3.0, 2.0)
    assert cascade.is_undecided(scores).tolist() == [True, True, True, False, False, True, False]


def test_many_samples_are_nearer_to_the_truth_where_it_matters(model, cascade, rows):
    """The truth: 4,096 other samples."""
    again = undecided(model, rows)
    settings = replace(SETTINGS, score_samples=4_096, cascade_samples=0)
    truth = Scorer(replace(model, settings=settings, noise_seed=77))
    truth.chunk_rows = 4
    exact = truth.score(rows[again][:60]).scores

    errors = [scorer.score(rows[again][:60]).scores - exact for scorer in (Scorer(model), cascade)]

    assert np.std(errors[1]) < np.std(errors[0]) / 3


def test_without_many_samples_or_a_threshold_there_is_no_cascade(model):
    assert isinstance(make_scorer(model, "cpu"), Cascade)
    assert isinstance(make_scorer(replace(model, extra={}), "cpu"), Scorer)
    assert isinstance(make_scorer(replace(model, settings=replace(SETTINGS, cascade_samples=0)), "cpu"), Scorer)


def test_a_cascade_to_fewer_samples_is_refused():
    with pytest.raises(ValueError, match="cascade_samples"):
        ModelSettings(score_samples=16, cascade_samples=8)


def test_the_caller_is_heard_between_the_chunks_of_both(cascade, model, rows):
    calls = []
    cascade.score(rows, lambda: calls.append(1))

    assert len(calls) == 3 + -(-int(undecided(model, rows).sum()) // 16)


def test_explanations_and_labels_are_those_of_the_model(cascade, model, rows):
    assert cascade.labels == model.labels
    assert np.array_equal(cascade.explain(rows[:3]).expected, Scorer(model).explain(rows[:3]).expected, equal_nan=True)
