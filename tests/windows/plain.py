"""The plain twin of the window operator: dictionaries and loops, and the logs that both are fed with."""

import math
from collections import Counter, defaultdict
from typing import NamedTuple

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st

from stream_iwae.batches import OTHER_ENTITY, EventBatch
from stream_iwae.windows.aggregates import AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

SCHEMA = {
    "offset": pl.Int64,
    "timestamp_ms": pl.Int64,
    "entity": pl.String,
    "source": pl.String,
    "bytes": pl.Float64,
    "peer": pl.String,
}
AGGREGATES = tuple(
    AggregateConfig.model_validate(fields)
    for fields in (
        {"name": "n", "aggregate": "count"},
        {"name": "n_to_p", "aggregate": "count", "where": {"field": "peer", "equals": "p"}},
        {"name": "total", "aggregate": "sum", "field": "bytes"},
        {"name": "total_large", "aggregate": "sum", "field": "bytes", "where": {"field": "bytes", "at_least": 50}},
        {"name": "mean", "aggregate": "mean", "field": "bytes"},
        {"name": "std", "aggregate": "std", "field": "bytes"},
        {"name": "low", "aggregate": "min", "field": "bytes"},
        {"name": "high", "aggregate": "max", "field": "bytes"},
        {"name": "median", "aggregate": "quantile", "field": "bytes", "q": 0.5},
        {"name": "p95", "aggregate": "quantile", "field": "bytes", "q": 0.95},
        {"name": "peers", "aggregate": "distinct", "field": "peer"},
        {"name": "mix", "aggregate": "entropy", "field": "peer"},
        {"name": "top", "aggregate": "top_share", "field": "peer", "where": {"field": "bytes", "at_most": 80}},
        {"name": "reach", "aggregate": "reach", "field": "peer"},
        {"name": "reach_of_large", "aggregate": "reach", "field": "peer", "where": {"field": "bytes", "at_least": 50}},
        {"name": "large", "aggregate": "share", "where": {"field": "bytes", "at_least": 50}},
        {"name": "rate", "aggregate": "rate", "field": "bytes"},
        {"name": "last_bytes", "aggregate": "last", "field": "bytes"},
        {"name": "last_peer", "aggregate": "last", "field": "peer", "where": {"field": "peer", "in": ["p", "q"]}},
    )
)

FEW = tuple(
    aggregate for aggregate in AGGREGATES if aggregate.name in {"n", "total", "std", "median", "mix", "last_peer"}
)
REPEATED = settings(deadline=None, max_examples=60)  # a call of polars costs milliseconds, whatever its size


class Event(NamedTuple):
    """One row of an `EventBatch`."""

    offset: int
    timestamp_ms: int
    entity: str
    source: str = ""
    bytes: float | None = None
    peer: str | None = None


def an_event_batch(events):
    """Events -> one EventBatch."""
    return EventBatch(0, pl.DataFrame([event._asdict() for event in events], schema=SCHEMA, orient="row"))


def an_operator(config, aggregates=AGGREGATES):
    return WindowOperator(config, aggregates, partition=0)


def a_config(**fields):
    """A WindowsConfig of one-second windows without grace or absences, unless told otherwise."""
    return WindowsConfig.model_validate({"size": "1s", "grace": "0s", "absent_windows": 0, **fields})


# --- logs ----------------------------------------------------------------------------------------

CONFIGS = st.builds(
    lambda shape, grace, absent: a_config(**shape, grace=f"{grace}ms", absent_windows=absent, present_history=2),
    st.sampled_from(
        [
            {"kind": "tumbling"},
            {"kind": "hopping", "advance": "500ms"},
            {"kind": "hopping", "advance": "300ms"},  # panes of 100 ms: the size is no multiple of the advance
            {"kind": "hopping", "advance": "1s"},
            {"kind": "record"},
        ]
    ),
    st.sampled_from([0, 100, 700, 2_500]),
    st.sampled_from([0, 2]),
)


