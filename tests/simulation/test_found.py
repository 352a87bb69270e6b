"""What schedules have found, cut down: each of these failed once. Those of the trainer are in tests/test_trainer.py."""

from dataclasses import replace

import pytest

from tests.simulation.run import SHARED, run
from tests.simulation.schedule import BY_NAME, Fault, Schedule

FOUND = {
    "commits wait an hour when the wall clock is set back by one": Schedule(
        16, BY_NAME["crashes"], 1, "hopping", (Fault(23, "clock step", 4),)
    ),
    "a commit of the twin's with the same number passes for ours": Schedule(
        305,
        BY_NAME["crashes"],
        3,
        "tumbling",
        (Fault(1, "reply lost", 4), Fault(3, "refuse", 5), Fault(1, "twin", 6), Fault(1, "stall", 6)),
    ),
    "a stopped replica counts what another has committed to the letter": Schedule(
        501_717,
        replace(BY_NAME["crashes"], turns=24),
        2,
        "hopping",
        (Fault(2, "reply lost", 5), Fault(1, "reply lost", 6), Fault(0, "commit delayed", 1), Fault(3, "pause", 3)),
    ),
    "a partition is taken away by a poll while another is scored": Schedule(
        6, BY_NAME["idle"], 3, "hopping", (Fault(3, "commit lost", 2), Fault(1, "slow", 7))
    ),
}


@pytest.mark.parametrize("schedule", FOUND.values(), ids=FOUND)
def test_it_is_mended(schedule):
    verdict = run(schedule, SHARED)

    assert sum(verdict.struck.values()) == len(schedule.faults)
    assert not verdict.violated, verdict.describe()
