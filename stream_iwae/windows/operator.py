"""EventBatch -> WindowBatch: event-time windows per entity, closed by the watermark.

Every event belongs to one pane; windows merge panes. An event is late if its pane's end is at or before
the watermark at its offset, so where a poll cuts the log changes nothing. Progress and replay: docs/adr/0002.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.batches import OTHER_ENTITY, EventBatch, WindowBatch
from stream_iwae.state import KeyedState
from stream_iwae.windows import panes
from stream_iwae.windows.aggregates import AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.panes import Pane, Partial, Reducer
from stream_iwae.windows.presence import Absence, Presence, Record
from stream_iwae.windows.progress import Progress

_NEVER: Final = -(2**62)  # a watermark before all time
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
        self._swallowed_until_ms = _NEVER  # windows that end at or before it were emitted before a restart
        self._last_wave_ms: int | None = None  # end of the last wave that presence has seen
        self._jumps: list[tuple[int, int]] = []
        self._schema: dict[str, Any] = {}

    # --- flow --------------------------------------------------------------------------------

    def add(self, events: EventBatch, next_offset: int) -> Windowed:
        """Take in events in offset order; closes what the watermark has passed."""
        frame = events.frame
        if "source" not in frame.columns:
            frame = frame.with_columns(source=pl.lit("", dtype=pl.String))
        self._learn_types(frame)
        if self._config.kind == "record":
            return Windowed(self._record_windows(frame), frame.height, 0, 0)
        times = frame["timestamp_ms"].to_numpy()
        offsets = frame["offset"].to_numpy()
        watermarks = self._watermarks(times, offsets)
        starts = times - times % self._config.pane
        is_late = starts + self._config.pane <= watermarks
        before = np.concatenate([[self._watermark_ms], watermarks[:-1]]) if len(times) else watermarks
        n_folded = 0
        for start in np.unique(starts[~is_late]).tolist():
            rows = np.flatnonzero((starts == start) & ~is_late)
            pane = self._panes.get(start)
            if pane is None:
                pane = Pane(start, int(offsets[rows[0]]), int(before[rows[0]]))
                self._panes[start] = pane
            part = frame if len(rows) == frame.height else frame[rows]
            n_folded += self._fill(pane, part)
        if len(times):
            self._watermark_ms = int(watermarks[-1])
        self._watermark_ms = max(self._watermark_ms, self._jump_at(next_offset))
        n_late = int(np.count_nonzero(is_late))
        return Windowed(self._close(), frame.height - n_late, n_late, n_folded)

    def advance(self, watermark_ms: int, position: int) -> WindowBatch:
        """Move the watermark of a quiet partition; remembered, so that a replay does the same."""
        if self._config.kind == "record" or watermark_ms <= self._watermark_ms:
            return self._batch([])
        self._jumps = [jump for jump in self._jumps if jump[0] != position]
        self._jumps.append((position, watermark_ms))
        self._watermark_ms = watermark_ms
        return self._close()

    def _watermarks(self, times: NDArray[np.int64], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        """The watermark at each event, itself included, (N,)."""
        reached = np.maximum.accumulate(np.maximum(times - self._config.grace, self._watermark_ms))
        for position, watermark_ms in self._jumps:
            reached = np.where(offsets >= position, np.maximum(reached, watermark_ms), reached)
        return reached

    def _jump_at(self, next_offset: int) -> int:
        return max((to for position, to in self._jumps if position <= next_offset), default=_NEVER)

    def _fill(self, pane: Pane, rows: pl.DataFrame) -> int:
        """Add rows to a pane, reducing each CHUNK_ROWS of them; returns how many were folded."""
        rows, n_folded = self._fold(pane, rows)
        pane.n_rows += rows.height
        while rows.height:
            room = panes.CHUNK_ROWS - sum(part.height for part in pane.rows)
            pane.rows.append(rows[:room])
            rows = rows[room:]
            if rows.height or room == pane.rows[-1].height:
                self._reduce(pane)
        return n_folded

    def _reduce(self, pane: Pane) -> None:
        if pane.rows:
            reduced = self._reducer.reduce(pl.concat(pane.rows, rechunk=True))
            pane.partial = reduced if pane.partial is None else self._reducer.merge([pane.partial, reduced])
            pane.rows = []

    def _fold(self, pane: Pane, rows: pl.DataFrame) -> tuple[pl.DataFrame, int]:
        """The first `max_entities` entities of a pane keep their names; later ones become `other`."""
        limit = self._config.max_entities
        if pane.names is None:
            if pane.n_rows + rows.height <= limit:
                return rows, 0
            parts = [part["entity"] for part in pane.rows]
            parts += [pane.partial.scalars["entity"]] if pane.partial is not None else []
            pane.names = set(pl.concat(parts)) if parts else set()
        names = pane.names
        for entity in rows["entity"].unique(maintain_order=True):
            if len(names) >= limit:
                break
            names.add(entity)
        is_known = rows["entity"].is_in(list(names))
        n_folded = rows.height - int(is_known.sum())
        if n_folded:
            entity = pl.when(is_known).then(pl.col("entity")).otherwise(pl.lit(OTHER_ENTITY))
            rows = rows.with_columns(entity=entity)
        return rows, n_folded

    # --- closing -----------------------------------------------------------------------------

    def _close(self) -> WindowBatch:
        """Emit every window that the watermark has passed, in waves of equal end."""
        frames = []
        due = self._due_ends()
        while (end := self._next_wave(due)) is not None:
            wave = self._wave(end)
            present = dict(zip(wave["entity"], wave["source"].fill_null(""), strict=True))
            self._last_wave_ms = end
            if wave.height:
                frames.append(self._leading(wave.drop("source"), end))
            if self._config.absent_windows:
                absences = self._presence.wave(end, present)
                if absences:
                    frames.append(self._empty(absences, end))
        self._panes = {start: pane for start, pane in self._panes.items() if self._last_end(start) > self._watermark_ms}
        return self._batch(frames)

    def _due_ends(self) -> deque[int]:
        """Ends, at or before the watermark, of windows that have events and were not emitted before."""
        step, after = self._config.step, self._last_wave_ms
        ends = {
            end
            for start in self._panes
            for end in range(self._first_end(start), self._last_end(start) + 1, step)
            if end <= self._watermark_ms and (after is None or end > after)
        }
        return deque(sorted(ends))

    def _next_wave(self, due: deque[int]) -> int | None:
        """The next wave with events, or before it one without, while there is anybody to miss."""
        if self._last_wave_ms is not None and len(self._presence.state):
            quiet = self._last_wave_ms + self._config.step
            if quiet <= self._watermark_ms and (not due or quiet < due[0]):
                return quiet
        return due.popleft() if due else None

    def _first_end(self, start: int) -> int:
        """End of the first window that holds the pane."""
        step, size = self._config.step, self._config.size
        first_start = -(-(start + self._config.pane - size) // step) * step
        return first_start + size

    def _last_end(self, start: int) -> int:
        """End of the last window that holds the pane."""
        return start // self._config.step * self._config.step + self._config.size

    def _wave(self, end: int) -> pl.DataFrame:
        """All windows that end then: one finished row an entity, sorted."""
        start = end - self._config.size
        held = [self._panes[at] for at in range(start, end, self._config.pane) if at in self._panes]
        if not held:
            return pl.DataFrame(schema={"entity": pl.String, "source": pl.String})
        if len(held) == 1 and held[0].partial is None and self._config.pane == self._config.size:
            return self._reducer.direct(pl.concat(held[0].rows, rechunk=True))
        return self._reducer.finish(self._reducer.merge([self._reduced(pane) for pane in held]))

    def _reduced(self, pane: Pane) -> Partial:
        self._reduce(pane)
        if pane.partial is None:
            raise RuntimeError(f"pane {pane.start_ms} holds no events")
        return pane.partial

    # --- rows --------------------------------------------------------------------------------

    def _record_windows(self, frame: pl.DataFrame) -> WindowBatch:
        if frame.height:
            self._watermark_ms = max(self._watermark_ms, int(frame["timestamp_ms"].max()))  # type: ignore[arg-type]
        rows = self._reducer.events(frame)
        time = pl.col("timestamp_ms")
        rows = rows.with_columns(
            window_start_ms=time, window_end_ms=time + 1, silence_p_value=pl.lit(None, dtype=pl.Float64)
        )
        return WindowBatch(self._partition, rows.select(*_LEADING, *self._reducer.names))

    def _leading(self, wave: pl.DataFrame, end: int) -> pl.DataFrame:
        return wave.with_columns(
            window_start_ms=pl.lit(end - self._config.size, dtype=pl.Int64),
            window_end_ms=pl.lit(end, dtype=pl.Int64),
            silence_p_value=pl.lit(None, dtype=pl.Float64),
        )

    def _empty(self, absences: list[Absence], end: int) -> pl.DataFrame:
        n = len(absences)
        return pl.DataFrame(
            {
                "entity": [absence.entity for absence in absences],
                "window_start_ms": [end - self._config.size] * n,
                "window_end_ms": [end] * n,
                "n_events": [0] * n,
                "silence_p_value": [absence.silence_p_value for absence in absences],
                **{name: [0.0] * n for name in self._reducer.counts},
            },
            schema_overrides={
                name: kind for name, kind in _LEADING.items() if name not in {"first_offset", "last_offset"}
            },
        )

    def _learn_types(self, frame: pl.DataFrame) -> None:
        """Types of the aggregates' columns, from the first batch that came, even an empty one."""
        if not self._schema:
            rows = self._reducer.events(frame.clear())
            self._schema = {name: rows.schema[name] for name in self._reducer.names}

    def _batch(self, frames: list[pl.DataFrame]) -> WindowBatch:
        schema: dict[str, Any] = {**_LEADING, **(self._schema or dict.fromkeys(self._reducer.names, pl.Float64))}
        empty = pl.DataFrame(schema=schema)
        whole = pl.concat([empty, *(frame for frame in frames if frame.height)], how="diagonal_relaxed", rechunk=True)
        return WindowBatch(self._partition, whole.sort("window_end_ms", "entity", "first_offset", maintain_order=True))

    # --- what is kept ------------------------------------------------------------------------

    def progress(self, position: int) -> Progress:
        """What is safe to commit when everything below `position` has been added."""
        oldest = min(self._panes.values(), key=lambda pane: pane.first_offset, default=None)
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
        """Begin again at `progress.offset`; windows that were emitted are swallowed in the replay."""
        unknown = progress.watermark_at_offset_ms is None
        self._watermark_ms = _NEVER if unknown else int(progress.watermark_at_offset_ms or 0)
        self._swallowed_until_ms = _NEVER if progress.watermark_ms is None else progress.watermark_ms
        self._jumps = list(progress.jumps)
        self._panes = {}
        if progress.watermark_ms is not None:
            phase = self._config.size % self._config.step
            self._last_wave_ms = (progress.watermark_ms - phase) // self._config.step * self._config.step + phase

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which windows are closed; None before the first event."""
        return _known(max(self._watermark_ms, self._swallowed_until_ms))

    @property
    def n_open_windows(self) -> int:
        """Entities in panes that still wait; an upper bound by rows where they are not yet reduced."""
        return sum(
            pane.partial.scalars.height if pane.partial is not None else pane.n_rows for pane in self._panes.values()
        )

    @property
    def presence(self) -> KeyedState[Record]:
        """Who was there in the last windows."""
        return self._presence.state


def _known(watermark_ms: int) -> int | None:
    return None if watermark_ms == _NEVER else watermark_ms
