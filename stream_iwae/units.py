"""Quantities as people write them in a configuration: durations, byte sizes and rates."""

import re
from typing import Annotated, Final

from pydantic import BeforeValidator, Field

_DURATION_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE_BYTES: Final = {"b": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
_NUMBER_AND_UNIT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*")


def parse_duration_ms(value: object) -> int:
    """Turn ``"60s"``, ``"1.5h"`` or ``"500ms"`` into milliseconds.

    >>> parse_duration_ms("90s")
    90000

    Raises:
        ValueError: The text is no number with one of the units, or a fraction of a millisecond.
    """
    return _parse(value, _DURATION_MS, "a duration such as 500ms, 60s, 5m, 6h or 1d")


def parse_size_bytes(value: object) -> int:
    """Turn ``"64KiB"`` or ``"1MB"`` into bytes.

    >>> parse_size_bytes("64KiB")
    65536

    Raises:
        ValueError: The text is no number with one of the units, or a fraction of a byte.
    """
    return _parse(value, _SIZE_BYTES, "a size such as 512B, 64KiB, 10MB or 1GiB")


def format_duration(duration_ms: int) -> str:
    """Write milliseconds with the largest unit that keeps them whole.

    >>> format_duration(90_000)
    '90s'
    """
    for unit in ("d", "h", "m", "s"):
        if duration_ms and duration_ms % _DURATION_MS[unit] == 0:
            return f"{duration_ms // _DURATION_MS[unit]}{unit}"
    return f"{duration_ms}ms"


def _parse(value: object, units: dict[str, int], wanted: str) -> int:
    if value in (0, "0") and not isinstance(value, bool):
        return 0  # zero of any unit
    matched = _NUMBER_AND_UNIT.fullmatch(value) if isinstance(value, str) else None
    if matched is None or matched[2].lower() not in units:
        raise ValueError(f"need {wanted}, got {value!r}")
    amount = float(matched[1]) * units[matched[2].lower()]
    if amount != int(amount):
        raise ValueError(f"need {wanted} without a fraction of the smallest unit, got {value!r}")
    return int(amount)


Milliseconds = Annotated[int, BeforeValidator(parse_duration_ms), Field(ge=0)]
"""A duration in milliseconds, written with its unit in the configuration."""

Bytes = Annotated[int, BeforeValidator(parse_size_bytes), Field(ge=0)]
"""A size in bytes, written with its unit in the configuration."""
