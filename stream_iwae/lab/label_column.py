"""A column of labels -> which rows are anomalous, and how that was understood."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stream_iwae.errors import ConfigurationError

_NORMAL: Final = frozenset({"normal", "benign", "legitimate", "legit", "none", "-", ""})
_YES: Final = frozenset({"true", "yes", "t", "y"})
_NO: Final = frozenset({"false", "no", "f", "n"})
_SHOWN: Final = 6  # values that a message names


@dataclass(frozen=True, slots=True)
class Labels:
    """What each row truly was."""

    is_anomaly: NDArray[np.bool_]  # (N,)
    explanation: str  # one line for people


def read_labels(column: pl.Series, normal: str | None = None) -> Labels:
    """Understand a column of labels.

    0 is normal and any other number an anomaly; so are false and true, no and yes. Of texts, `normal`, `benign`,
    `legitimate`, `none`, `-` and nothing at all are normal, in any case and with a full stop behind; everything
    else is an anomaly. `normal` names one or several normal values (with commas) where that is not so.

    Raises:
        ConfigurationError: It cannot be told what is normal, or all rows are alike.
    """
    if column.dtype.is_numeric() and bool((column.drop_nulls() % 1 == 0).all()):
        column = column.cast(pl.Int64)  # 1 rather than 1.0
    texts = column.cast(pl.String).fill_null("").str.strip_chars().str.to_lowercase().str.strip_chars_end(".")
    counts = dict(texts.value_counts(sort=True).iter_rows())
    ordinary = _named(normal, counts) if normal is not None else _guessed(column.name, counts)
    is_anomaly = ~texts.is_in(sorted(ordinary)).to_numpy()
    n_anomalies = int(np.count_nonzero(is_anomaly))
    if n_anomalies in {0, len(is_anomaly)}:
        found = "an anomaly" if n_anomalies else "normal"
        raise ConfigurationError(
            "--label",
            column.name,
            f"every row is {found}, so there is nothing to tell apart; it holds {_shown(counts)}",
        )
    odd = {value: n for value, n in counts.items() if value not in ordinary}
    is_normal_shown = ", ".join(repr(value) for value in counts if value in ordinary)
    share = n_anomalies / len(is_anomaly)
    return Labels(
        is_anomaly,
        f"label {column.name!r}: {n_anomalies:,} of {len(is_anomaly):,} rows ({share:.2%}) are anomalies: "
        f"{_shown(odd)}; normal is {is_normal_shown}",
    )


def _named(normal: str, counts: dict[str, int]) -> frozenset[str]:
    wanted = frozenset(part.strip().lower().removesuffix(".") for part in normal.split(","))
    if wanted.isdisjoint(counts):
        raise ConfigurationError("--normal-label", normal, f"no row has it; the label column holds {_shown(counts)}")
    return wanted


def _guessed(name: str, counts: dict[str, int]) -> frozenset[str]:
    numbers = {value: _number(value) for value in counts if value}
    if numbers and None not in numbers.values():
        zeros = frozenset({*(value for value, number in numbers.items() if number == 0), ""})
        if zeros & counts.keys():
            return zeros
    elif counts.keys() <= _YES | _NO:
        return _NO
    elif not _NORMAL.isdisjoint(counts):
        return _NORMAL
    remedy = f"cannot tell which value is normal among {_shown(counts)}; say so with --normal-label VALUE"
    raise ConfigurationError("--label", name, remedy)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(counts: dict[str, int]) -> str:
    """The most frequent values and how many they are."""
    shown = [f"{value or '(empty)'} ({n:,})" for value, n in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
