"""A flood of forged addresses is bounded and hides nothing; a forged time makes nobody late."""

import flood
import numpy as np
import polars as pl
import pytest

from stream_iwae.batches import EventBatch, RecordBatch
from stream_iwae.pipeline import Pipeline
from stream_iwae.windows import presence
from stream_iwae.windows.aggregates import AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

SMALL = flood.Scale(n_known=40, n_quiet_minutes=8, n_flood_minutes=2, n_forged=3000, n_scanned=200, max_entities=100)
START = flood.START_MS


@pytest.mark.parametrize("poll", [10_000, 333])
def test_a_scan_by_a_known_host_is_alerted_on_through_a_flood(poll):
    found = flood.run(SMALL, 1, poll)

    assert flood.problems_of(found, SMALL) == []
    assert found.counts.folded == 2 * (3000 - 100)
    assert found.counts.consumed == found.counts.aggregated


def test_without_a_look_at_who_is_known_it_would_be_hidden(monkeypatch):
    monkeypatch.setattr(presence, "are_known", lambda table, entities, *_: np.zeros(len(entities), dtype=np.bool_))

    assert "was not alerted on" in flood.problems_of(flood.run(SMALL, 1), SMALL)[0]


# --- where a poll or a restart cuts changes nothing --------------------------------------------


def an_operator():
    config = WindowsConfig.model_validate({"size": "10s", "grace": "3s", "max_entities": 4, "present_history": 2})
    counted = AggregateConfig.model_validate({"name": "flows", "aggregate": "count"})
    return WindowOperator(config, [counted], 0)


def a_log(seed, n=400):
    """Five hosts that come and go among strangers, with disorder."""
    rng = np.random.default_rng(seed)
    times = START + np.cumsum(rng.choice([0, 100, 900, 2500], n)) - rng.choice([0, 0, 2000, 6000], n)
    names = [f"known-{rng.integers(5)}" if rng.random() < 0.4 else f"stranger-{rng.integers(60)}" for _ in range(n)]
    columns = {"offset": np.arange(n), "timestamp_ms": times.astype(np.int64), "entity": names}
    return pl.DataFrame(columns, schema={"offset": pl.Int64, "timestamp_ms": pl.Int64, "entity": pl.String})


def rows_of(windows):
    return windows.frame.select("window_end_ms", "entity", "n_events", "first_offset", "last_offset").rows()


def fed(operator, log, cuts, first=0):
    rows, n_folded = [], 0
    for start, stop in zip([first, *cuts], [*cuts, len(log)], strict=True):
        windowed = operator.add(EventBatch(0, log[start:stop]), stop)
        rows += rows_of(windowed.windows)
        n_folded += windowed.n_folded
    return rows, n_folded


@pytest.mark.parametrize("seed", range(12))
def test_who_is_folded_does_not_depend_on_the_polls(seed):
    log = a_log(seed)
    whole, n_folded = fed(an_operator(), log, [])
    rng = np.random.default_rng(seed)

    assert n_folded > 20
    for cuts in (range(1, len(log)), sorted(rng.choice(np.arange(1, len(log)), 9, replace=False).tolist())):
        assert fed(an_operator(), log, list(cuts)) == (whole, n_folded)


@pytest.mark.parametrize("seed", range(12))
def test_a_restart_folds_the_same(seed):
    log = a_log(seed)
    whole, _ = fed(an_operator(), log, [])
    rng = np.random.default_rng(seed)
    for at in rng.choice(np.arange(20, len(log)), 8, replace=False).tolist():
        first = an_operator()
        before, _ = fed(first, log[:at], [])
        progress, kept = first.progress(at), first.presence.snapshot()
        second = an_operator()
        second.restore(progress)
        second.presence.restore(kept)
        again = []
        for start in range(progress.offset, len(log), 7):
            stop = min(start + 7, len(log))
            again += rows_of(second.add(EventBatch(0, log[start:stop]), stop).windows)

        assert before + again == whole


# --- forged times ------------------------------------------------------------------------------


def test_one_forged_time_makes_nobody_late_and_moves_no_watermark():
    values = [flood.flow(START + i * 1000, f"10.0.0.{i % 5}") for i in range(120)]
    stamps = [START + i * 1000 + 200 for i in range(120)]
    values.insert(60, flood.flow(stamps[59] + 590_000, "10.9.9.9"))  # within max_clock_skew
    stamps.insert(60, stamps[59])
    for poll in (121, 1, 17):
        pipeline = Pipeline(flood.the_stages(100), 0)
        pipeline.begin(0, None)
        for at in range(0, 121, poll):
            stop = min(121, at + poll)
            part = RecordBatch("events", 0, np.arange(at, stop), np.array(stamps[at:stop]), values[at:stop], stop)
            pipeline.process(part, None, START, lambda: None)
        assert pipeline.outcome.counts.late == 0
        assert pipeline.outcome.counts.aggregated == 121
        assert pipeline.watermark_ms == START + 119_000 - 5_000


def test_an_exporter_whose_clock_is_ahead_is_still_taken():
    values = [flood.flow(START + i * 1000 + 300_000, "10.0.0.1") for i in range(100)]
    pipeline = Pipeline(flood.the_stages(100), 0)
    pipeline.begin(0, None)
    stamps = START + np.arange(100) * 1000
    pipeline.process(RecordBatch("events", 0, np.arange(100), stamps, values, 100), None, START, lambda: None)

    assert pipeline.outcome.counts.aggregated == 100
    assert pipeline.watermark_ms == int(stamps[-1]) - 5_000
