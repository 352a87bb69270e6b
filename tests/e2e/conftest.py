import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_topics import ensure_topics
from stream_iwae.adapters.model_store import KafkaModelStore
from stream_iwae.config import Config
from stream_iwae.detection.calibration import Calibration
from stream_iwae.features.config import schema
from stream_iwae.iwae.artefact import pack
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `network` is theirs alone

SETTLED_S = 30.0  # at most, from the answer to a commit to its markers
OUTPUTS = ("alerts", "dead_letters", "state", "training", "models", "scores")


def service_config(servers, events_topic, name, **sections):
    """A small configuration: three features a window of ten seconds, everything from the beginning.

    Sections given by name are merged over it; what is no mapping there replaces it.
    """
    config = {
        "detector": "e2e",
        "kafka": {
            "bootstrap_servers": servers,
            "group": name,
            "instance": f"{name}-1",
            "start": "earliest",
            "commit_interval": "50ms",
            "max_poll_records": 200,
            "session_timeout": "6s",
            "transaction_timeout": "10s",
            "topics": {"events": events_topic, **{output: f"{name}.{output}" for output in OUTPUTS}},
        },
        "events": {"preset": "simulated"},
        "windows": {"size": "10s", "grace": "0s"},
        "features": [
            {"name": "flows", "aggregate": "count"},
            {"name": "bytes", "aggregate": "sum", "field": "bytes"},
            {"name": "ports", "aggregate": "distinct", "field": "dst_port"},
        ],
        "incidents": {"quiet_windows": 1},
        "http": {"port": 0},
    }
    for section, values in sections.items():
        former = config.get(section)
        config[section] = {**former, **values} if isinstance(former, dict) else values
    return config


def ordinary_windows(rng, n):
    flows = rng.integers(1, 8, n).astype(float)
    return np.stack([flows, flows * rng.lognormal(6, 0.5, n), np.minimum(flows, rng.integers(1, 4, n))], axis=1)


@pytest.fixture(scope="session")
def artefact():
    """A model of ordinary windows, trained once."""
    config = Config.parse(yaml.safe_dump(service_config("x:1", "x", "x")))
    wanted = schema(config.features, config.events.field_types())
    rows = ordinary_windows(np.random.default_rng(0), 4000)
    kinds = tuple(str(kind) for kind in wanted.kinds)
    model = train(rows, Features(wanted.names, kinds, wanted.digest, {}), ModelSettings(steps=150), 0)
    calibration = Calibration.fit(Scorer(model).score(rows).scores, windows_per_day=8640.0)
    return pack(replace(model, version="1.0", extra={"calibration": calibration.to_json()}))


@pytest.fixture
def write_config(tmp_path, kafka):
    def write(events_topic, name, **sections):
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(service_config(kafka.bootstrap_servers, events_topic, name, **sections)))
        return path

    return write


@pytest.fixture
def pin_model(artefact):
    """Put the model on the models topic of a configuration, so that no trainer is needed."""

    def pin(path, partitions=1):
        config = Config.load(path)
        ensure_topics(config.kafka, partitions)
        store = KafkaModelStore(config.kafka, SystemClock(), KafkaOutputSink(config.kafka, f"{config.kafka.group}-pin"))
        store.publish("1.0", artefact, 0)
        store.close()

    return pin


@pytest.fixture
def publish(kafka):
    """Send values in order, and vouch for each; returns their offsets on a topic of one partition."""

    def send(topic, values):
        producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=20)
        futures = [producer.send(topic, value, key=b"k" if value is None else None) for value in values]
        producer.flush()
        offsets = [future.get(timeout=10).offset for future in futures]
        producer.close()
        return offsets

    return send


@pytest.fixture
def metrics():
    """All samples that /metrics of a service shows, as (name, labels, value)."""

    def read(service):
        with urllib.request.urlopen(f"http://127.0.0.1:{service.port}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]

    return read


@pytest.fixture
def read_topic(kafka):
    """All committed records of a topic; fails where an open transaction hides some of them."""
    settings = {"bootstrap_servers": kafka.bootstrap_servers, "enable_auto_commit": False}

    def read(topic):
        consumer = KafkaConsumer(**settings, auto_offset_reset="earliest", isolation_level="read_committed")
        plain = KafkaConsumer(**settings, isolation_level="read_uncommitted")
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(partitions)
            # A commit is answered before its markers are written, so the last stable offset may lag behind it.
            ends = plain.end_offsets(partitions)
            records, deadline = [], time.monotonic() + SETTLED_S
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                assert time.monotonic() < deadline, f"{topic} holds an open transaction"
                records += [record for polled in consumer.poll(timeout_ms=200).values() for record in polled]
            return records
        finally:
            consumer.close()
            plain.close()

    return read
