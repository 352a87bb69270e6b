"""DARPA-98 as windows: the same configuration as the example's, and MIDAS on the same windows."""

import lzma
from pathlib import Path

import numpy as np
import yaml

from stream_iwae.lab.darpa98_rows import SECTIONS, load_darpa98
from stream_iwae.windows.config import WindowsConfig

ROOT = Path(__file__).parents[2]


def test_the_sections_are_those_of_the_example():
    example = yaml.safe_load((ROOT / "deploy/examples/darpa98.yaml").read_text())

    assert SECTIONS["events"] == example["events"]
    assert SECTIONS["features"] == example["features"]
    assert WindowsConfig.model_validate(SECTIONS["windows"]) == WindowsConfig.model_validate(example["windows"])


def test_a_window_is_a_minute_of_a_host_and_holds_its_largest_edge(tmp_path):
    lines = [f"1.1.1.{i % 3},2.2.2.2,06/01/1998-08:{i // 4:02},-" for i in range(80)]
    lines += [f"9.9.9.{i},2.2.2.3,06/01/1998-08:20,smurf" for i in range(30)]
    lines += ["1.1.1.1,2.2.2.2,06/01/1998-08:20,-"]
    (tmp_path / "darpa98_connections.csv.xz").write_bytes(lzma.compress("\n".join(lines).encode()))

    rows = load_darpa98(tmp_path)

    by_window = dict(zip(zip(rows.windows.entities, rows.end_ms, strict=True), range(len(rows)), strict=True))
    attacked = [entity for entity, odd in zip(rows.windows.entities, rows.is_anomaly, strict=True) if odd]
    assert attacked == ["2.2.2.3"]
    [flooded] = [row for (entity, _), row in by_window.items() if entity == "2.2.2.3"]
    assert rows.values[flooded, 0] == 30
    assert rows.values[flooded, 1] == 30
    assert rows.values[flooded, 5] == 1, "each of its sources asks no other host"
    assert rows.has_time
    assert not rows.is_series
    assert rows.known_scores["midas-r"].argmax() == flooded
    assert np.nansum(rows.values[:, 0]) == 111
