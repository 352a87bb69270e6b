"""Each invariant catches a mistake that is made on purpose, and names it alone."""

from unittest import mock

import pytest

from tests.simulation.invariants import INVARIANTS, REKEYED
from tests.simulation.logs import logs_of
from tests.simulation.memo import Memo
from tests.simulation.planted import BUGS as BUGS_OF_THE_SERVICE
from tests.simulation.planted_rekeyer import BUGS as BUGS_OF_THE_REKEYER
from tests.simulation.reference import RereadLog, reference_of
from tests.simulation.run import run
from tests.simulation.schedule import BY_NAME, make_schedule

BUGS = BUGS_OF_THE_SERVICE + BUGS_OF_THE_REKEYER
SEEDS = 150  # within which a bug is found


def read_whole(reference, schedule):
    if isinstance(reference, RereadLog):
        logs = logs_of(schedule.log, is_idle=False, is_full=True)
        reference.read((p, position) for p, log in enumerate(logs) for position in range(len(log.entries) + 1))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_the_invariant_catches_the_bug(bug):
    memo, seen = Memo(), []
    for seed in range(SEEDS):
        schedule = make_schedule(seed, BY_NAME[bug.group])
        read_whole(reference_of(schedule), schedule)  # before the bug is there
        with mock.patch.object(bug.target, bug.attribute, bug.replacement(getattr(bug.target, bug.attribute))):
            seen.append(set(run(schedule, memo).violated))
        if bug.invariant in seen[-1] and seen[-1] <= {bug.invariant} | bug.also:
            return
    pytest.fail(f"{bug.invariant} was never violated alone: {[found for found in seen if found]}")


def test_every_invariant_has_a_bug_that_it_alone_catches():
    assert {bug.invariant for bug in BUGS if not bug.also - {"models"}} == INVARIANTS.keys() | REKEYED.keys()
