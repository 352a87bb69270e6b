"""NSL-KDD through Kafka: each record a window, with categorical features, learnt and scored without labels."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from stream_iwae.lab import datasets
from stream_iwae.lab.publish_command import publish
from stream_iwae.lab.service_process import ServiceProcess
from stream_iwae.wire import decode_scores

pytestmark = [pytest.mark.kafka, pytest.mark.data]
EXAMPLE = Path(__file__).parents[2] / "deploy/examples/nsl-kdd.yaml"
N_RECORDS = 14_000


def test_records_with_categories_are_learnt_and_scored(kafka, data_dir, read_topic, tmp_path):
    servers = kafka.bootstrap_servers
    publish("nsl-kdd", "nsl-kdd", servers, limit=N_RECORDS, data=data_dir)
    config = yaml.safe_load(EXAMPLE.read_text())
    config["kafka"] |= {"bootstrap_servers": servers, "max_poll_records": 2_000}
    config |= {"http": {"port": 0}, "model": {"steps": 600}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))

    with ServiceProcess(path, tmp_path / "log") as service:
        status = service.wait_until(lambda status: status["events"]["consumed"] >= N_RECORDS, 150, lambda _: None)

    assert status["events"]["aggregated"] == N_RECORDS
    records = [decode_scores(record.value) for record in read_topic("nsl-kdd.scores")]
    scores = np.array([score for record in records for score in record.scores])
    truth = [label is not None for label in islice(datasets.labels("nsl-kdd", data_dir), N_RECORDS)]
    # One partition and one record a window: the scored ones are the last, in order.
    assert 5_000 < len(scores) < N_RECORDS - 4_000
    assert roc_auc_score(truth[-len(scores) :], scores) > 0.85
