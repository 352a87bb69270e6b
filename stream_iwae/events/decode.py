"""RecordBatch -> EventBatch | Rejected: every event of every record meets exactly one fate."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import ENTITY_SEPARATOR, MOVES, EventBatch, RecordBatch, Rejected
from stream_iwae.events.config import EventField, EventsConfig, Skip
from stream_iwae.events.fields import canonical_column
from stream_iwae.events.messages import MessageError, MessageReader
from stream_iwae.events.rejections import RejectReason
from stream_iwae.events.timestamps import ABSENT, column_parser_of

_MOST_BITS: Final = 128  # of a whole number that is written out; an address of IPv6 is one
_TEXTUAL: Final = frozenset({str, type(None)})
_WHOLE_ENTITY: Final = "all"  # where the configuration names no entity


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of the records: n_consumed = events + rejected + skipped."""

    events: EventBatch
    rejected: tuple[Rejected, ...]
    skipped: Mapping[str, int]
    n_consumed: int


class Decoder:
    """Decodes records by a configuration; holds no state between batches."""

    def __init__(self, config: EventsConfig, needed: Collection[str] | None = None) -> None:
        """Decode the fields in `needed`, and those of the entity and the source; all where it is None."""
        self._config = config
        wanted = {*config.fields} if needed is None else {*needed, *config.entity, *config.series, *config.sampled}
        wanted |= {config.source} if config.source else set()
        wanted |= {name for name, field in config.fields.items() if not field.optional}
        self._fields = {name: field for name, field in config.fields.items() if name in wanted}
        paths = [time.field for time in config.time]
        paths += [field.path for field in self._fields.values()]
        paths += [skip.field for skip in config.skip]
        paths += [config.sampling] if config.sampling else []
        # A dotted name is looked up as a literal key first, then as a path below its first part.
        keys = list(dict.fromkeys(key for path in paths for key in (path, path.split(".", 1)[0])))
        self._index = {key: i for i, key in enumerate(keys)}
        others = {*(time.field for time in config.time), *(skip.field for skip in config.skip), config.sampling}
        numbers = {field.path for field in self._fields.values() if field.type == "number"} - others
        numbers -= {field.path for field in self._fields.values() if field.type != "number"}
        self._reader = MessageReader(keys, config.envelope, numbers)
        self._times_of = [column_parser_of(time.format, config.timezone) for time in config.time]
        self.schema = {"offset": pl.Int64, "timestamp_ms": pl.Int64, "entity": pl.String}
        self.schema |= {"source": pl.String} if config.source else {}
        self.schema |= {
            name: pl.Float64 if field.type == "number" else pl.String for name, field in self._fields.items()
        }

    def decode(self, records: RecordBatch) -> Decoded:
        """Turn records into events; never raises for any bytes."""
        rejected: list[Rejected] = []
        skipped: Counter[str] = Counter()
        elements = self._read_ordinary(records)
        is_ordinary = elements is not None
        rows = np.arange(len(records))
        if elements is None:
            elements, rows = self._read(records, rejected, skipped)
        columns = _Columns(elements, self._index, is_ordinary)
        kept = self._apply_skips(columns, skipped)
        if kept is not None:
            columns, rows = _Columns([elements[i] for i in kept], self._index, is_ordinary), rows[kept]
        n_elements = len(columns)
        consumed = n_elements + len(rejected) + skipped.total()
        reasons: dict[int, tuple[RejectReason, str]] = {}  # element -> why
        record_ms = records.timestamps_ms[rows]
        timestamps_ms = self._times(columns, record_ms, reasons)
        frame = self._frame(columns, timestamps_ms, records.offsets[rows], reasons)
        if np.any(timestamps_ms > record_ms):  # one forged time must not make all others late: see docs/adr/0010
            frame = frame.with_columns(pl.Series(MOVES, np.minimum(timestamps_ms, record_ms)))
        if reasons:
            for i, (reason, detail) in sorted(reasons.items()):
                row = int(rows[i])
                rejected.append(Rejected(reason, detail, int(records.offsets[row]), records.values[row] or b""))
            good = np.ones(n_elements, dtype=np.bool_)
            good[list(reasons)] = False
            frame = frame.filter(pl.Series(good))
        rejected.sort(key=lambda rejection: rejection.offset)
        return Decoded(EventBatch(records.partition, frame), tuple(rejected), skipped, consumed)

    # --- bytes -> elements -------------------------------------------------------------------

    def _read_ordinary(self, records: RecordBatch) -> list[Any] | None:
        """The usual batch: one small object a record. None where any record is another."""
        if self._config.envelope is not None:
            return None
        read: Callable[[Any], Any] = self._reader.read_ordinary
        try:
            if max(map(len, records.values), default=0) > self._config.max_record:  # type: ignore[arg-type]
                return None
            return list(map(read, records.values))
        except (TypeError, ValueError, RecursionError):  # msgspec's errors and those of UTF-8 are ValueErrors
            return None  # whatever it is, it is found record by record

    def _read(
        self, records: RecordBatch, rejected: list[Rejected], skipped: Counter[str]
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """All elements, and the row of the record that each came in."""
        elements: list[Any] = []
        counts = np.zeros(len(records), dtype=np.int64)
        for row, value in enumerate(records.values):
            if value is None or not value.strip():
                skipped["empty"] += 1
                continue
            found, problems = self._read_one(value)
            if not found and not problems:
                skipped["empty"] += 1
            elements += found
            counts[row] = len(found)
            offset = int(records.offsets[row])
            rejected += [Rejected(problem.reason, problem.detail, offset, value) for problem in problems]
        return elements, np.repeat(np.arange(len(records)), counts)

    def _read_one(self, value: bytes) -> tuple[list[Any], list[MessageError]]:
        if len(value) > self._config.max_record:
            return [], [MessageError(RejectReason.TOO_LARGE, f"{len(value)} bytes, at most {self._config.max_record}")]
        return self._reader.read(value)

    def _apply_skips(self, columns: "_Columns", skipped: Counter[str]) -> NDArray[np.int64] | None:
        if not self._config.skip or not len(columns):
            return None
        is_kept = np.ones(len(columns), dtype=np.bool_)
        for skip in self._config.skip:
            hits = np.fromiter((_is_hit(skip, value) for value in columns.at(skip.field)), np.bool_, len(columns))
            skipped[skip.reason] += int(np.count_nonzero(hits & is_kept))
            is_kept &= ~hits
        skipped += Counter()  # drops reasons that did not occur
        return None if is_kept.all() else np.flatnonzero(is_kept)

    # --- elements -> columns -----------------------------------------------------------------

    def _times(
        self, columns: "_Columns", record_ms: NDArray[np.int64], reasons: dict[int, tuple[RejectReason, str]]
    ) -> NDArray[np.int64]:
        times = np.full(len(columns), ABSENT, dtype=np.int64)
        for time, times_of in zip(self._config.time, self._times_of, strict=True):
            is_open = times == ABSENT
            if not is_open.any():
                break
            times = np.where(is_open, times_of(columns.at(time.field)), times)
        first = self._config.time[0].field
        for i in np.flatnonzero(times < 0).tolist():
            if times[i] == ABSENT:
                names = ", ".join(time.field for time in self._config.time)
                reasons[i] = (RejectReason.NO_TIME, f"none of the time fields is present: {names}")
            else:
                reasons[i] = (RejectReason.BAD_TIME, f"{first} or its stand-in is no time of the configured format")
        ahead = times > record_ms + self._config.max_clock_skew
        for i in np.flatnonzero(ahead).tolist():
            seconds = (int(times[i]) - int(record_ms[i])) / 1000
            reasons[i] = (RejectReason.FUTURE, f"{seconds:.0f} s ahead of its record")
        return times

    def _frame(
        self,
        values: "_Columns",
        timestamps_ms: NDArray[np.int64],
        offsets: NDArray[np.int64],
        reasons: dict[int, tuple[RejectReason, str]],
    ) -> pl.DataFrame:
        config = self._config
        columns: dict[str, pl.Series] = {
            name: self._column(name, field, values, reasons) for name, field in self._fields.items()
        }
        if config.sampling and len(values):
            rate = _numbers(values.at(config.sampling), config.sampling, {})
            factor = pl.Series(np.where(np.isfinite(rate) & (rate > 0), rate, 1.0))
            columns |= {name: columns[name] * factor for name in config.sampled}
        leading = {
            "offset": pl.Series(offsets, dtype=pl.Int64),
            "timestamp_ms": pl.Series(timestamps_ms, dtype=pl.Int64),
        }
        leading["entity"] = self._entity(columns, len(values), reasons)
        if config.source:
            leading["source"] = columns[config.source]
        return pl.DataFrame({name: (leading | columns)[name].alias(name) for name in self.schema}, schema=self.schema)

    def _column(
        self, name: str, field: EventField, columns: "_Columns", reasons: dict[int, tuple[RejectReason, str]]
    ) -> pl.Series:
        values = columns.at(field.path)
        if field.type == "number":
            numbers = _floats(values) if columns.is_ordinary else None
            if numbers is not None:
                return pl.Series(numbers)
            column = pl.Series(_numbers(values, name, reasons)).fill_nan(None)
        else:
            column = canonical_column(_texts(values, name, reasons), field.type, field.strip_port)
        if not field.optional and column.null_count():
            for i in column.is_null().arg_true().to_list():
                reasons.setdefault(i, (RejectReason.MISSING_FIELD, f"{field.path} is missing"))
        return column

    def _entity(
        self, columns: Mapping[str, pl.Series], n: int, reasons: dict[int, tuple[RejectReason, str]]
    ) -> pl.Series:
        names = self._config.entity
        if not names:
            return pl.Series([_WHOLE_ENTITY], dtype=pl.String).new_from_index(0, n)
        parts = pl.DataFrame([columns[name].alias(name) for name in names])
        entity = (
            parts.to_series()
            if len(names) == 1
            else parts.select(pl.concat_str(names, separator=ENTITY_SEPARATOR)).to_series()
        )
        if entity.null_count():
            for i in entity.is_null().arg_true().to_list():
                reasons.setdefault(i, (RejectReason.NO_ENTITY, f"the entity needs {', '.join(names)}"))
        return entity.cast(pl.String)


class _Columns:
    """The wanted values of all elements, by path."""

    def __init__(self, elements: list[Any], index: Mapping[str, int], is_ordinary: bool) -> None:
        self._elements = elements
        self._index = index
        self.is_ordinary = is_ordinary  # numbers are floats or None

    def __len__(self) -> int:
        return len(self._elements)

    def at(self, path: str) -> Sequence[Any]:
        """The values at a path: a literal key first, then below the key before its first dot."""
        values = self._under(path)
        if "." in path and None in values:
            first, rest = path.split(".", 1)
            return [
                _at_path(outer, rest) if value is None else value
                for outer, value in zip(self._under(first), values, strict=True)
            ]
        return values

    def _under(self, key: str) -> list[Any]:
        return list(map(attrgetter(f"f{self._index[key]}"), self._elements))


def _is_hit(skip: Skip, value: Any) -> bool:
    if skip.equals is not None:
        return bool(value == skip.equals)
    if skip.is_in is not None:
        return value in skip.is_in
    return value not in (skip.not_in or ())


def _at_path(value: Any, path: str) -> Any:
    """The value below `path` in nested objects, trying a literal dotted key at each level."""
    while isinstance(value, dict):
        if path in value:
            return value[path]
        first, _, path = path.partition(".")
        if not path:
            return None
        value = value.get(first)
    return None


def _floats(values: Sequence[Any]) -> NDArray[np.float64] | None:
    """A column of floats without a gap, or None."""
    try:
        numbers = np.fromiter(values, np.float64, len(values))
    except (TypeError, ValueError):  # a gap, or a dotted path that led to something else
        return None
    return numbers if np.isfinite(numbers).all() else None


def _numbers(values: Sequence[Any], name: str, reasons: dict[int, tuple[RejectReason, str]]) -> NDArray[np.float64]:
    """Float64 with NaN for what is missing; numeric texts count as numbers."""
    try:
        numbers = np.array(values, dtype=np.float64) if None not in values else None
    except (ValueError, TypeError, OverflowError):
        numbers = None
    if numbers is not None and numbers.ndim == 1 and np.isfinite(numbers).all() and True not in values:
        return numbers
    numbers = np.full(len(values), np.nan)
    for i, value in enumerate(values):
        if value is None or value == "":
            continue
        try:
            numbers[i] = _number(value)
        except (ValueError, TypeError, OverflowError):
            reasons.setdefault(i, (RejectReason.BAD_FIELD, f"{name}: {str(value)[:40]!r} is no finite number"))
    return numbers


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _text(value: Any) -> str | None:
    if isinstance(value, dict | list):
        raise TypeError("a structure where a value belongs")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"a whole number of {value.bit_length()} bits")  # which takes long to write out, or fails
    return value if value is None or isinstance(value, str) else str(value)


def _texts(values: Sequence[Any], name: str, reasons: dict[int, tuple[RejectReason, str]]) -> pl.Series:
    """String with null for what is missing or empty; numbers are written out."""
    # By their types, and not by trying: over other values polars takes up to a millisecond each before it fails.
    if set(map(type, values)) <= _TEXTUAL:
        column = pl.Series(values, dtype=pl.String, strict=True)
    else:
        texts: list[str | None] = []
        for i, value in enumerate(values):
            try:
                texts.append(_text(value))
            except (TypeError, ValueError) as error:
                reasons.setdefault(i, (RejectReason.BAD_FIELD, f"{name}: {error}"))
                texts.append(None)
        column = pl.Series(texts, dtype=pl.String)
    return column.set(column == "", None) if (column == "").any() else column  # a column, not a text
