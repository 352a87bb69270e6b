"""RecordBatch -> EventBatch | Rejected: every event of every record meets exactly one fate."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import ENTITY_SEPARATOR, EventBatch, RecordBatch, Rejected
from stream_iwae.events.config import EventField, EventsConfig, Skip
from stream_iwae.events.fields import canonical_column
from stream_iwae.events.messages import MessageError, MessageReader
from stream_iwae.events.rejections import RejectReason
from stream_iwae.events.timestamps import parser_of

_ABSENT_TIME: Final = -1
_BAD_TIME: Final = -2
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

    def __init__(self, config: EventsConfig) -> None:
        self._config = config
        paths = [time.field for time in config.time]
        paths += [field.path for field in config.fields.values()]
        paths += [skip.field for skip in config.skip]
        paths += [config.sampling] if config.sampling else []
        # A dotted name is looked up as a literal key first, then as a path below its first part.
        keys = list(dict.fromkeys(key for path in paths for key in (path, path.split(".", 1)[0])))
        self._index = {key: i for i, key in enumerate(keys)}
        self._reader = MessageReader(keys, config.envelope)
        self._time_parsers = [parser_of(time.format, config.timezone) for time in config.time]
        self.schema = {"offset": pl.Int64, "timestamp_ms": pl.Int64, "entity": pl.String}
        self.schema |= {"source": pl.String} if config.source else {}
        self.schema |= {
            name: pl.Float64 if field.type == "number" else pl.String for name, field in config.fields.items()
        }

    def decode(self, records: RecordBatch) -> Decoded:
        """Turn records into events; never raises for any bytes."""
        rejected: list[Rejected] = []
        skipped: Counter[str] = Counter()
        elements, rows = self._read(records, rejected, skipped)
        kept = self._apply_skips(elements, skipped)
        if kept is not None:
            elements, rows = [elements[i] for i in kept], rows[kept]
        n_elements = len(elements)
        consumed = n_elements + len(rejected) + skipped.total()
        reasons: dict[int, tuple[RejectReason, str]] = {}  # element -> why
        timestamps_ms = self._times(elements, records.timestamps_ms[rows], reasons)
        frame = self._columns(elements, timestamps_ms, records.offsets[rows], reasons)
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

    def _read(
        self, records: RecordBatch, rejected: list[Rejected], skipped: Counter[str]
    ) -> tuple[list[Any], NDArray[np.int64]]:
        """All elements, and the row of the record that each came in."""
        read_object = self._reader.read_object
        if self._config.envelope is None:
            try:  # the usual batch: one small object a record
                if max(map(len, records.values), default=0) <= self._config.max_record:  # type: ignore[arg-type]
                    return [read_object(value) for value in records.values], np.arange(len(records))  # type: ignore[arg-type]
            except Exception:  # noqa: BLE001, S110  # whatever is wrong is found record by record below
                pass
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

    def _apply_skips(self, elements: list[Any], skipped: Counter[str]) -> NDArray[np.int64] | None:
        if not self._config.skip or not elements:
            return None
        is_kept = np.ones(len(elements), dtype=np.bool_)
        for skip in self._config.skip:
            values = self._values(elements, skip.field)
            hits = np.fromiter((_is_hit(skip, value) for value in values), dtype=np.bool_, count=len(values))
            skipped[skip.reason] += int(np.count_nonzero(hits & is_kept))
            is_kept &= ~hits
        skipped += Counter()  # drops reasons that did not occur
        return None if is_kept.all() else np.flatnonzero(is_kept)

    def _values(self, elements: list[Any], path: str) -> list[Any]:
        attribute = f"f{self._index[path]}"
        values = [getattr(element, attribute) for element in elements]
        if "." in path and None in values:
            first, rest = path.split(".", 1)
            outer = f"f{self._index[first]}"
            values = [
                _at_path(getattr(element, outer), rest) if value is None else value
                for element, value in zip(elements, values, strict=True)
            ]
        return values

    # --- elements -> columns -----------------------------------------------------------------

    def _times(
        self, elements: list[Any], record_ms: NDArray[np.int64], reasons: dict[int, tuple[RejectReason, str]]
    ) -> NDArray[np.int64]:
        n = len(elements)
        times = np.full(n, _ABSENT_TIME, dtype=np.int64)
        for time, parse in zip(self._config.time, self._time_parsers, strict=True):
            values = self._values(elements, time.field)
            todo = times == _ABSENT_TIME
            if not todo.any():
                break
            parsed = np.fromiter((_time_or_flag(parse, value) for value in values), dtype=np.int64, count=n)
            times = np.where(todo, parsed, times)
        first = self._config.time[0].field
        for i in np.flatnonzero(times < 0).tolist():
            if times[i] == _ABSENT_TIME:
                names = ", ".join(time.field for time in self._config.time)
                reasons[i] = (RejectReason.NO_TIME, f"none of the time fields is present: {names}")
            else:
                reasons[i] = (RejectReason.BAD_TIME, f"{first} or its stand-in is no time of the configured format")
        ahead = times > record_ms + self._config.max_clock_skew
        for i in np.flatnonzero(ahead).tolist():
            seconds = (int(times[i]) - int(record_ms[i])) / 1000
            reasons[i] = (RejectReason.FUTURE, f"{seconds:.0f} s ahead of its record")
        return times

    def _columns(
        self,
        elements: list[Any],
        timestamps_ms: NDArray[np.int64],
        offsets: NDArray[np.int64],
        reasons: dict[int, tuple[RejectReason, str]],
    ) -> pl.DataFrame:
        config = self._config
        columns: dict[str, pl.Series] = {
            name: self._column(name, field, self._values(elements, field.path), reasons)
            for name, field in config.fields.items()
        }
        if config.sampling and elements:
            rate = _numbers(self._values(elements, config.sampling), config.sampling, {})
            factor = pl.Series(np.where(np.isfinite(rate) & (rate > 0), rate, 1.0))
            columns |= {name: columns[name] * factor for name in config.sampled}
        leading = {
            "offset": pl.Series(offsets, dtype=pl.Int64),
            "timestamp_ms": pl.Series(timestamps_ms, dtype=pl.Int64),
        }
        leading["entity"] = self._entity(columns, len(elements), reasons)
        if config.source:
            leading["source"] = columns[config.source]
        return pl.DataFrame({name: (leading | columns)[name].alias(name) for name in self.schema}, schema=self.schema)

    def _column(
        self, name: str, field: EventField, values: list[Any], reasons: dict[int, tuple[RejectReason, str]]
    ) -> pl.Series:
        if field.type == "number":
            numbers = _numbers(values, name, reasons)
            column = pl.Series(numbers).fill_nan(None)
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


def _time_or_flag(parse: Callable[[Any], int | None], value: Any) -> int:
    try:
        parsed = parse(value)
    except (ValueError, TypeError, OverflowError):
        return _BAD_TIME
    return _ABSENT_TIME if parsed is None else parsed


def _numbers(values: list[Any], name: str, reasons: dict[int, tuple[RejectReason, str]]) -> NDArray[np.float64]:
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


def _texts(values: list[Any], name: str, reasons: dict[int, tuple[RejectReason, str]]) -> pl.Series:
    """String with null for what is missing or empty; numbers are written out."""
    try:
        column = pl.Series(values, dtype=pl.String, strict=True)
    except TypeError:
        texts: list[str | None] = []
        for i, value in enumerate(values):
            if isinstance(value, dict | list):
                reasons.setdefault(i, (RejectReason.BAD_FIELD, f"{name}: a structure where a value belongs"))
                texts.append(None)
            else:
                texts.append(value if value is None or isinstance(value, str) else str(value))
        column = pl.Series(texts, dtype=pl.String)
    return column.set(column == "", None) if (column == "").any() else column  # a column, not a text
