"""A topic that nobody keyed by entity, and what is to become of it, in plain loops.

Each partition of it, a source, has some of every entity's events. A message is parsed here by hand, so that the
re-keyer is not compared with its own decoder.
"""

import functools
import json
import random
from dataclasses import dataclass, field, replace
from typing import Final

from stream_iwae.batches import NEVER_MS
from stream_iwae.pipeline import Stages
from stream_iwae.rekey.config import RekeyConfig
from stream_iwae.rekey.placement import partition_of
from tests.simulation.logs import PARTITIONS, START_MS, Log, in_transaction, stages_of

SOURCES: Final = (0, 1, 2)
REKEYED: Final = "rekeyed"
ORDERED: Final = ("rekeyed", "rekeyed hopping")  # each source in order but for what the grace allows
_ALL: Final = "end"  # whose events close the windows of all others
_N_RECORDS: Final = 20


@functools.cache
def entities_of(name: str) -> tuple[str, ...]:
    """One entity for each partition of the re-keyed topic, named by the partition that it belongs to."""
    return tuple(
        next(f"p{p}{name}{n}" for n in range(1000) if partition_of(f"p{p}{name}{n}", len(PARTITIONS)) == p)
        for p in PARTITIONS
    )


def is_closing(entity: str) -> bool:
    """Whether the events are there to close windows; each source has its own."""
    return _ALL in entity


@functools.cache
def rekeyed_stages(windows: str) -> Stages:
    """The configuration of the service behind the re-keyer."""
    stages = direct_stages(windows)
    patience = {"idle_after": "3s", "forget_after": "6s"} if windows == "unruly" else {}
    return replace(
        stages,
        topic=REKEYED,
        events=stages.events.model_copy(update={"rekey": True}),
        rekey=RekeyConfig.model_validate(patience),
    )


def direct_stages(windows: str) -> Stages:
    """The same for events that are keyed by entity already."""
    return stages_of("hopping" if windows.endswith("hopping") else "tumbling")


@dataclass(frozen=True, slots=True)
class Scattered:
    """What collectors wrote: in one order, and how it fell on the sources."""

    whole: Log
    sources: tuple[Log, ...]


@functools.cache
def scattered(number: int, *, is_unruly: bool) -> Scattered:
    """The same events, scattered and in order.

    `is_unruly`: disorder beyond the grace, and each source falls silent somewhere, until half time.
    """
    rng = random.Random(f"scattered/{number}/{is_unruly}")
    entities = [entity for name in ("a", "b") for entity in entities_of(name)]
    at_ms, whole, parts = START_MS, [], [[] for _ in SOURCES]
    seconds: list[int | None] = [None] * len(SOURCES)
    silent_from = rng.sample(range(_N_RECORDS // 3, _N_RECORDS), len(SOURCES))
    for n in range(_N_RECORDS):
        if is_unruly and n in silent_from:
            source = silent_from.index(n)
            seconds[source] = len(parts[source])
        at_ms += rng.choice([0, 200, 800, 2500, 9000])
        behind_ms = rng.choice([0, 0, 4000, 15_000, 40_000] if is_unruly else [0, 0, 1000])
        event = {"ts": at_ms - behind_ms, "src": rng.choice(entities), "bytes": rng.randrange(100)}
        entries = in_transaction(rng, _message(rng, event), at_ms - (2_000 if n % 5 == 3 else 0))
        whole += entries
        rng.choice(parts).extend(entries)
    for n in range(2):
        for part in (whole, *parts):
            later_ms = at_ms + 100_000 + 20_000 * n
            last = [{"ts": later_ms, "src": entity, "bytes": 1} for entity in entities_of(_ALL)]
            part.extend(in_transaction(rng, json.dumps(last).encode(), later_ms))
    return Scattered(_log(rng, whole, None), tuple(map(functools.partial(_log, rng), parts, seconds)))


def _message(rng: random.Random, event: dict) -> bytes | None:
    roll = rng.random()
    if roll < 0.05:
        return rng.choice([b'{"ts": broken', b"17", None])
    if roll < 0.09:
        return json.dumps({**event, "ts": event["ts"] + 10**9}).encode()
    if roll < 0.25:
        burst = [{**event, "ts": event["ts"] + i, "bytes": rng.randrange(100)} for i in range(rng.randrange(12, 30))]
        return json.dumps(burst).encode()
    return json.dumps(event).encode()


def _log(rng: random.Random, entries: list, second_part: int | None) -> Log:
    cuts = sorted(rng.sample(range(1, len(entries)), min(3, len(entries) - 1)))
    return Log(tuple(entries), (*cuts, len(entries)), len(entries) if second_part is None else second_part)


# --- in plain loops --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """One event, and the highest time that its source had reached just before it."""

    ts: int
    entity: str
    n_bytes: float
    before_ms: int


@dataclass(slots=True)
class Source:
    """What a source holds below an offset."""

    events: list[Told] = field(default_factory=list)
    letters: list[bytes] = field(default_factory=list)  # keys of dead letters
    n_empty: int = 0
    reached_ms: int = NEVER_MS


@functools.cache
def source_until(number: int, source: int, position: int, *, is_unruly: bool) -> Source:
    """What the re-keyer has to make of the first `position` offsets of a source."""
    found = Source()
    for offset, entry in enumerate(scattered(number, is_unruly=is_unruly).sources[source].entries[:position]):
        if entry.is_marker or not entry.is_visible:
            continue
        if entry.value is None:
            found.n_empty += 1
            continue
        for event in _parsed(entry.value):
            if event is None or event["ts"] > START_MS + 10**8:
                found.letters.append(f"events/{source}/{offset}".encode())
                continue
            found.events.append(Told(event["ts"], event["src"], float(event["bytes"]), found.reached_ms))
            found.reached_ms = max(found.reached_ms, min(event["ts"], entry.timestamp_ms))
    return found


def _parsed(value: bytes) -> list[dict | None]:
    try:
        message = json.loads(value)
    except ValueError:
        return [None]
    return message if isinstance(message, list) else [message if isinstance(message, dict) else None]
