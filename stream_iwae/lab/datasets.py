"""Public data sets as streams of events, their labels apart.

No label is ever part of an event: events are what a detector may see, `labels` is what it is judged
by, row for row. Both are read from the packed file as they go and hold one row at a time.
"""

import gzip
import lzma
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final, cast

from stream_iwae.errors import ConfigurationError, StreamIwaeError

Event = Mapping[str, str | int | float]

KDD_COLUMNS: Final = (
    *("duration", "protocol_type", "service", "flag", "src_bytes", "dst_bytes", "land", "wrong_fragment"),
    *("urgent", "hot", "num_failed_logins", "logged_in", "num_compromised", "root_shell", "su_attempted"),
    *("num_root", "num_file_creations", "num_shells", "num_access_files", "num_outbound_cmds"),
    *("is_host_login", "is_guest_login", "count", "srv_count", "serror_rate", "srv_serror_rate", "rerror_rate"),
    *("srv_rerror_rate", "same_srv_rate", "diff_srv_rate", "srv_diff_host_rate", "dst_host_count"),
    *("dst_host_srv_count", "dst_host_same_srv_rate", "dst_host_diff_srv_rate", "dst_host_same_src_port_rate"),
    *("dst_host_srv_diff_host_rate", "dst_host_serror_rate", "dst_host_srv_serror_rate", "dst_host_rerror_rate"),
    "dst_host_srv_rerror_rate",
)
"""Columns 0 to 40 of KDD Cup 1999 and NSL-KDD, as the events name them."""

KDD_CATEGORIES: Final = ("protocol_type", "service", "flag")  # its texts; numbers show by themselves what they are
SMD_COLUMNS: Final = tuple(f"m{column:02}" for column in range(38))


class DatasetError(StreamIwaeError):
    """A file of a data set is not there."""


@dataclass(frozen=True, slots=True)
class _Dataset:
    file: str
    entity: str  # the field to key by
    parse: Callable[[int, bytes], Event]  # from row number and line
    label_file: str | None
    label: Callable[[bytes], str | None]
    in_order: Callable[[Iterable[bytes]], Iterator[bytes]] = iter  # applied to events and labels alike


def names() -> tuple[str, ...]:
    """List the data sets there are."""
    return tuple(_DATASETS)


def entity_field(name: str) -> str:
    """Name the field that a topic of this data set is keyed by."""
    return _find(name).entity


def events(name: str, data_dir: Path) -> Iterator[Event]:
    """Read the events of a data set, in the order of its file and of time.

    Each has `ts`, its time in milliseconds since 1970 UTC. DARPA 1998 has real time, a minute
    coarse. KDD Cup 1999 and NSL-KDD have none: a row a second; SMD has a row a minute; each from an
    arbitrary but fixed day on. KDD events name the data set as their `sensor`, SMD events the machine
    as their `host`, so that there is something to key by.

    Raises:
        ConfigurationError: There is no data set of this name.
        DatasetError: Its file is missing; the message names both.
    """
    dataset = _find(name)
    with _open(name, dataset.file, data_dir) as lines:
        for row, line in enumerate(dataset.in_order(lines)):
            yield dataset.parse(row, line)


def labels(name: str, data_dir: Path) -> Iterator[str | None]:
    """Read what each event of `events` truly was: the name of an attack, or None for a normal one.

    Raises:
        ConfigurationError: There is no data set of this name, or it has no labels.
        DatasetError: Its file is missing.
    """
    dataset = _find(name)
    if dataset.label_file is None:
        raise ConfigurationError("data set", name, "its rows have no labels; take the test part")
    with _open(name, dataset.label_file, data_dir) as lines:
        for line in dataset.in_order(lines):
            yield dataset.label(line)


def data_directory(directory: Path | None) -> Path:
    """Take `directory`, or `shared/data` beside the project's own directory."""
    return directory or Path(__file__).resolve().parents[3] / "shared" / "data"


def _find(name: str) -> _Dataset:
    if name not in _DATASETS:
        raise ConfigurationError("data set", name, f"it is none of {', '.join(_DATASETS)}")
    return _DATASETS[name]


def _open(name: str, file: str, data_dir: Path) -> BinaryIO:
    path = data_dir / file
    if not path.is_file():
        remedy = "name the directory that holds it with --data or in STREAM_IWAE_DATA"
        raise DatasetError(f"data set {name}: {path} is missing; {remedy}")
    return cast("BinaryIO", lzma.open(path) if path.suffix == ".xz" else gzip.open(path))


