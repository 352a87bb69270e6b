"""Alerts and truth -> outcome: what was caught, after how long, and how often nothing was there.

Pure. An alert tells of a scenario if it names one who takes part and its window overlaps
[start, end + GRACE_MS): the last windows of an attack, and what it leaves behind, are told late.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from stream_iwae.lab.truth import ScenarioTruth

GRACE_MS: Final = 15 * 60_000
SEVERITIES: Final = ("warning", "major", "critical")  # ascending
_SAYS_ANOMALOUS: Final = frozenset({"open", "update"})  # a close tells that it is over


@dataclass(frozen=True, slots=True)
class ScenarioOutcome:
    """What became of one scenario."""

    name: str
    kind: str
    benign: bool
    caught: bool  # an alert told of it; for a benign one that is a false alert
    delay_seconds: float | None  # event time, from its start to the end of the first such alert's window
    severity: str | None  # the highest; None without an alert
    start_ms: int
    end_ms: int
    entities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FalseIncident:
    """An incident that began when no attack concerned its entity."""

    incident_id: str
    entity: str
    severity: str  # the highest it came to
    started_at: str
    reason: str
    benign: str | None  # name of the harmless scenario that it mistook


@dataclass(frozen=True, slots=True)
class Outcome:
    """All scenarios in order of time, and the false alerts."""

    scenarios: tuple[ScenarioOutcome, ...]
    false_incidents: tuple[FalseIncident, ...]
    false_alerts_per_hour: float  # of simulated time

    @property
    def attacks(self) -> tuple[ScenarioOutcome, ...]:
        """The scenarios that should be caught."""
        return tuple(scenario for scenario in self.scenarios if not scenario.benign)

    @property
    def caught_share(self) -> float:
        """Share of the attacks that were caught; 1 where there was none."""
        return sum(scenario.caught for scenario in self.attacks) / len(self.attacks) if self.attacks else 1.0

    @property
    def worst_benign_severity(self) -> str | None:
        """The highest severity on a harmless scenario; None where none was mistaken."""
        ranks = [_rank(scenario.severity) for scenario in self.scenarios if scenario.benign and scenario.severity]
        return SEVERITIES[max(ranks)] if ranks else None


def judge_outcome(alerts: Iterable[Mapping[str, Any]], truth: Sequence[ScenarioTruth], live_hours: float) -> Outcome:
    """Compare alerts with what happened.

    Args:
        alerts: Decoded messages of the alerts topic, in any order.
        truth: Of the simulation that they are about.
        live_hours: Length of the simulated time in which alerts could come.

    Raises:
        ValueError: There was no such time.
    """
    if live_hours <= 0:
        raise ValueError(f"need live_hours > 0, got {live_hours}")
    sightings = sorted(map(_Sighting.of, alerts), key=lambda one: (one.end_ms, one.start_ms))
    scenarios = tuple(_scenario(scenario, sightings) for scenario in truth)
    false = tuple(_false_incidents(sightings, truth))
    return Outcome(scenarios, false, len(false) / live_hours)


@dataclass(frozen=True, slots=True)
class _Sighting:
    """What of an alert matters here."""

    incident_id: str
    entity: str
    values: frozenset[str]  # of the entity's fields
    status: str
    severity: str
    start_ms: int
    end_ms: int
    started_at: str
    reason: str

    @classmethod
    def of(cls, alert: Mapping[str, Any]) -> "_Sighting":
        entity: Mapping[str, str] = alert["entity"]
        return cls(
            incident_id=alert["incident_id"],
            entity=", ".join(entity.values()),
            values=frozenset(entity.values()),
            status=alert["status"],
            severity=alert["severity"],
            start_ms=_epoch_ms(alert["window_start"]),
            end_ms=_epoch_ms(alert["window_end"]),
            started_at=alert["started_at"],
            reason=alert.get("reason", ""),
        )

    def tells_of(self, scenario: ScenarioTruth) -> bool:
        is_within = self.start_ms < scenario.end_ms + GRACE_MS and self.end_ms > scenario.start_ms
        return is_within and not self.values.isdisjoint(scenario.concerned)


def _scenario(scenario: ScenarioTruth, sightings: Sequence[_Sighting]) -> ScenarioOutcome:
    telling = [one for one in sightings if one.status in _SAYS_ANOMALOUS and one.tells_of(scenario)]
    return ScenarioOutcome(
        name=scenario.name,
        kind=scenario.kind,
        benign=scenario.benign,
        caught=bool(telling),
        delay_seconds=(telling[0].end_ms - scenario.start_ms) / 1000 if telling else None,
        severity=max((one.severity for one in telling), key=_rank, default=None),
        start_ms=scenario.start_ms,
        end_ms=scenario.end_ms,
        entities=scenario.entities,
    )


def _false_incidents(sightings: Sequence[_Sighting], truth: Sequence[ScenarioTruth]) -> Iterable[FalseIncident]:
    """One for each incident whose first alert tells of no attack, in order of time."""
    by_incident: dict[str, list[_Sighting]] = {}
    for one in sightings:
        by_incident.setdefault(one.incident_id, []).append(one)
    attacks = [scenario for scenario in truth if not scenario.benign]
    for incident_id, told in by_incident.items():
        first = told[0]
        if any(first.tells_of(attack) for attack in attacks):
            continue
        mistaken = next((scenario.name for scenario in truth if scenario.benign and first.tells_of(scenario)), None)
        severity = max((one.severity for one in told), key=_rank)
        yield FalseIncident(incident_id, first.entity, severity, first.started_at, first.reason, mistaken)


def _rank(severity: str | None) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else -1


def _epoch_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
