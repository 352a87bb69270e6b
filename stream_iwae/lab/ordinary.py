"""Ordinary windows of a simulated network, without JSON and Kafka between: what calibration is measured on."""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import EventBatch, FeatureBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig, aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.lab.flows import PROTOCOLS, Flows
from stream_iwae.lab.network import EXPORTERS
from stream_iwae.lab.simulate import Simulation
from stream_iwae.lab.traffic import MINUTE_MS
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

PRESET: Final = "flows-per-source"
_SLICE_MINUTES: Final = 60  # drawn and held at once


def ordinary_windows(seed: int, n_minutes: int, n_hosts: int = 120) -> Iterator[FeatureBatch]:
    """One-minute windows by source address of a network in which nothing happens, an hour at a time.

    Events, windows (empty ones too) and features are the service's own; only what travels as JSON is left out.

    Args:
        seed: Another one is another network.
        n_minutes: Of event time.
        n_hosts: At least 24.
    """
    events, features = (
        EventsConfig.model_validate({"preset": "simulated"}),
        FeaturesConfig.model_validate({"preset": PRESET}),
    )
    simulation = Simulation(seed, n_hosts, history_ms=n_minutes * MINUTE_MS, live_ms=0)
    fields = needed_fields(features)
    windows = WindowOperator(WindowsConfig(), aggregates(features), 0)
    extractor = FeatureExtractor(features, events.field_types())
    offset = 0
    for first in range(0, n_minutes, _SLICE_MINUTES):
        length = min(_SLICE_MINUTES, n_minutes - first)
        flows = simulation.traffic.flows(first, length, np.random.default_rng([seed, first]))
        is_new = (flows.src == simulation.network.newcomer) | (flows.dst == simulation.network.newcomer)
        flows = flows.take(~is_new)  # it is switched on later, in the part with the scenarios
        frame = _frame(flows.take(np.argsort(flows.ts, kind="stable")), simulation, fields, offset)
        offset += frame.height
        yield extractor.extract(windows.add(EventBatch(0, frame), offset).windows)


def _frame(flows: Flows, simulation: Simulation, fields: frozenset[str], offset: int) -> pl.DataFrame:
    network = simulation.network
    columns: dict[str, Any] = {
        "src": lambda: _texts(network.addresses, flows.src),
        "dst": lambda: _texts(network.addresses, flows.dst),
        "src_port": lambda: flows.src_port.astype(np.float64),
        "dst_port": lambda: flows.dst_port.astype(np.float64),
        "proto": lambda: _texts(np.array(PROTOCOLS, object), flows.proto),
        "bytes": lambda: flows.n_bytes.astype(np.float64),
        "packets": lambda: flows.packets.astype(np.float64),
    }
    return pl.DataFrame(
        {
            "offset": np.arange(offset, offset + len(flows)),
            "timestamp_ms": flows.ts,
            "entity": columns["src"](),
            "source": _texts(np.array(EXPORTERS, object), network.exporters_of(flows.src, flows.dst)),
            **{name: columns[name]() for name in sorted(fields)},
        }
    )


def _texts(table: NDArray[np.object_], places: NDArray[np.int64]) -> pl.Series:
    """The texts at some places of a table."""
    return pl.Series(table.tolist(), dtype=pl.String)[places]
