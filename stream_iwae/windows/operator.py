"""EventBatch -> WindowBatch: event-time windows per entity, closed by the watermark.

Every event belongs to one pane; windows merge panes. An event is late if its pane's end is at or before
the watermark at its offset, so where a poll cuts the log changes nothing. Progress and replay: docs/adr/0002.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import OTHER_ENTITY, REACHED, EventBatch, WindowBatch
from stream_iwae.state import KeyedState
from stream_iwae.windows.aggregates import AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.known import cuts_at_waves
from stream_iwae.windows.panes import Pane, Reducer
from stream_iwae.windows.presence import Absence, Presence
from stream_iwae.windows.presence_table import Record
from stream_iwae.windows.progress import MAX_JUMPS, Progress
from stream_iwae.windows.value_past import ValuePasts

Times = TypeVar("Times", int, NDArray[np.int64])
_NEVER: Final = -(2**62)  # a watermark before all time
_DIRECT_ROWS: Final = 262_144  # of several small windows that are aggregated in one go
_LEADING: Final = {
    "entity": pl.String,
    "window_start_ms": pl.Int64,
    "window_end_ms": pl.Int64,
    "n_events": pl.Int64,
    "first_offset": pl.Int64,
    "last_offset": pl.Int64,
    "silence_p_value": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class Windowed:
    """What became of the events of one batch, and the windows that closed."""

    windows: WindowBatch
    n_aggregated: int
    n_late: int
    n_folded: int  # of the aggregated ones: into `other`


class WindowOperator:
    """Windows of one partition: open panes, the watermark, and who is usually there."""

    def __init__(self, config: WindowsConfig, aggregates: Sequence[AggregateConfig], partition: int) -> None:
        self._config = config
        self._partition = partition
        self._reducer = Reducer(config, aggregates)
        self._presence = Presence(config)
        self._panes: dict[int, Pane] = {}  # by start
        self._watermark_ms = _NEVER
        self._closed_until_ms = _NEVER  # end of the last wave of windows that was emitted, or was empty
        self._jumps: list[tuple[int, int]] = []
        self._known_at = _NEVER  # the last wave closed before the rows that are being added
        self._refilling: Progress | None = None  # what a restart began from, until the replay has caught up
        self._nothing: pl.DataFrame | None = None  # no rows, once the types of the columns are known

    # --- flow --------------------------------------------------------------------------------

    def add(self, events: EventBatch, next_offset: int) -> Windowed:
        """Take in events in offset order; closes what the watermark has passed."""
        frame = events.frame
        if "source" not in frame.columns:
            frame = frame.with_columns(source=pl.lit("", dtype=pl.String))
        self._learn_types(frame)
        if self._config.kind == "record":
            return Windowed(self._record_windows(replace(events, frame=frame)), frame.height, 0, 0)
        times = frame["timestamp_ms"].to_numpy()
        offsets = frame["offset"].to_numpy()
        before, watermarks = self._watermarks(events, offsets)
        if self._may_fold(frame.height):
            parts = cuts_at_waves(self._wave_at(before))
            if len(parts) > 1:  # each fold is to know what the waves before it have shown
                return self._add_in_parts(events, parts, before, next_offset)
            self._known_at = int(self._wave_at(before[:1])[0])
        starts = times - times % self._config.pane
        is_late = starts + self._config.pane <= watermarks
        rows = frame.select(self._reducer.columns)
        n_folded = 0
        for start, at in _by_pane(starts, is_late):
            if self._last_end(start) <= self._closed_until_ms:
                continue  # a replay: all its windows were emitted before
            pane = self._panes.get(start)
            if pane is None:
                pane = Pane(start, int(offsets[at[0]]), int(before[at[0]]))
                self._panes[start] = pane
            n_folded += self._fill(pane, rows if len(at) == rows.height else rows[at])
        if len(times):
            self._watermark_ms = int(watermarks[-1])
        if events.reached_ms is not None:
            self._watermark_ms = max(self._watermark_ms, events.reached_ms - self._config.grace)
        self._watermark_ms = max(self._watermark_ms, self._jump_at(next_offset))
        self._catch_up(next_offset)
        n_late = int(np.count_nonzero(is_late))
        return Windowed(self._close(), frame.height - n_late, n_late, n_folded)

    def _may_fold(self, n_rows: int) -> bool:
        limit = self._config.max_entities
        return n_rows > 0 and max((pane.n_rows for pane in self._panes.values()), default=0) + n_rows > limit

    def _add_in_parts(
        self, events: EventBatch, parts: list[tuple[int, int]], before: NDArray[np.int64], next_offset: int
    ) -> Windowed:
        frame, several = events.frame, []
        for start, stop in parts:
            after, reached_ms = next_offset, events.reached_ms
            if stop < frame.height:
                after = int(frame["offset"][stop])
                reached_ms = None if reached_ms is None else int(before[stop]) + self._config.grace
            several.append(self.add(replace(events, frame=frame[start:stop], reached_ms=reached_ms), after))
        windows = self._batch([one.windows.frame for one in several if len(one.windows)])
        return Windowed(
            windows,
            sum(one.n_aggregated for one in several),
            sum(one.n_late for one in several),
            sum(one.n_folded for one in several),
        )

    def advance(self, watermark_ms: int, position: int) -> WindowBatch:
        """Move the watermark of a quiet partition; remembered, so that a replay does the same.

        It moves to ends of panes alone, as nothing else depends on it. Where the jumps to remember are too
        many for the commit's metadata, it waits until it can close every pane, which needs no memory.
        """
        self._catch_up(position)
        watermark_ms -= watermark_ms % self._config.pane
        if self._config.kind == "record" or watermark_ms <= self._watermark_ms:
            return self._batch([])
        jumps = [jump for jump in self._jumps if jump[0] != position]
        closes_all = all(self._last_end(start) <= watermark_ms for start in self._panes)
        if len(jumps) >= MAX_JUMPS and not closes_all:
            return self._batch([])
        self._jumps = [] if closes_all else [*jumps, (position, watermark_ms)]
        self._watermark_ms = watermark_ms
        return self._close()

    def _watermarks(
        self, events: EventBatch, offsets: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The watermark just before each event, and with it, (N,) both."""
        if events.reached_ms is None:
            reached = np.maximum.accumulate(np.maximum(events.moves_ms - self._config.grace, self._watermark_ms))
            before = np.concatenate([np.array([self._watermark_ms]), reached[:-1]]) if len(reached) else reached
        else:  # re-keyed: it does not follow from the events that are here
            before = np.maximum(events.frame[REACHED].to_numpy() - self._config.grace, self._watermark_ms)
            reached = before
        for position, watermark_ms in self._jumps:
            jumped = np.where(offsets >= position, watermark_ms, _NEVER)
            reached, before = np.maximum(reached, jumped), np.maximum(before, jumped)
        return before, reached

    def _jump_at(self, next_offset: int) -> int:
        return max((to for position, to in self._jumps if position <= next_offset), default=_NEVER)

    def _fill(self, pane: Pane, rows: pl.DataFrame) -> int:
        """Add rows to a pane; returns how many were folded."""
        is_folded = self._is_folded(pane, rows["entity"])
        if is_folded is not None:
            entity = pl.when(is_folded).then(pl.lit(OTHER_ENTITY)).otherwise(pl.col("entity"))
            rows = rows.with_columns(entity=entity)
        self._reducer.hold(pane, rows)
        return 0 if is_folded is None else int(is_folded.sum())

    def _is_folded(self, pane: Pane, entities: pl.Series) -> pl.Series | None:
        """The first `max_entities` entities of a pane keep their names, and who is known; others become `other`."""
        limit = self._config.max_entities
        if pane.names is None:
            if pane.n_rows + len(entities) <= limit:
                return None
            held = [part["entity"] for part in (*pane.rows, *(partial.scalars for partial in pane.partials))]
            pane.names = set().union(*(part.to_list() for part in held))
        unknown = []
        for entity in entities.unique(maintain_order=True).to_list():
            if entity not in pane.names:
                if len(pane.names) < limit:
                    pane.names.add(entity)
                else:
                    unknown.append(entity)
        if not unknown:
            return None
        is_known = self._presence.known(unknown, self._known_at, self._closed_until_ms, self._last_end(pane.start_ms))
        pane.names.update(entity for entity, known in zip(unknown, is_known, strict=True) if known)
        unknown = [entity for entity, known in zip(unknown, is_known, strict=True) if not known]
        return entities.is_in(unknown) if unknown else None

    # --- closing -----------------------------------------------------------------------------

    def _close(self) -> WindowBatch:
        """Emit every window that the watermark has passed, in waves of equal end."""
        reached = self._wave_at(self._watermark_ms)
        if reached <= self._closed_until_ms:
            return self._batch([])
        frames = []
        for finished in self._finished(self._due_ends(reached)):
            frames.append(self._with_leading(finished))
            if self._config.absent_windows:
                waves = finished.partition_by("window_end_ms", as_dict=True, maintain_order=True)
                for (end,), wave in waves.items():
                    frames += self._quiet_waves(end - self._config.step)
                    frames += self._wave(end, wave["entity"].to_list(), wave["source"].fill_null("").to_list())
        frames += self._quiet_waves(reached)
        self._panes = {start: pane for start, pane in self._panes.items() if self._last_end(start) > reached}
        return self._batch(frames)

    def _finished(self, ends: Sequence[int]) -> Iterator[pl.DataFrame]:
        """The windows that end then, sorted by end and entity; small ones together, as each call has its price."""
        small: list[tuple[int, list[Pane]]] = []
        n_rows = 0
        for end in ends:
            start = end - self._config.size
            held = [self._panes[at] for at in range(start, end, self._config.pane) if at in self._panes]
            is_small, n_more = self._reducer.is_small(held), sum(pane.n_rows for pane in held)
            if small and (not is_small or n_rows + n_more > _DIRECT_ROWS):
                yield self._reducer.direct(small)
                small, n_rows = [], 0
            if is_small:
                small.append((end, held))
                n_rows += n_more
            else:
                yield self._reducer.by_partials(end, held)
        if small:
            yield self._reducer.direct(small)

    def _wave(self, end: int, entities: Sequence[str], sources: Sequence[str]) -> list[pl.DataFrame]:
        """Empty windows of those who are missing in one wave."""
        self._closed_until_ms = end
        absences = self._presence.wave(end, entities, sources)
        return [self._empty_windows(absences, end)] if absences else []

    def _quiet_waves(self, until: int) -> list[pl.DataFrame]:
        """Waves up to `until` in which nobody was there, while there is anybody to miss."""
        frames: list[pl.DataFrame] = []
        while self._closed_until_ms < until and not self._presence.is_empty:
            frames += self._wave(self._closed_until_ms + self._config.step, [], [])
        self._closed_until_ms = max(self._closed_until_ms, until)
        return frames

    def _due_ends(self, reached: int) -> list[int]:
        """Ends up to `reached` of windows that have events and were not emitted before."""
        step, after = self._config.step, self._closed_until_ms
        due: set[int] = set()
        for start in self._panes:
            due.update(range(max(self._first_end(start), after + step), min(self._last_end(start), reached) + 1, step))
        return sorted(due)

    def _wave_at(self, watermark_ms: Times) -> Times:
        """The last end of any window at or before the watermark, or each of several."""
        step, phase = self._config.step, self._config.size % self._config.step
        return (watermark_ms - phase) // step * step + phase

    def _first_end(self, start: int) -> int:
        """End of the first window that holds the pane."""
        step, size = self._config.step, self._config.size
        return -(-(start + self._config.pane - size) // step) * step + size

    def _last_end(self, start: int) -> int:
        """End of the last window that holds the pane."""
        return start // self._config.step * self._config.step + self._config.size

    # --- rows --------------------------------------------------------------------------------

    def _record_windows(self, events: EventBatch) -> WindowBatch:
        """Each event a row, in offset order: another order would depend on where a poll cuts."""
        frame = events.frame
        if frame.height:
            self._watermark_ms = max(self._watermark_ms, int(events.moves_ms.max()))
        rows = self._reducer.events(frame)
        time = pl.col("timestamp_ms")
        rows = rows.with_columns(
            window_start_ms=time, window_end_ms=time + 1, silence_p_value=pl.lit(None, dtype=pl.Float64)
        )
        return WindowBatch(self._partition, rows.select(*_LEADING, *self._reducer.names))

    def _with_leading(self, finished: pl.DataFrame) -> pl.DataFrame:
        frame = finished.with_columns(
            window_start_ms=pl.col("window_end_ms") - self._config.size,
            silence_p_value=pl.lit(None, dtype=pl.Float64),
        )
        return frame.select(*_LEADING, *self._reducer.names)

    def _empty_windows(self, absences: list[Absence], end: int) -> pl.DataFrame:
        n = len(absences)
        columns: dict[str, Any] = {
            "entity": [absence.entity for absence in absences],
            "window_start_ms": [end - self._config.size] * n,
            "window_end_ms": [end] * n,
            "n_events": [0] * n,
            "silence_p_value": [absence.silence_p_value for absence in absences],
            **{name: [0.0] * n for name in self._reducer.counts},
        }
        return pl.DataFrame(columns, schema_overrides={name: _LEADING[name] for name in columns if name in _LEADING})

    def _learn_types(self, frame: pl.DataFrame) -> None:
        """Types of the aggregates' columns, from the first batch that came, even an empty one."""
        if self._nothing is None:
            rows = self._reducer.events(frame.clear())
            self._nothing = _empty_frame({name: rows.schema[name] for name in self._reducer.names})

    def _batch(self, frames: list[pl.DataFrame]) -> WindowBatch:
        nothing = self._nothing
        if nothing is None:
            nothing = _empty_frame(dict.fromkeys(self._reducer.names, pl.Float64))
        if not frames:
            return WindowBatch(self._partition, nothing)
        whole = pl.concat([nothing, *frames], how="diagonal_relaxed", rechunk=True)
        return WindowBatch(self._partition, whole.sort("window_end_ms", "entity") if len(frames) > 1 else whole)

    # --- what is kept ------------------------------------------------------------------------

    def progress(self, position: int) -> Progress:
        """What is safe to commit when everything below `position` has been added."""
        if self._refilling is not None and position <= self._refilling.position:
            return self._refilling  # open windows are not whole yet, and nothing new has had an effect
        self._catch_up(position)
        # Elements of one record share its offset: of two panes that begin there, the one that began earlier counts.
        oldest = min(self._panes.values(), key=lambda pane: (pane.first_offset, pane.watermark_before_ms), default=None)
        offset = position if oldest is None else oldest.first_offset
        before = self._watermark_ms if oldest is None else oldest.watermark_before_ms
        self._jumps = [jump for jump in self._jumps if jump[0] > offset]
        return Progress(
            offset=offset,
            watermark_ms=_known(self._watermark_ms),
            watermark_at_offset_ms=_known(before),
            position=position,
            jumps=tuple(self._jumps),
        )

    def restore(self, progress: Progress) -> None:
        """Begin again at `progress.offset`; windows that were emitted are not emitted again in the replay."""
        self._panes = {}
        self._watermark_ms = _or_never(progress.watermark_at_offset_ms)
        self._closed_until_ms = self._wave_at(_or_never(progress.watermark_ms))
        self._jumps = list(progress.jumps)
        self._refilling = progress
        self._catch_up(progress.offset)

    def _catch_up(self, position: int) -> None:
        """End the replay where it has reached what was committed."""
        if self._refilling is not None and position >= self._refilling.position:
            self._watermark_ms = max(self._watermark_ms, _or_never(self._refilling.watermark_ms))
            self._refilling = None

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which windows are closed; None before the first event."""
        restored = _NEVER if self._refilling is None else _or_never(self._refilling.watermark_ms)
        return _known(max(self._watermark_ms, restored))

    @property
    def n_open_windows(self) -> int:
        """Entities in panes that wait, each counted anew when its rows have doubled."""
        return sum(pane.count_entities() for pane in self._panes.values())

    @property
    def pasts(self) -> ValuePasts:
        """What was usual for the values of fields."""
        return self._reducer.pasts

    @property
    def presence(self) -> KeyedState[Record]:
        """Who was there in the last windows."""
        return self._presence.state


def _by_pane(starts: NDArray[np.int64], is_late: NDArray[np.bool_]) -> list[tuple[int, NDArray[np.intp]]]:
    """Start of each pane, and the rows that it takes in, in offset order."""
    taken = np.flatnonzero(~is_late)
    if not len(taken):
        return []
    order = taken[np.argsort(starts[taken], kind="stable")]
    cuts = np.flatnonzero(np.diff(starts[order])) + 1
    return [(int(starts[rows[0]]), rows) for rows in np.split(order, cuts)]


def _empty_frame(types: Mapping[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(schema={**_LEADING, **types})


def _known(watermark_ms: int) -> int | None:
    return None if watermark_ms == _NEVER else watermark_ms


def _or_never(watermark_ms: int | None) -> int:
    return _NEVER if watermark_ms is None else watermark_ms
