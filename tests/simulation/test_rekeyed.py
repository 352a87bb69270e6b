"""What the schedules of re-keying meet; else they would prove nothing of it."""

from collections import Counter

import pytest

from tests.simulation.invariants import View
from tests.simulation.reference import reference_of
from tests.simulation.scattered import SOURCES, scattered, source_until
from tests.simulation.schedule import BY_NAME, Schedule, make_schedule
from tests.simulation.world import World


@pytest.fixture
def met():
    """Counts over some worlds with faults."""
    found = Counter()
    for seed in range(30):
        schedule = make_schedule(seed, BY_NAME["rekey"])
        world = World(schedule).run()
        view = View(world, reference_of(schedule))
        found["alerts"] += sum(len(view.found[partition].alerts) for partition in view.found)
        found["late"] += sum(totals.late for totals in world.totals)
        found["letters"] += sum(totals.rejected.total() for totals in world.rekeyer_totals)
        words = [word for target in view.rekeyed.words for word in target]
        found["idle"] += sum(is_idle for _, _, is_idle, _ in words)
        found["restores"] += len(world.restores)
        found["starts of re-keyers"] += len(world.rekeyer_totals)
    return found


def test_there_are_alerts_late_events_dead_letters_silence_and_restarts(met):
    assert min(met.values()) > 30, met
    assert met.keys() == {"alerts", "late", "letters", "idle", "restores", "starts of re-keyers"}


def test_the_sources_hold_together_what_the_whole_holds():
    for number in range(8):
        for is_unruly in (False, True):
            found = scattered(number, is_unruly=is_unruly)
            n_events = [
                len(source_until(number, s, len(found.sources[s].entries), is_unruly=is_unruly).events) for s in SOURCES
            ]
            assert min(n_events) > 0
            values = Counter(entry.value for entry in found.whole.entries if entry.is_visible and not entry.is_marker)
            fallen = Counter(
                entry.value
                for log in found.sources
                for entry in log.entries
                if entry.is_visible and not entry.is_marker
            )
            assert values <= fallen


def test_the_comparison_with_one_partition_is_with_something():
    for number in range(8):
        for windows in ("rekeyed", "rekeyed hopping"):
            in_order = reference_of(Schedule(0, BY_NAME["rekey"], number, windows, ()))
            assert len(in_order.windows) > 10
            assert in_order.alerts
