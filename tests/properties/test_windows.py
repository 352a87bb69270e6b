"""Windows against a plain loop, and under any cut of the log and any crash."""

import math
import random
from collections import Counter, defaultdict
from unittest.mock import patch

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_iwae.batches import OTHER_ENTITY, EventBatch
from stream_iwae.windows import panes
from stream_iwae.windows.aggregates import PAST_WINDOWS, AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator
from stream_iwae.windows.progress import Progress, decode_metadata, encode_metadata

TCP = {"field": "proto", "equals": "tcp"}
AGGREGATES = [
    AggregateConfig.model_validate(given)
    for given in (
        {"name": "flows", "aggregate": "count"},
        {"name": "tcp_flows", "aggregate": "count", "where": TCP},
        {"name": "tcp_share", "aggregate": "share", "where": TCP},
        {"name": "few_share", "aggregate": "share", "where": {"field": "size", "at_least": 1, "at_most": 40}},
        {"name": "total", "aggregate": "sum", "field": "size"},
        {"name": "tcp_total", "aggregate": "sum", "field": "size", "where": TCP},
        {"name": "per_second", "aggregate": "rate", "field": "size"},
        {"name": "average", "aggregate": "mean", "field": "size"},
        {"name": "spread", "aggregate": "std", "field": "size"},
        {"name": "least", "aggregate": "min", "field": "size"},
        {"name": "most", "aggregate": "max", "field": "size"},
        {"name": "median", "aggregate": "quantile", "field": "size", "q": 0.5},
        {"name": "tail", "aggregate": "quantile", "field": "size", "q": 0.9, "where": TCP},
        {"name": "protocols", "aggregate": "distinct", "field": "proto"},
        {"name": "sizes", "aggregate": "distinct", "field": "size", "where": TCP},
        {"name": "mixture", "aggregate": "entropy", "field": "proto"},
        {"name": "top", "aggregate": "top_share", "field": "size"},
        {"name": "reach", "aggregate": "reach", "field": "size"},
        {"name": "tcp_reach", "aggregate": "reach", "field": "size", "where": TCP},
        {"name": "surge", "aggregate": "surge", "field": "size"},
        {"name": "tcp_surge", "aggregate": "surge", "field": "proto", "where": TCP, "past_windows": 4},
        {"name": "latest", "aggregate": "last", "field": "size"},
        {"name": "latest_proto", "aggregate": "last", "field": "proto"},
    )
]
TYPES = {
    "offset": pl.Int64, "timestamp_ms": pl.Int64, "entity": pl.String, "source": pl.String,
    "proto": pl.String, "size": pl.Float64,
}  # fmt: skip
LEADING = ("entity", "window_start_ms", "window_end_ms", "n_events", "first_offset", "last_offset", "silence_p_value")
THOROUGH = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- logs and configurations ---------------------------------------------------------------------


@st.composite
def logs(draw, max_size=40):
    """Events in offset order, time out of order, several of one record; lulls, and a source an entity."""
    steps = draw(st.lists(st.sampled_from([0, 500, 1500, 4000, 9000, 45_000]), max_size=max_size))
    at, offset, events = 1_000_000, 100, []
    for step in steps:
        at += step
        offset += draw(st.sampled_from([0, 1, 1, 1, 3])) if events else 0
        entity = draw(st.sampled_from("abcdef"))
        events.append(
            {
                "offset": offset,
                "timestamp_ms": at - draw(st.sampled_from([0, 0, 0, 900, 6000, 20_000])),
                "entity": entity,
                "source": {"a": "r1", "b": "r1", "c": "r1", "d": "r2", "e": ""}.get(entity),
                "proto": draw(st.sampled_from(["tcp", "tcp", "udp", None])),
                "size": draw(st.sampled_from([None, 0.0, 0.1, 1.0, 40.0, 7e5]) | st.floats(0.001, 1e6)),
            }
        )
    return events


def configs():
    shapes = [
        {"size": "10s"},
        {"size": "10s", "kind": "hopping", "advance": "5s"},
        {"size": "10s", "kind": "hopping", "advance": "4s"},  # panes of 2 s
    ]
    return st.builds(
        lambda shape, rest: WindowsConfig.model_validate({**shape, **rest}),
        st.sampled_from(shapes),
        st.fixed_dictionaries(
            {
                "grace": st.sampled_from([0, "3s", "12s"]),
                "max_entities": st.sampled_from([2, 100]),
                "absent_windows": st.sampled_from([0, 1, 3]),
                "present_history": st.sampled_from([1, 2]),
                "present_share": st.sampled_from([0.5, 0.8]),
                "source_min_entities": st.sampled_from([2, 5]),
            }
        ),
    )


