"""Composition root: Config -> adapters + pipeline -> a running service, trainer or replay."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final, Self

import torch

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.http import HttpServer
from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.adapters.kafka_topics import check_keying, ensure_topics
from stream_iwae.adapters.log import configure_logging, get_logger
from stream_iwae.adapters.model_store import KafkaModelStore
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.adapters.stall_watchdog import StallWatchdog
from stream_iwae.config import Config
from stream_iwae.errors import ConfigurationError
from stream_iwae.features.config import schema
from stream_iwae.first_series import show_service_series, show_trainer_series
from stream_iwae.learning.tuner import make_learner
from stream_iwae.outputs import Topics
from stream_iwae.pipeline import ServingModel, Stages
from stream_iwae.ports import Clock, Telemetry
from stream_iwae.replay import Replay
from stream_iwae.service import Service, ServiceSettings
from stream_iwae.serving import load_serving_model
from stream_iwae.trainer import Trainer

_TRAINER_WAITS_S: Final = (1.0, 5.0, 30.0, 60.0)  # before a dead trainer is started again
_TRAINER_STOP_S: Final = 10.0
_SEED: Final = 0
_COLLECT_AFTER: Final = (100_000, 20, 20)  # new objects, and collections of each generation before the next


def stages_of(config: Config) -> Stages:
    """The configuration of every arrow of the flow."""
    return Stages(
        detector=config.detector,
        topic=config.kafka.topics.events,
        events=config.events,
        windows=config.windows,
        features=config.features,
        incidents=config.incidents,
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
    )


def model_loader(config: Config, telemetry: Telemetry) -> Callable[[bytes], ServingModel]:
    """Artefact bytes -> serving model, for this configuration."""
    wanted = schema(config.features, config.events.field_types())

    def tell(device: str, chunk_rows: int) -> None:
        telemetry.count("scorer_out_of_memory", device=device)
        get_logger().warning("the GPU's memory is full, scoring goes on", device=device, chunk_rows=chunk_rows)

    return lambda blob: load_serving_model(blob, wanted, config.detection, config.model.device, tell)


def run_service(path: Path, *, with_trainer: bool) -> None:
    """Run the service until SIGTERM or SIGINT, then drain it."""
    config = Config.load(path)
    configure_logging("service")
    settle_process()
    clock, log, telemetry = SystemClock(), get_logger(), PrometheusTelemetry()
    show_service_series(telemetry, config.kafka.topics.events, config.events)
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        topics = config.kafka.topics
        source = StallWatchdog(
            lambda: open_source(config.kafka, topics.events, config.kafka.group), clock, telemetry, log
        )
        stack.callback(source.close)
        check_keying(source.topic, source.n_partitions(), is_keyed=config.events.keyed_by_entity)
        if config.events.rekey:
            raise ConfigurationError("events.rekey", True, "is not there yet; key the topic by entity")
        ensure_topics(config.kafka, source.n_partitions())
        stack.enter_context(_http(config, config.http.port, telemetry, clock))
        sink = open_sink(config.kafka, f"{config.kafka.group}-{config.kafka.instance}")
        stack.callback(sink.close)
        state, models = KafkaStateReader(config.kafka), KafkaModelStore(config.kafka, clock)
        stack.callback(state.close)
        stack.callback(models.close)
        trainer = stack.enter_context(TrainerProcess(path, log)) if with_trainer else None
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
            stages=stages_of(config),
            settings=settings_of(config),
        )
        while not stop.is_set:
            service.step()
            if trainer is not None:
                trainer.revive(clock.monotonic_s())
        service.drain()


def run_trainer(path: Path, child_of: int | None = None) -> None:
    """Run the trainer until SIGTERM or SIGINT, or until the service that started it is gone."""
    config = Config.load(path)
    configure_logging("trainer")
    settle_process()
    clock, log, telemetry = SystemClock(), get_logger(), PrometheusTelemetry()
    show_trainer_series(telemetry)
    wanted = schema(config.features, config.events.field_types())
    with ExitStack() as stack:
        stop = stack.enter_context(stop_signal())
        source = open_source(config.kafka, config.kafka.topics.training, f"{config.kafka.group}-trainer")
        sink = open_sink(config.kafka, f"{config.kafka.group}-{config.kafka.instance}-trainer")
        port = config.http.port + 1 if config.http.port else 0
        stack.enter_context(_http(config, port, telemetry, clock))
        trainer = Trainer(
            source=source,
            store=KafkaModelStore(config.kafka, clock, sink),
            telemetry=telemetry,
            clock=clock,
            log=log,
            make_learner=lambda: make_learner(config.learning, config.model, config.detection, wanted, _SEED),
        )
        stack.callback(trainer.close)
        trainer.run(lambda: stop.is_set or (child_of is not None and os.getppid() != child_of))


def run_replay(path: Path, file: Path, alerts: Path | None, model: Path | None) -> None:
    """Replay a file of events and write the alerts, one JSON object a line.

    Raises:
        ConfigurationError: A file cannot be read.
    """
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
        stages=stages_of(config),
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
    server = HttpServer(telemetry, clock, config.http.host, port, config.http.stalled_after / 1000)
    get_logger().info("http listens", host=config.http.host, port=server.start())
    try:
        yield
    finally:
        server.stop()


class TrainerProcess:
    """The trainer as a child: started again when it dies, each time a little later; stopped with us."""

    def __init__(self, config: Path, log: Any) -> None:
        self._command = [sys.executable, "-m", "stream_iwae", "train", "--config", str(config)]
        self._command += ["--child-of", str(os.getpid())]  # so that it outlives no kill -9 of ours
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._n_deaths = 0
        self._restart_at_s: float | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, and wait."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_TRAINER_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def revive(self, now_s: float) -> None:
        """Start it again if it has died and waited long enough."""
        if self._process is None or self._process.poll() is None:
            return
        if self._restart_at_s is None:
            wait_s = _TRAINER_WAITS_S[min(self._n_deaths, len(_TRAINER_WAITS_S) - 1)]
            self._n_deaths += 1
            self._restart_at_s = now_s + wait_s
            self._log.error("trainer died", exit_code=self._process.returncode, restart_in_s=wait_s)
        elif now_s >= self._restart_at_s:
            self._restart_at_s = None
            self._start()

    def _start(self) -> None:
        # A session of its own: Ctrl-C on a terminal reaches us first, and we stop it in order.
        self._process = subprocess.Popen(self._command, start_new_session=True)


def settle_process() -> None:
    """One thread for torch, and a garbage collector that leaves alone what was imported and looks seldom.

    Each record read makes objects, which would set off a search of all that is alive: a third of the service's time.
    What is dropped without a cycle, as batches are, is freed at once all the same.
    """
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
