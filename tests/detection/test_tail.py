import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import genpareto

from stream_iwae.detection.tail import LOG_SURVIVALS, Tail, fit_tail


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_a_fit_to_very_many_excesses_finds_the_tail_they_come_from(shape):
    sample = genpareto.rvs(shape, scale=2.0, size=20_000, random_state=np.random.default_rng(3))

    tail = fit_tail(sample)

    for p in (0.5, 0.1, 1e-2, 1e-3):
        exceeded = genpareto.sf(tail.excess_at(p), shape, scale=2.0)
        assert exceeded == pytest.approx(p, rel=0.25)


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2])
def test_a_threshold_is_exceeded_as_often_as_it_says_on_average_over_small_samples(shape, n):
    """A fit by maximum likelihood is exceeded 2.4 (n = 50) and 1.2 times (n = 200) as often at 1/200."""
    rng = np.random.default_rng(11)
    tails = [fit_tail(genpareto.rvs(shape, size=n, random_state=rng)) for _ in range(60)]

    for p, factor in ((1 / 20, 1.35), (1 / 200, 1.9)):
        exceeded = np.mean([genpareto.sf(tail.excess_at(p), shape) for tail in tails])
        assert exceeded < factor * p
        if p > 1 / 100:
            assert exceeded > p / factor


def test_no_sample_makes_the_tail_run_away_or_end_at_once():
    heavy = fit_tail(genpareto.rvs(1.5, size=500, random_state=np.random.default_rng(5)))
    flat = fit_tail(np.linspace(1.0, 1.1, 60))

    assert heavy.excess_at(1e-6) / heavy.excess_at(1e-3) < 1e-3**-0.5 * 1.5  # shape 1/2
    assert flat.excess_at(1e-6) > 1.1


@settings(max_examples=20, deadline=None)
@given(unit=st.floats(1e-3, 1e6))
def test_the_unit_of_the_score_does_not_change_the_tail(unit):
    """The published SPOT code has the sign of the exponential case wrong and fails this."""
    sample = np.random.default_rng(6).exponential(size=100)

    plain, scaled = fit_tail(sample), fit_tail(sample * unit)

    np.testing.assert_allclose(np.array(scaled.excesses) / unit, plain.excesses, rtol=1e-2)


def test_a_row_that_stands_for_two_counts_twice():
    sample = np.random.default_rng(8).exponential(size=100)

    twice = fit_tail(np.concatenate([sample, sample]))
    weighted = fit_tail(sample, weights=np.full(100, 2.0))

    np.testing.assert_allclose(weighted.excesses, twice.excesses, rtol=1e-3)


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


def test_survival_and_excess_are_inverse_down_to_the_last_knot_and_fall_beyond_it():
    tail = fit_tail(np.random.default_rng(9).exponential(size=300))

    for p in (1.0, 0.5, 1e-3, 1e-9, float(np.exp(LOG_SURVIVALS[-1]))):
        assert tail.survival(np.array([tail.excess_at(p)]))[0] == pytest.approx(p, rel=1e-6)
    beyond = tail.survival(np.array([1.0, 1.5, 5.0]) * tail.excesses[-1])
    assert beyond[0] > beyond[1] > beyond[2] > 0


@pytest.mark.parametrize(
    "excesses",
    [(), (1.0,), tuple([1.0] * 112), tuple(range(112)), (*range(1, 112), np.nan), (*range(1, 112), np.inf)],
)
def test_a_tail_that_makes_no_sense_is_refused(excesses):
    with pytest.raises(ValueError, match=r"need|must"):
        Tail(tuple(float(excess) for excess in excesses))
