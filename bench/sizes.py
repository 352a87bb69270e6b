"""How cost and memory grow with entities and features: each cell of the table in a process of its own.

    python sizes.py ENTITIES FEATURES MINUTES MODEL_FILE
    python sizes.py model FEATURES MODEL_FILE

Events are made on the fly and go through decoder, windows, features, scores and verdicts, and every 100,000 of them
a commit is made up, with training rows and state; Kafka alone is missing. Prints microseconds of CPU an event, and the
peak of resident memory in MB, as a whole and beyond the imports.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from flows import EVENTS_A_WINDOW, START_MS, WINDOW_MS, a_config_data, flow

from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.batches import RecordBatch
from stream_iwae.bootstrap import model_loader, settle_process, stages_of, topics_of
from stream_iwae.config import Config
from stream_iwae.detection.calibration import Calibration
from stream_iwae.features.config import schema
from stream_iwae.iwae.artefact import pack
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train
from stream_iwae.outputs import Publisher
from stream_iwae.pipeline import Pipeline

BATCH = 10_000
COMMIT_AFTER = 10  # batches
PORTS = 48  # of the widest configuration: four features each


def features(n: int) -> list[dict[str, object]]:
    """N features as somebody would ask for them: first of all traffic, then of one destination port after the other."""
    plain: list[dict[str, object]] = [
        {"name": "flows", "aggregate": "count"},
        {"name": "bytes", "aggregate": "sum", "field": "bytes"},
        {"name": "packets", "aggregate": "sum", "field": "packets"},
        {"name": "largest", "aggregate": "max", "field": "bytes"},
        {"name": "bytes_std", "aggregate": "std", "field": "bytes"},
        {"name": "destinations", "aggregate": "distinct", "field": "dst"},
        {"name": "ports", "aggregate": "distinct", "field": "dst_port"},
        {"name": "port_entropy", "aggregate": "entropy", "field": "dst_port"},
    ]
    for port in [53, 80, 443, 993, *range(1_000, 1_000 + PORTS)]:
        where = {"field": "dst_port", "equals": port}
        plain += [
            {"name": f"flows_{port}", "aggregate": "count", "where": where},
            {"name": f"bytes_{port}", "aggregate": "sum", "field": "bytes", "where": where},
            {"name": f"packets_{port}", "aggregate": "sum", "field": "packets", "where": where},
            {"name": f"largest_{port}", "aggregate": "max", "field": "bytes", "where": where},
        ]
    return plain[:n]


def batches(n_entities: int, minutes: range) -> Iterator[RecordBatch]:
    """Ten events an entity and minute, in batches of 10,000."""
    rng = np.random.default_rng(1)
    bodies = [flow(rng, 0, START_MS).partition(b'"dst"')[2] for _ in range(2_000)]
    values: list[bytes] = []
    offset = 0
    for number in minutes:
        for k in range(EVENTS_A_WINDOW):
            stamp = b'{"ts":%d,"src":"10.' % (START_MS + number * WINDOW_MS + k * 6_000 + 100)
            for entity in range(n_entities):
                address = b'%d.%d.%d","dst"' % (entity >> 16 & 255, entity >> 8 & 255, entity & 255)
                values.append(stamp + address + bodies[(entity * 7 + number * 13 + k * 31) % len(bodies)])
                if len(values) == BATCH:
                    offsets = np.arange(offset, offset + BATCH)
                    offset += BATCH
                    yield RecordBatch(
                        "sizes", 0, offsets, offsets + 10**13, values, offset
                    )  # received later than any event
                    values = []


def configured(n_features: int) -> Config:
    """So many features of 60 s windows."""
    data = a_config_data("127.0.0.1:1", "sizes")
    data["features"] = {"list": features(n_features)}
    data["windows"] = {"size": "60s", "grace": "0s", "max_entities": 200_000}
    return Config.parse(yaml.safe_dump(data))


def a_model(n_features: int) -> bytes:
    """Trained for a moment on windows of these features: what it costs to score does not depend on how good it is."""
    config = configured(n_features)
    pipeline = Pipeline(stages_of(config), 0)
    pipeline.begin(0, None)
    for batch in batches(1_000, range(3)):
        pipeline.process(batch, None, 0, lambda: None)
    rows = np.concatenate([batch.values for batch in pipeline.take_outcome().training])
    wanted = schema(config.features, config.events.field_types())
    settings = ModelSettings(score_samples=8, steps=60)
    named = Features(wanted.names, tuple(map(str, wanted.kinds)), wanted.digest, {})
    model = train(rows, named, settings, 0)
    calibration = Calibration.fit(Scorer(model).score(rows).scores, windows_per_day=1e5)
    return pack(replace(model, version="1.0", extra={"calibration": calibration.to_json()}))


def measure(n_entities: int, n_features: int, n_minutes: int, blob: bytes) -> dict[str, float]:
    """Microseconds of CPU an event, and the peak of resident memory."""
    config = configured(n_features)
    model = model_loader(config, PrometheusTelemetry())(blob)
    pipeline = Pipeline(stages_of(config), 0)
    pipeline.begin(0, None)
    publisher = Publisher(topics_of(config), stages_of(config))
    publisher.begin(0, 0, [])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu_s, n_events = 0.0, 0
    for number, batch in enumerate(batches(n_entities, range(10, 10 + n_minutes)), 1):
        began = time.process_time()
        pipeline.process(batch, model, 0, lambda: None)
        if number % COMMIT_AFTER == 0:
            publisher.prepare(pipeline)
        cpu_s += time.process_time() - began
        n_events += len(batch)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"us": cpu_s / n_events * 1e6, "peak_mb": after / 1024, "added_mb": (after - before) / 1024}


def table(entities: Sequence[int], widths: Sequence[int], n_events: int) -> Iterator[tuple[int, int, dict[str, float]]]:
    """(entities, features, what was measured), each in a process where nothing else has been."""
    for n_features in widths:
        with tempfile.TemporaryDirectory() as directory:
            model = Path(directory) / "model"
            subprocess.run([sys.executable, __file__, "model", str(n_features), str(model)], check=True)
            for n_entities in entities:
                n_minutes = max(3, round(n_events / EVENTS_A_WINDOW / n_entities))
                command = [sys.executable, __file__, str(n_entities), str(n_features), str(n_minutes), str(model)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                yield n_entities, n_features, json.loads(done.stdout)


def main() -> None:
    settle_process()
    if sys.argv[1] == "model":
        Path(sys.argv[3]).write_bytes(a_model(int(sys.argv[2])))
        return
    print(json.dumps(measure(*map(int, sys.argv[1:4]), Path(sys.argv[4]).read_bytes())))


if __name__ == "__main__":
    main()
