"""A producer that has become useless is replaced, and what it was to commit is sent again, to the letter."""

from dataclasses import replace

import pytest

from tests.simulation.invariants import violations
from tests.simulation.reference import reference_of
from tests.simulation.schedule import BY_NAME, Fault, Schedule
from tests.simulation.world import World

SENT = ("training", "dead-letters", "state", "alerts", "scores")


def run_with(kind, after, amount=0):
    steps = []
    alone = replace(BY_NAME["crashes"], members=("a",))  # nobody else's rebalance aborts anything
    schedule = Schedule(0, alone, 0, "tumbling", (Fault(after, kind, amount),))
    world = World(schedule, tell=steps.append).run()
    assert not violations(world, reference_of(schedule))
    return world, [" ".join(step.split()[2:]) for step in steps]


def values(world, *, is_visible):
    return [
        (topic, partition, entry.key, entry.value)
        for topic in SENT
        for partition, log in enumerate(world.broker.logs[topic])
        for entry in log
        if entry.is_visible == is_visible and not entry.is_marker
    ]


@pytest.mark.parametrize("after", [5, 25, 45])
@pytest.mark.parametrize("kind", ["commit lost", "commit delayed"])
def test_a_commit_that_did_not_happen_is_sent_again(kind, after):
    world, steps = run_with(kind, after, amount=7)

    struck = next(i for i, step in enumerate(steps) if f"FAULT {kind}" in step)
    aborted = values(world, is_visible=False)
    assert [step.split()[-1] for step in steps[struck + 2 : struck + 4]] == ["recover", "recovered"]
    assert aborted
    assert set(aborted) <= set(values(world, is_visible=True))


@pytest.mark.parametrize("after", [5, 25, 45])
def test_a_commit_that_did_happen_is_not_sent_again(after):
    world, steps = run_with("reply lost", after)

    assert any("recovered" in step for step in steps)
    assert not values(world, is_visible=False)


def test_a_producer_that_was_fenced_in_its_transaction_is_rebuilt():
    """Stopped for longer than a transaction may last, while its partitions stay its own."""
    n_rebuilt = 0
    for after in range(60):
        world, steps = run_with("coordinator gone", after)
        struck = next((i for i, step in enumerate(steps) if "FAULT" in step), len(steps))
        if any(step.endswith(("append", "flush", "offsets")) for step in steps[struck - 1 : struck]):
            assert any(step.endswith("recovered") for step in steps[struck:])
            assert set(values(world, is_visible=False)) <= set(values(world, is_visible=True))
            n_rebuilt += 1
    assert n_rebuilt > 5
