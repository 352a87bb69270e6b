import pytest
from hypothesis import given
from plain import (
    AGGREGATES,
    CONFIGS,
    REPEATED,
    Event,
    a_config,
    an_event_batch,
    an_operator,
    folded,
    logs,
    plain_windows,
)

from stream_iwae.batches import OTHER_ENTITY
from stream_iwae.windows import panes

LEADING = ["entity", "window_start_ms", "window_end_ms", "n_events", "first_offset", "last_offset"]
APPROXIMATE = {aggregate.name for aggregate in AGGREGATES if aggregate.aggregate == "quantile"}


def rows_of(frame):
    return frame.select(*LEADING, *(aggregate.name for aggregate in AGGREGATES)).rows()


def assert_same(frame, expected):
    found = rows_of(frame)
    assert [row[:6] for row in found] == [tuple(row[:6]) for row in expected]
    for row, other in zip(found, expected, strict=True):
        for aggregate, value, wanted in zip(AGGREGATES, row[6:], other[6:], strict=True):
            if wanted is None or isinstance(wanted, str):
                assert value == wanted, aggregate.name
            else:
                tolerance = 0.0101 if aggregate.name in APPROXIMATE else 1e-9
                assert value == pytest.approx(wanted, rel=tolerance, abs=1e-9), aggregate.name


@REPEATED
@given(logs(), CONFIGS)
def test_windows_equal_those_of_a_plain_loop(events, config):
    config = config.model_copy(update={"absent_windows": 0})
    windowed = an_operator(config).add(an_event_batch(events), 10_000)
    expected, n_late = plain_windows(events, config)

    assert_same(windowed.windows.frame, expected)
    assert (windowed.n_aggregated, windowed.n_late) == (len(events) - n_late, n_late)


@REPEATED
@given(logs(), CONFIGS)
def test_windows_of_reduced_chunks_equal_those_of_a_plain_loop(events, config):
    config = config.model_copy(update={"absent_windows": 0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(panes, "CHUNK_ROWS", 3)
        windowed = an_operator(config).add(an_event_batch(events), 10_000)

    assert_same(windowed.windows.frame, plain_windows(events, config)[0])


@pytest.mark.parametrize("chunk_rows", [2, 65_536])
def test_entities_past_the_bound_of_a_pane_are_folded_into_one(monkeypatch, chunk_rows):
    monkeypatch.setattr(panes, "CHUNK_ROWS", chunk_rows)
    config = a_config(max_entities=2)
    events = [Event(at, 100_000 + at, "abcaddb"[at], "", float(at), "p") for at in range(7)]
    operator = an_operator(config)
    first = operator.add(an_event_batch(events[:3]), 3)
    second = operator.add(an_event_batch([*events[3:], Event(9, 101_000, "z")]), 10)

    assert first.n_folded + second.n_folded == 3
    assert first.n_aggregated + second.n_aggregated == 8
    expected = plain_windows([*folded(events, 2), Event(9, 101_000, "z")], config)[0]
    assert OTHER_ENTITY in {row[0] for row in expected}
    assert_same(second.windows.frame, expected)


def test_no_more_values_are_counted_than_the_bound(monkeypatch):
    monkeypatch.setattr(panes, "CHUNK_ROWS", 10)
    events = [Event(at, 100_000 + at, "a", "", 1.0, f"peer-{at}") for at in range(95)]
    windowed = an_operator(a_config(max_distinct=20)).add(an_event_batch([*events, Event(99, 101_000, "a")]), 100)

    assert windowed.windows.frame["peers"].to_list() == [20.0]


def test_an_event_at_the_end_of_a_window_belongs_to_the_next():
    operator = an_operator(a_config())
    windowed = operator.add(an_event_batch([Event(0, 999, "a"), Event(1, 1_000, "a"), Event(2, 2_000, "a")]), 3)

    assert windowed.windows.frame["window_start_ms"].to_list() == [0, 1_000]
    assert windowed.windows.frame["n_events"].to_list() == [1, 1]


def test_an_event_behind_the_watermark_counts_while_its_pane_is_open():
    operator = an_operator(a_config())
    windowed = operator.add(an_event_batch([Event(0, 900, "a"), Event(1, 100, "a"), Event(2, 1_000, "a")]), 3)

    assert windowed.n_late == 0
    assert windowed.windows.frame["n_events"].to_list() == [2]


def test_an_event_of_a_pane_that_ended_is_late():
    operator = an_operator(a_config(grace="500ms"))
    on_time = operator.add(an_event_batch([Event(0, 1_499, "a"), Event(1, 999, "a")]), 2)
    late = operator.add(an_event_batch([Event(2, 1_500, "a"), Event(3, 999, "a")]), 4)

    assert (on_time.n_late, late.n_late) == (0, 1)
    assert late.windows.frame["n_events"].to_list() == [1]


def test_a_sum_of_nothing_is_missing_and_a_count_of_nothing_is_zero():
    operator = an_operator(a_config())
    frame = operator.add(an_event_batch([Event(0, 0, "a"), Event(1, 1_000, "a")]), 2).windows.frame

    assert frame["total"].to_list() == [None]
    assert frame["n_to_p"].to_list() == [0.0]
    assert frame["peers"].to_list() == [0.0]


def test_an_idle_partition_closes_windows_once_its_watermark_is_moved():
    operator = an_operator(a_config())
    operator.add(an_event_batch([Event(0, 500, "a")]), 1)
    assert operator.n_open_windows == 1

    assert operator.advance(1_000, 1).frame["n_events"].to_list() == [1]
    assert len(operator.advance(900, 1)) == 0, "not ahead"
    assert (operator.watermark_ms, operator.n_open_windows) == (1_000, 0)
    assert operator.add(an_event_batch([Event(1, 999, "a")]), 2).n_late == 1
