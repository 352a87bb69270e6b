"""Anybody's file as labelled rows: what reaches the model, and what does not."""

import numpy as np
import polars as pl
import pytest

from stream_iwae.batches import Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.labelled_file import FileOptions, load_file


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    n = 200
    return pl.DataFrame(
        {
            "Flow ID": [f"id-{i}" for i in range(n)],
            "Src Bytes": np.exp(rng.normal(5, 2, n)).round(),
            "proto": rng.choice(["tcp", "udp"], n),
            "load": rng.normal(50, 5, n),
            "attack_type": np.where(np.arange(n) % 10 == 0, "dos", "none"),
            "Label": np.where(np.arange(n) % 10 == 0, "Attack", "BENIGN"),
        }
    )


@pytest.fixture
def load(tmp_path):
    def load_it(frame, **options):
        path = tmp_path / "flows.csv"
        frame.write_csv(path)
        return load_file(path, FileOptions(**{"label": "Label"} | options))

    return load_it


def test_columns_become_features_and_the_label_only_judges(load, frame):
    rows = load(frame)

    assert rows.schema.names == ("src_bytes", "proto", "load")
    assert rows.schema.kinds == (Kind.MAGNITUDE, Kind.CATEGORY, Kind.GAUGE)
    assert rows.is_anomaly.tolist() == [i % 10 == 0 for i in range(200)]
    assert rows.values[:, 0].tolist() == frame["Src Bytes"].to_list()
    assert set(rows.texts.values()) == {"tcp", "udp"}
    assert not rows.has_time


def test_what_is_left_out_is_told_with_its_reason(load, frame):
    told = "\n".join(load(frame).notes)

    assert "left out 'Flow ID': hardly a value comes twice" in told
    assert "left out 'attack_type': it tells the label in other words" in told
    assert "20 of 200 rows" in told


def test_a_column_that_happens_to_tell_everything_but_is_no_label_stays(load, frame):
    flagged = frame.with_columns(pl.Series("state", np.where(np.arange(200) % 10 == 0, "S0", "SF")))

    assert "state" in load(flagged).schema.names


def test_missing_and_infinite_values_are_missing_in_the_row(load, frame):
    texts = frame.with_columns(pl.col("load").cast(pl.String))
    texts[3, "load"], texts[4, "load"], texts[5, "load"] = "", "Infinity", "NaN"
    rows = load(texts)

    assert np.flatnonzero(np.isnan(rows.values[:, 2])).tolist() == [3, 4, 5]


def test_a_time_sorts_the_rows_and_their_labels_with_them(load, frame):
    times = pl.Series("timestamp", [f"2024-01-01 00:{i // 60:02}:{i % 60:02}" for i in range(200)])
    turned = frame.with_columns(times)[::-1]
    rows = load(turned)

    assert rows.has_time
    assert rows.is_series
    assert rows.is_anomaly.tolist() == [i % 10 == 0 for i in range(200)]
    assert np.unique(np.diff(rows.end_ms)).tolist() == [1_000]
    assert "timestamp" not in rows.schema.names
    assert not load(turned, time="none").has_time


def test_what_is_sampled_at_regular_times_is_compared_with_the_rows_before(load, frame):
    minutes = pl.Series("timestamp", [f"2024-01-01 {i // 60:02}:{i % 60:02}:00" for i in range(200)])
    rows = load(frame.with_columns(minutes, load=pl.Series([0.1, 0.2] * 100)))
    at = rows.schema.names.index("load_vs_recent")

    assert rows.values[1, at] == pytest.approx(0.1)
    assert not [name for name in load(frame).schema.names if name.endswith("_vs_recent")]


def test_connections_that_come_when_they_come_are_not(load, frame):
    times = pl.Series("timestamp", 1_700_000_000 + np.random.default_rng(0).integers(0, 900, 200))
    rows = load(frame.with_columns(times.sort(), load=pl.Series([0.1, 0.2] * 100)))

    assert rows.has_time
    assert not [name for name in rows.schema.names if name.endswith("_vs_recent")]


