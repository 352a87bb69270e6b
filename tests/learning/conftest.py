import json

import numpy as np
import pytest

from stream_iwae.batches import FeatureSchema, Kind, TrainingBatch
from stream_iwae.errors import ArtefactError
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.served import Scored

HOUR = 3_600_000


def rows_of(n, *, n_features=2, end_ms=None, entities=None, p_values=None, first_id=0, values=None, judged=False):
    """N rows; row ids count up, everything else is ordinary."""
    rng = np.random.default_rng(first_id)
    return Rows(
        row_ids=np.arange(first_id, first_id + n, dtype=np.uint64),
        entity_ids=np.arange(n, dtype=np.uint64) if entities is None else np.asarray(entities, np.uint64),
        window_end_ms=np.asarray(np.zeros(n) if end_ms is None else end_ms, np.int64),
        values=rng.lognormal(size=(n, n_features)) if values is None else np.asarray(values, np.float64),
        scores=np.zeros(n) if judged else np.full(n, np.nan),
        p_values=np.full(n, 0.5 if judged else np.nan) if p_values is None else np.asarray(p_values, np.float64),
        in_incident=np.zeros(n, np.bool_),
        was_judged=np.full(n, judged),
    )


@pytest.fixture
def make_rows():
    return rows_of


@pytest.fixture
def make_batch():
    def make(rows, *, digest="0123456789abcdef", version="", **flags):
        return TrainingBatch(
            schema_digest=digest,
            model_version=version,
            row_ids=rows.row_ids,
            entity_ids=rows.entity_ids,
            window_end_ms=rows.window_end_ms,
            values=rows.values,
            scores=rows.scores,
            p_values=rows.p_values,
            in_incident=rows.in_incident,
            labels={},
            **flags,
        )

    return make


ASTONISHING = 6.0  # standard deviations


class GaussianWeights:
    """A stand-in for a network: independent normals, refitted by tuning."""

    def __init__(self, mean, std):
        self.mean, self.std = np.asarray(mean, float), np.asarray(std, float)

    def score(self, values, tick):
        tick()
        z = (values - self.mean) / self.std
        scores = np.sum(0.5 * z**2 + np.log(self.std), axis=1)
        return Scored(scores, scores, np.full(len(values), 4.0))

    def astonished(self, values, tick):
        tick()
        return np.abs((values - self.mean) / self.std).max(axis=1) > ASTONISHING

    def tuned(self, rows, seed, tick):
        tick()
        return GaussianWeights(rows.values.mean(axis=0), rows.values.std(axis=0))

    def cascading(self, threshold):
        return None

    def pack(self, version, extra):
        return json.dumps(
            {"version": version, "mean": self.mean.tolist(), "std": self.std.tolist(), "extra": extra}
        ).encode()


class GaussianMethod:
    """What the learner asks of the network's package."""

    def __init__(self):
        self.failures = 0
        self.n_first_rows = None

    def first(self, rows, labels, seed, tick):
        tick()
        if self.failures:
            self.failures -= 1
            raise ValueError("loss became nan")
        self.n_first_rows = len(rows)
        return GaussianWeights(rows.values.mean(axis=0), rows.values.std(axis=0))

    def unpack(self, blob):
        try:
            document = json.loads(blob)
        except ValueError as error:
            raise ArtefactError(f"damaged: {error}") from error
        return document["version"], GaussianWeights(document["mean"], document["std"]), document["extra"]


@pytest.fixture
def method():
    return GaussianMethod()


SCHEMA = FeatureSchema(("in", "out"), (Kind.GAUGE, Kind.GAUGE), ("B", "B"))


@pytest.fixture
def schema():
    return SCHEMA


@pytest.fixture
def make_stream():
    """A steady stream: `per_hour` windows an hour over 20 entities, ids from their position."""

    def make(hours, *, per_hour=1_000, start_hour=0, mean=0.0, seed=0, version="", p_value=0.5):
        n = hours * per_hour
        first_id = start_hour * per_hour
        values = np.random.default_rng(seed + start_hour).normal(mean, size=(n, 2))
        return TrainingBatch(
            schema_digest=SCHEMA.digest,
            model_version=version,
            row_ids=np.arange(first_id, first_id + n, dtype=np.uint64),
            entity_ids=np.arange(n, dtype=np.uint64) % np.uint64(20),
            window_end_ms=start_hour * HOUR + (np.arange(1, n + 1) * HOUR) // per_hour,
            values=values,
            scores=np.sum(0.5 * values**2, axis=1) if version else np.full(n, np.nan),
            p_values=np.full(n, p_value if version else np.nan),
            in_incident=np.zeros(n, np.bool_),
            labels={},
        )

    return make
