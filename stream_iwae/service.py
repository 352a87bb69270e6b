"""The shell: one loop of poll, process, publish and commit."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from stream_iwae.batches import RecordBatch, entity_object
from stream_iwae.delivery import Delivery, Log, tell_passed_over
from stream_iwae.errors import ArtefactError, ConfigurationError
from stream_iwae.incidents.alert import rfc3339
from stream_iwae.learning.provisional import Provisional
from stream_iwae.outputs import Commit, Publisher, Topics, records_of
from stream_iwae.pipeline import Counts, Pipeline, ServingModel, Stages
from stream_iwae.ports import (
    Clock,
    CommittedOffset,
    EventSource,
    ModelStore,
    OutputSink,
    Polled,
    StateReader,
    Telemetry,
)
from stream_iwae.windows.progress import Metadata, decode_metadata
from stream_iwae.wire import decode_state

KEEP_ALIVE_S: Final = 5.0  # poll at least this often while a long batch is scored


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """How the loop reads, waits and commits."""

    start: str = "history"  # history | earliest | latest, for partitions without a committed offset
    history_ms: int = 6 * 3_600_000
    commit_interval_ms: int = 500
    poll_timeout_s: float = 0.2
    idle_after_ms: int = 0  # 0: a quiet partition never moves its watermark
    grace_ms: int = 0
    hold_until_ready: bool = True
    hold_timeout_ms: int = 120_000
    min_training_windows: int = 2000
    identity: str = ""  # of this process, from its start to its end; see Delivery


class Service:
    """Owns the loop and one pipeline a partition."""

    def __init__(
        self,
        source: EventSource,
        sink: OutputSink,
        state: StateReader,
        models: ModelStore,
        telemetry: Telemetry,
        clock: Clock,
        log: Log,
        load_model: Callable[[bytes], ServingModel],
        topics: Topics,
        stages: Stages,
        settings: ServiceSettings,
    ) -> None:
        self._source, self._sink, self._state, self._models = source, sink, state, models
        self._telemetry, self._clock, self._log = telemetry, clock, log
        self._load_model = load_model
        self._stages = stages
        self._publisher = Publisher(topics, stages, settings.identity)
        self._settings = settings
        self.pipelines: dict[int, Pipeline] = {}
        self.model: ServingModel | None = None
        self.provisional = Provisional()  # of windows before the first model: seen here, and nowhere else
        self.totals = Counts()
        self._delivery = Delivery(source, sink, telemetry, clock, log, records_of, self._poll, self._finish)
        self._records: deque[RecordBatch] = deque()  # polled, not yet processed
        self._awaited: frozenset[int] = frozenset()  # assigned; their state is behind another's open transaction
        self._rows_published = 0
        self._held_since_s: float | None = None
        self._is_hold_over = False
        self._last_commit_s = clock.monotonic_s()
        self._last_poll_s = clock.monotonic_s()
        self._last_record_s: dict[int, float] = {}

    # --- the loop ----------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until told to stop, then commit what was scored and leave open windows to the replay."""
        while not should_stop():
            self.step()
        self.drain()

    def step(self) -> None:
        """One turn: models, assignment, records, and a commit when one is due."""
        self._swap_model()
        if self._awaited:
            self._take_over(self._awaited)
        if not self._records:
            self._poll(self._settings.poll_timeout_s)
        while self._records:
            self._process(self._records.popleft())
        self._follow_positions()
        self._hold_or_release()
        if self._is_commit_due():
            self.commit()
        self._report()

    def drain(self) -> None:
        """Commit everything that was scored; open windows stay in the log."""
        self.commit()
        self._log.info("drained", partitions=len(self.pipelines))

    def close(self) -> None:
        """Leave the group and release the ports."""
        self._source.close()
        self._sink.close()
        self._state.close()
        self._models.close()

    def _poll(self, timeout_s: float) -> None:
        polled = self._source.poll(timeout_s)
        self._last_poll_s = self._clock.monotonic_s()
        self._telemetry.progress("poll", self._last_poll_s)
        self._follow_assignment(polled)
        for partition, lost in polled.gaps:
            self._count_gap(partition, lost)
        for batch in polled.passed_over:
            tell_passed_over(batch, self._source.topic, self._telemetry, self._log)
        self._records.extend(polled.records)

    def _keep_alive(self) -> None:
        """Between two chunks of scoring: stay a member of the group."""
        if self._clock.monotonic_s() - self._last_poll_s < KEEP_ALIVE_S:
            return
        self._source.pause(frozenset(self.pipelines))
        self._poll(0.0)
        if self._held_since_s is None:
            self._source.resume(frozenset(self.pipelines))

    # --- assignment --------------------------------------------------------------------------

    def _follow_assignment(self, polled: Polled) -> None:
        for partition in sorted(polled.revoked | polled.lost):
            # Nothing is handed over: the log and the state topic hold all that was committed.
            self.pipelines.pop(partition, None)
            self._delivery.waiting.pop(partition, None)
            self._last_record_s.pop(partition, None)
            self._forget_polled(partition)
            self._telemetry.forget("consumer_lag_records", topic=self._source.topic, partition=str(partition))
        self._awaited -= polled.revoked | polled.lost
        if polled.assigned:
            self._take_over(polled.assigned)
        if polled.assigned or polled.revoked or polled.lost:
            self._telemetry.count("consumer_rebalances")
            self._telemetry.gauge("consumer_assigned_partitions", len(self.pipelines), topic=self._source.topic)

    def _forget_polled(self, partition: int) -> None:
        """Drop queued records of a partition that will be read again, by us or by another."""
        self._records = deque(records for records in self._records if records.partition != partition)

    def _take_over(self, partitions: frozenset[int]) -> None:
        committed = self._source.committed(partitions)
        first = self._source.beginning_offsets(partitions)
        taken = frozenset(p for p in sorted(partitions) if self._take_over_one(p, committed[p], first[p]))
        self._awaited = (self._awaited | partitions) - taken
        if taken and self._held_since_s is None:
            self._source.resume(taken)

    def _take_over_one(self, partition: int, committed: CommittedOffset | None, first: int) -> bool:
        """Restore a partition and seek; False where its state cannot be read to the committed `seq` yet."""
        pipeline = Pipeline(self._stages, partition, self.provisional.observe)
        stored = self._state.read(partition)
        if committed is None:
            offset = self._begin(pipeline, first)
            self._publisher.begin(partition, seq=0, stale_keys=[key for key, _ in stored])
        else:
            metadata = decode_metadata(committed.metadata, committed.offset)
            self._check_fingerprint(metadata)
            state, seq = decode_state(stored)
            if seq < metadata.seq:
                # A predecessor's open transaction hides what was written after it, until it is settled or times out.
                self._log.warning("state is not readable yet", partition=partition, seq=seq, committed=metadata.seq)
                return False
            pipeline.restore(metadata, state)
            self._publisher.begin(partition, seq=metadata.seq, stale_keys=[])
            offset = max(committed.offset, first)
            if offset > committed.offset:
                self._count_gap(partition, offset - committed.offset)
        self.pipelines[partition] = pipeline
        self._delivery.waiting.pop(partition, None)  # what it holds is read again
        self._last_record_s[partition] = self._clock.monotonic_s()
        self._forget_polled(partition)
        self._source.seek(partition, offset)
        self._log.info("partition taken over", partition=partition, offset=offset, position=pipeline.position)
        return True

    def _begin(self, pipeline: Pipeline, first: int) -> int:
        mine = frozenset({pipeline.partition})
        end = self._source.end_offsets(mine)[pipeline.partition]
        match self._settings.start:
            case "earliest":
                offset, history_until = first, None
            case "latest":
                offset, history_until = end, None
            case _:
                since_ms = self._clock.now_ms() - self._settings.history_ms
                offset = max(first, self._source.offsets_for_time(mine, since_ms)[pipeline.partition])
                history_until = end
        pipeline.begin(offset, history_until)
        return offset

    def _check_fingerprint(self, metadata: Metadata) -> None:
        if metadata.fingerprint != self._stages.fingerprint:
            raise ConfigurationError(
                "detector",
                metadata.fingerprint,
                "the committed progress belongs to another configuration of events, windows or features "
                f"(now {self._stages.fingerprint}); go back to that configuration, or start afresh under another "
                "kafka.group and detector",
            )

    def _count_gap(self, partition: int, lost: int) -> None:
        self._telemetry.count("consumer_gap_records", lost, topic=self._source.topic)
        self._log.error(
            "records expired before they were read: retention is shorter than the outage",
            partition=partition,
            lost=lost,
        )

    # --- records -----------------------------------------------------------------------------

    def _process(self, records: RecordBatch) -> None:
        pipeline = self.pipelines.get(records.partition)
        if pipeline is None:  # revoked between the poll that brought these and now
            return
        now_ms = self._clock.now_ms()
        self._last_record_s[records.partition] = self._clock.monotonic_s()
        until = pipeline.history_end(records)
        if until is not None and self.model is None and self._settings.hold_until_ready:
            # The first live record waits for the first model, wherever the poll happened to cut.
            records, later = records.split(until)
            if len(later):
                self._forget_polled(records.partition)
                self._source.seek(records.partition, until)
        pipeline.process(records, self.model, now_ms, self._keep_alive)

    def _follow_positions(self) -> None:
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        for partition, pipeline in list(self.pipelines.items()):
            if self.pipelines.get(partition) is not pipeline:  # taken away by a poll while another was scored
                continue
            position = self._source.position(partition)
            pipeline.skip_to(position)
            if not self._settings.idle_after_ms or pipeline.history_until is not None or pipeline.is_replaying:
                continue
            is_idle = (now_s - self._last_record_s[partition]) * 1000 >= self._settings.idle_after_ms
            high_water = self._source.high_water(partition)
            if is_idle and high_water is not None and position >= high_water and pipeline.watermark_ms is not None:
                pipeline.advance(now_ms - self._settings.grace_ms, self.model, now_ms, self._keep_alive)

    # --- models ------------------------------------------------------------------------------

    def _swap_model(self) -> None:
        try:
            announced = self._models.poll()
            if announced is None:
                return
            self.model = self._load_model(announced.blob)
        except ArtefactError as error:
            # The former model stays; the alert on its age and this line tell.
            self._telemetry.count("model_refused")
            self._log.error("model refused, the former one stays", reason=str(error))
            return
        self._telemetry.info("model", version=self.model.version)
        self._telemetry.gauge("model_loaded_timestamp_seconds", self._clock.now_ms() / 1000)
        self._telemetry.gauge("threshold_value", self.model.judge.threshold_nats)
        self._telemetry.gauge("threshold_extrapolated", self.model.judge.is_extrapolated)
        self._telemetry.gauge("ready", 1)
        self._log.info("model in use", version=self.model.version)

    def _hold_or_release(self) -> None:
        """Keep live records waiting while the first model is trained, but not for ever."""
        now_s = self._clock.monotonic_s()
        if self._held_since_s is not None:
            waited_ms = (now_s - self._held_since_s) * 1000
            if self.model is None and waited_ms < self._settings.hold_timeout_ms:
                return
            self._is_hold_over = self.model is None
            if self._is_hold_over:
                self._log.warning("no model came in time; windows pass unscored", waited_ms=round(waited_ms))
            self._held_since_s = None
            self._source.resume(frozenset(self.pipelines))
            return
        if self.model is not None or self._is_hold_over or not self._settings.hold_until_ready:
            return
        rows = self._rows_published + sum(
            len(batch) for pipeline in self.pipelines.values() for batch in pipeline.outcome.training
        )
        is_history_over = all(pipeline.history_until is None for pipeline in self.pipelines.values())
        if self.pipelines and is_history_over and rows >= self._settings.min_training_windows:
            self._held_since_s = now_s
            self._source.pause(frozenset(self.pipelines))
            self.commit()
            self._log.info("waiting for the first model", training_windows=rows)

    # --- commit ------------------------------------------------------------------------------

    def _is_commit_due(self) -> bool:
        if any(pipeline.outcome.alerts for pipeline in self.pipelines.values()):
            return True
        return (self._clock.monotonic_s() - self._last_commit_s) * 1000 >= self._settings.commit_interval_ms

    def commit(self) -> None:
        """Publish and commit everything that waits, all or nothing; see docs/adr/0002."""
        waiting = self._delivery.waiting
        for partition, pipeline in self.pipelines.items():
            if partition not in waiting:
                prepared = self._publisher.prepare(pipeline)
                if prepared is not None:
                    waiting[partition] = prepared
        self._last_commit_s = self._clock.monotonic_s()
        self._delivery.deliver()

    def _finish(self, commits: Mapping[int, Commit]) -> None:
        """Count what is committed now, and only now."""
        now_ms = self._clock.now_ms()
        for commit in commits.values():
            self.totals.add(commit.outcome.counts)
            self._rows_published += sum(len(batch) for batch in commit.outcome.training)
            self._publisher.report(commit, self._telemetry, now_ms)

    # --- what people see ---------------------------------------------------------------------

    def _report(self) -> None:
        topic, now_ms = self._source.topic, self._clock.now_ms()
        pipelines = self.pipelines
        for partition in pipelines:
            high_water = self._source.high_water(partition)
            if high_water is not None:
                lag = max(0, high_water - self._source.position(partition))
                self._telemetry.gauge("consumer_lag_records", lag, topic=topic, partition=str(partition))
        watermarks = [p.watermark_ms for p in pipelines.values() if p.watermark_ms is not None]
        if watermarks:
            self._telemetry.gauge("watermark_timestamp_seconds", min(watermarks) / 1000)
            self._telemetry.gauge("consumer_lag_seconds", (now_ms - min(watermarks)) / 1000, topic=topic)
        self._telemetry.gauge("windows_open", sum(p.n_open_windows for p in pipelines.values()))
        self._telemetry.gauge("entities_tracked", sum(p.n_entities for p in pipelines.values()))
        self._telemetry.gauge("consumer_last_poll_timestamp_seconds", now_ms / 1000)
        if self.model is None:
            self._telemetry.gauge("provisional_windows", self.provisional.n_windows)
            for quantile, score in self.provisional.quantiles().items():
                self._telemetry.gauge("provisional_score", score, quantile=quantile)
        open_incidents = dict.fromkeys(("warning", "major", "critical"), 0)
        for pipeline in pipelines.values():
            for severity, count in pipeline.open_incidents().items():
                open_incidents[severity] += count
        for severity, count in open_incidents.items():
            self._telemetry.gauge("incidents_open", count, severity=severity)
        self._telemetry.status("service", self.status())

    def status(self) -> dict[str, object]:
        """What /status shows of the loop."""
        totals = self.totals
        return {
            "state": self.phase(),
            "model_version": self.model.version if self.model else None,
            "partitions": {str(p): {"position": pipeline.position} for p, pipeline in self.pipelines.items()},
            "training_windows": {"published": self._rows_published, "needed": self._settings.min_training_windows},
            "events": {
                "consumed": totals.consumed,
                "aggregated": totals.aggregated,
                "late": totals.late,
                "rejected": dict(totals.rejected),
                "skipped": dict(totals.skipped),
            },
            "windows": {"closed": totals.windows, "scored": totals.scored, "unscored": totals.unscored},
            "threshold": self._threshold(),
            "provisional": self._provisional(),
        }

    def _threshold(self) -> dict[str, object] | None:
        if self.model is None:
            return None
        judge = self.model.judge
        return {
            "p_value": judge.warning_p_value,
            "nats": judge.threshold_nats,
            "low_nats": judge.low_threshold_nats if math.isfinite(judge.low_threshold_nats) else None,
            "extrapolated": judge.is_extrapolated,
        }

    def _provisional(self) -> dict[str, object] | None:
        """What looks unusual while there is no model; for people who look, as no one is alerted."""
        if self.model is not None:
            return None
        names = self._stages.events.entity
        return {
            "windows": self.provisional.n_windows,
            "most_unusual": [
                {
                    "entity": entity_object(suspect.entity, names),
                    "window_end": rfc3339(suspect.window_end_ms),
                    "score": suspect.score,
                    "rarity": suspect.rarity,
                }
                for suspect in self.provisional.suspects
            ],
        }

    def phase(self) -> str:
        """collecting, training or ready, as design.md section 5 names them."""
        if self.model is not None:
            return "ready"
        return "training" if self._held_since_s is not None else "collecting"
