"""Model artefacts on the compacted models topic, or in a directory.

On Kafka an artefact is cut into chunks keyed `<version>/<i>/<n>`, followed by the pointer `current`, all in
one transaction: a reader sees a version whole or not at all.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from kafka import KafkaConsumer, TopicPartition

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_state import read_compacted
from stream_iwae.errors import ArtefactError
from stream_iwae.ports import Clock, Fence, ModelAnnouncement, OutputRecord, OutputSink

POINTER: Final = "current"
CHUNK_BYTES: Final = 524_288
KEPT_VERSIONS: Final = 5
_POLL_EVERY_S: Final = 0.5


class Pointer(msgspec.Struct, frozen=True):
    """What is announced: which version, and how to know it again."""

    version: str
    sha256: str
    size: int
    announced_ms: int

    def check(self, blob: bytes) -> ModelAnnouncement:
        """The announcement of a blob, if it is the one.

        Raises:
            ArtefactError: It is another, or damaged.
        """
        if len(blob) != self.size or hashlib.sha256(blob).hexdigest() != self.sha256:
            raise ArtefactError(f"model {self.version} is damaged: {len(blob)} bytes, announced were {self.size}")
        return ModelAnnouncement(self.version, blob)


def pointer_to(version: str, blob: bytes, announced_ms: int) -> Pointer:
    """The pointer that announces a blob."""
    return Pointer(version, hashlib.sha256(blob).hexdigest(), len(blob), announced_ms)


def read_pointer(value: bytes) -> Pointer:
    """Decode a pointer; raises ArtefactError."""
    try:
        return msgspec.json.decode(value, type=Pointer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ArtefactError(f"the pointer to the current model is damaged: {error}") from error


class KafkaModelStore:
    """Artefacts on the models topic."""

    def __init__(self, config: KafkaConfig, clock: Clock, sink: OutputSink | None = None) -> None:
        """With a `sink` it can publish; scorers need none."""
        self._topic = config.topics.models
        self._partition = TopicPartition(self._topic, 0)
        self._clock = clock
        self._sink = sink
        self._consumer = connected(
            config,
            lambda: KafkaConsumer(
                **client_settings(config, "models"),
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                fetch_max_wait_ms=50,
            ),
        )
        self._values: dict[bytes, bytes] | None = None  # None: not yet read to the end once
        self._next_poll_s = float("-inf")

    def poll(self) -> ModelAnnouncement | None:
        """The newest announcement since the last call."""
        now_s = self._clock.monotonic_s()
        if now_s < self._next_poll_s:
            return None
        self._next_poll_s = now_s + _POLL_EVERY_S
        is_new = False
        if self._values is None:
            self._values = read_compacted(self._consumer, self._partition)
            is_new = POINTER.encode() in self._values
        for record in self._consumer.poll(timeout_ms=0).get(self._partition, ()):
            if record.value is None:
                self._values.pop(record.key, None)
                continue
            self._values[record.key] = record.value
            is_new |= record.key == POINTER.encode()
        if not is_new:
            return None
        pointer = read_pointer(self._values[POINTER.encode()])
        return pointer.check(_joined(self._values, pointer.version))

    def publish(self, version: str, blob: bytes, announced_ms: int, fence: Fence | None = None) -> None:
        """Chunks, pointer and tombstones of old versions in one transaction, with the membership that fences it."""
        if self._sink is None:
            raise ArtefactError("this store was opened to read models, not to publish them")
        stored = self._all()
        expired = self._expired(stored, version)
        records = [OutputRecord(self._topic, key, None, 0) for key in expired]
        chunks = [blob[start : start + CHUNK_BYTES] for start in range(0, len(blob), CHUNK_BYTES)]
        records += [
            OutputRecord(self._topic, f"{version}/{i}/{len(chunks)}".encode(), chunk, 0)
            for i, chunk in enumerate(chunks)
        ]
        pointer = msgspec.json.encode(pointer_to(version, blob, announced_ms))
        records.append(OutputRecord(self._topic, POINTER.encode(), pointer, 0))
        if fence is None:
            self._sink.commit(records, {}, "", None)  # no offsets, so no group
        else:
            self._sink.commit(records, fence.offsets, fence.topic, fence.group)

    def versions(self) -> list[str]:
        """The versions stored, oldest first."""
        return _versions(self._all())

    def load(self, version: str) -> bytes:
        """The artefact of one version."""
        return _joined(self._all(), version)

    def close(self) -> None:
        """Release the sockets."""
        self._consumer.close(autocommit=False)
        if self._sink is not None:
            self._sink.close()

    def _all(self) -> dict[bytes, bytes]:
        position = None if self._values is None else self._consumer.position(self._partition)
        stored = read_compacted(self._consumer, self._partition)
        if position is not None:
            self._consumer.seek(self._partition, position)  # announcements since then are still to be polled
        return stored

    @staticmethod
    def _expired(stored: dict[bytes, bytes], version: str) -> list[bytes]:
        kept = {*_versions(stored)[-(KEPT_VERSIONS - 1) :]}
        return [key for key in stored if key != POINTER.encode() and key.decode().split("/")[0] not in {*kept, version}]


def _versions(stored: dict[bytes, bytes]) -> list[str]:
    return list(dict.fromkeys(key.decode().split("/")[0] for key in stored if key != POINTER.encode()))


def _joined(stored: dict[bytes, bytes], version: str) -> bytes:
    keys = [key.decode().split("/") for key in stored if key.decode().startswith(f"{version}/")]
    if not keys:
        raise ArtefactError(f"there is no model {version!r}")
    n_chunks = int(keys[0][2])
    wanted = [f"{version}/{i}/{n_chunks}".encode() for i in range(n_chunks)]
    missing = [key for key in wanted if key not in stored]
    if missing:
        raise ArtefactError(f"model {version!r} lacks {len(missing)} of its {n_chunks} parts")
    return b"".join(stored[key] for key in wanted)


class DirectoryModelStore:
    """Artefacts as files; the pointer is replaced atomically."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._directory.mkdir(parents=True, exist_ok=True)
        self._seen: bytes | None = None

    def poll(self) -> ModelAnnouncement | None:
        """The newest announcement since the last call."""
        path = self._directory / f"{POINTER}.json"
        if not path.exists():
            return None
        value = path.read_bytes()
        if value == self._seen:
            return None
        self._seen = value
        pointer = read_pointer(value)
        return pointer.check(self.load(pointer.version))

    def publish(self, version: str, blob: bytes, announced_ms: int, fence: Fence | None = None) -> None:  # noqa: ARG002
        """Write the artefact, then the pointer; a directory knows no group, so it fences nobody."""
        self._replace(f"{version}.siwae", blob)
        self._replace(f"{POINTER}.json", msgspec.json.encode(pointer_to(version, blob, announced_ms)))
        for old in self._files()[:-KEPT_VERSIONS]:
            old.unlink()

    def versions(self) -> list[str]:
        """The versions stored, oldest first."""
        return [path.name.removesuffix(".siwae") for path in self._files()]

    def load(self, version: str) -> bytes:
        """The artefact of one version."""
        path = self._directory / f"{version}.siwae"
        if path.parent != self._directory or not path.exists():
            raise ArtefactError(f"there is no model {version!r} in {self._directory}")
        return path.read_bytes()

    def close(self) -> None:
        """Nothing is held open."""

    def _files(self) -> Sequence[Path]:
        return sorted(self._directory.glob("*.siwae"), key=lambda path: path.stat().st_mtime_ns)

    def _replace(self, name: str, content: bytes) -> None:
        temporary = self._directory / f".{name}.{os.getpid()}"
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._directory / name)
