"""Times as emitters write them -> epoch milliseconds."""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from stream_iwae.events.config import TimeFormat

_MS_PER: Final = {
    TimeFormat.EPOCH_S: 1000.0,
    TimeFormat.EPOCH_MS: 1.0,
    TimeFormat.EPOCH_US: 1e-3,
    TimeFormat.EPOCH_NS: 1e-6,
}
_DIVISOR: Final = {TimeFormat.EPOCH_MS: 1, TimeFormat.EPOCH_US: 1_000, TimeFormat.EPOCH_NS: 1_000_000}
_ISO: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s*(Z|z|[+-]\d\d:?\d\d)?")
ABSENT: Final = -1  # no time in this field
BAD: Final = -2  # something that is no time of the format
MIN_MS: Final = 0
MAX_MS: Final = 4_102_444_800_000  # 2100-01-01: later is no telemetry, and milliseconds stay exact in float64


def column_parser_of(time_format: TimeFormat, zone: str) -> Callable[[Sequence[Any]], NDArray[np.int64]]:
    """A function from N JSON values to N epoch milliseconds, ABSENT or BAD."""
    parse = _parser_of(time_format, zone)
    divisor = _DIVISOR.get(time_format)

    def parse_column(values: Sequence[Any]) -> NDArray[np.int64]:
        if divisor is not None:
            try:  # the usual column: whole numbers
                times = np.array(values)
                if times.dtype == np.int64 and times.ndim == 1:  # lists of as many numbers would be a matrix
                    # A truth value counts as 0 or 1 here, and is told from a time value by value.
                    is_plain = times.size and times.min() > 1
                    times //= divisor
                    if is_plain and times.max() < MAX_MS:
                        return times
            except (ValueError, OverflowError):
                pass  # mixed shapes: value by value below
        return np.fromiter((_parsed_or_flag(parse, value) for value in values), dtype=np.int64, count=len(values))

    return parse_column


def _parsed_or_flag(parse: Callable[[Any], int | None], value: Any) -> int:
    try:
        parsed = parse(value)
    except (ValueError, TypeError, OverflowError):
        return BAD
    return ABSENT if parsed is None else parsed


def _parser_of(time_format: TimeFormat, zone: str) -> Callable[[Any], int | None]:
    """A function from a JSON value to epoch milliseconds, None where the time is absent."""
    if time_format in _MS_PER:
        scale, divisor = _MS_PER[time_format], _DIVISOR.get(time_format)
        return lambda value: _from_epoch(value, scale, divisor)
    zone_info = ZoneInfo(zone) if time_format is TimeFormat.DATETIME else UTC
    return lambda value: _from_text(value, zone_info)


def _from_epoch(value: Any, scale: float, divisor: int | None) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise TypeError("a truth value is no time")
    if isinstance(value, str):
        if value.startswith("0000-00-00"):
            return None
        value = int(value) if value.isdecimal() else float(value)
    if isinstance(value, int) and divisor is not None:
        return _checked(value // divisor)
    if not isinstance(value, int | float):
        raise TypeError(f"{type(value).__name__} is no time")
    return _checked(int(value * scale))  # inf and nan raise here


def _from_text(value: Any, zone: Any) -> int | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} is no time")
    if value.startswith("0000-00-00"):
        return None
    matched = _ISO.fullmatch(value)
    if matched is None:
        raise ValueError(f"{value[:40]!r} is no time")
    date, clock, fraction, offset = matched.groups()
    if offset is None:
        whole = datetime.fromisoformat(f"{date}T{clock}").replace(tzinfo=zone)
    else:
        whole = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    return _checked(int(whole.timestamp()) * 1000 + int((fraction or "0").ljust(3, "0")[:3]))


def _checked(timestamp_ms: int) -> int:
    if not MIN_MS <= timestamp_ms < MAX_MS:
        raise ValueError(f"{timestamp_ms} ms is outside 1970 to 2100")
    return timestamp_ms
