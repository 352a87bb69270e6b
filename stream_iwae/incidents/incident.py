"""What is remembered of an entity between two windows, and how a window changes it.

Plain msgpack types through and through, so it is state as it stands (`to_state`, `from_state`).
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_iwae.batches import Severity
from stream_iwae.incidents.alert import Alert, Status


@dataclass(frozen=True, slots=True)
class Observation:
    """One scored window of an entity, as far as incidents depend on it."""

    start_ms: int
    end_ms: int
    offset: int  # of a single event, which its time does not tell from others; -1 for a window
    severity: Severity
    is_quiet: bool  # below the exit threshold, which is stricter than "not anomalous"
    is_extrapolated: bool
    score: float | None  # nats

    @property
    def is_anomalous(self) -> bool:
        """At or past the threshold of a warning."""
        return self.severity > Severity.NONE


class Suspicion(msgspec.Struct, tag=True):
    """Too few anomalous windows for an incident so far."""

    seen_ms: int
    recent: list[Observation]  # the last ones, at most `of_windows`

    @property
    def anomalous(self) -> list[Observation]:
        """Those that count."""
        return [observation for observation in self.recent if observation.is_anomalous]


class Incident(msgspec.Struct, tag=True):
    """An open incident of one entity."""

    incident_id: str
    group_id: str
    started_ms: int
    seen_ms: int  # end of the last scored window
    ended_ms: int = 0  # end of the last anomalous window
    ended_offset: int = -1  # its offset, where it is a single event
    told_ms: int = 0  # end of the window of the last published alert
    windows: int = 0  # anomalous ones
    critical_windows: int = 0
    quiet_windows: int = 0  # consecutive, up to now
    severity: int = 0  # the highest so far
    peak_score: float | None = None
    last: Alert | None = None  # the last anomalous window as an alert, published or not

    def add_anomalous(self, observation: Observation) -> bool:
        """Take another anomalous window in; whether the severity rises."""
        self.seen_ms = max(self.seen_ms, observation.end_ms)
        self.ended_ms, self.ended_offset = observation.end_ms, observation.offset
        self.windows += 1
        self.quiet_windows = 0
        self.critical_windows += observation.severity >= Severity.CRITICAL
        if observation.score is not None:
            known = observation.score if self.peak_score is None else self.peak_score
            self.peak_score = max(known, observation.score)
        severity = observation.severity
        # No data lies that far out: one window may be a flaw of the fit, two are a finding.
        if observation.is_extrapolated and self.critical_windows < 2:
            severity = min(severity, Severity.MAJOR)
        is_rising = severity > self.severity
        self.severity = max(self.severity, int(severity))
        return is_rising

    def alert_id(self, status: Status) -> str:
        """The id of an alert about the last anomalous window; a replay gives the same."""
        # One record may hold many single events of the same time: there the count tells them apart.
        count = () if self.ended_offset < 0 else (self.windows,)
        return stable_id(self.incident_id, status, self.ended_ms, *count)

    def add_ordinary(self, observation: Observation) -> None:
        """Take a window in that is not anomalous, quiet or not."""
        self.seen_ms = max(self.seen_ms, observation.end_ms)
        self.quiet_windows = self.quiet_windows + 1 if observation.is_quiet else 0


def to_state(entry: Incident | Suspicion) -> dict[str, Any]:
    """As plain msgpack types."""
    plain: dict[str, Any] = msgspec.to_builtins(entry)
    return plain


def from_state(plain: dict[str, Any]) -> Incident | Suspicion:
    """What `to_state` was given."""
    return msgspec.convert(plain, Incident | Suspicion)


def is_incident(plain: dict[str, Any]) -> bool:
    """Whether a state is an open incident."""
    return bool(plain["type"] == Incident.__name__)


def seen_ms(plain: dict[str, Any]) -> int:
    """The end of the last scored window of a state's entity."""
    return int(plain["seen_ms"])


def stable_id(*parts: object) -> str:
    """32 hex digits that depend on the parts alone."""
    return hashlib.sha256("\x00".join(map(str, parts)).encode()).hexdigest()[:32]
