"""One row of a VerdictBatch and the incident it belongs to -> an alert."""

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from stream_iwae.batches import Severity, VerdictBatch, entity_object
from stream_iwae.incidents.alert import Alert, AlertFeature, CloseReason, Origin, Status, rfc3339
from stream_iwae.incidents.confidence import confidence
from stream_iwae.incidents.incident import Incident
from stream_iwae.incidents.reason import closing_text, reason_text


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One row of a VerdictBatch, and when it was judged."""

    verdicts: VerdictBatch
    row: int
    now_ms: int  # wall clock, for `detected_at` alone

    @property
    def entity(self) -> str:
        """The entity's key."""
        return self.verdicts.features.entities[self.row]

    @property
    def score(self) -> float | None:
        """Nats; None where no model was asked."""
        return finite_or_none(float(self.verdicts.scores.scores[self.row]))


@dataclass(frozen=True, slots=True)
class Sender:
    """What all alerts of one partition share."""

    detector: str
    tenant: str | None
    entity_names: tuple[str, ...]
    topic: str
    partition: int

    def tell(self, incident: Incident, status: Status, judged: JudgedRow) -> Alert:
        """An alert about an anomalous window that the incident has taken in."""
        verdicts, row = judged.verdicts, judged.row
        features, scores = verdicts.features, verdicts.scores
        entity = entity_object(judged.entity, self.entity_names)
        findings = verdicts.findings.get(row, ())
        start_ms, end_ms = int(features.window_start_ms[row]), int(features.window_end_ms[row])
        imputed_share = float(np.mean(np.isnan(features.values[row]))) if len(features.schema) else 0.0
        is_silence = bool(np.isfinite(features.silence_p_values[row]))
        margin = math.nan if is_silence else abs(float(scores.scores[row] - verdicts.thresholds_nats[row]))
        return Alert(
            alert_id=incident.alert_id(status),
            incident_id=incident.incident_id,
            group_id=incident.group_id,
            status=status.value,
            detector=self.detector,
            tenant=self.tenant,
            entity=entity,
            window_start=rfc3339(start_ms),
            window_end=rfc3339(end_ms),
            detected_at=rfc3339(judged.now_ms),
            started_at=rfc3339(incident.started_ms),
            ended_at=None,
            score=judged.score,
            p_value=float(verdicts.p_values[row]),
            threshold=float(verdicts.thresholds_nats[row]),
            extrapolated=bool(verdicts.is_extrapolated[row]),
            direction=verdicts.directions[row].value,
            severity=Severity(incident.severity).name.lower(),
            confidence=confidence(
                incident.windows,
                incident.severity,
                margin,
                float(scores.standard_errors[row]),
                imputed_share,
                bool(verdicts.is_extrapolated[row]),
            ),
            features=[AlertFeature.of(finding) for finding in findings],
            imputed_share=imputed_share,
            reason=reason_text(
                entity, findings, end_ms - start_ms, is_silence=is_silence, is_too_regular=bool(verdicts.is_low[row])
            ),
            close_reason=None,
            windows=incident.windows,
            peak_score=incident.peak_score,
            model_version=scores.model_version,
            origin=self._origin(int(features.first_offset[row]), int(features.last_offset[row])),
        )

    def _origin(self, first_offset: int, last_offset: int) -> Origin:
        if first_offset < 0:  # an empty window
            return Origin(self.topic, self.partition, None, None)
        return Origin(self.topic, self.partition, first_offset, last_offset)


def tell_end(incident: Incident, reason: CloseReason, now_ms: int) -> Alert:
    """The closing alert: the last anomalous window again, and why it was the last.

    It depends on no later window, so it is the same however the end was noticed.

    Raises:
        ValueError: The incident has no anomalous window.
    """
    last = incident.last
    if last is None:
        raise ValueError(f"incident {incident.incident_id} has no anomalous window to end with")
    return msgspec.structs.replace(
        last,
        alert_id=incident.alert_id(Status.CLOSE),
        status=Status.CLOSE.value,
        detected_at=rfc3339(now_ms),
        ended_at=rfc3339(incident.ended_ms),
        reason=closing_text(last.entity, reason, incident.windows, last.reason),
        close_reason=reason.value,
    )


def finite_or_none(number: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return number if math.isfinite(number) else None
