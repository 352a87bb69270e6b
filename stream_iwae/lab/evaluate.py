"""Detectors on labelled rows: learn from the warm-up, score every row, and only then look at the labels."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Finding
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.explanation import findings_of_rows
from stream_iwae.errors import ConfigurationError
from stream_iwae.iwae.settings import ModelSettings, Objective, ScoreName
from stream_iwae.lab.evaluation_figures import SAID, Decisions, Ranking, decisions, ranking
from stream_iwae.lab.evaluation_stream import Tick, frozen, judge_rival, learning
from stream_iwae.lab.protocols import Trial
from stream_iwae.lab.rivals import RIVALS, Encoder
from stream_iwae.pipeline import ServingModel

OURS: Final[dict[str, tuple[Objective, ScoreName]]] = {
    "iwae": ("iwae", "combined"),  # the product's default
    "iwae-bound": ("iwae", "bound"),
    "vae": ("vae", "bound"),
    "autoencoder": ("autoencoder", "bound"),
}
LEADING: Final = "iwae"  # the one that the service runs by default
OF_EDGES: Final = ("midas", "midas-r")  # what they say is known once the stream is read
MODELS: Final = (*OURS, *RIVALS, *OF_EDGES)
STRONGEST: Final = 10
_ENCODED: Final = 50_000  # rows that are one-hot at once
_LEARN_ON: Final = ("half-space-trees", *OF_EDGES)  # rivals that learn each row after scoring it
_LEAST_TO_LEARN_ON: Final = 500  # rows of a warm-up that is worth parting further

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Strong:
    """One of the strongest alerts, explained as the service explains it."""

    row: int  # among the judged
    is_anomaly: bool
    score: float
    p_value: float
    findings: tuple[Finding, ...]  # largest contribution first


@dataclass(frozen=True, slots=True)
class Result:
    """One model on one trial."""

    dataset: str
    protocol: str
    model: str
    seed: int
    ranking: Ranking
    decisions: Decisions
    training_seconds: float | None  # of CPU
    us_per_row: float | None  # of CPU, to score; None where it was scored with the reading of the stream
    is_learning: bool
    scores: Values = field(repr=False)  # (N,), of the judged rows; higher is more anomalous
    p_values: Values = field(repr=False)  # (N,)
    is_alert: NDArray[np.bool_] = field(repr=False)  # (N,)
    strongest: tuple[Strong, ...] = ()

    def row(self) -> dict[str, Any]:
        """As plain data, without the scores."""
        decided = asdict(self.decisions)
        shares = {name: decided.pop(name) for name in ("seen_at", "found_at")}
        at = {f"{name}_p_{said}": share[i] for name, share in shares.items() for i, said in enumerate(SAID)}
        plain = {
            "dataset": self.dataset,
            "protocol": self.protocol,
            "model": self.model,
            "seed": self.seed,
            **asdict(self.ranking),
            "us_per_row": self.us_per_row,
            "training_seconds": self.training_seconds,
            **decided,
            **at,
            "learns_on": self.is_learning,
        }
        return {name: _rounded(value) for name, value in plain.items()}

    @property
    def auroc(self) -> float:
        """Over all rows."""
        return self.ranking.auroc

    @property
    def average_precision(self) -> float:
        """Over all rows."""
        return self.ranking.average_precision


def models_for(trial: Trial) -> tuple[str, ...]:
    """All models that make sense on a stream: MIDAS needs edges."""
    return tuple(model for model in MODELS if model not in OF_EDGES or model in trial.judged.known_scores)


def evaluate(
    dataset: str,
    protocol: str,
    trial: Trial,
    model: str,
    seed: int,
    *,
    learn: bool | None = None,
    detection: DetectionConfig | None = None,
    tick: Tick = lambda: None,
) -> Result:
    """Train one model on the warm-up, score the judged rows in order, and compare with the labels.

    Args:
        dataset: Its name, for the result.
        protocol: The same.
        trial: Its rows.
        model: One of `MODELS`.
        seed: Of weights, draws and trees.
        learn: Whether ours goes on learning after the warm-up; None: where rows have a time of their own.
        detection: The budget.
        tick: Called between two steps of training and between chunks that are scored.

    Raises:
        ConfigurationError: There is no such model, or it needs what the stream has not.
        ValueError: The warm-up does not make a model.
    """
    if model not in MODELS:
        raise ConfigurationError("--models", model, f"it is none of {', '.join(MODELS)}")
    detection = detection or DetectionConfig()
    n, is_learning = len(trial.judged), model in _LEARN_ON
    strongest: tuple[Strong, ...] = ()
    training_seconds: float | None
    us_per_row: float | None
    if model in OURS:
        is_learning = learns_on(trial) if learn is None else learn
        run = learning if is_learning else frozen
        objective, score = OURS[model]
        judged = run(trial, ModelSettings(objective=objective, score=score), detection, seed, tick)
        scores, p_values, is_alert = judged.scores, judged.p_values, judged.is_alert
        training_seconds, us_per_row = judged.training_seconds, judged.scoring_seconds / n * 1e6
        strongest = _strongest(trial, scores, p_values, judged.serving, detection.top_features)
    else:
        scores, calibrating, training_seconds, us_per_row = _rival(trial, model, seed, tick)
        _, p_values, is_alert = judge_rival(trial, scores, calibrating, detection).columns()
    return Result(
        dataset=dataset,
        protocol=protocol,
        model=model,
        seed=seed,
        ranking=ranking(trial.judged, trial.in_warmup, scores),
        decisions=decisions(trial.judged, trial.in_warmup, p_values, is_alert),
        training_seconds=training_seconds,
        us_per_row=us_per_row,
        is_learning=is_learning,
        scores=scores,
        p_values=p_values,
        is_alert=is_alert,
        strongest=strongest,
    )


def learns_on(trial: Trial) -> bool:
    """Whether ours goes on learning where nobody says so: where rows have a time, which triggers it."""
    return trial.judged.has_time and len(trial.warmup) >= _LEAST_TO_LEARN_ON


def _rival(trial: Trial, model: str, seed: int, tick: Tick) -> tuple[Values, Values, float | None, float | None]:
    """Scores of the judged rows and of those for p-values, training seconds, microseconds a row."""
    if model in OF_EDGES:
        known = trial.judged.known_scores
        if model not in known:
            raise ConfigurationError("--models", model, "it scores the edges of a graph: take --dataset darpa98")
        return known[model], trial.calibration.known_scores[model], None, None
    began = time.process_time()
    encoder = Encoder(trial.warmup)
    score = RIVALS[model](encoder.encode(trial.warmup.values), seed)
    calibrating = score(encoder.encode(trial.calibration.values))
    trained = time.process_time()
    parts = []
    for start in range(0, len(trial.judged), _ENCODED):
        parts.append(score(encoder.encode(trial.judged.values[start : start + _ENCODED])))
        tick()
    seconds = time.process_time() - trained
    return np.concatenate(parts), calibrating, trained - began, seconds / len(trial.judged) * 1e6


def _strongest(trial: Trial, scores: Values, p_values: Values, serving: ServingModel, top: int) -> tuple[Strong, ...]:
    """The rows with the highest scores among those after the warm-up, explained by the model that serves last."""
    known = np.where(np.isfinite(scores) & ~trial.in_warmup, scores, -np.inf)
    at = np.argsort(-known, kind="stable")[:STRONGEST]
    at = at[np.isfinite(known[at])]
    features = trial.judged.take(at).features
    is_low = np.zeros(len(at), dtype=np.bool_)
    findings = findings_of_rows(features, np.arange(len(at)), serving.scorer.explain(features.values), is_low, top)
    return tuple(
        Strong(int(row), bool(trial.judged.is_anomaly[row]), float(scores[row]), float(p_values[row]), findings[i])
        for i, row in enumerate(at.tolist())
    )


def _rounded(value: Any) -> Any:
    """Four decimals, and no number where there is none: JSON has no NaN."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if np.isfinite(value) else None
