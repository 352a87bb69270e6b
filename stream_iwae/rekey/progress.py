"""How far the events of one source partition have been re-keyed, as committed beside its offset.

Nothing is held open: what lies below the offset has had all its effects, so the offset is the position.
"""

import hashlib
from collections.abc import Collection

from stream_iwae.batches import NEVER_MS
from stream_iwae.events.config import EventsConfig
from stream_iwae.windows.progress import Metadata, Progress, encode_metadata


def events_digest(events: EventsConfig, needed: Collection[str]) -> str:
    """16 hex digits that change with whatever gives re-keyed events another meaning."""
    text = f"{events.model_dump_json()}\n{sorted(needed)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fingerprint(digest: str, n_targets: int) -> str:
    """What must not change between two commits: the events' meaning, and where entities go."""
    return f"{digest}/{n_targets}"


def encode_position(
    position: int, reached_ms: int, seq: int, mark: str, history_until: int | None, identity: str = ""
) -> str:
    """Write a position as the metadata of a committed offset."""
    reached = None if reached_ms == NEVER_MS else reached_ms
    return encode_metadata(Progress(position, reached, reached, position), seq, mark, history_until, identity)


def reached_of(metadata: Metadata) -> int:
    """The highest event time that was reached, NEVER_MS where there was none."""
    reached_ms = metadata.progress.watermark_ms
    return NEVER_MS if reached_ms is None else reached_ms
