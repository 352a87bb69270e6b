"""Rows of panes -> aggregates per entity, directly or by way of partials that merge."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.windows.aggregates import BY_VALUE, PAST_WINDOWS, AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.merging import Merged, Merging
from stream_iwae.windows.value_counts import ValueCounts, numbered
from stream_iwae.windows.value_past import ValuePasts

CHUNK_ROWS: Final = 65_536  # rows of one pane that are held before they are reduced
_MAX_PARTS: Final = 64  # frames that wait to be joined; small polls would leave thousands
_NUMBERS: Final = (
    pl.col("source").last(),
    pl.len().cast(pl.Int64).alias("n_events"),
    pl.col("offset").min().alias("first_offset"),
    pl.col("offset").max().alias("last_offset"),
)
_MERGED_NUMBERS: Final[Mapping[str, Merging]] = {
    "source": "last",
    "n_events": "sum",
    "first_offset": "least",
    "last_offset": "greatest",
}


@dataclass(frozen=True, slots=True)
class Partial:
    """What rows of one pane, or of several, come to."""

    scalars: pl.DataFrame  # (E,): entity, source, n_events, first_offset, last_offset, partial columns
    counts: dict[str, list[ValueCounts]]  # what is counted -> counts that add up, entities numbered by `scalars`


@dataclass(slots=True)
class Pane:
    """The events of [start, start + pane size), until every window that needs them has closed."""

    start_ms: int
    first_offset: int
    watermark_before_ms: int  # just before the row at `first_offset`
    n_rows: int = 0
    rows: list[pl.DataFrame] = field(default_factory=list)  # not yet reduced, in offset order
    n_held: int = 0  # in `rows`
    partials: list[Partial] = field(default_factory=list)  # of the rows before, in offset order
    names: set[str] | None = None  # entities so far; None while they cannot have reached the bound
    n_entities: int = 0  # when last counted
    n_counted: int = 0  # rows then

    def count_entities(self) -> int:
        """About how many entities there are: counting again for every poll would cost more than the windows."""
        if self.n_rows >= 2 * self.n_counted:
            self.n_counted = self.n_rows
            held = [part["entity"] for part in (*self.rows, *(partial.scalars for partial in self.partials))]
            self.n_entities = pl.concat(held).n_unique() if held else 0
        return self.n_entities


class Reducer:
    """Reduces and finishes panes by a fixed list of aggregates."""

    def __init__(self, config: WindowsConfig, aggregates: Sequence[AggregateConfig]) -> None:
        self._aggregates = tuple(aggregates)
        self._by_value = [aggregate for aggregate in aggregates if aggregate.aggregate in BY_VALUE]
        self._counted = {aggregate.counted: aggregate.counted_values() for aggregate in self._by_value}
        self._size_ms = config.size
        self._is_tumbling = config.pane == config.size  # a pane is of one window
        surges = [aggregate for aggregate in self._by_value if aggregate.aggregate == "surge"]
        self.pasts = ValuePasts({surge.name: surge.past_windows or PAST_WINDOWS for surge in surges})
        self._max_distinct = config.max_distinct
        self._max_rows = CHUNK_ROWS * config.pane // config.size
        fields = {name for aggregate in aggregates for name in aggregate.reads()}
        self.columns = ["entity", "source", "offset", *sorted(fields)]
        self.names = [aggregate.name for aggregate in aggregates]
        self.counts = [aggregate.name for aggregate in aggregates if aggregate.aggregate == "count"]

    def events(self, rows: pl.DataFrame) -> pl.DataFrame:
        """One finished row an event, in offset order."""
        finished = [aggregate.of_one_event(self._size_ms) for aggregate in self._aggregates]
        one = pl.lit(1, dtype=pl.Int64)
        offset = pl.col("offset")
        numbers = [one.alias("n_events"), offset.alias("first_offset"), offset.alias("last_offset")]
        return rows.select("entity", "timestamp_ms", *numbers, *finished)

    # --- filling --------------------------------------------------------------------------------

    def hold(self, pane: Pane, rows: pl.DataFrame) -> None:
        """Add rows to a pane, and reduce each CHUNK_ROWS of them: the cuts are the pane's own, not a poll's."""
        pane.n_rows += rows.height
        while rows.height:
            part = rows[: CHUNK_ROWS - pane.n_held]
            pane.rows.append(part)
            pane.n_held += part.height
            rows = rows[part.height :]
            if pane.n_held == CHUNK_ROWS:
                pane.partials.append(self._reduce(pl.concat(pane.rows, rechunk=True)))
                pane.rows, pane.n_held = [], 0
                self._compact(pane)
        if len(pane.rows) > _MAX_PARTS:
            pane.rows = [pl.concat(pane.rows, rechunk=True)]

    def _compact(self, pane: Pane) -> None:
        """Merge once the newer partials outweigh the first, so that memory is bounded and work stays linear."""
        rows = [partial.scalars.height for partial in pane.partials]
        tables = ([table for partial in pane.partials for table in partial.counts[name]] for name in self._counted)
        if _outweigh(rows) or any(_outweigh(list(map(len, several))) for several in tables):
            pane.partials = [self._merge(pane.partials, is_whole=False, is_last_use=True)]

    # --- closing --------------------------------------------------------------------------------

    def is_small(self, panes: Iterable[Pane]) -> bool:
        """Whether a window's panes are aggregated directly; depends on what they hold alone."""
        return all(pane.n_rows < self._max_rows for pane in panes)

    def direct(self, windows: Sequence[tuple[int, Sequence[Pane]]]) -> pl.DataFrame:
        """Small windows (end, panes in time order) -> one finished row an entity, sorted by end and entity."""
        rows = pl.concat([part for _, panes in windows for pane in panes for part in pane.rows], rechunk=True)
        groups, _ = numbered(rows["entity"])
        ends = pl.lit(windows[0][0], dtype=pl.Int64)
        window = np.zeros(rows.height, dtype=np.uint32)
        if len(windows) > 1:
            heights = [sum(pane.n_rows for pane in panes) for _, panes in windows]
            ends = pl.col("window_end_ms").first()
            rows = rows.with_columns(window_end_ms=np.repeat([end for end, _ in windows], heights))
            window = np.repeat(np.arange(len(windows), dtype=np.uint32), heights)
            groups, _ = numbered(pl.Series(window.astype(np.uint64) << np.uint64(32) | groups))
        finished = [aggregate.direct(self._size_ms) for aggregate in self._aggregates if not aggregate.is_counted]
        grouped = rows.with_columns(group=groups).group_by("group")
        out = grouped.agg(pl.col("entity").first(), ends.alias("window_end_ms"), *_NUMBERS, *finished).sort("group")
        window_of = np.empty(out.height, dtype=np.uint32)
        window_of[groups] = window
        return out.with_columns(*self._by_counts(rows, groups, window_of)).sort("window_end_ms", "entity")

    def _by_counts(
        self, rows: pl.DataFrame, groups: NDArray[np.uint32], window_of: NDArray[np.uint32]
    ) -> list[pl.Series]:
        """The aggregates that counts of values give sooner than the rows of each group, whose windows are (G,)."""
        aggregates = [aggregate for aggregate in self._by_value if aggregate.is_counted]
        columns = rows.select(**{aggregate.counted: self._counted[aggregate.counted] for aggregate in aggregates})
        counts = {column.name: ValueCounts.count(groups, column) for column in columns}
        return [
            pl.Series(
                aggregate.name, self._of_counts(aggregate, counts[aggregate.counted], window_of), nan_to_null=True
            )
            for aggregate in aggregates
        ]

    def _of_counts(
        self, aggregate: AggregateConfig, counts: ValueCounts, window_of: NDArray[np.uint32]
    ) -> NDArray[np.float64]:
        """The finished value of each entity, (E,); a surge takes its windows into the past."""
        if aggregate.aggregate == "surge":
            return self.pasts[aggregate.name].surge(counts, window_of)
        return aggregate.finish_counts(counts, window_of)

    def by_partials(self, end: int, panes: Sequence[Pane]) -> pl.DataFrame:
        """One window of many events -> one finished row an entity, sorted by entity."""
        partials = [partial for pane in panes for partial in self._partials(pane)]
        merged = self._merge(partials, is_whole=True, is_last_use=self._is_tumbling)
        return self._finish(merged).with_columns(window_end_ms=pl.lit(end, dtype=pl.Int64))

    # --- partials -------------------------------------------------------------------------------

    def _partials(self, pane: Pane) -> list[Partial]:
        """All that a pane holds; the watermark has passed its end, so nothing comes later."""
        if self.is_small([pane]):
            if not pane.partials:  # the rows stay: another window of the pane may be small
                pane.partials.append(self._reduce(pl.concat(pane.rows, rechunk=True)))
        elif pane.rows:
            pane.partials.append(self._reduce(pl.concat(pane.rows, rechunk=True)))
            pane.rows, pane.n_held = [], 0
        return pane.partials

    def _reduce(self, rows: pl.DataFrame) -> Partial:
        """Rows in offset order -> a partial."""
        numbers, entities = numbered(rows["entity"])
        partials = [expression for aggregate in self._aggregates for expression in aggregate.partial()]
        grouped = rows.with_columns(number=numbers).group_by("number").agg(*_NUMBERS, *partials).sort("number")
        scalars = grouped.select(entities.alias("entity"), pl.exclude("number"))
        counted = rows.select(**self._counted)
        counts = {
            name: [ValueCounts.count(numbers, counted[name]).bounded(self._max_distinct)] for name in self._counted
        }
        return Partial(scalars, counts)

    def _merge(self, parts: Sequence[Partial], *, is_whole: bool, is_last_use: bool) -> Partial:
        """Partials in time and offset order -> one.

        Counts are added up where the newer ones outweigh the first: an entity may have many values, and all pairs would
        be sorted anew for each few entities. `is_whole`: in any case.
        `is_last_use`: what is merged is let go at once, so that the whole is not held twice; entities' names remain.
        """
        if len(parts) == 1 and all(len(tables) == 1 for tables in parts[0].counts.values()):
            return parts[0]
        numbers, entities = numbered(pl.concat([part.scalars["entity"] for part in parts], rechunk=True))
        renamed = np.split(numbers, np.cumsum([part.scalars.height for part in parts])[:-1])
        merged = Merged(renamed, len(entities))

        def of_parts(name: str) -> list[pl.Series]:
            return [part.scalars.drop_in_place(name) if is_last_use else part.scalars[name] for part in parts]

        columns = [merged.column(of_parts(name), how) for name, how in _MERGED_NUMBERS.items()]
        columns += [column for aggregate in self._aggregates for column in aggregate.merged(merged, of_parts)]
        counts = {}
        for name in self._counted:
            tables = [(table, rows) for part, rows in zip(parts, renamed, strict=True) for table in part.counts[name]]
            if is_last_use:
                for part in parts:
                    part.counts[name] = []
            if is_whole or _outweigh([len(table) for table, _ in tables]):
                counts[name] = [ValueCounts.merge(tables).bounded(self._max_distinct)]
            else:
                counts[name] = [table.renumbered(rows) for table, rows in tables]
        return Partial(pl.DataFrame([entities.alias("entity"), *columns]), counts)

    def _finish(self, partial: Partial) -> pl.DataFrame:
        """A partial -> one finished row an entity, sorted by entity."""
        frame = partial.scalars
        one_window = np.zeros(frame.height, dtype=np.uint32)
        columns: list[pl.Series | pl.Expr] = []
        for aggregate in self._aggregates:
            expression = aggregate.finish(self._size_ms)
            if expression is not None:
                columns.append(expression)
            else:
                (counts,) = partial.counts[aggregate.counted]
                found = self._of_counts(aggregate, counts, one_window)
                columns.append(pl.Series(aggregate.name, found, nan_to_null=True))
        leading = ("entity", "source", "n_events", "first_offset", "last_offset")
        return frame.select(*leading, *columns).sort("entity")


def _outweigh(sizes: Sequence[int]) -> bool:
    """Whether what came after the first is more than it."""
    return sum(sizes[1:]) > max(sizes[0], CHUNK_ROWS)