@st.composite
def logs(draw, max_size=40):
    """Events with gaps in their offsets, mostly moving on in time, some out of order, some far ahead."""
    steps = draw(
        st.lists(
            st.tuples(
                st.integers(1, 3),
                st.sampled_from([0, 0, 1, 40, 150, 400, 1_000, -30, -600, -1_700, 3_300, 9_000]),
                st.sampled_from("aaabbcd"),
                st.sampled_from([None, 0.0, 1.0, 7.5, 50.0, 80.0, 1e6, -3.0]),
                st.sampled_from([None, "p", "p", "q", "r"]),
            ),
            max_size=max_size,
        )
    )
    events, offset, now = [], 10, 100_000
    for skip, step, entity, n_bytes, peer in steps:
        offset += skip
        now += step
        events.append(Event(offset, now, entity, f"source-{entity in 'ab'}", n_bytes, peer))
    return events


# --- the twin ------------------------------------------------------------------------------------


def plain_windows(events, config):
    """Windows closed by the events alone: rows (entity, start, end, n, first, last, *aggregates), and n late."""
    if config.kind == "record":
        rows = [
            _row(event.entity, event.timestamp_ms, event.timestamp_ms + 1, [event], [[event]], config)
            for event in events
        ]
        return rows, 0
    kept, n_late, highest = [], 0, -math.inf
    for event in events:
        highest = max(highest, event.timestamp_ms)
        pane = event.timestamp_ms // config.pane * config.pane
        if pane + config.pane <= highest - config.grace:
            n_late += 1
        else:
            kept.append((pane, event))
    windows = defaultdict(list)
    for pane, event in sorted(kept):  # in time order of the panes, in offset order within
        first = (pane + config.pane - config.size + config.step - 1) // config.step * config.step
        for start in range(first, pane + 1, config.step):
            windows[start + config.size, event.entity].append(event)
    closed = sorted(item for item in windows.items() if item[0][0] <= highest - config.grace)
    together = defaultdict(list)
    for (end, _), held in closed:
        together[end].append(held)
    return [_row(entity, end - config.size, end, held, together[end], config) for (end, entity), held in closed], n_late


def folded(events, max_entities):
    """The same events of one pane, with the entities past the bound folded."""
    names = list(dict.fromkeys(event.entity for event in events))[:max_entities]
    return [event if event.entity in names else event._replace(entity=OTHER_ENTITY) for event in events]


def _row(entity, start, end, events, together, config):
    offsets = [event.offset for event in events]
    values = [_aggregate(aggregate, events, together, config.size) for aggregate in AGGREGATES]
    return [entity, start, end, len(events), min(offsets), max(offsets), *values]


def _aggregate(aggregate, events, together, size_ms):
    matching = [event for event in events if _meets(aggregate.where, event)]
    if aggregate.field is None:
        return len(matching) / (len(events) if aggregate.aggregate == "share" else 1)
    values = _values(aggregate, events)
    if aggregate.aggregate == "reach":
        return max((sum(value in _values(aggregate, other) for other in together) for value in values), default=None)
    if aggregate.aggregate == "distinct":
        return len(set(values))
    return _OF_VALUES[aggregate.aggregate](values, aggregate.q, size_ms) if values else None


def _values(aggregate, events):
    """The values that count: present, of events that meet the condition."""
    found = (getattr(event, aggregate.field) for event in events if _meets(aggregate.where, event))
    return [value for value in found if value is not None]


def _std(values):
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


def _shares(values):
    return [count / len(values) for count in Counter(values).values()]


_OF_VALUES = {
    "sum": lambda values, q, size_ms: math.fsum(values),
    "rate": lambda values, q, size_ms: math.fsum(values) / (size_ms / 1000),
    "mean": lambda values, q, size_ms: math.fsum(values) / len(values),
    "std": lambda values, q, size_ms: _std(values),
    "min": lambda values, q, size_ms: min(values),
    "max": lambda values, q, size_ms: max(values),
    "quantile": lambda values, q, size_ms: sorted(values)[math.floor(q * (len(values) - 1))],
    "entropy": lambda values, q, size_ms: -math.fsum(share * math.log(share) for share in _shares(values)),
    "top_share": lambda values, q, size_ms: max(_shares(values)),
    "last": lambda values, q, size_ms: values[-1],
}


def _meets(where, event):
    if where is None:
        return True
    value = getattr(event, where.field)
    return (
        value is not None
        and (where.equals is None or value == where.equals)
        and (where.is_in is None or value in where.is_in)
        and (where.at_least is None or value >= where.at_least)
        and (where.at_most is None or value <= where.at_most)
    )
