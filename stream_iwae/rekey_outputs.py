"""Share -> output records: what one transaction of the re-keyer publishes; the counterpart of `outputs.py`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Final

from stream_iwae.outputs import dead_letter
from stream_iwae.ports import CommittedOffset, OutputRecord, Telemetry
from stream_iwae.rekey.batch import encode_batch
from stream_iwae.rekey.progress import encode_position, fingerprint
from stream_iwae.rekey.source_partition import Portion, Share, SourcePartition, compose

_HEADER_SHARE: Final = 8  # of a message's limit this part is left for its header and for Kafka's own bytes


@dataclass(frozen=True, slots=True)
class RekeyTopics:
    """Where events come from, and where they and dead letters go."""

    events: str
    rekeyed: str
    n_targets: int  # partitions of it
    dead_letters: str


@dataclass(frozen=True, slots=True)
class ShareCommit:
    """One source partition's share of a transaction."""

    seq: int
    share: Share
    offset: CommittedOffset


class SharePublisher:
    """Makes up commits, and numbers them by source partition."""

    def __init__(self, topics: RekeyTopics, digest: str, max_message_bytes: int, identity: str = "") -> None:
        """`identity` is this process's and no other's, as in `outputs.py`."""
        self._topics = topics
        self._digest = digest
        self._identity = identity
        self.fingerprint = fingerprint(digest, topics.n_targets)
        self.max_batch_bytes = max_message_bytes - max_message_bytes // _HEADER_SHARE
        self.n_sources = 0  # partitions of the events topic
        self._seq: dict[int, int] = {}
        self._committed_position: dict[int, int] = {}

    def begin(self, partition: int, seq: int) -> None:
        """Number the partition's commits on from `seq`."""
        self._seq[partition] = seq
        self._committed_position.pop(partition, None)

    def prepare(self, partition: SourcePartition) -> ShareCommit | None:
        """Everything the partition has to publish; None where nothing has moved."""
        number, position = partition.partition, partition.position
        if position == self._committed_position.get(number) and not partition.share.portions:
            return None
        self._committed_position[number] = position
        self._seq[number] += 1
        seq = self._seq[number]
        history_until, mark = partition.history_until, self.fingerprint
        metadata = encode_position(position, partition.reached_ms, seq, mark, history_until, self._identity)
        return ShareCommit(seq, partition.take_share(), CommittedOffset(position, metadata))

    def records_of(self, commits: Mapping[int, ShareCommit], idle: Iterable[Portion]) -> list[OutputRecord]:
        """What the sources publish together: one message a target, unless it would be too large.

        Idle sources say so again in each, for who begins to read in the middle; they alone are no reason to write.
        """
        topics = self._topics
        portions = list(chain.from_iterable(commit.share.portions for commit in commits.values()))
        portions += idle if portions else ()
        batches = compose(portions, topics.n_targets, self.n_sources, self._digest)
        letters = [
            dead_letter(topics.dead_letters, topics.events, number, rejected)
            for number, commit in commits.items()
            for rejected in commit.share.rejected
        ]
        return letters + [
            OutputRecord(topics.rekeyed, topics.events.encode(), value, target)
            for target, batch in batches.items()
            for value in encode_batch(batch, self.max_batch_bytes)
        ]

    def report(self, commit: ShareCommit, telemetry: Telemetry) -> None:
        """Tell the metrics what this commit made final."""
        topic, counts = self._topics.events, commit.share.counts
        telemetry.count("events_consumed", counts.consumed, topic=topic)
        telemetry.count("bytes_consumed", counts.consumed_bytes, topic=topic)
        telemetry.count("events_forwarded", counts.forwarded, topic=topic)
        for reason, amount in counts.rejected.items():
            telemetry.count("events_rejected", amount, topic=topic, reason=reason)
        for reason, amount in counts.skipped.items():
            telemetry.count("events_skipped", amount, topic=topic, reason=reason)
