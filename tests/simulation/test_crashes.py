"""The service against crashes between any two effects, rebalances, redelivery and ambiguous commits."""

import random

import numpy as np
import pytest
from world import World, the_stages

from stream_iwae.features import kinds, profiles
from stream_iwae.pipeline import Pipeline
from stream_iwae.windows.operator import WindowOperator
from stream_iwae.windows.progress import Progress
from stream_iwae.windows.value_past import ValuePasts

SCHEDULES = 1_000
BATCH = 50  # schedules a test, so that a failure names few
KINDS = ({}, {"kind": "hopping", "advance": "4s"}, {"kind": "record"})


@pytest.fixture(autouse=True)
def soon_mature(monkeypatch):
    """The logs are short: an entity shapes what is usual after its first windows."""
    monkeypatch.setattr(profiles, "MATURE", 2)
    monkeypatch.setattr(kinds, "KNOWN", 3)
    monkeypatch.setattr(profiles, "LOG_FLOOR", 0.1)


def run_schedule(seed, random_logs):
    rng = random.Random(seed)
    stages = the_stages(profiles=seed % 4 == 0, **KINDS[seed % len(KINDS)])
    logs = random_logs(seed % 20)
    history = seed % 5 == 0
    reference = World(logs, stages, history=history).run()
    world = World(logs, stages, rng, faults=rng.choice([0.01, 0.03, 0.08]), history=history)
    return reference, world.run(), world


@pytest.mark.parametrize("first", range(0, SCHEDULES, BATCH))
def test_no_window_is_lost_wrong_or_repeated_whatever_fails(first, random_logs):
    n_faults = 0
    for seed in range(first, first + BATCH):
        reference, effects, world = run_schedule(seed, random_logs)
        n_faults += world.n_faults
        assert reference.training, "the log closes no window"
        assert not reference.differences(effects), f"seed {seed}: {reference.differences(effects)} differ"
    assert n_faults > BATCH / 2


def test_the_simulation_catches_the_naive_commit_rule(monkeypatch, random_logs):
    """Committing last polled + 1 loses open windows; forgetting the watermark repeats closed ones."""

    def naive(self, position):
        return Progress(position, self.watermark_ms, self.watermark_ms, position)

    monkeypatch.setattr(WindowOperator, "progress", naive)

    assert any(
        run_schedule(seed, random_logs)[0].differences(run_schedule(seed, random_logs)[1]) for seed in range(1, 20)
    )


def test_the_simulation_catches_a_forgotten_watermark(monkeypatch, random_logs):
    honest = WindowOperator.progress

    def forgetful(self, position):
        found = honest(self, position)
        return Progress(found.offset, found.watermark_at_offset_ms, found.watermark_at_offset_ms, position)

    monkeypatch.setattr(WindowOperator, "progress", forgetful)

    assert any(
        run_schedule(seed, random_logs)[0].differences(run_schedule(seed, random_logs)[1]) for seed in range(1, 20)
    )


def test_a_schedule_without_faults_equals_the_reference_however_it_is_cut(random_logs):
    n_opened = 0
    for seed in range(12):
        logs, stages = random_logs(seed), the_stages(**KINDS[seed % len(KINDS)])
        whole = World(logs, stages).run()
        cut = World(logs, stages, random.Random(seed)).run()
        assert not whole.differences(cut)
        n_opened += sum(alert["status"] == "open" for alert in whole.alerts.values())
    assert n_opened > 10, "hardly an incident to compare"


def test_the_simulation_catches_pasts_of_values_that_were_not_restored(monkeypatch, random_logs):
    monkeypatch.setattr(ValuePasts, "restore", lambda self, values: None)

    assert any(
        run_schedule(seed, random_logs)[0].differences(run_schedule(seed, random_logs)[1]) for seed in range(1, 30)
    )


def test_the_simulation_catches_profiles_that_were_not_restored(monkeypatch, random_logs):
    monkeypatch.setattr(profiles.Profiles, "restore", lambda self, values: None)

    assert any(
        "training" in run_schedule(seed, random_logs)[0].differences(run_schedule(seed, random_logs)[1])
        for seed in range(1, 20)
    )


def test_the_simulation_catches_profiles_that_learn_in_a_replay(monkeypatch, random_logs):
    honest = Pipeline._refill

    def eager(self, records):
        honest(self, records)
        profiles = self._extractor.profiles
        places = profiles.places(np.ones((1, 1)))
        profiles.learn(["h1"], places, profiles.usual(["h1"], places))

    monkeypatch.setattr(Pipeline, "_refill", eager)

    assert any(
        "training" in run_schedule(seed, random_logs)[0].differences(run_schedule(seed, random_logs)[1])
        for seed in range(1, 20)
    )


def test_the_logs_reach_beyond_what_is_usual(random_logs):
    """Else all of this would compare zeros."""
    n_beyond = 0
    for seed in range(6):
        effects = World(random_logs(seed), the_stages()).run()
        rows = [np.frombuffer(key[1]) for key in effects.training if isinstance(key, tuple)]
        n_beyond += sum(row[-1] != 1 and np.isfinite(row[-1]) for row in rows)
    assert n_beyond > 5