chunk_rows = st.sampled_from([4, 20, 65_536])


def joined(records):
    return [event for record in records for event in record]


def batch(events):
    columns = {name: [event[name] for event in events] for name in TYPES}
    return EventBatch(0, pl.DataFrame(columns, schema=TYPES))


def grouped(events):
    """Events by record: a poll never cuts through one."""
    records = defaultdict(list)
    for event in events:
        records[event["offset"]].append(event)
    return list(records.values())


def run(events, config, cuts=(), jumps=()):
    """Everything that comes out, as one frame; the log is cut before the records `cuts` and at jumps."""
    operator, frames, n_late, n_folded = WindowOperator(config, AGGREGATES, 0), [], 0, 0
    jumps, held, records = dict(jumps), [], grouped(events)
    for number, record in enumerate(records):
        held += record
        position = record[-1]["offset"] + 1
        if number + 1 in cuts or number + 1 == len(records) or position in jumps:
            windowed = operator.add(batch(held), position)
            assert windowed.n_aggregated + windowed.n_late == len(held)
            frames.append(windowed.windows.frame)
            n_late, n_folded, held = n_late + windowed.n_late, n_folded + windowed.n_folded, []
        if position in jumps:
            frames.append(operator.advance(jumps[position], position).frame)
    whole = pl.concat([WindowOperator(config, AGGREGATES, 0).add(batch([]), 0).windows.frame, *frames])
    return whole, n_late, n_folded, operator


# --- the plain twin ------------------------------------------------------------------------------


def meets(where, event):
    value = event[where.field]
    if where.equals is not None:
        return value == where.equals
    return value is not None and where.at_least <= value <= where.at_most


def plain_reach(aggregate, events, by_entity):
    """The most entities of the window that share one of the values of these events."""
    values, *others = (
        {event[aggregate.field] for event in one if aggregate.where is None or meets(aggregate.where, event)} - {None}
        for one in (events, *by_entity.values())
    )
    return max((sum(value in other for other in others) for value in values), default=None)


class PlainPast:
    """How often each value occurred in each wave, as a list."""

    def __init__(self, aggregate):
        self.aggregate, self.waves, self.n_windows = aggregate, [], aggregate.past_windows or PAST_WINDOWS

    def values(self, events):
        kept = [event for event in events if self.aggregate.where is None or meets(self.aggregate.where, event)]
        return [event[self.aggregate.field] for event in kept if event[self.aggregate.field] is not None]

    def take(self, by_entity):
        self.waves.append(Counter(value for events in by_entity.values() for value in self.values(events)))
        shares = [math.exp(-ago / self.n_windows) for ago in range(len(self.waves))]
        means = {
            value: sum(share * wave[value] for share, wave in zip(shares, reversed(self.waves), strict=True))
            / sum(shares)
            for value in self.waves[-1]
        }
        return lambda events: max((self.waves[-1][value] / means[value] for value in self.values(events)), default=None)


def plain_value(aggregate, events, by_entity, size_ms):
    if aggregate.aggregate == "reach":
        return plain_reach(aggregate, events, by_entity)
    kept = [event for event in events if aggregate.where is None or meets(aggregate.where, event)]
    if aggregate.field is None:
        return len(kept) / (len(events) if aggregate.aggregate == "share" else 1)
    values = [event[aggregate.field] for event in kept if event[aggregate.field] is not None]
    if aggregate.aggregate == "distinct":
        return len(set(values))
    return OF_VALUES[aggregate.aggregate](values, aggregate.q, size_ms / 1000) if values else None


def standard_deviation(values):
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / len(values))


OF_VALUES = {
    "sum": lambda values, q, size_s: math.fsum(values),
    "rate": lambda values, q, size_s: math.fsum(values) / size_s,
    "mean": lambda values, q, size_s: math.fsum(values) / len(values),
    "std": lambda values, q, size_s: standard_deviation(values),
    "min": lambda values, q, size_s: min(values),
    "max": lambda values, q, size_s: max(values),
    "quantile": lambda values, q, size_s: sorted(values)[math.floor(q * (len(values) - 1))],
    "entropy": lambda values, q, size_s: (
        -sum(c / len(values) * math.log(c / len(values)) for c in Counter(values).values())
    ),
    "top_share": lambda values, q, size_s: max(Counter(values).values()) / len(values),
    "last": lambda values, q, size_s: values[-1],
}


