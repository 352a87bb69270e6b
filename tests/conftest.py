"""What every test may use: a real Kafka, fresh topics, the data sets. No torch here: most tests need none."""

import gc
import itertools
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from stream_iwae.lab.local_kafka import RunningKafka, local_kafka

settings.register_profile("untimed", deadline=None)  # how long an example takes says how busy the machine is
settings.load_profile("untimed")


def pytest_configure(config):
    for ignored in (
        # kafka-python 3.0.12 reads its own resources in a way that Python 3.11 deprecates,
        "ignore:read_text is deprecated:DeprecationWarning",
        "ignore:open_text is deprecated:DeprecationWarning",
        # and leaves a socket open when it cannot connect to a broker that has died.
        r"ignore:unclosed <socket.socket .*laddr=\('0\.0\.0\.0', \d+\)>:ResourceWarning",
    ):
        config.addinivalue_line("filterwarnings", ignored)


def pytest_collection_modifyitems(items):
    # Its threads now and then drop a connected socket unclosed, in whichever test of Kafka runs then. That ours
    # are closed is the business of tests/adapters/test_sockets.py.
    dropped = pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <(socket.socket|ssl.SSLSocket):pytest.PytestUnraisableExceptionWarning"
    )
    for item in items:
        if item.get_closest_marker("kafka") is not None:
            item.add_marker(dropped)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Collect what Kafka's tests dropped before a test without Kafka is blamed for it."""
    yield
    is_last = nextitem is None or nextitem.get_closest_marker("kafka") is None
    if is_last and item.get_closest_marker("kafka") is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "unclosed <(socket.socket|ssl.SSLSocket)", ResourceWarning)
            gc.collect()


@pytest.fixture(scope="session")
def kafka() -> Iterator[RunningKafka]:
    """One Apache Kafka for the whole session, its data in a temporary directory."""
    with local_kafka() as running:
        yield running


@pytest.fixture(scope="session")
def kafka_admin(kafka):
    from kafka import KafkaAdminClient

    admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    yield admin
    admin.close()


@pytest.fixture
def topic(kafka_admin, request) -> Callable[..., str]:
    """Create topics under names that no other test has: ``topic(partitions=4, config={...})``."""
    base = re.sub(r"[^a-zA-Z0-9]+", "-", request.node.name)[:80].strip("-")
    numbers = itertools.count(1)

    def create(partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = f"{base}-{next(numbers)}-{secrets.token_hex(3)}"
        wanted = {"num_partitions": partitions, "configs": dict(config or {})}
        kafka_admin.create_topics({name: wanted}, wait_for_metadata=True)
        return name

    return create


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Where the data sets lie; a test that needs one is skipped where they are absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    directory = Path(os.environ.get("STREAM_IWAE_DATA") or default).resolve()
    if not (directory / "README.md").is_file():
        pytest.skip(f"no data sets in {directory}; name their directory in STREAM_IWAE_DATA")
    return directory
