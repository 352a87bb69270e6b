import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stream_iwae.detection.calibration import MAX_KNOTS, P_VALUE_FLOOR, Calibration
from stream_iwae.errors import ArtefactError

DISTRIBUTIONS = {"exponential": stats.expon(), "normal": stats.norm(-40.0, 3.0), "heavy": stats.t(5)}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_p_values_of_a_known_distribution_are_right_far_beyond_the_body(name):
    distribution = DISTRIBUTIONS[name]
    sample = distribution.rvs(size=200_000, random_state=np.random.default_rng(8))

    calibration = Calibration.fit(sample, windows_per_day=1.0)

    for p, factor in ((0.9, 1.02), (0.5, 1.02), (0.1, 1.05), (0.02, 1.1), (1e-2, 1.5), (1e-3, 1.5), (1e-4, 2.0)):
        found = calibration.p_values(np.array([distribution.isf(p)]))[0]
        assert p / factor < found < p * factor, f"{name}: p {p} was found to be {found}"


def test_fresh_scores_are_below_a_p_value_as_often_as_it_says(exponential):
    fresh = np.random.default_rng(9).exponential(size=200_000)

    p_values = exponential.p_values(fresh)

    assert stats.kstest(p_values, "uniform").statistic < 0.01
    for p in (1e-2, 1e-3):
        assert np.mean(p_values <= p) == pytest.approx(p, rel=0.5)


@settings(max_examples=30)
@given(unit=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_the_unit_and_origin_of_the_score_change_no_p_value(unit, offset):
    sample = np.random.default_rng(10).exponential(size=3_000)
    asked = np.linspace(0, 15, 40)

    plain = Calibration.fit(sample, 1.0).p_values(asked)
    moved = Calibration.fit(sample * unit + offset, 1.0).p_values(asked * unit + offset)

    np.testing.assert_allclose(moved, plain, rtol=1e-2, atol=1e-9)


@given(
    sample=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=400),
    asked=st.lists(st.floats(allow_nan=False), min_size=2, max_size=50),
)
def test_p_values_never_rise_with_the_score_and_are_never_0_or_1(sample, asked):
    calibration = Calibration.fit(np.array(sample), windows_per_day=1.0)

    p_values = calibration.p_values(np.sort(np.array(asked)))

    assert np.all(np.diff(p_values) <= 0)
    assert np.all((p_values > 0) & (p_values < 1))


def test_p_values_are_continuous_where_the_tail_begins(exponential):
    start = exponential.tail_start

    below, at, above = exponential.p_values(
        np.array([np.nextafter(start, -np.inf), start, np.nextafter(start, np.inf)])
    )

    assert below == pytest.approx(at, rel=1e-9)
    assert above == pytest.approx(at, rel=1e-9)
    assert at == pytest.approx(0.02, rel=0.01)


def test_nan_stays_nan_and_infinity_is_the_most_improbable(exponential):
    p_values = exponential.p_values(np.array([np.nan, np.inf, -np.inf]))

    assert np.isnan(p_values[0])
    assert p_values[1] == P_VALUE_FLOOR
    assert p_values[2] > 0.99


def test_no_score_is_beyond_the_end_point_of_a_light_tail():
    calibration = Calibration.fit(np.random.default_rng(11).uniform(size=10_000), 1.0)

    assert calibration.tail.shape < 0
    assert calibration.p_values(np.array([50.0]))[0] == P_VALUE_FLOOR


@given(p=st.floats(1e-9, 0.999))
def test_score_at_is_the_inverse_of_p_values(exponential, p):
    assert exponential.p_values(np.array([exponential.score_at(p)]))[0] == pytest.approx(p, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1, float("nan")])
def test_score_at_refuses_what_is_no_p_value(exponential, p):
    with pytest.raises(ValueError, match="p-value"):
        exponential.score_at(p)


def test_a_p_value_with_fewer_than_ten_scores_beyond_it_is_extrapolated(exponential):
    assert not exponential.is_extrapolated(10.5 / exponential.n_rows)
    assert exponential.is_extrapolated(9.5 / exponential.n_rows)


def test_scores_that_are_not_finite_are_left_out():
    calibration = Calibration.fit(np.array([1.0, np.nan, 2.0, np.inf]), 1.0)

    assert calibration.n_rows == 2


def test_without_any_finite_score_there_is_no_calibration():
    with pytest.raises(ValueError, match="finite"):
        Calibration.fit(np.array([np.nan]), 1.0)


def test_a_constant_score_is_ordinary_and_others_are_not():
    calibration = Calibration.fit(np.full(5_000, 3.0), 1.0)

    assert calibration.p_values(np.array([3.0]))[0] == pytest.approx(0.5, abs=0.01)
    assert calibration.p_values(np.array([20.0]))[0] < 1e-6


def test_few_scores_keep_the_former_tail(exponential):
    few = np.random.default_rng(12).exponential(size=1_000) * 9  # 20 excesses, of another scale

    assert Calibration.fit(few, 1.0, former=exponential).tail == exponential.tail
    assert Calibration.fit(np.tile(few, 3), 1.0, former=exponential).tail != exponential.tail


def test_few_scores_without_a_former_fit_begin_the_tail_earlier():
    calibration = Calibration.fit(np.random.default_rng(13).exponential(size=1_000), 1.0)

    assert calibration.knot_p_values[-1] == pytest.approx(0.051, abs=0.002)
    assert calibration.p_values(np.array([-np.log(1e-3)]))[0] == pytest.approx(1e-3, rel=1.0)


def test_very_few_scores_get_an_exponential_tail():
    calibration = Calibration.fit(np.arange(20.0), 1.0)

    assert calibration.tail.shape == 0.0


def test_attacks_in_the_sample_raise_the_threshold_less_when_they_are_censored():
    rng = np.random.default_rng(14)
    clean = rng.exponential(size=50_000)
    attacked = np.concatenate([clean, rng.uniform(40, 90, size=50)])

    threshold = Calibration.fit(clean, 1.0).score_at(1e-3)
    naive = Calibration.fit(attacked, 1.0).score_at(1e-3)
    censored = Calibration.fit(attacked, 1.0, censor_above=9.0).score_at(1e-3)

    assert threshold < censored < naive


def test_a_document_gives_the_same_calibration_again(exponential):
    text = exponential.to_json()

    assert Calibration.from_json(text) == exponential
    assert Calibration.from_json(text.encode()) == exponential
    assert len(exponential.knot_scores) <= MAX_KNOTS
    assert len(text) < 32_768


@pytest.mark.parametrize(
    "damage",
    [
        {"scores": [2.0, 1.0], "p_values": [0.5, 0.02]},
        {"scores": [1.0, 2.0], "p_values": [0.02, 0.5]},
        {"scores": [1.0], "p_values": [0.5, 0.02]},
        {"scores": [], "p_values": []},
        {"scores": [1.0, 2.0], "p_values": [0.5, 0.0]},
        {"scores": [1.0, None]},
        {"shape": 0.7},
        {"scale": 0.0},
        {"n_rows": 0},
        {"windows_per_day": -1.0},
        {"version": 2},
        {"more": 1},
    ],
)
def test_a_damaged_document_is_refused(exponential, damage):
    document = json.loads(exponential.to_json()) | damage

    with pytest.raises(ArtefactError):
        Calibration.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"version": 1}'])
def test_a_document_that_is_cut_is_refused(text):
    with pytest.raises(ArtefactError):
        Calibration.from_json(text)
