"""RecordBatch of one partition of the events -> portions of events, each beside the partition of its entity.

Pure, and the counterpart of `pipeline.py`: whatever cannot be used ends here, with the bytes and the position that
it came with, so what travels on is events alone.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import MOVES, NEVER_MS, REACHED, EventBatch, RecordBatch, Rejected
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.events.rejections import RejectReason
from stream_iwae.rekey.batch import Header, Part, RekeyedBatch
from stream_iwae.rekey.placement import partitions_of
from stream_iwae.rekey.progress import reached_of
from stream_iwae.windows.progress import Metadata

_TEXT_SHARE: Final = 2  # of a message, the largest part that the texts of one event may take


@dataclass(slots=True)
class RekeyCounts:
    """What became of the events, counted once: consumed = forwarded + rejected + skipped."""

    consumed: int = 0
    consumed_bytes: int = 0
    forwarded: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, other: "RekeyCounts") -> None:
        """Add another count to this one."""
        self.consumed += other.consumed
        self.consumed_bytes += other.consumed_bytes
        self.forwarded += other.forwarded
        self.rejected.update(other.rejected)
        self.skipped.update(other.skipped)

    @property
    def is_balanced(self) -> bool:
        """Whether every event met exactly one fate."""
        return self.consumed == self.forwarded + self.rejected.total() + self.skipped.total()


@dataclass(frozen=True, slots=True)
class Portion:
    """Events that came in one go, sorted by target partition, and how far their source has come with them."""

    source: int
    frame: pl.DataFrame | None  # None: a word without events
    bounds: NDArray[np.int64]  # (T + 1,), rows bounds[t] to bounds[t + 1] are for target t
    reached_ms: int
    is_idle: bool
    is_history: bool

    def part(self, target: int) -> tuple[Part, pl.DataFrame | None]:
        """What is for one target."""
        first, end = int(self.bounds[target]), int(self.bounds[target + 1])
        part = Part(self.source, end - first, self.reached_ms, self.is_idle, self.is_history)
        return part, self.frame[first:end] if self.frame is not None and end > first else None


@dataclass(slots=True)
class Share:
    """What one source partition has to publish since the last commit; kept until it is committed."""

    portions: list[Portion] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    counts: RekeyCounts = field(default_factory=RekeyCounts)


class SourcePartition:
    """Decodes and places the events of one partition, and knows how far it has come."""

    def __init__(
        self, events: EventsConfig, needed: Collection[str], partition: int, n_targets: int, max_message_bytes: int
    ) -> None:
        """Events whose texts take more than half of `max_message_bytes` are rejected: no message might hold them."""
        self.partition = partition
        self._decoder = Decoder(events, needed)
        self._texts = [name for name, kind in self._decoder.schema.items() if kind == pl.String]
        self._n_targets = n_targets
        self._max_text_bytes = max_message_bytes // _TEXT_SHARE
        self._share = Share()
        self.position = 0
        self.reached_ms = NEVER_MS
        self.is_idle = False
        self.history_until: int | None = None

    # --- flow --------------------------------------------------------------------------------

    def process(self, records: RecordBatch) -> None:
        """Take the next records, none of which lie on both sides of `history_until`."""
        decoded = self._decoder.decode(records)
        frame, too_large = self._without_large(decoded.events.frame, records)
        counts = self._share.counts
        counts.consumed += decoded.n_consumed
        counts.consumed_bytes += sum(len(value) for value in records.values if value is not None)
        counts.forwarded += frame.height
        counts.rejected.update(rejected.reason for rejected in (*decoded.rejected, *too_large))
        counts.skipped.update(decoded.skipped)
        self._share.rejected += sorted((*decoded.rejected, *too_large), key=lambda rejected: rejected.offset)
        self._move_to(records.next_offset)
        self.is_idle = False
        self._tell(frame)

    def skip_to(self, position: int) -> None:
        """Move over offsets that hold no records for us (transaction markers)."""
        was_history = self.history_until is not None
        self._move_to(position)
        if was_history and self.history_until is None:
            self._tell(None)

    def mark_idle(self) -> None:
        """Say that nobody is to wait for this partition until it has events again."""
        self.is_idle = True
        self._tell(None)

    def _move_to(self, position: int) -> None:
        self.position = max(self.position, position)
        if self.history_until is not None and self.position >= self.history_until:
            self.history_until = None

    def _tell(self, frame: pl.DataFrame | None) -> None:
        if frame is None:
            self._share.portions.append(self.word())
            return
        placed, bounds = self._placed(frame)
        self._share.portions.append(replace(self.word(), frame=placed, bounds=bounds))

    def word(self) -> Portion:
        """Where the partition stands, without events."""
        bounds = np.zeros(self._n_targets + 1, dtype=np.int64)
        is_history = self.history_until is not None
        return Portion(self.partition, None, bounds, self.reached_ms, self.is_idle, is_history)

    def _placed(self, frame: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64]]:
        """Sort by target, in order of their coming within each, with the time reached just before each."""
        moves = EventBatch(self.partition, frame).moves_ms
        reached = np.maximum.accumulate(np.concatenate([[self.reached_ms], moves]))  # (N + 1,)
        self.reached_ms = int(reached[-1])
        targets = partitions_of(frame["entity"].to_list(), self._n_targets)
        order = np.argsort(targets, kind="stable")
        frame = frame.drop("offset", MOVES, strict=False).with_columns(
            pl.Series(REACHED, reached[:-1], dtype=pl.Int64)
        )[order]
        return frame, np.searchsorted(targets[order], np.arange(self._n_targets + 1))

    def _without_large(self, frame: pl.DataFrame, records: RecordBatch) -> tuple[pl.DataFrame, list[Rejected]]:
        if max(map(len, filter(None, records.values)), default=0) <= self._max_text_bytes // len(self._texts):
            return frame, []  # even if each of its texts were the whole record
        size = pl.sum_horizontal(pl.col(name).str.len_bytes().fill_null(0) for name in self._texts)
        is_large = frame.select(is_large=size > self._max_text_bytes).to_series()
        rejected = []
        for offset in frame.filter(is_large)["offset"].to_list():
            value = records.values[int(np.searchsorted(records.offsets, offset))] or b""
            detail = f"the texts of the event have more than {self._max_text_bytes} bytes"
            rejected.append(Rejected(RejectReason.TOO_LARGE, detail, offset, value))
        return frame.filter(~is_large), rejected

    # --- what is published and kept ----------------------------------------------------------

    @property
    def share(self) -> Share:
        """What waits to be published."""
        return self._share

    def take_share(self) -> Share:
        """What has to be published now; the next one begins empty."""
        taken, self._share = self._share, Share()
        return taken

    def begin(self, offset: int, history_until: int | None) -> None:
        """Begin fresh at `offset`; what lies before `history_until` is history."""
        self.history_until = history_until
        self._move_to(offset)
        self._tell(None)

    def restore(self, metadata: Metadata) -> None:
        """Go on from a commit, and say that we are there."""
        self.reached_ms = reached_of(metadata)
        self.history_until = metadata.history_until
        self._move_to(metadata.progress.position)
        self._tell(None)


def compose(portions: Collection[Portion], n_targets: int, n_sources: int, digest: str) -> Mapping[int, RekeyedBatch]:
    """One batch for each target partition, of the portions in the order given; none where there are no portions."""
    batches: dict[int, RekeyedBatch] = {}
    for target in range(n_targets if portions else 0):
        parts, frames = zip(*(portion.part(target) for portion in portions), strict=True)
        kept = [frame for frame in frames if frame is not None]
        whole = pl.concat(kept) if kept else pl.DataFrame()
        batches[target] = RekeyedBatch(Header(digest, n_sources, list(parts)), whole)
    return batches
