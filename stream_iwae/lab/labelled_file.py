"""Anybody's CSV or parquet file with a label column -> LabelledRows."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from stream_iwae.batches import RecordBatch
from stream_iwae.errors import ConfigurationError
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig, check_fields, check_windows
from stream_iwae.lab.automatic_mapping import automatic_mapping, choose_columns
from stream_iwae.lab.label_column import read_labels
from stream_iwae.lab.labelled_rows import LabelledRows, Mask, RowMaker, RowMapping
from stream_iwae.lab.table_file import find_column, read_table
from stream_iwae.lab.time_column import TIME_NAMES, is_sampled, read_times
from stream_iwae.lab.timeline import SECOND_MS
from stream_iwae.windows.config import WindowsConfig

_BATCH: Final = 10_000
_FIRST_MS: Final = 1_700_000_000_000  # of rows without a time: an arbitrary but fixed one
_TELLING: Final = 0.999  # of rows whose label another column gives away
_LABEL_NAMES: Final = re.compile(r"label|attack|class|categor|(^|_)cat$|target|anomal|outlier|malicious|^y$")


Section = TypeVar("Section", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What is known of a file beside its name."""

    label: str | None = None
    normal: str | None = None  # values of the label that are normal, with commas
    time: str | None = None  # a column; "none": do not look for one
    entity: str | None = None  # a column
    drop: tuple[str, ...] = ()
    mapping: Path | None = None  # YAML with the sections events, features and perhaps windows
    has_header: bool = True
    is_shuffled: bool = False


def load_file(path: Path, options: FileOptions) -> LabelledRows:
    """Read a file through the service's own decoder, windows and extractor.

    Without a mapping each row is a window of its own and each column a feature (see `automatic_mapping`).

    Raises:
        ConfigurationError: The file, a column's name, the labels or the mapping is wrong; says what to do.
    """
    frame = read_table(path, has_header=options.has_header)
    if options.label is None:
        raise ConfigurationError(
            "--label", None, f"name the column that says what is an anomaly; there are {', '.join(frame.columns)}"
        )
    label_name = find_column(frame, options.label, "--label")
    labels = read_labels(frame[label_name], options.normal)
    notes = [labels.explanation]
    is_anomaly, frame = labels.is_anomaly, frame.drop(label_name)
    frame = frame.drop(find_column(frame, name, "--drop") for name in options.drop)
    if options.is_shuffled:
        order = np.random.default_rng(0).permutation(frame.height)
        frame, is_anomaly = frame[order], is_anomaly[order]
        notes.append("rows are shuffled, so their order tells nothing")
    if options.mapping is not None:
        return _mapped(path.name, frame, is_anomaly, read_mapping(options.mapping), notes)
    time_name, times = _times(frame, options)
    if times is not None and time_name is not None:
        frame, notes = frame.drop(time_name), [*notes, f"time is {time_name!r}"]
        if np.any(np.diff(times) < 0):
            order = np.argsort(times, kind="stable")
            frame, is_anomaly, times = frame[order], is_anomaly[order], times[order]
            notes.append("rows were not in order of time and have been sorted")
    entities = pl.Series("of", [path.stem] * frame.height)
    if options.entity is not None:
        name = find_column(frame, options.entity, "--entity")
        entities, frame = frame[name].cast(pl.String).fill_null(""), frame.drop(name)
        notes.append(f"entity is {name!r}: {entities.n_unique():,} of them")
    frame, told = _without_telltales(frame, is_anomaly)
    columns, left_out = choose_columns(frame)
    if not columns:
        raise ConfigurationError("--dataset", str(path), "no column is left to learn from: " + "; ".join(left_out))
    mapping = automatic_mapping(columns, is_sampled=times is not None and is_sampled(times, entities))
    n_recent = sum(feature.recent for feature in mapping.features.features)
    if n_recent:
        notes.append(f"rows are sampled at regular times: {n_recent} numbers are compared with the rows before, too")
    kinds = [column.kind.value for column in columns]
    described = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    notes += [f"{len(columns)} features: {described}", *left_out, *told]
    sent = frame.select(
        _as_text(frame[column.source], f"c{i}") if column.is_text else frame[column.source].alias(f"c{i}")
        for i, column in enumerate(columns)
    ).with_columns(
        ts=_FIRST_MS + SECOND_MS * np.arange(frame.height) if times is None else pl.Series(times), of=entities
    )
    return _made(path.name, sent, is_anomaly, mapping, notes, has_time=times is not None)


def read_mapping(path: Path) -> RowMapping:
    """Read the sections events, windows and features of a configuration; others are not looked at.

    Raises:
        ConfigurationError: The file cannot be read or one of the sections is wrong or missing.
    """
    try:
        sections: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError("--mapping", str(path), f"cannot be read as YAML: {error}") from error
    if not isinstance(sections, dict) or not {"events", "features"} <= sections.keys():
        raise ConfigurationError("--mapping", str(path), "needs the sections events and features; see deploy/examples/")
    mapping = RowMapping(
        _read_section(path, "events", EventsConfig, sections["events"]),
        _read_section(path, "windows", WindowsConfig, sections.get("windows", {"kind": "record"})),
        _read_section(path, "features", FeaturesConfig, sections["features"]),
    )
    check_fields(mapping.features, mapping.events.field_types())
    check_windows(mapping.features, mapping.windows.kind)
    return mapping


