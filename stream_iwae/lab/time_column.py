"""A column of times, however written -> milliseconds since 1970."""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

TIME_NAMES: Final = frozenset(
    {"timestamp", "time", "datetime", "date_time", "date", "ts", "stime", "start_time", "starttime", "flow_start"}
)
"""Names, without case, of columns that are taken for the time where none is named."""

_FORMATS: Final = (
    *("%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"),
    *("%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S%.f", "%Y/%m/%d %H:%M", "%Y%m%d %H:%M:%S%.f"),
    *("%d/%m/%Y %H:%M:%S%.f", "%m/%d/%Y %H:%M:%S%.f", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"),
    *("%d/%m/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"),
    *("%d.%m.%Y %H:%M:%S%.f", "%d.%m.%Y %H:%M", "%d-%m-%Y %H:%M:%S%.f", "%d-%m-%Y %H:%M"),
)
_DATES: Final = ("%Y-%m-%d", "%Y/%m/%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y")
_SAMPLE: Final = 2_000
_ENOUGH: Final = 0.95
_REGULAR: Final = 0.8  # of the steps, where things are sampled: some readings are missing or late
_UNITS: Final = ((1e17, 1e-6), (1e14, 1e-3), (1e11, 1.0))  # numbers above are ns, us, ms; the others seconds


def read_times(column: pl.Series) -> NDArray[np.int64] | None:
    """Milliseconds of each row, (N,); a missing time is that of the row before. None: these are no times.

    Numbers are seconds, milliseconds, microseconds or nanoseconds by their size.
    """
    if column.dtype.is_temporal():
        found = column.cast(pl.Datetime("ms")).cast(pl.Int64)
    elif column.dtype.is_numeric():
        found = _of_numbers(column)
    else:
        parsed = _of_texts(column)
        if parsed is None:
            return None
        found = parsed
    if found.is_null().all():
        return None
    times: NDArray[np.int64] = found.fill_null(strategy="forward").fill_null(strategy="backward").to_numpy()
    return times


def is_sampled(times: NDArray[np.int64], entities: pl.Series) -> bool:
    """Whether rows are readings at regular times, an entity's own each: most steps of time are the commonest one.

    Connections and log lines are not: they come when they come.

    Args:
        times: In milliseconds, ascending, (N,).
        entities: Whose each row is, N.

    >>> is_sampled(np.arange(5) * 60_000, pl.Series(["a"] * 5))
    True
    >>> is_sampled(np.array([0, 0, 0, 1_000, 1_000]), pl.Series(["a"] * 5))
    False
    """
    steps = pl.DataFrame({"of": entities, "ms": times}).select(pl.col("ms").diff().over("of")).to_series().drop_nulls()
    if not len(steps):
        return False
    values, counts = np.unique(steps.to_numpy(), return_counts=True)
    commonest = int(np.argmax(counts))
    return bool(values[commonest] > 0 and counts[commonest] >= _REGULAR * len(steps))


def _of_numbers(column: pl.Series) -> pl.Series:
    largest = float(column.abs().max() or 0.0)  # type: ignore[arg-type]  # a number
    factor = next((factor for limit, factor in _UNITS if largest > limit), 1_000.0)
    return (column * factor).round().cast(pl.Int64, strict=False)


def _of_texts(column: pl.Series) -> pl.Series | None:
    """By the format that reads most of a sample, and then keeps it in order best: 03/04 is March or April."""
    texts = column.str.strip_chars()
    step = max(1, len(texts) // _SAMPLE)
    sample = texts.gather_every(step).drop_nulls()
    best, best_merit = None, (_ENOUGH, -1.0)
    for form in (*_FORMATS, *_DATES):
        read = _read(sample, form).drop_nulls()
        in_order = float((read.diff().drop_nulls() >= 0).mean() or 0.0) if len(read) > 1 else 0.0  # type: ignore[arg-type]
        merit = (len(read) / max(len(sample), 1), in_order)
        if merit > best_merit:
            best, best_merit = form, merit
    return None if best is None else _read(texts, best)


def _read(texts: pl.Series, form: str) -> pl.Series:
    if form in _DATES:
        return texts.str.to_date(form, strict=False).cast(pl.Datetime("ms")).cast(pl.Int64)
    times = texts.str.to_datetime(form, strict=False, time_unit="ms")
    return times.cast(pl.Int64)
