"""The same service and trainer over a file of events, with the in-memory twins: no Kafka, no threads.

The trainer takes its turn whenever the service has taken one, so what is learnt, and when, depends on
the events alone.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final

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
from stream_iwae.delivery import Log
from stream_iwae.learning.learner import Learner
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import Counts, ServingModel, Stages
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.trainer import Trainer

_FEED: Final = 10_000  # events that are held before the service takes its turn
_GROUP: Final = "replay"


class Replay:
    """A service, and a trainer unless the model is given, over one partition of events."""

    def __init__(
        self,
        stages: Stages,
        topics: Topics,
        settings: ServiceSettings,
        load_model: Callable[[bytes], ServingModel],
        make_learner: Callable[[], Learner],
        log: Log,
        now_ms: int,
        model: bytes | None = None,
    ) -> None:
        clock = VirtualClock(now_ms)
        self._broker = MemoryBroker(clock.now_ms)
        self._topic, self._alerts = stages.topic, topics.alerts
        for topic in (stages.topic, topics.alerts, topics.dead_letters, topics.state, topics.training):
            self._broker.create_topic(topic)
        if topics.scores is not None:
            self._broker.create_topic(topics.scores)
        shelf, telemetry = ModelShelf(), MemoryTelemetry()
        self._now_ms = now_ms
        self._trainer: Trainer | None = None
        if model is not None:
            MemoryModelStore(shelf).publish("given", model, now_ms)
        else:
            source = MemoryEventSource(self._broker, topics.training, "trainer", "one")
            self._broker.rebalance("trainer", {"one": frozenset({0})})
            self._trainer = Trainer(source, MemoryModelStore(shelf), telemetry, clock, log, make_learner)
        self._broker.rebalance(_GROUP, {"one": frozenset({0})})
        self._service = Service(
            source=MemoryEventSource(self._broker, stages.topic, _GROUP, "one"),
            sink=MemoryOutputSink(self._broker, _GROUP),
            state=MemoryStateReader(self._broker, topics.state),
            models=MemoryModelStore(shelf),
            telemetry=telemetry,
            clock=clock,
            log=log,
            load_model=load_model,
            topics=topics,
            stages=stages,
            settings=replace(settings, start="earliest", commit_interval_ms=0, idle_after_ms=0),
        )
        self._n_told = 0

    def run(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Take in messages and give out alerts, both as JSON bytes."""
        remaining = iter(lines)
        while batch := list(itertools.islice(remaining, _FEED)):
            for line in batch:
                self._broker.append(self._topic, 0, None, line, self._now_ms)
            yield from self._work_off()
        self._service.drain()
        yield from self._told()

    def _work_off(self) -> Iterator[bytes]:
        end = len(self._broker.logs[self._topic][0])
        while True:
            self._service.step()
            if self._trainer is not None:
                self._trainer.step()
            yield from self._told()
            pipeline = self._service.pipelines.get(0)
            if pipeline is not None and pipeline.position >= end:
                break
        for entry in self._broker.logs[self._topic][0][: pipeline.position]:
            entry.value = None  # read for good: a long file must not pile up

    def _told(self) -> Iterator[bytes]:
        log = self._broker.logs[self._alerts][0]
        for entry in log[self._n_told :]:
            if entry.is_visible and not entry.is_marker and entry.value is not None:
                yield entry.value
        self._n_told = len(log)

    @property
    def counts(self) -> Counts:
        """What became of the events."""
        return self._service.totals
