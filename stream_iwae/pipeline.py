"""The spine, to be read first: the records of one partition -> windows -> scores -> verdicts -> alerts.

Pure: time and models are arguments. Everything that must survive is a `KeyedState` or in `Progress`,
so a pipeline restored from a commit goes on exactly where the committed one stopped.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import (
    Explanations,
    FeatureBatch,
    RecordBatch,
    Rejected,
    ScoreBatch,
    TrainingBatch,
    VerdictBatch,
)
from stream_iwae.detection.judge import Judge
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig, aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.incidents.alert import Alert
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.incidents.tracker import IncidentTracker
from stream_iwae.intake import Intake
from stream_iwae.rekey.config import RekeyConfig
from stream_iwae.row_ids import hash_entities, hash_rows
from stream_iwae.state import KeyedState
from stream_iwae.stored_state import as_state_error, check_state
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.operator import WindowOperator
from stream_iwae.windows.progress import Metadata, Progress

EXPLAINED_AT_ONCE: Final = 256  # then the group hears of us: a flood of alerts must not cost membership
EVERY_RECORD: Final = -1  # a position below every offset: nothing is replayed


class Scorer(Protocol):
    """A trained model: deterministic scores and explanations."""

    def score(self, values: NDArray[np.float64], on_chunk: Callable[[], None]) -> ScoreBatch:
        """Score (N, D) raw values; calls `on_chunk` between chunks."""

    def explain(self, values: NDArray[np.float64]) -> Explanations:
        """What each feature of (R, D) raw values adds, and what was expected."""


@dataclass(frozen=True, slots=True)
class ServingModel:
    """What turns features into verdicts from now on: one version, swapped as one thing."""

    version: str
    schema_digest: str
    scorer: Scorer
    judge: Judge

    def judge_rows(self, features: FeatureBatch, on_chunk: Callable[[], None]) -> VerdictBatch:
        """Score, then judge."""
        scores = self.scorer.score(features.values, on_chunk)
        return self.judge.judge(features, scores, partial(self._explain, on_chunk=on_chunk))

    def _explain(self, values: NDArray[np.float64], on_chunk: Callable[[], None]) -> Explanations:
        parts = []
        for start in range(0, len(values), EXPLAINED_AT_ONCE):
            parts.append(self.scorer.explain(values[start : start + EXPLAINED_AT_ONCE]))
            on_chunk()
        return Explanations.joined(parts)


@dataclass(frozen=True, slots=True)
class Stages:
    """The configuration of every arrow of the flow."""

    detector: str
    topic: str
    events: EventsConfig
    windows: WindowsConfig
    features: FeaturesConfig
    incidents: IncidentsConfig
    rekey: RekeyConfig | None = None  # None: the topic holds events as they came, not re-keyed ones

    @property
    def fingerprint(self) -> str:
        """16 hex digits that change with whatever gives stored windows another meaning."""
        sections = (self.events, self.windows, self.features)
        text = "\n".join(section.model_dump_json() for section in sections)
        return hashlib.sha256(f"{self.detector}\n{text}".encode()).hexdigest()[:16]


@dataclass(slots=True)
class Counts:
    """What became of the events, counted once: consumed = aggregated + late + rejected + skipped."""

    consumed: int = 0
    consumed_bytes: int = 0
    aggregated: int = 0
    late: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    folded: int = 0  # events counted as aggregated, but in the entity `other`
    windows: int = 0
    scored: int = 0
    unscored: int = 0  # windows closed before a model was ready, or non-finite
    anomalies: Counter[str] = field(default_factory=Counter)  # by severity

    def add(self, other: "Counts") -> None:
        """Add another count to this one."""
        for name in ("consumed", "consumed_bytes", "aggregated", "late", "folded", "windows", "scored", "unscored"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.rejected.update(other.rejected)
        self.skipped.update(other.skipped)
        self.anomalies.update(other.anomalies)

    @property
    def is_balanced(self) -> bool:
        """Whether every event met exactly one fate."""
        return self.consumed == self.aggregated + self.late + self.rejected.total() + self.skipped.total()


@dataclass(slots=True)
class Outcome:
    """What one partition has to publish since the last commit; kept until it is committed."""

    alerts: list[Alert] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    training: list[TrainingBatch] = field(default_factory=list)
    verdicts: list[VerdictBatch] = field(default_factory=list)
    counts: Counts = field(default_factory=Counts)
    alert_arrivals_ms: list[int] = field(default_factory=list)  # record time that closed each alert's window


class Pipeline:
    """All stages and all state of one input partition."""

    def __init__(
        self, stages: Stages, partition: int, on_unscored: Callable[[FeatureBatch], None] = lambda _: None
    ) -> None:
        """`on_unscored` hears of the windows that no model has judged; nothing published depends on it."""
        self.partition = partition
        self._stages = stages
        self._intake = Intake(stages.events, needed_fields(stages.features), stages.rekey, stages.windows.max_entities)
        self._windows = WindowOperator(stages.windows, aggregates(stages.features), partition)
        self._extractor = FeatureExtractor(stages.features, stages.events.field_types())
        self.schema = self._extractor.schema
        self._incidents = IncidentTracker(
            stages.incidents, stages.detector, tuple(stages.events.entity), stages.topic, partition
        )
        self._on_unscored = on_unscored
        self._is_per_record = stages.windows.kind == "record"
        self._outcome = Outcome()
        self._replay_until = EVERY_RECORD
        self._replayed_to = EVERY_RECORD
        self.position = 0
        self.history_until: int | None = None

    # --- flow --------------------------------------------------------------------------------

    def process(
        self, records: RecordBatch, model: ServingModel | None, now_ms: int, on_chunk: Callable[[], None]
    ) -> None:
        """Take the next records of the partition through every stage.

        Records below the committed position only refill open windows; those below `history_until`
        only give training rows.
        """
        replayed, fresh = records.split(self._replay_until)
        if len(replayed):
            self._refill(replayed)
        until = self.history_end(fresh)
        if until is not None:
            past, fresh = fresh.split(until)
            self._consume(past, None, now_ms, on_chunk)
            self.skip_to(past.next_offset)
        if len(fresh):
            self._consume(fresh, model, now_ms, on_chunk)
        self.skip_to(records.next_offset)

    def history_end(self, records: RecordBatch) -> int | None:
        """The first offset that is not history, as far as these records tell; None where history is over."""
        if self.history_until is not None:
            self.history_until = self._intake.history_end(records, self.history_until)
        return self.history_until

    def skip_to(self, position: int) -> None:
        """Move the position over offsets that hold no records for us (transaction markers)."""
        self.position = max(self.position, position)
        self._replayed_to = max(self._replayed_to, position)
        is_past = self.history_until is not None and self.position >= self.history_until
        if is_past and not self._intake.is_history:
            self.history_until = None
            self._outcome.training.append(self._end_of_history())

    def advance(self, watermark_ms: int, model: ServingModel | None, now_ms: int, on_chunk: Callable[[], None]) -> None:
        """Close what a quiet partition still holds open, up to `watermark_ms`."""
        closed = self._windows.advance(watermark_ms, self.position)
        self._judge(self._extractor.extract(closed), model, now_ms, now_ms, on_chunk)

    def _refill(self, records: RecordBatch) -> None:
        self._windows.add(self._intake.read(records).events, records.next_offset)

    def _consume(
        self, records: RecordBatch, model: ServingModel | None, now_ms: int, on_chunk: Callable[[], None]
    ) -> None:
        decoded = self._intake.read(records)
        windowed = self._windows.add(decoded.events, records.next_offset)
        counts = self._outcome.counts
        counts.consumed += decoded.n_consumed
        counts.consumed_bytes += sum(len(value) for value in records.values if value is not None)
        counts.aggregated += windowed.n_aggregated
        counts.late += windowed.n_late
        counts.folded += windowed.n_folded
        counts.rejected.update(rejected.reason for rejected in decoded.rejected)
        counts.skipped.update(decoded.skipped)
        self._outcome.rejected.extend(decoded.rejected)
        arrival_ms = int(records.timestamps_ms[-1]) if len(records) else now_ms
        self._judge(self._extractor.extract(windowed.windows), model, now_ms, arrival_ms, on_chunk)

    def _judge(
        self,
        features: FeatureBatch,
        model: ServingModel | None,
        now_ms: int,
        arrival_ms: int,
        on_chunk: Callable[[], None],
    ) -> None:
        outcome = self._outcome
        outcome.counts.windows += len(features)
        if model is None:
            outcome.counts.unscored += len(features)
            if len(features):
                outcome.training.append(self._training_rows(features, None))
                self._on_unscored(features)
            return
        alerts: list[Alert] = []
        if len(features):
            verdicts = model.judge_rows(features, on_chunk)
            alerts += self._incidents.track(verdicts, now_ms)
            unscorable = int(np.count_nonzero(~np.isfinite(verdicts.scores.scores)))
            outcome.counts.scored += len(features) - unscorable
            outcome.counts.unscored += unscorable
            outcome.counts.anomalies.update(_severity_counts(verdicts))
            outcome.verdicts.append(verdicts)
            outcome.training.append(self._training_rows(features, verdicts))
        watermark_ms = self._windows.watermark_ms
        if watermark_ms is not None:
            alerts += self._incidents.expire(watermark_ms, now_ms)
        outcome.alerts += alerts
        outcome.alert_arrivals_ms += [arrival_ms] * len(alerts)

    def _training_rows(self, features: FeatureBatch, verdicts: VerdictBatch | None) -> TrainingBatch:
        # A source gone quiet is judged by its entities' past, not by the model: it is no row to learn.
        rows = np.flatnonzero(np.isnan(features.silence_p_values))
        entities = [features.entities[row] for row in rows.tolist()]
        nothing = np.full(len(rows), np.nan)
        entity_ids = hash_entities(entities)
        return TrainingBatch(
            schema_digest=features.schema.digest,
            model_version=verdicts.scores.model_version if verdicts else "",
            row_ids=hash_rows(
                entity_ids,
                features.window_end_ms[rows],
                features.first_offset[rows] if self._is_per_record else np.zeros(len(rows), dtype=np.int64),
                self.partition,
            ),
            entity_ids=entity_ids,
            window_end_ms=features.window_end_ms[rows],
            values=features.values[rows],
            scores=verdicts.scores.scores[rows] if verdicts else nothing,
            p_values=verdicts.p_values[rows] if verdicts else nothing,
            in_incident=np.fromiter(
                (self._incidents.is_open(entity) for entity in entities), dtype=np.bool_, count=len(rows)
            ),
            labels=features.labels,
            partition=self.partition,
            in_history=self.history_until is not None,
        )

    def _end_of_history(self) -> TrainingBatch:
        none, no_ids = np.empty(0), np.empty(0, dtype=np.uint64)
        return TrainingBatch(
            schema_digest=self.schema.digest,
            model_version="",
            row_ids=no_ids,
            entity_ids=no_ids,
            window_end_ms=np.empty(0, dtype=np.int64),
            values=np.empty((0, len(self.schema))),
            scores=none,
            p_values=none,
            in_incident=np.empty(0, dtype=np.bool_),
            labels={},
            history_ended=True,
            partition=self.partition,
        )

    # --- what is published and kept ----------------------------------------------------------

    @property
    def outcome(self) -> Outcome:
        """What waits to be published."""
        return self._outcome

    def take_outcome(self) -> Outcome:
        """What has to be published now; the next one begins empty."""
        taken, self._outcome = self._outcome, Outcome()
        return taken

    @property
    def is_replaying(self) -> bool:
        """Whether open windows are still being refilled: until they are, nothing may be committed."""
        return self._replayed_to < self._replay_until

    def progress(self) -> Progress:
        """The offset that is safe to commit now, and what goes with it."""
        return self._windows.progress(self.position)

    def take_state_changes(self, committed_offset: int) -> dict[str, Mapping[str, object]]:
        """What changed in each kind of state since the last call, as of `committed_offset` where replay rebuilds it."""
        self._intake.settle(committed_offset)
        return {kind: state.take_changes() for kind, state in self._states().items()}

    def snapshot_shard(self, number: int) -> dict[str, Mapping[str, object]]:
        """One shard of the state by kind, as `take_state_changes` would build it up."""
        return {kind: state.shard(number) for kind, state in self._states().items()}

    def _states(self) -> dict[str, KeyedState[Any]]:
        return {
            "presence": self._windows.presence,
            "pasts": self._windows.pasts.state,
            **self._intake.states,
            "incidents": self._incidents.state,
            "profiles": self._extractor.profiles.state,
            "recent": self._extractor.recent.state,
        }

    def begin(self, offset: int, history_until: int | None) -> None:
        """Begin fresh at `offset`; before `history_until` only training rows come out."""
        self.position = offset
        self.history_until = history_until
        self.skip_to(offset)

    @as_state_error
    def restore(self, metadata: Metadata, state: Mapping[str, Mapping[str, object]]) -> None:
        """Go on from a commit; the caller replays from `metadata.progress.offset`."""
        check_state(state, self._stages.events, self._stages.features)
        progress = metadata.progress
        self.position = progress.position
        self._replay_until = progress.position
        self._replayed_to = progress.offset
        self.history_until = metadata.history_until
        self._windows.restore(progress)
        self._windows.presence.restore(state.get("presence", {}))  # type: ignore[arg-type]  # as decoded
        self._windows.pasts.restore(state.get("pasts", {}))  # type: ignore[arg-type]
        self._intake.restore(state)
        self._incidents.state.restore(state.get("incidents", {}))  # type: ignore[arg-type]
        self._extractor.profiles.restore(state.get("profiles", {}))  # type: ignore[arg-type]
        self._extractor.recent.restore(state.get("recent", {}))  # type: ignore[arg-type]

    # --- what people see ---------------------------------------------------------------------

    @property
    def watermark_ms(self) -> int | None:
        """Event time up to which windows are closed."""
        return self._windows.watermark_ms

    @property
    def n_open_windows(self) -> int:
        """Windows that wait for their end."""
        return self._windows.n_open_windows

    @property
    def n_entities(self) -> int:
        """Entities whose presence is tracked."""
        return len(self._windows.presence)

    def open_incidents(self) -> dict[str, int]:
        """Open incidents by severity."""
        return self._incidents.open_by_severity()


def _severity_counts(verdicts: VerdictBatch) -> dict[str, int]:
    names = {1: "warning", 2: "major", 3: "critical"}
    return {
        name: count for code, name in names.items() if (count := int(np.count_nonzero(verdicts.severities == code)))
    }
