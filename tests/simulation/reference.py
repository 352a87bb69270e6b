"""What an undisturbed run publishes, by position: the same pipeline fed record by record, without any shell.

tests/simulation/test_reference.py compares it with a twin that counts windows in plain loops.
"""

import functools
import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from stream_iwae.batches import RecordBatch
from stream_iwae.outputs import Publisher
from stream_iwae.pipeline import Counts, Pipeline
from stream_iwae.wire import decode_scores, decode_state, decode_training
from tests.simulation.logs import PARTITIONS, START_MS, Log, logs_of, stages_of
from tests.simulation.models import PINNED, serving_model
from tests.simulation.processes import TOPICS
from tests.simulation.schedule import Schedule

CLOCK_CLOSES_UNTIL_MS = START_MS + 600_000  # the wall clock of a world at its start


@dataclass(slots=True)
class Effects:
    """What of one partition a read_committed reader finds."""

    windows: Counter = field(default_factory=Counter)  # (entity, end, score)
    rows: Counter = field(default_factory=Counter)  # (row id, values)
    dead_letters: Counter = field(default_factory=Counter)  # source position
    alerts: dict[str, str] = field(default_factory=dict)  # alert_id -> the rest

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


class Reference:
    """The prefixes of both partitions of one log under one configuration."""

    def __init__(self, logs: tuple[Log, ...], windows: str) -> None:
        self._logs, self._windows = logs, windows
        self._prefixes = {
            (partition, moves): self._run(partition, log, clock_moves=moves)
            for partition, log in enumerate(logs)
            for moves in (False, True)[: 1 + (log.second_part < len(log.entries))]
        }

    def at(self, partition: int, position: int, *, is_clock_ahead: bool = False) -> Prefix:
        """The prefix below a position; `is_clock_ahead`: the clock has closed what the first part left open."""
        return self._prefixes[partition, is_clock_ahead][position]

    def _run(self, partition: int, log: Log, *, clock_moves: bool) -> dict[int, Prefix]:
        stages = stages_of(self._windows)
        pipeline, publisher = Pipeline(stages, partition), Publisher(TOPICS, stages)
        publisher.begin(partition, seq=0, stale_keys=[])
        pipeline.begin(0, len(log.entries) if self._windows == "full history" else None)
        model, nothing = serving_model(PINNED), lambda: None
        total, stored, counts = Effects(), {}, Counts()
        prefixes: dict[int, Prefix] = {}

        def note(position: int) -> None:
            commit = publisher.prepare(pipeline)
            published = []
            for record in () if commit is None else commit.records:
                if record.topic != TOPICS.state:
                    published.append((record.topic, record.key, record.value))
                else:
                    stored[record.key] = record.value
            _add(total, collect(published)[partition])
            if commit is not None:
                counts.add(commit.outcome.counts)
            known = Counts()
            known.add(counts)
            state = decode_state(list(stored.items()))[0]
            prefixes[position] = Prefix(total.copy(), state, known)

        note(0)
        for offset, entry in enumerate(log.entries):
            if clock_moves and offset == log.second_part:
                pipeline.advance(CLOCK_CLOSES_UNTIL_MS, model, START_MS, nothing)
                note(offset)
            is_record = entry.is_visible and not entry.is_marker
            pipeline.process(_batch(partition, offset, entry, is_record), model, START_MS, nothing)
            note(offset + 1)
        return prefixes


def _add(total: Effects, more: Effects) -> None:
    total.windows += more.windows
    total.rows += more.rows
    total.dead_letters += more.dead_letters
    total.alerts |= more.alerts


def _batch(partition: int, offset: int, entry, is_record: bool) -> RecordBatch:
    offsets = np.array([offset] if is_record else [], dtype=np.int64)
    times = np.full(len(offsets), entry.timestamp_ms, dtype=np.int64)
    return RecordBatch("events", partition, offsets, times, [entry.value] if is_record else [], offset + 1)


@functools.cache
def _reference(number: int, windows: str, *, is_idle: bool) -> Reference:
    return Reference(logs_of(number, is_idle=is_idle, is_full=windows.startswith("full")), windows)


def reference_of(schedule: Schedule) -> Reference:
    """The undisturbed run of a schedule; computed once for all that share it."""
    return _reference(schedule.log, schedule.windows, is_idle=schedule.group.is_idle)
