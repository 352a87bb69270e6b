"""Windows become rows of numbers, one a feature."""

import zlib

import numpy as np
import polars as pl
import pytest

from stream_iwae.batches import WindowBatch
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.features.extract import FeatureExtractor

HOUR_MS = 3_600_000
THURSDAY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@pytest.fixture
def extract():
    def run(listed, columns, types=None, starts=None):
        n = len(next(iter(columns.values())))
        starts = starts or [THURSDAY_MS] * n
        frame = pl.DataFrame(
            {
                "entity": [f"e{i}" for i in range(n)],
                "window_start_ms": starts,
                "window_end_ms": [start + 60_000 for start in starts],
                "n_events": [3] * n,
                "first_offset": [7, None, None, None][:n],
                "last_offset": [9, None, None, None][:n],
                "silence_p_value": [None, 0.25, 0.25, 0.25][:n],
                **columns,
            },
            schema_overrides={"silence_p_value": pl.Float64, "first_offset": pl.Int64, "last_offset": pl.Int64},
        )
        config = FeaturesConfig.model_validate({"list": listed})
        return FeatureExtractor(config, types or {"a": "number", "b": "number"}).extract(WindowBatch(0, frame))

    return run


def a_sum(name):
    return {"name": name, "aggregate": "sum", "field": name}


def test_values_come_in_the_order_of_the_configuration_and_gaps_are_nan(extract):
    rows = extract([a_sum("b"), a_sum("a")], {"a": [1.0, None], "b": [3.0, 4.0]})

    assert rows.schema.names == ("b", "a")
    assert np.array_equal(rows.values, [[3.0, 1.0], [4.0, np.nan]], equal_nan=True)


def test_a_ratio_without_a_denominator_is_missing_not_infinite(extract):
    listed = [a_sum("a"), a_sum("b"), {"name": "r", "ratio": ["a", "b"]}]
    rows = extract(listed, {"a": [6.0, 0.0, 5.0, None], "b": [3.0, 0.0, 0.0, 2.0]})

    assert np.array_equal(rows.values[:, 2], [2.0, np.nan, np.nan, np.nan], equal_nan=True)


def test_the_time_of_day_and_of_week_are_phases_of_the_window_s_start(extract):
    listed = [{"name": "hour", "time": "hour_of_day"}, {"name": "day", "time": "day_of_week"}]
    starts = [THURSDAY_MS, THURSDAY_MS + 6 * HOUR_MS, THURSDAY_MS + 4 * 24 * HOUR_MS]
    rows = extract(listed, {"a": [0.0] * 3}, starts=starts)

    assert rows.values[:, 0].tolist() == [0.0, 0.25, 0.0]
    assert rows.values[:, 1] == pytest.approx([3 / 7, 3.25 / 7, 0.0])  # weeks begin on Monday


def test_a_category_is_the_crc_of_its_text_and_the_text_is_kept(extract):
    listed = [{"name": "service", "aggregate": "last", "field": "service"}]
    rows = extract(listed, {"service": ["http", None, "smtp"]}, {"service": "text"})

    codes = [float(zlib.crc32(b"http")), np.nan, float(zlib.crc32(b"smtp"))]
    assert np.array_equal(rows.values[:, 0], codes, equal_nan=True)
    assert rows.labels == {zlib.crc32(b"http"): "http", zlib.crc32(b"smtp"): "smtp"}


def test_windows_keep_their_names_times_and_offsets(extract):
    rows = extract([a_sum("a")], {"a": [1.0, 2.0]})

    assert rows.entities == ["e0", "e1"]
    assert rows.window_end_ms.tolist() == [THURSDAY_MS + 60_000] * 2
    assert (rows.first_offset.tolist(), rows.last_offset.tolist()) == ([7, -1], [9, -1])
    assert np.array_equal(rows.silence_p_values, [np.nan, 0.25], equal_nan=True)


def test_no_windows_are_no_rows_of_the_same_width(extract):
    rows = extract([a_sum("a"), a_sum("b")], {"a": [], "b": []})

    assert rows.values.shape == (0, 2)
    assert len(rows) == 0


