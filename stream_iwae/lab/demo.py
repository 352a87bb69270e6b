"""The demo: a real Kafka, a simulated network with attacks, the service, live alerts, and what was caught."""

import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from stream_iwae.lab.alert_reader import AlertReader, Latencies
from stream_iwae.lab.demo_config import demo_config
from stream_iwae.lab.demo_view import DemoView, make_view
from stream_iwae.lab.local_kafka import local_kafka
from stream_iwae.lab.outcome import Outcome, judge_outcome
from stream_iwae.lab.publish import MessagePublisher, create_topic
from stream_iwae.lab.service_process import ServiceProcess
from stream_iwae.lab.simulate import Simulation

TOPIC: Final = "flows"
PARTITIONS: Final = 2
SPEED_UP: Final = 480  # 8 simulated hours of live traffic in a minute
MINUTE_MS: Final = 60_000
SETTLE_S: Final = 60.0  # longest wait for the last windows to be judged
READY_S: Final = 180.0


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured."""

    events: dict[str, int]
    n_published: int
    events_per_second: float
    latency_seconds: dict[str, float | None]
    outcome: Outcome

    @property
    def is_sound(self) -> bool:
        """Whether every event published met exactly one fate."""
        fates = self.events["aggregated"] + self.events["late"] + self.events["rejected"] + self.events["skipped"]
        return self.events["consumed"] == fates == self.n_published

    def to_json(self) -> dict[str, Any]:
        """The result as data; its keys are part of the interface."""
        return {
            "events": self.events,
            "events_per_second": round(self.events_per_second, 1),
            "latency_seconds": self.latency_seconds,
            "scenarios": [
                {"name": s.name, "benign": s.benign, "caught": s.caught, "delay_seconds": s.delay_seconds}
                for s in self.outcome.scenarios
            ],
            "false_alerts_per_hour": round(self.outcome.false_alerts_per_hour, 3),
        }


def run_demo(seed: int, json_file: Path | None, keep: bool) -> int:
    """Run the demo to its end; 0 only if the pipeline did its work and the counts add up."""
    directory = Path(tempfile.mkdtemp(prefix="stream-iwae-demo-"))
    view = make_view(sys.stdout)
    try:
        result = _play(seed, directory, view)
    finally:
        view.close()
        if keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory)
    view.summary(result.outcome, result.events, result.events_per_second, result.latency_seconds)
    if json_file is not None:
        json_file.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
    if not result.is_sound:
        print(
            f"error: {result.n_published} events were published, but their fates are {result.events}", file=sys.stderr
        )
        return 1
    return 0


def _play(seed: int, directory: Path, view: DemoView) -> DemoResult:
    simulation = Simulation(seed=seed)
    view.say(f"starting Apache Kafka (data in {directory})")
    with local_kafka(directory / "kafka") as kafka:
        servers = kafka.bootstrap_servers
        create_topic(servers, TOPIC, partitions=PARTITIONS)
        config = directory / "config.yaml"
        config.write_text(yaml.safe_dump(demo_config(servers, TOPIC), sort_keys=False), encoding="utf-8")
        with MessagePublisher(servers, TOPIC) as publisher:
            view.say(
                f"publishing {simulation.history_ms // 3_600_000} h of ordinary traffic of {simulation.n_hosts} hosts"
            )
            for message in simulation.messages("history"):
                publisher.send(message.key, message.value, message.n_events)
            publisher.flush()
            n_history = publisher.n_events
            view.say(f"{n_history:,} events are on the topic; starting the service, which reads them back to learn")
            began_s = time.monotonic()
            with ServiceProcess(config, directory / "service.log") as service, AlertReader(servers) as alerts:
                service.wait_until(lambda status: status["model_version"] is not None, READY_S, view.status)
                learnt_s = time.monotonic() - began_s
                view.say(f"model {service.status()['model_version']} is in use after {learnt_s:.0f} s; going live")
                latencies = Latencies(grace_ms=config_grace_ms(config))
                _go_live(simulation, publisher, service, alerts, latencies, view)
                published = publisher.n_events
                service.wait_until(lambda status: _consumed(status) >= published, SETTLE_S, view.status)
                _read_alerts(alerts, latencies, view)
                status = service.status()
                rate = service.busy_events_per_second()
            _read_alerts_to_the_end(servers, alerts, latencies, view)
    events = {
        name: sum(value.values()) if isinstance(value, dict) else int(value) for name, value in status["events"].items()
    }
    live_hours = simulation.live_ms / 3_600_000
    return DemoResult(
        events=events,
        n_published=published,
        events_per_second=rate,
        latency_seconds=latencies.quantiles(),
        outcome=judge_outcome(alerts.seen, simulation.truth(), live_hours),
    )
