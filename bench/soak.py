"""The service for a long time at half load: does memory, or the number of files or threads, grow?

The population changes all the while, as that is what leaks: each minute of event time a hundredth of the entities
is replaced by new ones, a new host scans, and one message in ten thousand is none.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from flows import START_MS, WINDOW_MS, a_config_data, a_pool, flow, minute
from latency import BLOCK, LineSender
from observed import Observer, Sample, plot
from service import publish_model

from stream_iwae.config import Config
from stream_iwae.lab.publish import create_topic
from stream_iwae.lab.service_process import ServiceProcess

ENTITIES = 5_000
REPLACED = 50  # entities a minute of event time
BAD_EVERY = 10_000
KEPT = {"retention.bytes": "1000000000", "segment.bytes": "200000000"}  # else half an hour fills the disk
BEHIND_S = 5.0  # of events at the pace; then the sender waits
TOPIC = "soak"


class Soak(NamedTuple):
    """What has grown, from the first tenth after the warm-up to the last."""

    pace: float  # events a second that were sent
    rss_mb: float  # median of the last tenth
    growth: float  # of resident memory, as a share
    peak_growth: float  # of the highest value of each tenth
    files: int
    threads: int
    most_lag: float  # records, after the warm-up
    held_back_s: float  # of the time, the sender waited for the service
    samples: list[Sample]


def soak(servers: str, blob: bytes, rate: float, minutes: float, warm_up: float) -> Soak:
    """Send events at `rate` a second for so many minutes and look at the service; the first `warm_up` do not count."""
    data = a_config_data(servers, TOPIC)
    create_topic(servers, TOPIC, config=KEPT)
    publish_model(Config.parse(yaml.safe_dump(data)), blob)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(data))
        with (
            LineSender(servers, TOPIC) as sender,
            ServiceProcess(path, Path(directory) / "log", "--no-trainer") as service,
        ):
            service.wait_until(lambda status: status["model_version"] is not None, 60, lambda _: None)
            with Observer(service, every_s=2.0) as observer:
                n_sent, took_s, held_back_s = _send(sender, rate, minutes * 60, observer)
    counted = [one for one in observer.samples if one.at_s >= warm_up * 60]
    plot(observer.samples, "soak", f"{minutes:.0f} minutes at {n_sent / took_s:,.0f} events/s")
    return _found(counted, n_sent / took_s, held_back_s, observer.samples)


def _found(counted: list[Sample], pace: float, held_back_s: float, samples: list[Sample]) -> Soak:
    tenth = max(1, len(counted) // 10)
    first, last = counted[:tenth], counted[-tenth:]
    rss_mb = [float(np.median([one.rss_mb for one in part])) for part in (first, last)]
    peaks = [max(one.rss_mb for one in part) for part in (first, last)]
    files, threads = (
        [
            int(np.median([getattr(one, name) for one in part])) for part in (first, last)
        ]  # a request of ours is one more
        for name in ("n_files", "n_threads")
    )
    most_lag = max(one.lag_records for one in counted)
    return Soak(
        pace,
        rss_mb[1],
        rss_mb[1] / rss_mb[0] - 1,
        peaks[1] / peaks[0] - 1,
        files[1] - files[0],
        threads[1] - threads[0],
        most_lag,
        held_back_s,
        samples,
    )


def _send(sender: LineSender, rate: float, seconds: float, observer: Observer) -> tuple[int, float, float]:
    """How many were sent, in how many seconds, and for how many of them the service had to catch up first.

    On a shared machine half of what the service took a while ago may be more than it takes now: that is overload, which
    is another question, and ends with retention overtaking it.
    """
    began = due = time.monotonic()
    n_sent, held_back_s = 0, 0.0
    for block in _blocks():
        sender.send(block)
        n_sent += len(block)
        due += len(block) / rate
        ahead_s = due - time.monotonic()
        if ahead_s > 0.002:
            time.sleep(ahead_s)
        while observer.samples and observer.samples[-1].lag_records > BEHIND_S * rate:
            time.sleep(0.5)
            held_back_s += 0.5
        due = max(due, time.monotonic() - 1.0)  # what was missed is not made up for in a burst
        if time.monotonic() > began + seconds:
            break
    return n_sent, time.monotonic() - began, held_back_s


def _blocks() -> Iterator[list[bytes]]:
    rng = np.random.default_rng(7)
    pool = a_pool(rng, ENTITIES)
    width = len(b'{"ts":' + str(START_MS).encode())
    number, newest, held = 0, ENTITIES, []
    while True:
        at_ms = START_MS + number * WINDOW_MS + 50
        held += [flow(rng, 0xFFFF00 - number, at_ms + i, scan=True) for i in range(40)]
        for k, (_, message) in enumerate(minute(number, ENTITIES, pool)):
            held.append(b"no event" if k % BAD_EVERY == 77 else message)
            if len(held) >= BLOCK:
                yield held
                held = []
        for _ in range(REPLACED):
            pool[newest % ENTITIES] = [flow(rng, newest, START_MS)[width:] for _ in range(7)]
            newest += 1
        number += 1
