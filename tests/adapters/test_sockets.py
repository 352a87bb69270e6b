"""What the adapters open to a broker, they close: a service that runs for months must not run out of descriptors."""

import time
from pathlib import Path

import pytest

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_source import KafkaEventSource
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.adapters.model_store import KafkaModelStore

pytestmark = pytest.mark.kafka

DEADLINE_S = 20.0


def sockets():
    """The inodes of the sockets that this process holds."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture
def used(make_config, topic):
    """Open one adapter, use it, and close it."""
    config = make_config(topics={"events": topic(), "state": topic(), "models": topic()})

    def run(kind):
        match kind:
            case "source":
                adapter = KafkaEventSource(config, config.topics.events, config.group)
                adapter.poll(0.1)
            case "sink":
                adapter = KafkaOutputSink(config, config.group)
                adapter.commit([], {}, config.topics.events, None)
            case "recovered sink":
                adapter = KafkaOutputSink(config, config.group)
                adapter.recover()
            case "state":
                adapter = KafkaStateReader(config)
                adapter.read(0)
            case "models":
                adapter = KafkaModelStore(config, SystemClock())
                adapter.versions()
        adapter.close()
        return adapter

    return run


@pytest.mark.parametrize("kind", ["source", "sink", "recovered sink", "state", "models"])
def test_a_closed_adapter_holds_no_socket(used, kind):
    before = sockets()
    kept = [used(kind) for _ in range(3)]  # alive, or collecting them would close what they forgot

    deadline = time.monotonic() + DEADLINE_S
    while left := sockets() - before:  # the client's threads close theirs a little later
        assert time.monotonic() < deadline, f"{len(left)} sockets are left after {len(kept)} times"
