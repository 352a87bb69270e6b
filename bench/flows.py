"""Flows to measure with: 265-byte JSON, 10 events a window, and a model that has seen their like."""

from collections.abc import Iterator
from dataclasses import replace

import msgspec
import numpy as np
import yaml

from stream_iwae.batches import RecordBatch
from stream_iwae.config import Config
from stream_iwae.detection.calibration import Calibration
from stream_iwae.features.config import schema
from stream_iwae.iwae.artefact import pack
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train
from stream_iwae.pipeline import Pipeline

START_MS = 1_767_571_200_000
WINDOW_MS = 60_000
EVENTS_A_WINDOW = 10


def flow(rng: np.random.Generator, entity: int, ts: int, scan: bool = False) -> bytes:
    port = int(rng.integers(1, 60_000)) if scan else int(rng.choice([53, 80, 443, 993]))
    return msgspec.json.encode(
        {
            "ts": ts,
            "src": f"10.{entity >> 16 & 255}.{entity >> 8 & 255}.{entity & 255}",
            "dst": f"198.18.{rng.integers(4)}.{rng.integers(50)}",
            "src_port": int(rng.integers(32_768, 60_999)),
            "dst_port": port,
            "proto": "tcp" if port != 53 else "udp",
            "bytes": int(rng.lognormal(7, 1.5)),
            "packets": int(rng.integers(1, 40)),
            "duration_s": round(float(rng.exponential(2.0)), 3),
            "flags": ".AP.SF",
            "exporter": "203.0.113.1",
            "sampler": "ingress-interface-0001-of-the-core-router",
        }
    )


def minute(number: int, n_entities: int, pool: list[list[bytes]]) -> Iterator[tuple[int, bytes]]:
    """(entity, message) of one minute: ten events of each entity, spread over it, made from a pool of bodies."""
    base = START_MS + number * WINDOW_MS
    for k in range(EVENTS_A_WINDOW):
        stamp = b'{"ts":' + str(base + k * 6_000 + 100).encode()
        for entity in range(n_entities):
            bodies = pool[entity % len(pool)]
            yield entity, stamp + bodies[(number + k) % len(bodies)]


def a_pool(rng: np.random.Generator, n_entities: int) -> list[list[bytes]]:
    """Bodies after the time stamp, seven an entity."""
    width = len(b'{"ts":' + str(START_MS).encode())
    return [[flow(rng, entity, START_MS)[width:] for _ in range(7)] for entity in range(n_entities)]


def a_config(servers: str, topic: str, **kafka: object) -> Config:
    """D = 20 features, H = 64, Z = 8, K = 8."""
    return Config.parse(yaml.safe_dump(a_config_data(servers, topic, **kafka)))


def a_config_data(servers: str, topic: str, **kafka: object) -> dict[str, object]:
    return {
        "detector": topic,
        "kafka": {
            "bootstrap_servers": servers,
            "group": topic,
            "start": "earliest",
            "topics": {
                "events": topic,
                **{n: f"{topic}.{n}" for n in ("alerts", "dead_letters", "state", "training", "models")},
            },
            **kafka,
        },
        "events": {"preset": "simulated"},
        "windows": {"size": "60s", "grace": "0s"},
        "features": {
            "preset": "flows-per-source",
            "list": [
                {"name": "smallest_flow", "aggregate": "min", "field": "bytes"},
                {"name": "packets_per_flow", "ratio": ["packets", "flows"]},
            ],
        },
        "model": {"score_samples": 8},
        "detection": {"budget": "20/day"},
        "learning": {"interval": "0"},
        "http": {"port": 0},
    }


def a_model(config: Config, stages: object) -> bytes:
    """An artefact trained on a few thousand of these windows."""
    rng = np.random.default_rng(3)
    pool = a_pool(rng, 2_000)
    pipeline = Pipeline(stages, 0)
    pipeline.begin(0, None)
    values = [message for number in range(3) for _, message in minute(number, 2_000, pool)]
    n = len(values)
    offsets = np.arange(n)
    pipeline.process(RecordBatch("x", 0, offsets, offsets + 10**13, values, n), None, 0, lambda: None)
    rows = np.concatenate([batch.values for batch in pipeline.take_outcome().training])
    wanted = schema(config.features, config.events.field_types())
    kinds = tuple(str(kind) for kind in wanted.kinds)
    settings = ModelSettings(score_samples=8, steps=400)
    model = train(rows, Features(wanted.names, kinds, wanted.digest, {}), settings, 0)
    scores = Scorer(model).score(rows).scores
    calibration = Calibration.fit(scores, windows_per_day=1e5)
    return pack(replace(model, version="1.0", extra={"calibration": calibration.to_json()}))
