"""The columnar batches of the flow, in order of appearance.

RecordBatch -> EventBatch -> WindowBatch -> FeatureBatch -> ScoreBatch -> VerdictBatch -> TrainingBatch

Row i stays row i from `FeatureBatch` to `VerdictBatch`. An empty batch is a batch.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

ENTITY_SEPARATOR: Final = "\x1f"  # between the values of an entity's fields; no address or name holds it
SOURCE_PREFIX: Final = "\x1e"  # marks the pseudo-entity of a whole source (exporter)
MOVES: Final = "moves_ms"  # column: up to where an event may move the watermark, if not to its own time
REACHED: Final = "reached_ms"  # column of re-keyed events: the highest event time just before each
NEVER_MS: Final = -(2**62)  # a time before all others
OTHER_ENTITY: Final = "\x1eother"  # entities past `max_entities` are folded into this one


def entity_key(values: Sequence[str]) -> str:
    """Join the values of an entity's fields into the key that batches carry."""
    return ENTITY_SEPARATOR.join(values)


def entity_object(key: str, names: Sequence[str]) -> dict[str, str]:
    """Name the values of an entity key again, as alerts show it.

    >>> entity_object("192.0.2.1", ["src"])
    {'src': '192.0.2.1'}
    """
    if key == OTHER_ENTITY:
        return {"other": "entities past max_entities"}
    if key.startswith(SOURCE_PREFIX):
        return {"source": key.removeprefix(SOURCE_PREFIX)}
    return dict(zip(names, key.split(ENTITY_SEPARATOR), strict=True))


# --- Kafka -> events -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Consecutive Kafka records of one partition, as polled."""

    topic: str
    partition: int
    offsets: NDArray[np.int64]  # (N,), ascending
    timestamps_ms: NDArray[np.int64]  # (N,), record time
    values: Sequence[bytes | None]  # N
    next_offset: int  # the position after this batch; beyond last + 1 where markers follow

    def __len__(self) -> int:
        return len(self.values)

    def split(self, offset: int) -> tuple[Self, Self]:
        """Part the records below `offset` from those at or after it."""
        at = int(np.searchsorted(self.offsets, offset))
        cls = type(self)
        head = cls(
            self.topic,
            self.partition,
            self.offsets[:at],
            self.timestamps_ms[:at],
            self.values[:at],
            min(self.next_offset, offset),
        )
        tail = cls(
            self.topic,
            self.partition,
            self.offsets[at:],
            self.timestamps_ms[at:],
            self.values[at:],
            self.next_offset,
        )
        return head, tail


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record, or one element of a record, that could not be used, and why."""

    reason: str  # one word of the closed list in events/decode.py; a metric label
    detail: str  # one sentence for people; bounded, no secret
    offset: int
    value: bytes  # the original bytes of the record


@dataclass(frozen=True, slots=True)
class EventBatch:
    """N events of one partition, in offset order.

    The watermark follows their times, unless they were re-keyed: then `reached_ms` says how far event time has come
    with them, as of all input partitions, and a column of that name how far it had just before each.
    """

    partition: int
    frame: (
        pl.DataFrame
    )  # offset, timestamp_ms Int64, entity String, [source String], the fields, [moves_ms | reached_ms]
    reached_ms: int | None = None  # None: the times of the events say

    def __post_init__(self) -> None:
        missing = {"offset", "timestamp_ms", "entity"} - set(self.frame.columns)
        if missing:
            raise ValueError(f"an EventBatch needs the columns {sorted(missing)}, got {self.frame.columns}")

    def __len__(self) -> int:
        return self.frame.height

    @property
    def moves_ms(self) -> NDArray[np.int64]:
        """Up to where each event may move the watermark, (N,): its time, but never past the time of its record."""
        moves: NDArray[np.int64] = self.frame[MOVES if MOVES in self.frame.columns else "timestamp_ms"].to_numpy()
        return moves


# --- events -> windows -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """N closed windows of one partition, sorted by (window_end_ms, entity, first_offset).

    Columns of `frame`: entity String, window_start_ms Int64, window_end_ms Int64, n_events Int64,
    first_offset Int64, last_offset Int64 (null where empty), silence_p_value Float64 (null but for
    the pseudo-entity of a source that has gone quiet as a whole), and one column an aggregate:
    Float64, or String for a category. Null where the aggregate has no value.
    """

    partition: int
    frame: pl.DataFrame

    def __len__(self) -> int:
        return self.frame.height


# --- windows -> features ---------------------------------------------------------------------


class Kind(StrEnum):
    """What a feature is, which picks its transform and its likelihood."""

    NUMBER = "number"  # not said: a model looks at its training rows, see iwae/kinds.py
    MAGNITUDE = "magnitude"  # bytes, packets, durations, rates: heavy-tailed, at or above zero
    RATIO = "ratio"  # in [0, 1]
    COUNT = "count"  # small counts
    GAUGE = "gauge"  # any real number
    CATEGORY = "category"  # a class; the value is the CRC-32 of its text
    CYCLIC = "cyclic"  # in [0, 1), 0 and 1 the same: time of day or week


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """D features: names, kinds and units, in column order."""

    names: tuple[str, ...]
    kinds: tuple[Kind, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.kinds) == len(self.units):
            raise ValueError(f"need as many kinds and units as names, got {self}")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"feature names repeat: {self.names}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """16 hex digits that change with any name, kind, unit or order."""
        text = "\n".join(f"{n}\t{k}\t{u}" for n, k, u in zip(self.names, self.kinds, self.units, strict=True))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """N closed windows as D raw feature values each, ready to be scored."""

    schema: FeatureSchema
    values: NDArray[np.float64]  # (N, D), NaN where a feature is absent
    entities: Sequence[str]  # N entity keys
    window_start_ms: NDArray[np.int64]  # (N,)
    window_end_ms: NDArray[np.int64]  # (N,)
    n_events: NDArray[np.int64]  # (N,), 0 for an empty window
    first_offset: NDArray[np.int64]  # (N,), -1 for an empty window
    last_offset: NDArray[np.int64]  # (N,), -1 for an empty window
    silence_p_values: NDArray[np.float64]  # (N,), NaN but for a source gone quiet as a whole
    labels: Mapping[int, str] = field(default_factory=dict)  # CRC-32 of a category's text -> the text

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.shape[1] != len(self.schema):
            raise ValueError(f"need (N, {len(self.schema)}) values, got {self.values.shape}")

    @classmethod
    def empty(cls, schema: FeatureSchema) -> Self:
        """A batch of no windows."""
        none = np.empty(0, dtype=np.int64)
        return cls(schema, np.empty((0, len(schema))), [], none, none, none, none, none, np.empty(0))

    def __len__(self) -> int:
        return int(self.values.shape[0])


# --- features -> scores -> verdicts ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """How improbable each row is under one model version."""

    model_version: str
    scores: NDArray[np.float64]  # (N,), nats; higher is more anomalous; NaN = unscorable
    standard_errors: NDArray[np.float64]  # (N,), nats
    effective_samples: NDArray[np.float64]  # (N,), in [1, K]
    reconstructions: NDArray[np.float64]  # (N,), nats: -sum_k wn_k log p(x | z_k)

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Explanations:
    """For R rows: what each feature adds to the score and what was expected instead."""

    contributions: NDArray[np.float64]  # (R, D), robust z of -log p(x_j | x_-j); NaN where masked
    expected: NDArray[np.float64]  # (R, D), in the raw unit of the feature; CRC-32 for a category
    expected_low: NDArray[np.float64]  # (R, D), 5 % quantile of the posterior predictive
    expected_high: NDArray[np.float64]  # (R, D), 95 % quantile
    labels: Mapping[int, str]  # CRC-32 of a category's text -> the text, for `expected`

    @classmethod
    def joined(cls, parts: "Sequence[Explanations]") -> Self:
        """The explanations of one model, one part after the other; there is at least one."""
        return cls(
            np.concatenate([part.contributions for part in parts]),
            np.concatenate([part.expected for part in parts]),
            np.concatenate([part.expected_low for part in parts]),
            np.concatenate([part.expected_high for part in parts]),
            parts[0].labels,
        )


class Severity(IntEnum):
    """How rare a verdict is, in shares of the operator's budget."""

    UNSCORABLE = -1
    NONE = 0
    WARNING = 1
    MAJOR = 2
    CRITICAL = 3


