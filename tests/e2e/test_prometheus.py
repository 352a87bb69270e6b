"""A real Prometheus scrapes the real service and trainer: no query of the dashboard comes back empty."""

import importlib.util
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from network import START_MS, a_day_in_the_network, flow

from stream_iwae.lab.service_process import ServiceProcess

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]

DEPLOY = Path(__file__).parents[2] / "deploy"
TRAINER_LISTENS = re.compile(r'"component": "trainer", "event": "http listens".*"port": (\d+)')


class Prometheus:
    def __init__(self, port):
        self._address = f"http://127.0.0.1:{port}/api/v1"

    def get(self, path, **parameters):
        url = f"{self._address}/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own address
            return json.load(answer)["data"]

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def wait_until(self, is_done, timeout_s):
        deadline_s = time.monotonic() + timeout_s
        while not is_done() and time.monotonic() < deadline_s:
            time.sleep(0.25)


def dashboard_queries():
    specification = importlib.util.spec_from_file_location("grafana_build", DEPLOY / "grafana" / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.queries()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def scrape(tmp_path):
    """Start Prometheus with the configuration that is shipped, but for the ports and a pace of a second."""
    started = []

    def start(targets):
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(DEPLOY / "prometheus" / file) for file in config["rule_files"]]
        for job in config["scrape_configs"]:
            job["static_configs"] = [{"targets": [f"127.0.0.1:{targets[job['job_name']]}"]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = [
            "prometheus",
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (tmp_path / "prometheus.log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return Prometheus(port)

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def answers(prometheus):
    try:
        return prometheus.get("rules")
    except (urllib.error.URLError, ConnectionError):
        return None


def test_no_query_of_the_dashboard_comes_back_empty(topic, publish, write_config, pin_model, scrape, tmp_path):
    events_topic = topic()
    good = a_day_in_the_network(8, 20)
    values = [*good, b"no json", None, json.dumps(flow(START_MS, "10.0.0.9")).encode()]
    publish(events_topic, values)
    path, log = write_config(events_topic, events_topic), tmp_path / "log"
    pin_model(path)

    with ServiceProcess(path, log) as service:
        service.wait_until(lambda status: status["events"]["consumed"] >= len(values), 60, lambda _: None)
        service.wait_until(lambda _: TRAINER_LISTENS.search(log.read_text()), 60, lambda _: None)
        trainer_port = int(TRAINER_LISTENS.search(log.read_text())[1])
        prometheus = scrape({"stream-iwae": service.port, "stream-iwae-trainer": trainer_port})
        prometheus.wait_until(lambda: answers(prometheus), 20)
        prometheus.wait_until(lambda: len(prometheus.query("up == 1")) == 2, 20)
        queries = dashboard_queries()
        prometheus.wait_until(lambda: all(prometheus.query(query) for query in queries), 20)
        empty = [query for query in queries if not prometheus.query(query)]
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        consumed = prometheus.query("sum(stream_iwae_events_consumed_total)")[0]["value"][1]
        alerts = prometheus.query("sum(stream_iwae_alerts_published_total)")[0]["value"][1]

    assert not empty, f"{len(empty)} of {len(queries)} queries are empty"
    assert int(consumed) == len(values)
    assert int(alerts) >= 1
    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not [rule["name"] for rule in rules if rule.get("lastError")]
