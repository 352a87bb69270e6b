"""What a reader of committed records finds on the topics, as values to compare."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from stream_iwae.wire import decode_scores, decode_state, decode_training


class Published(NamedTuple):
    """One record of one of our topics."""

    kind: str  # key of kafka.topics
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(slots=True)
class Effects:
    """All that replicas publish, but for times of processing."""

    windows: Counter[tuple[Any, ...]] = field(default_factory=Counter)  # (entity, end, score, p-value, severity)
    rows: Counter[tuple[Any, ...]] = field(default_factory=Counter)  # (row id, entity id, end, values, score, p-value)
    dead_letters: Counter[tuple[Any, ...]] = field(default_factory=Counter)  # (position, reason, bytes)
    alerts: Counter[tuple[str, str]] = field(default_factory=Counter)  # (alert_id, all but `detected_at`)
    states: dict[int, Any] = field(default_factory=dict)  # by partition
    n_events_in_rows: int = 0
    disorder: list[str] = field(default_factory=list)  # what comes before something older of its entity


def effects_of(published: Iterable[Published]) -> Effects:
    """Sort what was published by what it says; the order within a partition is that of the log."""
    found = Effects()
    stored: dict[int, dict[bytes, bytes]] = {}
    last: dict[tuple[str, Any], Any] = {}

    def follow(kind: str, entity: Any, end: Any) -> None:
        former = last.get((kind, entity))
        if former is not None and end < former:
            found.disorder.append(f"{kind} of {entity}: a window that ends at {end} comes after one at {former}")
        last[kind, entity] = end

    for record in published:
        if record.kind == "state":
            log = stored.setdefault(record.partition, {})
            if record.key is not None:
                log.pop(record.key, None)
                if record.value is not None:
                    log[record.key] = record.value
        elif record.value is None:
            found.disorder.append(f"a record without a value: {record}")
        elif record.kind == "alerts":
            alert = json.loads(record.value)
            del alert["detected_at"]
            found.alerts[alert["alert_id"], json.dumps(alert, sort_keys=True)] += 1
            follow("alerts", record.key, alert["window_end"])
        elif record.kind == "dead_letters":
            found.dead_letters[record.key, dict(record.headers).get("reason"), record.value] += 1
        elif record.kind == "scores":
            scores = decode_scores(record.value)
            entities = [json.dumps(entity) for entity in scores.entities]
            columns = (entities, scores.window_end_ms, scores.scores, scores.p_values, scores.severities)
            found.windows.update(zip(*columns, strict=True))
        elif record.kind == "training":
            _add_rows(found, record.value, follow)
    found.states = {
        partition: _timeless(decode_state(list(log.items()))[0]) for partition, log in sorted(stored.items())
    }
    return found


def _timeless(state: Any) -> Any:
    """Without the time of processing that an open incident remembers of its last alert."""
    if isinstance(state, dict):
        return {key: _timeless(value) for key, value in state.items() if key != "detected_at"}
    return state


def _add_rows(found: Effects, value: bytes, follow: Any) -> None:
    rows = decode_training(value)
    values = list(map(bytes, rows.values))
    ids, entities, ends = rows.row_ids.tolist(), rows.entity_ids.tolist(), rows.window_end_ms.tolist()
    scores, p_values = map(bytes, rows.scores.reshape(-1, 1)), map(bytes, rows.p_values.reshape(-1, 1))
    found.rows.update(zip(ids, entities, ends, values, scores, p_values, strict=True))
    found.n_events_in_rows += int(rows.values[:, 0].sum())  # the first feature counts events
    for entity, end in zip(entities, ends, strict=True):
        follow("training", entity, end)
