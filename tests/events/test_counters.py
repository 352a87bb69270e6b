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
    assert differences(CounterTracker(CONFIG), rows)[0] == by_plain_loop(rows)


@given(st.lists(samples, max_size=25), st.data())
def test_a_restart_from_any_commit_takes_the_same_differences_again(rows, data):
    undisturbed, _ = differences(CounterTracker(CONFIG), rows)
    position = data.draw(st.integers(0, len(rows)))
    committed = data.draw(st.integers(0, position))
    before = CounterTracker(CONFIG)
    differences(before, rows[:position])
    before.settle(committed)
    stored = dict(before.state.take_changes())

    after = CounterTracker(CONFIG)
    after.restore(stored)
    again, _ = differences(after, rows[committed:], first=committed)

    assert again == [pair for pair in undisturbed if pair[0] >= committed]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [(100, 150, 50.0), (2**32 - 10, 5, 15.0), (500, 20, 20.0), (7, 7, 0.0)]
)
def test_a_wrap_goes_on_and_a_reset_begins_at_zero(first, second, expected):
    found, n_skipped = differences(CounterTracker(CONFIG), [("a", "eth0", 0, first), ("a", "eth0", 1, second)])

    assert found == [(1, expected)]
    assert n_skipped == 1
