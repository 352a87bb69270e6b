"""Outcome -> output records: what one transaction publishes for one partition.

A commit is made up once and kept until it is known to have succeeded, so sending it again
sends the same bytes under the same `seq`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from stream_iwae.batches import Rejected
from stream_iwae.pipeline import Outcome, Pipeline, Stages
from stream_iwae.ports import CommittedOffset, OutputRecord, Telemetry
from stream_iwae.state import N_SHARDS
from stream_iwae.windows.progress import encode_metadata
from stream_iwae.wire import encode_scores, encode_state_delta, encode_state_shard, encode_training

MAX_DEAD_LETTER_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Topics:
    """Where each kind of output goes."""

    alerts: str
    dead_letters: str
    state: str
    training: str
    scores: str | None = None  # None: scores of ordinary windows are not published


@dataclass(frozen=True, slots=True)
class Commit:
    """One partition's share of a transaction."""

    seq: int
    records: tuple[OutputRecord, ...]
    offset: CommittedOffset
    outcome: Outcome


def records_of(commits: Mapping[int, Commit]) -> list[OutputRecord]:
    """What the commits of several partitions publish together."""
    return [record for commit in commits.values() for record in commit.records]


def dead_letter(topic: str, source_topic: str, partition: int, rejected: Rejected) -> OutputRecord:
    """A rejected record with its reason and where it came from; its first 64 KiB."""
    value = rejected.value
    headers = [
        ("reason", rejected.reason.encode()),
        ("detail", rejected.detail.encode()),
        ("topic", source_topic.encode()),
        ("partition", str(partition).encode()),
        ("offset", str(rejected.offset).encode()),
        ("length", str(len(value)).encode()),
    ]
    if len(value) > MAX_DEAD_LETTER_BYTES:
        headers.append(("sha256", hashlib.sha256(value).hexdigest().encode()))
    key = f"{source_topic}/{partition}/{rejected.offset}".encode()
    return OutputRecord(topic, key, value[:MAX_DEAD_LETTER_BYTES], headers=tuple(headers))


class Publisher:
    """Makes up commits, and numbers them by partition."""

    def __init__(self, topics: Topics, stages: Stages, identity: str = "") -> None:
        """`identity` is this process's and no other's: it tells its commits from another's of the same content."""
        self._topics = topics
        self._source_topic = stages.topic
        self._detector = stages.detector
        self._entity_names = tuple(stages.events.entity)
        self._fingerprint = stages.fingerprint
        self._identity = identity
        self._seq: dict[int, int] = {}
        self._committed_position: dict[int, tuple[int, int]] = {}
        self._stale_keys: dict[int, Sequence[bytes]] = {}

    def begin(self, partition: int, seq: int, stale_keys: Sequence[bytes]) -> None:
        """Number the partition's commits on from `seq`; `stale_keys` of its state are removed by the next."""
        self._seq[partition] = seq
        self._stale_keys[partition] = stale_keys
        self._committed_position.pop(partition, None)

    def prepare(self, pipeline: Pipeline) -> Commit | None:
        """Everything the partition has to publish; None where nothing has moved."""
        partition = pipeline.partition
        if pipeline.is_replaying:
            return None
        progress = pipeline.progress()
        moved = (progress.position, progress.watermark_ms or 0)
        if self._committed_position.get(partition) == moved and not pipeline.outcome.training:
            return None
        self._committed_position[partition] = moved
        self._seq[partition] += 1
        seq = self._seq[partition]
        outcome = pipeline.take_outcome()
        metadata = encode_metadata(progress, seq, self._fingerprint, pipeline.history_until, self._identity)
        records = (
            *self._alerts(outcome),
            *(
                dead_letter(self._topics.dead_letters, self._source_topic, partition, rejected)
                for rejected in outcome.rejected
            ),
            *self._training(outcome),
            *self._scores(outcome),
            *self._state(pipeline, seq, progress.offset),
        )
        return Commit(seq, records, CommittedOffset(progress.offset, metadata), outcome)

    def _alerts(self, outcome: Outcome) -> list[OutputRecord]:
        return [OutputRecord(self._topics.alerts, alert.key, alert.encode()) for alert in outcome.alerts]

    def _training(self, outcome: Outcome) -> list[OutputRecord]:
        topic = self._topics.training
        return [OutputRecord(topic, None, value, 0) for rows in outcome.training for value in encode_training(rows)]

    def _scores(self, outcome: Outcome) -> list[OutputRecord]:
        topic = self._topics.scores
        if topic is None:
            return []
        return [
            OutputRecord(topic, None, value)
            for verdicts in outcome.verdicts
            for value in encode_scores(verdicts, self._detector, self._entity_names)
        ]

    def _state(self, pipeline: Pipeline, seq: int, offset: int) -> list[OutputRecord]:
        partition, topic = pipeline.partition, self._topics.state
        removed = self._stale_keys.pop(partition, ())
        tombstones = [OutputRecord(topic, key, None, partition) for key in removed]
        delta = encode_state_delta(seq, pipeline.take_state_changes(offset))
        number = seq % N_SHARDS
        shard = encode_state_shard(seq, number, pipeline.snapshot_shard(number))
        return [*tombstones, *(OutputRecord(topic, key, value, partition) for key, value in (*delta, *shard))]

    def report(self, commit: Commit, telemetry: Telemetry, now_ms: int) -> None:
        """Tell the metrics what this commit made final."""
        topic, counts, outcome = self._source_topic, commit.outcome.counts, commit.outcome
        for name, amount in (
            ("events_consumed", counts.consumed),
            ("bytes_consumed", counts.consumed_bytes),
            ("events_aggregated", counts.aggregated),
            ("events_late", counts.late),
        ):
            telemetry.count(name, amount, topic=topic)
        for reason, amount in counts.rejected.items():
            telemetry.count("events_rejected", amount, topic=topic, reason=reason)
        for reason, amount in counts.skipped.items():
            telemetry.count("events_skipped", amount, topic=topic, reason=reason)
        telemetry.count("windows_closed", counts.windows)
        telemetry.count("scores", counts.scored)
        telemetry.count("windows_unscored", counts.unscored)
        telemetry.count("events_folded", counts.folded)
        for severity, amount in counts.anomalies.items():
            telemetry.count("anomalies", amount, severity=severity)
        for alert in outcome.alerts:
            telemetry.count("alerts_published", severity=alert.severity)
        for arrival_ms in outcome.alert_arrivals_ms:
            telemetry.observe("end_to_end_latency_seconds", max(0, now_ms - arrival_ms) / 1000)
