"""Composition root: Config -> adapters + pipeline -> a running service, trainer or replay."""

import gc
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Final

import torch

from stream_iwae.adapters.child_process import ChildProcess
from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.http import HttpServer
from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.adapters.kafka_permissions import (
    check_permissions,
    rekeyer_permissions,
    service_permissions,
    trainer_permissions,
)
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.adapters.kafka_topics import check_keying, ensure_rekeyed_topic, ensure_topics
from stream_iwae.adapters.log import configure_logging, get_logger
from stream_iwae.adapters.model_store import KafkaModelStore
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.adapters.stall_watchdog import StallWatchdog
from stream_iwae.config import Config
from stream_iwae.errors import ConfigurationError
from stream_iwae.features.config import needed_fields, schema
from stream_iwae.first_series import show_rekeyer_series, show_service_series, show_trainer_series
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import ServingModel, Stages
from stream_iwae.ports import Clock, Telemetry
from stream_iwae.rekey_outputs import RekeyTopics
from stream_iwae.rekeyer import Rekeyer, RekeyerSettings
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.serving import load_serving_model

_SEED: Final = 0
_REKEYER_PORT: Final = 2  # after the service's own; the trainer has the one between
_COLLECT_AFTER: Final = (100_000, 20, 20)  # new objects, and collections of each generation before the next


def stages_of(config: Config) -> Stages:
    """The configuration of every arrow of the flow."""
    is_rekeyed = config.events.rekey
    return Stages(
        detector=config.detector,
        topic=config.rekeyed_topic if is_rekeyed else config.kafka.topics.events,
        events=config.events,
        windows=config.windows,
        features=config.features,
        incidents=config.incidents,
        rekey=config.rekey if is_rekeyed else None,
    )


def topics_of(config: Config) -> Topics:
    """Where each kind of output goes."""
    topics = config.kafka.topics
    return Topics(topics.alerts, topics.dead_letters, topics.state, topics.training, topics.scores)


def settings_of(config: Config) -> ServiceSettings:
    """How the loop reads, waits and commits."""
    return ServiceSettings(
        start=config.kafka.start,
        history_ms=config.learning.warmup,
        commit_interval_ms=config.kafka.commit_interval,
        idle_after_ms=config.windows.idle_after,
        grace_ms=config.windows.grace,
        hold_until_ready=config.learning.hold_until_ready,
        hold_timeout_ms=config.learning.hold_timeout,
        min_training_windows=config.learning.min_windows,
        identity=uuid.uuid4().hex,
    )


def model_loader(config: Config, telemetry: Telemetry) -> Callable[[bytes], ServingModel]:
    """Artefact bytes -> serving model, for this configuration."""
    wanted = schema(config.features, config.events.field_types())

    def tell(device: str, chunk_rows: int) -> None:
        telemetry.count("scorer_out_of_memory", device=device)
        get_logger().warning("the GPU's memory is full, scoring goes on", device=device, chunk_rows=chunk_rows)

    return lambda blob: load_serving_model(blob, wanted, config.detection, config.model.device, tell)


