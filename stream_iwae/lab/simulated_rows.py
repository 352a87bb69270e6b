"""A simulated network as labelled windows, made by the service's own decoder, windows and extractor."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX, RecordBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import FeaturesConfig, aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.outcome import GRACE_MS
from stream_iwae.lab.simulate import HOUR_MS, Message, Simulation
from stream_iwae.lab.truth import ScenarioTruth
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

_BATCH: Final = 2_000  # messages
PRESET: Final = "flows-per-source"


@dataclass(frozen=True, slots=True)
class SimulatedRows:
    """N windows in the order in which they close, and what each truly was: for judging alone."""

    rows: LabelledRows  # `is_anomaly` holds where an attack concerns the entity in that window
    entities: tuple[str, ...]  # N entity keys
    window_end_ms: NDArray[np.int64]  # (N,)
    silence_p_values: NDArray[np.float64]  # (N,), NaN but for a source gone quiet as a whole
    scenarios: tuple[ScenarioTruth, ...]  # S, attacks and what must not alarm
    scenario: NDArray[np.int64]  # (N,), place in `scenarios` of the attack an alert on the row would tell of; else -1
    n_history: int  # the first rows, of ordinary traffic: to learn from

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def live_days(self) -> float:
        """Length of the part with the scenarios."""
        live = self.window_end_ms[self.n_history :]
        return float(live[-1] - live[0]) / 86_400_000 if len(live) else 0.0


def load_simulated(
    seed: int,
    *,
    profiles: bool = True,
    n_hosts: int = 120,
    history_ms: int = 24 * HOUR_MS,
    live_ms: int = 8 * HOUR_MS,
    features: FeaturesConfig | None = None,
) -> SimulatedRows:
    """Draw a network and take it through the stages before the model.

    Args:
        seed: Of `Simulation`: another one is another network.
        profiles: Whether features are compared with the entity's own past.
        n_hosts: As in `Simulation`, like the rest.
        history_ms: Of ordinary traffic.
        live_ms: Of the part with the scenarios.
        features: In place of the preset's.
    """
    simulation = Simulation(seed, n_hosts, history_ms=history_ms, live_ms=live_ms)
    events = EventsConfig.model_validate({"preset": "simulated"})
    features = features or FeaturesConfig(preset=PRESET)
    if not profiles:
        features = without_profiles(features)
    extractor = FeatureExtractor(features, events.field_types())
    decoder = Decoder(events, needed_fields(features))
    windows = WindowOperator(WindowsConfig(), aggregates(features), 0)
    parts = [
        extractor.extract(windows.add(decoder.decode(batch).events, batch.next_offset).windows)
        for batch in _record_batches(simulation)
    ]
    parts.append(extractor.extract(windows.advance(simulation.end_ms, 2**62)))
    truth = tuple(simulation.truth())
    entities = tuple(entity for part in parts for entity in part.entities)
    window_end_ms = np.concatenate([part.window_end_ms for part in parts])
    scenario, is_attacked = _told(truth, entities, window_end_ms, WindowsConfig().size)
    texts = {code: text for part in parts for code, text in part.labels.items()}
    return SimulatedRows(
        rows=LabelledRows(extractor.schema, np.concatenate([part.values for part in parts]), is_attacked, texts),
        entities=entities,
        window_end_ms=window_end_ms,
        silence_p_values=np.concatenate([part.silence_p_values for part in parts]),
        scenarios=truth,
        scenario=scenario,
        n_history=int(np.searchsorted(window_end_ms, simulation.live_start_ms, side="right")),
    )


def without_profiles(features: FeaturesConfig) -> FeaturesConfig:
    """The same features, each as it is; what reached the model by its profile alone reaches it itself."""
    plain = ({"profile": False, "output": feature.output or feature.profile} for feature in features.features)
    pairs = zip(features.features, plain, strict=True)
    return FeaturesConfig(list=tuple(feature.model_copy(update=update) for feature, update in pairs))


def _told(
    truth: tuple[ScenarioTruth, ...], entities: tuple[str, ...], window_end_ms: NDArray[np.int64], size_ms: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Which attack an alert on each row would tell of, as lab/outcome.py has it, and whether it goes on; (N,) both."""
    by_entity: dict[str, list[int]] = {}
    for row, entity in enumerate(entities):
        by_entity.setdefault(entity.removeprefix(SOURCE_PREFIX), []).append(row)
    told = np.full(len(entities), -1, dtype=np.int64)
    is_attacked = np.zeros(len(entities), dtype=np.bool_)
    for place, scenario in enumerate(truth):
        if scenario.benign:
            continue
        found = [row for name in sorted(scenario.concerned) for row in by_entity.get(name, ())]
        rows = np.array(found, dtype=np.int64)
        has_begun = window_end_ms[rows] > scenario.start_ms
        start_ms = window_end_ms[rows] - size_ms
        told[rows[has_begun & (start_ms < scenario.end_ms + GRACE_MS)]] = place
        is_attacked[rows[has_begun & (start_ms < scenario.end_ms)]] = True
    return told, is_attacked


def _record_batches(simulation: Simulation) -> Iterator[RecordBatch]:
    messages: Iterator[Message] = (message for part in ("history", "live") for message in simulation.messages(part))
    at = 0
    while chunk := list(islice(messages, _BATCH)):
        offsets = np.arange(at, at + len(chunk))
        at += len(chunk)
        times = np.array([message.timestamp_ms for message in chunk])
        yield RecordBatch("simulated", 0, offsets, times, [message.value for message in chunk], at)
