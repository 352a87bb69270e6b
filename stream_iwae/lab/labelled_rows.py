"""Labelled data sets as rows of features, made by the service's own decoder, windows and extractor."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import FeatureSchema, RecordBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import FeaturesConfig, aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.lab import datasets
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

_BATCH: Final = 10_000


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """N rows in the order of the stream, and what each truly was: for judging alone."""

    schema: FeatureSchema
    values: NDArray[np.float64]  # (N, D), raw, NaN where missing
    is_anomaly: NDArray[np.bool_]  # (N,)
    texts: dict[int, str]  # CRC-32 of a category's text -> the text

    def __len__(self) -> int:
        return len(self.values)

    def take(self, at: NDArray[np.int64]) -> "LabelledRows":
        """The rows at some positions."""
        return LabelledRows(self.schema, self.values[at], self.is_anomaly[at], self.texts)


def load(name: str, data_dir: Path) -> LabelledRows:
    """Read a whole data set as windows of one record each; sets without labels are all ordinary.

    Raises:
        ConfigurationError: There is no data set of this name.
        DatasetError: Its file is missing.
    """
    is_kdd = not name.startswith("smd-")
    columns = datasets.KDD_COLUMNS if is_kdd else datasets.SMD_COLUMNS
    categories = frozenset(datasets.KDD_CATEGORIES if is_kdd else ())
    events = _events_config(datasets.entity_field(name), columns, categories)
    listed = [{"name": column, "per_event": column} | ({} if is_kdd else {"kind": "gauge"}) for column in columns]
    features = FeaturesConfig.model_validate({"list": listed})
    extractor = FeatureExtractor(features, events.field_types())
    decoder = Decoder(events, needed_fields(features))
    windows = WindowOperator(WindowsConfig(kind="record"), aggregates(features), 0)
    values: list[NDArray[np.float64]] = []
    texts: dict[int, str] = {}
    for batch in _record_batches(name, data_dir):
        rows = extractor.extract(windows.add(decoder.decode(batch).events, batch.next_offset).windows)
        values.append(rows.values)
        texts.update(rows.labels)
    found = np.concatenate(values)
    truth = np.zeros(len(found), dtype=np.bool_)
    if not name.endswith("-train"):
        truth = np.array([label is not None for label in datasets.labels(name, data_dir)])
    return LabelledRows(extractor.schema, found, truth, texts)


def _events_config(entity: str, columns: tuple[str, ...], categories: frozenset[str]) -> EventsConfig:
    texts = {*categories, entity}
    fields: dict[str, Any] = {
        column: {"path": column, "type": "text" if column in texts else "number"} for column in (entity, *columns)
    }
    return EventsConfig.model_validate(
        {"time": [{"field": "ts", "format": "epoch_ms"}], "entity": [entity], "fields": fields}
    )


def _record_batches(name: str, data_dir: Path) -> Iterator[RecordBatch]:
    events, at = datasets.events(name, data_dir), 0
    while chunk := list(islice(events, _BATCH)):
        offsets = np.arange(at, at + len(chunk))
        at += len(chunk)
        times = np.array([int(event["ts"]) for event in chunk])
        yield RecordBatch(name, 0, offsets, times, [msgspec.json.encode(event) for event in chunk], at)
