import numpy as np

from stream_iwae.batches import Kind
from stream_iwae.learning.canaries import plant

KINDS = (Kind.MAGNITUDE, Kind.RATIO, Kind.COUNT, Kind.GAUGE, Kind.CATEGORY, Kind.CYCLIC)


def ordinary(n=200):
    rng = np.random.default_rng(0)
    columns = [
        rng.lognormal(5, size=n),
        rng.uniform(size=n),
        rng.poisson(3, size=n),
        rng.normal(size=n),
        rng.choice([4_000_000_001.0, 7.0], size=n),
        rng.uniform(size=n),
    ]
    return np.column_stack(columns)


def test_the_same_seed_plants_the_same_anomalies():
    np.testing.assert_array_equal(plant(ordinary(), KINDS, 50, 3), plant(ordinary(), KINDS, 50, 3))
    assert not np.array_equal(plant(ordinary(), KINDS, 50, 3), plant(ordinary(), KINDS, 50, 4))


def test_a_planted_value_stays_in_the_range_of_its_kind():
    planted = plant(ordinary(), KINDS, 400, 0)

    assert planted.shape == (400, 6)
    assert np.isfinite(planted).all()
    assert (planted[:, [0, 2]] >= 0).all()
    assert ((planted[:, [1, 5]] >= 0) & (planted[:, [1, 5]] <= 1)).all()
    assert set(np.unique(planted[:, 4])) <= {4_000_000_001.0, 7.0}


def test_a_shifted_magnitude_is_far_from_what_it_was():
    values = np.full((10, 1), 1_000.0)

    planted = plant(values, (Kind.MAGNITUDE,), 10, 0)[::2]

    assert (np.abs(np.log(planted / 1_000)) > 3).all()


def test_what_is_missing_stays_missing_where_it_is_shifted():
    values = np.full((10, 2), np.nan)
    values[:, 0] = 5.0

    assert np.isnan(plant(values, (Kind.GAUGE, Kind.GAUGE), 10, 0)[:, 1]).all()


def test_no_rows_give_no_anomalies():
    assert len(plant(np.empty((0, 6)), KINDS, 10, 0)) == 0
