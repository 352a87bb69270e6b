"""What is safe to commit: the oldest offset an open window needs, and what a replay from it has to know."""

from dataclasses import dataclass
from typing import Final

import msgspec

from stream_iwae.errors import StateError

METADATA_VERSION: Final = 1
MAX_METADATA_BYTES: Final = 4095  # of the broker, less a mark at the end; longer is fatal to the producer
MAX_JUMPS: Final = 64  # at most 40 bytes each


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition has come; see docs/adr/0002."""

    offset: int  # the oldest that a pane of an open window needs; else the position
    watermark_ms: int | None  # at `position`
    watermark_at_offset_ms: int | None  # just before `offset`
    position: int  # the next unread offset
    jumps: tuple[tuple[int, int], ...] = ()  # (position, watermark_ms) where the clock moved the watermark


@dataclass(frozen=True, slots=True)
class Metadata:
    """Progress as committed."""

    progress: Progress
    seq: int
    fingerprint: str
    history_until: int | None


class _Wire(msgspec.Struct):
    v: int
    wm: int | None
    wm0: int | None
    pos: int
    seq: int
    fp: str
    hist: int | None = None
    jumps: list[tuple[int, int]] = []
    by: str = ""


def encode_metadata(
    progress: Progress, seq: int, fingerprint: str, history_until: int | None, identity: str = ""
) -> str:
    """Write progress as the metadata of a committed offset; `identity` is the committing process's.

    Raises:
        StateError: It would be longer than a broker takes.
    """
    wire = _Wire(
        METADATA_VERSION,
        progress.watermark_ms,
        progress.watermark_at_offset_ms,
        progress.position,
        seq,
        fingerprint,
        history_until,
        list(progress.jumps),
        identity,
    )
    text = msgspec.json.encode(wire)
    if len(text) > MAX_METADATA_BYTES:
        raise StateError(f"commit metadata of {len(text)} bytes, the broker takes {MAX_METADATA_BYTES}")
    return text.decode()


def decode_metadata(text: str, offset: int) -> Metadata:
    """Read the metadata of a committed offset.

    Raises:
        StateError: It was not written by this service, or by another version.
    """
    try:
        wire = msgspec.json.decode(text, type=_Wire)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(
            f"the metadata of the committed offset {offset} is not ours ({error}); use another kafka.group"
        ) from error
    if wire.v != METADATA_VERSION:
        raise StateError(f"the committed progress has version {wire.v}, this service reads {METADATA_VERSION}")
    if wire.pos < offset:
        raise StateError(f"the committed offset {offset} lies beyond its own position {wire.pos}: it was moved by hand")
    progress = Progress(offset, wire.wm, wire.wm0, wire.pos, tuple(wire.jumps))
    return Metadata(progress, wire.seq, wire.fp, wire.hist)
