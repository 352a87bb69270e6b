"""The kinds of processes that live in the world; each is made anew after a crash, with empty hands.

A further kind needs a `member`, a `group` and what `Process` asks for, and a place in `World.slots`.
"""

from collections.abc import Callable
from typing import Final, Protocol

from stream_iwae import outputs
from stream_iwae import service as service_module
from stream_iwae.features.config import needed_fields
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import Pipeline
from stream_iwae.rekey_outputs import RekeyTopics
from stream_iwae.rekeyer import Rekeyer, RekeyerSettings
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.trainer import Trainer
from stream_iwae.wire import encode_scores, encode_training
from tests.simulation.logs import PARTITIONS, START_MS
from tests.simulation.memo import RememberedPipeline
from tests.simulation.models import CountingLearner, load_model
from tests.simulation.ports import Log, ModelTopic, Sink, Source, StateReader, Tally

GROUP: Final = "g"
TRAINERS: Final = "g-trainer"
REKEYERS: Final = "g-rekeyer"
TOPICS: Final = Topics("alerts", "dead-letters", "state", "training", "scores")
IDLE_AFTER_MS: Final = 3_000


def anywhere(_: int) -> None:
    """A poll may end anywhere."""


class Process(Protocol):
    """One process, from its start to its end."""

    member: str
    group: str

    def turn(self) -> None:
        """One turn of its loop."""

    def stop(self) -> list[str]:
        """What SIGTERM makes of it; returns what is not in order then."""


class ServiceProcess:
    """The service with its pipelines."""

    group = GROUP

    def __init__(self, world, member: str) -> None:
        self.member, self._world = member, world
        group, windows = world.schedule.group, world.schedule.windows
        is_hold = windows == "hold"
        settings = ServiceSettings(
            start="history" if is_hold or windows == "full history" else "earliest",
            history_ms=10**12,
            commit_interval_ms=0 if world.rng.random() < 0.5 else 5_000,
            idle_after_ms=IDLE_AFTER_MS if group.is_idle else 0,
            hold_until_ready=is_hold,
            hold_timeout_ms=8_000,
            min_training_windows=3,
            identity=world.new_identity(),
        )
        self.source = Source(world, world.scored, GROUP, member, anywhere if world.is_rekeyed else world.cuts)
        self.transactional_id = f"{GROUP}-{member}"
        self.service = Service(
            source=self.source,
            sink=Sink(world, self.transactional_id),
            state=StateReader(world, "state"),
            models=ModelTopic(world),
            telemetry=Tally(world.counts),
            clock=world.clock,
            log=Log(world),
            load_model=load_model,
            topics=TOPICS,
            stages=world.stages,
            settings=settings,
        )
        self._encoders = world.memo.encoding(encode_training), world.memo.encoding(encode_scores)
        world.totals.append(self.service.totals)

    def turn(self) -> None:
        self._work(self.service.step)

    def stop(self) -> list[str]:
        self._work(self.service.drain)
        self.service.close()
        return self._left_open()

    def _work(self, step: Callable[[], None]) -> None:
        """With pipelines of the world's; `mock.patch` takes longer than many a step."""
        honest = service_module.Pipeline, outputs.encode_training, outputs.encode_scores
        service_module.Pipeline = self._pipeline
        if self._world.schedule.group.is_remembered:
            outputs.encode_training, outputs.encode_scores = self._encoders
        try:
            step()
        finally:
            service_module.Pipeline, outputs.encode_training, outputs.encode_scores = honest

    def _left_open(self) -> list[str]:
        found = []
        if self.transactional_id in self._world.broker.open:
            found.append(f"{self.member} left a transaction open")
        committed = self._world.positions()
        for partition, pipeline in self.service.pipelines.items():
            if not pipeline.is_replaying and committed.get(partition, 0) < pipeline.position:
                found.append(f"{self.member} scored partition {partition} up to {pipeline.position} and left it so")
        return found

    def _pipeline(self, stages, partition, on_unscored) -> "RememberedPipeline | WatchedPipeline":
        world = self._world
        if not world.schedule.group.is_remembered:
            return WatchedPipeline(world, self.source, stages, partition, on_unscored)
        return RememberedPipeline(
            world.memo,
            world.log_key,
            stages,
            partition,
            on_unscored,
            lambda *given: world.restored(self.source.group_token(), *given),
            lambda: world.effect("chunk"),
        )


