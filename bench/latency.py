"""From sending the event that closes a window to reading its alert (read_committed), at half load.

kcat sends: a producer in Python gives 15,000 events a second evenly, a fifth of what the service takes.
"""

import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import yaml
from flows import START_MS, WINDOW_MS, a_config_data, a_pool, flow, minute
from service import publish_model

from stream_iwae.config import Config
from stream_iwae.lab.alert_reader import AlertReader, Latencies
from stream_iwae.lab.publish import create_topic
from stream_iwae.lab.service_process import ServiceProcess

BLOCK = 200  # events that are handed to kcat at once


class LineSender:
    """kcat, fed with lines: each is a message on the topic's only partition."""

    def __init__(self, servers: str, topic: str) -> None:
        command = ["kcat", "-P", "-b", servers, "-t", topic, "-X", "linger.ms=5", "-X", "compression.codec=lz4"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE)

    def send(self, messages: list[bytes]) -> None:
        """Hand over messages that hold no newline; blocks while kcat is behind."""
        self._process.stdin.write(b"\n".join(messages) + b"\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.stdin.close()
        assert self._process.wait(30) == 0


def latency(
    servers: str, blob: bytes, n_entities: int, rate: float, n_minutes: int, name: str
) -> dict[str, float | None]:
    """Seconds at the median and the 99 % quantile, with `n_entities` windows closing together.

    Events come evenly at `rate` a second, so a window of event time takes 10 n_entities / rate seconds.
    """
    rng = np.random.default_rng(5)
    pool = a_pool(rng, n_entities)
    data = a_config_data(servers, name)
    create_topic(servers, name)
    publish_model(Config.parse(yaml.safe_dump(data)), blob)
    latencies = Latencies(grace_ms=0)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.yaml"
        path.write_text(yaml.safe_dump(data))
        with (
            LineSender(servers, name) as sender,
            AlertReader(servers, data["kafka"]["topics"]["alerts"]) as alerts,
            ServiceProcess(path, Path(directory) / "log", "--no-trainer") as service,
        ):
            service.wait_until(lambda status: status["model_version"] is not None, 60, lambda _: None)
            began, n_sent = time.monotonic(), 0
            for number in range(n_minutes):
                # First a scan by a host of its own each minute, so that no incident goes on.
                at_ms = START_MS + number * WINDOW_MS + 50
                messages = [flow(rng, 0xFFFF00 - number, at_ms + i, scan=True) for i in range(40)]
                messages += (message for _, message in minute(number, n_entities, pool))
                for at in range(0, len(messages), BLOCK):
                    block = messages[at : at + BLOCK]
                    latencies.sent(int(block[0][6:19]))
                    sender.send(block)
                    n_sent += len(block)
                    _look(alerts, latencies)
                    while time.monotonic() < began + n_sent / rate:
                        _look(alerts, latencies, 0.001)
            held_back_s = time.monotonic() - began - n_sent / rate
            assert held_back_s < 1.0, (
                f"the events came {held_back_s:.1f} s late: the sender does not give {rate:,.0f}/s"
            )
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and len(latencies.seconds) < n_minutes - 1:
                _look(alerts, latencies, 0.05)
    assert len(latencies.seconds) >= 0.8 * (n_minutes - 1), f"{len(latencies.seconds)} alerts of {n_minutes}"
    return latencies.quantiles()


def _look(alerts: AlertReader, latencies: Latencies, timeout: float = 0.0) -> None:
    for alert in alerts.poll(timeout):
        if alert["status"] == "open" and alert["entity"]["src"].startswith("10.255."):
            latencies.arrived(alert["window_end"])
