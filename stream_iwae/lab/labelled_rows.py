"""Labelled streams as rows of features, made by the service's own decoder, windows and extractor."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import FeatureBatch, FeatureSchema, RecordBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoded, Decoder
from stream_iwae.features.config import FeaturesConfig, aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.lab import datasets
from stream_iwae.lab.timeline import Timeline
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

_BATCH: Final = 10_000

Values = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """N rows in the order of the stream, and what each truly was: for judging alone."""

    schema: FeatureSchema
    values: Values  # (N, D), raw, NaN where missing
    is_anomaly: Mask  # (N,)
    texts: Mapping[int, str]  # CRC-32 of a category's text -> the text
    timeline: Timeline | None = None  # None: made up
    known_scores: Mapping[str, Values] = field(default_factory=dict)  # of rivals that look at events, (N,) each
    notes: tuple[str, ...] = ()  # what people should know about the reading
    told: Ints | None = None  # (N,), the incident that an alert on the row would tell of, -1: none; None: see labels

    @classmethod
    def of(cls, features: FeatureBatch, is_anomaly: Mask, *, has_time: bool, notes: tuple[str, ...] = ()) -> Self:
        """Windows and their labels."""
        timeline = Timeline.of(features, is_real=has_time)
        return cls(features.schema, features.values, is_anomaly, features.labels, timeline, notes=notes)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def windows(self) -> Timeline:
        """When each row was, made up where nothing says so."""
        return self.timeline or Timeline.made_up(len(self))

    @property
    def has_time(self) -> bool:
        """Whether the rows have a time of their own."""
        return self.timeline is not None and self.timeline.is_real

    @property
    def end_ms(self) -> Ints:
        """End of each window, (N,)."""
        return self.windows.end_ms

    @property
    def is_series(self) -> bool:
        """Whether the rows are one entity's, in time."""
        return self.has_time and len(set(self.windows.entities)) == 1

    @property
    def features(self) -> FeatureBatch:
        """The rows as the stages of the service take them."""
        windows = self.windows
        return FeatureBatch(
            schema=self.schema,
            values=self.values,
            entities=windows.entities,
            window_start_ms=windows.start_ms,
            window_end_ms=windows.end_ms,
            n_events=windows.n_events,
            first_offset=windows.first_offset,
            last_offset=windows.first_offset,
            silence_p_values=windows.silence_p_values,
            labels=self.texts,
        )

    def take(self, at: Ints) -> Self:
        """The rows at some positions."""
        return replace(
            self,
            values=self.values[at],
            is_anomaly=self.is_anomaly[at],
            timeline=self.windows.take(at),
            known_scores={name: scores[at] for name, scores in self.known_scores.items()},
            told=None if self.told is None else self.told[at],
        )


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How records become rows: the three sections of a configuration that say so."""

    events: EventsConfig
    windows: WindowsConfig
    features: FeaturesConfig


class RowMaker:
    """RecordBatch after RecordBatch -> LabelledRows, through decoder, windows and extractor of the service."""

    def __init__(self, mapping: RowMapping) -> None:
        self._decoder = Decoder(mapping.events, needed_fields(mapping.features))
        self._windows = WindowOperator(mapping.windows, aggregates(mapping.features), 0)
        self._extractor = FeatureExtractor(mapping.features, mapping.events.field_types())
        self._is_record = mapping.windows.kind == "record"
        self._step_ms = mapping.windows.step
        self._made: list[FeatureBatch] = []
        self._attacks: list[pl.DataFrame] = []
        self._texts: dict[int, str] = {}
        self._position = 0
        self._newest_ms = -(2**62)
        self.n_rejected = 0
        self.first_rejection = ""

    def add(self, records: RecordBatch, is_attack: Mask) -> Decoded:
        """Take records, and whether each is an attack; gives back the events they held."""
        decoded = self._decoder.decode(records)
        self.n_rejected += len(decoded.rejected)
        if decoded.rejected and not self.first_rejection:
            self.first_rejection = decoded.rejected[0].detail or decoded.rejected[0].reason
        frame = decoded.events.frame
        attacks = records.offsets[is_attack]
        hit = frame.select("offset", "entity", "timestamp_ms").filter(
            pl.col("offset").is_in(pl.Series(attacks).implode())
        )
        self._attacks.append(hit)
        if frame.height:
            self._newest_ms = max(self._newest_ms, int(frame["timestamp_ms"].max()))  # type: ignore[arg-type]
        self._keep(self._extractor.extract(self._windows.add(decoded.events, records.next_offset).windows))
        self._position = records.next_offset
        return decoded

    def rows(self, *, has_time: bool) -> LabelledRows:
        """Close what is open, and give all rows out."""
        if not self._is_record and self._newest_ms > 0:
            end_ms = self._newest_ms + self._step_ms
            self._keep(self._extractor.extract(self._windows.advance(end_ms, self._position)))
        features = _concatenated(self._made, self._extractor.schema, self._texts)
        attacks = pl.concat(self._attacks)
        truth = (
            np.isin(features.first_offset, attacks["offset"].to_numpy())
            if self._is_record
            else _holds_any(features, attacks)
        )
        notes: tuple[str, ...] = ()
        if self.n_rejected:
            notes = (f"{self.n_rejected:,} rows could not be read; the first: {self.first_rejection}",)
        return LabelledRows.of(features, truth, has_time=has_time, notes=notes)

    def _keep(self, features: FeatureBatch) -> None:
        if len(features):
            self._made.append(features)
            self._texts.update(features.labels)


def _concatenated(parts: list[FeatureBatch], schema: FeatureSchema, texts: dict[int, str]) -> FeatureBatch:
    if not parts:
        return FeatureBatch.empty(schema)
    columns = ("window_start_ms", "window_end_ms", "n_events", "first_offset", "last_offset", "silence_p_values")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    values = np.concatenate([part.values for part in parts])
    entities = [entity for part in parts for entity in part.entities]
    return FeatureBatch(schema=schema, values=values, entities=entities, labels=texts, **joined)


def _holds_any(features: FeatureBatch, attacks: pl.DataFrame) -> Mask:
    """Whether an attack of the window's own entity lies in [start, end), (N,)."""
    windows = pl.DataFrame(
        {
            "row": np.arange(len(features)),
            "entity": pl.Series(features.entities, dtype=pl.String),
            "start": features.window_start_ms,
            "end": features.window_end_ms,
        }
    ).sort("start")
    hits = attacks.select("entity", first="timestamp_ms").sort("first")
    found = windows.join_asof(
        hits, left_on="start", right_on="first", by="entity", strategy="forward", check_sortedness=False
    ).sort("row")
    is_hit: Mask = (found["first"] < found["end"]).fill_null(value=False).to_numpy()
    return is_hit


