"""State as it was stored, checked before anything is made of it: shapes, types and ranges of each kind.

A checksum tells that a record is as it was written; only this tells that it is what this version writes.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, ParamSpec, TypeVar

import msgspec
from msgspec import Meta

from stream_iwae.batches import SOURCE_PREFIX
from stream_iwae.errors import StateError
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig, profile_kinds
from stream_iwae.incidents.incident import Incident, Suspicion

P = ParamSpec("P")
T = TypeVar("T")

_Moment = Annotated[int, Meta(ge=-(2**62), le=2**62)]
_Presence = tuple[Annotated[int, Meta(ge=1)], Annotated[int, Meta(ge=1, le=64)], _Moment, str]
_WholeSource = tuple[int, Annotated[int, Meta(ge=0, le=64)], _Moment, str]
_Own = tuple[Annotated[int, Meta(ge=0, le=2**62)], bytes, bytes, bytes]
_FAILURES: Final = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError)


def as_state_error(restore: Callable[P, T]) -> Callable[P, T]:
    """Let a method that restores fail by a StateError, whatever the state is."""

    @functools.wraps(restore)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return restore(*args, **kwargs)
        except _FAILURES as error:
            raise StateError(
                f"the stored state is not what this version writes ({type(error).__name__}: {str(error)[:200]}); start "
                "afresh under another kafka.group and detector"
            ) from error

    return checked


def check_state(state: Mapping[str, Mapping[str, Any]], events: EventsConfig, features: FeaturesConfig) -> None:
    """Look at every value of every kind (kind -> key -> value, as decoded).

    Raises:
        ValueError: One is of another type, shape or range.
    """
    n_counters = sum(field.counter == "cumulative" for field in events.fields.values())
    n_profiled = len(profile_kinds(features))
    for kind, values in state.items():
        msgspec.convert(values, dict[str, Any])
        check = _CHECKS.get(kind)
        for key, value in values.items():
            if check is not None:
                check(key, value, n_counters, n_profiled)


def _check_presence(key: str, value: Any, *_: int) -> None:
    msgspec.convert(value, _WholeSource if key.startswith(SOURCE_PREFIX) else _Presence)


def _check_counter(key: str, value: Any, n_counters: int, _: int) -> None:
    baseline = msgspec.convert(value, list[float])
    if len(baseline) != 1 + n_counters or not math.isfinite(baseline[0]):
        raise ValueError(f"the counters of {key!r} have {len(baseline) - 1} values, not {n_counters}, or no time")


def _check_incident(_key: str, value: Any, *_: int) -> None:
    msgspec.convert(value, Incident | Suspicion)


def _check_profile(key: str, value: Any, _: int, n_profiled: int) -> None:
    if key.startswith(SOURCE_PREFIX):
        msgspec.convert(value, list[int | bytes])
        return
    _wave, *columns = msgspec.convert(value, _Own)
    if [len(column) for column in columns] != [4 * n_profiled, 4 * n_profiled, 2 * n_profiled]:
        raise ValueError(f"the profile of {key!r} is of other than {n_profiled} features")


_CHECKS: Final[Mapping[str, Callable[..., None]]] = {
    "presence": _check_presence,
    "counters": _check_counter,
    "incidents": _check_incident,
    "profiles": _check_profile,
}
