"""A CSV or parquet file -> a table of numbers and texts, whatever the file's habits."""

import difflib
import gzip
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import polars as pl

from stream_iwae.errors import ConfigurationError
from stream_iwae.windows.aggregates import RESERVED

_MISSING: Final = ("", "na", "n/a", "nan", "null", "none", "?", "nil", "<na>")  # of numbers, in lower case
_INFINITE: Final = ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
_NUMERIC_SHARE: Final = 0.95  # of a column's values that must read as numbers; the others are then missing
_SEPARATORS: Final = (",", ";", "\t", "|")
_PARQUET: Final = (".parquet", ".pq")
TABLE_SUFFIXES: Final = (".csv", ".tsv", ".txt", ".data", ".csv.gz", ".csv.zst", ".tsv.gz", ".data.gz", *_PARQUET)


def is_table_file(name: str) -> bool:
    """Whether the name of a data set is that of a file of ours to read."""
    return name.lower().endswith(TABLE_SUFFIXES)


def read_table(path: Path, *, has_header: bool = True) -> pl.DataFrame:
    """Read a whole file; names are stripped, texts too, and columns of numbers are Float64.

    A column holds numbers if nearly all of its values are; what is none there is missing, and so is
    infinity. Without a header the columns are called column_1, column_2, ...

    Raises:
        ConfigurationError: There is no such file, it cannot be read, or it holds no rows.
    """
    if not path.is_file():
        raise ConfigurationError("--dataset", str(path), "there is no such file")
    try:
        if path.suffix.lower() in _PARQUET:
            frame = pl.read_parquet(path)
        else:
            frame = pl.read_csv(
                path,
                has_header=has_header,
                separator=_separator(path),
                infer_schema=False,  # decided here, over all rows rather than over the first
                truncate_ragged_lines=True,
                encoding="utf8-lossy",
            )
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigurationError("--dataset", str(path), f"cannot be read as a table: {reason}") from error
    if not frame.height:
        raise ConfigurationError("--dataset", str(path), "it has no rows")
    names = _unique(name.strip().strip("\ufeff").strip('"') for name in frame.columns)
    frame = frame.rename(dict(zip(frame.columns, names, strict=True)))
    return frame.select(_typed(frame[name]) for name in names)


def find_column(frame: pl.DataFrame, wanted: str, option: str) -> str:
    """The column that somebody means: exactly, or but for case, spaces and underscores.

    Raises:
        ConfigurationError: There is none; names those there are.
    """
    if wanted in frame.columns:
        return wanted
    alike = [name for name in frame.columns if _plain(name) == _plain(wanted)]
    if len(alike) == 1:
        return alike[0]
    close = difflib.get_close_matches(wanted, frame.columns, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ConfigurationError(
        option,
        wanted,
        f"no such column; {hint}There are: {', '.join(map(repr, frame.columns))}. "
        "If the file has no header line, add --no-header: its columns are then called column_1, column_2, ...",
    )


def safe_names(names: Iterable[str]) -> list[str]:
    """Names as features may have them: small letters, digits and underscores, at most 64, none twice.

    >>> safe_names(["Flow Bytes/s", "flow bytes s", "2nd", "source"])
    ['flow_bytes_s', 'flow_bytes_s_2', 'f_2nd', 'f_source']
    """
    plain = (re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "column" for name in names)
    return _unique((name if name[0].isalpha() and name not in RESERVED else f"f_{name}")[:60] for name in plain)


def _unique(names: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    found = []
    for name in names:
        number, unique = 1, name
        while unique in seen:
            number += 1
            unique = f"{name}_{number}"
        seen.add(unique)
        found.append(unique)
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _separator(path: Path) -> str:
    """The most frequent candidate of the first line, outside of quotes."""
    first = b""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        if path.suffix != ".zst":
            first = file.readline(1_000_000)
    text = re.sub(r'"[^"]*"', "", first.decode("utf-8", "replace"))
    return max(_SEPARATORS, key=text.count)


def _typed(column: pl.Series) -> pl.Series:
    """Float64 where the values are numbers, String otherwise; Datetime and Date stay as they are."""
    if column.dtype.is_numeric():
        return _finite(column.cast(pl.Float64))
    if column.dtype == pl.Boolean:
        return column.cast(pl.String)
    if column.dtype.is_temporal():
        return column
    texts = column.cast(pl.String, strict=False).str.strip_chars().str.strip_chars('"')
    plain = texts.str.to_lowercase()
    is_there = ~plain.is_in(_MISSING).fill_null(value=True)
    numbers = texts.cast(pl.Float64, strict=False)
    n_there = int(is_there.sum())
    is_infinite = plain.is_in(_INFINITE)
    n_numbers = int((is_there & (numbers.is_not_null() | is_infinite)).sum())
    if n_there and n_numbers >= _NUMERIC_SHARE * n_there:
        return _finite(numbers)
    return texts.replace("", None)


def _finite(numbers: pl.Series) -> pl.Series:
    is_finite = numbers.is_finite().fill_null(value=False)
    return numbers.to_frame("x").select(pl.when(pl.Series(is_finite)).then(pl.col("x")))["x"].alias(numbers.name)
