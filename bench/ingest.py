"""Events to feature vectors on one core, against the bare poll loop of the same client over the same topic."""

import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from stream_iwae.adapters.kafka_choice import open_source
from stream_iwae.bootstrap import stages_of
from stream_iwae.config import Config
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.windows.operator import WindowOperator


class Cost(NamedTuple):
    """From the first record to the last."""

    seconds: float
    cpu_s: float  # of all threads


def bare_poll(config: Config, topic: str, n_events: int) -> float:
    """Events a second that the client alone delivers, as a newcomer would write the loop."""
    command = [sys.executable, Path(__file__).with_name("bare_poll.py"), config.kafka.client]
    command += [config.kafka.bootstrap_servers, topic, str(n_events)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def ingest(config: Config, topic: str, n_events: int) -> Cost:
    """From Kafka to feature vectors, through the service's own source."""
    stages = stages_of(config)
    decoder = Decoder(stages.events, needed_fields(stages.features))
    windows = WindowOperator(stages.windows, aggregates(stages.features), 0)
    extractor = FeatureExtractor(stages.features, stages.events.field_types())
    source = open_source(config.kafka, topic, f"ingest-{secrets.token_hex(4)}")
    while not source.poll(0.2).assigned:
        continue
    source.seek(0, 0)
    source.resume(frozenset({0}))
    n, n_vectors, began, began_cpu_s = 0, 0, None, 0.0
    while n < n_events:
        for batch in source.poll(1.0).records:
            if began is None:
                began, began_cpu_s = time.perf_counter(), time.process_time()
            events = decoder.decode(batch).events
            n_vectors += len(extractor.extract(windows.add(events, batch.next_offset).windows))
            n += len(batch)
    cost = Cost(time.perf_counter() - began, time.process_time() - began_cpu_s)
    source.close()
    assert n_vectors > n / 12, f"{n} events gave only {n_vectors} vectors"
    return cost
