import json
from dataclasses import dataclass
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from stream_iwae.batches import Direction, FeatureBatch, FeatureSchema, Finding, Kind, ScoreBatch, VerdictBatch
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.incidents.tracker import IncidentTracker

SCHEMAS = Path(__file__).parents[2] / "deploy" / "schemas"
MINUTE = 60_000
WARNING_P = 1e-3
SCHEMA = FeatureSchema(("dst_ports", "bytes"), (Kind.COUNT, Kind.MAGNITUDE), ("", "B"))
SEVERITIES = {"u": -1, ".": 0, "-": 0, "w": 1, "m": 2, "c": 3}
P_VALUES = {"u": np.nan, ".": 0.5, "-": 5e-3, "w": 5e-4, "m": 5e-5, "c": 5e-6}
FINDING = Finding("dst_ports", 812.0, 3.0, 1.0, 9.0, 7.5, "above", "", False)


@dataclass(frozen=True)
class Row:
    """One judged window. Kinds: u unscorable, . quiet, - neither, w warning, m major, c critical."""

    kind: str
    minute: int = 0
    entity: str = "a"
    offset: int = 0
    time_ms: int | None = None  # of a single event
    is_empty: bool = False
    silence_p: float = np.nan

    @property
    def start_ms(self):
        return self.minute * MINUTE if self.time_ms is None else self.time_ms

    @property
    def end_ms(self):
        return self.start_ms + (MINUTE if self.time_ms is None else 1)


def verdict_batch(rows, *, is_extrapolated=False):
    """Rows as a VerdictBatch, sorted as the windows come."""
    rows = sorted(rows, key=lambda row: (row.end_ms, row.entity, row.offset))
    n = len(rows)
    anomalous = {i for i, row in enumerate(rows) if SEVERITIES[row.kind] > 0}
    offsets = np.array([-1 if row.is_empty else row.offset for row in rows], np.int64)
    features = FeatureBatch(
        schema=SCHEMA,
        values=np.array([[0.0 if row.is_empty else 812.0, np.nan] for row in rows]).reshape(n, 2),
        entities=[row.entity for row in rows],
        window_start_ms=np.array([row.start_ms for row in rows], np.int64),
        window_end_ms=np.array([row.end_ms for row in rows], np.int64),
        n_events=np.array([0 if row.is_empty else 7 for row in rows], np.int64),
        first_offset=offsets,
        last_offset=offsets,
        silence_p_values=np.array([row.silence_p for row in rows], np.float64),
    )
    p_values = np.array([P_VALUES[row.kind] for row in rows], np.float64)
    scores = np.where(np.isnan(p_values), np.nan, -np.log(p_values))
    return VerdictBatch(
        features=features,
        scores=ScoreBatch("m:1", scores, np.full(n, 0.1), np.full(n, 4.0), np.zeros(n)),
        p_values=p_values,
        severities=np.array([SEVERITIES[row.kind] for row in rows], np.int8),
        directions=tuple(Direction.LOW if row.is_empty else Direction.HIGH for row in rows),
        is_low=np.zeros(n, np.bool_),
        thresholds_nats=np.full(n, -np.log(WARNING_P)),
        is_extrapolated=np.full(n, is_extrapolated),
        findings=dict.fromkeys(sorted(anomalous), (FINDING,)),
        warning_p_value=WARNING_P,
    )


class Driver:
    """A tracker, the alerts it gave, and a wall clock that does not matter."""

    def __init__(self, entity_names=("src",), partition=0, **config):
        self.config = IncidentsConfig(**config)
        self.tracker = IncidentTracker(self.config, "flows", entity_names, "events", partition)
        self.alerts = []

    def track(self, *rows, now_ms=0, **verdicts):
        """Feed rows as one batch; the alerts they gave."""
        return self._keep(self.tracker.track(verdict_batch(rows, **verdicts), now_ms))

    def minutes(self, kinds, entity="a", first=0, **verdicts):
        """Feed one window a minute, each a batch of its own."""
        rows = [
            Row(kind, minute, entity, offset=minute) for minute, kind in enumerate(kinds, start=first) if kind != " "
        ]
        return [alert for row in rows for alert in self.track(row, **verdicts)]

    def expire(self, minute):
        return self._keep(self.tracker.expire(minute * MINUTE, 0))

    def _keep(self, alerts):
        self.alerts += alerts
        return alerts


def told(alerts):
    """The alerts as status, minute of the window's end and severity."""
    return [
        (alert.status, int(alert.window_end[14:16]) + 60 * int(alert.window_end[11:13]), alert.severity)
        for alert in alerts
    ]


@pytest.fixture(scope="session")
def row():
    return Row


@pytest.fixture(scope="session")
def make_driver():
    return Driver


@pytest.fixture(scope="session")
def summary():
    return told


@pytest.fixture(scope="session")
def load_schema():
    def load(name):
        schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())

    return load


@pytest.fixture
def driver(make_driver, load_schema):
    """With the default configuration; whatever it publishes is valid."""
    driving = make_driver()
    yield driving
    for alert in driving.alerts:
        load_schema("alert").validate(json.loads(alert.encode()))
