"""From sending the event that closes a window to reading its alert (read_committed), at half load."""

import tempfile
import time
from pathlib import Path

import numpy as np
import yaml
from flows import START_MS, WINDOW_MS, a_config_data, a_pool, flow, minute
from service import publish_model

from stream_iwae.config import Config
from stream_iwae.lab.alert_reader import AlertReader, Latencies
from stream_iwae.lab.publish import MessagePublisher, create_topic
from stream_iwae.lab.service_process import ServiceProcess


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
            MessagePublisher(servers, name) as publisher,
            AlertReader(servers, data["kafka"]["topics"]["alerts"]) as alerts,
            ServiceProcess(path, Path(directory) / "log", "--no-trainer") as service,
        ):
            service.wait_until(lambda status: status["model_version"] is not None, 60, lambda _: None)
            began, n_sent = time.monotonic(), 0
            for number in range(n_minutes):
                for i in range(40):  # a scan by a host of its own each minute, so that no incident goes on
                    publisher.send(
                        None, flow(rng, 0xFFFF00 + number, START_MS + number * WINDOW_MS + 50 + i, scan=True)
                    )
                for _, message in minute(number, n_entities, pool):
                    publisher.send(None, message)
                    n_sent += 1
                    if n_sent % 200 == 0:
                        latencies.sent(int(message[6:19]))
                        _look(alerts, latencies)
                        while time.monotonic() < began + n_sent / rate:
                            _look(alerts, latencies, 0.001)
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline and len(latencies.seconds) < n_minutes - 1:
                _look(alerts, latencies, 0.05)
    assert len(latencies.seconds) >= 0.8 * (n_minutes - 1), f"{len(latencies.seconds)} alerts of {n_minutes}"
    return latencies.quantiles()


def _look(alerts: AlertReader, latencies: Latencies, timeout: float = 0.0) -> None:
    for alert in alerts.poll(timeout):
        if alert["status"] == "open" and alert["entity"]["src"].startswith("10.255.255."):
            latencies.arrived(alert["window_end"])
