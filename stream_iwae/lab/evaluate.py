"""Detectors on labelled rows: learn from the warm-up, score every row, and only then look at the labels."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from stream_iwae.errors import ConfigurationError
from stream_iwae.iwae.settings import ModelSettings, Objective
from stream_iwae.lab.labelled_rows import LabelledRows
from stream_iwae.lab.protocols import Trial
from stream_iwae.lab.rivals import RIVALS, Encoder
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.tuner import IwaeMethod

OURS: Final = ("iwae", "vae", "autoencoder")
MODELS: Final = (*OURS, *RIVALS)

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """One model on one trial."""

    dataset: str
    protocol: str
    model: str
    seed: int
    auroc: float
    average_precision: float
    auroc_after_warmup: float
    average_precision_after_warmup: float
    training_seconds: float  # of CPU
    us_per_row: float  # of CPU, to score
    scores: Values  # (N,), of the judged rows; higher is more anomalous

    def row(self) -> dict[str, Any]:
        """As plain data, without the scores."""
        names = [name for name in self.__slots__ if name != "scores"]
        return {name: _rounded(getattr(self, name)) for name in names}


def evaluate(dataset: str, protocol: str, trial: Trial, model: str, seed: int) -> Result:
    """Train one model on the warm-up, score the judged rows in order, and compare with the labels.

    Raises:
        ConfigurationError: There is no such model.
        ValueError: The warm-up does not make a model.
    """
    if model not in MODELS:
        raise ConfigurationError("--models", model, f"it is none of {', '.join(MODELS)}")
    began = time.process_time()
    score = _ours(model, trial, seed) if model in OURS else _rival(model, trial, seed)
    trained = time.process_time()
    scores = score(trial.judged)
    scored = time.process_time()
    truth, after = trial.judged.is_anomaly, slice(trial.n_warmup_judged, None)
    known = np.nan_to_num(scores, nan=float(np.nanmin(scores)))  # a row of which nothing is known
    return Result(
        dataset=dataset,
        protocol=protocol,
        model=model,
        seed=seed,
        auroc=float(roc_auc_score(truth, known)),
        average_precision=float(average_precision_score(truth, known)),
        auroc_after_warmup=float(roc_auc_score(truth[after], known[after])),
        average_precision_after_warmup=float(average_precision_score(truth[after], known[after])),
        training_seconds=trained - began,
        us_per_row=(scored - trained) / len(known) * 1e6,
        scores=scores,
    )


Score = Callable[[LabelledRows], Values]


def _ours(model: str, trial: Trial, seed: int) -> Score:
    """The trainer's own first model, cleaning included, and the service's scorer."""
    settings = ModelSettings(objective=cast("Objective", model))
    method = IwaeMethod(settings, trial.warmup.schema, is_warmup_trusted=trial.is_trusted)
    rows = _as_rows(trial.warmup.values)
    weights = method.first(rows, trial.warmup.texts, seed, _nothing)
    return lambda judged: weights.score(judged.values, _nothing).scores


def _rival(model: str, trial: Trial, seed: int) -> Score:
    encoder = Encoder(trial.warmup)
    score = RIVALS[model](encoder.encode(trial.warmup.values), seed)
    return lambda judged: score(encoder.encode(judged.values))


def _as_rows(values: Values) -> Rows:
    """Training rows that are nothing but their values."""
    n = len(values)
    ids = np.arange(n, dtype=np.uint64)
    nothing, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
    return Rows(ids, ids, np.arange(n), values, nothing, nothing, no, no)


def _nothing() -> None:
    """No one waits between two steps."""


def _rounded(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value
