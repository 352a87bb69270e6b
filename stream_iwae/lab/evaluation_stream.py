"""Rows -> scores and p-values by the service's own code, frozen after the warm-up or learning on.

Score first, then learn: a row is scored and judged by a model that has not seen it, and offered to the learner
afterwards. The learner is the trainer's; event time alone says when it works, so that runs repeat.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Explanations, FeatureBatch, FeatureSchema, ScoreBatch, TrainingBatch, VerdictBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.incidents.tracker import IncidentTracker
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.lab.labelled_rows import LabelledRows, Values
from stream_iwae.lab.protocols import Trial
from stream_iwae.lab.timeline import Timeline
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.learner import Learner
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.served import Memory, Served
from stream_iwae.learning.tuner import IwaeMethod
from stream_iwae.pipeline import ServingModel
from stream_iwae.row_ids import hash_entities, hash_rows
from stream_iwae.serving import load_serving_model

Tick = Callable[[], None]

_DAY_MS: Final = 86_400_000
_BATCH: Final = 8_192  # rows judged at once
MOST_TUNINGS: Final = 24  # of a stream, beside those that drift calls for
_TURN: Final = 256  # rows between two turns of the learner, as a poll brings them


@dataclass(frozen=True, slots=True)
class Judged:
    """What the service says of the judged rows, N of them."""

    scores: Values  # (N,)
    p_values: Values  # (N,)
    is_alert: NDArray[np.bool_]  # (N,)
    serving: ServingModel  # the last one
    training_seconds: float  # of CPU, all training
    scoring_seconds: float  # of CPU
    n_models: int  # that served, one after the other


def frozen(trial: Trial, settings: ModelSettings, detection: DetectionConfig, seed: int, tick: Tick) -> Judged:
    """The trainer's own first model from the whole warm-up, its p-values from the rows after it; then no more.

    Raises:
        ValueError: The warm-up does not make a model.
    """
    began = time.process_time()
    method = IwaeMethod(settings, trial.warmup.schema, is_warmup_trusted=trial.is_trusted)
    weights = method.first(_as_rows(trial.warmup.values), dict(trial.warmup.texts), seed, tick)
    calibration = Calibration.fit(weights.score(trial.calibration.values, tick).scores, windows_per_day(trial.judged))
    served = Served("1.0", weights, calibration, Memory(0, 0, 0, 0))
    serving = load_serving_model(served.pack(), trial.judged.schema, detection, settings.device)
    trained = time.process_time()
    said, scoring_seconds = Said(), 0.0
    for at in _slices(len(trial.judged), _BATCH):
        features = trial.judged.take(at).features
        before = time.process_time()
        scores = serving.scorer.score(features.values, tick)
        scoring_seconds += time.process_time() - before
        said.add(serving.judge.judge(features, scores, unexplained))
    return Judged(*said.columns(), serving, trained - began, scoring_seconds, 1)


def learning(trial: Trial, settings: ModelSettings, detection: DetectionConfig, seed: int, tick: Tick) -> Judged:
    """The whole of the trainer's learning: first model, p-values, drift, fine-tuning and promotion as rows come.

    Of the warm-up the learner keeps a part back to calibrate and to compare, as it does in the service.

    Raises:
        ValueError: The warm-up does not make a model.
    """
    past = _together(trial)
    learner = Learner(
        _learning_config(past, trial.judged),
        detection,
        trial.judged.schema,
        IwaeMethod(settings, trial.judged.schema, is_warmup_trusted=trial.is_trusted),
        seed,
    )
    training_seconds, scoring_seconds, n_models = 0.0, 0.0, 0

    def learn() -> ServingModel | None:
        nonlocal training_seconds, n_models
        before, found = time.process_time(), None
        while learner.due() is not None:
            outcome = learner.step(tick)
            if learner.served is None:
                raise ValueError(f"the warm-up makes no model: {outcome.detail}")
            if outcome.blob is not None:
                found = load_serving_model(outcome.blob, trial.judged.schema, detection, settings.device)
                n_models += 1
        training_seconds += time.process_time() - before
        return found

    learner.add(_training_batch(past.features, None, np.zeros(len(past), dtype=np.bool_), trial.judged.schema))
    serving = learn()
    if serving is None:
        raise ValueError(f"the warm-up of {len(past)} rows makes no model")
    incidents = IncidentTracker(IncidentsConfig(), "evaluation", ("entity",), "evaluation", 0)
    said = Said()
    for at in _slices(len(trial.judged), _TURN):
        features = trial.judged.take(at).features
        before = time.process_time()
        scores = serving.scorer.score(features.values, tick)
        scoring_seconds += time.process_time() - before
        verdicts = serving.judge.judge(features, scores, serving.scorer.explain)
        said.add(verdicts)
        incidents.track(verdicts, 0)
        is_open = np.array([incidents.is_open(entity) for entity in features.entities], dtype=np.bool_)
        is_new = np.flatnonzero(~trial.in_warmup[at] & np.isnan(features.silence_p_values))
        offered = trial.judged.take(at[is_new]).features
        learner.add(_training_batch(offered, verdicts, is_open, offered.schema, is_new))
        serving = learn() or serving
    return Judged(*said.columns(), serving, training_seconds, scoring_seconds, n_models)


def judge_rival(trial: Trial, scores: Values, calibrating: Values, detection: DetectionConfig) -> "Said":
    """P-values and alerts of a rival's scores, by the same calibration and budget as ours."""
    judge = Judge(Calibration.fit(calibrating, windows_per_day(trial.judged)), detection)
    said = Said()
    for at in _slices(len(trial.judged), _BATCH):
        nothing = np.full(len(at), np.nan)
        batch = ScoreBatch("", scores[at], nothing, nothing, nothing)
        said.add(judge.judge(trial.judged.take(at).features, batch, unexplained))
    return said