def test_an_entity_column_makes_entities_and_no_feature(load, frame):
    rows = load(frame.with_columns(pl.Series("host", ["a", "b"] * 100)), entity="host")

    assert set(rows.windows.entities) == {"a", "b"}
    assert "host" not in rows.schema.names


def test_columns_can_be_left_out(load, frame):
    assert load(frame, drop=("proto", "LOAD")).schema.names == ("src_bytes",)


def test_shuffling_moves_rows_and_labels_together(load, frame):
    rows, shuffled = load(frame), load(frame, is_shuffled=True)
    by_value = {tuple(value): odd for value, odd in zip(rows.values, rows.is_anomaly, strict=True)}

    assert shuffled.values.tolist() != rows.values.tolist()
    assert all(by_value[tuple(v)] == odd for v, odd in zip(shuffled.values, shuffled.is_anomaly, strict=True))


class TestWithAMapping:
    MAPPING = """
kafka: {bootstrap_servers: "unused:9092"}
events:
  time: [{field: ts, format: epoch_ms}]
  entity: [host]
  fields: {host: {path: host, type: text}, size: Src Bytes, proto: {path: proto, type: text}}
windows: {size: 60s, grace: 0s}
features:
  - {name: flows, aggregate: count}
  - {name: bytes, aggregate: sum, field: size}
"""

    @pytest.fixture
    def mapping(self, tmp_path):
        path = tmp_path / "mapping.yaml"
        path.write_text(self.MAPPING)
        return path

    def test_rows_become_windows_and_a_window_with_an_attack_is_anomalous(self, load, frame, mapping):
        # A row a second: the minutes of host a hold rows 0-59, 60-119, ...; every tenth row is an attack of host b.
        hosts = pl.Series("host", ["b" if i % 10 == 0 and i < 60 else "a" for i in range(200)])
        quiet = frame.with_columns(hosts, Label=pl.when(pl.arange(200) < 60).then("Label").otherwise(pl.lit("BENIGN")))
        rows = load(quiet, mapping=mapping)

        found = dict(zip(zip(rows.windows.entities, rows.end_ms // 60_000, strict=True), rows.is_anomaly, strict=True))
        first = min(minute for _, minute in found)
        assert {key: bool(odd) for key, odd in found.items() if odd} == {
            ("b", minute): True for minute in range(first, first + 2) if ("b", minute) in found
        }
        assert rows.values[:, 0].sum() == 200
        assert rows.schema.names == ("flows", "bytes")

    def test_an_entity_and_a_time_that_the_file_lacks_are_made_up(self, load, frame, mapping):
        rows = load(frame, mapping=mapping)

        assert set(rows.windows.entities) == {"flows.csv"}
        assert not rows.has_time

    def test_a_mapping_of_other_columns_is_refused(self, load, frame, mapping):
        with pytest.raises(ConfigurationError, match="none of its fields is a column of the file, which has"):
            load(frame.select("load", "Label"), mapping=mapping)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a: [", "cannot be read as YAML"),
            ("events: {}", "needs the sections"),
            ("events: 3\nfeatures: []", "events"),
        ],
    )
    def test_a_broken_mapping_is_refused(self, load, frame, tmp_path, text, words):
        path = tmp_path / "broken.yaml"
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=words):
            load(frame, mapping=path)


class TestRefusals:
    def test_without_a_label_the_columns_are_listed(self, load, frame):
        with pytest.raises(ConfigurationError, match=r"name the column .*Flow ID, Src Bytes"):
            load(frame, label=None)

    def test_a_time_that_is_none(self, load, frame):
        with pytest.raises(ConfigurationError, match="are no times; write them as"):
            load(frame, time="proto")

    def test_nothing_to_learn_from(self, load, frame):
        with pytest.raises(ConfigurationError, match="no column is left to learn from"):
            load(frame.select("Flow ID", "Label"))
