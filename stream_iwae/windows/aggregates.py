"""What is computed of a window's events, as polars expressions: directly, or as partials that merge.

A window of few events is aggregated directly. Panes of many are reduced to partials, chunk by chunk:
numbers that add up, and counts of values, so memory is bounded by entities and distinct values, not by events.
"""

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_iwae.windows.merging import Merged
from stream_iwae.windows.value_counts import ValueCounts

Aggregation = Literal[
    "count", "sum", "mean", "std", "min", "max", "quantile",
    "distinct", "entropy", "top_share", "reach", "surge", "share", "rate", "last",
]  # fmt: skip
BY_VALUE: Final = ("distinct", "entropy", "top_share", "reach", "surge", "quantile")  # need counts of values to merge
NEEDS_NUMBERS: Final = ("sum", "mean", "std", "min", "max", "quantile", "rate")
RESERVED: Final = (  # columns of a batch beside its aggregates
    "entity", "source", "offset", "timestamp_ms", "window_start_ms", "window_end_ms",
    "n_events", "first_offset", "last_offset", "silence_p_value",
)  # fmt: skip
PAST_WINDOWS: Final = 10_080  # a week of minutes
_ERROR: Final = 0.01  # of a merged quantile, relative
_LOG_GAMMA: Final = math.log((1 + _ERROR) / (1 - _ERROR))
_MIDDLE: Final = math.log(2 / ((1 + _ERROR) / (1 - _ERROR) + 1))  # from a bucket's upper bound to its estimate
_BEYOND: Final = 40_000  # above every |bucket|: 0.02 * 40,000 > log of the greatest float


