"""TrainingBatch -> artefact: the whole of learning, without a clock or a socket.

Give it the rows in topic order with `add`; when `due` names a job, `step` does it. What comes out
is a function of the rows and the seed, so a replay learns what the service learnt.
"""

from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import FeatureSchema, TrainingBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ArtefactError
from stream_iwae.learning.addition import FEW, Sighting, is_addition
from stream_iwae.learning.comparison import COMPARED_ROWS, Comparison
from stream_iwae.learning.config import LearningConfig
from stream_iwae.learning.drift import Drift, DriftDetector
from stream_iwae.learning.promotion import decide
from stream_iwae.learning.rows import Rows
from stream_iwae.learning.samples import Samples
from stream_iwae.learning.schedule import Job, Schedule
from stream_iwae.learning.served import Memory, Served, Tick, Weights, parse_version, version_after
from stream_iwae.wire import rows_of

_MIN_TUNING_ROWS: Final = 200  # fewer new rows say nothing
_MAX_LABELS: Final = 10_000  # texts of categories kept for explanations


class Method(Protocol):
    """How first weights come about."""

    def first(self, rows: Rows, labels: dict[int, str], seed: int, tick: Tick) -> Weights:
        """Train from nothing.

        Raises:
            ValueError: The rows do not make a model, or the training went astray.
        """

    def unpack(self, blob: bytes) -> tuple[str, Weights, dict[str, object]]:
        """Version, weights and JSON part of an artefact.

        Raises:
            ArtefactError: It is damaged, or made for another feature schema.
        """


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one job came to."""

    job: Job
    outcome: str  # promoted, rejected, failed or skipped; a metric label
    reason: str  # one word
    detail: str  # one sentence for people
    version: str  # that serves from now on; "" without a model
    blob: bytes | None = None  # the artefact to announce, where there is a new one
    elbo: float | None = None  # mean bound of the held-out rows, nats


class Learner:
    """Collects rows, trains, calibrates, tunes and promotes for one feature schema."""

    def __init__(
        self, config: LearningConfig, detection: DetectionConfig, schema: FeatureSchema, method: Method, seed: int = 0
    ) -> None:
        self._config, self._detection, self._schema, self._method, self._seed = config, detection, schema, method, seed
        self._samples = Samples(config, len(schema))
        self._schedule = Schedule(config)
        self._pending: deque[TrainingBatch] = deque()
        self._job: Job | None = None
        self._labels: dict[int, str] = {}
        self._drift: DriftDetector | None = None
        self._major = 0  # the highest major version ever used
        self.served: Served | None = None
        self.last_drift: Drift | None = None
        self.n_foreign = 0  # rows of another feature schema, left out

    # --- rows --------------------------------------------------------------------------------

    def add(self, batch: TrainingBatch) -> None:
        """Take the next batch of the topic; rows of another feature schema are counted and left out."""
        if batch.schema_digest != self._schema.digest:
            self.n_foreign += len(batch)
            return
        self._pending.append(batch)

    def due(self) -> Job | None:
        """Take in what was added, up to the first row at which something has to be done."""
        while self._job is None and self._pending:
            self._take(self._pending.popleft())
        return self._job

    def absorb(self) -> None:
        """Take in what was added without doing anything, as the rows were seen before a restart.

        Without a model the first one is still due at its row; then the rest waits.
        """
        while self._pending and self._schedule.has_model:
            self._consume(self._pending.popleft())
        if self._samples.newest_ms is not None:
            self._schedule.catch_up(self._samples.newest_ms)

    def _take(self, batch: TrainingBatch) -> None:
        if batch.in_history:
            self._schedule.begin_history(batch.partition)
        due = self._schedule.next_due(batch.window_end_ms)
        n = due[0] if due else len(batch)
        drift = self._watch(batch, n)
        if drift is not None:
            n, due = drift.index + 1, (drift.index + 1, Job.TUNE)
        self._consume(replace(rows_of(batch, slice(None, n)), history_ended=False))
        if n < len(batch):
            self._pending.appendleft(rows_of(batch, slice(n, None)))
        elif batch.history_ended:
            self._schedule.end_history(batch.partition)
            due = due or self._schedule.next_due(np.empty(0, np.int64))
        self._job = due[1] if due else None

    def _consume(self, batch: TrainingBatch) -> None:
        rows = Rows.of(batch)
        self._schedule.take(len(rows))
        self._samples.add(rows)
        if len(self._labels) < _MAX_LABELS:
            self._labels.update(batch.labels)

    def _watch(self, batch: TrainingBatch, n: int) -> Drift | None:
        """Look for drift in the scores of the first n rows, if they come from the serving weights."""
        if self._drift is None or self.served is None or batch.model_version != self.served.version:
            return None
        drift = self._drift.add(batch.scores[:n])
        self.last_drift = drift or self.last_drift
        return drift

    # --- jobs --------------------------------------------------------------------------------

    def step(self, tick: Tick = lambda: None) -> Outcome:
        """Do the job that is due; what `tick` raises leaves everything as it was.

        Raises:
            ValueError: Nothing is due.
        """
        match self._job:
            case Job.FIRST:
                outcome = self._first(tick)
            case Job.TUNE:
                outcome = self._tune(tick)
            case Job.CALIBRATE:
                outcome = self._calibrate(tick)
            case None:
                raise ValueError("nothing is due")
        self._job = None
        return outcome

    def skip(self, reason: str) -> Outcome:
        """Leave out the fine-tuning or calibration that is due; the next one comes at its own time.

        Raises:
            ValueError: Nothing is due that could be left out.
        """
        job = self._job
        if job is Job.TUNE:
            self._schedule.tried(self._now_ms)
        elif job is Job.CALIBRATE:
            self._schedule.calibrated(self._now_ms, self._first_ms)
        else:
            raise ValueError(f"need a fine-tuning or a calibration to leave out, got {job}")
        self._job = None
        return self._kept(job, "skipped", reason, "")

    def _first(self, tick: Tick) -> Outcome:
        rows = self._samples.warmup()
        try:
            weights = self._method.first(rows, self._labels, self._seed, tick)
            weights, calibration = self._fitted(weights, None, tick)
        except (ValueError, ArithmeticError) as error:
            self._schedule.first_failed()
            return Outcome(Job.FIRST, "failed", "first", str(error), "")
        self._samples.reference_until_ms = self._now_ms
        served = Served(f"{self._major + 1}.0", weights, calibration, self._memory(None))
        detail = f"first model from {len(rows)} windows, calibrated on {calibration.n_rows}"
        return self._promote(Job.FIRST, served, "first", detail, tick)

    def _tune(self, tick: Tick) -> Outcome:
        served, rows = self._serving(), self._samples.tuning()
        self._schedule.tried(self._now_ms)
        try:
            is_odd = served.weights.astonished(rows.values, tick)
            learns_odd = self._has_moved(is_odd, served.weights, tick)
            rows = rows if learns_odd else rows.take(~is_odd)
            if len(rows) < _MIN_TUNING_ROWS:
                return self._kept(Job.TUNE, "skipped", "few_rows", f"{len(rows)} windows to learn")
            weights = served.weights.tuned(rows, self._seed + self._major, tick)
            weights, calibration = self._fitted(weights, served, tick)
            comparison = Comparison(self._config, self._detection, self._schema, self._samples, self._seed)
            evidence = comparison.evidence(served, weights, calibration, tick, has_learnt_odd=learns_odd)
        except (ValueError, ArithmeticError) as error:
            return self._kept(Job.TUNE, "failed", "tune", str(error))
        decision = decide(evidence, self._config.promotion, self._seed)
        if not decision.is_promoted:
            return self._kept(Job.TUNE, "rejected", decision.reason, decision.detail)
        candidate = Served(f"{self._major + 1}.0", weights, calibration, self._memory(served))
        return self._promote(Job.TUNE, candidate, "better", decision.detail, tick)

    def _has_moved(self, is_odd: NDArray[np.bool_], weights: Weights, tick: Tick) -> bool:
        """Whether windows that astonish the serving weights are the new ordinary, and to be learnt."""
        if np.count_nonzero(is_odd) <= FEW * len(is_odd):
            return False
        sample, config = self._samples.calibrate(), self._config
        seen = Sighting(
            sample.window_end_ms, self._samples.calibrate_weights(), weights.astonished(sample.values, tick)
        )
        return not is_addition(seen, self._now_ms, config.recent_span, config.calibrate_span, config.stratum)

    def _calibrate(self, tick: Tick) -> Outcome:
        served, sample = self._serving(), self._samples.calibrate()
        try:
            scores = served.weights.score(sample.values, tick).scores
            calibration = self._fit(scores, served.calibration)
        except (ValueError, ArithmeticError) as error:
            self._schedule.calibrated(self._now_ms, self._first_ms)
            return self._kept(Job.CALIBRATE, "failed", "calibrate", str(error))
        memory = msgspec.structs.replace(served.memory, calibrated_until_ms=self._now_ms)
        version = version_after(served.version, is_new_weights=False)
        renewed = Served(version, served.weights, calibration, memory)
        detail = f"p-values fitted to {calibration.n_rows} windows"
        return self._promote(Job.CALIBRATE, renewed, "calibrated", detail, tick)

    def _promote(self, job: Job, served: Served, reason: str, detail: str, tick: Tick) -> Outcome:
        self._serve(served)
        if job is not Job.CALIBRATE:
            self._schedule.trained(self._now_ms)
        self._schedule.calibrated(self._now_ms, self._first_ms)
        held_out = self._samples.held_out().values[:COMPARED_ROWS]
        elbo = -float(np.nanmean(served.weights.score(held_out, tick).bounds)) if len(held_out) else None
        return Outcome(job, "promoted", reason, detail, served.version, served.pack(), elbo)

    def _kept(self, job: Job, outcome: str, reason: str, detail: str) -> Outcome:
        return Outcome(job, outcome, reason, detail, self._serving().version)

    def _serving(self) -> Served:
        if self.served is None:
            raise ValueError("there is no model yet")
        return self.served

    def _fitted(self, weights: Weights, former: Served | None, tick: Tick) -> tuple[Weights, Calibration]:
        """New weights with their p-values; where there is a cascade, its threshold first, then its scores."""
        values = self._samples.calibrate().values

        def fit(weights: Weights) -> Calibration:
            scores = weights.score(values, tick).scores
            return self._fit(scores, former.calibration if former else None, former.weights if former else None)

        calibration = fit(weights)
        warning_p = self._detection.warning_p_value(calibration.windows_per_day)
        cascading = weights.cascading(calibration.score_at(warning_p * (1 - self._detection.low_share)))
        return (weights, calibration) if cascading is None else (cascading, fit(cascading))

    def _fit(
        self, scores: NDArray[np.float64], former: Calibration | None, former_weights: Weights | None = None
    ) -> Calibration:
        """Fit p-values; with other weights than the former's, only its tail is worth keeping."""
        windows_per_day = self._samples.windows_per_day()
        censor_above = None
        if former is not None and former_weights is None:
            # Scores past major may be attacks: how far past it they are is not used.
            major_p = self._detection.warning_p_value(windows_per_day) * self._detection.major_share
            censor_above = former.score_at(major_p * (1 - self._detection.low_share))
        return Calibration.fit(
            scores,
            windows_per_day,
            former,
            censor_above=censor_above,
            min_excesses=self._detection.min_excesses,
            weights=self._samples.calibrate_weights(),
        )

    # --- what is kept across a restart -------------------------------------------------------

    def restore(self, blob: bytes) -> None:
        """Go on from an artefact; the rows come from the topic again.

        Raises:
            ArtefactError: It is damaged, or made for another feature schema.
        """
        version, weights, extra = self._method.unpack(blob)
        served = Served.of(version, weights, extra)
        memory = served.memory
        self._samples.reference_until_ms = memory.reference_until_ms
        self._serve(served)
        self._schedule.trained(memory.trained_until_ms)
        self._schedule.calibrated(memory.calibrated_until_ms, memory.first_ms)
        self._job = None

    def reserve(self, versions: list[str]) -> None:
        """Never use the major numbers of these versions again."""
        for version in versions:
            try:
                self._major = max(self._major, parse_version(version)[0])
            except ArtefactError:
                continue  # a name that people chose

    def _serve(self, served: Served) -> None:
        self.served = served
        self.reserve([served.version])
        self._drift = DriftDetector(self._config.drift, _quantiles(served.calibration))

    def _memory(self, former: Served | None) -> Memory:
        reference_until_ms = former.memory.reference_until_ms if former else self._now_ms
        first_ms = min(former.memory.first_ms, self._first_ms) if former else self._first_ms
        return Memory(self._now_ms, self._now_ms, reference_until_ms, first_ms)

    # --- what people see ---------------------------------------------------------------------

    @property
    def drift_distance(self) -> float:
        """How far the latest scores are from those the p-values were fitted to, in [0, 1]."""
        return self._drift.distance if self._drift else 0.0

    @property
    def gated_share(self) -> float:
        """The share of rows that may not be learnt."""
        return self._samples.gated_share()

    @property
    def n_rows(self) -> int:
        """Rows seen."""
        return self._samples.n_rows

    def sizes(self) -> dict[str, int]:
        """Rows in each buffer."""
        return self._samples.sizes()

    @property
    def _now_ms(self) -> int:
        return self._samples.newest_ms or 0

    @property
    def _first_ms(self) -> int:
        return self._samples.first_ms or 0


def _quantiles(calibration: Calibration) -> NDArray[np.float64]:
    """A thousand scores distributed as those that the calibration was fitted to."""
    return np.array([calibration.score_at(p) for p in (np.arange(1_000) + 0.5) / 1_000])
