import itertools
import json
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from stream_iwae.adapters.memory import (
    MemoryEventSource,
    MemoryModelStore,
    MemoryOutputSink,
    MemoryStateReader,
    MemoryTelemetry,
    ModelShelf,
    VirtualClock,
)
from stream_iwae.adapters.memory_broker import MemoryBroker
from stream_iwae.batches import Explanations, ScoreBatch
from stream_iwae.detection.calibration import Calibration
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.detection.judge import Judge
from stream_iwae.errors import AmbiguousCommitError
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import ServingModel, Stages
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.wire import decode_scores, decode_training

START_MS = 1_700_000_000_000
TOPICS = Topics("alerts", "dead-letters", "state", "training", "scores")
MEMBERS = ("a", "b")


SURGE = {"name": "surge", "aggregate": "surge", "field": "src", "past_windows": 20}


class SimulatedCrashError(Exception):
    """The process ends here."""


class CountingScorer:
    """A model anyone can check by hand: the score is the number of flows."""

    def score(self, values, on_chunk):
        n = len(values)
        on_chunk()
        return ScoreBatch("pinned", values[:, 0].copy(), np.zeros(n), np.ones(n), values[:, 0].copy())

    def explain(self, values):
        return Explanations(values.copy(), values * 0, values * 0, values * 0 + 1, {})


def the_model():
    normal = np.random.default_rng(7).exponential(1.0, 4000)
    judge = Judge(Calibration.fit(normal, windows_per_day=1000.0), DetectionConfig(budget="5/day"))
    return ServingModel("pinned", "any", CountingScorer(), judge)


MODEL = the_model()


