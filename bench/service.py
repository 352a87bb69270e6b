"""The whole service on one core: poll, windows, scores, verdicts, and a transaction each half second."""

import time

from ingest import Cost

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


def publish_model(config: Config, blob: bytes, n_partitions: int = 1) -> None:
    """Put a model on the models topic."""
    ensure_topics(config.kafka, n_partitions)
    store = KafkaModelStore(config.kafka, SystemClock(), open_sink(config.kafka, f"{config.kafka.group}-bench"))
    store.publish("1.0", blob, 0)
    store.close()


def service_cost(config: Config, n_events: int, n_partitions: int, blob: bytes) -> Cost:
    """What it takes to bring every event of the topic to a commit."""
    publish_model(config, blob, n_partitions)
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
    while len(service.pipelines) < n_partitions or service.model is None:
        service.step()
    assert service.totals.consumed < n_events / 2, "half was read before it could be measured"
    first, began, began_cpu_s = service.totals.consumed, time.perf_counter(), time.process_time()
    while service.totals.consumed < n_events:
        service.step()
    share = n_events / (n_events - first)  # of what was read while partitions were still being assigned
    cost = Cost((time.perf_counter() - began) * share, (time.process_time() - began_cpu_s) * share)
    assert service.totals.is_balanced
    assert service.totals.scored > n_events / 15, service.totals
    service.close()
    return cost