class PlainPresence:
    """Histories as lists, newest last."""

    def __init__(self, config):
        self.config, self.history, self.source, self.rows_left = config, {}, {}, {}

    def wave(self, present):
        config, expected, missing, p_of = self.config, Counter(), defaultdict(list), {}
        for entity in sorted(self.history):
            before = list(self.history[entity])
            away = 0
            while not before[-1]:
                before.pop()
                away += 1
            is_regular = len(before) >= config.present_history and sum(before) >= config.present_share * len(before)
            if is_regular and away < config.absent_windows:
                expected[self.source[entity]] += 1
                if entity not in present:
                    missing[self.source[entity]].append(entity)
                    p_of[entity] = (before.count(False) + 1) / (len(before) + 2)
        rows, silent = [], set()
        for source, entities in missing.items():
            n_all = expected[source]
            if source and n_all >= config.source_min_entities and len(entities) >= config.source_share * n_all:
                rows.append(("\x1e" + source, math.prod(p_of[entity] for entity in entities)))
                silent.add(source)
            else:
                rows += [(entity, None) for entity in entities]
        rows += self.recoveries(silent, present)
        for entity in list(self.history):
            history = self.history[entity] = [*self.history[entity], entity in present][-64:]
            away = next((n for n, there in enumerate(reversed(history)) if there), 64)
            if away > max(sum(history), config.absent_windows) or away == 64:
                del self.history[entity], self.source[entity]
        for entity in sorted(present):
            if present[entity] and entity in self.history:
                self.source[entity] = present[entity]
            if entity not in self.history and len(self.history) < config.max_entities and entity != OTHER_ENTITY:
                self.history[entity], self.source[entity] = [True], present[entity]
        known = set(self.source.values())
        self.rows_left = {source: left for source, left in self.rows_left.items() if left and source in known}
        return rows

    def recoveries(self, silent, present):
        back = [source for source in self.rows_left if source not in silent and source in present.values()]
        for source in back:
            self.rows_left[source] -= 1
        self.rows_left.update(dict.fromkeys(silent, 3))
        return [("\x1e" + source, 1.0) for source in back]


def windows_by_plain_loop(events, config):
    """Every closed window as a dict, and how many events were late and folded."""
    size, step, pane = config.size, config.step, config.pane
    watermark, n_late, n_folded = -math.inf, 0, 0
    named, held = defaultdict(list), defaultdict(list)  # by pane
    for event in events:
        watermark = max(watermark, event["timestamp_ms"] - config.grace)
        start = event["timestamp_ms"] // pane * pane
        if start + pane <= watermark:
            n_late += 1
            continue
        entity = event["entity"]
        if entity not in named[start] and len(named[start]) < config.max_entities:
            named[start].append(entity)
        if entity not in named[start]:
            entity, n_folded = OTHER_ENTITY, n_folded + 1
        held[start].append({**event, "entity": entity})
    rows, presence = [], PlainPresence(config)
    pasts = {a.name: PlainPast(a) for a in AGGREGATES if a.aggregate == "surge"}
    if not held:
        return rows, n_late, n_folded
    first = (min(held) - size) // step * step
    for start in range(first, int(watermark) - size + 1, step):
        by_entity = defaultdict(list)
        for at in range(start, start + size, pane):  # panes in time order, each in offset order
            for event in held[at]:
                by_entity[event["entity"]].append(event)
        surges = {name: past.take(by_entity) for name, past in pasts.items()} if by_entity else {}
        for entity in by_entity:
            found = by_entity[entity]
            row = {"entity": entity, "window_start_ms": start, "window_end_ms": start + size, "n_events": len(found)}
            row |= {"first_offset": min(e["offset"] for e in found), "last_offset": max(e["offset"] for e in found)}
            row |= {"silence_p_value": None}
            row |= {a.name: plain_value(a, found, by_entity, size) for a in AGGREGATES if a.name not in surges}
            rows.append(row | {name: surge(found) for name, surge in surges.items()})
        if config.absent_windows:
            present = {entity: found[-1]["source"] or "" for entity, found in by_entity.items()}
            for entity, p_value in presence.wave(present):
                row = {"entity": entity, "window_start_ms": start, "window_end_ms": start + size, "n_events": 0}
                row |= {"first_offset": None, "last_offset": None, "silence_p_value": p_value}
                rows.append(row | {a.name: 0 if a.aggregate == "count" else None for a in AGGREGATES})
    return sorted(rows, key=lambda row: (row["window_end_ms"], row["entity"])), n_late, n_folded


