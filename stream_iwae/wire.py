"""What travels through Kafka between our own processes, as bytes and back.

- training: rows for the trainer, `encode_training` and `decode_training`
- scores: one readable record for up to 1000 windows, `encode_scores` and `decode_scores`
- state: what a partition remembers, `encode_state_delta`, `encode_state_shard` and `decode_state`

Binary records are framed: four bytes that name kind and version, the CRC-32 of the rest, the rest.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import TrainingBatch, VerdictBatch, entity_object
from stream_iwae.errors import StateError
from stream_iwae.state import N_SHARDS, shard_of

MAX_RECORD_BYTES: Final = 900_000  # below the broker's default message.max.bytes of 1 MiB
MAX_SCORES_ROWS: Final = 1_000
MAX_LABEL_CHARS: Final = 200  # of a category's text; keeps one row far below any record limit
MAX_SHARDS: Final = 65_536  # that a record may tell of
RING: Final = 2 * N_SHARDS  # deltas kept: an overwritten one is older than the snapshot of every shard

T = TypeVar("T")

_TRAINING: Final = b"SIt1"
_DELTA: Final = b"SId1"
_SHARD: Final = b"SIs1"
_FRAME: Final = struct.Struct("<4sI")
_EXACT_INTEGERS: Final = 2.0**24  # float32 holds every integer up to here; a CRC-32 lies beyond


# --- training rows -----------------------------------------------------------------------------


class _TrainingHeader(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    schema_digest: str
    model_version: str
    n_rows: int
    widths: list[int]  # bytes of a value, for each feature: 4 or 8
    labels: dict[int, str]
    history_ended: bool
    partition: int
    in_history: bool


def encode_training(batch: TrainingBatch, max_bytes: int = MAX_RECORD_BYTES) -> list[bytes]:
    """Write a batch as records of at most `max_bytes`.

    Feature values are rounded to float32 unless they are whole numbers, which stay exact (a category
    is a CRC-32). So a value read back does not depend on the company it travelled in.

    Raises:
        ValueError: One row alone is larger than `max_bytes`.
    """
    if not len(batch):
        return [_encode_training_rows(batch)] if batch.history_ended else []
    encoded = _encode_training_rows(batch)
    if len(encoded) <= max_bytes:
        return [encoded]
    if len(batch) == 1:
        raise ValueError(f"one training row needs {len(encoded)} bytes, more than the limit of {max_bytes}")
    half = len(batch) // 2
    head = replace(rows_of(batch, slice(None, half)), history_ended=False)
    return encode_training(head, max_bytes) + encode_training(rows_of(batch, slice(half, None)), max_bytes)


def decode_training(value: bytes) -> TrainingBatch:
    """Read one record of `encode_training`.

    Raises:
        StateError: The bytes are damaged, cut, or of another version.
    """
    body = _unframe(_TRAINING, value)
    header_size = int.from_bytes(body[:4], "little")
    header = _decode_msgpack(body[4 : 4 + header_size], _TrainingHeader)
    columns = memoryview(body)[4 + header_size :]
    n, widths = header.n_rows, header.widths
    if n < 0 or not set(widths) <= {4, 8} or len(columns) != n * (41 + sum(widths)):
        raise StateError(f"a training record of {n} rows and {len(widths)} features holds {len(columns)} bytes")
    read = _ColumnReader(columns, n)
    row_ids, entity_ids, window_end_ms = read.next("<u8"), read.next("<u8"), read.next("<i8")
    scores, p_values, in_incident = read.next("<f8"), read.next("<f8"), read.next("?")
    values = np.empty((n, len(widths)))
    for j, width in enumerate(widths):
        values[:, j] = read.next(f"<f{width}")
    return TrainingBatch(
        schema_digest=header.schema_digest,
        model_version=header.model_version,
        row_ids=row_ids,
        entity_ids=entity_ids,
        window_end_ms=window_end_ms,
        values=values,
        scores=scores,
        p_values=p_values,
        in_incident=in_incident,
        labels=header.labels,
        history_ended=header.history_ended,
        partition=header.partition,
        in_history=header.in_history,
    )


def rounded_for_wire(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values as they are after the wire: whole numbers exact, others as float32."""
    with np.errstate(over="ignore"):  # beyond float32 every float64 is whole, and stays
        return np.where(np.trunc(values) == values, values, values.astype(np.float32).astype(np.float64))


def rows_of(batch: TrainingBatch, at: slice) -> TrainingBatch:
    """Some rows of a batch; its flags stay."""
    return replace(
        batch,
        row_ids=batch.row_ids[at],
        entity_ids=batch.entity_ids[at],
        window_end_ms=batch.window_end_ms[at],
        values=batch.values[at],
        scores=batch.scores[at],
        p_values=batch.p_values[at],
        in_incident=batch.in_incident[at],
    )


