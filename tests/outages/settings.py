"""The configuration of everyone in a schedule, the topics, and the pinned model."""

import functools
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from stream_iwae.batches import RecordBatch
from stream_iwae.bootstrap import settle_process, stages_of
from stream_iwae.config import Config
from stream_iwae.detection.calibration import Calibration
from stream_iwae.features.config import schema
from stream_iwae.iwae.artefact import pack
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train
from stream_iwae.pipeline import Pipeline
from tests.outages.logs import GRACE_MS, N_PARTITIONS, SIZE_MS, START_MS, window_of_messages

SESSION_S: Final = 6
TRANSACTION_S: Final = 10
PINNED: Final = "1.0"
FIRST_MODEL_ROWS: Final = 300


@dataclass(frozen=True, slots=True)
class Names:
    """Of the topics of one schedule."""

    group: str

    @property
    def events(self) -> str:
        return f"{self.group}.events"

    @property
    def outputs(self) -> dict[str, str]:
        """By key of `kafka.topics`; `models` holds the pinned model alone."""
        kinds = ("alerts", "dead_letters", "state", "training", "models", "scores")
        return {kind: f"{self.group}.{kind}" for kind in kinds}

    @property
    def learnt(self) -> str:
        """Where the trainer announces what it has learnt; no replica reads it."""
        return f"{self.group}.learnt"


def configuration(bootstrap_servers: str, names: Names, instance: str, client: str, *, is_trainer: bool = False) -> Any:
    """What is in the file of one process."""
    topics = {"events": names.events, **names.outputs}
    if is_trainer:
        topics["models"] = names.learnt
    return {
        "detector": "outages",
        "kafka": {
            "bootstrap_servers": bootstrap_servers,
            "client": client,
            "group": names.group,
            "instance": instance,
            "start": "earliest",
            "replication_factor": 3,
            "commit_interval": "100ms",
            "max_poll_records": 200,
            "session_timeout": f"{SESSION_S}s",
            "transaction_timeout": f"{TRANSACTION_S}s",
            "topics": topics,
        },
        "events": {"preset": "simulated", "keyed_by_entity": True},
        "windows": {"size": f"{SIZE_MS}ms", "grace": f"{GRACE_MS}ms"},
        "features": [
            {"name": "flows", "aggregate": "count"},
            {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": True},
            {"name": "ports", "aggregate": "distinct", "field": "dst_port"},
        ],
        "incidents": {"quiet_windows": 1},
        "model": {"steps": 60},
        "learning": {"min_windows": FIRST_MODEL_ROWS, "interval": "5m", "calibration_interval": "1d"},
        "http": {"port": 0},
    }


@functools.cache
def pinned_model() -> bytes:
    """A model of ordinary windows as the pipeline makes them, trained once."""
    settle_process()
    config = Config.model_validate(configuration("x:1", Names("x"), "x", "kafka-python"))
    wanted = schema(config.features, config.events.field_types())
    rows = np.concatenate([_rows_of(config, partition) for partition in range(N_PARTITIONS)])
    kinds = tuple(str(kind) for kind in wanted.kinds)
    model = train(rows, Features(wanted.names, kinds, wanted.digest, {}), ModelSettings(steps=150), 0)
    calibration = Calibration.fit(Scorer(model).score(rows).scores, windows_per_day=8640.0 * 16)
    return pack(replace(model, version=PINNED, extra={"calibration": calibration.to_json()}))


def _rows_of(config: Config, partition: int) -> Any:
    """Windows of one partition of a log that no schedule has."""
    messages = [message for number in range(150) for message in window_of_messages(-1, number, has_scans=False)]
    values = [message.value for message in messages if message.partition == partition]
    pipeline = Pipeline(stages_of(config), partition)
    pipeline.begin(0, None)
    offsets, times = np.arange(len(values)), np.full(len(values), START_MS + 10**9, dtype=np.int64)
    pipeline.process(RecordBatch("x", partition, offsets, times, values, len(values)), None, 0, lambda: None)
    return np.concatenate([batch.values for batch in pipeline.outcome.training])
