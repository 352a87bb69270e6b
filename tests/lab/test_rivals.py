"""What rivals see, and that odd columns do not blind them."""

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.rivals import RIVALS, Encoder


def rows_of(values, *kinds):
    schema = FeatureSchema(tuple(f"x{i}" for i in range(len(kinds))), kinds, ("",) * len(kinds))
    values = np.asarray(values, dtype=float)
    return LabelledRows(schema, values, np.zeros(len(values), dtype=bool), {})


class TestEncoder:
    def test_numbers_are_standardised_on_the_warm_up_and_a_missing_one_is_its_mean(self):
        encoder = Encoder(rows_of([[1], [3], [np.nan]], Kind.GAUGE))

        assert encoder.encode(np.array([[2.0], [4.0], [np.nan]])).tolist() == [[0.0], [2.0], [0.0]]

    def test_the_floor_of_a_gauge_follows_its_range_and_that_of_a_constant_does_not(self):
        tiny = Encoder(rows_of([[1e-6], [3e-6]], Kind.GAUGE))
        constant = Encoder(rows_of([[7], [7]], Kind.GAUGE))

        assert tiny.encode(np.array([[4e-6]])).item() == pytest.approx(2)
        assert constant.encode(np.array([[7.05]])).item() == pytest.approx(1)

    def test_columns_that_all_lie_within_one_share_a_floor(self):
        """Server metrics are scaled so, and their steps: one that hardly moved would else be as loud as the others."""
        shared = Encoder(rows_of([[0, 0.5], [1, 0.501]], Kind.GAUGE, Kind.GAUGE))
        own = Encoder(rows_of([[0, 0.5], [9, 0.501]], Kind.GAUGE, Kind.GAUGE))

        steps = Encoder(rows_of([[0, -0.001], [1, 0.0]], Kind.GAUGE, Kind.GAUGE))

        assert shared.encode(np.array([[0.5, 0.6005]]))[0, 1] == pytest.approx(0.1 / 0.05)
        assert steps.encode(np.array([[0.5, 0.0995]]))[0, 1] == pytest.approx(0.1 / 0.05)
        assert own.encode(np.array([[0.5, 0.6005]]))[0, 1] == pytest.approx(0.1 / 0.0005)

    def test_a_magnitude_is_logged_and_an_extreme_one_stays_finite(self):
        encoder = Encoder(rows_of([[0], [np.e - 1]], Kind.MAGNITUDE))

        assert encoder.encode(np.array([[np.e**2 - 1]])).item() == pytest.approx(3)
        assert np.isfinite(Encoder(rows_of([[1e308], [0]], Kind.GAUGE)).encode(np.array([[-1e308]]))).all()

    def test_a_category_is_one_hot_and_an_unseen_one_is_nothing(self):
        encoder = Encoder(rows_of([[5], [9]], Kind.CATEGORY))

        assert encoder.encode(np.array([[9.0], [4.0], [np.nan]])).tolist() == [[0, 1], [0, 0], [0, 0]]


@pytest.mark.parametrize("model", ["pca", "nearest-neighbour"])  # trees see nothing beyond the warm-up's values
@pytest.mark.parametrize(
    ("warmup", "odd"),
    [
        (np.linspace(-1, 1, 100)[:, None], [[9.0]]),
        (np.ones((100, 2)), [[1.0, 5.0]]),
        (np.linspace(-1, 1, 100)[:, None] * [[1.0, 1.0]], [[-1.0, 1.0]]),
    ],
    ids=["one number", "all alike", "one line"],
)
def test_no_distance_is_blind_where_there_is_little_to_see(model, warmup, odd):
    score = RIVALS[model](warmup, 0)

    assert score(np.array(odd))[0] > score(warmup).max()
