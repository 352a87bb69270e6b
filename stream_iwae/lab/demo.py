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
from stream_iwae.lab.demo_view import DemoView
from stream_iwae.lab.local_kafka import local_kafka
from stream_iwae.lab.outcome import Outcome, judge_outcome
from stream_iwae.lab.publish import MessagePublisher, create_topic
from stream_iwae.lab.service_process import ServiceProcess, Status
from stream_iwae.lab.simulate import HOUR_MS, Simulation

TOPIC: Final = "flows"
ALERTS: Final = "stream-iwae.alerts"
PARTITIONS: Final = 2
SPEED_UP: Final = 480  # eight simulated hours in a minute
GRACE_MS: Final = 5_000  # of demo_config's windows
_READY_S: Final = 180.0
_SETTLE_S: Final = 60.0
_LOOK_EVERY_S: Final = 0.02
_FATES: Final = ("aggregated", "late", "rejected", "skipped")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo measured."""

    events: dict[str, int]
    n_published: int
    events_per_second: float  # while the service read the history back
    latency_seconds: dict[str, float | None]
    outcome: Outcome

    @property
    def is_sound(self) -> bool:
        """Whether every event published met exactly one fate, and the pipeline came to alerts."""
        is_balanced = self.events["consumed"] == sum(self.events[fate] for fate in _FATES) == self.n_published
        return is_balanced and any(scenario.caught for scenario in self.outcome.attacks)

    def to_json(self) -> dict[str, Any]:
        """The result as data; its keys are part of the interface."""
        return {
            "events": self.events,
            "events_per_second": round(self.events_per_second, 1),
            "latency_seconds": self.latency_seconds,
            "scenarios": [
                {"name": one.name, "benign": one.benign, "caught": one.caught, "delay_seconds": one.delay_seconds}
                for one in self.outcome.scenarios
            ],
            "false_alerts_per_hour": round(self.outcome.false_alerts_per_hour, 3),
        }


def run_demo(seed: int, json_file: Path | None, keep: bool) -> int:
    """Run the demo to its end; 0 only if the pipeline did its work and the counts add up."""
    directory = Path(tempfile.mkdtemp(prefix="stream-iwae-demo-"))
    began_s = time.monotonic()
    try:
        with DemoView() as view:
            result = _Demo(seed, directory, view).play()
    finally:
        if keep:
            print(f"kept: {directory}")
        else:
            shutil.rmtree(directory)
    latency, outcome = result.latency_seconds, result.outcome
    view.summary(
        outcome,
        {
            "attacks caught": f"{sum(one.caught for one in outcome.attacks)} of {len(outcome.attacks)}",
            "false alerts an hour": f"{outcome.false_alerts_per_hour:.2f} (simulated hours)",
            "events": ", ".join(f"{count:,} {name}" for name, count in result.events.items()),
            "events a second": f"{result.events_per_second:,.0f} (reading the history back)",
            "last event to alert readable": f"p50 {latency['p50']} s, p99 {latency['p99']} s",
            "the whole demo": f"{time.monotonic() - began_s:.0f} s",
        },
    )
    if json_file is not None:
        json_file.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
    if result.is_sound:
        return 0
    print(f"error: of {result.n_published} events published the fates are {result.events}", file=sys.stderr)
    return 1


class _Demo:
    """One play, with everything that it starts."""

    def __init__(self, seed: int, directory: Path, view: DemoView) -> None:
        self._simulation = Simulation(seed)
        self._directory = directory
        self._view = view
        self._latencies = Latencies(GRACE_MS)
        self._busy: list[tuple[float, int]] = []  # (seconds, events consumed) while the history is read

    def play(self) -> DemoResult:
        """From an empty directory to the result; leaves nothing running."""
        self._view.say("starting Apache Kafka (the first time, 44 MB are fetched)")
        with local_kafka(self._directory / "kafka") as kafka:
            servers = kafka.bootstrap_servers
            create_topic(servers, TOPIC, partitions=PARTITIONS)
            config = self._directory / "config.yaml"
            config.write_text(yaml.safe_dump(demo_config(servers, TOPIC), sort_keys=False), encoding="utf-8")
            with MessagePublisher(servers, TOPIC) as publisher, AlertReader(servers, ALERTS) as alerts:
                self._publish_history(publisher)
                with ServiceProcess(config, self._directory / "service.log") as service:
                    self._learn(service, publisher.n_events)
                    self._go_live(publisher, alerts)
                    status = service.wait_until(
                        lambda status: _n_consumed(status) >= publisher.n_events,
                        _SETTLE_S,
                        lambda _: self._look(alerts),
                    )
                self._view.say("the service has drained and stopped")
                self._look(alerts, to_end=True)
        simulation = self._simulation
        return DemoResult(
            events={name: sum(n.values()) if isinstance(n, dict) else n for name, n in status["events"].items()},
            n_published=publisher.n_events,
            events_per_second=self._rate(),
            latency_seconds=self._latencies.quantiles(),
            outcome=judge_outcome(alerts.seen, simulation.truth(), simulation.live_ms / HOUR_MS),
        )

    def _publish_history(self, publisher: MessagePublisher) -> None:
        simulation = self._simulation
        hours = simulation.history_ms // HOUR_MS
        self._view.say(f"publishing {hours} h of ordinary traffic of {simulation.n_hosts} hosts")
        for message in simulation.messages("history"):
            publisher.send(message.key, message.value, message.n_events)
        publisher.flush()
        self._view.say(f"{publisher.n_events:,} events are on the topic; the service reads them back to learn from")

    def _learn(self, service: ServiceProcess, n_history: int) -> None:
        began_s = time.monotonic()

        def tell(status: Status) -> None:
            n_consumed = _n_consumed(status)
            if n_consumed <= n_history and (not self._busy or n_consumed > self._busy[-1][1]):
                self._busy.append((time.monotonic(), n_consumed))
            self._view.progress(f"{status['state']}: {n_consumed:,} of {n_history:,} events read back")

        status = service.wait_until(lambda status: status["model_version"] is not None, _READY_S, tell)
        seconds = time.monotonic() - began_s
        self._view.say(f"model {status['model_version']} is in use after {seconds:.0f} s; the network goes live")

    def _go_live(self, publisher: MessagePublisher, alerts: AlertReader) -> None:
        simulation = self._simulation
        began_s = looked_s = time.monotonic()
        for message in simulation.messages("live"):
            event_s = (message.timestamp_ms - simulation.live_start_ms) / 1000
            due_s = began_s + event_s / SPEED_UP
            while (now_s := time.monotonic()) < due_s or now_s - looked_s > _LOOK_EVERY_S:
                looked_s = now_s
                self._look(alerts)
                self._view.progress(f"{event_s / 3600:.1f} simulated hours live, {publisher.n_events:,} events sent")
                time.sleep(max(0.0, min(due_s - now_s, _LOOK_EVERY_S)))
            publisher.send(message.key, message.value, message.n_events)
            self._latencies.sent(message.timestamp_ms)
        publisher.flush()

    def _look(self, alerts: AlertReader, *, to_end: bool = False) -> None:
        for alert in alerts.read_to_end() if to_end else alerts.poll():
            if alert["status"] == "open":
                self._latencies.arrived(alert["window_end"])
            self._view.alert(alert)

    def _rate(self) -> float:
        if len(self._busy) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._busy[0], self._busy[-1]
        return (last - first) / (last_s - first_s)


def _n_consumed(status: Status) -> int:
    return int(status["events"]["consumed"])
