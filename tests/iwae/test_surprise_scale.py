import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_iwae.iwae.surprise_scale import BODY, MAX_KNOTS, Surprise

FINITE = st.floats(-1e6, 1e6)


def test_surprise_is_minus_the_log_of_the_share_of_rows_at_least_as_high():
    surprise = Surprise.fit(np.random.default_rng(0).exponential(size=100_000))
    found = surprise.nats_of(-np.log([0.5, 0.2, 0.1, 0.01, 1e-6]))  # values with these shares above them

    assert found == pytest.approx(-np.log([0.5, 0.2, 0.1, 0.01, 1e-6]), rel=0.03, abs=0.02)


def test_the_tail_halves_as_it_did_from_a_fifth_to_a_tenth_of_the_rows():
    values = np.arange(1.0, 101.0)  # the 80 % and 90 % quantiles are 80.2 and 90.1
    surprise = Surprise.fit(values)

    assert surprise.knots[-1] == pytest.approx(90.1)
    assert np.exp(-surprise.nats_of(np.array([90.1, 100.0, 109.9]))) == pytest.approx([0.1, 0.05, 0.025])


def test_attacks_among_the_rows_do_not_widen_the_tail():
    usual = np.random.default_rng(3).exponential(size=1_900)
    spoilt = Surprise.fit(np.r_[usual, np.full(100, 50.0)])

    assert spoilt.nats_of(np.array([50.0]))[0] > 0.6 * Surprise.fit(usual).nats_of(np.array([50.0]))[0]


def test_two_channels_in_other_units_are_as_surprised():
    values, new = np.random.default_rng(1).normal(size=(2, 5_000))

    assert Surprise.fit(1e3 * values + 7).nats_of(1e3 * new + 7) == pytest.approx(Surprise.fit(values).nats_of(new))


@given(hnp.arrays(np.float64, st.integers(1, 300), elements=FINITE), hnp.arrays(np.float64, 20, elements=FINITE))
@settings(deadline=None, max_examples=100)
def test_it_rises_with_the_value_is_finite_and_comes_back_from_json(values, asked):
    surprise = Surprise.fit(values)
    found = surprise.nats_of(np.sort(asked))

    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()
    assert len(surprise.knots) <= MAX_KNOTS
    assert Surprise.from_json(surprise.to_json()) == surprise


def test_below_all_rows_the_order_goes_on():
    lowest, lower, low = Surprise.fit(np.arange(100.0)).nats_of(np.array([-50.0, -2.0, -1.0]))

    assert lowest < lower < low


def test_equal_values_surprise_only_from_above():
    surprise = Surprise.fit(np.full(50, 3.0))
    below, at, above = surprise.nats_of(np.array([2.0, 3.0, 3.1]))

    assert below <= at <= -math.log(1 - BODY) + 1e-12
    assert above > 100


def test_what_is_no_number_has_no_surprise_and_teaches_none():
    values = np.random.default_rng(2).normal(size=500)
    holes = np.r_[values, np.nan, np.inf]

    assert Surprise.fit(holes) == Surprise.fit(values)
    assert np.isnan(Surprise.fit(values).nats_of(np.array([np.nan]))).all()
    with pytest.raises(ValueError, match="of which none is"):
        Surprise.fit(np.array([np.nan]))


@pytest.mark.parametrize(
    "change",
    [{"scale": 0.0}, {"scale": math.inf}, {"knots": [1.0]}, {"knots": [2.0, 1.0]}, {"nats": [1.0, 0.5]}, {"nats": []}],
)
def test_parts_that_make_no_surprise_are_refused(change):
    data = {"knots": [1.0, 2.0], "nats": [0.5, 1.0], "scale": 1.0}
    Surprise.from_json(data)

    with pytest.raises(ValueError, match="surprise"):
        Surprise.from_json(data | change)
