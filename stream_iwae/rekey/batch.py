"""Re-keyed events as bytes: one message for all that one transaction has for one partition.

A message is four bytes that name kind and version, the CRC-32 of the rest, the length of a header, the header,
and the events as an Arrow stream: decoded once and for all, so that the second reader only maps columns.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import polars as pl

from stream_iwae.batches import NEVER_MS, REACHED
from stream_iwae.errors import StateError

MAX_SOURCES: Final = 100_000  # no topic has as many partitions; what says so would only cost memory
_MAGIC: Final = b"SIr1"
_PREFIX: Final = struct.Struct("<4sII")  # magic, checksum, length of the header


class Part(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What one source partition has in a message: its next events, and how far it has come with them."""

    source: int
    n_events: int
    reached_ms: int  # highest event time of the source after these events
    is_idle: bool  # it is quiet, and nobody is to wait for it
    is_history: bool  # more of what was there before the first commit is still to come


class Header(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What a message says beside the events; the events of part i follow those of part i - 1."""

    digest: str  # of the configuration that decoded the events
    n_sources: int  # partitions of the events topic
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class RekeyedBatch:
    """The events of several source partitions that belong to one partition of the re-keyed topic."""

    header: Header
    frame: pl.DataFrame  # timestamp_ms Int64, entity String, [source String], the fields, reached_ms Int64

    def __post_init__(self) -> None:
        n_events = sum(part.n_events for part in self.header.parts)
        if n_events != self.frame.height or any(part.n_events < 0 for part in self.header.parts):
            raise ValueError(f"the parts of a batch have {n_events} events, its columns {self.frame.height}")


def encode_batch(batch: RekeyedBatch, max_bytes: int) -> list[bytes]:
    """Write a batch as messages of at most `max_bytes`, in order; their effect together is that of one.

    Raises:
        ValueError: One event alone is larger.
    """
    encoded = _encode(batch)
    if len(encoded) <= max_bytes:
        return [encoded]
    if batch.frame.height <= 1:
        raise ValueError(f"one event needs {len(encoded)} bytes, more than the limit of {max_bytes}")
    head, tail = _halves(batch)
    return encode_batch(head, max_bytes) + encode_batch(tail, max_bytes)


def decode_header(value: bytes) -> Header:
    """Read what a message says beside the events.

    Raises:
        StateError: The bytes are damaged, cut, or of another kind or version.
    """
    if len(value) < _PREFIX.size:
        raise StateError(f"a message of {len(value)} bytes is no batch of re-keyed events")
    magic, checksum, n_header = _PREFIX.unpack_from(value)
    if magic != _MAGIC:
        raise StateError(f"need a batch of re-keyed events that begins with {_MAGIC!r}, got {magic!r}")
    if zlib.crc32(memoryview(value)[8:]) != checksum:
        raise StateError(f"the checksum of a batch of {len(value)} bytes differs: it is damaged")
    try:
        header = msgspec.msgpack.decode(memoryview(value)[_PREFIX.size : _PREFIX.size + n_header], type=Header)
    except msgspec.MsgspecError as error:
        raise StateError(f"the header of a batch does not decode: {error}") from error
    if header.n_sources > MAX_SOURCES or not all(_is_sound(part, header.n_sources) for part in header.parts):
        raise StateError(f"the header of a batch of {header.n_sources} sources says what cannot be")
    return header


def decode_events(value: bytes, header: Header, schema: pl.Schema) -> pl.DataFrame:
    """Read the events of a message whose header was read, one row each, in order.

    Args:
        value: The message.
        header: What `decode_header` made of it.
        schema: Columns that the events must have.

    Raises:
        StateError: The columns are others, or not as many as the header says.
    """
    n_events = sum(part.n_events for part in header.parts)
    if n_events == 0:
        return schema.to_frame()
    (n_header,) = struct.unpack_from("<I", value, 8)
    try:
        frame = pl.read_ipc_stream(io.BytesIO(value[_PREFIX.size + n_header :]))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        raise StateError(f"the events of a batch do not decode: {str(error)[:200]}") from error
    if frame.schema != schema or frame.height != n_events:
        raise StateError(f"a batch says {n_events} events and holds {frame.height} with {dict(frame.schema)}")
    return frame


def _encode(batch: RekeyedBatch) -> bytes:
    header = msgspec.msgpack.encode(batch.header)
    events = io.BytesIO()
    if batch.frame.height:
        batch.frame.write_ipc_stream(events)
    body = len(header).to_bytes(4, "little") + header + events.getvalue()
    return _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body


def _is_sound(part: Part, n_sources: int) -> bool:
    return 0 <= part.source < n_sources and part.n_events >= 0 and NEVER_MS <= part.reached_ms < -NEVER_MS


def _halves(batch: RekeyedBatch) -> tuple[RekeyedBatch, RekeyedBatch]:
    """Cut in the middle of the events; a part that is cut goes on in the second half."""
    at, header, frame = batch.frame.height // 2, batch.header, batch.frame
    head: list[Part] = []
    tail: list[Part] = []
    n = 0
    for part in header.parts:
        before, n = n, n + part.n_events
        if n <= at:
            head.append(part)
        elif before >= at:
            tail.append(part)
        else:
            reached_ms = int(frame[REACHED][at])
            head.append(Part(part.source, at - before, reached_ms, is_idle=False, is_history=part.is_history))
            tail.append(Part(part.source, n - at, part.reached_ms, part.is_idle, part.is_history))
    return _of(header, head, frame[:at]), _of(header, tail, frame[at:])


def _of(header: Header, parts: Sequence[Part], frame: pl.DataFrame) -> RekeyedBatch:
    return RekeyedBatch(Header(header.digest, header.n_sources, list(parts)), frame)
