import zlib

import numpy as np
import pytest

from stream_iwae.batches import Explanations, FeatureBatch, FeatureSchema, Kind, ScoreBatch
from stream_iwae.detection.calibration import Calibration

SCHEMA = FeatureSchema(
    names=("bytes", "dst_ports", "protocol", "hour"),
    kinds=(Kind.MAGNITUDE, Kind.COUNT, Kind.CATEGORY, Kind.CYCLIC),
    units=("B", "", "", ""),
)
TCP, UDP = zlib.crc32(b"tcp"), zlib.crc32(b"udp")


def feature_batch(values, n_events=None, silence=None):
    values = np.asarray(values, np.float64).reshape(-1, 4)
    n = len(values)
    return FeatureBatch(
        schema=SCHEMA,
        values=values,
        entities=[f"192.0.2.{i}" for i in range(n)],
        window_start_ms=np.zeros(n, np.int64),
        window_end_ms=np.full(n, 60_000, np.int64),
        n_events=np.asarray([5] * n if n_events is None else n_events, np.int64),
        first_offset=np.arange(n, dtype=np.int64),
        last_offset=np.arange(n, dtype=np.int64),
        silence_p_values=np.asarray([np.nan] * n if silence is None else silence, np.float64),
        labels={TCP: "tcp"},
    )


def score_batch(scores):
    n = len(scores)
    return ScoreBatch("m:1", np.asarray(scores, np.float64), np.full(n, 0.1), np.full(n, 4.0), np.zeros(n))


class FixedExplainer:
    """Says the same of every row, and remembers what it was asked."""

    def __init__(self, contributions=(4.0, 9.0, 1.0, -1.0), expected=(100.0, 3.0, UDP, 0.5)):
        self.contributions, self.expected = contributions, expected
        self.asked = []

    def __call__(self, values):
        self.asked.append(values)
        n = len(values)
        low, high = np.asarray(self.expected) * 0.5, np.asarray(self.expected) * 2.0
        return Explanations(
            contributions=np.tile(np.asarray(self.contributions, np.float64), (n, 1)),
            expected=np.tile(np.asarray(self.expected, np.float64), (n, 1)),
            expected_low=np.tile(low, (n, 1)),
            expected_high=np.tile(high, (n, 1)),
            labels={UDP: "udp"},
        )


@pytest.fixture
def features():
    return feature_batch


@pytest.fixture
def scores():
    return score_batch


@pytest.fixture
def explainer():
    return FixedExplainer


@pytest.fixture
def a_row():
    """An ordinary row but for its ports."""
    return [100.0, 812.0, TCP, 0.5]


@pytest.fixture(scope="session")
def exponential():
    """A calibration of exponential scores, so that the score at p is -ln p; 100,000 windows a day."""
    return Calibration.fit(np.random.default_rng(1).exponential(size=100_000), windows_per_day=100_000.0)
