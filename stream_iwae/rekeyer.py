"""The third shell: events of any partition in, batches keyed by entity out, exactly once. See docs/adr/0009.

Each transaction holds one message for every partition of the re-keyed topic, with the events that are for it and with
how far every source of the transaction has come, and the offsets of those sources.
"""

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from stream_iwae.batches import NEVER_MS, RecordBatch
from stream_iwae.delivery import Delivery, Log, tell_passed_over
from stream_iwae.errors import ConfigurationError
from stream_iwae.events.config import EventsConfig
from stream_iwae.ports import Clock, CommittedOffset, EventSource, OutputRecord, OutputSink, Polled, Telemetry
from stream_iwae.rekey.config import RekeyConfig
from stream_iwae.rekey.progress import events_digest
from stream_iwae.rekey.source_partition import RekeyCounts, SourcePartition
from stream_iwae.rekey_outputs import RekeyTopics, ShareCommit, SharePublisher
from stream_iwae.windows.progress import decode_metadata

MAX_EVENTS: Final = 50_000  # a transaction: bounds what is held, and what a crash does again


@dataclass(frozen=True, slots=True)
class RekeyerSettings:
    """How the loop reads, waits and commits."""

    start: str = "history"  # history | earliest | latest, for partitions without a committed offset
    history_ms: int = 6 * 3_600_000
    max_message_bytes: int = 1_048_576
    poll_timeout_s: float = 0.2
    identity: str = ""  # of this process, from its start to its end; see Delivery


