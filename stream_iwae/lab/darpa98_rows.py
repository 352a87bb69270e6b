"""DARPA-98 as the service sees it: one-minute windows per destination host; and MIDAS on the same windows."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.lab import datasets
from stream_iwae.lab.labelled_rows import LabelledRows, RowMaker, RowMapping, Values, labelled_records
from stream_iwae.lab.midas import midas, midas_r
from stream_iwae.lab.timeline import Timeline
from stream_iwae.windows.config import WindowsConfig

SECTIONS: Final[dict[str, Any]] = {
    "events": {
        "time": [{"field": "ts", "format": "epoch_ms"}],
        "entity": ["dst"],
        "fields": {"src": {"path": "src", "type": "address"}, "dst": {"path": "dst", "type": "address"}},
    },
    "windows": {"size": "60s", "grace": "0s"},
    "features": [
        {"name": "connections", "aggregate": "count", "unit": "connections"},
        {"name": "sources", "aggregate": "distinct", "field": "src", "unit": "addresses"},
        {"name": "top_source_share", "aggregate": "top_share", "field": "src"},
        {"name": "source_entropy", "aggregate": "entropy", "field": "src", "unit": "nats"},
        {"name": "connections_per_source", "ratio": ["connections", "sources"], "unit": "connections"},
        {"name": "source_reach", "aggregate": "reach", "field": "src", "unit": "hosts"},
        {"name": "source_surge", "aggregate": "surge", "field": "src", "unit": "times its mean"},
    ],
}
"""The same as in deploy/examples/darpa98.yaml, which an installed package may lack."""

_HASHES: Final = 0  # the seed of MIDAS' hash functions


def load_darpa98(data_dir: Path) -> LabelledRows:
    """Read all 4.5 million connections; a window is anomalous if it holds an attack.

    `known_scores` has what MIDAS and MIDAS-R say of each window: the largest score of its connections.

    Raises:
        DatasetError: The file is missing.
    """
    mapping = RowMapping(
        EventsConfig.model_validate(SECTIONS["events"]),
        WindowsConfig.model_validate(SECTIONS["windows"]),
        FeaturesConfig.model_validate(SECTIONS["features"]),
    )
    maker = RowMaker(mapping)
    parts = []
    pairs = labelled_records("darpa98", datasets.events("darpa98", data_dir), datasets.labels("darpa98", data_dir))
    for records, is_attack in pairs:
        events = maker.add(records, is_attack).events.frame
        parts.append(events.select("timestamp_ms", "src", dst="entity"))
    rows = maker.rows(has_time=True)
    edges = pl.concat(parts)
    known = {name: _of_windows(rows.windows, edges, scores) for name, scores in edge_scores(edges).items()}
    return replace(rows, known_scores=known)


def edge_scores(edges: pl.DataFrame) -> dict[str, Values]:
    """MIDAS and MIDAS-R of each connection, in the order of `timestamp_ms`."""
    ticks = np.unique(edges["timestamp_ms"].to_numpy(), return_inverse=True)[1].astype(np.int64) + 1
    sources, destinations = (
        edges[end].cast(pl.Categorical).to_physical().cast(pl.UInt64).to_numpy() for end in ("src", "dst")
    )
    return {
        "midas": midas(sources, destinations, ticks, _HASHES),
        "midas-r": midas_r(sources, destinations, ticks, _HASHES),
    }


def _of_windows(windows: Timeline, edges: pl.DataFrame, scores: Values) -> Values:
    """The largest score of the edges in each window, (N,); below all others where a window is empty."""
    minute = WindowsConfig.model_validate(SECTIONS["windows"]).size
    largest = (
        edges.select("dst", start=pl.col("timestamp_ms") // minute * minute)
        .with_columns(score=pl.Series(scores))
        .group_by("dst", "start")
        .agg(pl.col("score").max())
    )
    wanted = pl.DataFrame({"dst": pl.Series(windows.entities, dtype=pl.String), "start": windows.start_ms})
    joined = wanted.join(largest, on=["dst", "start"], how="left", maintain_order="left")
    found: Values = joined["score"].fill_null(-1.0).to_numpy()
    return found
