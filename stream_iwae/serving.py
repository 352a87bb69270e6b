"""Artefact bytes -> ServingModel: weights, transform and calibration as one thing to swap to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Explanations, FeatureSchema, ScoreBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.errors import ArtefactError
from stream_iwae.iwae.artefact import Model, unpack
from stream_iwae.iwae.cascade import RowScorer, make_scorer
from stream_iwae.iwae.memory_relief import MemoryRelief
from stream_iwae.iwae.scoring import pick_device
from stream_iwae.pipeline import ServingModel


@dataclass(frozen=True, slots=True)
class TorchScorer:
    """The tensors' scorer in terms of the flow's batches."""

    version: str
    scorer: RowScorer

    def score(self, values: NDArray[np.float64], on_chunk: Callable[[], None]) -> ScoreBatch:
        """Score (N, D) raw values in fixed chunks; calls `on_chunk` between them."""
        scores = self.scorer.score(values, on_chunk=on_chunk)
        return ScoreBatch(
            self.version,
            scores.scores,
            scores.standard_errors,
            scores.effective_samples,
            scores.reconstructions,
        )

    def explain(self, values: NDArray[np.float64]) -> Explanations:
        """What each feature of (R, D) raw values adds, and what was expected."""
        explained = self.scorer.explain(values)
        return Explanations(
            explained.contributions,
            explained.expected,
            explained.expected_low,
            explained.expected_high,
            self.scorer.labels,
        )


def load_serving_model(
    blob: bytes,
    schema: FeatureSchema,
    detection: DetectionConfig,
    device: str,
    on_relief: Callable[[str, int], None] = lambda _device, _chunk_rows: None,
) -> ServingModel:
    """Make a serving model of an artefact; `on_relief` hears where scoring goes on when a GPU's memory was full.

    Raises:
        ArtefactError: It is damaged, has no calibration, or was made for other features.
    """
    model = unpack(blob)
    if model.schema_digest != schema.digest:
        raise ArtefactError(
            f"model {model.version} was made for the features {model.schema_digest}, "
            f"this configuration has {schema.digest}; train a new one or go back to the former features"
        )
    if "calibration" not in model.extra:
        raise ArtefactError(f"model {model.version} has no calibration")
    judge = Judge(Calibration.from_json(model.extra["calibration"]), detection)
    _prove(model, len(schema.names))
    place = pick_device(device)
    if place.type == "cuda":
        scorer: RowScorer = MemoryRelief(partial(make_scorer, model), str(place), on_relief)
    else:
        scorer = make_scorer(model, device)
    return ServingModel(model.version, model.schema_digest, TorchScorer(model.version, scorer), judge)


def _prove(model: Model, n_features: int) -> None:
    """Score and explain one empty row: what cannot is refused now, and not in the midst of a stream."""
    row = np.full((1, n_features), np.nan)
    try:
        scorer = make_scorer(model, "cpu")
        scorer.score(row, on_chunk=lambda: None)
        scorer.explain(row)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ArtefactError(f"model {model.version} cannot score: {type(error).__name__}: {error}") from error
