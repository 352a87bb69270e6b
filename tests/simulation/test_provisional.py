"""While there is no model, /status and metrics say what looks unusual, and no alert does."""

import json

import pytest

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
from stream_iwae.service import Service, ServiceSettings
from tests.simulation.logs import START_MS, stages_of
from tests.simulation.models import PINNED, load_model, serving_model
from tests.simulation.processes import TOPICS


def messages(n_minutes, odd_at=None):
    out = []
    for minute in range(n_minutes):
        for host in range(30):
            flows = [
                {"ts": START_MS + minute * 10_000 + i, "src": f"h{host}", "bytes": 100 + host, "octets": minute * 7}
                for i in range(3 + host % 4)
            ]
            if odd_at == (minute, host):
                flows = [{**flows[0], "ts": flows[0]["ts"] + i, "bytes": 10**9} for i in range(500)]
            out.append(json.dumps(flows).encode())
    return out


class QuietLog:
    def info(self, event, **fields):
        """Nobody reads it."""

    warning = error = info


@pytest.fixture
def run_without_model():
    def run(log):
        clock, telemetry = VirtualClock(START_MS + 10**9), MemoryTelemetry()
        broker = MemoryBroker(clock.now_ms)
        for topic in ("events", "alerts", "dead-letters", "state", "scores", "training"):
            broker.create_topic(topic)
        for value in log:
            broker.append("events", 0, None, value, clock.now_ms())
        broker.rebalance("g", {"a": frozenset({0})})
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
            stages=stages_of("full"),
            settings=ServiceSettings(start="earliest", commit_interval_ms=0, hold_until_ready=False),
        )
        for _ in range(100):
            service.step()
        service.drain()
        return service, telemetry, broker.committed_records("alerts")

    return run


def test_a_loud_entity_is_in_the_status_and_in_no_alert(run_without_model):
    service, telemetry, alerts = run_without_model(messages(20, odd_at=(15, 7)))

    status = service.status()["provisional"]
    assert status["windows"] > 400
    assert status["most_unusual"][0]["entity"] == {"src": "h7"}
    assert status["most_unusual"][0]["rarity"] < 0.01
    assert not alerts
    assert telemetry.gauges["provisional_windows", frozenset()] == status["windows"]


def test_with_a_model_nothing_is_provisional(run_without_model):
    service, _, _ = run_without_model(messages(5))
    service.model = serving_model(PINNED)

    status = service.status()

    assert status["provisional"] is None
    assert status["threshold"]["p_value"] > 0
    assert status["threshold"]["extrapolated"] in {True, False}
