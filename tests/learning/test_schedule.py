import numpy as np
import pytest

from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.schedule import Job, Schedule

HOUR = 3_600_000


@pytest.fixture
def serving():
    """A schedule whose first model was trained and calibrated at hour 10, with rows since hour 4."""
    schedule = Schedule(LearningConfig())
    schedule.trained(10 * HOUR)
    schedule.calibrated(10 * HOUR, 4 * HOUR)
    return schedule


def test_the_first_model_is_due_at_the_row_that_completes_the_warm_up():
    schedule = Schedule(LearningConfig(min_windows=100))
    schedule.take(60)

    assert schedule.next_due(np.zeros(39, np.int64)) is None
    assert schedule.next_due(np.zeros(40, np.int64)) == (40, Job.FIRST)


def test_no_first_model_while_any_history_is_open():
    schedule = Schedule(LearningConfig(min_windows=100))
    schedule.begin_history(0)
    schedule.begin_history(1)
    schedule.end_history(0)
    assert schedule.next_due(np.zeros(500, np.int64)) is None
    schedule.end_history(1)
    assert schedule.next_due(np.zeros(500, np.int64)) == (100, Job.FIRST)


def test_a_fine_tuning_is_due_at_the_first_row_an_interval_later(serving):
    ends = np.array([10, 12, 11, 9]) * HOUR

    assert serving.next_due(ends) == (2, Job.TUNE)
    assert serving.next_due(np.array([11]) * HOUR) == (1, Job.TUNE)
    assert serving.next_due(np.array([11]) * HOUR - 1) is None


def test_what_changed_nothing_keeps_the_rhythm_of_the_last_promotion(serving):
    serving.tried(11 * HOUR + 5)
    assert serving.next_due(np.array([12 * HOUR])) == (1, Job.TUNE)

    serving.tried(14 * HOUR)
    assert serving.next_due(np.array([15 * HOUR - 1])) is None


def test_calibration_is_due_when_the_span_of_rows_has_doubled_and_daily_after_that():
    schedule = Schedule(LearningConfig(interval=0))
    schedule.calibrated(10 * HOUR, 4 * HOUR)
    assert schedule.next_due(np.array([15, 16]) * HOUR) == (2, Job.CALIBRATE)

    schedule.calibrated(100 * HOUR, 4 * HOUR)
    assert schedule.next_due(np.array([123, 124]) * HOUR) == (2, Job.CALIBRATE)


def test_a_failed_first_training_waits_for_half_as_many_rows_more():
    schedule = Schedule(LearningConfig(min_windows=100))
    schedule.take(100)
    schedule.first_failed()

    assert schedule.next_due(np.zeros(50, np.int64)) == (50, Job.FIRST)