class Condition(BaseModel):
    """Which events count."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    equals: float | str | None = None
    is_in: tuple[float, ...] | tuple[str, ...] | None = Field(None, alias="in", min_length=1)
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _has_a_test(self) -> Self:
        if self.equals is None and self.is_in is None and self.at_least is None and self.at_most is None:
            raise ValueError("a condition needs equals, in, at_least or at_most")
        return self

    def compares(self) -> set[str]:
        """What the field has to be for every test to make sense: "text", "number" or, in error, both."""
        operands = [self.equals, self.at_least, self.at_most, *(self.is_in or ())]
        return {"text" if isinstance(operand, str) else "number" for operand in operands if operand is not None}

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

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    aggregate: Aggregation
    field: str | None = None
    q: float | None = Field(None, gt=0, lt=1)
    where: Condition | None = None
    past_windows: int | None = Field(None, ge=2, le=1_000_000)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.name in RESERVED:
            raise ValueError(f"{self.name!r} is a name of our own; call the aggregate something else")
        if (self.aggregate == "quantile") != (self.q is not None):
            raise ValueError(f"{self.name}: q belongs to a quantile, and it needs one")
        if self.past_windows is not None and self.aggregate != "surge":
            raise ValueError(f"{self.name}: past_windows belongs to a surge")
        if self.aggregate == "share" and self.where is None:
            raise ValueError(f"{self.name}: a share needs a condition (where)")
        if (self.field is None) != (self.aggregate in {"count", "share"}):
            raise ValueError(f"{self.name}: {self.aggregate} needs {'no' if self.field else 'a'} field")
        return self

    @property
    def _values(self) -> pl.Expr:
        """The present values of the field in the events that count."""
        if self.field is None:
            return pl.lit(None)
        column = pl.col(self.field)
        return (column if self.where is None else column.filter(self.where.expression())).drop_nulls()

    @property
    def _n_matching(self) -> pl.Expr:
        return pl.len() if self.where is None else self.where.expression().sum()

    def reads(self) -> set[str]:
        """The event fields that it needs."""
        return {name for name in (self.field, self.where.field if self.where else None) if name is not None}

    @property
    def is_counted(self) -> bool:
        """Whether counts of values give it exactly."""
        return self.aggregate in {"distinct", "entropy", "top_share", "reach", "surge"}

    # --- at once --------------------------------------------------------------------------------

    def direct(self, size_ms: int) -> pl.Expr:
        """From the rows of a group to the finished value; for those that are not counted."""
        values = self._values
        match self.aggregate:
            case "count":
                out = self._n_matching.cast(pl.Float64)
            case "share":
                out = self._n_matching / pl.len()
            case "sum":
                out = pl.when(values.len() > 0).then(values.sum())
            case "rate":
                out = pl.when(values.len() > 0).then(values.sum() * _per_second(size_ms))
            case "mean":
                out = values.mean()
            case "std":
                out = values.std(ddof=0)
            case "min":
                out = values.min()
            case "max":
                out = values.max()
            case "quantile":
                out = values.quantile(self.q or 0.5, interpolation="lower")
            case "last":
                out = values.last()
            case "distinct" | "entropy" | "top_share" | "reach" | "surge":
                raise ValueError(f"{self.name}: counted, see `finish_counts`")
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
                out = value * _per_second(size_ms)
            case "std" | "entropy":
                out = pl.when(value.is_not_null()).then(0.0)
            case "top_share" | "reach":
                out = pl.when(value.is_not_null()).then(1.0)
            case "surge":  # refused in a configuration, see `check_windows`
                out = pl.lit(None, dtype=pl.Float64)
            case "distinct":
                out = value.is_not_null().cast(pl.Float64)
            case _:
                out = value
        return out.alias(self.name)

    # --- by partials ----------------------------------------------------------------------------

    def partial(self) -> list[pl.Expr]:
        """From the rows of a group to columns that merge; none for aggregates by value."""
        values = self._values
        n, total = values.len().cast(pl.Int64).alias(f"{self.name}.n"), values.sum().alias(f"{self.name}.s")
        match self.aggregate:
            case "count" | "share":
                return [self._n_matching.cast(pl.Int64).alias(f"{self.name}.n")]
            case "sum" | "rate" | "mean":
                return [n, total]
            case "std":
                # Squares about the mean, not about zero: those would cancel for large values that vary little.
                squares = (values.var(ddof=0) * values.len()).fill_null(0.0)
                return [n, total, squares.alias(f"{self.name}.v")]
            case "min":
                return [values.min().alias(f"{self.name}.lo")]
            case "max":
                return [values.max().alias(f"{self.name}.hi")]
            case "last":
                return [values.last().alias(f"{self.name}.last")]
            case _:
                return []

    def merged(self, merged: Merged, columns: Callable[[str], Sequence[pl.Series]]) -> list[pl.Series]:
        """From the partial columns of several parts, by their name, to one of each."""
        n, total = f"{self.name}.n", f"{self.name}.s"
        match self.aggregate:
            case "count" | "share":
                return [merged.column(columns(n), "sum")]
            case "sum" | "rate" | "mean":
                return [merged.column(columns(n), "sum"), merged.column(columns(total), "sum")]
            case "std":
                counted, added = columns(n), columns(total)  # each column is there once
                squares = merged.squares(columns(f"{self.name}.v"), added, counted)
                return [merged.column(counted, "sum"), merged.column(added, "sum"), squares]
            case "min":
                return [merged.column(columns(f"{self.name}.lo"), "least")]
            case "max":
                return [merged.column(columns(f"{self.name}.hi"), "greatest")]
            case "last":
                return [merged.column(columns(f"{self.name}.last"), "last_present")]
            case _:
                return []

    def finish(self, size_ms: int) -> pl.Expr | None:
        """From merged columns to the finished value; None for aggregates by value."""
        n, total = pl.col(f"{self.name}.n"), pl.col(f"{self.name}.s")
        match self.aggregate:
            case "count":
                out = n.cast(pl.Float64)
            case "share":
                out = n / pl.col("n_events")
            case "sum":
                out = pl.when(n > 0).then(total)
            case "rate":
                out = pl.when(n > 0).then(total * _per_second(size_ms))
            case "mean":
                out = pl.when(n > 0).then(total / n)
            case "std":
                out = pl.when(n > 0).then((pl.col(f"{self.name}.v") / n).sqrt())
            case "min":
                out = pl.col(f"{self.name}.lo")
            case "max":
                out = pl.col(f"{self.name}.hi")
            case "last":
                out = pl.col(f"{self.name}.last")
            case _:
                return None
        return out.alias(self.name)

    # --- by counts of values --------------------------------------------------------------------

    @property
    def counted(self) -> str:
        """What is counted; aggregates that agree in it share one table of counts."""
        bucketed = "buckets" if self.aggregate == "quantile" else "values"
        return f"{self.field} {bucketed} {self.where.model_dump_json() if self.where else ''}"

    def counted_values(self) -> pl.Expr:
        """The value of each row that is counted, null where none is; a quantile counts logarithmic buckets."""
        column = pl.col(self.field or "")
        kept = column if self.where is None else pl.when(self.where.expression()).then(column)
        return _bucket(kept) if self.aggregate == "quantile" else kept

    def finish_counts(self, counts: ValueCounts, windows: NDArray[np.uint32]) -> NDArray[np.float64]:
        """The finished value of each entity, (E,); NaN where there is none.

        `windows` numbers the window of each entity, (E,).
        """
        n_entities = len(windows)
        match self.aggregate:
            case "distinct":
                return counts.distinct(n_entities)
            case "entropy":
                return counts.entropy(n_entities)
            case "top_share":
                return counts.top_share(n_entities)
            case "reach":
                return counts.reach(windows)
            case _:
                return _from_bucket(counts.quantile(self.q or 0.5, n_entities))


def _per_second(size_ms: int) -> float:
    """A factor and no divisor: polars divides many rows by a number in another way than one, with other last bits."""
    return 1000 / size_ms


def _bucket(column: pl.Expr) -> pl.Expr:
    """The bucket of a number; buckets order as numbers do, and zero has its own.

    Source: Masson, Rim, Lee 2019, DDSketch, section 2.
    """
    bucket = (column.abs().log() * (1 / _LOG_GAMMA)).ceil() + _BEYOND
    return pl.when(column == 0).then(0.0).otherwise(column.sign() * bucket)


def _from_bucket(bucket: NDArray[np.float64]) -> NDArray[np.float64]:
    """The number within 1 % of all in its bucket."""
    with np.errstate(over="ignore"):  # zero has no logarithm, and is told apart below
        magnitude = np.exp((np.abs(bucket) - _BEYOND) * _LOG_GAMMA + _MIDDLE)
    return np.where(bucket == 0, 0.0, np.sign(bucket) * magnitude)