def _read_section(path: Path, name: str, section: type[Section], value: object) -> Section:
    try:
        return section.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        key = ".".join((name, *map(str, problem["loc"])))
        raise ConfigurationError(f"--mapping {path}: {key}", problem["input"], problem["msg"]) from error


def _mapped(name: str, frame: pl.DataFrame, is_anomaly: Mask, mapping: RowMapping, notes: list[str]) -> LabelledRows:
    """By a configuration: columns are the keys of the events; a time and an entity that are missing are made up."""
    keys = {key for field in mapping.events.fields.values() for key in (field.path, field.path.split(".")[0])}
    fields = mapping.events.fields.values()
    missing = [
        field.path
        for key, field in mapping.events.fields.items()
        if key not in mapping.events.entity and not {field.path, field.path.split(".")[0]} & set(frame.columns)
    ]
    if len(missing) == len(fields) or not keys & set(frame.columns):
        remedy = f"none of its fields is a column of the file, which has {', '.join(frame.columns)}"
        raise ConfigurationError("--mapping", ", ".join(missing), remedy)
    notes = notes + ([f"missing in the file: {', '.join(missing)}"] if missing else [])
    has_time = any(time.field in frame.columns for time in mapping.events.time)
    if not has_time:
        made = mapping.events.time[0].field
        mapping = RowMapping(
            mapping.events.model_copy(
                update={"time": (type(mapping.events.time[0]).model_validate({"field": made, "format": "epoch_ms"}),)}
            ),
            mapping.windows,
            mapping.features,
        )
        frame = frame.with_columns(pl.Series(made, _FIRST_MS + SECOND_MS * np.arange(frame.height)))
    for entity in mapping.events.entity:
        path = mapping.events.fields[entity].path
        if path not in frame.columns:
            frame = frame.with_columns(pl.lit(name).alias(path))
    return _made(name, frame, is_anomaly, mapping, notes, has_time=has_time)


def _made(
    name: str, frame: pl.DataFrame, is_anomaly: Mask, mapping: RowMapping, notes: list[str], *, has_time: bool
) -> LabelledRows:
    maker = RowMaker(mapping)
    for records, is_attack in _records(name, frame, is_anomaly):
        maker.add(records, is_attack)
    rows = maker.rows(has_time=has_time)
    if not len(rows):
        raise ConfigurationError("--mapping", name, "no row could be read: " + "; ".join(rows.notes))
    return replace(rows, notes=(*notes, *rows.notes))


def _records(name: str, frame: pl.DataFrame, is_anomaly: Mask) -> Iterator[tuple[RecordBatch, Mask]]:
    """Rows as JSON records; record time is the row's number, for nothing depends on it here."""
    for at in range(0, frame.height, _BATCH):
        part = frame[at : at + _BATCH]
        lines = part.write_ndjson().encode().splitlines()
        offsets = np.arange(at, at + part.height)
        late: NDArray[np.int64] = np.full(part.height, 2**52, dtype=np.int64)  # no event lies in its record's future
        yield RecordBatch(name, 0, offsets, late, lines, at + part.height), is_anomaly[at : at + part.height]


def _times(frame: pl.DataFrame, options: FileOptions) -> tuple[str | None, NDArray[np.int64] | None]:
    """The column that is the time, and what it says; (None, None) where there is none."""
    if options.time is not None and options.time.lower() == "none":
        return None, None
    if options.time is not None:
        name = find_column(frame, options.time, "--time")
        times = read_times(frame[name])
        if times is None:
            sample = frame[name].drop_nulls().head(2).to_list()
            remedy = f"its values, such as {sample}, are no times; write them as 2024-05-01 13:30:00 or as numbers"
            raise ConfigurationError("--time", name, remedy)
        return name, times
    for name in frame.columns:
        column = frame[name]
        if column.dtype.is_temporal() or name.lower() in TIME_NAMES:
            times = read_times(column)
            if times is not None and (not column.dtype.is_numeric() or bool(np.all(np.diff(times) >= 0))):
                return name, times
    return None, None


def _without_telltales(frame: pl.DataFrame, is_anomaly: Mask) -> tuple[pl.DataFrame, list[str]]:
    """Leave out columns that are the label in other words, by name and content: a second label, a kind of attack.

    The one place where labels decide about a column; it can only make figures worse.
    """
    notes = []
    for name in frame.columns:
        column = frame[name]
        if not _LABEL_NAMES.search(name.lower()) or not 2 <= column.n_unique() <= max(2, frame.height // 20):
            continue
        odd = pl.DataFrame({"value": column, "odd": is_anomaly}).group_by("value").agg(pl.col("odd").mean(), pl.len())
        agreeing = float(np.dot(np.maximum(odd["odd"], 1 - odd["odd"].to_numpy()), odd["len"])) / frame.height
        if agreeing >= _TELLING and odd["odd"].max() == 1.0 and odd["odd"].min() == 0.0:
            frame = frame.drop(name)
            notes.append(f"left out {name!r}: it tells the label in other words")
    return frame, notes


def _as_text(column: pl.Series, name: str) -> pl.Series:
    """Whole numbers as 80 rather than 80.0."""
    if column.dtype == pl.String:
        return column.alias(name)
    return column.cast(pl.Int64).cast(pl.String).alias(name)
