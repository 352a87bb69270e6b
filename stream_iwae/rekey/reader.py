"""RecordBatch of the re-keyed topic -> EventBatch: columns as they were decoded, and how far event time has come."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import REACHED, EventBatch, RecordBatch, Rejected
from stream_iwae.errors import ConfigurationError, StateError
from stream_iwae.events.decode import Decoded
from stream_iwae.events.rejections import RejectReason
from stream_iwae.rekey.batch import Header, decode_events, decode_header
from stream_iwae.rekey.merge import SourceMerge

_DETAIL_CHARS: Final = 200


class RekeyedReader:
    """Reads what a re-keyer has written; what is no batch of its is rejected as a whole."""

    def __init__(self, schema: Mapping[str, type[pl.DataType]], digest: str, forget_after_ms: int) -> None:
        """Read events of the columns that `Decoder.schema` names, as decoded under the configuration of `digest`."""
        self._schema = pl.Schema(schema)
        stored = {name: kind for name, kind in schema.items() if name != "offset"}
        self._stored = pl.Schema(stored | {REACHED: pl.Int64})
        self._digest = digest
        self.merge = SourceMerge(forget_after_ms)

    def decode(self, records: RecordBatch) -> Decoded:
        """Turn messages into the events of all of them, in offset order.

        Raises:
            ConfigurationError: The events were decoded under another configuration.
        """
        frames: list[pl.DataFrame] = []
        rejected: list[Rejected] = []
        skipped: Counter[str] = Counter()
        offsets, times_ms = records.offsets.tolist(), records.timestamps_ms.tolist()
        for offset, record_ms, value in zip(offsets, times_ms, records.values, strict=True):
            if value is None:
                skipped["empty"] += 1
                continue
            try:
                frames.append(self._events_of(value, offset, record_ms))
            except StateError as error:
                rejected.append(Rejected(RejectReason.BAD_BATCH, str(error)[:_DETAIL_CHARS], offset, value))
        whole = pl.concat(frames) if frames else self._empty()
        events = EventBatch(records.partition, whole, self.merge.reached_ms)
        return Decoded(events, tuple(rejected), skipped, len(events) + len(rejected) + skipped.total())

    def _events_of(self, value: bytes, offset: int, record_ms: int) -> pl.DataFrame:
        header = self._header(value)
        frame = decode_events(value, header, self._stored)
        before: NDArray[np.int64] = frame[REACHED].to_numpy()
        merged = self.merge.take(header, offset, record_ms, before)
        return frame.select(
            pl.lit(offset, dtype=pl.Int64).alias("offset"),
            *(name for name in self._schema if name != "offset"),
            pl.Series(REACHED, merged, dtype=pl.Int64),
        )

    def _header(self, value: bytes) -> Header:
        header = decode_header(value)
        if header.digest != self._digest:
            raise ConfigurationError(
                "kafka.topics.rekeyed",
                header.digest,
                f"the topic holds events of another configuration of events or features (now {self._digest}); name "
                "another topic, or go back to that configuration",
            )
        return header

    def _empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema={**self._schema, REACHED: pl.Int64})

    def history_end(self, records: RecordBatch, until: int) -> int:
        """The first offset that is not history, as far as these records tell; at least `until`.

        History is what was on the events topic before the re-keyer began: it ends where all sources have said that
        they have passed it. Reads ahead, and changes nothing.
        """
        ahead = self.merge.copy()
        offsets, times_ms = records.offsets.tolist(), records.timestamps_ms.tolist()
        for offset, record_ms, value in zip(offsets, times_ms, records.values, strict=True):
            if offset >= until and not ahead.is_history:
                return until
            try:
                if value is not None:
                    ahead.take(self._header(value), offset, record_ms, None)
            except StateError:
                continue  # it is rejected when its turn comes
            until = max(until, offset + 1)
        return max(until, records.next_offset) if ahead.is_history else until
