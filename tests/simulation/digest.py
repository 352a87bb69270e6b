"""What an object holds, in a few bytes: two that hold the same behave the same from then on.

A walk through everything, as in `forked.py`, so that state that someone adds tomorrow is seen too. Left out is what
never changes (settings, functions, expressions). Frames that wait in a list count by their rows, however they were cut.
"""

import functools
import hashlib
import marshal
from collections import Counter, defaultdict, deque
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from tests.simulation.forked import ATOMS, is_ours, slots

_PLAIN: Final = 2  # the version of marshal in which equal values have equal bytes
_SEQUENCES: Final = {list, deque, tuple}
_BUILTIN: Final = _SEQUENCES | {dict, Counter, defaultdict, set}


def digest_of(value: Any, left_out: frozenset[str] = frozenset()) -> bytes:
    """16 bytes; attributes of the names in `left_out` do not count."""
    parts: list[Any] = []
    _add(value, parts, left_out)
    return hashlib.blake2b(marshal.dumps(parts, _PLAIN), digest_size=16).digest()


def _add(value: Any, parts: list[Any], left_out: frozenset[str]) -> None:
    kind = type(value)
    if kind in ATOMS:
        parts.append(value)
    elif kind is np.ndarray:
        parts += (value.dtype.str, value.shape, value.tolist() if value.dtype == object else value.tobytes())
    elif kind is pl.DataFrame:
        parts += (repr(value.schema), value.rows())
    elif kind in _BUILTIN:
        _add_builtin(value, kind, parts, left_out)
    elif isinstance(value, Enum):
        parts.append(repr(value))
    elif (names := _names(kind)) is not None:
        parts.append(kind.__name__)
        held = getattr(value, "__dict__", {})
        for name in (*names, *held):
            if name not in left_out:
                parts.append(name)
                _add(held[name] if name in held else getattr(value, name, None), parts, left_out)


def _add_builtin(value: Any, kind: type, parts: list[Any], left_out: frozenset[str]) -> None:
    if kind is set:
        parts.append(sorted(value))  # of texts, whose order does not last
    elif kind in _SEQUENCES:
        if value and type(value[0]) is pl.DataFrame:
            _add(pl.concat(value) if len(value) > 1 else value[0], parts, left_out)
        elif ATOMS.issuperset(map(type, value)):
            parts.append(list(value))
        else:
            parts.append(len(value))
            for item in value:
                _add(item, parts, left_out)
    else:
        parts.append(len(value))
        for key, item in value.items():
            _add(key, parts, left_out)
            _add(item, parts, left_out)


@functools.cache
def _names(kind: type) -> tuple[str, ...] | None:
    """The attributes of a kind beside those in `__dict__`; None where it is nothing of ours, and never changes."""
    if issubclass(kind, msgspec.Struct):
        return kind.__struct_fields__
    if issubclass(kind, tuple):
        return kind._fields
    if is_dataclass(kind):
        return tuple(field.name for field in fields(kind))
    return slots(kind) if is_ours(kind) else None