def same(name, found, wanted):
    if wanted is None or isinstance(wanted, str):
        return found == wanted
    tolerance = {"median": 0.0101, "tail": 0.0101, "surge": 1e-5, "tcp_surge": 1e-5}.get(name, 1e-9)
    return found is not None and math.isclose(found, wanted, rel_tol=tolerance, abs_tol=1e-9)


@THOROUGH
@given(logs(), configs(), chunk_rows)
def test_windows_equal_those_of_a_plain_loop(events, config, chunk):
    with patch.object(panes, "CHUNK_ROWS", chunk):
        found, n_late, n_folded, _ = run(events, config)

    wanted, wanted_late, wanted_folded = windows_by_plain_loop(events, config)
    assert (n_late, n_folded) == (wanted_late, wanted_folded)
    assert [(row["entity"], row["window_end_ms"]) for row in found.to_dicts()] == [
        (row["entity"], row["window_end_ms"]) for row in wanted
    ]
    for row, twin in zip(found.to_dicts(), wanted, strict=True):
        differing = {name: (row[name], twin[name]) for name in twin if not same(name, row[name], twin[name])}
        assert not differing, (row["entity"], row["window_end_ms"], differing)


# --- cuts ----------------------------------------------------------------------------------------


@st.composite
def jumps_for(draw, events):
    """Idle advances: position -> watermark, some far ahead."""
    found = {}
    for record in draw(st.lists(st.sampled_from(grouped(events)), max_size=4)) if events else ():
        ahead = draw(st.sampled_from([-2000, 1000, 7000, 26_000, 400_000]))
        found[record[-1]["offset"] + 1] = record[-1]["timestamp_ms"] + ahead
    return found


@THOROUGH
@given(st.data(), logs(), configs(), chunk_rows)
def test_cutting_the_log_anywhere_changes_no_bit(data, events, config, chunk):
    jumps = data.draw(jumps_for(events))
    cuts = data.draw(st.sets(st.integers(1, 40)))
    with patch.object(panes, "CHUNK_ROWS", chunk):
        whole, *counts, operator = run(events, config, jumps=jumps)
        cut, *cut_counts, other = run(events, config, cuts, jumps)
        single, *_ = run(events, config, range(1, 41), jumps)

    assert whole.equals(cut)
    assert whole.equals(single)
    assert counts == cut_counts
    assert operator.presence.snapshot() == other.presence.snapshot()
    assert operator.pasts.state.snapshot() == other.pasts.state.snapshot()
    assert operator.progress(10**6) == other.progress(10**6)


@settings(max_examples=30, deadline=None)
@given(logs(), st.sets(st.integers(1, 40)))
def test_record_windows_are_the_events_however_they_are_cut(events, cuts):
    config = WindowsConfig(kind="record")
    whole, n_late, _, operator = run(events, config)
    cut, *_ = run(events, config, cuts)

    assert whole.equals(cut)
    assert n_late == 0
    assert whole["first_offset"].to_list() == [event["offset"] for event in events]
    assert whole["latest"].to_list() == [event["size"] for event in events]
    assert operator.progress(777).offset == 777


# --- crashes -------------------------------------------------------------------------------------


