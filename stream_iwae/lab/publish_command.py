"""`stream-iwae publish`: a data set or an NDJSON file to a topic."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab import datasets
from stream_iwae.lab.messages import TIME_FIELD, KeyedEvent, Message, encoded, from_lines, grouped, one_by_one
from stream_iwae.lab.publish import MessagePublisher, create_topic

_REPORT_EVERY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class PublishReport:
    """What was sent and has arrived."""

    n_events: int
    n_messages: int
    n_bytes: int
    seconds: float

    def __str__(self) -> str:
        rate = self.n_events / max(self.seconds, 1e-9)
        return (
            f"{self.n_events:,} events in {self.n_messages:,} messages, {self.n_bytes / 1e6:,.1f} MB, "
            f"{self.seconds:.1f} s: {rate:,.0f} events/s"
        )


def publish(
    source: str,
    topic: str,
    bootstrap_servers: str,
    key: str | None = None,
    partitions: int = 1,
    speed_up: float | None = None,
    batch: int = 1,
    limit: int | None = None,
    data: Path | None = None,
) -> PublishReport:
    """Send all events of `source` and wait until they have arrived; tells its progress on stderr.

    Args:
        source: The name of a data set, an NDJSON file, or "-" for standard input.
        topic: Made where it is missing, with `partitions`, its records kept for good.
        bootstrap_servers: "host:port,host:port".
        key: The fields to key by, comma-separated. By default what the data set is about; a file has no key.
        partitions: Of a topic that has to be made.
        speed_up: How many times faster than the events' own time `ts`; None for as fast as it goes.
        batch: Events a message, of one key each.
        limit: Stop after so many events.
        data: The directory of the data sets.

    Raises:
        ConfigurationError: A parameter is wrong.
        DatasetError: The data set's file is missing.
        BrokerUnreachableError: No broker answers.
        DeliveryError: A message did not arrive.
    """
    _check(speed_up, batch, limit)
    is_timed = speed_up is not None or batch > 1
    events = _events(source, key, data, is_timed=is_timed)
    limited = islice(events, limit)
    messages = grouped(limited, batch) if batch > 1 else one_by_one(limited)
    if speed_up is not None:
        messages = paced(messages, speed_up, time.monotonic, time.sleep)
    if create_topic(bootstrap_servers, topic, partitions):
        _say(f"made topic {topic} with {partitions} partitions")
    start_s = reported_s = time.monotonic()
    with MessagePublisher(bootstrap_servers, topic) as publisher:
        for message in messages:
            publisher.send(message.key, message.value, message.n_events)
            if publisher.n_messages % 1000 == 0 and time.monotonic() - reported_s > _REPORT_EVERY_S:
                reported_s = time.monotonic()
                _say(f"{publisher.n_events:,} events sent, {publisher.n_events / (reported_s - start_s):,.0f} a second")
        publisher.flush()
        elapsed_s = time.monotonic() - start_s
    report = PublishReport(publisher.n_events, publisher.n_messages, publisher.n_bytes, elapsed_s)
    _say(f"all arrived: {report}")
    return report


def paced(
    messages: Iterable[Message],
    speed_up: float,
    monotonic_s: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[Message]:
    """Hold each message back until its event time, counted from the first and sped up, has come.

    Raises:
        ConfigurationError: A message has no event time.
    """
    start_s = monotonic_s()
    first_ms: float | None = None
    for message in messages:
        if message.time_ms is None:
            raise ConfigurationError("speed-up", speed_up, f"an event has no number in its field {TIME_FIELD!r}")
        first_ms = message.time_ms if first_ms is None else first_ms
        wait_s = start_s + (message.time_ms - first_ms) / 1000 / speed_up - monotonic_s()
        if wait_s > 0:
            sleep(wait_s)
        yield message


def _events(source: str, key: str | None, data: Path | None, *, is_timed: bool) -> Iterator[KeyedEvent]:
    fields = [field.strip() for field in key.split(",")] if key else []
    if source in datasets.names():
        entity = fields or [datasets.entity_field(source)]
        return encoded(datasets.events(source, datasets.data_directory(data)), entity)
    if source == "-":
        return from_lines(sys.stdin.buffer, fields, is_timed=is_timed)
    if not Path(source).is_file():
        known = ", ".join(datasets.names())
        raise ConfigurationError("source", source, f"it is neither a file nor one of the data sets {known}")
    return _from_file(Path(source), fields, is_timed=is_timed)


def _from_file(path: Path, fields: list[str], *, is_timed: bool) -> Iterator[KeyedEvent]:
    with path.open("rb") as lines:
        yield from from_lines(lines, fields, is_timed=is_timed)


def _check(speed_up: float | None, batch: int, limit: int | None) -> None:
    if speed_up is not None and not speed_up > 0:
        raise ConfigurationError("speed-up", speed_up, "it must be above 0; leave it out for as fast as it goes")
    if batch < 1:
        raise ConfigurationError("batch", batch, "a message holds at least 1 event")
    if limit is not None and limit < 0:
        raise ConfigurationError("limit", limit, "it must be 0 or above")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