class Rekeyer:
    """Owns the loop and one `SourcePartition` for each partition that the group gives us."""

    def __init__(
        self,
        source: EventSource,
        sink: OutputSink,
        telemetry: Telemetry,
        clock: Clock,
        log: Log,
        events: EventsConfig,
        needed: Collection[str],
        topics: RekeyTopics,
        rekey: RekeyConfig,
        settings: RekeyerSettings,
    ) -> None:
        self._source, self._telemetry, self._clock, self._log = source, telemetry, clock, log
        self._events, self._needed, self._topics = events, needed, topics
        self._rekey, self._settings = rekey, settings
        digest = events_digest(events, needed)
        self._publisher = SharePublisher(topics, digest, settings.max_message_bytes, settings.identity)
        self.partitions: dict[int, SourcePartition] = {}
        self.totals = RekeyCounts()
        self._records: deque[RecordBatch] = deque()  # polled, not yet processed
        self._is_boundary = False  # what comes next must not share a message with what came last
        self._delivery = Delivery(source, sink, telemetry, clock, log, self._records_of, self._poll, self._finish)
        self._last_commit_s = clock.monotonic_s()
        self._last_record_s: dict[int, float] = {}

    # --- the loop ----------------------------------------------------------------------------

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until told to stop, then commit what was read."""
        while not should_stop():
            self.step()
        self.commit()
        self._log.info("drained", partitions=len(self.partitions))

    def step(self) -> None:
        """One turn: assignment, records, and a commit when one is due."""
        if not self._records:
            self._poll(min(self._settings.poll_timeout_s, self._rekey.commit_interval / 1000))
        while self._records and not self._is_full():
            self._process(self._records.popleft())
        self._follow_positions()
        waited_ms = (self._clock.monotonic_s() - self._last_commit_s) * 1000
        if self._is_full() or waited_ms >= self._rekey.commit_interval:
            self.commit()
        self._report()

    def close(self) -> None:
        """Leave the group."""
        self._source.close()

    def _poll(self, timeout_s: float) -> None:
        polled = self._source.poll(timeout_s)
        self._telemetry.progress("rekeyer", self._clock.monotonic_s())
        self._telemetry.gauge("ready", 1)
        self._follow_assignment(polled)
        for partition, lost in polled.gaps:
            self._count_gap(partition, lost)
        for batch in polled.passed_over:
            tell_passed_over(batch, self._source.topic, self._telemetry, self._log)
        self._records.extend(polled.records)

    def _is_full(self) -> bool:
        n_events = sum(partition.share.counts.consumed for partition in self.partitions.values())
        return self._is_boundary or n_events >= MAX_EVENTS

    # --- assignment --------------------------------------------------------------------------

    def _follow_assignment(self, polled: Polled) -> None:
        for partition in polled.revoked | polled.lost:
            self.partitions.pop(partition, None)
            self._delivery.waiting.pop(partition, None)
            self._forget_polled(partition)
            self._telemetry.forget("consumer_lag_records", topic=self._source.topic, partition=str(partition))
        if polled.assigned:
            self._publisher.n_sources = self._source.n_partitions()
            committed = self._source.committed(polled.assigned)
            first = self._source.beginning_offsets(polled.assigned)
            for partition in sorted(polled.assigned):
                self._take_over(partition, committed[partition], first[partition])
            self._source.resume(polled.assigned)
        if polled.assigned or polled.revoked or polled.lost:
            self._telemetry.count("consumer_rebalances")
            self._telemetry.gauge("consumer_assigned_partitions", len(self.partitions), topic=self._source.topic)

    def _forget_polled(self, partition: int) -> None:
        self._records = deque(records for records in self._records if records.partition != partition)

    def _take_over(self, number: int, committed: CommittedOffset | None, first: int) -> None:
        publisher = self._publisher
        partition = SourcePartition(
            self._events, self._needed, number, self._topics.n_targets, publisher.max_batch_bytes
        )
        if committed is None:
            offset, history_until = self._begin(number, first)
            partition.begin(offset, history_until)
            publisher.begin(number, seq=0)
        else:
            metadata = decode_metadata(committed.metadata, committed.offset)
            self._check_fingerprint(metadata.fingerprint)
            partition.restore(metadata)
            publisher.begin(number, metadata.seq)
            offset = max(committed.offset, first)
            if offset > committed.offset:
                self._count_gap(number, offset - committed.offset)
        self.partitions[number] = partition
        self._delivery.waiting.pop(number, None)  # what it holds is read again
        self._last_record_s[number] = self._clock.monotonic_s()
        self._forget_polled(number)
        self._source.seek(number, offset)
        self._log.info("partition taken over", partition=number, offset=offset)

    def _begin(self, number: int, first: int) -> tuple[int, int | None]:
        """Where a partition without a commit begins, and where its history ends."""
        mine = frozenset({number})
        if self._settings.start == "earliest":
            return first, None
        end = self._source.end_offsets(mine)[number]
        if self._settings.start == "latest":
            return end, None
        since_ms = self._clock.now_ms() - self._settings.history_ms
        return max(first, self._source.offsets_for_time(mine, since_ms)[number]), end

    def _check_fingerprint(self, found: str) -> None:
        if found != self._publisher.fingerprint:
            raise ConfigurationError(
                "detector",
                found,
                "events were re-keyed under another configuration of events or features, or to another number of "
                f"partitions (now {self._publisher.fingerprint}); go back to that, or start afresh under another "
                "kafka.group and detector",
            )

    def _count_gap(self, partition: int, lost: int) -> None:
        self._telemetry.count("consumer_gap_records", lost, topic=self._source.topic)
        self._log.error(
            "records expired before they were re-keyed: retention is shorter than the outage",
            partition=partition,
            lost=lost,
        )

    # --- records -----------------------------------------------------------------------------

    def _process(self, records: RecordBatch) -> None:
        partition = self.partitions.get(records.partition)
        if partition is None:  # revoked between the poll that brought these and now
            return
        self._last_record_s[records.partition] = self._clock.monotonic_s()
        if partition.history_until is not None:
            records, later = records.split(partition.history_until)
            if len(later):
                self._records.appendleft(later)
        was_history = partition.history_until is not None
        partition.process(records)
        self._is_boundary = was_history and partition.history_until is None

    def _follow_positions(self) -> None:
        now_s = self._clock.monotonic_s()
        waiting = {records.partition for records in self._records}
        for number, partition in self.partitions.items():
            if number in waiting:
                continue
            position = self._source.position(number)
            partition.skip_to(position)
            high_water = self._source.high_water(number)
            is_quiet = (now_s - self._last_record_s[number]) * 1000 >= self._rekey.idle_after
            if is_quiet and not partition.is_idle and high_water is not None and position >= high_water:
                partition.mark_idle()

    # --- commit ------------------------------------------------------------------------------

    def commit(self) -> None:
        """Publish and commit everything that waits, all or nothing."""
        waiting = self._delivery.waiting
        for number, partition in self.partitions.items():
            if number not in waiting:
                prepared = self._publisher.prepare(partition)
                if prepared is not None:
                    waiting[number] = prepared
        self._is_boundary = False
        self._last_commit_s = self._clock.monotonic_s()
        self._delivery.deliver()

    def _records_of(self, commits: Mapping[int, ShareCommit]) -> list[OutputRecord]:
        others = (partition for number, partition in self.partitions.items() if number not in commits)
        return self._publisher.records_of(commits, [partition.word() for partition in others if partition.is_idle])

    def _finish(self, commits: Mapping[int, ShareCommit]) -> None:
        """Count what is committed now, and only now."""
        for commit in commits.values():
            self.totals.add(commit.share.counts)
            self._publisher.report(commit, self._telemetry)

    # --- what people see ---------------------------------------------------------------------

    def _report(self) -> None:
        topic, now_ms = self._source.topic, self._clock.now_ms()
        for number in self.partitions:
            high_water = self._source.high_water(number)
            if high_water is not None:
                lag = max(0, high_water - self._source.position(number))
                self._telemetry.gauge("consumer_lag_records", lag, topic=topic, partition=str(number))
        self._telemetry.gauge("consumer_last_poll_timestamp_seconds", now_ms / 1000)
        self._telemetry.status("rekeyer", self.status())

    def status(self) -> dict[str, object]:
        """What /status shows of the loop."""
        totals = self.totals
        return {
            "topic": self._topics.rekeyed,
            "targets": self._topics.n_targets,
            "partitions": {
                str(number): {
                    "position": partition.position,
                    "event_time_ms": None if partition.reached_ms == NEVER_MS else partition.reached_ms,
                    "idle": partition.is_idle,
                    "history": partition.history_until is not None,
                }
                for number, partition in self.partitions.items()
            },
            "events": {
                "consumed": totals.consumed,
                "forwarded": totals.forwarded,
                "rejected": dict(totals.rejected),
                "skipped": dict(totals.skipped),
            },
        }