class Partition:
    """One partition's operator between commits: what is published survives, what is not is lost."""

    def __init__(self, events, config, jumps):
        self.records, self.config, self.jumps = grouped(events), config, jumps
        self.begin = self.records[0][0]["offset"] if self.records else 0
        self.end = self.records[-1][0]["offset"] + 1 if self.records else 0
        self.published, self.n_late, self.state, self.metadata = [], 0, ({}, {}), None
        self.start()

    def start(self):
        self.operator = WindowOperator(self.config, AGGREGATES, 0)
        self.waiting, self.late_waiting, self.position = [], 0, self.begin
        if self.metadata is None:
            return
        progress = decode_metadata(*self.metadata).progress
        self.operator.restore(progress)
        presence, pasts = self.state
        self.operator.presence.restore(presence)
        self.operator.pasts.restore(pasts)
        self.position = progress.position
        self.replay = [record for record in self.records if progress.offset <= record[0]["offset"] < self.position]
        self.refill(len(self.replay) // 2)
        assert self.operator.progress(progress.position) == progress, "a commit in the middle of a replay"
        self.refill(len(self.replay))
        self.operator.add(batch([]), self.position)
        assert self.operator.progress(self.position) == progress, "a replay ends where the commit was"

    def refill(self, n_records):
        taken, self.replay = self.replay[:n_records], self.replay[n_records:]
        if taken:
            windowed = self.operator.add(batch(joined(taken)), taken[-1][0]["offset"] + 1)
            assert not len(windowed.windows), "a window is repeated by the replay"

    def take(self, n_records):
        self.jump()
        held = [record for record in self.records if record[0]["offset"] >= self.position][:n_records]
        stop = next((n for n, r in enumerate(held) if r[0]["offset"] + 1 in self.jumps), len(held) - 1)
        held = held[: stop + 1]
        if held:
            self.position = held[-1][0]["offset"] + 1
            windowed = self.operator.add(batch(joined(held)), self.position)
            self.waiting.append(windowed.windows.frame)
            self.late_waiting += windowed.n_late

    def jump(self):
        if self.position in self.jumps:
            self.waiting.append(self.operator.advance(self.jumps[self.position], self.position).frame)

    def commit(self):
        progress = self.operator.progress(self.position)
        self.published += self.waiting
        self.n_late += self.late_waiting
        kinds = (self.operator.presence, self.operator.pasts.state)
        self.state = tuple(
            {key: value for key, value in (before | kind.take_changes()).items() if value is not None}
            for before, kind in zip(self.state, kinds, strict=True)
        )
        self.metadata = (encode_metadata(progress, 1, "0123456789abcdef", None), progress.offset)
        self.waiting, self.late_waiting = [], 0

    def finish(self):
        while self.position < self.end:
            self.take(1000)
        self.jump()
        self.commit()
        return pl.concat(self.published) if self.published else None


def undisturbed(events, config, jumps):
    partition = Partition(events, config, jumps)
    return partition.finish(), partition.n_late, partition.state


def disturbed(events, config, jumps, actions):
    partition = Partition(events, config, jumps)
    for action in actions:
        match action:
            case "commit":
                partition.commit()
            case "crash":
                partition.start()
            case _:
                partition.take(action)
    return partition.finish(), partition.n_late, partition.state


@THOROUGH
@given(st.data(), logs(), configs(), chunk_rows)
def test_no_window_is_lost_or_repeated_by_any_crashes(data, events, config, chunk):
    jumps = data.draw(jumps_for(events))
    actions = data.draw(st.lists(st.sampled_from(["commit", "commit", "crash", 1, 2, 5]), max_size=25))
    with patch.object(panes, "CHUNK_ROWS", chunk):
        wanted, n_late, state = undisturbed(events, config, jumps)
        found, n_late_found, state_found = disturbed(events, config, jumps, actions)

    if wanted is not None:
        assert found.equals(wanted)
    assert n_late_found == n_late
    assert state_found == state


def a_random_log(rng):
    at, events = 1_000_000, []
    for offset in range(40):
        at += rng.choice([0, 500, 1500, 4000, 9000])
        late_by = rng.choice([0, 0, 900, 6000])
        event = {"offset": offset, "timestamp_ms": at - late_by, "entity": rng.choice("abc"), "source": ""}
        events.append({**event, "proto": "tcp", "size": 1.0})
    return events


def last_polled(operator, position):
    return Progress(position, operator.watermark_ms, operator.watermark_ms, position)


def without_the_watermark(operator, position):
    honest = WindowOperator.honest_progress(operator, position)
    return Progress(honest.offset, None, None, position)


def without_the_watermark_at_the_offset(operator, position):
    honest = WindowOperator.honest_progress(operator, position)
    return Progress(honest.offset, honest.watermark_ms, honest.watermark_ms, position, honest.jumps)


@pytest.mark.parametrize("rule", [last_polled, without_the_watermark, without_the_watermark_at_the_offset])
def test_a_commit_rule_that_forgets_something_is_caught(rule, monkeypatch):
    monkeypatch.setattr(WindowOperator, "honest_progress", WindowOperator.progress, raising=False)
    n_caught = 0
    for seed in range(30):
        rng = random.Random(seed)
        events = a_random_log(rng)
        config = WindowsConfig(size="10s", kind="hopping", advance="4s", grace="3s", absent_windows=0)
        actions = [rng.choice(["commit", "crash", 1, 2, 5]) for _ in range(25)]
        wanted, *_ = undisturbed(events, config, {})
        with monkeypatch.context() as patched:
            patched.setattr(WindowOperator, "progress", rule)
            try:
                found, *_ = disturbed(events, config, {}, actions)
            except AssertionError:  # a window repeated by the replay
                n_caught += 1
            else:
                n_caught += not found.equals(wanted)
    assert n_caught > 3
