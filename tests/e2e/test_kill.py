"""kill -9 of the real service on the real Kafka: nothing is lost, nothing comes twice."""

import json
import os
import signal
from collections import Counter

import pytest
from kafka import KafkaProducer
from network import a_day_in_the_network

from stream_iwae.lab.service_process import ServiceProcess
from stream_iwae.wire import decode_scores

pytestmark = pytest.mark.kafka


def alerts_of(records):
    found = [json.loads(record.value) for record in records]
    for alert in found:
        alert.pop("detected_at")
        alert["origin"].pop("topic")
    return found


def scores_of(records):
    rows = Counter()
    for record in records:
        scores = decode_scores(record.value)
        rows.update(zip(map(json.dumps, scores.entities), scores.window_end_ms, scores.scores, strict=True))
    return rows


@pytest.fixture
def events(kafka, topic):
    name = topic()
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, linger_ms=20)
    messages = a_day_in_the_network(3, 120)
    futures = [producer.send(name, message) for message in messages]
    producer.flush()
    assert all(future.succeeded() for future in futures)
    producer.close()
    return name, len(messages)


CLIENTS = pytest.mark.parametrize("client", ["kafka-python", "confluent"])


@CLIENTS
def test_alerts_after_kill_9_equal_those_of_an_undisturbed_run(
    client, events, write_config, pin_model, read_topic, tmp_path
):
    events_topic, n_events = events
    calm = write_config(events_topic, f"{events_topic}-calm")
    killed = write_config(events_topic, f"{events_topic}-killed", kafka={"client": client})
    pin_model(calm)
    pin_model(killed)
    with ServiceProcess(calm, tmp_path / "calm.log", "--no-trainer") as undisturbed:
        for target in (0.2, 0.6):
            with ServiceProcess(killed, tmp_path / f"killed-{target}.log", "--no-trainer") as service:
                # Commits come every 50 ms, so it dies with one prepared, under way, or just done.
                service.wait_until(lambda status, at=target: position(status) >= at * n_events, 90, lambda _: None)
                os.kill(service.pid, signal.SIGKILL)
        with ServiceProcess(killed, tmp_path / "last.log", "--no-trainer") as service:
            service.wait_until(lambda status: position(status) >= n_events, 90, lambda _: None)
        undisturbed.wait_until(lambda status: position(status) >= n_events, 90, lambda _: None)
    expected = read_topic(f"{events_topic}-calm.alerts")
    found = read_topic(f"{events_topic}-killed.alerts")

    assert len(alerts_of(expected)) > 10
    assert sorted(map(json.dumps, alerts_of(found))) == sorted(map(json.dumps, alerts_of(expected)))
    assert len({alert["alert_id"] for alert in alerts_of(found)}) == len(found)
    calm_scores = read_topic(f"{events_topic}-calm.scores")
    killed_scores = read_topic(f"{events_topic}-killed.scores")
    assert scores_of(killed_scores) == scores_of(calm_scores)


@CLIENTS
def test_sigterm_drains_and_leaves_no_transaction_open(client, events, write_config, pin_model, read_topic, tmp_path):
    events_topic, n_events = events
    # Longer than `read_topic` waits: the broker must not abort what the service left open before that is seen.
    path = write_config(events_topic, f"{events_topic}-term", kafka={"client": client, "transaction_timeout": "120s"})
    pin_model(path)
    with ServiceProcess(path, tmp_path / "log", "--no-trainer") as service:
        service.wait_until(lambda status: position(status) >= n_events / 2, 90, lambda _: None)

    assert service.exit_code == 0
    for output in ("alerts", "state", "training", "scores"):
        read_topic(f"{events_topic}-term.{output}")  # fails where a transaction is open


def position(status):
    return sum(int(partition["position"]) for partition in status["partitions"].values())
