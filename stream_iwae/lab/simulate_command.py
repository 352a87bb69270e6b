"""`stream-iwae simulate`: the simulated network to a file or a topic, and its truth to another file."""

import sys
from pathlib import Path

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.publish import MessagePublisher, create_topic
from stream_iwae.lab.simulate import Simulation


def simulate(
    seed: int,
    n_hosts: int,
    history_ms: int,
    live_ms: int,
    out: Path | None,
    truth: Path | None,
    bootstrap_servers: str | None,
    topic: str,
) -> None:
    """Write both parts of a simulation.

    Raises:
        ConfigurationError: Neither a file nor a broker is named.
        DeliveryError: The broker did not take a message.
    """
    if out is None and bootstrap_servers is None:
        raise ConfigurationError("--out", None, "say where to: --out FILE, or --bootstrap-servers HOST:PORT")
    simulation = Simulation(seed, n_hosts, history_ms=history_ms, live_ms=live_ms)
    if truth is not None:
        simulation.write_truth(truth)
    if out is not None:
        print(f"{simulation.write_ndjson(out):,} events written to {out}", file=sys.stderr)
    if bootstrap_servers is not None:
        create_topic(bootstrap_servers, topic)
        with MessagePublisher(bootstrap_servers, topic) as publisher:
            for part in ("history", "live"):
                for message in simulation.messages(part):
                    publisher.send(message.key, message.value, message.n_events)
        print(f"{publisher.n_events:,} events sent to {topic}", file=sys.stderr)
