"""While there is no model, /status and metrics say what looks unusual, and no alert does."""

import json
import random

import pytest
from world import MODEL, START_MS, World, the_stages

from stream_iwae.adapters.memory import ModelShelf


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


@pytest.fixture
def run_without_model():
    def run(log):
        world = World([log, []], the_stages(), rng=random.Random(1))
        world.shelf = ModelShelf()
        world.broker.rebalance("g", {"a": frozenset({0, 1})})
        world.start("a")
        service = world.services["a"]
        for _ in range(100):
            service.step()
        service.drain()
        return service, service._telemetry, world.effects()

    return run


def test_a_loud_entity_is_in_the_status_and_in_no_alert(run_without_model):
    service, telemetry, effects = run_without_model(messages(20, odd_at=(15, 7)))

    status = service.status()["provisional"]
    assert status["windows"] > 400
    assert status["most_unusual"][0]["entity"] == {"src": "h7"}
    assert status["most_unusual"][0]["rarity"] < 0.01
    assert not effects.alerts
    assert telemetry.gauges["provisional_windows", frozenset()] == status["windows"]


def test_with_a_model_nothing_is_provisional(run_without_model):
    service, _, _ = run_without_model(messages(5))
    service.model = MODEL

    status = service.status()

    assert status["provisional"] is None
    assert status["threshold"]["p_value"] > 0
    assert status["threshold"]["extrapolated"] in {True, False}