def _encode_training_rows(batch: TrainingBatch) -> bytes:
    values = rounded_for_wire(batch.values)  # (N, D)
    is_wide = np.any(np.isfinite(values) & (np.abs(values) > _EXACT_INTEGERS), axis=0).tolist()  # D
    present = set(np.unique(values[np.isfinite(values)]).tolist()) if batch.labels else set()
    header = _TrainingHeader(
        schema_digest=batch.schema_digest,
        model_version=batch.model_version,
        n_rows=len(batch),
        widths=[8 if wide else 4 for wide in is_wide],
        labels={int(k): v[:MAX_LABEL_CHARS] for k, v in sorted(batch.labels.items()) if float(k) in present},
        history_ended=batch.history_ended,
        partition=batch.partition,
        in_history=batch.in_history,
    )
    head = msgspec.msgpack.encode(header)
    columns = [
        batch.row_ids.astype("<u8").tobytes(),
        batch.entity_ids.astype("<u8").tobytes(),
        batch.window_end_ms.astype("<i8").tobytes(),
        batch.scores.astype("<f8").tobytes(),
        batch.p_values.astype("<f8").tobytes(),
        batch.in_incident.astype("?").tobytes(),
    ]
    columns += [values[:, j].astype("<f8" if wide else "<f4").tobytes() for j, wide in enumerate(is_wide)]
    return _frame(_TRAINING, len(head).to_bytes(4, "little") + head + b"".join(columns))


class _ColumnReader:
    """Cuts columns of N values off a buffer, in order."""

    def __init__(self, buffer: memoryview, n_rows: int) -> None:
        self._buffer = buffer
        self._n_rows = n_rows
        self._at = 0

    def next(self, dtype: str) -> NDArray[Any]:
        column = np.frombuffer(self._buffer, dtype, self._n_rows, self._at)
        self._at += column.nbytes
        return column.astype(column.dtype.newbyteorder("="))


# --- scores for people and tools ---------------------------------------------------------------


class ScoresRecord(msgspec.Struct, frozen=True):
    """Up to 1000 judged windows, column by column."""

    detector: str
    model_version: str
    entities: list[dict[str, str]]
    window_end_ms: list[int]
    scores: list[float | None]  # nats; None where unscorable
    p_values: list[float | None]
    severities: list[int]  # values of batches.Severity


def encode_scores(verdicts: VerdictBatch, detector: str, entity_fields: Sequence[str]) -> list[bytes]:
    """Write verdicts as JSON records of at most 1000 windows each."""
    records = []
    for start in range(0, len(verdicts), MAX_SCORES_ROWS):
        rows = slice(start, start + MAX_SCORES_ROWS)
        features = verdicts.features
        record = ScoresRecord(
            detector=detector,
            model_version=verdicts.scores.model_version,
            entities=[entity_object(key, entity_fields) for key in features.entities[rows]],
            window_end_ms=features.window_end_ms[rows].tolist(),
            scores=[_significant(score, 8) for score in verdicts.scores.scores[rows].tolist()],
            p_values=[_significant(p, 5) for p in verdicts.p_values[rows].tolist()],
            severities=verdicts.severities[rows].tolist(),
        )
        records.append(msgspec.json.encode(record))
    return records


def decode_scores(value: bytes) -> ScoresRecord:
    """Read one record of `encode_scores`.

    Raises:
        StateError: It is no such record, or its columns differ in length.
    """
    try:
        record = msgspec.json.decode(value, type=ScoresRecord)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"no scores record: {error}") from error
    columns = (record.entities, record.window_end_ms, record.scores, record.p_values, record.severities)
    if len({len(column) for column in columns}) != 1:
        raise StateError(f"a scores record has columns of lengths {[len(column) for column in columns]}")
    return record


def _significant(number: float, digits: int) -> float | None:
    return float(f"{number:.{digits}g}") if np.isfinite(number) else None


# --- state of a partition ----------------------------------------------------------------------
#
# Commit number `seq` (0, 1, 2, ... without gaps) writes its changes under delta/<seq % RING>, and a
# snapshot of the keys in shard seq % N_SHARDS under shard/<i>, both in the transaction of the
# commit. A delta is overwritten RING commits later, when every shard has a newer snapshot. What is
# too large for one record becomes several parts; parts left over from a longer predecessor carry
# their old number and are passed over.

StateValues = Mapping[str, Mapping[str, Any]]


class _DeltaPart(msgspec.Struct, array_like=True, frozen=True):
    seq: int
    changes: dict[str, dict[str, Any]]  # kind -> key -> value, None where removed


class _ShardPart(msgspec.Struct, array_like=True, frozen=True):
    seq: int
    shard: int
    n_shards: int
    values: dict[str, dict[str, Any]]  # kind -> key -> value


def encode_state_delta(
    seq: int, changes: StateValues, *, ring: int = RING, max_bytes: int = MAX_RECORD_BYTES
) -> list[tuple[bytes, bytes]]:
    """Write what commit `seq` changed (kind -> key -> value, None where removed) as (key, value) records."""
    parts = [_frame(_DELTA, msgspec.msgpack.encode(_DeltaPart(seq, part))) for part in _parts(changes, max_bytes)]
    return [(f"delta/{seq % ring}/{i}".encode(), part) for i, part in enumerate(parts)]


