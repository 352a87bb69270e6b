"""VerdictBatch -> alerts: consecutive anomalous windows of an entity are one incident.

Windows are taken in order of their end (single events: of their offset), and what falls due in
between is settled first, so the result does not depend on how the stream is cut into batches.
"""

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import SOURCE_PREFIX, Severity, VerdictBatch
from stream_iwae.incidents.alert import Alert, CloseReason, Status
from stream_iwae.incidents.compose import JudgedRow, Sender, tell_end
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.incidents.incident import (
    Incident,
    Observation,
    Suspicion,
    from_state,
    is_incident,
    seen_ms,
    stable_id,
    to_state,
)
from stream_iwae.state import KeyedState

RECORD_MS: Final = 1  # the length of a window that is a single event
EVICTED_SHARE: Final = 10  # one in ten goes at once, so that a flood does not search for each newcomer


class IncidentTracker:
    """Opens, updates and closes the incidents of one partition."""

    def __init__(
        self, config: IncidentsConfig, detector: str, entity_names: Sequence[str], topic: str, partition: int
    ) -> None:
        self.state: KeyedState[dict[str, Any]] = KeyedState()  # entity -> Incident or Suspicion
        self._config = config
        self._sender = Sender(detector, config.tenant, tuple(entity_names), topic, partition)
        self._clock_ms: float = -math.inf  # event time so far; single events may lie behind it
        self._next_due_ms: float = -math.inf  # nothing falls due before

    # --- flow --------------------------------------------------------------------------------

    def track(self, verdicts: VerdictBatch, now_ms: int) -> list[Alert]:
        """What the next judged windows change.

        Args:
            verdicts: Windows in order of (end, entity), or single events in any order.
            now_ms: Wall clock, for `detected_at` alone.
        """
        if not len(verdicts):
            return []
        order = _order(verdicts)  # (N,)
        clock_ms = np.maximum.accumulate(verdicts.features.window_end_ms[order]).tolist()  # N
        self._next_due_ms = -math.inf  # the state may have been restored since
        alerts: list[Alert] = []
        for at in self._concerned(verdicts, order):
            alerts += self._expire(clock_ms[at], now_ms)
            alerts += self._observe(JudgedRow(verdicts, int(order[at]), now_ms))
        alerts += self._expire(clock_ms[-1], now_ms)
        return alerts

    def expire(self, watermark_ms: int, now_ms: int) -> list[Alert]:
        """Close what has had no scored window for long, once all windows up to the watermark are tracked."""
        self._next_due_ms = -math.inf
        return self._expire(watermark_ms, now_ms)

    def is_open(self, entity: str) -> bool:
        """Whether the entity has an open incident."""
        plain = self.state.get(entity)
        return plain is not None and is_incident(plain)

    def open_by_severity(self) -> dict[str, int]:
        """How many incidents are open, by severity; every severity is there."""
        counts = {severity.name.lower(): 0 for severity in Severity if severity > Severity.NONE}
        for _, plain in self.state.items():  # noqa: PERF102  # a KeyedState has no values()
            if is_incident(plain):
                counts[Severity(plain["severity"]).name.lower()] += 1
        return counts

    # --- one window --------------------------------------------------------------------------

    def _concerned(self, verdicts: VerdictBatch, order: NDArray[np.int64]) -> list[int]:
        """Places in `order` of the rows whose entity has a history, or is anomalous in this batch."""
        entities = verdicts.features.entities
        concerned = {entities[row] for row in np.flatnonzero(verdicts.severities > Severity.NONE).tolist()} | set(
            self.state
        )
        if not concerned:
            return []
        return [at for at, row in enumerate(order.tolist()) if entities[row] in concerned]

    def _observe(self, judged: JudgedRow) -> list[Alert]:
        observation = self._observation(judged)
        if observation.severity == Severity.UNSCORABLE:
            return []  # neither anomalous nor quiet; if nothing else comes, the incident grows stale
        plain = self.state.get(judged.entity)
        entry = Suspicion(observation.end_ms, []) if plain is None else from_state(plain)
        if isinstance(entry, Suspicion):
            return self._suspect(entry, observation, judged)
        if observation.is_anomalous:
            return self._continue(entry, observation, judged)
        return self._calm(entry, observation, judged)

    def _observation(self, judged: JudgedRow) -> Observation:
        verdicts, row = judged.verdicts, judged.row
        features = verdicts.features
        exit_p_value = verdicts.warning_p_value * self._config.exit_factor
        return Observation(
            start_ms=int(features.window_start_ms[row]),
            end_ms=int(features.window_end_ms[row]),
            offset=int(features.first_offset[row]) if _is_record(verdicts, row) else -1,
            severity=Severity(int(verdicts.severities[row])),
            is_quiet=bool(verdicts.p_values[row] > exit_p_value),
            is_extrapolated=bool(verdicts.is_extrapolated[row]),
            score=judged.score,
        )

    def _suspect(self, suspicion: Suspicion, observation: Observation, judged: JudgedRow) -> list[Alert]:
        recent = [*suspicion.recent, observation][-self._config.of_windows :]
        suspicion = Suspicion(max(suspicion.seen_ms, observation.end_ms), recent)
        if not suspicion.anomalous:
            self.state.remove(judged.entity)
            return []
        if len(suspicion.anomalous) < self._config.min_windows:
            self._put(judged.entity, suspicion)
            return []
        incident = self._open(judged.entity, suspicion.anomalous)
        incident.last = self._sender.tell(incident, Status.OPEN, judged)
        self._put(judged.entity, incident)
        return [incident.last, *self._evict(judged.now_ms)]

    def _open(self, entity: str, anomalous: Sequence[Observation]) -> Incident:
        first, last, sender = anomalous[0], anomalous[-1], self._sender
        where = () if first.offset < 0 else (first.offset,)
        if entity.startswith(SOURCE_PREFIX):  # a source and the entity `other` may be in several partitions
            where = (*where, sender.topic, sender.partition)
        incident = Incident(
            incident_id=stable_id(sender.detector, entity, first.start_ms, *where),
            group_id=stable_id("group", sender.detector, sender.topic, sender.partition, last.end_ms),
            started_ms=first.start_ms,
            seen_ms=last.end_ms,
            told_ms=last.end_ms,
        )
        for observation in anomalous:
            incident.add_anomalous(observation)
        return incident

    def _continue(self, incident: Incident, observation: Observation, judged: JudgedRow) -> list[Alert]:
        is_rising = incident.add_anomalous(observation)
        incident.last = self._sender.tell(incident, Status.UPDATE, judged)
        is_due = is_rising or observation.end_ms - incident.told_ms >= self._config.update_interval
        if is_due:
            incident.told_ms = observation.end_ms
        self._put(judged.entity, incident)
        return [incident.last] if is_due else []

    def _calm(self, incident: Incident, observation: Observation, judged: JudgedRow) -> list[Alert]:
        incident.add_ordinary(observation)
        if incident.quiet_windows < self._config.quiet_windows:
            self._put(judged.entity, incident)
            return []
        return self._end([(judged.entity, incident)], CloseReason.RECOVERED, judged.now_ms)

    # --- ends --------------------------------------------------------------------------------

    def _expire(self, until_ms: int, now_ms: int) -> list[Alert]:
        self._clock_ms = clock_ms = max(self._clock_ms, until_ms)
        if clock_ms < self._next_due_ms:
            return []
        due_ms = {entity: seen_ms(plain) + self._config.stale_after for entity, plain in self.state.items()}
        due = sorted((at_ms, entity) for entity, at_ms in due_ms.items() if at_ms <= clock_ms)
        self._next_due_ms = min((at_ms for at_ms in due_ms.values() if at_ms > clock_ms), default=math.inf)
        return self._end(self._entries(entity for _, entity in due), CloseReason.STALE, now_ms)

    def _evict(self, now_ms: int) -> list[Alert]:
        if len(self.state) <= self._config.max_open:
            return []
        n_evicted = self._config.max_open // EVICTED_SHARE
        seen = ((seen_ms(plain), entity) for entity, plain in self.state.items())
        oldest = heapq.nsmallest(n_evicted, seen)
        return self._end(self._entries(entity for _, entity in oldest), CloseReason.EVICTED, now_ms)

    def _entries(self, entities: Iterable[str]) -> list[tuple[str, Incident | Suspicion]]:
        plain = ((entity, self.state.get(entity)) for entity in entities)
        return [(entity, from_state(found)) for entity, found in plain if found is not None]

    def _end(
        self, entries: Sequence[tuple[str, Incident | Suspicion]], reason: CloseReason, now_ms: int
    ) -> list[Alert]:
        for entity, _ in entries:
            self.state.remove(entity)
        return [tell_end(entry, reason, now_ms) for _, entry in entries if isinstance(entry, Incident)]

    def _put(self, entity: str, entry: Incident | Suspicion) -> None:
        self.state.put(entity, to_state(entry))
        self._next_due_ms = min(self._next_due_ms, entry.seen_ms + self._config.stale_after)


def _order(verdicts: VerdictBatch) -> NDArray[np.int64]:
    """Row numbers in the order that incidents follow."""
    features = verdicts.features
    if _is_record(verdicts, 0):  # single events are never late, so only their offsets are in order
        return np.argsort(features.first_offset, kind="stable").astype(np.int64)
    return np.arange(len(verdicts), dtype=np.int64)


def _is_record(verdicts: VerdictBatch, row: int) -> bool:
    return int(verdicts.features.window_end_ms[row] - verdicts.features.window_start_ms[row]) == RECORD_MS