class WatchedPipeline(Pipeline):
    """The pipeline itself, whose chunks and restarts the world notices."""

    def __init__(self, world, source, stages, partition, on_unscored) -> None:
        super().__init__(stages, partition, on_unscored)
        self._world, self._source = world, source

    def process(self, records, model, now_ms, on_chunk) -> None:
        def chunk() -> None:
            self._world.effect("chunk")
            on_chunk()

        super().process(records, model, START_MS, chunk)

    def advance(self, watermark_ms, model, now_ms, on_chunk) -> None:
        super().advance(watermark_ms, model, START_MS, on_chunk)

    def restore(self, metadata, state) -> None:
        self._world.restored(self._source.group_token(), self.partition, metadata, state)
        super().restore(metadata, state)


class RekeyerProcess:
    """The re-keyer: events of any partition in, batches for the partitions of their entities out."""

    group = REKEYERS

    def __init__(self, world, member: str) -> None:
        self.member, self._world = member, world
        self.transactional_id = f"{GROUP}-{member}-rekeyer"
        interval_ms = 0 if world.rng.random() < 0.5 else 3_000
        self.rekeyer = Rekeyer(
            source=Source(world, "events", REKEYERS, member, world.cuts),
            sink=Sink(world, self.transactional_id),
            telemetry=Tally(world.counts),
            clock=world.clock,
            log=Log(world),
            events=world.stages.events,
            needed=needed_fields(world.stages.features),
            topics=RekeyTopics("events", world.scored, len(PARTITIONS), TOPICS.dead_letters),
            rekey=world.stages.rekey.model_copy(update={"commit_interval": interval_ms}),
            settings=RekeyerSettings(start="earliest", identity=world.new_identity()),
        )
        world.rekeyer_totals.append(self.rekeyer.totals)

    def turn(self) -> None:
        self.rekeyer.step()

    def stop(self) -> list[str]:
        self.rekeyer.run(lambda: True)
        found = []
        if self.transactional_id in self._world.broker.open:
            found.append(f"{self.member} left a transaction open")
        committed = self._world.source_positions()
        for number, partition in self.rekeyer.partitions.items():
            if committed.get(number, 0) < partition.position:
                found.append(f"{self.member} read source {number} up to {partition.position} and left it so")
        return found


class TrainerProcess:
    """The trainer, with a learner that anyone can check by hand."""

    group = TRAINERS

    def __init__(self, world, member: str) -> None:
        self.member, self._world = member, world
        self.transactional_id = f"{GROUP}-{member}-trainer"
        self.trainer = Trainer(
            source=Source(world, "training", TRAINERS, member, anywhere),
            store=ModelTopic(world, Sink(world, self.transactional_id)),
            telemetry=Tally(world.counts),
            clock=world.clock,
            log=Log(world),
            make_learner=lambda: WatchedLearner(world),
        )

    def turn(self) -> None:
        self.trainer.step()

    def stop(self) -> list[str]:
        self.trainer.close()
        return [f"{self.member} left a transaction open"] if self.transactional_id in self._world.broker.open else []


class WatchedLearner(CountingLearner):
    """A training takes its steps in the world."""

    def __init__(self, world) -> None:
        super().__init__()
        self._world = world

    def step(self, tick):
        def watched_tick():
            self._world.effect("tick")
            tick()

        outcome = super().step(watched_tick)
        self._world.effect("trained")
        return outcome