class Said:
    """Scores, p-values and alerts of batch after batch; what else a verdict holds is let go."""

    def __init__(self) -> None:
        self._parts: list[tuple[Values, Values, NDArray[np.bool_]]] = []

    def add(self, verdicts: VerdictBatch) -> None:
        """Take the next rows."""
        self._parts.append((verdicts.scores.scores, verdicts.p_values, verdicts.severities > 0))

    def columns(self) -> tuple[Values, Values, NDArray[np.bool_]]:
        """Scores, p-values and alerts, (N,) each."""
        scores, p_values, is_alert = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        return scores, p_values, is_alert


def windows_per_day(rows: LabelledRows) -> float:
    """How many windows a day the stream has."""
    span_ms = max(int(rows.end_ms.max() - rows.end_ms.min()), 60_000)
    return max(1.0, len(rows) * _DAY_MS / span_ms)


def unexplained(values: Values) -> Explanations:
    """For judging alone: an explanation that says nothing, at no cost."""
    nothing = np.zeros(values.shape)
    return Explanations(nothing, nothing, nothing, nothing, {})


def _slices(n: int, size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, n, size):
        yield np.arange(start, min(start + size, n))


def _together(trial: Trial) -> LabelledRows:
    """Warm-up and calibration rows in order of time: the history that the service would read back."""
    one, other = trial.warmup.windows, trial.calibration.windows
    columns = ("start_ms", "end_ms", "n_events", "first_offset", "silence_p_values")
    joined = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in columns}
    timeline = Timeline(entities=[*one.entities, *other.entities], is_real=one.is_real, **joined)
    values = np.concatenate([trial.warmup.values, trial.calibration.values])
    nothing = np.zeros(len(values), dtype=np.bool_)
    return LabelledRows(trial.warmup.schema, values, nothing, trial.warmup.texts, timeline)


def _learning_config(past: LabelledRows, judged: LabelledRows) -> LearningConfig:
    """The defaults, but that the warm-up is what the protocol says, however long it took.

    And fine-tuning is at most as often as to happen so many times: each costs a second of CPU.
    """
    defaults = LearningConfig()
    span_ms = int(past.end_ms.max() - past.end_ms.min()) + defaults.stratum
    return LearningConfig(
        min_windows=max(100, len(past)),
        warmup_windows=max(defaults.warmup_windows, len(past)),
        recent_span=f"{max(defaults.recent_span, span_ms)}ms",
        calibrate_span=f"{max(defaults.calibrate_span, span_ms)}ms",
        interval=f"{max(defaults.interval, int(judged.end_ms.max() - judged.end_ms.min()) // MOST_TUNINGS)}ms",
        recent_capacity=max(defaults.recent_capacity, 2 * len(past)),
    )


def _training_batch(
    features: FeatureBatch,
    verdicts: VerdictBatch | None,
    is_open: NDArray[np.bool_],
    schema: FeatureSchema,
    at: NDArray[np.int64] | None = None,
) -> TrainingBatch:
    """Rows as the pipeline offers them to the trainer; `at` are their positions in the verdicts."""
    rows = np.arange(len(features)) if at is None else at
    nothing = np.full(len(rows), np.nan)
    entity_ids = hash_entities(features.entities)
    return TrainingBatch(
        schema_digest=schema.digest,
        model_version=verdicts.scores.model_version if verdicts else "",
        row_ids=hash_rows(entity_ids, features.window_end_ms, features.first_offset, 0),
        entity_ids=entity_ids,
        window_end_ms=features.window_end_ms,
        values=features.values,
        scores=verdicts.scores.scores[rows] if verdicts else nothing,
        p_values=verdicts.p_values[rows] if verdicts else nothing,
        in_incident=is_open[rows],
        labels=features.labels,
    )


def _as_rows(values: Values) -> Rows:
    """Training rows that are nothing but their values."""
    n = len(values)
    ids = np.arange(n, dtype=np.uint64)
    nothing, no = np.full(n, np.nan), np.zeros(n, dtype=np.bool_)
    return Rows(ids, ids, np.arange(n), values, nothing, nothing, no, no)
