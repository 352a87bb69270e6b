"""What the shells need of the outside world. Each port has a real adapter and an in-memory twin."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from stream_iwae.batches import RecordBatch


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: records, and changes of the assignment in force from now on."""

    records: tuple[RecordBatch, ...] = ()
    assigned: frozenset[int] = frozenset()  # newly ours; paused until resumed
    revoked: frozenset[int] = frozenset()  # given up in a rebalance
    lost: frozenset[int] = frozenset()  # taken away without a say: abort what is open
    gaps: tuple[tuple[int, int], ...] = ()  # (partition, records that retention deleted before they were read)
    passed_over: tuple[tuple[int, int, int], ...] = ()  # batches too large to unpack: (partition, offset, records)


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """A committed offset and the metadata string stored beside it."""

    offset: int
    metadata: str


class GroupToken(Protocol):
    """Membership of a consumer group at one generation; opaque, from source to sink."""


class EventSource(Protocol):
    """The partitions of one topic that the consumer group gives to this process."""

    topic: str

    def poll(self, timeout_s: float) -> Polled:
        """Wait for records of partitions that are not paused; newly assigned ones begin paused.

        Raises:
            FencedError: Another process is this member of the group now.
        """

    def n_partitions(self) -> int:
        """How many partitions the topic has."""

    def committed(self, partitions: frozenset[int]) -> dict[int, CommittedOffset | None]:
        """What the group has committed."""

    def beginning_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The first offset that the log still holds."""

    def end_offsets(self, partitions: frozenset[int]) -> dict[int, int]:
        """The offset after the last stable record."""

    def offsets_for_time(self, partitions: frozenset[int], timestamp_ms: int) -> dict[int, int]:
        """The first offset with a record time at or after `timestamp_ms`, else the end."""

    def seek(self, partition: int, offset: int) -> None:
        """Read on from `offset`."""

    def position(self, partition: int) -> int:
        """The offset of the next record to be polled."""

    def high_water(self, partition: int) -> int | None:
        """The end of the partition as the last fetch saw it; None before the first."""

    def pause(self, partitions: frozenset[int]) -> None:
        """Fetch nothing from these until resumed."""

    def resume(self, partitions: frozenset[int]) -> None:
        """Fetch from these again."""

    def group_token(self) -> GroupToken:
        """The membership that fences a commit."""

    def close(self) -> None:
        """Leave, and release every socket and thread."""


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """One record to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int | None = None  # None: by the key
    headers: tuple[tuple[str, bytes], ...] = ()


class OutputSink(Protocol):
    """Publishes records and commits offsets, all or nothing."""

    def commit(
        self,
        records: Sequence[OutputRecord],
        offsets: Mapping[int, CommittedOffset],
        source_topic: str,
        group: GroupToken,
    ) -> None:
        """Publish `records` and commit `offsets` of `source_topic` in one transaction.

        Raises:
            StaleGroupError: The group has rebalanced; nothing was committed.
            FencedError: Another process has taken this identity; nothing was committed.
            AmbiguousCommitError: It may or may not have been committed; call `recover`.
            DeliveryError: A record could not be delivered; nothing was committed.
        """

    def recover(self) -> None:
        """Replace the producer; settles whatever transaction the former one left open."""

    def close(self) -> None:
        """Release every socket and thread; leaves no transaction open."""


class StateReader(Protocol):
    """Reads back the compacted state of one input partition."""

    def read(self, partition: int) -> list[tuple[bytes, bytes]]:
        """All committed (key, value) of the partition to its end; the last value of each key."""

    def close(self) -> None:
        """Release every socket."""


@dataclass(frozen=True, slots=True)
class ModelAnnouncement:
    """A model artefact that scorers are to use from now on."""

    version: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Fence:
    """A membership without which nothing may be published: who has lost it is refused."""

    topic: str
    offsets: Mapping[int, CommittedOffset]  # committed along with it, as Kafka checks a membership with offsets alone
    group: GroupToken


class ModelStore(Protocol):
    """Where artefacts live: the models topic, or a directory."""

    def poll(self) -> ModelAnnouncement | None:
        """The newest announcement since the last call, or None. Never blocks for long.

        Raises:
            ArtefactError: What is announced is damaged (its checksum differs, a part is missing).
        """

    def publish(self, version: str, blob: bytes, announced_ms: int, fence: Fence | None = None) -> None:
        """Store `blob` as `version` and make it the current one, atomically.

        Raises:
            StaleGroupError: The membership of `fence` is no longer in force; nothing was stored.
        """

    def versions(self) -> list[str]:
        """The versions stored, oldest first."""

    def load(self, version: str) -> bytes:
        """The artefact of one version.

        Raises:
            ArtefactError: There is no such version, or it is damaged.
        """

    def close(self) -> None:
        """Release what is held."""


class Telemetry(Protocol):
    """Metrics and status. Names are those of docs/operations.md without the prefix `stream_iwae_`."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter (name without `_total`)."""

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""

    def forget(self, name: str, **labels: str) -> None:
        """Take a gauge's series away; nothing where there is none."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add an observation to a histogram."""

    def info(self, name: str, **labels: str) -> None:
        """Set an info metric."""

    def status(self, section: str, values: Mapping[str, object]) -> None:
        """Replace one section of /status."""

    def progress(self, component: str, now_s: float) -> None:
        """Say that `component` ("poll", "commit", "trainer") made progress; feeds /healthz."""


class Clock(Protocol):
    """Time outside the stream."""

    def now_ms(self) -> int:
        """Wall-clock milliseconds since 1970 UTC."""

    def monotonic_s(self) -> float:
        """Seconds that never go back."""
