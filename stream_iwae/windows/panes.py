"""Rows of one pane -> aggregates per entity, directly or by way of partials that merge."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from stream_iwae.windows.aggregates import BY_VALUE, AggregateConfig, merged
from stream_iwae.windows.config import WindowsConfig

CHUNK_ROWS: Final = 65_536  # rows of one pane that are held before they are reduced
_NUMBERS: Final = (
    pl.len().cast(pl.Int64).alias("n_events"),
    pl.col("offset").min().alias("first_offset"),
    pl.col("offset").max().alias("last_offset"),
)


@dataclass(frozen=True, slots=True)
class Partial:
    """What a pane, or several, come to so far."""

    scalars: pl.DataFrame  # entity, source, n_events, first_offset, last_offset, partial columns
    counts: dict[str, pl.DataFrame]  # aggregate by value -> (entity, value, n)


@dataclass(slots=True)
class Pane:
    """The events of [start, start + pane size), until every window that needs them has closed."""

    start_ms: int
    first_offset: int
    watermark_before_ms: int  # just before the row at `first_offset`
    n_rows: int = 0
    rows: list[pl.DataFrame] = field(default_factory=list)  # not yet reduced, in offset order
    partial: Partial | None = None
    names: set[str] | None = None  # entities so far; None while they cannot have reached the bound


class Reducer:
    """Reduces and finishes panes by a fixed list of aggregates."""

    def __init__(self, config: WindowsConfig, aggregates: Sequence[AggregateConfig]) -> None:
        self._aggregates = tuple(aggregates)
        self._by_value = [aggregate for aggregate in aggregates if aggregate.aggregate in BY_VALUE]
        self._size_ms = config.size
        self._max_distinct = config.max_distinct
        self.names = [aggregate.name for aggregate in aggregates]
        self.counts = [aggregate.name for aggregate in aggregates if aggregate.aggregate == "count"]

    def direct(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows (entity, source, offset, fields) -> one finished row an entity, sorted by entity."""
        finished = [aggregate.direct(self._size_ms) for aggregate in self._aggregates]
        return rows.group_by("entity").agg(pl.col("source").last(), *_NUMBERS, *finished).sort("entity")

    def events(self, rows: pl.DataFrame) -> pl.DataFrame:
        """One finished row an event, in offset order."""
        finished = [aggregate.of_one_event(self._size_ms) for aggregate in self._aggregates]
        one = pl.lit(1, dtype=pl.Int64)
        offset = pl.col("offset")
        numbers = [one.alias("n_events"), offset.alias("first_offset"), offset.alias("last_offset")]
        return rows.select("entity", "timestamp_ms", *numbers, *finished)

    def reduce(self, rows: pl.DataFrame) -> Partial:
        """Rows in offset order -> a partial."""
        partials = [expression for aggregate in self._aggregates for expression in aggregate.partial()]
        scalars = rows.group_by("entity").agg(pl.col("source").last(), *_NUMBERS, *partials).sort("entity")
        return Partial(scalars, {aggregate.name: self._counted(aggregate, rows) for aggregate in self._by_value})

    def merge(self, parts: Sequence[Partial]) -> Partial:
        """Partials in time and offset order -> one."""
        if len(parts) == 1:
            return parts[0]
        scalars = pl.concat([part.scalars for part in parts], rechunk=True)
        columns = [name for name in scalars.columns if "." in name]
        together = scalars.group_by("entity", maintain_order=True).agg(
            pl.col("source").last(),
            pl.col("n_events").sum(),
            pl.col("first_offset").min(),
            pl.col("last_offset").max(),
            *(merged(name) for name in columns),
        )
        counts = {
            aggregate.name: self._bounded(
                pl.concat([part.counts[aggregate.name] for part in parts])
                .group_by("entity", "value")
                .agg(pl.col("n").sum())
            )
            for aggregate in self._by_value
        }
        return Partial(together.sort("entity"), counts)

    def finish(self, partial: Partial) -> pl.DataFrame:
        """A partial -> one finished row an entity, sorted by entity."""
        frame = partial.scalars
        for aggregate in self._by_value:
            finished = (
                partial.counts[aggregate.name].group_by("entity", maintain_order=True).agg(aggregate.finish_counts())
            )
            frame = frame.join(finished, on="entity", how="left")
            if aggregate.aggregate == "distinct":
                frame = frame.with_columns(pl.col(aggregate.name).fill_null(0.0))
        expressions = [aggregate.finish(self._size_ms) for aggregate in self._aggregates]
        frame = frame.with_columns(expression for expression in expressions if expression is not None)
        return frame.select("entity", "source", "n_events", "first_offset", "last_offset", *self.names).sort("entity")

    def _counted(self, aggregate: AggregateConfig, rows: pl.DataFrame) -> pl.DataFrame:
        return self._bounded(aggregate.value_counts(rows))

    def _bounded(self, counts: pl.DataFrame) -> pl.DataFrame:
        """At most `max_distinct` values an entity, the most frequent ones; sorted by entity and value."""
        if counts.height > self._max_distinct:
            ranked = counts.sort(["entity", "n", "value"], descending=[False, True, False])
            counts = ranked.group_by("entity", maintain_order=True).head(self._max_distinct)
        return counts.sort("entity", "value")
