"""Events -> messages: keyed by their entity, one by one or several of the same entity together."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from stream_iwae.batches import entity_key
from stream_iwae.errors import StreamIwaeError

TIME_FIELD: Final = "ts"  # milliseconds since 1970 UTC
_SLICE_MS: Final = 1000  # far below the grace of any window
_MAX_HELD: Final = 50_000  # events


@dataclass(frozen=True, slots=True)
class Message:
    """One message: an event, or a JSON array of events."""

    key: bytes | None
    value: bytes
    n_events: int
    time_ms: float | None  # event time, where the events tell it in `ts`


@dataclass(frozen=True, slots=True)
class KeyedEvent:
    """An event as it will be sent, and what is needed to send it."""

    key: bytes | None
    value: bytes
    time_ms: float | None


def encoded(events: Iterable[Mapping[str, object]], key_fields: Sequence[str]) -> Iterator[KeyedEvent]:
    """Encode events as JSON; without key fields they have no key.

    Raises:
        StreamIwaeError: A key field is not in an event.
    """
    encode = msgspec.json.Encoder().encode
    for number, event in enumerate(events, 1):
        yield KeyedEvent(_key(event, key_fields, number), encode(event), _time_ms(event))


def from_lines(lines: Iterable[bytes], key_fields: Sequence[str], *, is_timed: bool) -> Iterator[KeyedEvent]:
    """Take NDJSON lines as they are; they are only looked into for a key or a time.

    Raises:
        StreamIwaeError: A line that has to be looked into is no JSON object, or lacks a key field.
    """
    decode = msgspec.json.Decoder(dict[str, object]).decode
    for number, line in enumerate(lines, 1):
        value = line.strip()
        if not value:
            continue
        if not key_fields and not is_timed:
            yield KeyedEvent(None, value, None)
            continue
        try:
            event = decode(value)
        except msgspec.DecodeError as error:
            raise StreamIwaeError(f"line {number} is no JSON object ({error}): {value[:80]!r}") from error
        yield KeyedEvent(_key(event, key_fields, number), value, _time_ms(event))


def one_by_one(events: Iterable[KeyedEvent]) -> Iterator[Message]:
    """Make each event a message."""
    for event in events:
        yield Message(event.key, event.value, 1, event.time_ms)


def grouped(events: Iterable[KeyedEvent], size: int) -> Iterator[Message]:
    """Put up to `size` events of one key into a message, as a JSON array.

    The order within a key is kept. Between keys, an event is overtaken by none that is a second of
    event time later: events of another second begin new messages.
    """
    held: dict[bytes | None, list[bytes]] = {}
    n_held = 0
    time_slice: float | None = None
    time_ms: float | None = None
    for event in events:
        if n_held >= _MAX_HELD or (event.time_ms is not None and event.time_ms // _SLICE_MS != time_slice):
            yield from (_array(key, values, time_ms) for key, values in held.items())
            held, n_held = {}, 0
            time_slice = None if event.time_ms is None else event.time_ms // _SLICE_MS
        time_ms = event.time_ms
        values = held.setdefault(event.key, [])
        values.append(event.value)
        n_held += 1
        if len(values) >= size:
            yield _array(event.key, held.pop(event.key), time_ms)
            n_held -= size
    yield from (_array(key, values, time_ms) for key, values in held.items())


def _array(key: bytes | None, values: Sequence[bytes], time_ms: float | None) -> Message:
    return Message(key, b"[" + b",".join(values) + b"]", len(values), time_ms)


def _key(event: Mapping[str, object], fields: Sequence[str], number: int) -> bytes | None:
    if not fields:
        return None
    try:
        return entity_key([str(event[field]) for field in fields]).encode()
    except KeyError as error:
        raise StreamIwaeError(
            f"event {number} has no field {error} to key by; its fields are {sorted(event)}"
        ) from error


def _time_ms(event: Mapping[str, object]) -> float | None:
    time_ms = event.get(TIME_FIELD)
    return time_ms if isinstance(time_ms, int | float) else None
