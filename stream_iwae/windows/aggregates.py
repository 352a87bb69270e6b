"""What is computed of a window's events, as polars expressions: directly, or as partials that merge.

A pane of few events is aggregated directly. One of many is reduced to partials, chunk by chunk: numbers
that add up in `scalars`, and counts of values in one long table an aggregate, so memory is bounded by
entities and distinct values, not by events.
"""

from typing import Any, Final, Literal, Self

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

Aggregation = Literal[
    "count", "sum", "mean", "std", "min", "max", "quantile", "distinct", "entropy", "top_share", "share", "rate", "last"
]
BY_VALUE: Final = ("distinct", "entropy", "top_share", "quantile")  # need counts of values to merge
_GAMMA: Final = 1.02  # of the quantile's buckets: 1 % relative error (Masson, Rim, Lee 2019, DDSketch)


class Condition(BaseModel):
    """Which events count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    equals: float | str | None = None
    is_in: tuple[float | str, ...] | None = Field(None, alias="in")
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _has_a_test(self) -> Self:
        if self.equals is None and self.is_in is None and self.at_least is None and self.at_most is None:
            raise ValueError("a condition needs equals, in, at_least or at_most")
        return self

    def expression(self) -> pl.Expr:
        """True where the event meets the condition; a missing value never does."""
        column = pl.col(self.field)
        tests = []
        if self.equals is not None:
            tests.append(column == self.equals)
        if self.is_in is not None:
            tests.append(column.is_in(list(self.is_in)))
        if self.at_least is not None:
            tests.append(column >= self.at_least)
        if self.at_most is not None:
            tests.append(column <= self.at_most)
        return pl.all_horizontal(tests).fill_null(value=False)


class AggregateConfig(BaseModel):
    """One number, or text, of a window."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    aggregate: Aggregation
    field: str | None = None
    q: float | None = Field(None, gt=0, lt=1)
    where: Condition | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.aggregate == "quantile") != (self.q is not None):
            raise ValueError(f"{self.name}: q belongs to a quantile, and it needs one")
        if self.aggregate == "share" and self.where is None:
            raise ValueError(f"{self.name}: a share needs a condition (where)")
        if (self.field is None) != (self.aggregate in {"count", "share"}):
            raise ValueError(f"{self.name}: {self.aggregate} needs {'no' if self.field else 'a'} field")
        return self

    @property
    def _values(self) -> pl.Expr:
        """The present values of the field in the events that count."""
        column = pl.col(self.field or "")
        return (column if self.where is None else column.filter(self.where.expression())).drop_nulls()

    @property
    def _n_matching(self) -> pl.Expr:
        return pl.len() if self.where is None else self.where.expression().sum()

    def direct(self, size_ms: int) -> pl.Expr:
        """From the rows of a group to the finished value."""
        values = self._values if self.field is not None else pl.lit(None)
        match self.aggregate:
            case "count":
                out = self._n_matching.cast(pl.Float64)
            case "share":
                out = self._n_matching / pl.len()
            case "sum":
                out = pl.when(values.len() > 0).then(values.sum())
            case "rate":
                out = pl.when(values.len() > 0).then(values.sum() / (size_ms / 1000))
            case "mean":
                out = values.mean()
            case "std":
                out = values.std(ddof=0)
            case "min":
                out = values.min()
            case "max":
                out = values.max()
            case "quantile":
                out = values.quantile(self.q or 0.5, interpolation="linear")
            case "distinct":
                out = values.n_unique().cast(pl.Float64)
            case "entropy":
                out = pl.when(values.len() > 0).then(values.unique_counts().entropy())
            case "top_share":
                out = values.unique_counts().max() / values.len()
            case "last":
                out = values.last()
        return out.alias(self.name)

    def of_one_event(self, size_ms: int) -> pl.Expr:
        """The finished value of a window that is a single event, as a column expression."""
        column = pl.col(self.field or "")
        counts = pl.lit(value=True) if self.where is None else self.where.expression()
        value = column if self.where is None else pl.when(counts).then(column)
        match self.aggregate:
            case "count" | "share":
                out = counts.cast(pl.Float64)
            case "rate":
                out = value / (size_ms / 1000)
            case "std" | "entropy":
                out = pl.when(value.is_not_null()).then(0.0)
            case "top_share":
                out = pl.when(value.is_not_null()).then(1.0)
            case "distinct":
                out = value.is_not_null().cast(pl.Float64)
            case _:
                out = value
        return out.alias(self.name)

    # --- partials ----------------------------------------------------------------------------

    def partial(self) -> list[pl.Expr]:
        """From the rows of a group to columns that merge; none for aggregates by value."""
        name, values = self.name, self._values if self.field is not None else pl.lit(None)
        match self.aggregate:
            case "count" | "share":
                return [self._n_matching.cast(pl.Int64).alias(f"{name}.n")]
            case "sum" | "rate" | "mean":
                return [values.len().cast(pl.Int64).alias(f"{name}.n"), values.sum().alias(f"{name}.s")]
            case "std":
                return [
                    values.len().cast(pl.Int64).alias(f"{name}.n"),
                    values.sum().alias(f"{name}.s"),
                    (values * values).sum().alias(f"{name}.q"),
                ]
            case "min":
                return [values.min().alias(f"{name}.lo")]
            case "max":
                return [values.max().alias(f"{name}.hi")]
            case "last":
                return [values.last().alias(f"{name}.last")]
            case _:
                return []

    def finish(self, size_ms: int) -> pl.Expr | None:
        """From merged columns to the finished value; None for aggregates by value."""
        n, s = pl.col(f"{self.name}.n"), pl.col(f"{self.name}.s")
        match self.aggregate:
            case "count":
                out = n.cast(pl.Float64)
            case "share":
                out = n / pl.col("n_events")
            case "sum":
                out = pl.when(n > 0).then(s)
            case "rate":
                out = pl.when(n > 0).then(s / (size_ms / 1000))
            case "mean":
                out = pl.when(n > 0).then(s / n)
            case "std":
                variance = pl.col(f"{self.name}.q") / n - (s / n) * (s / n)
                out = pl.when(n > 0).then(pl.max_horizontal(variance, 0.0).sqrt())
            case "min":
                out = pl.col(f"{self.name}.lo")
            case "max":
                out = pl.col(f"{self.name}.hi")
            case "last":
                out = pl.col(f"{self.name}.last")
            case _:
                return None
        return out.alias(self.name)

    def value_counts(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Long table (entity, value, n) of an aggregate by value; a quantile counts logarithmic buckets."""
        kept = rows if self.where is None else rows.filter(self.where.expression())
        value = pl.col(self.field or "")
        if self.aggregate == "quantile":
            value = value.sign() * (value.abs().log1p() / _LOG_GAMMA).ceil()
        counted = kept.select("entity", value=value).drop_nulls("value").group_by("entity", "value").agg(n=pl.len())
        return counted.with_columns(pl.col("n").cast(pl.Int64))

    def finish_counts(self) -> pl.Expr:
        """From a group of the long table, sorted by value, to the finished value."""
        n = pl.col("n")
        match self.aggregate:
            case "distinct":
                out = pl.len().cast(pl.Float64)
            case "entropy":
                out = n.entropy()
            case "top_share":
                out = n.max() / n.sum()
            case _:
                bucket = pl.col("value").filter(n.cum_sum() >= (self.q or 0.5) * n.sum()).first()
                # The middle of a bucket of log1p, undone.
                out = bucket.sign() * (((bucket.abs() - 0.5) * _LOG_GAMMA).exp() - 1.0).clip(lower_bound=0.0)
        return out.alias(self.name)


_LOG_GAMMA: Final = 0.019802627296179712  # log(1.02)


def merged(name: str) -> Any:
    """How a partial column of that name merges: by its suffix."""
    suffix = name.rpartition(".")[2]
    column = pl.col(name)
    if suffix == "lo":
        return column.min()
    if suffix == "hi":
        return column.max()
    if suffix == "last":
        return column.drop_nulls().last()
    return column.sum()
