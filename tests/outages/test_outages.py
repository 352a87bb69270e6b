"""A few schedules in every test run; `make outages` has fifty, and shows any one again."""

import pytest

from tests.outages.cluster import three_brokers
from tests.outages.planted import BUGS
from tests.outages.run import run
from tests.outages.schedule import Fault, Schedule

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

# Short ones of their kinds; both clients are struck.
SCHEDULES = (
    Schedule(
        101,
        "kills",
        "confluent",
        3,
        (Fault(1.0, "kill", 0, 1), Fault(1.5, "kill broker", 1, 0), Fault(2.0, "terminate", 2, 1)),
    ),
    Schedule(102, "zombies", "kafka-python", 3, (Fault(1.0, "pause", 0, 0), Fault(2.0, "clock step", 1, 0))),
    Schedule(103, "scale", "kafka-python", 1, (Fault(0.5, "scale", 0, 0), Fault(1.0, "kill trainer", 0, 1))),
)


@pytest.fixture(scope="module")
def cluster():
    with three_brokers() as running:
        yield running


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.theme)
def test_nothing_is_lost_or_repeated(schedule, cluster, tmp_path):
    verdict = run(schedule, cluster, tmp_path / "schedule")

    assert not verdict.violated, verdict.describe()
    assert verdict.n_records > 1_000
    assert verdict.n_alerts > 3


def test_a_bug_is_noticed(cluster, tmp_path):
    """Windows that were open are lost with whoever commits last polled + 1, and is killed."""
    schedule = Schedule(104, "kills", "confluent", 3, (Fault(1.0, "kill", 0, 0), Fault(1.5, "kill", 1, 0)))

    verdict = run(schedule, cluster, tmp_path / "schedule", "commits last polled + 1")

    assert BUGS["commits last polled + 1"].noticed_by <= set(verdict.violated)
    assert "make outages SEED=104" in verdict.describe()
    assert list((tmp_path / "schedule").glob("replica1-*.log")), "logs are kept"