class Direction(StrEnum):
    """The side on which a window is anomalous."""

    HIGH = "high"
    LOW = "low"  # too quiet
    UNUSUAL = "unusual"


@dataclass(frozen=True, slots=True)
class Finding:
    """One feature behind a verdict."""

    name: str
    value: float | str | None  # observed; None where missing
    expected: float | str | None
    expected_low: float | None
    expected_high: float | None
    contribution: float
    direction: str  # "above", "below" or "unusual"
    unit: str
    imputed: bool


@dataclass(frozen=True, slots=True)
class VerdictBatch:
    """The judgement of each row of a FeatureBatch."""

    features: FeatureBatch
    scores: ScoreBatch
    p_values: NDArray[np.float64]  # (N,), NaN where unscorable
    severities: NDArray[np.int8]  # (N,), values of Severity
    directions: tuple[Direction, ...]  # N
    is_low: NDArray[np.bool_]  # (N,), the score is lower than ordinary ones are, not higher
    thresholds_nats: NDArray[np.float64]  # (N,), the score from which a row on its side is a warning
    is_extrapolated: NDArray[np.bool_]  # (N,), ten observed scores do not support the threshold of its severity
    findings: Mapping[int, tuple[Finding, ...]]  # row -> features, largest first; anomalous rows only
    warning_p_value: float = 0.0  # a row at or below it is anomalous; incidents end at a multiple of it

    def __len__(self) -> int:
        return len(self.p_values)


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """N windows as the trainer needs them: raw values, and what the serving model said of them."""

    schema_digest: str
    model_version: str  # "" before the first model
    row_ids: NDArray[np.uint64]  # (N,), stable hash of (detector, entity, window end, first offset)
    entity_ids: NDArray[np.uint64]  # (N,), stable hash of the entity
    window_end_ms: NDArray[np.int64]  # (N,)
    values: NDArray[np.float64]  # (N, D)
    scores: NDArray[np.float64]  # (N,), NaN before the first model
    p_values: NDArray[np.float64]  # (N,), NaN before the first model
    in_incident: NDArray[np.bool_]  # (N,), the entity had an open incident
    labels: Mapping[int, str]
    history_ended: bool = False  # True once: this partition has no more history to give
    partition: int = 0  # the input partition the rows come from
    in_history: bool = False  # read back before the first commit: wait for the end of this history

    def __len__(self) -> int:
        return len(self.row_ids)
