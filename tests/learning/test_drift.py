import numpy as np

from stream_iwae.learning.config import DriftConfig
from stream_iwae.learning.drift import DriftDetector


def a_detector():
    return DriftDetector(DriftConfig(), np.random.default_rng(0).normal(size=5_000))


def test_a_steady_stream_does_not_drift():
    detector = a_detector()

    assert detector.add(np.random.default_rng(1).normal(size=200_000)) is None
    assert detector.distance < 0.1


def test_a_lasting_shift_is_seen_soon_after_it_begins():
    rng = np.random.default_rng(2)
    drift = a_detector().add(np.concatenate([rng.normal(size=20_000), rng.normal(1.0, size=20_000)]))

    assert drift is not None
    assert 20_000 <= drift.index < 25_000
    assert drift.distance > 0.1


def test_a_short_burst_of_extreme_scores_is_no_drift():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=20_000)
    scores[10_000:10_040] = 1e6  # fewer than half a block: the median does not see them

    assert a_detector().add(scores) is None


def test_where_the_stream_is_cut_changes_nothing():
    rng = np.random.default_rng(4)
    scores = np.concatenate([rng.normal(size=5_000), rng.normal(2.0, size=5_000)])
    scores[::50] = np.nan
    whole = a_detector().add(scores)
    detector, at, found = a_detector(), 0, None
    for part in np.array_split(scores, 61):
        drift = detector.add(part)
        if drift is not None:
            found = at + drift.index
            break
        at += len(part)

    assert whole is not None
    assert found == whole.index


def test_without_a_reference_nothing_is_confirmed():
    rng = np.random.default_rng(5)
    detector = DriftDetector(DriftConfig(), np.empty(0))

    assert detector.add(np.concatenate([rng.normal(size=5_000), rng.normal(9.0, size=5_000)])) is None
    assert detector.distance == 0.0
