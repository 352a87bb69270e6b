import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_iwae.iwae.kinds import resolve, unit_of
from stream_iwae.iwae.transform import Transform

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("looks", "values"),
    [
        ("category", RNG.integers(0, 2, 500)),
        ("category", RNG.choice([0.5, 2.5], 500)),
        ("category", RNG.choice([6, 17, 1], 500)),
        ("category", RNG.choice([200, 301, 404, 500], 500)),
        ("category", RNG.choice([200, 301, 404, 500], 500, p=[0.9, 0.05, 0.04, 0.01])),  # some names are rare
        ("category", np.r_[np.zeros(498), 1, 1]),
        ("magnitude", np.r_[np.zeros(480), [1] * 12, 3, 4, 6, 18, 28, 28, 30, 30]),  # rare amounts leave gaps too
        ("magnitude", np.r_[np.zeros(480), RNG.permutation(np.arange(40))[:20]]),  # nearly always zero
        ("gauge", RNG.integers(0, 5, 500)),  # an amount: no gaps
        ("gauge", RNG.choice([0.0, 0.5, 1.0], 500)),  # whole and half: an amount
        ("gauge", np.tile([0.0, 1.0], 10)),  # too few rows to know all codes
        ("gauge", np.full(500, 3.0)),
        ("gauge", RNG.normal(20, 5, 500)),
        ("gauge", RNG.uniform(0, 1, 500)),
        ("gauge", np.full(500, np.nan)),
        ("magnitude", RNG.lognormal(8, 2, 500)),
        ("magnitude", np.r_[np.zeros(400), RNG.lognormal(-5, 2, 100)]),
        ("signed", RNG.lognormal(3, 2, 500) * RNG.choice([-1, 1], 500)),
        ("magnitude", np.r_[RNG.uniform(1, 2, 499), 1e308]),
    ],
)
def test_a_number_is_what_its_values_look_like(looks, values):
    assert resolve(np.asarray(values, dtype=np.float64), "number") == looks


@pytest.mark.parametrize("kind", ["gauge", "magnitude", "ratio", "count", "category", "cyclic"])
def test_a_kind_that_was_given_is_kept(kind):
    assert resolve(np.tile([0.0, 1.0], 500), kind) == kind


def test_small_amounts_are_counted_in_a_unit_of_their_own():
    small = RNG.lognormal(-8, 2, 1_000)

    assert unit_of(small) == pytest.approx(np.quantile(small, 0.05))
    assert unit_of(1e6 * small) == 1.0
    assert unit_of(np.zeros(3)) == 1.0


def test_shares_of_a_whole_count_in_wholes():
    shares = np.round(RNG.beta(0.1, 2, 1_000), 2)

    assert unit_of(shares) == unit_of(np.r_[shares, 1.0]) == 1.0
    assert unit_of(shares / 7) < 0.1  # scaled by something: not shares


def test_a_heavy_tail_reads_alike_in_any_small_unit():
    values = RNG.lognormal(-4, 2, (1_000, 1))
    one, other = (Transform.fit(rows, ("number",)).encode(rows).bounded for rows in (values, values / 1_000))

    assert one.numpy() == pytest.approx(other.numpy(), abs=1e-5)


def test_a_number_that_is_a_category_knows_its_codes_but_for_rounding():
    transform = Transform.fit(RNG.choice([0.0, 1.0], (500, 1)), ("number",))

    assert transform.kinds == ("category",)
    assert transform.encode(np.array([[0.0], [1.0], [0.98], [0.5], [7.0], [np.nan]])).classes[:, 0].tolist() == [
        *(1, 2, 2, 0, 0),
        1,  # of no meaning: it is masked
    ]


@pytest.mark.parametrize("wild", [1e6, 1e308, -1e308])
def test_one_wild_value_does_not_blind_a_column(wild):
    usual = RNG.normal(20, 1, (2_000, 1))
    transform = Transform.fit(np.vstack([usual, [[wild]]]), ("gauge",))
    near = transform.encode(np.array([[20.0], [30.0]])).bounded[:, 0]

    assert float(near[1] - near[0]) > 0.5


def test_one_wild_value_in_a_constant_column_hides_no_other():
    rows = np.zeros((2_000, 1))
    rows[:3, 0] = [1.0, 1.0, 1e300]
    near = Transform.fit(rows, ("gauge",)).encode(np.array([[0.0], [1.0]])).bounded[:, 0]

    assert float(near[1] - near[0]) > 0.5


@given(hnp.arrays(np.float64, (70, 1), elements=st.floats(allow_nan=True, allow_infinity=True)))
@settings(deadline=None, max_examples=100)
def test_any_column_of_numbers_becomes_bounded_ones_and_comes_back(rows):
    transform = Transform.fit(rows, ("number",))
    encoded = transform.encode(rows)

    assert np.isfinite(encoded.bounded.numpy()).all()
    assert Transform.from_json(transform.to_json()) == transform
    assert np.isfinite(transform.decode(encoded.bounded.double().numpy())).all()
