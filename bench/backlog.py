"""Millions of events wait, and the scorer is slow: does the service stay a member, in bounded memory, and lose nothing?

Windows of many entities close together, so that scoring them takes twice `max_poll_interval`. One message in ten
thousand is an event that comes too late, one is none, and one is blank: every fate occurs, in a known number.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from flows import START_MS, WINDOW_MS, a_config_data, a_pool, flow, minute
from kafka import KafkaAdminClient
from latency import BLOCK, LineSender
from observed import FATES, Observer, Sample, plot
from service import publish_model

from stream_iwae.config import Config
from stream_iwae.lab.publish import create_topic
from stream_iwae.lab.service_process import ServiceProcess

TOPIC = "backlog"
REST_S = 0.1  # after each chunk of 256 windows
POLL_INTERVAL_S = 10
ODD_EVERY = 10_000  # messages, of which three are odd
SLOWEST = 900.0  # seconds until all of it must be done


class ThrottledService(ServiceProcess):
    """The service with a slow scorer."""

    program = (str(Path(__file__).with_name("throttled.py")), str(REST_S))


class Backlog(NamedTuple):
    """How it went."""

    seconds: float
    longest_wave_s: float  # between two positions
    fates: dict[str, float]  # consumed, aggregated, late, rejected, skipped
    expected: dict[str, int]
    scored: int
    n_windows: int  # that must have been scored
    rebalances: float  # the first assignment is one
    memberships: set[tuple[str, tuple[str, ...]]]  # state of the group and its members, as the broker tells
    left: float  # records
    rss_mb: tuple[float, float]  # highest of the second and of the last quarter
    most_lag_s: float
    samples: list[Sample]


def backlog(servers: str, blob: bytes, n_entities: int, n_waves: int) -> Backlog:
    """Fill a topic with so many windows of so many entities, then start the service."""
    create_topic(servers, TOPIC)
    expected = _fill(servers, n_entities, n_waves)
    data = a_config_data(servers, TOPIC)
    data["kafka"] |= {
        "group": TOPIC,
        "instance": TOPIC,
        "max_poll_interval": f"{POLL_INTERVAL_S}s",
        "session_timeout": f"{POLL_INTERVAL_S}s",
    }
    publish_model(Config.parse(yaml.safe_dump(data)), blob)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(data))
        with ThrottledService(path, Path(directory) / "log", "--no-trainer") as service:
            service.wait_until(lambda status: bool(status["partitions"]), 60, lambda _: None)
            began_s = time.monotonic()
            with Observer(service, every_s=1.0) as observer:
                memberships, longest_s, status = _watch(service, servers, expected["consumed"])
                took_s = time.monotonic() - began_s
                time.sleep(2.0)  # for a sample of the end
    samples, last = observer.samples, observer.samples[-1]
    plot(samples, "backlog", f"{expected['consumed']:,} events wait, {REST_S} s rest after each chunk of scores")
    quarters = np.array_split(np.array([one.rss_mb for one in samples]), 4)
    return Backlog(
        seconds=took_s,
        longest_wave_s=longest_s,
        fates=last.fates,
        expected=expected,
        scored=int(status["windows"]["scored"]),
        n_windows=n_entities * (n_waves - 1),
        rebalances=last.rebalances,
        memberships=memberships,
        left=last.lag_records,
        rss_mb=(float(quarters[1].max()), float(quarters[3].max())),
        most_lag_s=max(one.lag_s for one in samples if np.isfinite(one.lag_s)),
        samples=samples,
    )


def _watch(
    service: ServiceProcess, servers: str, n_events: int
) -> tuple[set[tuple[str, tuple[str, ...]]], float, dict[str, dict[str, object]]]:
    """States of the group, the longest standstill in seconds, and the status when all is committed."""
    admin = KafkaAdminClient(bootstrap_servers=servers)
    memberships: set[tuple[str, tuple[str, ...]]] = set()
    longest_s, moved_s, position = 0.0, time.monotonic(), -1
    deadline_s = moved_s + SLOWEST
    while True:
        assert time.monotonic() < deadline_s, f"not done after {SLOWEST:.0f} s"
        status = service.wait_until(lambda _: True, 30, lambda _: None)
        found = admin.describe_groups([TOPIC])[TOPIC]
        members = tuple(sorted(member["member_id"] for member in found["members"]))
        memberships.add((found["group_state"], members))
        if status["partitions"]["0"]["position"] != position:
            position, moved_s = status["partitions"]["0"]["position"], time.monotonic()
        longest_s = max(longest_s, time.monotonic() - moved_s)
        if status["events"]["consumed"] >= n_events:
            admin.close()
            return memberships, longest_s, status
        time.sleep(0.5)


def _fill(servers: str, n_entities: int, n_waves: int) -> dict[str, int]:
    """Send everything, up to the present minute; what must become of it."""
    first = int(time.time() * 1000 - START_MS) // WINDOW_MS - n_waves
    expected = dict.fromkeys(("consumed", *FATES), 0)
    with LineSender(servers, TOPIC) as sender:
        held: list[bytes] = []
        for fate, message in _messages(n_entities, first, n_waves):
            expected["consumed"] += 1
            expected[fate] += 1
            held.append(message)
            if len(held) == BLOCK:
                sender.send(held)
                held = []
        if held:
            sender.send(held)
    return expected


def _messages(n_entities: int, first: int, n_waves: int) -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(8)
    pool = a_pool(rng, n_entities)
    too_late = flow(rng, 0, START_MS + (first - 60) * WINDOW_MS)
    for number in range(n_waves):
        for k, (_, message) in enumerate(minute(first + number, n_entities, pool)):
            yield "aggregated", message
            if k % ODD_EVERY == ODD_EVERY - 1:
                yield from (("late", too_late), ("rejected", b"no event"), ("skipped", b" "))