def waves_of(rows, duration_ms=60_000):
    """(entity, window number, value), in the order of the operator -> windows."""
    return WindowBatch(
        0,
        pl.DataFrame(
            {
                "entity": [entity for entity, _, _ in rows],
                "window_start_ms": [THURSDAY_MS + number * duration_ms for _, number, _ in rows],
                "window_end_ms": [THURSDAY_MS + (number + 1) * duration_ms for _, number, _ in rows],
                "n_events": [1] * len(rows),
                "first_offset": list(range(len(rows))),
                "last_offset": list(range(len(rows))),
                "silence_p_value": pl.Series([None] * len(rows), dtype=pl.Float64),
                "a": [value for _, _, value in rows],
            }
        ),
    )


def a_profiled_extractor():
    config = FeaturesConfig.model_validate({"list": [{**a_sum("a"), "profile": True}]})
    return FeatureExtractor(config, {"a": "number"})


LONG = [
    (entity, number, (10.0 if entity == "quiet" else 5_000.0) + number % 3)
    for number in range(100)
    for entity in ("loud", "quiet")
]


def test_a_profile_comes_after_the_features_and_says_how_far_a_window_lies_beyond_its_usual():
    rows = a_profiled_extractor().extract(waves_of([*LONG, ("loud", 100, 5_000.0), ("quiet", 100, 5_000.0)]))

    assert rows.schema.names == ("a", "a_vs_own")
    assert np.isnan(rows.values[0, 1])
    assert rows.values[-2].tolist() == [5_000.0, 1.0]
    assert rows.values[-1, 1] > 20


@pytest.mark.parametrize("step", [2, 4, 26])
def test_how_many_waves_come_in_a_batch_changes_no_bit(step):
    whole, parts = a_profiled_extractor(), a_profiled_extractor()
    expected = whole.extract(waves_of(LONG)).values
    found = [parts.extract(waves_of(LONG[at : at + step])).values for at in range(0, len(LONG), step)]

    assert np.array_equal(np.concatenate(found), expected, equal_nan=True)
    assert parts.profiles.state.snapshot() == whole.profiles.state.snapshot()


@pytest.mark.parametrize("step", [1, 7])
def test_single_events_are_waves_of_their_own(step):
    events = [("h", number // 2, float(number % 5)) for number in range(220)]  # two of one time
    whole, parts = a_profiled_extractor(), a_profiled_extractor()
    expected = whole.extract(waves_of(events, duration_ms=1)).values
    found = [parts.extract(waves_of(events[at : at + step], 1)).values for at in range(0, len(events), step)]

    assert np.array_equal(np.concatenate(found), expected, equal_nan=True)
    assert np.isfinite(expected[-1, 1])


def an_extractor_with_recent():
    config = FeaturesConfig.model_validate({"list": [{**a_sum("a"), "kind": "gauge", "recent": True}]})
    return FeatureExtractor(config, {"a": "number"})


def test_what_is_recent_is_each_entity_s_own():
    rows = an_extractor_with_recent().extract(waves_of([*LONG[:40], ("loud", 20, 5_007.0), ("quiet", 20, 5_007.0)]))

    assert rows.schema.names == ("a", "a_vs_recent")
    assert np.isnan(rows.values[:2, 1]).all()
    assert abs(rows.values[-2, 1]) < 8
    assert rows.values[-1, 1] > 4_900


@pytest.mark.parametrize(("step", "duration_ms"), [(2, 60_000), (26, 60_000), (1, 1), (7, 1)])
def test_where_a_batch_is_cut_changes_nothing_recent(step, duration_ms):
    whole, parts = an_extractor_with_recent(), an_extractor_with_recent()
    expected = whole.extract(waves_of(LONG, duration_ms)).values
    found = [parts.extract(waves_of(LONG[at : at + step], duration_ms)).values for at in range(0, len(LONG), step)]

    assert np.array_equal(np.concatenate(found), expected, equal_nan=True)
    assert parts.recent.state.snapshot() == whole.recent.state.snapshot()
