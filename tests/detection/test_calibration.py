import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.survival import MAX_KNOTS, P_VALUE_FLOOR
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


@settings(max_examples=20, deadline=None)
@given(unit=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_the_unit_and_origin_of_the_score_change_no_p_value(unit, offset):
    sample = np.random.default_rng(10).exponential(size=3_000)
    asked = np.linspace(0, 15, 40)

    plain = Calibration.fit(sample, 1.0).p_values(asked)
    moved = Calibration.fit(sample * unit + offset, 1.0).p_values(asked * unit + offset)

    np.testing.assert_allclose(moved, plain, rtol=1e-2, atol=1e-9)


@settings(deadline=None)
@given(
    sample=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=400),
    asked=st.lists(st.floats(allow_nan=False), min_size=2, max_size=50),
)
def test_p_values_never_rise_with_the_score_and_are_never_0_or_1(sample, asked):
    calibration = Calibration.fit(np.array(sample), windows_per_day=1.0)

    p_values = calibration.p_values(np.sort(np.array(asked)))

    assert np.all(np.diff(p_values) <= 0)
    assert np.all((p_values > 0) & (p_values < 1))


@pytest.mark.parametrize("low_share", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_one_p_value_of_two_sides_is_as_frequent_as_it_says(name, low_share):
    distribution = DISTRIBUTIONS[name]
    calibration = Calibration.fit(distribution.rvs(size=100_000, random_state=np.random.default_rng(20)), 1.0)
    fresh = distribution.rvs(size=1_000_000, random_state=np.random.default_rng(21))

    p_values, is_low = calibration.p_values(fresh, low_share), calibration.is_low(fresh, low_share)

    for p, factor in ((1e-2, 1.2), (1e-3, 1.35), (1e-4, 2.0)):
        share = np.mean(p_values <= p)
        assert share < p * factor
        if name != "exponential":  # it ends at 0 so sharply that the lower side promises less than it could
            assert share > p / factor
            assert np.mean((p_values <= p) & is_low) == pytest.approx(low_share * share, abs=factor * p / 4)


def test_each_side_alone_keeps_its_share_of_a_budget(exponential):
    """With a tenth below: a warning at p = 1e-2 is 9e-3 above and 1e-3 below."""
    at = np.array([exponential.score_at(9e-3), exponential.low_score_at(1e-3)])

    assert exponential.p_values(at, low_share=0.1) == pytest.approx([1e-2, 1e-2], rel=1e-3)
    assert exponential.is_low(at, low_share=0.1).tolist() == [False, True]


def test_windows_that_are_alike_are_judged_alike_and_none_is_rarer_than_its_kind():
    """A hundredth of the windows is the same: none of them has a smaller p-value than that."""
    rng = np.random.default_rng(22)
    sample = np.concatenate([rng.exponential(size=99_000), np.full(1_000, 8.0)])
    calibration = Calibration.fit(sample, 1.0)

    at, above = calibration.p_values(np.array([8.0, 8.2]))

    assert at == pytest.approx(1e-2, rel=0.1)
    assert above < 1e-3
    assert calibration.p_values(np.array([8.0 * (1 - 1e-5), 8.0 * (1 + 1e-5)])) == pytest.approx([at, at], rel=0.05)


def test_a_kind_of_window_with_the_lowest_score_of_all_hides_none_below_it():
    sample = np.concatenate([np.random.default_rng(23).exponential(size=20_000) + 1, np.full(2_000, 0.5)])
    calibration = Calibration.fit(sample, 1.0)

    kind, quieter = calibration.p_values(np.array([0.5, -3.0]), low_share=0.1)

    assert kind > 0.5
    assert quieter < 1e-3


def test_a_row_that_stands_for_more_windows_counts_for_more():
    """Half of the rows stand for nine windows each: they are nine tenths of the stream."""
    rng = np.random.default_rng(24)
    quiet, busy = rng.exponential(size=20_000), 3 + rng.exponential(size=20_000)
    weights = np.repeat([1.0, 9.0], 20_000)

    calibration = Calibration.fit(np.concatenate([quiet, busy]), 1.0, weights=weights)

    assert calibration.p_values(np.array([3.0]))[0] == pytest.approx(0.9 + 0.1 * np.exp(-3), rel=0.01)
    assert calibration.n_rows == pytest.approx(40_000 * 100 / 164, rel=0.01)


def test_p_values_are_continuous_where_the_tail_begins(exponential):
    start = exponential.high.tail_start

    below, at, above = exponential.p_values(
        np.array([np.nextafter(start, -np.inf), start, np.nextafter(start, np.inf)])
    )

    assert below == pytest.approx(at, rel=1e-9)
    assert above == pytest.approx(at, rel=1e-9)
    assert at == pytest.approx(5e-4, rel=0.03)  # fifty of a hundred thousand lie beyond


def test_nan_stays_nan_and_infinity_is_the_most_improbable(exponential):
    p_values = exponential.p_values(np.array([np.nan, np.inf, -np.inf]))

    assert np.isnan(p_values[0])
    assert p_values[1] == P_VALUE_FLOOR
    assert p_values[2] > 0.99


def test_no_score_is_beyond_the_end_point_of_a_light_tail():
    calibration = Calibration.fit(np.random.default_rng(11).uniform(size=10_000), 1.0)

    assert calibration.score_at(1e-9) < 1.15
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

    assert calibration.p_values(np.array([3.0]), low_share=0.1)[0] > 0.99
    assert calibration.p_values(np.array([3.5, 20.0]))[0] < 1e-3
    assert calibration.p_values(np.array([20.0]))[0] < 1e-6
    assert calibration.p_values(np.array([-20.0]), low_share=0.1)[0] < 1e-6


def test_few_scores_keep_the_former_tail(exponential):
    few = np.random.default_rng(12).exponential(size=2_000) * 9  # of another scale

    assert Calibration.fit(few, 1.0, former=exponential).high.tail == exponential.high.tail
    assert Calibration.fit(few, 1.0, former=exponential).low.tail == exponential.low.tail
    assert Calibration.fit(np.tile(few, 2), 1.0, former=exponential).high.tail != exponential.high.tail


def test_few_scores_without_a_former_fit_begin_the_tail_earlier():
    calibration = Calibration.fit(np.random.default_rng(13).exponential(size=1_000), 1.0)

    assert calibration.high.p_values[-1] == pytest.approx(0.051, abs=0.002)
    assert 3e-4 < calibration.p_values(np.array([-np.log(1e-3)]))[0] < 3e-3


def test_very_few_scores_promise_little():
    calibration = Calibration.fit(np.arange(20.0), 1.0)

    assert calibration.p_values(np.array([19.0, 25.0])) == pytest.approx([1 / 21, 0.02], rel=0.5)
    assert calibration.p_values(np.array([40.0]))[0] > 1e-5


def test_attacks_in_the_sample_raise_the_threshold_less_when_they_are_censored():
    rng = np.random.default_rng(14)
    clean = rng.exponential(size=50_000)
    attacked = np.concatenate([clean, rng.uniform(40, 90, size=50)])

    threshold = Calibration.fit(clean, 1.0).score_at(2e-4)
    naive = Calibration.fit(attacked, 1.0, min_excesses=200).score_at(2e-4)
    censored = Calibration.fit(attacked, 1.0, censor_above=9.0, min_excesses=200).score_at(2e-4)

    assert threshold < censored < naive / 1.5


def test_a_document_gives_the_same_calibration_again(exponential):
    text = exponential.to_json()

    assert Calibration.from_json(text) == exponential
    assert Calibration.from_json(text.encode()) == exponential
    assert len(exponential.high.scores) <= MAX_KNOTS
    assert len(text) < 32_768


@pytest.mark.parametrize(
    "damage",
    [
        {"n_rows": 0},
        {"windows_per_day": -1.0},
        {"version": 1},
        {"more": 1},
        {"high": None},
    ],
)
def test_a_damaged_document_is_refused(exponential, damage):
    document = json.loads(exponential.to_json()) | damage

    with pytest.raises(ArtefactError):
        Calibration.from_json(json.dumps(document))


@pytest.mark.parametrize("side", ["high", "low"])
@pytest.mark.parametrize(
    "damage",
    [
        {"scores": [2.0, 1.0], "p_values": [0.5, 0.02]},
        {"scores": [1.0, 2.0], "p_values": [0.02, 0.5]},
        {"scores": [1.0], "p_values": [0.5, 0.02]},
        {"scores": [], "p_values": []},
        {"scores": [1.0, 2.0], "p_values": [0.5, 0.0]},
        {"scores": [1.0, None]},
        {"excesses": [1.0, 2.0]},
        {"more": 1},
    ],
)
def test_a_damaged_side_is_refused(exponential, side, damage):
    document = json.loads(exponential.to_json())
    document[side] |= damage

    with pytest.raises(ArtefactError):
        Calibration.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"version": 1}'])
def test_a_document_that_is_cut_is_refused(text):
    with pytest.raises(ArtefactError):
        Calibration.from_json(text)
