"""What the schedules are compared with: the undisturbed pipeline against plain loops, and the memory of it."""

import json
from collections import Counter

import numpy as np
import pytest

from tests.simulation.logs import PARTITIONS, START_MS, logs_of, stages_of
from tests.simulation.memo import Memo
from tests.simulation.processes import ServiceProcess, WatchedPipeline
from tests.simulation.reference import reference_of
from tests.simulation.schedule import BY_NAME, Schedule, make_schedule
from tests.simulation.world import World


def elements(log):
    """(ts, entity) of each usable element in offset order, and how many are rejected or empty."""
    found, n_rejected, n_empty = [], 0, 0
    for entry in log.entries:
        if entry.is_marker or not entry.is_visible:
            continue
        if entry.value is None:
            n_empty += 1
            continue
        try:
            message = json.loads(entry.value)
        except ValueError:
            n_rejected += 1
            continue
        for event in message if isinstance(message, list) else [message]:
            if event["ts"] > START_MS + 60_000_000:
                n_rejected += 1
            else:
                found.append((event["ts"], entry.timestamp_ms, event["src"]))
    return found, n_rejected, n_empty


def plain_windows(events, config):
    """Flows by (entity, end) of every window that the watermark has passed, and how many events are late."""
    kept, n_late, highest = [], 0, -(10**18)
    for at, recorded_ms, entity in events:
        pane = at // config.pane * config.pane
        reached = max(highest, min(at, recorded_ms))
        if pane + config.pane <= reached - config.grace:
            n_late += 1
        else:
            kept.append((pane, entity))
        highest = reached
    windows = Counter()
    for pane, entity in kept:
        for end in range(pane + config.pane, pane + config.size + 1):
            if (end - config.size) % config.step == 0 and end - config.size <= pane and end <= highest - config.grace:
                windows[entity, end] += 1
    return windows, n_late


@pytest.mark.parametrize("windows", ["tumbling", "hopping"])
def test_the_undisturbed_run_has_the_windows_of_plain_loops(windows):
    n_windows = n_late_all = n_rejected_all = 0
    for number in range(8):
        schedule = Schedule(0, BY_NAME["crashes"], number, windows, ())
        logs = logs_of(number, is_idle=False, is_full=False)
        for partition in PARTITIONS:
            events, n_rejected, n_empty = elements(logs[partition])
            expected, n_late = plain_windows(events, stages_of(windows).windows)
            found = reference_of(schedule).at(partition, len(logs[partition].entries))
            flows = Counter({(entity, end): n for (entity, end, n), times in found.effects.windows.items() if n})
            assert flows == expected
            assert found.counts.late == n_late
            assert found.counts.rejected.total() == n_rejected == found.effects.dead_letters.total()
            assert found.counts.skipped.total() == n_empty
            assert found.counts.consumed == len(events) + n_rejected + n_empty
            n_windows, n_late_all, n_rejected_all = (
                n_windows + len(flows),
                n_late_all + n_late,
                n_rejected_all + n_rejected,
            )
    assert n_windows > 40
    assert n_late_all > 5
    assert n_rejected_all > 5


def test_the_logs_alarm_end_incidents_and_reach_beyond_what_is_usual():
    """Else all of this would compare nothing."""
    statuses, n_beyond = Counter(), 0
    for number in range(8):
        for windows, group in (("tumbling", "crashes"), ("full", "whole")):
            schedule = Schedule(0, BY_NAME[group], number, windows, ())
            logs = logs_of(number, is_idle=False, is_full=windows == "full")
            for partition in PARTITIONS:
                effects = reference_of(schedule).at(partition, len(logs[partition].entries)).effects
                statuses.update(json.loads(alert)["status"] for alert in effects.alerts.values())
                rows = [np.frombuffer(values) for _, values in effects.rows]
                n_beyond += sum(row[-1] != 1 and np.isfinite(row[-1]) for row in rows) if windows == "full" else 0
    assert min(statuses[status] for status in ("open", "update", "close")) > 5
    assert n_beyond > 5


class ForgetfulProcess(ServiceProcess):
    """The service with the pipeline itself."""

    def _pipeline(self, stages, partition, on_unscored):
        return WatchedPipeline(self._world, self.source, stages, partition, on_unscored)


@pytest.mark.parametrize("group", ["crashes", "retention", "trainers"])
def test_remembered_answers_are_those_of_the_pipeline(group):
    """The same bytes at the same offsets of every topic, with faults and all, whoever has asked before."""
    memo = Memo()
    for seed in range(25):
        schedule = make_schedule(seed, BY_NAME[group])
        remembered = World(schedule, memo).run()
        real = World(schedule)
        for slot in real.slots:
            if slot.make is ServiceProcess:
                slot.make = ForgetfulProcess
        real.run()
        assert logs_as_bytes(real) == logs_as_bytes(remembered), f"seed {seed}"


def logs_as_bytes(world):
    return {
        topic: [[(entry.key, entry.value, entry.is_visible) for entry in log] for log in logs]
        for topic, logs in world.broker.logs.items()
    }
