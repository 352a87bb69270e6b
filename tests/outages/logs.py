"""What is on the events topic: a function of the seed; only its length depends on how long the faults last.

Ordinary windows of some hosts, bursts, hosts that fall silent, and what emitters do wrong. `fates_of` says in a plain
loop, without a line of the product, what has to become of each record.
"""

import json
import random
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

START_MS: Final = 1_767_571_200_000
SIZE_MS: Final = 10_000
GRACE_MS: Final = 2_000
N_PARTITIONS: Final = 4
N_HOSTS: Final = 16
_AHEAD_MS: Final = 2 * SIZE_MS  # of the last records, that close every window
_BROKEN: Final = (b'{"ts": broken', b"17", b'{"ts": 1767571200000}', b"\xff\xfe", None)


@dataclass(frozen=True, slots=True)
class Message:
    """One record to send, with its partition: that of its entity."""

    partition: int
    value: bytes | None  # None: a tombstone


@dataclass(frozen=True, slots=True)
class Stored:
    """One record as the topic holds it."""

    offset: int
    timestamp_ms: int  # of the record
    value: bytes | None


def partition_of(entity: str) -> int:
    """Where the events of an entity go."""
    return zlib.crc32(entity.encode()) % N_PARTITIONS


def window_of_messages(seed: int, number: int, *, has_scans: bool = True) -> list[Message]:
    """Window `number` of the log, in the order of sending."""
    rng = random.Random(f"log/{seed}/{number}")
    start_ms = START_MS + number * SIZE_MS
    events: list[dict[str, object]] = []
    for host in range(N_HOSTS):
        is_silent = (number // 6 + host) % 11 == 0 and number > 12
        for _ in range(0 if is_silent else rng.randint(1, 4)):
            size = int(rng.lognormvariate(6, 0.5))
            events.append(_flow(start_ms + rng.randrange(SIZE_MS), f"10.0.0.{host}", rng.choice((80, 443, 53)), size))
    for _ in range(rng.choice((0, 0, 1)) if has_scans else 0):
        scanner = f"10.0.1.{rng.randrange(8)}"
        events += [_flow(start_ms + 50 * port, scanner, port, 60) for port in range(1, rng.randint(60, 120))]
    if number > 3:
        for _ in range(rng.choice((0, 1, 2))):  # late
            events.append(_flow(start_ms - rng.randint(1, 4) * SIZE_MS, f"10.0.0.{rng.randrange(N_HOSTS)}", 443, 400))
    if rng.random() < 0.1:  # too far in the future
        events.append(_flow(4_000_000_000_000, f"10.0.0.{rng.randrange(N_HOSTS)}", 443, 400))
    messages = [
        Message(partition_of(str(event["src"])), json.dumps(event).encode())
        for event in sorted(events, key=lambda event: int(str(event["ts"])) + rng.randrange(3_000))  # some disorder
    ]
    for _ in range(rng.choice((0, 0, 1, 2))):
        messages.insert(rng.randrange(len(messages)), Message(rng.randrange(N_PARTITIONS), rng.choice(_BROKEN)))
    return messages


def last_messages(n_windows: int) -> list[Message]:
    """One event a partition, so far ahead that every window before it closes."""
    at_ms = START_MS + n_windows * SIZE_MS + _AHEAD_MS
    names: dict[int, str] = {}
    for number in range(1000):
        names.setdefault(partition_of(f"10.0.2.{number}"), f"10.0.2.{number}")
    return [
        Message(partition, json.dumps(_flow(at_ms, name, 443, 400)).encode())
        for partition, name in sorted(names.items())
    ]


def fates_of(records: Sequence[Stored]) -> Counter[str]:
    """How many records of one partition are aggregated, late, rejected or skipped, by a loop for people to check."""
    fates: Counter[str] = Counter()
    watermark_ms = None
    for record in records:
        time_ms = _time_of(record)
        if time_ms is None:
            fates["skipped" if record.value is None else "rejected"] += 1
            continue
        end_ms = (time_ms // SIZE_MS + 1) * SIZE_MS
        fates["late" if watermark_ms is not None and end_ms <= watermark_ms else "aggregated"] += 1
        watermark_ms = max(watermark_ms or 0, min(time_ms, record.timestamp_ms) - GRACE_MS)
    return fates


def _time_of(record: Stored) -> int | None:
    """The event's time; None where it is no event that could be used."""
    try:
        event = json.loads(record.value or b"")
        time_ms = int(event["ts"])
        usable = {"src", "bytes", "dst_port"} <= event.keys() and time_ms <= record.timestamp_ms + 600_000
    except (ValueError, TypeError, KeyError):
        return None
    return time_ms if usable else None


def _flow(time_ms: int, source: str, port: int, n_bytes: int) -> dict[str, object]:
    return {
        "ts": time_ms, "src": source, "dst": "198.51.100.1", "src_port": 40_000, "dst_port": port, "proto": "tcp",
        "bytes": n_bytes, "packets": 3, "duration_s": 0.1, "flags": "S", "exporter": "r1",
    }  # fmt: skip