def run_service(path: Path, *, with_trainer: bool, with_rekeyer: bool) -> None:
    """Run the service until SIGTERM or SIGINT, then drain it; the re-keyer where the configuration asks for one."""
    config = Config.load(path)
    configure_logging("service")
    settle_process()
    clock, log, telemetry = SystemClock(), get_logger(), PrometheusTelemetry()
    stages = stages_of(config)
    show_service_series(telemetry, stages.topic, config.events)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        check_permissions(
            config.kafka, service_permissions(config.kafka, stages.topic if stages.rekey is not None else None)
        )
        if stages.rekey is not None:
            ensure_rekeyed_topic(config.kafka, stages.rekey, stages.topic)
        source = StallWatchdog(
            lambda: open_source(config.kafka, stages.topic, config.kafka.group), clock, telemetry, log
        )
        stack.callback(source.close)
        is_keyed = config.events.keyed_by_entity or stages.rekey is not None
        check_keying(source.topic, source.n_partitions(), is_keyed=is_keyed)
        ensure_topics(config.kafka, source.n_partitions())
        stack.enter_context(_http(config, config.http.port, telemetry, clock))
        sink = open_sink(config.kafka, f"{config.kafka.group}-{config.kafka.instance}")
        stack.callback(sink.close)
        state, models = KafkaStateReader(config.kafka), KafkaModelStore(config.kafka, clock)
        stack.callback(state.close)
        stack.callback(models.close)
        beside = {"train": with_trainer, "rekey": with_rekeyer and stages.rekey is not None}
        children = [
            stack.enter_context(ChildProcess(name, path, log)) for name, is_wanted in beside.items() if is_wanted
        ]
        service = Service(
            source=source,
            sink=sink,
            state=state,
            models=models,
            telemetry=telemetry,
            clock=clock,
            log=log,
            load_model=model_loader(config, telemetry),
            topics=topics_of(config),
            stages=stages,
            settings=settings_of(config),
        )
        while not stop.is_set:
            service.step()
            for child in children:
                child.revive(clock.monotonic_s())
        service.drain()


def run_trainer(path: Path, child_of: int | None = None) -> None:
    """Run the trainer until SIGTERM or SIGINT, or until the service that started it is gone."""
    # Here, as the service learns nothing: scipy.stats and river are 50 MB that it need not hold.
    from stream_iwae.learning.tuner import make_learner  # noqa: PLC0415
    from stream_iwae.trainer import Trainer  # noqa: PLC0415

    config = Config.load(path)
    configure_logging("trainer")
    settle_process()
    clock, log, telemetry = SystemClock(), get_logger(), PrometheusTelemetry()
    show_trainer_series(telemetry)
    wanted = schema(config.features, config.events.field_types())
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        check_permissions(config.kafka, trainer_permissions(config.kafka))
        source = open_source(config.kafka, config.kafka.topics.training, f"{config.kafka.group}-trainer")
        stack.callback(source.close)  # a client that is left open may keep the process from ending
        sink = open_sink(config.kafka, f"{config.kafka.group}-{config.kafka.instance}-trainer")
        store = KafkaModelStore(config.kafka, clock, sink)
        stack.callback(store.close)
        port = config.http.port + 1 if config.http.port else 0
        stack.enter_context(_http(config, port, telemetry, clock))
        trainer = Trainer(
            source=source,
            store=store,
            telemetry=telemetry,
            clock=clock,
            log=log,
            make_learner=lambda: make_learner(config.learning, config.model, config.detection, wanted, _SEED),
        )
        trainer.run(lambda: stop.is_set or _is_orphan(child_of))


def run_rekeyer(path: Path, child_of: int | None = None) -> None:
    """Run the re-keyer until SIGTERM or SIGINT, or until the service that started it is gone."""
    config = Config.load(path)
    configure_logging("rekeyer")
    settle_process()
    clock, log, telemetry = SystemClock(), get_logger(), PrometheusTelemetry()
    events_topic = config.kafka.topics.events
    if not config.events.rekey:
        raise ConfigurationError("events.rekey", False, "nothing is to be re-keyed; set it to true")
    show_rekeyer_series(telemetry, events_topic, config.events)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        check_permissions(config.kafka, rekeyer_permissions(config.kafka, config.rekeyed_topic))
        n_targets = ensure_rekeyed_topic(config.kafka, config.rekey, config.rekeyed_topic)
        ensure_topics(config.kafka, n_targets, keys={"dead_letters"})
        source = open_source(config.kafka, events_topic, f"{config.kafka.group}-rekeyer")
        stack.callback(source.close)
        sink = open_sink(config.kafka, f"{config.kafka.group}-{config.kafka.instance}-rekeyer")
        stack.callback(sink.close)
        port = config.http.port + _REKEYER_PORT if config.http.port else 0
        stack.enter_context(_http(config, port, telemetry, clock))
        rekeyer = Rekeyer(
            source=source,
            sink=sink,
            telemetry=telemetry,
            clock=clock,
            log=log,
            events=config.events,
            needed=needed_fields(config.features),
            topics=RekeyTopics(events_topic, config.rekeyed_topic, n_targets, config.kafka.topics.dead_letters),
            rekey=config.rekey,
            settings=RekeyerSettings(
                start=config.kafka.start,
                history_ms=config.learning.warmup,
                max_message_bytes=config.kafka.max_message,
                identity=uuid.uuid4().hex,
            ),
        )
        rekeyer.run(lambda: stop.is_set or _is_orphan(child_of))