# --- the data sets that are known by name ----------------------------------------------------


def load(name: str, data_dir: Path) -> LabelledRows:
    """Read a data set as windows of one record each; sets without labels are all ordinary.

    KDD Cup 1999 and NSL-KDD have no time. SMD has a row a minute, and is compared with the rows before as well.

    Raises:
        ConfigurationError: There is no data set of this name.
        DatasetError: Its file is missing.
    """
    is_kdd = not name.startswith("smd-")
    columns = datasets.KDD_COLUMNS if is_kdd else datasets.SMD_COLUMNS
    categories = frozenset(datasets.KDD_CATEGORIES if is_kdd else ())
    events = record_events(datasets.entity_field(name), columns, categories)
    shape: dict[str, Any] = {} if is_kdd else {"kind": "gauge", "recent": True}
    listed = [{"name": column, "per_event": column, **shape} for column in columns]
    features = FeaturesConfig.model_validate({"list": listed})
    maker = RowMaker(RowMapping(events, WindowsConfig(kind="record"), features))
    labels: Iterable[str | None] | None = None if name.endswith("-train") else datasets.labels(name, data_dir)
    for records, is_attack in labelled_records(name, datasets.events(name, data_dir), labels):
        maker.add(records, is_attack)
    return maker.rows(has_time=not is_kdd)


def record_events(entity: str, columns: Iterable[str], categories: frozenset[str]) -> EventsConfig:
    """Events whose time is `ts` in milliseconds and whose other keys are their columns' names."""
    texts = {*categories, entity}
    fields: dict[str, Any] = {
        column: {"path": column, "type": "text" if column in texts else "number"} for column in (entity, *columns)
    }
    return EventsConfig.model_validate(
        {"time": [{"field": "ts", "format": "epoch_ms"}], "entity": [entity], "fields": fields}
    )


def labelled_records(
    name: str, events: Iterable[datasets.Event], labels: Iterable[str | None] | None
) -> Iterator[tuple[RecordBatch, Mask]]:
    """Events as the JSON records of a topic, and whether each is an attack; none is where there are no labels."""
    remaining, truth, at = iter(events), None if labels is None else iter(labels), 0
    encode = msgspec.json.Encoder().encode
    while chunk := list(islice(remaining, _BATCH)):
        offsets = np.arange(at, at + len(chunk))
        at += len(chunk)
        times = np.array([int(event["ts"]) for event in chunk])
        is_attack = np.zeros(len(chunk), dtype=np.bool_)
        if truth is not None:
            is_attack = np.array([label is not None for label in islice(truth, len(chunk))])
        yield RecordBatch(name, 0, offsets, times, [encode(event) for event in chunk], at), is_attack
