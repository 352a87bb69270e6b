"""A flood of forged addresses, and a real attack at the same time: `python tests/faults/flood.py`.

Known hosts talk as always, and one of them scans. In each minute of the flood the forged addresses come first, each
with one flow, so they take every place that newcomers can have. Memory has to stay within bounds, and the scan has to be
alerted on under the scanner's own name.
"""

import argparse
import gc
import json
import os
import random
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stream_iwae.batches import Explanations, RecordBatch, ScoreBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.outputs import Publisher, Topics
from stream_iwae.pipeline import Counts, Pipeline, ServingModel, Stages
from stream_iwae.windows.config import WindowsConfig

START_MS = 1_767_571_200_000
MINUTE_MS = 60_000
SCANNER = "10.0.0.7"


class CountingScorer:
    """A model that anyone can check by hand: the score is the number of flows."""

    def score(self, values, on_chunk):
        n = len(values)
        on_chunk()
        return ScoreBatch("pinned", values[:, 0].copy(), np.zeros(n), np.ones(n), values[:, 0].copy())

    def explain(self, values):
        return Explanations(values.copy(), values * 0, values * 0, values * 0 + 1, {})


def the_model():
    normal = np.random.default_rng(7).exponential(1.0, 4000) + 1
    judge = Judge(Calibration.fit(normal, windows_per_day=100_000.0), DetectionConfig(budget="20/day"))
    return ServingModel("pinned", "any", CountingScorer(), judge)


def the_stages(max_entities):
    features = [
        {"name": "flows", "aggregate": "count"},
        {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": True},
        {"name": "ports", "aggregate": "distinct", "field": "dst_port"},
    ]
    return Stages(
        detector="flood",
        topic="events",
        events=EventsConfig.model_validate({"preset": "simulated"}),
        windows=WindowsConfig.model_validate({"size": "60s", "grace": "5s", "max_entities": max_entities}),
        features=FeaturesConfig.model_validate(features),
        incidents=IncidentsConfig(),
    )


@dataclass(frozen=True)
class Scale:
    """How large it is."""

    n_known: int = 200
    n_quiet_minutes: int = 12
    n_flood_minutes: int = 1
    n_forged: int = 1_000_000  # addresses a minute, none of them twice
    n_scanned: int = 400
    max_entities: int = 100_000


def flow(ts, src, port=443):
    return (
        f'{{"ts": {ts}, "src": "{src}", "dst": "198.51.100.1", "src_port": 40000, "dst_port": {port}, '
        f'"proto": "tcp", "bytes": 400, "packets": 3, "exporter": "r1"}}'
    ).encode()


def minutes(scale, seed):
    """The messages of each minute, with the times of their records, in order."""
    rng = random.Random(seed)
    forged = 0
    for number in range(scale.n_quiet_minutes + scale.n_flood_minutes + 1):
        start = START_MS + number * MINUTE_MS
        is_flood = scale.n_quiet_minutes <= number < scale.n_quiet_minutes + scale.n_flood_minutes
        messages = []
        if is_flood:
            for i in range(scale.n_forged):
                forged += 1
                address = f"{11 + (forged >> 24)}.{forged >> 16 & 255}.{forged >> 8 & 255}.{forged & 255}"
                messages.append((start + i * 20_000 // scale.n_forged, address, 443))
        for host in range(scale.n_known):
            messages += [
                (
                    start + 20_000 + rng.randrange(39_000),
                    f"10.0.0.{host}" if host < 256 else f"10.1.{host >> 8}.{host & 255}",
                    443,
                )
                for _ in range(rng.randrange(1, 4))
            ]
        if is_flood:
            messages += [(start + 30_000 + i * 10, SCANNER, 1 + i) for i in range(scale.n_scanned)]
        messages.sort()
        yield [flow(*message) for message in messages], [at + 500 for at, _, _ in messages]


@dataclass
class Found:
    """What came of it."""

    counts: Counts
    alerts: list
    cpu_s: float
    peak_bytes: int  # above what was there before
    most_entities: int  # in presence


def run(scale, seed, poll=10_000):
    """Everything through the pipeline, committed after every poll."""
    stages, model = the_stages(scale.max_entities), the_model()
    pipeline, publisher = Pipeline(stages, 0), Publisher(Topics("a", "d", "s", "t"), stages)
    publisher.begin(0, 0, [])
    pipeline.begin(0, None)
    found = Found(Counts(), [], 0.0, 0, 0)
    offset, before, is_measured = 0, resident_bytes(), False
    for number, (values, times) in enumerate(minutes(scale, seed)):
        if number == scale.n_quiet_minutes:
            gc.collect()
            before, is_measured = resident_bytes(), True  # the messages of the flood are held by us
        started_s = time.process_time()
        for at in range(0, len(values), poll):
            part = values[at : at + poll]
            stamps = np.array(times[at : at + poll], dtype=np.int64)
            offsets = np.arange(offset, offset + len(part))
            offset += len(part)
            pipeline.process(
                RecordBatch("events", 0, offsets, stamps, part, offset), model, int(stamps[-1]), lambda: None
            )
            commit = publisher.prepare(pipeline)
            if commit is not None:
                found.counts.add(commit.outcome.counts)
                found.alerts += [json.loads(alert.encode()) for alert in commit.outcome.alerts]
            found.most_entities = max(found.most_entities, pipeline.n_entities)
            if is_measured and at % 100_000 == 0:
                found.peak_bytes = max(found.peak_bytes, resident_bytes() - before)
        found.cpu_s += time.process_time() - started_s
    return found


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def problems_of(found, scale):
    """What should not be."""
    opened = [alert["entity"].get("src") for alert in found.alerts if alert["status"] == "open"]
    said = []
    if SCANNER not in opened:
        said.append(f"the scan was not alerted on; alerts are on {opened[:10]}")
    if not found.counts.is_balanced:
        said.append(f"the fates do not add up: {found.counts}")
    if found.most_entities > scale.max_entities:
        said.append(f"{found.most_entities} entities are remembered, at most {scale.max_entities}")
    return said


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--forged", type=int, default=1_000_000, help="addresses a minute")
    parser.add_argument("--minutes", type=int, default=2, help="of flood")
    asked = parser.parse_args()
    scale = Scale(n_forged=asked.forged, n_flood_minutes=asked.minutes)
    found = run(scale, asked.seed)
    counts = found.counts
    opened = [alert for alert in found.alerts if alert["status"] == "open"]
    print(
        f"{counts.consumed:,} events of {scale.n_forged * scale.n_flood_minutes:,} forged addresses and {scale.n_known} known ones"
    )
    print(
        f"aggregated {counts.aggregated:,}, of these folded {counts.folded:,}; windows {counts.windows:,}; alerts opened {len(opened)}"
    )
    print(f"CPU {found.cpu_s:.0f} s; memory above that before the flood at most {found.peak_bytes / 2**20:.0f} MiB; "
          f"peak of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")  # fmt: skip
    problems = problems_of(found, scale)
    print("\n".join(problems) or f"the scan of {SCANNER} was alerted on")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
