import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import genpareto

from stream_iwae.detection.tail import Tail, fit_tail


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_a_fit_finds_the_shape_and_scale_of_its_sample(shape):
    sample = genpareto.rvs(shape, scale=2.0, size=20_000, random_state=np.random.default_rng(3))

    tail = fit_tail(sample)

    assert tail.shape == pytest.approx(shape, abs=0.03)
    assert tail.scale == pytest.approx(2.0, rel=0.05)


def test_a_fit_is_the_one_of_scipy_where_the_shape_is_free():
    sample = genpareto.rvs(0.2, size=500, random_state=np.random.default_rng(4))

    shape, _, scale = genpareto.fit(sample, floc=0)

    tail = fit_tail(sample)
    ours = np.sum(genpareto.logpdf(sample, tail.shape, scale=tail.scale))
    assert ours >= np.sum(genpareto.logpdf(sample, shape, scale=scale)) - 1e-6


def test_the_shape_stays_within_a_half():
    heavy = genpareto.rvs(1.5, size=500, random_state=np.random.default_rng(5))

    assert fit_tail(heavy).shape == 0.5
    assert fit_tail(np.linspace(1.0, 1.1, 60)).shape == -0.5


@settings(max_examples=30)
@given(unit=st.floats(1e-3, 1e6))
def test_the_unit_of_the_score_does_not_change_the_shape(unit):
    """The published SPOT code has the sign of the exponential case wrong and fails this."""
    sample = np.random.default_rng(6).exponential(size=200)

    plain, scaled = fit_tail(sample), fit_tail(sample * unit)

    assert scaled.shape == pytest.approx(plain.shape, abs=1e-4)
    assert scaled.excess_at(1e-3) == pytest.approx(plain.excess_at(1e-3) * unit, rel=1e-3)


def test_censored_excesses_count_but_not_how_far_they_went():
    rng = np.random.default_rng(7)
    honest = rng.exponential(size=1_000)
    limit = 4.0
    n_beyond = int(np.sum(honest > limit))

    plain = fit_tail(honest)
    censored = fit_tail(honest[honest <= limit], n_censored=n_beyond, censored_at=limit)
    attacked = fit_tail(np.where(honest > limit, honest + 100, honest))

    assert censored.excess_at(1e-3) == pytest.approx(plain.excess_at(1e-3), rel=0.15)
    assert attacked.excess_at(1e-3) > 1.5 * plain.excess_at(1e-3)


@pytest.mark.parametrize("shape", [-0.4, 0.0, 0.4])
def test_survival_and_excess_are_inverse(shape):
    tail = Tail(shape, 3.0)

    for p in (1.0, 0.5, 1e-3, 1e-9):
        assert tail.survival(np.array([tail.excess_at(p)]))[0] == pytest.approx(p, rel=1e-6)


@pytest.mark.parametrize(("shape", "scale"), [(0.6, 1.0), (0.0, 0.0), (np.nan, 1.0), (0.0, np.inf)])
def test_a_tail_that_makes_no_sense_is_refused(shape, scale):
    with pytest.raises(ValueError, match="need"):
        Tail(shape, scale)
