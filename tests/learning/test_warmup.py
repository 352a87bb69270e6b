import numpy as np
import pytest

from stream_iwae.batches import Kind
from stream_iwae.learning.warmup import distances, has_memorised, inliers, otsu

KINDS = (Kind.MAGNITUDE, Kind.GAUGE, Kind.CATEGORY)


def normal_rows(n, rng):
    return np.column_stack([rng.lognormal(5, 0.3, n), rng.normal(0, 1, n), rng.choice([1.0, 2.0], n, p=[0.9, 0.1])])


def test_a_clean_warm_up_is_not_taken_for_a_contaminated_one():
    rng = np.random.default_rng(0)

    assert not otsu(distances(normal_rows(4_000, rng), KINDS)).is_heavy


def test_a_second_population_is_heavy_contamination():
    rng = np.random.default_rng(0)
    wide = [normal_rows(2_600, rng) for _ in range(5)]
    normal = np.hstack(wide)
    attack = np.hstack(
        [np.column_stack([rng.lognormal(14, 0.1, 1_400), rng.normal(40, 1, 1_400), np.full(1_400, 3.0)])] * 5
    )

    split = otsu(distances(np.vstack([normal, attack]), KINDS * 5))

    assert split.is_heavy
    assert split.mass == pytest.approx(0.35, abs=0.02)


def test_otsu_splits_two_points_at_the_gap():
    split = otsu(np.array([0.0] * 70 + [10.0] * 30))

    assert split.eta == pytest.approx(1.0)
    assert split.mass == pytest.approx(0.3)


def test_equal_or_missing_rows_have_no_split():
    assert otsu(np.ones(10)).eta == 0.0
    assert otsu(np.empty(0)).eta == 0.0


def test_a_missing_value_adds_no_distance():
    rng = np.random.default_rng(0)
    values = normal_rows(100, rng)
    values[0] = np.nan
    values[:, 1] = np.nan

    assert distances(values, KINDS)[0] == 0.0
    assert np.isfinite(distances(values, KINDS)).all()


def test_a_model_that_finds_ordinary_what_the_trimmed_one_rejects_has_memorised_it():
    rng = np.random.default_rng(0)
    ordinary = rng.normal(size=950)
    trimmed = np.r_[ordinary, np.full(50, 20.0)]

    assert has_memorised(np.r_[ordinary, np.zeros(50)], trimmed)
    assert not has_memorised(np.r_[ordinary, np.full(50, 4.0)], trimmed)  # rare to both: a habit
    assert not has_memorised(np.array([np.nan]), np.array([1.0]))


def test_the_fence_is_that_of_the_core():
    scores = np.array([1.0, 2.0, 3.0, 4.0, 5.5, 100.0, np.nan])
    core = np.array([True, True, True, True, False, False, True])

    # quartiles of 1, 2, 3, 4 are 1.75 and 3.25: the fence is at 5.5
    assert inliers(scores, core).tolist() == [True, True, True, True, True, False, False]
