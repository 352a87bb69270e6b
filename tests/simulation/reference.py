"""What an undisturbed run publishes, by position: the same pipeline fed record by record, without any shell.

tests/simulation/test_reference.py compares it with a twin that counts windows in plain loops.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_iwae.adapters.memory_broker import Entry
from stream_iwae.batches import RecordBatch
from stream_iwae.outputs import Publisher
from stream_iwae.pipeline import Counts, Pipeline, Stages
from stream_iwae.wire import decode_scores, decode_state, decode_training
from tests.simulation.logs import PARTITIONS, START_MS, Log, logs_of, stages_of
from tests.simulation.models import PINNED, serving_model
from tests.simulation.processes import TOPICS
from tests.simulation.scattered import ORDERED, direct_stages, scattered
from tests.simulation.schedule import Schedule

CLOCK_CLOSES_UNTIL_MS = START_MS + 600_000  # the wall clock of a world at its start


@dataclass(slots=True)
class Effects:
    """What of one partition a read_committed reader finds."""

    windows: Counter = field(default_factory=Counter)  # (entity, end, score)
    rows: Counter = field(default_factory=Counter)  # (row id, values)
    dead_letters: Counter = field(default_factory=Counter)  # source position
    alerts: dict[str, str] = field(default_factory=dict)  # alert_id -> the rest

    def add(self, more: "Effects") -> None:
        self.windows += more.windows
        self.rows += more.rows
        self.dead_letters += more.dead_letters
        self.alerts |= more.alerts

    def copy(self) -> "Effects":
        return Effects(self.windows.copy(), self.rows.copy(), self.dead_letters.copy(), dict(self.alerts))


@dataclass(frozen=True, slots=True)
class Prefix:
    """All that is known of a partition when everything below a position was read."""

    effects: Effects
    state: dict
    counts: Counts


@functools.lru_cache(maxsize=100_000)
def items_of(topic: str, key: bytes | None, value: bytes) -> tuple[tuple[int, str, object], ...]:
    """(partition, field of `Effects`, item) of one published record."""
    if topic == TOPICS.alerts:
        alert = json.loads(value)
        del alert["detected_at"]
        return ((alert["origin"]["partition"], "alerts", (alert["alert_id"], json.dumps(alert))),)
    if topic == TOPICS.dead_letters:
        return ((int(key.split(b"/")[1]), "dead_letters", key),)
    if topic == TOPICS.scores:
        found = decode_scores(value)
        named = [next(iter(entity.values())) for entity in found.entities]
        windows = zip(named, found.window_end_ms, found.scores, strict=True)
        return tuple((int(window[0][1]), "windows", window) for window in windows)
    rows = decode_training(value)
    values = map(bytes, rows.values)
    return tuple((rows.partition, "rows", row) for row in zip(rows.row_ids.tolist(), values, strict=True))


def collect(published) -> dict[int, Effects]:
    """(topic, key, value) of published records -> effects by partition."""
    found = {partition: Effects() for partition in PARTITIONS}
    for topic, key, value in published:
        for partition, name, item in items_of(topic, key, value):
            if name == "alerts":
                found[partition].alerts[item[0]] = item[1]
            else:
                getattr(found[partition], name)[item] += 1
    return found


def differences(name: str, have: Counter, want: Counter) -> list[str]:
    """What of one kind is not as it should be, as sentences."""
    if have == want:
        return []
    lost, extra = want - have, have - want
    return ([f"lost {name}: {sorted(lost.items())[:3]}"] if lost else []) + (
        [f"wrong or repeated {name}: {sorted(extra.items())[:3]}"] if extra else []
    )


class Reference:
    """The prefixes of both partitions of one log under one configuration."""

    def __init__(self, logs: tuple[Log, ...], windows: str) -> None:
        self._logs, self._windows = logs, windows
        self._prefixes = {
            (partition, moves): self._run(partition, log, clock_moves=moves)
            for partition, log in enumerate(logs)
            for moves in (False, True)[: 1 + (log.second_part < len(log.entries))]
        }

    def read(self, places: Iterable[tuple[int, int]]) -> None:
        """All of it is read."""

    def at(self, partition: int, position: int, *, is_clock_ahead: bool = False) -> Prefix:
        """The prefix below a position; `is_clock_ahead`: the clock has closed what the first part left open."""
        return self._prefixes[partition, is_clock_ahead][position]

    def _run(self, partition: int, log: Log, *, clock_moves: bool) -> dict[int, Prefix]:
        run = UndisturbedRun(stages_of(self._windows), partition)
        prefixes = {0: run.prefix()}
        for offset in range(len(log.entries)):
            if clock_moves and offset == log.second_part:
                run.close_by_clock()
                prefixes[offset] = run.prefix()
            run.read(log.entries, offset + 1)
            prefixes[offset + 1] = run.prefix()
        return prefixes


class UndisturbedRun:
    """The pipeline of one partition without a shell, and all it has published."""

    def __init__(self, stages: Stages, partition: int, history_until: int | None = None) -> None:
        self._partition, self._topic = partition, stages.topic
        self._pipeline, self._publisher = Pipeline(stages, partition), Publisher(TOPICS, stages)
        self._publisher.begin(partition, seq=0, stale_keys=[])
        self._pipeline.begin(0, history_until)
        self._total, self._stored, self._counts = Effects(), {}, Counts()
        self.position = 0

    def read(self, log: Sequence[Entry], until: int) -> None:
        """Read on in the log, up to an offset."""
        seen = [(at, log[at]) for at in range(self.position, until) if log[at].is_visible and not log[at].is_marker]
        offsets = np.array([at for at, _ in seen], dtype=np.int64)
        times = np.array([entry.timestamp_ms for _, entry in seen], dtype=np.int64)
        values = [entry.value for _, entry in seen]
        records = RecordBatch(self._topic, self._partition, offsets, times, values, until)
        self._pipeline.process(records, serving_model(PINNED), START_MS, lambda: None)
        self.position = until

    def close_by_clock(self) -> None:
        """What the wall clock does to a quiet partition."""
        self._pipeline.advance(CLOCK_CLOSES_UNTIL_MS, serving_model(PINNED), START_MS, lambda: None)

    def prefix(self) -> Prefix:
        """All that is published by now."""
        commit = self._publisher.prepare(self._pipeline)
        published = []
        for record in () if commit is None else commit.records:
            if record.topic != TOPICS.state:
                published.append((record.topic, record.key, record.value))
            else:
                self._stored[record.key] = record.value
        for effects in collect(published).values():
            self._total.add(effects)
        if commit is not None:
            self._counts.add(commit.outcome.counts)
        known = Counts()
        known.add(self._counts)
        return Prefix(self._total.copy(), decode_state(list(self._stored.items()))[0], known)


class RereadLog:
    """The prefixes of logs that hardly two schedules share: an undisturbed run that stops where it has to."""

    def __init__(self, logs: Sequence[Sequence[Entry]], stages: Stages, *, is_history: bool = False) -> None:
        self._logs, self._stages, self._is_history = logs, stages, is_history
        self._runs: dict[int, UndisturbedRun] = {}
        self._prefixes: dict[tuple[int, int], Prefix] = {}

    def read(self, places: Iterable[tuple[int, int]]) -> None:
        """Read up to each (partition, position), the lowest first: going back means to begin again."""
        for partition, position in sorted(set(places) - self._prefixes.keys()):
            self.at(partition, position)

    def at(self, partition: int, position: int, *, is_clock_ahead: bool = False) -> Prefix:
        """The prefix below a position."""
        assert not is_clock_ahead
        if (partition, position) not in self._prefixes:
            run = self._runs.get(partition)
            if run is None or run.position > position:
                until = len(self._logs[partition]) if self._is_history else None
                run = self._runs[partition] = UndisturbedRun(self._stages, partition, until)
            run.read(self._logs[partition], position)
            self._prefixes[partition, position] = run.prefix()
        return self._prefixes[partition, position]


@functools.cache
def _reference(number: int, windows: str, *, is_idle: bool) -> Reference:
    return Reference(logs_of(number, is_idle=is_idle, is_full=False), windows)


@functools.lru_cache(maxsize=4)
def _reread(number: int, windows: str) -> RereadLog:
    logs = [log.entries for log in logs_of(number, is_idle=False, is_full=True)]
    return RereadLog(logs, stages_of(windows), is_history=windows == "full history")


@functools.cache
def _in_order(number: int, windows: str) -> Effects:
    whole = scattered(number, is_unruly=False).whole
    run = UndisturbedRun(direct_stages(windows), 0)
    run.read(whole.entries, len(whole.entries))
    return run.prefix().effects


def reference_of(schedule: Schedule) -> Reference | RereadLog | Effects | None:
    """The undisturbed run of a schedule; computed once for all that share it.

    Of re-keyed events it is the end of a run over all of them in one partition; None where they are unruly.
    """
    if schedule.group.is_rekeyed:
        return _in_order(schedule.log, schedule.windows) if schedule.windows in ORDERED else None
    if schedule.windows.startswith("full"):
        return _reread(schedule.log, schedule.windows)
    return _reference(schedule.log, schedule.windows, is_idle=schedule.group.is_idle)
