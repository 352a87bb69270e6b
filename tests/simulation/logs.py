"""What lies on the input topic, and the configurations it is read with.

The logs have disorder, late events, bursts that alarm, silence, garbage, tombstones, event-time skew, counters,
and transactions of their producers, aborted ones too. Each partition has entities of its own.
"""

import functools
import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Final

from stream_iwae.adapters.memory_broker import Entry
from stream_iwae.events.config import EventsConfig
from stream_iwae.features import kinds, profiles
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.pipeline import Stages
from stream_iwae.windows.config import WindowsConfig

START_MS: Final = 1_700_000_000_000
PARTITIONS: Final = (0, 1)
SKEW_MS: Final = 600_000  # ahead of its record by more than an event may be
# The logs are short: an entity shapes what is usual after its first windows. (module, name, value)
SOON_MATURE: Final = ((profiles, "MATURE", 2), (kinds, "KNOWN", 3), (profiles, "LOG_FLOOR", 0.1))
_SECOND_PART_MS: Final = 4 * 3_600_000  # of silence, longer than any run
WINDOWS: Final = {
    "tumbling": {},
    "hopping": {"kind": "hopping", "advance": "4s"},
    "record": {"kind": "record"},
    "full": {},
    "full hopping": {"kind": "hopping", "advance": "4s"},
    "full record": {"kind": "record"},
    "full history": {},
    "hold": {},
}


@dataclass(frozen=True, slots=True)
class Log:
    """One partition of the input."""

    entries: tuple[Entry, ...]
    cuts: tuple[int, ...]  # offsets before which a poll may end, the last is the end
    second_part: int  # the offset where events go on after the silence; the end where there is none


@functools.cache
def logs_of(number: int, *, is_idle: bool, is_full: bool) -> tuple[Log, ...]:
    """The logs of both partitions."""
    n_events, n_cuts = (30, 31) if is_full else (11, 3)
    return tuple(_a_log(random.Random(f"log/{number}/{p}"), p, n_events, n_cuts, is_idle=is_idle) for p in PARTITIONS)


def _a_log(rng: random.Random, partition: int, n_records: int, n_cuts: int, *, is_idle: bool) -> Log:
    at_ms, counters, entries = START_MS, Counter(), []
    entities = [f"p{partition}h{number}" for number in range(3)]
    second_part = None
    for number in range(n_records):
        if is_idle and number == n_records * 2 // 3:
            at_ms += _SECOND_PART_MS
            second_part = len(entries)
        at_ms += rng.choice([0, 500, 2500, 6000, 9000])
        entity = rng.choice(entities)
        counters[entity] += rng.randrange(50)
        behind_ms = rng.choice([0, 0, 1000, 4000, 15000])
        event = {"ts": at_ms - behind_ms, "src": entity, "bytes": rng.randrange(100), "octets": counters[entity]}
        recorded_ms = at_ms - (2_000 if number % 5 == 3 else 0)  # some clocks are ahead of their collector's
        entries += in_transaction(rng, _value(rng, event, counters), recorded_ms)
    cuts = sorted(rng.sample(range(1, len(entries)), min(n_cuts, len(entries) - 1)))
    return Log(tuple(entries), (*cuts, len(entries)), len(entries) if second_part is None else second_part)


def _value(rng: random.Random, event: dict, counters: Counter) -> bytes | None:
    roll = rng.random()
    if roll < 0.06:
        return b'{"ts": broken'
    if roll < 0.09:
        return None
    if roll < 0.13:
        return json.dumps({**event, "ts": event["ts"] + SKEW_MS + 10**9}).encode()
    if roll < 0.30:
        n_flows = rng.randrange(12, 30)
        counters[event["src"]] += n_flows
        burst = [{**event, "ts": event["ts"] + i, "octets": event["octets"] + i} for i in range(n_flows)]
        return json.dumps(burst).encode()
    return json.dumps(event).encode()


def in_transaction(rng: random.Random, value: bytes | None, recorded_ms: int) -> list[Entry]:
    """Most producers send without; an aborted attempt is sent again."""
    record = Entry(None, value, recorded_ms)
    marker = Entry(None, None, recorded_ms, is_marker=True)
    roll = rng.random()
    if roll < 0.1:
        return [record, marker]
    if roll < 0.2:
        return [Entry(None, value, recorded_ms, is_visible=False), marker, record]
    return [record]


class KnownStages(Stages):
    """The configuration, whose fingerprint is taken once: each process asks for it, and there are thousands."""

    __slots__ = ("_fingerprint",)

    @property
    def fingerprint(self) -> str:
        try:
            return self._fingerprint
        except AttributeError:
            object.__setattr__(self, "_fingerprint", super().fingerprint)
            return self._fingerprint


@functools.cache
def stages_of(windows: str) -> Stages:
    """The configuration of every arrow; the `full` ones have counters, profiles and pasts of values besides."""
    is_full = windows.startswith("full")
    fields = {"src": {"path": "src", "type": "text"}, "bytes": {"path": "bytes"}}
    features = [
        {"name": "flows", "aggregate": "count"},
        {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": is_full},
    ]
    if is_full:
        fields["octets"] = {"path": "octets", "counter": "cumulative"}
        features.append({"name": "octets", "aggregate": "sum", "field": "octets", "kind": "gauge", "recent": True})
    if is_full and windows != "full record":
        features.append({"name": "surge", "aggregate": "surge", "field": "src", "past_windows": 20})
    events = {"time": [{"field": "ts", "format": "epoch_ms"}], "fields": fields, "entity": ["src"]}
    shape = {"size": "10s", "grace": "3s", "present_history": 2, "absent_windows": 2, **WINDOWS[windows]}
    return KnownStages(
        detector="simulated",
        topic="events",
        events=EventsConfig.model_validate(events),
        windows=WindowsConfig.model_validate(shape),
        features=FeaturesConfig.model_validate(features),
        incidents=IncidentsConfig.model_validate({"quiet_windows": 1, "stale_after": "60s"}),
    )
