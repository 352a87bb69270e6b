from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.batches import EventBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.counters import CounterTracker

CONFIG = EventsConfig.model_validate(
    {
        "time": [{"field": "t", "format": "epoch_ms"}],
        "fields": {
            "host": {"path": "h", "type": "text"},
            "interface": {"path": "i", "type": "text"},
            "octets": {"path": "o", "counter": "cumulative", "bits": 32},
        },
        "entity": ["host"],
        "series": ["interface"],
        "max_gap": "1h",
    }
)
MANY = 1_000  # series that fit in
samples = st.tuples(
    st.sampled_from(["a", "b"]),
    st.sampled_from(["eth0", "eth1"]),
    st.integers(0, 200),
    st.none() | st.integers(0, 2**32 - 1),
)


def batch(rows, first=0):
    columns = {
        "offset": [first + i for i in range(len(rows))],
        "timestamp_ms": [at * 60_000 for _, _, at, _ in rows],
        "entity": [host for host, *_ in rows],
        "host": [host for host, *_ in rows],
        "interface": [interface for _, interface, *_ in rows],
        "octets": [None if value is None else float(value) for *_, value in rows],
    }
    schema = {"offset": pl.Int64, "timestamp_ms": pl.Int64, "octets": pl.Float64}
    return EventBatch(0, pl.DataFrame(columns, schema_overrides=schema))


def differences(tracker, rows, first=0):
    events, skipped = tracker.difference(batch(rows, first))
    return list(zip(events.frame["offset"], events.frame["octets"], strict=True)), sum(skipped.values())


def by_plain_loop(rows):
    last, out = {}, []
    for offset, (host, interface, at, value) in enumerate(rows):
        former = last.get((host, interface))
        if former is not None and at <= former[0]:
            continue
        if former is None or at - former[0] > 60:
            last[host, interface] = (at, value)
            continue
        if value is None or former[1] is None:
            out.append((offset, None))
        elif value >= former[1]:
            out.append((offset, float(value - former[1])))
        elif former[1] > 2**31:
            out.append((offset, float(value - former[1] + 2**32)))
        else:
            out.append((offset, float(value)))
        last[host, interface] = (at, former[1] if value is None else value)
    return out


@given(st.lists(samples, max_size=30))
def test_differences_equal_those_of_a_plain_loop(rows):
    assert differences(CounterTracker(CONFIG, MANY), rows)[0] == by_plain_loop(rows)


@given(st.lists(samples, max_size=25), st.data())
def test_a_restart_from_any_commit_takes_the_same_differences_again(rows, data):
    undisturbed, _ = differences(CounterTracker(CONFIG, MANY), rows)
    position = data.draw(st.integers(0, len(rows)))
    committed = data.draw(st.integers(0, position))
    before = CounterTracker(CONFIG, MANY)
    differences(before, rows[:position])
    before.settle(committed)
    stored = dict(before.state.take_changes())

    after = CounterTracker(CONFIG, MANY)
    after.restore(stored)
    again, _ = differences(after, rows[committed:], first=committed)

    assert again == [pair for pair in undisturbed if pair[0] >= committed]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(100, 150, 50.0), (2**32 - 10, 5, 15.0), (500, 20, 20.0), (7, 7, 0.0)]
)
def test_a_wrap_goes_on_and_a_reset_begins_at_zero(first, second, expected):
    found, n_skipped = differences(CounterTracker(CONFIG, MANY), [("a", "eth0", 0, first), ("a", "eth0", 1, second)])

    assert found == [(1, expected)]
    assert n_skipped == 1


# --- more series than fit in ---------------------------------------------------------------------

strangers = st.tuples(st.sampled_from("abcdefgh"), st.just("eth0"), st.integers(0, 400), st.integers(0, 2**32 - 1))


def by_plain_loop_with_room(rows, room):
    """(offset, had a difference) of each sample, and the series remembered at the end, by a look at all each time."""
    last, out = {}, []
    for offset, (host, interface, at, _) in enumerate(rows):
        key = (host, interface)
        if key not in last and len(last) >= room:
            last = {other: seen for other, seen in last.items() if at - seen <= 60}
        if key in last and at <= last[key]:
            continue
        if key in last and at - last[key] <= 60:
            out.append(offset)
        if key in last or len(last) < room:
            last[key] = at
    return out, set(last)


@given(st.lists(strangers, max_size=60), st.integers(1, 4))
def test_where_there_is_no_room_only_series_that_begin_anew_anyway_give_way(rows, room):
    tracker = CounterTracker(CONFIG, room)
    found, n_skipped = differences(tracker, rows)
    tracker.settle(len(rows))

    offsets, kept = by_plain_loop_with_room(rows, room)

    assert [offset for offset, _ in found] == offsets
    assert {tuple(key.split("\x1f")) for key in tracker.state} == kept
    assert len(tracker.state) <= room
    assert len(found) + n_skipped == len(rows)


@given(st.lists(strangers, max_size=60), st.integers(1, 4), st.data())
def test_a_restart_from_any_commit_finds_the_same_room(rows, room, data):
    undisturbed = CounterTracker(CONFIG, room)
    expected, _ = differences(undisturbed, rows)
    undisturbed.settle(len(rows))
    position = data.draw(st.integers(0, len(rows)))
    committed = data.draw(st.integers(0, position))
    before = CounterTracker(CONFIG, room)
    differences(before, rows[: position // 2])
    differences(before, rows[position // 2 : position], first=position // 2)
    before.settle(committed)
    stored = {key: value for key, value in before.state.take_changes().items() if value is not None}

    after = CounterTracker(CONFIG, room)
    after.restore(stored)
    again, _ = differences(after, rows[committed:], first=committed)
    after.settle(len(rows))

    assert again == [pair for pair in expected if pair[0] >= committed]
    assert after.state.snapshot() == undisturbed.state.snapshot()


def test_a_flood_of_forged_names_displaces_no_counter_and_takes_no_memory():
    tracker, n_known = CounterTracker(CONFIG, 50), 20
    found, skipped = [], Counter()
    for minute in range(5):
        known = [(f"router-{i}", "eth0", minute, 100 * minute) for i in range(n_known)]
        forged = [(f"forged-{minute}-{i}", "eth0", minute, i) for i in range(2_000)]
        events, reasons = tracker.difference(batch(known + forged, 10_000 * minute))
        found += events.frame["entity"].to_list()
        skipped.update(reasons)
    tracker.settle(10**6)

    assert Counter(found) == {f"router-{i}": 4 for i in range(n_known)}
    assert skipped == {"first_sample": 50, "too_many_series": 5 * (n_known + 2_000) - 50 - len(found)}
    assert len(tracker.state) == 50
    assert tracker.difference(batch([("newcomer", "eth0", 500, 1)], 10**6))[1] == {
        "first_sample": 1
    }  # there is room again
