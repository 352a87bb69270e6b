import numpy as np
import pytest

from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.samples import Samples

HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.fixture
def samples():
    return Samples(LearningConfig(max_source_share=1.0), 2)


def ids(rows):
    return set(rows.row_ids.tolist())


def test_no_row_serves_two_purposes(samples, make_rows):
    samples.add(make_rows(5_000, end_ms=np.arange(5_000) * 1_000))
    warmup, calibrate, held_out = ids(samples.warmup()), ids(samples.calibrate()), ids(samples.held_out())

    assert not warmup & calibrate
    assert not warmup & held_out
    assert not calibrate & held_out
    assert len(warmup) + len(calibrate) + len(held_out) == 5_000
    assert len(calibrate) == pytest.approx(1_000, rel=0.1)
    assert len(held_out) == pytest.approx(400, rel=0.15)


def test_calibration_sees_what_the_gate_keeps_from_learning(samples, make_rows):
    rows = make_rows(1_000, judged=True, p_values=np.where(np.arange(1_000) < 300, 0.001, 0.5))
    samples.add(rows)

    assert min(ids(samples.tuning())) >= 300
    assert min(ids(samples.held_out())) >= 300
    assert len([i for i in ids(samples.calibrate()) if i < 300]) > 30
    assert samples.gated_share() == pytest.approx(0.3)


def test_the_reference_is_frozen_when_the_first_model_is_trained(samples, make_rows):
    samples.add(make_rows(1_000, end_ms=np.full(1_000, HOUR)))
    samples.reference_until_ms = HOUR
    before = ids(samples.reference())
    samples.add(make_rows(1_000, end_ms=np.full(1_000, 2 * HOUR), first_id=1_000))

    assert ids(samples.reference()) == before == {i for i in ids(samples.held_out()) if i < 1_000}


def test_a_tuning_sample_is_half_recent_and_half_older(make_rows):
    samples = Samples(LearningConfig(max_source_share=1.0, tuning_rows=400, recent_span="2h"), 2)
    samples.add(make_rows(3_000, end_ms=np.full(3_000, HOUR)))
    samples.add(make_rows(3_000, end_ms=np.full(3_000, 20 * HOUR), first_id=3_000))

    tuning = samples.tuning()

    assert len(tuning) == len(ids(tuning)) == 400
    assert np.count_nonzero(tuning.window_end_ms == 20 * HOUR) >= 200
    assert np.count_nonzero(tuning.window_end_ms == HOUR) > 50


def test_the_rate_of_windows_is_that_of_the_stream_not_of_the_buffers(samples, make_rows):
    for hour in range(10):
        ends = hour * HOUR + (np.arange(6_000) + 1) * 600
        samples.add(make_rows(6_000, end_ms=ends, first_id=hour * 6_000))

    assert samples.windows_per_day() == pytest.approx(144_000, rel=1e-3)


def test_an_old_rate_is_forgotten(samples, make_rows):
    samples.add(make_rows(100_000, end_ms=np.full(100_000, HOUR)))
    samples.add(make_rows(24_000, end_ms=30 * DAY + np.arange(24_000) * 3_600, first_id=200_000))

    assert samples.windows_per_day() == pytest.approx(24_000, rel=0.05)


def test_no_rows_are_no_error(samples):
    samples.add(Rows.empty(2))

    assert samples.windows_per_day() == 1.0
    assert len(samples.warmup()) == 0
    assert samples.gated_share() == 0.0


def test_a_row_of_a_busy_hour_stands_for_as_many_windows_as_were_left_out_for_it(make_rows):
    """The buffer keeps 100 rows of each hour at most; the busy hour had ten times the windows of the quiet one."""
    samples = Samples(LearningConfig(calibrate_capacity=200, calibrate_span="2h", calibrate_share=0.5), 2)
    samples.add(make_rows(1_000, end_ms=np.full(1_000, HOUR)))
    samples.add(make_rows(10_000, end_ms=np.full(10_000, 2 * HOUR), first_id=1_000))

    rows, weights = samples.calibrate(), samples.calibrate_weights()

    assert [int(np.sum(rows.window_end_ms == hour * HOUR)) for hour in (1, 2)] == [100, 100]
    assert [np.unique(weights[rows.window_end_ms == hour * HOUR]).tolist() for hour in (1, 2)] == [[10.0], [100.0]]
