"""Events wait, and scoring one wave of windows takes longer than `max_poll_interval`: nothing is lost, nobody leaves."""

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from kafka import KafkaProducer

from stream_iwae.lab.service_process import ServiceProcess

pytestmark = pytest.mark.kafka
THROTTLED = Path(__file__).parents[2] / "bench" / "throttled.py"
ENTITIES = 2_560  # ten chunks of the scorer
REST_S = 0.8  # after each, so that a wave takes 8 s


def an_event(entity, ts):
    flow = {"ts": ts, "src": f"10.0.{entity >> 8}.{entity & 255}", "dst": "198.51.100.1", "dst_port": 443}
    return json.dumps({**flow, "proto": "tcp", "bytes": 900, "packets": 3}).encode()


def a_backlog(now_ms):
    """Two waves of windows, two events each; one event too late, one record that is none, one that is empty."""
    start_ms = now_ms - now_ms % 10_000 - 30_000
    waves = [
        [an_event(entity, at) for at in (ms, ms + 5_000) for entity in range(ENTITIES)]
        for ms in (start_ms, start_ms + 10_000)
    ]
    return [*waves[0], waves[1][0], an_event(0, start_ms - 60_000), b"no event", b" ", *waves[1][1:]]


def publish_a_bomb(servers, topic):
    """Three records in one batch, 2 kB on the wire and 1.5 MB unpacked."""
    producer = KafkaProducer(
        bootstrap_servers=servers,
        compression_type="lz4",
        linger_ms=5_000,
        batch_size=4_000_000,
        max_request_size=4_000_000,
    )
    for _ in range(3):
        producer.send(topic, b"x" * 500_000)
    producer.flush()
    producer.close()


def test_a_scorer_slower_than_the_poll_interval_costs_time_and_nothing_else(
    kafka, topic, write_config, pin_model, publish, metrics, tmp_path
):
    events_topic = topic()
    publish_a_bomb(kafka.bootstrap_servers, events_topic)
    messages = a_backlog(time.time_ns() // 1_000_000)
    publish(events_topic, messages)
    waiting = {"max_poll_interval": "6s", "max_poll_records": 2_000, "max_unpacked": "1MiB"}
    path = write_config(events_topic, f"{events_topic}-slow", kafka=waiting)
    pin_model(path)
    seen = []

    class Throttled(ServiceProcess):
        program = (str(THROTTLED), str(REST_S))

    def look(_):
        seen.append(Counter({name: value for name, _, value in metrics(service)}))

    with Throttled(path, tmp_path / "log", "--no-trainer") as service:
        service.wait_until(lambda status: status["events"]["consumed"] >= len(messages), 60, look)
        found = Counter()
        for name, _, value in metrics(service):
            found[name.removeprefix("stream_iwae_")] += value

    fates = {fate: found[f"events_{fate}_total"] for fate in ("aggregated", "late", "rejected", "skipped")}
    assert fates == {"aggregated": len(messages) - 3, "late": 1, "rejected": 1, "skipped": 1}
    assert found["scores_total"] == ENTITIES  # the second wave is still open
    assert found["consumer_rebalances_total"] == 1  # it joined, and stayed
    assert found["consumer_lag_records"] == 0
    assert found["consumer_oversized_records_total"] == 3
    behind = [one for one in seen if one["stream_iwae_consumer_lag_records"] > 0]
    assert behind  # /metrics answered while it scored, and told how far behind it was
    assert all(one["stream_iwae_consumer_lag_seconds"] > 10 for one in behind)
