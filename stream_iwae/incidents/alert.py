"""The published message about an incident: deploy/schemas/alert.schema.json as a type.

Within a schema version there are only additions. `detected_at` alone comes from the wall clock,
so a replay gives the same alerts but for it.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from stream_iwae.batches import ENTITY_SEPARATOR, Finding

SCHEMA_VERSION: Final = 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Status(StrEnum):
    """The step of an incident's life that an alert tells of."""

    OPEN = "open"
    UPDATE = "update"
    CLOSE = "close"


class CloseReason(StrEnum):
    """Why an incident ended."""

    RECOVERED = "recovered"  # enough quiet windows
    STALE = "stale"  # no scored window for long
    EVICTED = "evicted"  # too many open incidents
    FEEDBACK = "feedback"  # an operator dismissed it
    MODEL_CHANGE = "model_change"  # the model that opened it was withdrawn


class AlertFeature(msgspec.Struct, frozen=True):
    """One feature behind an alert; see `batches.Finding`."""

    name: str
    value: float | str | None
    expected: float | str | None
    expected_low: float | None
    expected_high: float | None
    contribution: float
    direction: str
    unit: str
    imputed: bool

    @classmethod
    def of(cls, finding: Finding) -> "AlertFeature":
        """The same as a part of the message."""
        return cls(
            finding.name,
            finding.value,
            finding.expected,
            finding.expected_low,
            finding.expected_high,
            finding.contribution,
            finding.direction,
            finding.unit,
            finding.imputed,
        )


class Origin(msgspec.Struct, frozen=True):
    """Where to look: the records that the window came from."""

    topic: str
    partition: int
    first_offset: int | None  # None for an empty window
    last_offset: int | None


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One message about one incident. Times are RFC 3339 in UTC; scores are nats."""

    schema_version: int = SCHEMA_VERSION
    alert_id: str
    incident_id: str
    group_id: str
    status: str
    detector: str
    tenant: str | None
    entity: dict[str, str]
    window_start: str  # event time, half open
    window_end: str
    detected_at: str  # processing time
    started_at: str
    ended_at: str | None
    score: float | None  # None where the window was judged without a model
    p_value: float
    threshold: float  # on the side of `direction`
    extrapolated: bool = False  # too few ordinary windows were seen beyond the threshold to vouch for it
    direction: str
    severity: str  # the highest of the incident so far
    confidence: float
    features: list[AlertFeature]
    imputed_share: float
    reason: str
    close_reason: str | None
    windows: int
    peak_score: float | None
    model_version: str
    origin: Origin
    trace_id: str | None = None

    @property
    def key(self) -> bytes:
        """The Kafka key: all alerts of an entity stay in order."""
        return ENTITY_SEPARATOR.join(self.entity.values()).encode()

    def encode(self) -> bytes:
        """The message as JSON."""
        return msgspec.json.encode(self)


def rfc3339(time_ms: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC.

    >>> rfc3339(1_500)
    '1970-01-01T00:00:01.500Z'
    """
    return (_EPOCH + timedelta(milliseconds=time_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
