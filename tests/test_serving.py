"""From an artefact to verdicts: explanations in slices, and a GPU whose memory is full."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stream_iwae import serving
from stream_iwae.batches import Explanations, FeatureBatch, FeatureSchema, Kind, ScoreBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.iwae.artefact import pack
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import Features, train
from stream_iwae.pipeline import EXPLAINED_AT_ONCE, ServingModel

SCHEMA = FeatureSchema(names=("bytes", "flows"), kinds=(Kind.MAGNITUDE, Kind.MAGNITUDE), units=("B", ""))
CALIBRATION = Calibration.fit(np.random.default_rng(1).exponential(size=2_000), windows_per_day=1_000.0)


def feature_batch(values):
    n = len(values)
    return FeatureBatch(
        schema=SCHEMA,
        values=values,
        entities=[f"host-{i}" for i in range(n)],
        window_start_ms=np.zeros(n, np.int64),
        window_end_ms=np.full(n, 60_000, np.int64),
        n_events=np.full(n, 5, np.int64),
        first_offset=np.arange(n, dtype=np.int64),
        last_offset=np.arange(n, dtype=np.int64),
        silence_p_values=np.full(n, np.nan),
        labels={},
    )


class FirstValueScorer:
    """The score is the first value, and the explanation the row itself; it remembers how many rows it was asked for."""

    def __init__(self):
        self.asked = []

    def score(self, values, on_chunk):
        n = len(values)
        return ScoreBatch("m", values[:, 0], np.zeros(n), np.ones(n), values[:, 0])

    def explain(self, values):
        self.asked.append(len(values))
        return Explanations(values, values + 1, values + 2, values + 3, {})


def test_a_flood_of_anomalies_is_explained_in_slices_and_the_loop_is_called_between_them():
    n, calls = 2 * EXPLAINED_AT_ONCE + 3, []
    scorer = FirstValueScorer()
    serving_model = ServingModel("m", SCHEMA.digest, scorer, Judge(CALIBRATION, DetectionConfig()))
    values = np.column_stack([1e6 + np.arange(n), np.arange(n)])

    verdicts = serving_model.judge_rows(feature_batch(values), lambda: calls.append(1))

    assert scorer.asked == [EXPLAINED_AT_ONCE, EXPLAINED_AT_ONCE, 3]
    assert len(calls) == 3
    assert len(verdicts.findings) == n
    for row in (0, EXPLAINED_AT_ONCE, n - 1):  # each row has its own explanation
        assert verdicts.findings[row][0].expected == values[row, 0] + 1


@pytest.fixture(scope="module")
def model():
    rows = np.random.default_rng(2).lognormal(5, 1, (500, 2))
    settings = ModelSettings(hidden=(8,), latent=2, score_samples=4, device="cpu", steps=30)
    features = Features(SCHEMA.names, ("magnitude", "magnitude"), SCHEMA.digest, {})
    made = train(rows, features, settings, seed=0)
    return replace(made, extra={**made.extra, "calibration": CALIBRATION.to_json()})


def test_scoring_goes_on_where_the_memory_of_a_gpu_is_full_and_that_is_told(model, monkeypatch):
    told = []

    def made(model, device, chunk_rows=None):
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Scorer(model, device, chunk_rows)

    monkeypatch.setattr(serving, "pick_device", torch.device)  # as if there were one
    monkeypatch.setattr(serving, "make_scorer", made)
    found = serving.load_serving_model(
        pack(model), SCHEMA, DetectionConfig(), "cuda", lambda device, chunk_rows: told.append((device, chunk_rows))
    )

    values = np.array([[100.0, 100.0], [1e9, 1.0]])
    assert np.array_equal(found.scorer.score(values, lambda: None).scores, Scorer(model).score(values).scores)
    assert told[0] == ("cuda", 4096)
    assert told[-1] == ("cpu", 256)
