"""What profiles, reach and surge cost: CPU from events in memory to feature vectors, without and with them.

python bench/profile_cost.py [--events 1000000]
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
from flows import EVENTS_A_WINDOW, a_pool, minute

from stream_iwae.batches import RecordBatch
from stream_iwae.bootstrap import settle_process
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import FeatureConfig, FeaturesConfig, aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.lab.simulated_rows import without_profiles
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator

ENTITIES = 5_000
POLL = 10_000


def polls(n_events: int) -> list[RecordBatch]:
    pool = a_pool(np.random.default_rng(1), ENTITIES)
    values = [
        value
        for number in range(n_events // (ENTITIES * EVENTS_A_WINDOW))
        for _, value in minute(number, ENTITIES, pool)
    ]
    times = np.zeros(len(values), dtype=np.int64) + 2**42
    offsets = np.arange(len(values))
    return [
        RecordBatch("bench", 0, offsets[at : at + POLL], times[at : at + POLL], values[at : at + POLL], at + POLL)
        for at in range(0, len(values), POLL)
    ]


def cpu_seconds(batches: list[RecordBatch], features: FeaturesConfig) -> float:
    events = EventsConfig.model_validate({"preset": "simulated"})
    decoder = Decoder(events, needed_fields(features))
    windows = WindowOperator(WindowsConfig(), aggregates(features), 0)
    extractor = FeatureExtractor(features, events.field_types())
    began = time.process_time()
    n_vectors = 0
    for batch in batches:
        n_vectors += len(extractor.extract(windows.add(decoder.decode(batch).events, batch.next_offset).windows))
    seconds = time.process_time() - began
    assert n_vectors > sum(map(len, batches)) / 12, f"only {n_vectors} vectors"
    return seconds


def with_aggregate(plain: FeaturesConfig, aggregate: str) -> FeaturesConfig:
    more = FeatureConfig(name=f"destination_{aggregate}", aggregate=aggregate, field="dst")
    return FeaturesConfig(list=(*plain.features, more))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    options = parser.parse_args()
    settle_process()
    batches = polls(options.events)
    asked = FeaturesConfig(preset="flows-per-source")
    plain = without_profiles(asked)
    wanted = {
        "without a profile": plain,
        "with those of the preset": asked,
        "with the reach of destinations": with_aggregate(plain, "reach"),
        "with the surge of destinations": with_aggregate(plain, "surge"),
    }
    n = sum(len(batch) for batch in batches)
    rounds = [[cpu_seconds(batches, features) for features in wanted.values()] for _ in range(3)]
    seconds = [statistics.median(times) for times in zip(*rounds, strict=True)]
    print(f"{n:,} events, {ENTITIES:,} entities, CPU an event:")
    for name, one in zip(wanted, seconds, strict=True):
        print(f"{one / n * 1e6:.2f} us {name} ({100 * (one / seconds[0] - 1):+.1f} %)")


if __name__ == "__main__":
    main()
