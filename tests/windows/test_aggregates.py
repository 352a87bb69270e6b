import math

import numpy as np
import polars as pl
import pytest

from stream_iwae.batches import EventBatch
from stream_iwae.windows import panes
from stream_iwae.windows.aggregates import AggregateConfig, Condition
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator


def finished(aggregate, max_distinct=65_536, **columns):
    """The value of one aggregate over events of one entity and window."""
    n = max(len(values) for values in columns.values())
    frame = pl.DataFrame({"offset": range(n), "timestamp_ms": [0] * n, "entity": ["h1"] * n, **columns})
    config = WindowsConfig(absent_windows=0, max_distinct=max_distinct)
    windows = WindowOperator(config, [AggregateConfig.model_validate({"name": "a", **aggregate})], partition=0)
    windows.add(EventBatch(0, frame), n)
    (found,) = windows.advance(60_000, n).frame["a"].to_list()
    return found


@pytest.fixture(params=["directly", "by partials"], autouse=True)
def way(request, monkeypatch):
    """Both ways to aggregate: at once, and reduced each three rows and merged."""
    if request.param == "by partials":
        monkeypatch.setattr(panes, "CHUNK_ROWS", 3)
    return request.param


def test_the_sum_of_nothing_is_missing_and_zero_is_a_number():
    total = {"aggregate": "sum", "field": "x"}

    assert finished(total, x=[None, None]) is None
    assert finished(total, x=[0.0, None]) == 0.0


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ({"aggregate": "count"}, 5),
        ({"aggregate": "sum", "field": "x"}, 14),
        ({"aggregate": "rate", "field": "x"}, 14 / 60),
        ({"aggregate": "mean", "field": "x"}, 3.5),
        ({"aggregate": "std", "field": "x"}, math.sqrt(4.75)),
        ({"aggregate": "min", "field": "x"}, 1),
        ({"aggregate": "max", "field": "x"}, 7),
        ({"aggregate": "last", "field": "x"}, 3),
        ({"aggregate": "last", "field": "p"}, "udp"),
        ({"aggregate": "distinct", "field": "p"}, 2),
        ({"aggregate": "distinct", "field": "x"}, 3),
        ({"aggregate": "entropy", "field": "p"}, math.log(2)),
        ({"aggregate": "top_share", "field": "x"}, 0.5),
        ({"aggregate": "reach", "field": "x"}, 1),
        ({"aggregate": "reach", "field": "x", "where": {"field": "p", "equals": "icmp"}}, None),
        ({"aggregate": "share", "where": {"field": "p", "equals": "tcp"}}, 0.4),
        ({"aggregate": "count", "where": {"field": "x", "at_least": 3}}, 3),
        ({"aggregate": "sum", "field": "x", "where": {"field": "p", "in": ["tcp", "icmp"]}}, 10),
        ({"aggregate": "sum", "field": "x", "where": {"field": "p", "equals": "icmp"}}, None),
        ({"aggregate": "distinct", "field": "x", "where": {"field": "p", "equals": "icmp"}}, 0),
    ],
)
def test_each_aggregate_on_five_events(aggregate, value):
    found = finished(aggregate, x=[3.0, 7.0, None, 1.0, 3.0], p=["tcp", "tcp", None, "udp", "udp"])

    assert found == (value if value is None or isinstance(value, str) else pytest.approx(value, rel=1e-12))


def test_one_repeated_value_has_no_entropy_not_a_negative_one():
    assert finished({"aggregate": "entropy", "field": "x"}, x=[7.0] * 49) == 0.0


def test_the_spread_of_large_values_that_vary_little_survives():
    values = [1e12 + step for step in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0)]

    assert finished({"aggregate": "std", "field": "x"}, x=values) == pytest.approx(2.0, rel=1e-9)


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e15])
def test_a_quantile_is_within_one_percent(q, scale):
    values = np.random.default_rng(1).lognormal(0, 3, 500) * scale
    values[::7] *= -1
    values[::11] = 0.0

    found = finished({"aggregate": "quantile", "field": "x", "q": q}, x=values.tolist())

    assert found == pytest.approx(np.quantile(values, q, method="lower"), rel=0.01 + 1e-9, abs=0)


def test_only_the_most_frequent_values_are_counted_past_the_bound(way):
    found = finished({"aggregate": "distinct", "field": "x"}, 2, x=[1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0])

    assert found == (2 if way == "by partials" else 6)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"aggregate": "quantile", "field": "x"}, "q belongs to a quantile"),
        ({"aggregate": "sum", "field": "x", "q": 0.5}, "q belongs to a quantile"),
        ({"aggregate": "reach", "field": "x", "past_windows": 60}, "past_windows belongs to a surge"),
        ({"aggregate": "surge"}, "surge needs a field"),
        ({"aggregate": "share"}, "a share needs a condition"),
        ({"aggregate": "sum"}, "sum needs a field"),
        ({"aggregate": "count", "field": "x"}, "count needs no field"),
        ({"aggregate": "count", "name": "entity"}, "a name of our own"),
        ({"aggregate": "count", "name": "Bytes!"}, "should match pattern"),
        ({"aggregate": "count", "where": {"field": "x"}}, "a condition needs equals"),
        ({"aggregate": "count", "where": {"field": "x", "in": []}}, "at least 1 item"),
    ],
)
def test_an_aggregate_that_makes_no_sense_is_refused(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        AggregateConfig.model_validate({"name": "a", **wrong})


def test_a_condition_knows_what_it_compares():
    assert Condition.model_validate({"field": "p", "in": [22, 23]}).compares() == {"number"}
    assert Condition.model_validate({"field": "p", "equals": "tcp"}).compares() == {"text"}
    assert Condition.model_validate({"field": "p", "equals": "tcp", "at_most": 3}).compares() == {"text", "number"}