def the_stages(profiles=True, **windows):
    fields = {
        "src": {"path": "src", "type": "text"},
        "bytes": {"path": "bytes"},
        "octets": {"path": "octets", "counter": "cumulative"},
    }
    events = {"time": [{"field": "ts", "format": "epoch_ms"}], "fields": fields, "entity": ["src"]}
    return Stages(
        detector="simulated",
        topic="events",
        events=EventsConfig.model_validate(events),
        windows=WindowsConfig.model_validate({"size": "10s", "grace": "3s", "present_history": 2, **windows}),
        features=FeaturesConfig.model_validate(
            [
                {"name": "flows", "aggregate": "count"},
                {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": profiles},
                {"name": "octets", "aggregate": "sum", "field": "octets", "kind": "gauge", "recent": profiles},
                *([] if windows.get("kind") == "record" else [SURGE]),
            ]
        ),
        incidents=IncidentsConfig.model_validate({"quiet_windows": 1, "stale_after": "60s"}),
    )


def a_log(rng, n_events):
    """Messages of one partition: disorder, late events, bursts, silence, garbage, tombstones, counters."""
    at_ms, counters, out = START_MS, Counter(), []
    entities = [f"h{rng.randrange(100)}" for _ in range(3)]
    for _ in range(n_events):
        at_ms += rng.choice([0, 200, 800, 2500, 9000])
        entity = rng.choice(entities)
        counters[entity] += rng.randrange(50)
        event = {"ts": at_ms - rng.choice([0, 0, 1000, 4000, 15000]), "src": entity, "bytes": rng.randrange(100)}
        event["octets"] = counters[entity]
        roll = rng.random()
        if roll < 0.04:
            out.append(b'{"ts": broken')
        elif roll < 0.06:
            out.append(None)
        elif roll < 0.12:
            n_burst = rng.randrange(12, 30)
            burst = [{**event, "ts": event["ts"] + i, "octets": counters[entity] + i} for i in range(n_burst)]
            counters[entity] += 30
            out.append(json.dumps(burst).encode())
        else:
            out.append(json.dumps(event).encode())
    return out


@dataclass
class Effects:
    """What a read_committed reader finds in the end."""

    alerts: dict = field(default_factory=dict)
    n_alerts: int = 0
    windows: Counter = field(default_factory=Counter)
    dead_letters: Counter = field(default_factory=Counter)
    training: Counter = field(default_factory=Counter)

    def differences(self, other):
        """Names of the effects that differ; an alert read twice is a difference."""
        names = ("alerts", "windows", "dead_letters", "training")
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        return found + ["repeated alerts"] * (other.n_alerts != len(other.alerts))


class QuietLog:
    def info(self, event, **fields):
        """Nobody reads it."""

    warning = error = info


class World:
    """A broker with a log on two partitions, and replicas of the service that come and go."""

    def __init__(self, logs, stages, rng=None, faults=0.0, history=False):
        self.clock = VirtualClock(START_MS + 10**9)
        self.broker = MemoryBroker(self.clock.now_ms)
        for topic in ("events", "alerts", "dead-letters", "state", "scores"):
            self.broker.create_topic(topic, 2)
        self.broker.create_topic("training", 1)
        for partition, log in enumerate(logs):
            for value in log:
                self.broker.append("events", partition, None, value, self.clock.now_ms())
        self.stages, self.rng, self.faults = stages, rng, faults
        self.settings = ServiceSettings(
            start="history" if history else "earliest", history_ms=10**12, commit_interval_ms=0, hold_until_ready=False
        )
        self.shelf = ModelShelf()
        MemoryModelStore(self.shelf).publish("pinned", b"", 0)
        self.services = {}
        self.n_faults = 0

    def start(self, member):
        cut = (lambda: 10_000) if self.rng is None else (lambda: self.rng.randrange(1, 25))
        self.services[member] = Service(
            source=MemoryEventSource(self.broker, "events", "g", member, cut),
            sink=MemoryOutputSink(self.broker, f"g-{member}"),
            state=MemoryStateReader(self.broker, "state"),
            models=MemoryModelStore(self.shelf),
            telemetry=MemoryTelemetry(),
            clock=self.clock,
            log=QuietLog(),
            load_model=lambda _: MODEL,
            topics=TOPICS,
            stages=self.stages,
            settings=self.settings,
        )

    def run(self):
        self.broker.rebalance("g", {"a": frozenset({0, 1})})
        self.broker.before_effect = self._maybe_fail
        if self.rng is not None:
            for _ in range(20):
                self._turn()
        self.broker.before_effect = lambda _: None
        self.broker.rebalance("g", {"a": frozenset({0}), "b": frozenset({1})})
        for member in MEMBERS:
            self.start(member)
        ends = {partition: len(log) for partition, log in enumerate(self.broker.logs["events"])}
        done = {}
        for _ in itertools.repeat(None, 400):
            for service in self.services.values():
                service.step()
            done = {p: pipeline.position for s in self.services.values() for p, pipeline in s.pipelines.items()}
            if done == ends:
                break
        assert done == ends, "a partition stalled"
        for service in self.services.values():
            service.drain()
            assert service.totals.is_balanced
        return self.effects()

    def _turn(self):
        self.clock.advance(100)
        if self.rng.random() < 0.15:
            owner = {p: self.rng.choice(MEMBERS) for p in (0, 1)}
            self.broker.rebalance("g", {m: frozenset(p for p in (0, 1) if owner[p] == m) for m in MEMBERS})
        member = self.rng.choice(MEMBERS)
        try:
            if member not in self.services:
                self.start(member)
            self.services[member].step()
        except SimulatedCrashError:
            # It comes back under its own name, with empty hands.
            self.services.pop(member, None)
            self.broker.rebalance("g", self.broker.group("g").assignment)

    def _maybe_fail(self, effect):
        if self.rng is None or self.rng.random() >= self.faults:
            return
        self.n_faults += 1
        if effect in {"commit", "committed"} and self.rng.random() < 0.5:
            raise AmbiguousCommitError(f"no answer before {effect!r}")
        raise SimulatedCrashError(effect)

    def effects(self):
        out = Effects()
        for _, _, entry in self.broker.committed_records("alerts"):
            alert = json.loads(entry.value)
            alert.pop("detected_at")
            out.alerts[alert["alert_id"]] = alert
            out.n_alerts += 1
        for _, _, entry in self.broker.committed_records("scores"):
            record = decode_scores(entry.value)
            for entity, end, score in zip(record.entities, record.window_end_ms, record.scores, strict=True):
                out.windows[json.dumps(entity), end, score] += 1
        for _, _, entry in self.broker.committed_records("dead-letters"):
            out.dead_letters[entry.key] += 1
        for _, _, entry in self.broker.committed_records("training"):
            rows = decode_training(entry.value)
            out.training.update(zip(rows.row_ids.tolist(), map(bytes, rows.values), strict=True))
            out.training["end of history"] += rows.history_ended
        return out
