"""The whole service on one core: poll, windows, scores, verdicts, and a transaction each half second."""

import time

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.adapters.kafka_topics import ensure_topics
from stream_iwae.adapters.log import get_logger
from stream_iwae.adapters.model_store import KafkaModelStore
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.bootstrap import model_loader, settings_of, stages_of, topics_of
from stream_iwae.config import Config
from stream_iwae.service import Service


def publish_model(config: Config, blob: bytes) -> None:
    """Put a model on the models topic."""
    ensure_topics(config.kafka, 1)
    store = KafkaModelStore(config.kafka, SystemClock(), open_sink(config.kafka, f"{config.kafka.group}-bench"))
    store.publish("1.0", blob, 0)
    store.close()


def service_rate(config: Config, n_events: int) -> float:
    """Events a second from the first record to the last commit."""
    clock, telemetry = SystemClock(), PrometheusTelemetry()
    service = Service(
        source=open_source(config.kafka, config.kafka.topics.events, config.kafka.group),
        sink=open_sink(config.kafka, f"{config.kafka.group}-service"),
        state=KafkaStateReader(config.kafka),
        models=KafkaModelStore(config.kafka, clock),
        telemetry=telemetry,
        clock=clock,
        log=get_logger(),
        load_model=model_loader(config, telemetry),
        topics=topics_of(config),
        stages=stages_of(config),
        settings=settings_of(config),
    )
    began = None
    while service.totals.consumed < n_events:
        service.step()
        if began is None and any(pipeline.position for pipeline in service.pipelines.values()):
            began = time.perf_counter()
            first = sum(pipeline.position for pipeline in service.pipelines.values())
    seconds = time.perf_counter() - began
    assert service.totals.is_balanced
    assert service.totals.scored > n_events / 12, service.totals
    service.close()
    return (n_events - first) / seconds
