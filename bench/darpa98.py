"""DARPA-98, all of it, through Kafka and the service: rate, memory, alerts, and the AUROC of the window scores.

python bench/darpa98.py [--data DIR]        about three minutes; writes docs/results/darpa98.json
"""

import argparse
import json
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import yaml
from kafka import KafkaConsumer, TopicPartition
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_iwae.batches import TrainingBatch
from stream_iwae.lab import datasets
from stream_iwae.lab.local_kafka import local_kafka
from stream_iwae.lab.publish_command import publish
from stream_iwae.lab.service_process import ServiceProcess
from stream_iwae.row_ids import hash_entities
from stream_iwae.wire import decode_scores, decode_training

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "deploy/examples/darpa98.yaml"
MINUTE_MS = 60_000


def read_all(servers: str, topic: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed", enable_auto_commit=False)
    partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = consumer.end_offsets(partitions)
    values = []
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        values += [record.value for records in consumer.poll(timeout_ms=500).values() for record in records]
    consumer.close()
    return values


def attacked_windows(data: Path) -> set[tuple[str, int]]:
    """(destination, window end) of every window that holds an attack; labels are read here and nowhere else."""
    attacked = set()
    pairs = zip(datasets.events("darpa98", data), datasets.labels("darpa98", data), strict=True)
    for event, label in pairs:
        if label is not None:
            attacked.add((event["dst"], event["ts"] // MINUTE_MS * MINUTE_MS + MINUTE_MS))
    return attacked


def rivals_on(batches: list[TrainingBatch], attacked: set[tuple[str, int]]) -> dict[str, dict[str, float]]:
    """AUROC and average precision of the number of connections alone, and of an isolation forest."""
    destinations = sorted({entity for entity, _ in attacked})
    name_of = dict(zip(hash_entities(destinations).tolist(), destinations, strict=True))
    values = np.concatenate([batch.values for batch in batches])
    entities = np.concatenate([batch.entity_ids for batch in batches]).tolist()
    ends = np.concatenate([batch.window_end_ms for batch in batches]).tolist()
    has_model = np.concatenate([np.full(len(batch), bool(batch.model_version)) for batch in batches])
    truth = np.array([(name_of.get(entity), end) in attacked for entity, end in zip(entities, ends, strict=True)])
    logged = np.log1p(np.nan_to_num(values))
    forest = IsolationForest(random_state=0).fit(logged[~has_model])
    scores = {"connections": logged[has_model, 0], "isolation-forest": -forest.score_samples(logged[has_model])}
    return {
        name: {
            "auroc": round(float(roc_auc_score(truth[has_model], found)), 4),
            "average_precision": round(float(average_precision_score(truth[has_model], found)), 4),
        }
        for name, found in scores.items()
    }


def peak_memory_bytes(pid: int) -> int:
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="directory of the data sets")
    data = datasets.data_directory(parser.parse_args().data)
    with tempfile.TemporaryDirectory() as directory, local_kafka() as kafka:
        servers = kafka.bootstrap_servers
        report = publish("darpa98", "darpa98", servers, key="dst", batch=100, data=data)
        config = yaml.safe_load(EXAMPLE.read_text())
        config["kafka"]["bootstrap_servers"] = servers
        config["http"] = {"port": 0}
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        with ServiceProcess(path, Path(directory) / "log") as service:
            began = None
            live: tuple[float, int] | None = None

            def tell(status: dict) -> None:
                nonlocal began, live
                began = began or time.monotonic()
                if live is None and status["model_version"] is not None:
                    live = (time.monotonic(), status["events"]["consumed"])

            status = service.wait_until(lambda s: s["events"]["consumed"] >= report.n_events, 900, tell)
            ended = time.monotonic()
            memory = peak_memory_bytes(service.pid)
        scores, ends, entities = [], [], []
        for value in read_all(servers, "darpa98.scores"):
            record = decode_scores(value)
            scores += record.scores
            ends += record.window_end_ms
            entities += [entity.get("dst", None) for entity in record.entities]
        alerts = [json.loads(value) for value in read_all(servers, "darpa98.alerts")]
        rows = [decode_training(value) for value in read_all(servers, "darpa98.training")]
    attacked = attacked_windows(data)
    truth = np.array([(entity, end) in attacked for entity, end in zip(entities, ends, strict=True)])
    found = np.array(scores, dtype=float)
    opened = [alert for alert in alerts if alert["status"] == "open"]
    spans = Counter(alert["severity"] for alert in opened)
    rivals = rivals_on(rows, attacked)
    assert live is not None
    result = {
        "events": status["events"],
        "windows": status["windows"],
        "events_per_second_with_model": round((report.n_events - live[1]) / (ended - live[0])),
        "events_per_second_with_training": round(report.n_events / (ended - began)),
        "peak_memory_mb": round(memory / 1e6),
        "incidents_opened": len(opened),
        "incidents_by_severity": dict(spans),
        "incidents_on_attacked_windows": sum(
            (alert["entity"].get("dst"), int(np.datetime64(alert["window_end"][:-1], "ms").astype(int))) in attacked
            for alert in opened
        ),
        "scored_windows": len(found),
        "attacked_share": round(float(truth.mean()), 4),
        "auroc": round(float(roc_auc_score(truth, found)), 4),
        "average_precision": round(float(average_precision_score(truth, found)), 4),
        "rivals_on_the_same_windows": rivals,
    }
    print(json.dumps(result, indent=2))
    (ROOT / "docs/results/darpa98.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