def encode_state_shard(
    seq: int,
    shard: int,
    values: StateValues,
    *,
    n_shards: int = N_SHARDS,
    max_bytes: int = MAX_RECORD_BYTES,
) -> list[tuple[bytes, bytes]]:
    """Write the values (kind -> key -> value) of one shard, as after commit `seq`, as (key, value) records.

    `values` may hold keys of other shards: they are left out.
    """
    own = {
        kind: {key: value for key, value in entries.items() if shard_of(key, n_shards) == shard}
        for kind, entries in values.items()
    }
    cut = _parts(own, max_bytes)
    parts = [_frame(_SHARD, msgspec.msgpack.encode(_ShardPart(seq, shard, n_shards, part))) for part in cut]
    return [(f"shard/{shard}/{i}".encode(), part) for i, part in enumerate(parts)]


def decode_state(records: Sequence[tuple[bytes, bytes]]) -> tuple[dict[str, dict[str, Any]], int]:
    """Recover kind -> key -> value, and the highest commit number (-1 where there is none).

    Args:
        records: (key, value) in the order of the log; later ones replace earlier ones of the same key.

    Raises:
        StateError: A record is damaged or unknown, or was written with another number of shards.
    """
    last = dict(records)
    deltas = [_decode_msgpack(_unframe(_DELTA, value), _DeltaPart) for key, value in last.items() if _is_delta(key)]
    shards = [_decode_msgpack(_unframe(_SHARD, value), _ShardPart) for key, value in last.items() if not _is_delta(key)]
    if len({part.n_shards for part in shards}) > 1:
        raise StateError(f"the state was written with {sorted({part.n_shards for part in shards})} shards")
    n_shards = shards[0].n_shards if shards else N_SHARDS
    if n_shards > MAX_SHARDS or not all(0 <= part.shard < n_shards for part in shards):
        raise StateError(f"the state names shards that are none of {n_shards}, or has more than {MAX_SHARDS}")

    snapshot_seq = dict.fromkeys(range(n_shards), -1)
    for part in shards:
        snapshot_seq[part.shard] = max(snapshot_seq[part.shard], part.seq)
    state: dict[str, dict[str, Any]] = {}
    for part in shards:
        if part.seq == snapshot_seq[part.shard]:  # else a leftover of a longer predecessor
            for kind, entries in part.values.items():
                state.setdefault(kind, {}).update(entries)
    for delta in sorted(deltas, key=lambda part: part.seq):
        for kind, changes in delta.changes.items():
            _apply(state.setdefault(kind, {}), changes, delta.seq, snapshot_seq)
    highest = max([part.seq for part in deltas] + [part.seq for part in shards], default=-1)
    # sorted: the order must not depend on how the state came to be written
    return {kind: dict(sorted(state[kind].items())) for kind in sorted(state)}, highest


def _is_delta(key: bytes) -> bool:
    if not key.startswith((b"delta/", b"shard/")):
        raise StateError(f"unknown state key {key[:80]!r}")
    return key.startswith(b"delta/")


def _apply(values: dict[str, Any], changes: Mapping[str, Any], seq: int, snapshot_seq: Mapping[int, int]) -> None:
    for key, value in changes.items():
        if seq <= snapshot_seq[shard_of(key, len(snapshot_seq))]:
            continue
        if value is None:
            values.pop(key, None)
        else:
            values[key] = value


def _parts(values: StateValues, max_bytes: int) -> list[dict[str, dict[str, Any]]]:
    """Cut kind -> key -> value into parts whose encoding stays below `max_bytes`; at least one part."""
    parts: list[dict[str, dict[str, Any]]] = [{}]
    size = overhead = 64  # frame, numbers and the names of the kinds
    for kind, entries in values.items():
        parts[-1].setdefault(kind, {})
        for key, value in entries.items():
            entry_size = len(key.encode()) + 5 + len(msgspec.msgpack.encode(value))
            if size + entry_size > max_bytes and size > overhead:
                parts.append({kind: {}})
                size = overhead
            parts[-1].setdefault(kind, {})[key] = value
            size += entry_size
    return parts


# --- frames ------------------------------------------------------------------------------------


def _frame(magic: bytes, body: bytes) -> bytes:
    return _FRAME.pack(magic, zlib.crc32(body)) + body


def _unframe(magic: bytes, value: bytes) -> bytes:
    if len(value) < _FRAME.size:
        raise StateError(f"a record of {len(value)} bytes is cut short")
    found, checksum = _FRAME.unpack_from(value)
    body = value[_FRAME.size :]
    if found != magic:
        raise StateError(f"need a record of kind {magic!r}, got {found!r}")
    if zlib.crc32(body) != checksum:
        raise StateError(f"the checksum of a {magic!r} record of {len(value)} bytes differs: it is damaged")
    return body


def _decode_msgpack(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StateError(f"a record does not decode as {kind.__name__}: {error}") from error
