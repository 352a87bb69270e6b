"""A table without a configuration -> what each of its columns is as a feature; nobody's labels decide."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import Kind
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.lab.labelled_rows import RowMapping
from stream_iwae.lab.table_file import safe_names
from stream_iwae.windows.config import WindowsConfig

_HEAD: Final = 4_096  # rows that decide how a number is scaled: those a warm-up may see as well
_UNIQUE_SHARE: Final = 0.5  # of rows with a text of their own: a name of the row rather than a property
_MOSTLY_DISTINCT: Final = 0.9  # of a clock's or row number's values
_HEAVY: Final = 10.0  # interquartile ranges from the median to the 99.9 % quantile: 2.3 in a normal distribution
_NUMBERED_CLASSES: Final = re.compile(r"(^|[^a-z])([sd]|src|dst|source|destination)?[ _]?port$|(^|[^a-z])proto(col)?$")


@dataclass(frozen=True, slots=True)
class Column:
    """One column as a feature."""

    source: str  # its name in the file
    kind: Kind

    @property
    def is_text(self) -> bool:
        """Whether it is sent as a text."""
        return self.kind is Kind.CATEGORY


def choose_columns(frame: pl.DataFrame) -> tuple[list[Column], list[str]]:
    """What each column is, and why some are left out.

    Texts, flags (0 and 1 alone), ports and protocol numbers are categories. Of numbers that are never negative,
    those with a long tail are magnitudes, those within [0, 1] ratios; all others are gauges. Left out is what
    names a row rather than describing it: texts that hardly repeat, clocks and row numbers, empty columns.
    """
    columns, notes = [], []
    for name in frame.columns:
        column = frame[name]
        reason = _reason_to_leave_out(column)
        if reason is None:
            columns.append(Column(name, _kind(column)))
        else:
            notes.append(f"left out {name!r}: {reason}")
    return columns, notes


def automatic_mapping(columns: Sequence[Column], *, is_sampled: bool = False) -> RowMapping:
    """Each row a window of one record, with time `ts`, entity `of`, and the columns as c0, c1, ... in the records.

    Of a thing sampled at regular times gauges and ratios are compared with its last rows as well.
    """
    fields: dict[str, Any] = {"of": {"path": "of", "type": "text"}}
    features: list[dict[str, Any]] = []
    names = safe_names(column.source for column in columns)
    for i, (column, name) in enumerate(zip(columns, names, strict=True)):
        fields[f"c{i}"] = {"path": f"c{i}", "type": "text" if column.is_text else "number"}
        is_recent = is_sampled and column.kind in (Kind.GAUGE, Kind.RATIO) and f"{name}_vs_recent" not in names
        features.append({"name": name, "per_event": f"c{i}", "kind": column.kind.value, "recent": is_recent})
    events = {"time": [{"field": "ts", "format": "epoch_ms"}], "entity": ["of"], "fields": fields}
    return RowMapping(
        EventsConfig.model_validate(events),
        WindowsConfig(kind="record"),
        FeaturesConfig.model_validate({"list": features}),
    )


def _reason_to_leave_out(column: pl.Series) -> str | None:
    known = column.drop_nulls()
    if not len(known):
        return "it is empty"
    if column.dtype.is_temporal():
        return "it is a time; name it with --time to use it"
    n_distinct = known.n_unique()
    if column.dtype == pl.String:
        return "hardly a value comes twice" if n_distinct > max(2, _UNIQUE_SHARE * len(known)) else None
    if len(known) > 2 and n_distinct > _MOSTLY_DISTINCT * len(known) and bool((known.diff().drop_nulls() >= 0).all()):
        return "it never falls: a clock or a row number; name it with --time if it is the time"
    return None


def _kind(column: pl.Series) -> Kind:
    if column.dtype == pl.String:
        return Kind.CATEGORY
    known = column.drop_nulls()
    is_whole = bool((known == known.floor()).all())
    if is_whole and set(known.unique().to_list()) == {0.0, 1.0}:
        return Kind.CATEGORY
    if is_whole and _NUMBERED_CLASSES.search(column.name.lower()):
        return Kind.CATEGORY
    return _kind_of_numbers(known.head(_HEAD).to_numpy())


def _kind_of_numbers(known: NDArray[np.float64]) -> Kind:
    low, q1, median, q3, high, top = np.quantile(known, [0.0, 0.25, 0.5, 0.75, 0.999, 1.0])
    if low < 0:
        return Kind.GAUGE
    if top <= 1:
        return Kind.RATIO if top > 0 else Kind.MAGNITUDE  # all zero: whatever comes later may be of any size
    return Kind.MAGNITUDE if high - median > _HEAVY * (q3 - q1) else Kind.GAUGE
