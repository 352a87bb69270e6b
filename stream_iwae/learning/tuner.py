"""Rows -> weights: the importance-weighted autoencoder as learning uses it."""

from dataclasses import dataclass, field, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import FeatureSchema
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ArtefactError
from stream_iwae.iwae.artefact import Model, pack, unpack
from stream_iwae.iwae.cascade import THRESHOLD_KEY, RowScorer, make_scorer
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.training import MIN_ROWS, Features, finished, train, tune
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.learner import Learner
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.served import Scored, Tick, Weights
from stream_iwae.learning.warmup import KEPT, distances, has_memorised, inliers, otsu

_CLEANING_ROUNDS: Final = 3
_CLEANING_STEPS: Final = 400
_GATE_STEPS: Final = 1200  # at most, of the model that may leave rows out
_GATE_TRIM: Final = 0.1
_GATE_ROWS: Final = 20_000  # at most, that both models are compared on
_ASTONISHING: Final = 6.9  # nats of a combined score: one row in a thousand


@dataclass(frozen=True, slots=True)
class IwaeWeights:
    """A trained network, ready to score."""

    model: Model
    scorer: RowScorer = field(compare=False)

    @classmethod
    def of(cls, model: Model) -> Self:
        """Put the network on its device."""
        return cls(model, make_scorer(model, model.settings.device))

    def score(self, values: NDArray[np.float64], tick: Tick) -> Scored:
        """Score (N, D) raw values."""
        scores = self.scorer.score(values, on_chunk=tick)
        return Scored(scores.scores, scores.bounds, scores.effective_samples)

    def astonished(self, values: NDArray[np.float64], tick: Tick) -> NDArray[np.bool_]:
        """Which of (N, D) raw values only one ordinary window in a thousand would exceed; none without channels."""
        if self.model.channels is None:
            return np.zeros(len(values), dtype=np.bool_)
        return self.scorer.score(values, on_chunk=tick).scores > _ASTONISHING

    def tuned(self, rows: Rows, seed: int, tick: Tick) -> Weights:
        """Fine-tune a copy: a tenth of the base rate, at most two epochs, pulled to these weights."""
        return IwaeWeights.of(tune(self.model, rows.values, seed, on_step=tick))

    def cascading(self, threshold: float) -> Weights | None:
        """The same weights, scoring with more samples near this threshold; None where no cascade is configured."""
        if not self.model.settings.cascade_samples:
            return None
        return IwaeWeights.of(replace(self.model, extra={THRESHOLD_KEY: threshold}))

    def pack(self, version: str, extra: dict[str, object]) -> bytes:
        """The artefact as bytes."""
        own = {key: value for key, value in self.model.extra.items() if key == THRESHOLD_KEY}
        return pack(replace(self.model, version=version, extra=own | extra))


class IwaeMethod:
    """Trains first models, and reads artefacts, for one feature schema."""

    def __init__(self, settings: ModelSettings, schema: FeatureSchema, *, is_warmup_trusted: bool) -> None:
        self._settings = settings
        self._schema = schema
        self._is_warmup_trusted = is_warmup_trusted

    def first(self, rows: Rows, labels: dict[int, str], seed: int, tick: Tick) -> Weights:
        """Train from nothing; where the warm-up is not trusted, look for a second population first.

        Raises:
            ValueError: There are too few rows, or the training diverged.
        """
        schema = self._schema
        features = Features(schema.names, tuple(str(kind) for kind in schema.kinds), schema.digest, labels)
        if self._is_warmup_trusted:
            return IwaeWeights.of(train(rows.values, features, self._settings, seed, on_step=tick, is_trusted=True))
        values = rows.values[self._core(rows.values, features, seed, tick)]
        return IwaeWeights.of(self._unspoilt(values, features, seed, tick))

    def _unspoilt(self, values: NDArray[np.float64], features: Features, seed: int, tick: Tick) -> Model:
        """The model of all rows, or, where it has learnt attacks, one that could leave out what fitted worst."""
        settings = self._settings
        model = train(values, features, settings, seed, on_step=tick)
        if settings.trim >= _GATE_TRIM or len(values) < 2 * MIN_ROWS:
            return model
        bare = replace(settings, trim=_GATE_TRIM, steps=min(settings.steps, _GATE_STEPS), score="bound")
        trimmed = train(values, features, bare, seed, on_step=tick)
        sample = values[:: -(-len(values) // _GATE_ROWS)]
        scorer = Scorer(trimmed, settings.device)
        both = [each.score(sample, on_chunk=tick).bounds for each in (Scorer(model, settings.device), scorer)]
        if not has_memorised(*both):
            return model
        scores = scorer.score(values, on_chunk=tick).bounds
        kept = values[scores <= np.nanquantile(scores, KEPT)]
        return finished(replace(trimmed, settings=replace(bare, score=settings.score)), kept, seed, is_trusted=True)

    def _core(self, values: NDArray[np.float64], features: Features, seed: int, tick: Tick) -> NDArray[np.bool_]:
        """Rows to learn from, (N,): all, unless a second population is too large to be a tail."""
        everything = np.ones(len(values), dtype=np.bool_)
        distance = distances(values, self._schema.kinds)
        if len(values) < 2 * MIN_ROWS or not otsu(distance).is_heavy:
            return everything
        core = distance <= np.median(distance)
        settings = replace(self._settings, steps=min(_CLEANING_STEPS, self._settings.steps), score="bound")
        for _ in range(_CLEANING_ROUNDS):
            model = train(values[core], features, settings, seed, on_step=tick)
            core = inliers(Scorer(model, settings.device).score(values, on_chunk=tick).scores, core)
        return core

    def unpack(self, blob: bytes) -> tuple[str, Weights, dict[str, object]]:
        """Version, weights and JSON part of an artefact.

        Raises:
            ArtefactError: It is damaged, or made for another feature schema.
        """
        model = unpack(blob)
        if model.schema_digest != self._schema.digest:
            raise ArtefactError(
                f"model {model.version} was made for features {model.schema_digest}, not for {self._schema.digest}"
            )
        return model.version, IwaeWeights.of(model), model.extra


def make_learner(
    config: LearningConfig,
    settings: ModelSettings,
    detection: DetectionConfig,
    schema: FeatureSchema,
    seed: int = 0,
) -> Learner:
    """A learner that trains importance-weighted autoencoders as configured."""
    method = IwaeMethod(settings, schema, is_warmup_trusted=config.warmup_labels == "trusted")
    return Learner(config, detection, schema, method, seed)
