"""VUS-PR against closed forms and against the definition, threshold by threshold."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from stream_iwae.lab.volume_under_surface import buffered_labels, range_auc_pr, ranges, vus_pr


def by_definition(is_anomaly, scores, buffer):
    """One threshold after another, as Paparrizos et al. 2022 write it down."""
    n, half = len(scores), buffer // 2
    weights = np.zeros(n)
    for i in range(n):
        distances = [abs(i - j) for j in range(n) if is_anomaly[j]]
        best = 0.0
        for start, stop in ranges(is_anomaly):
            d = start - i if i < start else (i - stop + 1 if i >= stop else 0)
            if d <= half:
                best += 1.0 if d == 0 else math.sqrt(1 - d / buffer)
        weights[i] = min(best, 1.0) if distances else 0.0
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        is_flagged = scores >= threshold
        found = float((weights * is_flagged).sum())
        judged = np.where(is_anomaly, 1.0, weights * is_flagged)
        positives = (is_anomaly.sum() + judged.sum()) / 2
        met = [is_flagged[start:stop].any() for start, stop in ranges(weights > 0)]
        recall = min(found / positives, 1.0) * sum(met) / len(met)
        area += (recall - before) * found / is_flagged.sum()
        before = recall
    return area


def test_a_range_fades_with_the_square_root_of_the_distance():
    weights = buffered_labels(np.array([0, 0, 0, 1, 1, 0, 0, 0], dtype=bool), 4)

    assert weights.tolist() == pytest.approx(
        [0, math.sqrt(0.5), math.sqrt(0.75), 1, 1, math.sqrt(0.75), math.sqrt(0.5), 0]
    )


def test_a_detection_of_exactly_the_range_is_perfect_without_a_buffer():
    truth = np.array([0, 0, 1, 1, 0, 0], dtype=bool)

    assert range_auc_pr(truth, truth.astype(float), 0) == 1.0


def test_one_range_and_no_buffer_is_average_precision():
    rng = np.random.default_rng(0)
    truth = np.zeros(200, dtype=bool)
    truth[50:80] = True
    scores = rng.normal(truth * 1.0, 1)

    assert range_auc_pr(truth, scores, 0) == pytest.approx(average_precision_score(truth, scores))


def test_a_range_that_is_missed_halves_recall():
    truth = np.array([1, 0, 0, 0, 0, 1, 1, 1], dtype=bool)
    scores = np.array([-9, -1, -2, -3, -4, 9, 9, 9], dtype=float)
    # All three of the second range: 3/4 of the weight, one range of two, precision 1; the last row brings the rest.
    assert range_auc_pr(truth, scores, 0) == pytest.approx(3 / 8 * 1.0 + (1 - 3 / 8) * 4 / 8)


@given(
    st.lists(st.booleans(), min_size=6, max_size=30).filter(any),
    st.integers(0, 9),
    st.integers(0, 10_000),
)
def test_all_thresholds_at_once_give_what_one_after_another_gives(labels, buffer, seed):
    truth = np.array(labels)
    scores = np.random.default_rng(seed).integers(0, 8, len(truth)).astype(float)  # with ties

    assert range_auc_pr(truth, scores, buffer) == pytest.approx(by_definition(truth, scores, buffer))


def test_the_volume_is_the_mean_over_all_buffers_and_forgives_being_late():
    truth = np.zeros(300, dtype=bool)
    truth[100:120] = True
    late = np.roll(truth, 10).astype(float)

    assert vus_pr(truth, late, 20) == pytest.approx(np.mean([range_auc_pr(truth, late, b) for b in range(21)]))
    assert vus_pr(truth, late, 20) > range_auc_pr(truth, late, 0)
    assert vus_pr(truth, np.roll(truth, 150).astype(float), 20) < 0.1
