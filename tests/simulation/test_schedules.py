"""Ten thousand seeded schedules of faults: the service, its replicas and the trainer lose and repeat nothing."""

from collections import Counter

import pytest

from tests.simulation.faults import KINDS
from tests.simulation.run import SHARED, run
from tests.simulation.schedule import BY_NAME, GROUPS, Fault, Schedule, group_of, make_schedule, shrunk

SCHEDULES = 10_000
BATCH = 250  # schedules a test


@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_no_schedule_violates_an_invariant(first):
    n_struck = 0
    for seed in range(first, first + BATCH):
        verdict = run(make_schedule(seed), SHARED)
        assert not verdict.violated, verdict.describe()
        n_struck += verdict.struck.total()
    assert n_struck > 3 * BATCH


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_kind_of_fault_strikes(group):
    struck = Counter()
    for seed in range(1_000_000, 1_000_040):
        verdict = run(make_schedule(seed, group), SHARED)
        assert not verdict.violated, verdict.describe()
        struck += verdict.struck
    assert set(struck) == set(group.faults)


def test_some_group_has_each_kind_of_fault():
    assert {kind for group in GROUPS for kind in group.faults} == set(KINDS)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_run_without_faults_violates_nothing(group):
    for log in range(6):
        for windows in group.windows:
            verdict = run(Schedule(log, group, log, windows, ()), SHARED)
            assert not verdict.violated, verdict.describe()


def test_a_seed_is_the_same_schedule_and_the_same_steps_every_time():
    for seed in (3, 90, 93, 95, 97, 99):
        steps = []
        for _ in range(2):
            lines = []
            assert make_schedule(seed) == make_schedule(seed)
            run(make_schedule(seed), SHARED, lines.append)
            steps.append(lines)
        assert len(steps[0]) > 50
        assert steps[0] == steps[1]


def test_each_hundred_seeds_have_every_group_by_its_share():
    assert Counter(group_of(seed).name for seed in range(700, 800)) == {group.name: group.share for group in GROUPS}


def test_a_failing_verdict_names_the_command_that_replays_it():
    verdict = run(make_schedule(7), SHARED)
    verdict.violated["I1"] = ["a window is lost"]

    assert "I1 violated: a window is lost" in verdict.describe()
    assert verdict.describe().endswith("replay: make simulate SEED=7")


def test_shrinking_leaves_the_faults_that_a_failure_needs():
    faults = tuple(Fault(0, kind, 0) for kind in ("stall", "kill", "pause", "kill", "refuse"))
    schedule = Schedule(0, BY_NAME["crashes"], 0, "tumbling", faults)

    fewer = shrunk(schedule, lambda tried: {"pause", "refuse"} <= {fault.kind for fault in tried.faults})

    assert [fault.kind for fault in fewer.faults] == ["pause", "refuse"]
