"""RecordBatch -> EventBatch, whatever the topic holds: events as they came, or batches of re-keyed ones."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from stream_iwae.batches import RecordBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.counters import SERIES_AN_ENTITY, CounterTracker
from stream_iwae.events.decode import Decoded, Decoder
from stream_iwae.rekey.config import RekeyConfig
from stream_iwae.rekey.progress import events_digest
from stream_iwae.rekey.reader import RekeyedReader
from stream_iwae.state import KeyedState


class Intake:
    """Decodes the records of one partition and takes the differences of its counters."""

    def __init__(
        self, events: EventsConfig, needed: Collection[str], rekey: RekeyConfig | None, max_entities: int
    ) -> None:
        decoder = Decoder(events, needed)
        self._rekeyed: RekeyedReader | None = None
        if rekey is not None:
            self._rekeyed = RekeyedReader(decoder.schema, events_digest(events, needed), rekey.forget_after)
        self._reader: Decoder | RekeyedReader = self._rekeyed or decoder
        self._counters = CounterTracker(events, SERIES_AN_ENTITY * max_entities)

    def read(self, records: RecordBatch) -> Decoded:
        """What became of the records; samples of a counter that have no difference are skipped."""
        decoded = self._reader.decode(records)
        events, without_difference = self._counters.difference(decoded.events)
        return replace(decoded, events=events, skipped=Counter(decoded.skipped) + Counter(without_difference))

    def history_end(self, records: RecordBatch, until: int) -> int:
        """The first offset that is not history, as far as these records tell; at least `until`."""
        return until if self._rekeyed is None else self._rekeyed.history_end(records, until)

    @property
    def is_history(self) -> bool:
        """Whether what was read last belonged to the history, by what the records themselves say."""
        return self._rekeyed is not None and self._rekeyed.merge.is_history

    # --- what is kept ------------------------------------------------------------------------

    def settle(self, offset: int) -> None:
        """Persist what the records below `offset` have changed; those from there on are replayed."""
        self._counters.settle(offset)
        if self._rekeyed is not None:
            self._rekeyed.merge.settle(offset)

    @property
    def states(self) -> dict[str, KeyedState[Any]]:
        """Each kind of state by its name."""
        counters: dict[str, KeyedState[Any]] = {"counters": self._counters.state}
        return counters if self._rekeyed is None else counters | {"sources": self._rekeyed.merge.state}

    def restore(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Go on from a persisted state; the records from its offset on are replayed."""
        self._counters.restore(state.get("counters", {}))
        if self._rekeyed is not None:
            self._rekeyed.merge.restore(state.get("sources", {}))
