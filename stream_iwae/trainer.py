"""The other shell: the training topic in, artefacts out. Runs in a process of its own.

The topic is read from its beginning after each start, so buffers need no other store: what a restart needs
beyond the rows is in the artefact. Offsets are committed with each announcement for their fence alone.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from stream_iwae.batches import RecordBatch
from stream_iwae.delivery import Log, tell_passed_over
from stream_iwae.errors import ArtefactError, StaleGroupError, StateError
from stream_iwae.learning.learner import Learner, Outcome
from stream_iwae.learning.schedule import Job
from stream_iwae.ports import Clock, CommittedOffset, EventSource, Fence, ModelStore, Polled, Telemetry
from stream_iwae.wire import decode_training

_POLL_TIMEOUT_S: Final = 0.5
_KEEP_ALIVE_S: Final = 5.0  # poll at least this often while training, to stay the owner of the topic
_REPORT_S: Final = 5.0
_REST: Final = 4.0  # after a job of n seconds none begins for 4 n: rows may come faster than in real time


class _InterruptedError(Exception):
    """A training ends unfinished: we are to stop, or the topic is no longer ours."""


class Trainer:
    """Owns the loop, and the learner while the training topic is ours."""

    def __init__(
        self,
        source: EventSource,
        store: ModelStore,
        telemetry: Telemetry,
        clock: Clock,
        log: Log,
        make_learner: Callable[[], Learner],
    ) -> None:
        self._source, self._store, self._telemetry = source, store, telemetry
        self._clock, self._log = clock, log
        self._make_learner = make_learner
        self.learner: Learner | None = None  # None: the topic is not ours
        self._owned: frozenset[int] = frozenset()
        self._catch_up_to: dict[int, int] = {}  # partition -> end of what was there when we took it over
        self._polled: deque[Polled] = deque()  # brought while training, without records
        self._echoes: list[str] = []  # versions published and not yet seen as announcements
        self._n_foreign = 0
        self._last_poll_s = self._last_report_s = clock.monotonic_s()
        self._resting_until_s = float("-inf")

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until told to stop; a training under way is dropped, it will be due again."""
        while not should_stop():
            self.step(should_stop)

    def step(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """One turn: announcements, rows, and whatever job is due."""
        self._adopt_announced()
        self._follow(self._polled.popleft() if self._polled else self._poll(_POLL_TIMEOUT_S))
        self._work(should_stop)
        if self._clock.monotonic_s() - self._last_report_s >= _REPORT_S:
            self._report()

    def close(self) -> None:
        """Release the ports."""
        self._source.close()
        self._store.close()

    # --- rows --------------------------------------------------------------------------------

    def _poll(self, timeout_s: float) -> Polled:
        polled = self._source.poll(timeout_s)
        self._last_poll_s = self._clock.monotonic_s()
        self._telemetry.progress("trainer", self._last_poll_s)
        for batch in polled.passed_over:
            tell_passed_over(batch, self._source.topic, self._telemetry, self._log)
        return polled

    def _follow(self, polled: Polled) -> None:
        if polled.assigned or polled.revoked or polled.lost:
            self._begin((self._owned - polled.revoked - polled.lost) | polled.assigned)  # one may be lost and come back
            return  # records polled with a change of ownership are read again from the beginning
        for records in polled.records:
            if self.learner is not None and records.partition in self._owned:
                self._read(records, self.learner)

    def _begin(self, owned: frozenset[int]) -> None:
        """Start over with the partitions that are ours now."""
        self._owned = owned
        if not owned:
            self.learner = None
            return
        self.learner = self._make_learner()
        self._n_foreign = 0
        self._load_current(self.learner)
        self._catch_up_to = self._source.end_offsets(owned)
        for partition, offset in self._source.beginning_offsets(owned).items():
            self._source.seek(partition, offset)
        self._source.resume(owned)

    def _read(self, records: RecordBatch, learner: Learner) -> None:
        for offset, value in zip(records.offsets.tolist(), records.values, strict=True):
            if value is None:
                continue
            try:
                learner.add(decode_training(value))
            except StateError as error:
                self._telemetry.count("training_records_skipped", reason="damaged")
                self._log.warning("training record skipped", offset=offset, reason=str(error))

    # --- models ------------------------------------------------------------------------------

    def _load_current(self, learner: Learner) -> None:
        versions = self._store.versions()
        learner.reserve(versions)
        if not versions:
            return
        try:
            announced = self._store.poll()
            self._restore(learner, announced.blob if announced else self._store.load(versions[-1]))
        except ArtefactError as error:
            self._log.warning("the stored model does not fit, training anew", reason=str(error))

    def _adopt_announced(self) -> None:
        """Follow what somebody else has made the current model: a return to a former version, say."""
        if self.learner is None:
            return
        try:
            announced = self._store.poll()
            if announced is None:
                return
            if announced.version in self._echoes:
                del self._echoes[: self._echoes.index(announced.version) + 1]
            elif self.learner.served is None or announced.version != self.learner.served.version:
                self._restore(self.learner, announced.blob)
        except ArtefactError as error:
            self._log.warning("announced model not adopted", reason=str(error))

    def _restore(self, learner: Learner, blob: bytes) -> None:
        learner.restore(blob)
        if learner.served is not None:
            self._log.info("model adopted", version=learner.served.version)

    # --- jobs --------------------------------------------------------------------------------

    def _work(self, should_stop: Callable[[], bool]) -> None:
        learner = self.learner
        if learner is None:
            return
        if self._catch_up_to and learner.served is not None:
            # These rows were there before us: a restart does not repeat what was tried on them.
            learner.absorb()
            if all(self._source.position(p) >= end for p, end in self._catch_up_to.items()):
                self._catch_up_to = {}
            return
        while not should_stop() and (job := learner.due()) is not None:
            if job is not Job.FIRST and self._clock.monotonic_s() < self._resting_until_s:
                self._tell(learner.skip("busy"))
                continue
            try:
                self._do(learner, should_stop)
            except _InterruptedError:
                self._log.info("training interrupted", job=str(job))
                return
            if job is Job.FIRST:
                self._catch_up_to = {}
        if self._n_foreign != learner.n_foreign:
            self._telemetry.count("training_records_skipped", learner.n_foreign - self._n_foreign, reason="schema")
            self._n_foreign = learner.n_foreign

    def _do(self, learner: Learner, should_stop: Callable[[], bool]) -> None:
        started_s = self._clock.monotonic_s()
        outcome = learner.step(lambda: self._tick(should_stop))
        ended_s = self._clock.monotonic_s()
        if outcome.blob is not None:
            self._announce(outcome.version, outcome.blob)
        self._resting_until_s = ended_s + _REST * (ended_s - started_s)
        self._telemetry.observe("finetune_duration_seconds", ended_s - started_s)
        self._tell(outcome)
        self._report()

    def _announce(self, version: str, blob: bytes) -> None:
        """Publish as the owner of the topic; who no longer is one is refused, and starts over with what it has."""
        offsets = {partition: CommittedOffset(self._source.position(partition), "") for partition in self._owned}
        fence = Fence(self._source.topic, offsets, self._source.group_token())
        try:
            self._store.publish(version, blob, self._clock.now_ms(), fence)
        except StaleGroupError as error:
            self._log.warning("model not announced, the topic may have another owner", version=version)
            self._begin(self._owned)  # the next poll says what of it is still ours
            raise _InterruptedError from error
        self._echoes.append(version)

    def _tick(self, should_stop: Callable[[], bool]) -> None:
        """Between two steps of training: leave if told to, and stay the owner of the topic."""
        if should_stop():
            raise _InterruptedError
        now_s = self._clock.monotonic_s()
        self._telemetry.progress("trainer", now_s)
        if now_s - self._last_poll_s < _KEEP_ALIVE_S:
            return
        self._source.pause(self._owned)
        polled = self._poll(0.0)
        self._source.resume(self._owned)
        if polled != Polled():
            self._polled.append(polled)
        if polled.revoked or polled.lost:
            raise _InterruptedError

    # --- what people see ---------------------------------------------------------------------

    def _tell(self, outcome: Outcome) -> None:
        if outcome.job is not Job.CALIBRATE:
            self._telemetry.count("finetune_runs", outcome=outcome.outcome)
        if outcome.outcome == "promoted":
            self._telemetry.gauge("finetune_last_success_timestamp_seconds", self._clock.now_ms() / 1000)
        if outcome.elbo is not None:
            self._telemetry.gauge("model_elbo", outcome.elbo)
        log = self._log.warning if outcome.outcome == "failed" else self._log.info
        log(
            "training run",
            job=str(outcome.job),
            outcome=outcome.outcome,
            reason=outcome.reason,
            detail=outcome.detail,
            version=outcome.version,
        )

    def _report(self) -> None:
        self._last_report_s = self._clock.monotonic_s()
        if self.learner is None:
            return
        sizes = self.learner.sizes()
        self._telemetry.gauge("drift_score", self.learner.drift_distance)
        self._telemetry.gauge("replay_buffer_samples", sum(sizes.values()))
        served = self.learner.served
        self._telemetry.status(
            "trainer",
            {
                "model_version": served.version if served else None,
                "rows": self.learner.n_rows,
                "gated_share": self.learner.gated_share,
                "buffers": sizes,
            },
        )