def _is_orphan(child_of: int | None) -> bool:
    return child_of is not None and os.getppid() != child_of


def run_replay(path: Path, file: Path, alerts: Path | None, model: Path | None) -> None:
    """Replay a file of events and write the alerts, one JSON object a line.

    Raises:
        ConfigurationError: A file cannot be read.
    """
    from stream_iwae.learning.tuner import make_learner  # noqa: PLC0415  # as in `run_trainer`
    from stream_iwae.replay import Replay  # noqa: PLC0415

    config = Config.load(path)
    configure_logging("replay")
    settle_process()
    wanted = schema(config.features, config.events.field_types())
    try:
        given = model.read_bytes() if model is not None else None
        events = sys.stdin.buffer if str(file) == "-" else file.open("rb")
    except OSError as error:
        raise ConfigurationError("FILE", error.filename, f"cannot be read: {error.strerror}") from error
    replay = Replay(
        # One partition: there is nothing to re-key.
        stages=replace(stages_of(config), topic=config.kafka.topics.events, rekey=None),
        topics=topics_of(config),
        settings=settings_of(config),
        load_model=model_loader(config, PrometheusTelemetry()),
        make_learner=lambda: make_learner(config.learning, config.model, config.detection, wanted, _SEED),
        log=get_logger(),
        now_ms=SystemClock().now_ms(),
        model=given,
    )
    with ExitStack() as stack:
        stack.enter_context(events)
        out = stack.enter_context(alerts.open("wb")) if alerts is not None else sys.stdout.buffer
        for alert in replay.run(events):
            out.write(alert + b"\n")
        out.flush()
    counts = replay.counts
    get_logger().info(
        "replayed",
        consumed=counts.consumed,
        aggregated=counts.aggregated,
        late=counts.late,
        rejected=counts.rejected.total(),
        skipped=counts.skipped.total(),
        windows=counts.windows,
        scored=counts.scored,
    )


def open_model_store(path: Path) -> KafkaModelStore:
    """The model store of a configuration, to read from."""
    return KafkaModelStore(Config.load(path).kafka, SystemClock())


class StopFlag:
    """Whether a signal asked us to stop."""

    def __init__(self) -> None:
        self.is_set = False

    def __call__(self, number: int, _: FrameType | None) -> None:
        """The first signal asks; the second leaves at once."""
        if self.is_set:
            os._exit(128 + number)
        self.is_set = True


@contextmanager
def stop_signal() -> Iterator[StopFlag]:
    """SIGTERM and SIGINT set a flag instead of ending the process."""
    flag = StopFlag()
    former = {number: signal.signal(number, flag) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield flag
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def _http(config: Config, port: int, telemetry: PrometheusTelemetry, clock: Clock) -> Iterator[None]:
    if not config.http.enabled:
        yield
        return
    server = HttpServer(telemetry, clock, config.http, port)
    if config.http.is_open:
        get_logger().warning("http is open to all who reach this address; set http.token_file", host=config.http.host)
    get_logger().info("http listens", host=config.http.host, port=server.start())
    try:
        yield
    finally:
        server.stop()


def settle_process() -> None:
    """One thread for torch, and a garbage collector that leaves alone what was imported and looks seldom.

    Each record read makes objects, which would set off a search of all that is alive: a third of the service's time.
    What is dropped without a cycle, as batches are, is freed at once all the same.
    """
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
