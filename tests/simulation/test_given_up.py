"""What a replica says of a partition ends when the partition goes to another."""

from prometheus_client import generate_latest

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
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.service import Service, ServiceSettings
from tests.simulation.logs import START_MS, stages_of
from tests.simulation.models import load_model
from tests.simulation.processes import TOPICS


class QuietLog:
    def info(self, event, **fields):
        """Nobody reads it."""

    warning = error = info


def test_the_lag_of_a_partition_that_was_given_up_is_no_longer_told():
    clock, telemetry = VirtualClock(START_MS), MemoryTelemetry()
    broker = MemoryBroker(clock.now_ms)
    for topic in ("events", "alerts", "dead-letters", "state", "scores", "training"):
        broker.create_topic(topic, 2)
    broker.rebalance("g", {"a": frozenset({0, 1})})
    service = Service(
        source=MemoryEventSource(broker, "events", "g", "a", lambda: 10),
        sink=MemoryOutputSink(broker, "g-a"),
        state=MemoryStateReader(broker, "state"),
        models=MemoryModelStore(ModelShelf()),
        telemetry=telemetry,
        clock=clock,
        log=QuietLog(),
        load_model=load_model,
        topics=TOPICS,
        stages=stages_of("tumbling"),
        settings=ServiceSettings(start="earliest", commit_interval_ms=0, hold_until_ready=False),
    )

    def told():
        return {dict(labels)["partition"] for name, labels in telemetry.gauges if name == "consumer_lag_records"}

    for partition in (0, 1):
        broker.append("events", partition, None, b"{", START_MS)
    for _ in range(3):
        service.step()
    assert told() == {"0", "1"}

    broker.rebalance("g", {"a": frozenset({1})})
    service.step()
    assert told() == {"1"}


def test_a_gauge_that_is_forgotten_is_gone_from_metrics():
    telemetry = PrometheusTelemetry()
    telemetry.gauge("consumer_lag_records", 7, topic="events", partition="0")
    telemetry.gauge("consumer_lag_records", 8, topic="events", partition="1")

    telemetry.forget("consumer_lag_records", topic="events", partition="0")
    telemetry.forget("consumer_lag_records", topic="events", partition="5")

    shown = generate_latest(telemetry.registry).decode()
    assert 'consumer_lag_records{partition="1",topic="events"} 8.0' in shown
    assert 'partition="0"' not in shown
