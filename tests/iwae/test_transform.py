import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stream_iwae.iwae.transform import MAX_CLASSES, Transform


def column(*values):
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def test_a_magnitude_is_standardised_after_log1p_and_bounded_at_two_scales():
    rows = column(*np.expm1([1.0, 3.0]))  # logarithms 1 and 3: mean 2, deviation 1
    transform = Transform.fit(rows, ("magnitude",))

    assert transform.means[0] == pytest.approx(2.0)
    assert transform.scales[0] == pytest.approx(1.0)
    expected = [[-np.tanh(1 / 2), -np.tanh(1 / 8)], [np.tanh(1 / 2), np.tanh(1 / 8)]]
    assert transform.encode(rows).bounded.numpy() == pytest.approx(np.array(expected), abs=1e-6)


@pytest.mark.parametrize("kind", ["gauge", "ratio"])
def test_a_narrow_gauge_or_ratio_is_seen_on_its_own_scale(kind):
    transform = Transform.fit(column(0.500, 0.501, 0.502), (kind,))

    assert transform.scales[0] == pytest.approx(0.001 * np.sqrt(2 / 3))


def test_a_gauge_that_moves_little_beside_others_of_its_unit_is_seen_on_a_quarter_of_its_range():
    wide, narrow = np.tile([0.0, 1.0], 50), np.array([0.12, 0.12] + 98 * [0.10])  # narrow: deviation .0028
    transform = Transform.fit(np.column_stack([wide, narrow, narrow / 10, wide * 0 + 0.5]), ("gauge", "ratio") * 2)

    assert transform.scales == pytest.approx((0.5, 0.005, 0.0005, 0.05))


def test_a_gauge_of_any_other_unit_is_seen_on_its_own_scale_whatever_stands_beside_it():
    mixed = np.array([[0.0, 5.0], [50.0, 5.01], [100.0, 5.02]])
    transform = Transform.fit(mixed, ("gauge", "gauge"))

    assert transform.scales[1] == pytest.approx(0.01 * np.sqrt(2 / 3))


def test_a_gauge_s_scale_is_at_least_a_twentieth_of_its_range():
    transform = Transform.fit(column(*[0.0] * 99_999, 1.0), ("gauge",))

    assert transform.scales[0] == pytest.approx(0.05)


@pytest.mark.parametrize("kind", ["magnitude", "count", "gauge", "ratio"])
def test_a_deviation_from_a_constant_column_saturates(kind):
    transform = Transform.fit(column(0.3, 0.3, 0.1 + 0.2), (kind,))  # the last differs by rounding
    near, far = transform.encode(column(0.9)).bounded[0].tolist()

    assert transform.scales == (0.05,)
    assert near > 0.99
    assert far > 0.6


@given(
    hnp.arrays(np.float64, (7, 1), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.sampled_from(["magnitude", "count", "gauge", "ratio", "cyclic", "category"]),
)
@settings(deadline=None, max_examples=150)
def test_any_numbers_at_all_become_bounded_ones(rows, kind):
    if kind == "category":
        rows = np.where(np.isfinite(rows), np.abs(np.nan_to_num(rows)) % 2**32, rows).round()
    transform = Transform.fit(rows, (kind,))
    encoded = transform.encode(rows)

    assert np.isfinite(transform.scales).all()
    assert float(encoded.bounded.abs().sum()) <= 2 * rows.size
    present = encoded.class_mask if kind == "category" else encoded.mask
    assert np.array_equal(present.numpy().astype(bool), np.isfinite(rows))
    assert np.isfinite(transform.decode(encoded.bounded.double().numpy())).all()


def test_missing_and_infinite_values_are_masked_and_change_nothing_that_is_learnt():
    clean = Transform.fit(column(1.0, 2.0, 3.0), ("gauge",))
    holes = Transform.fit(column(1.0, np.nan, 2.0, np.inf, 3.0, -np.inf), ("gauge",))

    assert clean == holes
    encoded = holes.encode(column(np.nan, np.inf, 2.5))
    assert encoded.mask[:, 0].tolist() == [0.0, 0.0, 1.0]
    assert encoded.bounded[:2].abs().sum() == 0


def test_zero_and_one_are_the_same_time_of_day():
    transform = Transform.fit(column(0.0, 0.5), ("cyclic",))
    encoded = transform.encode(column(0.0, 1.0, 0.25)).bounded.numpy()

    assert encoded[0] == pytest.approx(encoded[1], abs=1e-6)
    assert transform.decode(encoded[2:].astype(np.float64))[0, 0] == pytest.approx(0.25)


def test_an_unseen_code_has_class_zero_and_the_seen_ones_their_own():
    transform = Transform.fit(column(7.0, 4e9, 7.0), ("category",))

    assert transform.class_counts == [3]
    assert transform.encode(column(7.0, 4e9, 5.0, 4.2e9, 0.0)).classes[:, 0].tolist() == [1, 2, 0, 0, 0]


def test_a_category_of_very_many_values_keeps_the_most_frequent():
    codes = np.arange(5_000.0)
    rows = np.concatenate([codes, codes[-MAX_CLASSES:]]).reshape(-1, 1)

    assert Transform.fit(rows, ("category",)).classes[0] == tuple(range(5_000 - MAX_CLASSES, 5_000))


def test_a_magnitude_is_never_expected_below_zero():
    transform = Transform.fit(column(0.0, 10.0), ("magnitude",))

    assert transform.decode(np.array([[-0.9, -0.5]]))[0, 0] == 0.0


def test_features_keep_their_columns_whatever_lies_between_them(make_rows):
    kinds = ("category", "gauge", "cyclic", "category", "magnitude")
    rows = make_rows(50, kinds)
    both = Transform.fit(rows, kinds).encode(rows)

    alone = Transform.fit(rows[:, [4]], kinds[4:]).encode(rows[:, [4]])
    assert np.array_equal(both.bounded[:, [2, 5]], alone.bounded)
    assert np.array_equal(both.mask[:, 2], alone.mask[:, 0])
    last = Transform.fit(rows[:, [3]], ("category",)).encode(rows[:, [3]])
    assert np.array_equal(both.classes[:, 1], last.classes[:, 0])


def test_a_transform_comes_back_from_json_and_parts_that_do_not_fit_are_refused(make_rows):
    kinds = ("category", "gauge", "magnitude")
    transform = Transform.fit(make_rows(30, kinds), kinds)
    data = transform.to_json()

    assert Transform.from_json(data) == transform
    for wrong in ({"scales": [1.0]}, {"scales": [1.0, 0.0]}, {"means": [0.0, np.nan]}, {"kinds": ["a", "gauge", "b"]}):
        with pytest.raises(ValueError, match=r"kinds|scale"):
            Transform.from_json(data | wrong)
    with pytest.raises(ValueError, match=r"need \(N, 3\) values"):
        Transform.fit(np.zeros((4, 2)), kinds)