# --- KDD Cup 1999 and NSL-KDD ----------------------------------------------------------------


def _kdd(file: str, sensor: str, year: int) -> _Dataset:
    first_ms = _epoch_ms(datetime(year, 1, 1, tzinfo=UTC))

    def parse(row: int, line: bytes) -> Event:
        values = line.decode().split(",")
        event: dict[str, str | int | float] = {"ts": first_ms + row * 1000, "sensor": sensor}
        for column, value in zip(KDD_COLUMNS, values, strict=False):  # the label and a grade follow
            event[column] = _number(value)
        return event

    return _Dataset(file, "sensor", parse, file, _kdd_label)


def _kdd_label(line: bytes) -> str | None:
    label = line.split(b",")[41].strip().rstrip(b".").decode()
    return None if label == "normal" else label


@lru_cache(maxsize=65_536)  # most values come back thousands of times
def _number(text: str) -> str | int | float:
    """Read a number as a number, and anything else as text."""
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return text


# --- DARPA 1998 ------------------------------------------------------------------------------


_DARPA_DIGITS: Final = (slice(0, 2), slice(3, 5), slice(6, 10), slice(11, 13), slice(14, 16))  # MM/DD/YYYY-HH:MM


def _darpa_in_order(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Move ten rows of 07/32/1998 05:31, which the file has before 08/01/1998 00:00, to their minute.

    Where they stand they would make every later event of that last night late.
    """
    early: deque[bytes] = deque()
    for line in lines:
        if b"/32/" in line:
            early.append(line)
            continue
        while early and _darpa_ms(line.split(b",")[2]) >= _darpa_ms(early[0].split(b",")[2]):
            yield early.popleft()
        yield line
    yield from early


def _darpa_event(_row: int, line: bytes) -> Event:
    source, destination, time, _ = line.split(b",")
    return {"ts": _darpa_ms(time), "src": _address(source), "dst": _address(destination)}


@lru_cache(maxsize=1024)  # in order of time
def _darpa_ms(text: bytes) -> int:
    month, day, year, hour, minute = (int(text[at]) for at in _DARPA_DIGITS)
    # Not strptime, which refuses the 32nd of July.
    return _epoch_ms(datetime(year, month, 1, hour, minute, tzinfo=UTC) + timedelta(days=day - 1))


@lru_cache(maxsize=65_536)
def _address(text: bytes) -> str:
    """Drop the leading zeros: 172.016.112.050 reads as octal in many a tool.

    >>> _address(b"172.016.112.050")
    '172.16.112.50'
    """
    return ".".join(str(int(part)) for part in text.split(b"."))


def _darpa_label(line: bytes) -> str | None:
    label = line.rpartition(b",")[2].strip().decode()
    return None if label == "-" else label


# --- Server Machine Dataset ------------------------------------------------------------------


def _smd(machine: str, part: str) -> _Dataset:
    month = 2 if part == "test" else 1  # each part is sixteen days: the test comes after the training
    first_ms = _epoch_ms(datetime(2019, month, 1, tzinfo=UTC))
    host = f"machine-{machine}"

    def parse(row: int, line: bytes) -> Event:
        event: dict[str, str | int | float] = {"ts": first_ms + row * 60_000, "host": host}
        event.update(zip(SMD_COLUMNS, map(float, line.split(b",")), strict=True))
        return event

    label_file = f"smd_{host}_test_label.csv.gz" if part == "test" else None
    return _Dataset(f"smd_{host}_{part}.csv.gz", "host", parse, label_file, _smd_label)


def _smd_label(line: bytes) -> str | None:
    return "anomaly" if float(line) else None


def _epoch_ms(time: datetime) -> int:
    return int(time.timestamp()) * 1000


_DARPA_FILE: Final = "darpa98_connections.csv.xz"
_DATASETS: Final = {
    "nsl-kdd": _kdd("nsl_kdd_train.csv.gz", "nsl-kdd", 2009),
    "nsl-kdd-test": _kdd("nsl_kdd_test.csv.gz", "nsl-kdd", 2010),  # the same sensor, later
    "kdd99": _kdd("kddcup.data_10_percent.gz", "kdd99", 1999),
    "darpa98": _Dataset(_DARPA_FILE, "dst", _darpa_event, _DARPA_FILE, _darpa_label, _darpa_in_order),
    **{f"smd-{m}-{part}": _smd(m, part) for m in ("1-6", "2-1") for part in ("train", "test")},
}
