"""Re-keyers and replicas of the service on one in-memory broker. Faults: tests/simulation."""

import json
from collections import Counter
from dataclasses import replace

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
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import FeaturesConfig, needed_fields
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import ServingModel, Stages
from stream_iwae.rekey.batch import decode_events, decode_header
from stream_iwae.rekey.config import RekeyConfig
from stream_iwae.rekey.progress import events_digest
from stream_iwae.rekey.reader import RekeyedReader
from stream_iwae.rekey_outputs import RekeyTopics
from stream_iwae.rekeyer import Rekeyer, RekeyerSettings
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.wire import decode_scores

START_MS = 1_700_000_000_000
TOPICS = Topics("alerts", "dead-letters", "state", "training", "scores")
MEMBERS = ("a", "b")


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


def the_stages(rekey=True, idle_after="30s", forget_after="10m", **windows):
    fields = {"src": {"path": "src", "type": "text"}, "bytes": {"path": "bytes"}}
    events = {"time": [{"field": "ts", "format": "epoch_ms"}], "fields": fields, "entity": ["src"], "rekey": rekey}
    settings = {"idle_after": idle_after, "forget_after": forget_after, "commit_interval": "0"}
    return Stages(
        detector="simulated",
        topic="rekeyed" if rekey else "events",
        events=EventsConfig.model_validate(events),
        windows=WindowsConfig.model_validate({"size": "10s", "grace": "3s", "present_history": 2, **windows}),
        features=FeaturesConfig.model_validate(
            [
                {"name": "flows", "aggregate": "count"},
                {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": True},
            ]
        ),
        incidents=IncidentsConfig.model_validate({"quiet_windows": 1, "stale_after": "60s"}),
        rekey=RekeyConfig.model_validate(settings) if rekey else None,
    )


def event(at_ms, src, n_bytes=100):
    return {"ts": at_ms, "src": src, "bytes": n_bytes}


def scattered(rng, n_events, n_sources, disorder=(0, 0, 1000), garbage=0.05):
    """The messages of a topic that nobody keyed: in order, and how they fell on its partitions.

    Each partition is in order but for `disorder`, and ends with an event far ahead, which closes all windows.
    """
    at_ms, whole, logs = START_MS, [], [[] for _ in range(n_sources)]
    entities = [f"h{rng.randrange(100)}" for _ in range(5)]
    for _ in range(n_events):
        at_ms += rng.choice([0, 200, 800, 2500, 9000])
        entity = rng.choice(entities)
        roll = rng.random()
        if roll < garbage:
            value = rng.choice([b'{"ts": broken', b"17", None])
        elif roll < garbage + 0.08:
            burst = [event(at_ms + i, entity, rng.randrange(100)) for i in range(rng.randrange(12, 30))]
            value = json.dumps(burst).encode()
        else:
            value = json.dumps(event(at_ms - rng.choice(disorder), entity, rng.randrange(100))).encode()
        whole.append(value)
        rng.choice(logs).append(value)
    last = [json.dumps(event(at_ms + 600_000 + 20_000 * i, "end")).encode() for i in range(2)]
    return whole + last, [log + last for log in logs]


class QuietLog:
    def info(self, event, **fields):
        """Nobody reads it."""

    warning = error = info


class RekeyWorld:
    """A broker with the logs on the partitions of `events`, re-keyers and replicas of the service."""

    def __init__(self, logs, stages, n_targets=2, rng=None, start="earliest", most=25):
        self.clock = VirtualClock(START_MS + 10**9)
        self.broker = MemoryBroker(self.clock.now_ms)
        self.broker.on_wait = self._wait
        self.stages, self.n_targets, self.rng = stages, n_targets, rng
        self.n_sources = len(logs)
        self.broker.create_topic("events", self.n_sources)
        self.scored = stages.topic
        n_scored = n_targets if stages.rekey else self.n_sources
        for topic in {"rekeyed", *("alerts", "dead-letters", "state", "scores")}:
            self.broker.create_topic(topic, n_scored)
        self.broker.create_topic("training", 1)
        for partition, log in enumerate(logs):
            self.feed(partition, log)
        self.start, self.most = start, most
        self.settings = ServiceSettings(start=start, history_ms=10**12, commit_interval_ms=0, hold_until_ready=False)
        self.shelf = ModelShelf()
        MemoryModelStore(self.shelf).publish("pinned", b"", 0)
        self.services, self.rekeyers, self.telemetry = {}, {}, {}

    def _wait(self, duration_ms):
        """For a transaction that a crash has left open."""
        self.clock.advance(max(0, duration_ms))
        self.broker.abort_expired()

    def feed(self, partition, values):
        for value in values:
            self.broker.append("events", partition, None, value, self.clock.now_ms())

    def _cut(self):
        return 10_000 if self.rng is None else self.rng.randrange(1, self.most)

    def start_rekeyer(self, member):
        self.telemetry[member] = MemoryTelemetry()
        self.rekeyers[member] = Rekeyer(
            source=MemoryEventSource(self.broker, "events", "g-rekeyer", member, self._cut),
            sink=MemoryOutputSink(self.broker, f"g-{member}-rekeyer"),
            telemetry=self.telemetry[member],
            clock=self.clock,
            log=QuietLog(),
            events=self.stages.events,
            needed=needed_fields(self.stages.features),
            topics=RekeyTopics("events", "rekeyed", self.n_targets, "dead-letters"),
            rekey=self.stages.rekey,
            settings=RekeyerSettings(start=self.start, history_ms=10**12),
        )

    def start_service(self, member):
        self.services[member] = Service(
            source=MemoryEventSource(self.broker, self.scored, "g", member, self._cut),
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

    # --- running -----------------------------------------------------------------------------

    def assign(self, group, n_partitions, owner_of):
        owners = {p: owner_of(p) for p in range(n_partitions)}
        self.broker.rebalance(group, {m: frozenset(p for p, o in owners.items() if o == m) for m in MEMBERS})

    def run(self):
        """Until everything is done."""
        n_scored = len(self.broker.logs[self.scored])
        if self.stages.rekey:
            self.assign("g-rekeyer", self.n_sources, lambda p: MEMBERS[p % 2])
            for member in MEMBERS:
                self.start_rekeyer(member)
            self.drive(self.rekeyers, "events")
        self.assign("g", n_scored, lambda p: MEMBERS[p % 2])
        for member in MEMBERS:
            self.start_service(member)
        self.drive(self.services, self.scored)
        for service in self.services.values():
            service.drain()
            assert service.totals.is_balanced
        return self

    def drive(self, processes, topic, turns=400):
        """Step until every partition of the topic is done; time goes on as it does."""
        ends = {partition: len(log) for partition, log in enumerate(self.broker.logs[topic])}
        for _ in range(turns):
            self.clock.advance(10)
            for process in processes.values():
                process.step()
            owned = [vars(process).get("partitions", vars(process).get("pipelines")) for process in processes.values()]
            if {p: at.position for each in owned for p, at in each.items()} == ends:
                break
        else:
            raise AssertionError(f"a partition of {topic} stalled: {ends}")
        for process in processes.values():
            process.commit()

    # --- what a read_committed reader finds --------------------------------------------------

    def schema(self):
        return Decoder(self.stages.events, needed_fields(self.stages.features)).schema

    def forwarded(self):
        """(time, entity, bytes) of all events on the re-keyed topic, and the partitions of each entity."""
        reader = RekeyedReader(self.schema(), events_digest(self.stages.events, needed_fields(self.stages.features)), 1)
        events, places = Counter(), {}
        for partition, _, entry in self.broker.committed_records("rekeyed"):
            frame = decode_events(entry.value, decode_header(entry.value), reader._stored)
            events.update(zip(frame["timestamp_ms"], frame["entity"], frame["bytes"], strict=True))
            for entity in frame["entity"]:
                places.setdefault(entity, set()).add(partition)
        return events, places

    def windows(self):
        found = Counter()
        for _, _, entry in self.broker.committed_records("scores"):
            record = decode_scores(entry.value)
            found.update(zip(map(json.dumps, record.entities), record.window_end_ms, record.scores, strict=True))
        return found

    def alerts(self):
        found = []
        for _, _, entry in self.broker.committed_records("alerts"):
            alert = json.loads(entry.value)
            for name in ("detected_at", "origin", "group_id"):  # a group lies within one partition
                del alert[name]
            found.append(json.dumps(alert, sort_keys=True))
        return Counter(found)


def direct(whole, stages):
    """An undisturbed run over the same messages in one partition, keyed by nature."""
    events = stages.events.model_copy(update={"rekey": False})
    return RekeyWorld([whole], replace(stages, topic="events", events=events, rekey=None)).run()
