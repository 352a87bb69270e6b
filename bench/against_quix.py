"""Quix Streams beside us: the same topic, window and five aggregates, per CPU-second.

Quix keeps windows by the message's key, so the topic is keyed by entity. It needs other versions of our libraries: the
first run makes it an environment of its own in the cache.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from flows import a_config_data, a_pool, minute
from ingest import ingest

from stream_iwae.config import Config
from stream_iwae.lab.kafka_install import cache_directory
from stream_iwae.lab.publish import MessagePublisher, create_topic

VERSION = "3.28.1"
TOPIC = "quix"
FEATURES = [
    {"name": "flows", "aggregate": "count"},
    {"name": "bytes", "aggregate": "sum", "field": "bytes"},
    {"name": "largest", "aggregate": "max", "field": "bytes"},
    {"name": "packets", "aggregate": "mean", "field": "packets"},
    {"name": "shortest", "aggregate": "min", "field": "duration_s"},
]


def against_quix(servers: str, n_entities: int, n_events: int) -> dict[str, float]:
    """Events a CPU-second: of Quix Streams, and of us with either client."""
    python = _environment()
    create_topic(servers, TOPIC)
    rng = np.random.default_rng(4)
    pool = a_pool(rng, n_entities)
    with MessagePublisher(servers, TOPIC) as publisher:
        number = 0
        while publisher.n_events < n_events:
            for entity, message in minute(number, n_entities, pool):
                if publisher.n_events == n_events:
                    break
                publisher.send(str(entity).encode(), message)
            number += 1
    with tempfile.TemporaryDirectory() as directory:
        command = [
            str(python),
            str(Path(__file__).with_name("quix_rival.py")),
            servers,
            TOPIC,
            str(n_events),
            directory,
        ]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    seen, n_windows, cpu_s = map(float, done.stdout.split())
    assert seen == n_events
    assert n_windows > n_events / 12, f"{n_events} events gave Quix only {n_windows} windows"
    return {
        "quix": n_events / cpu_s,
        "kafka-python": _ours(servers, n_events, "kafka-python"),
        "confluent": _ours(servers, n_events, "confluent"),
    }


def _ours(servers: str, n_events: int, client: str) -> float:
    data = a_config_data(servers, TOPIC, client=client)
    data["features"] = {"list": FEATURES}
    return n_events / ingest(Config.parse(yaml.safe_dump(data)), TOPIC, n_events).cpu_s


def _environment() -> Path:
    place = cache_directory() / f"quixstreams-{VERSION}"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", f"quixstreams=={VERSION}"]
        subprocess.run(install, check=True)
    return python
