"""The re-keyer and the service behind it, against crashes between any two effects and rebalances of both groups."""

import json
import random
from collections import Counter

import pytest
from rekey_world import RekeyWorld, direct, read_again, scattered, the_stages

from stream_iwae.rekey.merge import SourceMerge
from stream_iwae.rekey.source_partition import SourcePartition
from stream_iwae.rekey_outputs import SharePublisher
from stream_iwae.rekeyer import Rekeyer

SCHEDULES = 200
BATCH = 25  # schedules a test, so that a failure names few


def events_in(logs):
    found = Counter()
    for value in (value for log in logs for value in log if value is not None and value.startswith((b"[", b"{"))):
        try:
            decoded = json.loads(value)
        except ValueError:
            continue
        for event in decoded if isinstance(decoded, list) else [decoded]:
            found[event["ts"], event["src"], float(event["bytes"])] += 1
    return found


def letters_in(logs):
    return Counter(
        (f"events/{partition}/{offset}".encode(), value)
        for partition, log in enumerate(logs)
        for offset, value in enumerate(log)
        if value in {b'{"ts": broken', b"17"}
    )


def run_schedule(seed):
    rng = random.Random(seed)
    whole, logs = scattered(rng, 60, n_sources=3)
    stages = the_stages()
    world = RekeyWorld(logs, stages, rng=rng, faults=rng.choice([0.01, 0.03, 0.08])).run()
    return whole, logs, world


def problems(whole, logs, world, reference):
    events, places = world.forwarded()
    found = []
    if events != events_in(logs):
        found.append("events")
    if any(len(partitions) != 1 for partitions in places.values()):
        found.append("an entity in two partitions")
    if world.dead_letters() != letters_in(logs):
        found.append("dead letters")
    # Each source ends with the same two events of the entity `end`; the reference has them once.
    windows = Counter({window: n for window, n in world.windows().items() if '"end"' not in window[0]})
    expected = Counter({window: n for window, n in reference.windows().items() if '"end"' not in window[0]})
    if windows != expected:
        found.append("windows")
    alerts = Counter({alert: n for alert, n in world.alerts().items() if '"src": "end"' not in alert})
    if alerts != Counter({a: n for a, n in reference.alerts().items() if '"src": "end"' not in a}):
        found.append("alerts")
    return found


@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_scattered_events_give_what_one_partition_gives_whatever_fails(first):
    n_faults = n_alerts = 0
    for seed in range(first, first + BATCH):
        whole, logs, world = run_schedule(seed)
        reference = direct(whole, the_stages())
        n_faults += world.n_faults
        n_alerts += reference.alerts().total()
        assert not problems(whole, logs, world, reference), f"seed {seed}"
    assert n_faults > BATCH / 2
    assert n_alerts > BATCH / 2, "hardly an incident to compare"


def catches_within(n_seeds):
    for seed in range(n_seeds):
        whole, logs, world = run_schedule(seed)
        if problems(whole, logs, world, direct(whole, the_stages())):
            return True
    return False


def test_the_simulation_catches_a_position_committed_without_its_events(monkeypatch):
    honest = SharePublisher.records_of

    def forgetful(self, commits, idle):
        return [record for record in honest(self, commits, idle) if record.partition != 0]

    monkeypatch.setattr(SharePublisher, "records_of", forgetful)
    assert catches_within(3)


def test_the_simulation_catches_a_restart_from_before_the_commit(monkeypatch):
    honest = Rekeyer._take_over

    def careless(self, number, committed, first):
        honest(self, number, committed, first)
        if committed is not None and committed.offset > 3:
            self._source.seek(number, committed.offset - 3)

    monkeypatch.setattr(Rekeyer, "_take_over", careless)
    assert catches_within(20)


def test_the_simulation_catches_a_source_that_says_it_is_further_than_it_is(monkeypatch):
    honest = SourcePartition._placed

    def hasty(self, frame):
        placed = honest(self, frame)
        self.reached_ms += 100_000
        return placed

    monkeypatch.setattr(SourcePartition, "_placed", hasty)
    assert catches_within(10)


# --- late events, idle and forgotten sources: what the log says, replicas do, however often they begin again -----------


def run_unruly(seed):
    """Nothing is in order, and sources fall idle or are forgotten; only the log decides what is late."""
    rng = random.Random(seed)
    _, logs = scattered(rng, 60, n_sources=3, disorder=(0, 0, 4000, 15_000, 40_000))
    stages = the_stages(idle_after="300ms", forget_after=rng.choice(["400ms", "2s", "10m"]))
    return RekeyWorld(logs, stages, rng=rng, faults=rng.choice([0.01, 0.03, 0.08])).run()


def differs(world):
    again = read_again(world)
    return world.windows() != again.windows() or world.alerts() != again.alerts()


@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_replicas_that_crash_read_the_log_as_one_that_does_not(first):
    n_late = 0
    for seed in range(first, first + BATCH):
        world = run_unruly(seed)
        assert not differs(world), f"seed {seed}"
        n_late += sum(service.totals.late for service in world.services.values())
    assert n_late > BATCH / 2


def test_the_simulation_catches_sources_that_a_restart_forgets(monkeypatch):
    def forgetful(self, values):
        self.state.restore({})

    monkeypatch.setattr(SourceMerge, "restore", forgetful)
    assert any(differs(run_unruly(seed)) for seed in range(20))
