"""A real Apache Kafka on this machine: no Java, Maven or Docker needed.

A directory is a cluster: its data, its logs, and in ``cluster.json`` who its processes are. Each
function below takes the directory and so works from any process.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from stream_iwae.lab.kafka_install import Installation, LocalKafkaError, cache_directory, exclusive, install
from stream_iwae.lab.kafka_properties import (
    BrokerOptions,
    Node,
    SecureListeners,
    free_nodes,
    is_free,
    server_properties,
)
from stream_iwae.lab.owned_process import OwnedProcess, terminate

__all__ = [
    "BrokerOptions",
    "KafkaStatus",
    "LocalKafkaError",
    "RunningKafka",
    "SecureListeners",
    "local_kafka",
    "start",
    "status",
    "stop",
    "stop_node",
]

_LOG_LINES: Final = 20
_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class RunningKafka:
    """A cluster that answers."""

    bootstrap_servers: str  # "127.0.0.1:20001,127.0.0.1:20002"
    pids: tuple[int, ...]  # by node, from node 1
    directory: Path


@dataclass(frozen=True, slots=True)
class KafkaStatus:
    """What runs of a cluster."""

    bootstrap_servers: str
    pids: tuple[int, ...]  # of the nodes that run
    stopped: tuple[int, ...]  # nodes that do not
    resident_bytes: int  # memory of all nodes together
    directory: Path


def start(
    directory: Path | None = None,
    brokers: int = 1,
    options: BrokerOptions | None = None,
    timeout_s: float = 60.0,
) -> RunningKafka:
    """Start the cluster of `directory`, or the nodes of it that are not running, and wait until it answers.

    Args:
        directory: Where the data lie or shall lie; None for the user's cache.
        brokers: Nodes, each a broker and a controller. From three on, topics are replicated three times.
        options: Memory, Java options and further broker settings.
        timeout_s: How long to wait for an answer.

    Raises:
        ConfigurationError: The extra `local` is not installed.
        LocalKafkaError: The cluster has another number of nodes, or did not start; then its last log
            lines are in the message, and what this call has started is stopped again.
    """
    if brokers < 1:
        raise LocalKafkaError(f"a cluster has at least one broker, got {brokers}")
    if options is not None and options.secure is not None and brokers > 1:
        raise LocalKafkaError(f"secure listeners are of one broker, got {brokers}")
    directory = _directory(directory)
    installation = install()
    with exclusive(directory / "lock"):
        cluster = _Cluster.load(directory) or _Cluster.create(directory, brokers)
        if len(cluster.nodes) != brokers:
            raise LocalKafkaError(
                f"{directory} holds a cluster of {len(cluster.nodes)} and not of {brokers} brokers: "
                "name another directory, or stop the cluster and delete this one"
            )
        cluster.start_missing(installation, options or BrokerOptions(), timeout_s)
        return RunningKafka(cluster.bootstrap_servers, tuple(p.pid for p in cluster.running().values()), directory)


def status(directory: Path | None = None) -> KafkaStatus | None:
    """Tell what runs in `directory` (None: the user's cache); None where nothing does."""
    directory = _directory(directory)
    cluster = _Cluster.load(directory)
    running = {} if cluster is None else cluster.running()
    if cluster is None or not running:
        return None
    return KafkaStatus(
        cluster.bootstrap_servers,
        tuple(process.pid for process in running.values()),
        tuple(node.node_id for node in cluster.nodes if node.node_id not in running),
        sum(process.resident_bytes or 0 for process in running.values()),
        directory,
    )


def stop(directory: Path | None = None, timeout_s: float = 15.0) -> bool:
    """Stop every node of `directory` (None: the user's cache), by force after `timeout_s`.

    The data stay. Returns whether there was anything to stop.
    """
    directory = _directory(directory)
    if not directory.exists():
        return False
    with exclusive(directory / "lock"):
        cluster = _Cluster.load(directory)
        running = {} if cluster is None else cluster.running()
        terminate(list(running.values()), timeout_s)
        return bool(running)


def stop_node(directory: Path, node_id: int, *, is_killed: bool = False) -> None:
    """Stop one node of a cluster, as a fault; `start` brings it back on the same port.

    Raises:
        LocalKafkaError: This node is not running.
    """
    directory = _directory(directory)
    with exclusive(directory / "lock"):
        cluster = _Cluster.load(directory)
        process = None if cluster is None else cluster.running().get(node_id)
        if process is None:
            raise LocalKafkaError(f"node {node_id} of {directory} is not running")
        if is_killed:
            process.signal(signal.SIGKILL)
        terminate([process], timeout_s=15.0)


@contextmanager
def local_kafka(
    directory: Path | None = None,
    brokers: int = 1,
    options: BrokerOptions | None = None,
) -> Iterator[RunningKafka]:
    """Run a cluster while the block lasts; it ends with this process, even where that is killed.

    Args:
        directory: Where the data lie; None for a temporary directory, which is deleted afterwards.
        brokers: As in `start`.
        options: As in `start`.
    """
    place = _directory(directory) if directory else Path(tempfile.mkdtemp(prefix="stream-iwae-kafka-")).resolve()
    is_temporary = directory is None
    # The guard reads a pipe that only we hold open: it ends when we do, however that comes about.
    code = (
        "import sys; sys.stdin.read(); from pathlib import Path; from stream_iwae.lab.local_kafka import _clean_up; "
        "_clean_up(Path(sys.argv[1]), sys.argv[2] == 'True')"
    )
    guard = subprocess.Popen(
        [sys.executable, "-c", code, str(place), str(is_temporary)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield start(place, brokers, options)
    finally:
        with guard:  # closes the pipe and waits
            _clean_up(place, is_temporary)


def _clean_up(place: Path, is_temporary: bool) -> None:
    stop(place)
    if is_temporary:
        shutil.rmtree(place, ignore_errors=True)


def _directory(directory: Path | None) -> Path:
    return (directory or cache_directory() / "kafka").absolute()


@dataclass(slots=True)
class _Cluster:
    """The contents of a directory. Whoever changes it holds the directory's lock."""

    directory: Path
    cluster_id: str
    nodes: tuple[Node, ...]
    processes: dict[int, OwnedProcess]  # the last known of each node

    @classmethod
    def create(cls, directory: Path, brokers: int) -> Self:
        # A UUID as Kafka writes it. It may not begin with a dash, which reads as an option.
        cluster_id = base64.urlsafe_b64encode(b"\x00" + os.urandom(15)).decode().rstrip("=")
        return cls(directory, cluster_id, free_nodes(brokers), {})

    @classmethod
    def load(cls, directory: Path) -> Self | None:
        try:
            stored = json.loads((directory / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        nodes = tuple(Node(**node) for node in stored["nodes"])
        processes = {int(node_id): OwnedProcess(**process) for node_id, process in stored["processes"].items()}
        return cls(directory, stored["cluster_id"], nodes, processes)

    def save(self) -> None:
        text = json.dumps(
            {
                "cluster_id": self.cluster_id,
                "nodes": [asdict(node) for node in self.nodes],
                "processes": {node_id: asdict(process) for node_id, process in self.processes.items()},
            },
            indent=2,
        )
        new = self.directory / "cluster.json.new"
        new.write_text(text)
        new.replace(self.directory / "cluster.json")

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def running(self) -> dict[int, OwnedProcess]:
        return {node_id: process for node_id, process in sorted(self.processes.items()) if process.is_running}

    def start_missing(self, installation: Installation, options: BrokerOptions, timeout_s: float) -> None:
        running = self.running()
        if not running and not all(is_free(n.port) and is_free(n.controller_port) for n in self.nodes):
            self.nodes = free_nodes(len(self.nodes))  # somebody has taken our ports meanwhile
        missing = [node for node in self.nodes if node.node_id not in running]
        self.save()
        try:
            self._format(missing, installation, options)
            for node in missing:
                self._spawn(node, installation, options)
            self._wait_until_it_answers(timeout_s)
        except BaseException:  # Ctrl-C as well: leave nothing behind
            terminate([self.processes[n.node_id] for n in missing if n.node_id in self.processes], timeout_s=10.0)
            raise

    def _home(self, node: Node) -> Path:
        return self.directory / f"node-{node.node_id}"

    def _format(self, nodes: Sequence[Node], installation: Installation, options: BrokerOptions) -> None:
        """Write the settings of `nodes` and, where a node is new, its empty storage."""
        formatting: list[tuple[Path, OwnedProcess]] = []
        for node in nodes:
            home = self._home(node)
            home.mkdir(parents=True, exist_ok=True)
            properties = home / "server.properties"
            properties.write_text(server_properties(node, self.nodes, home, options))
            if not (home / "data" / "meta.properties").exists():
                arguments = ("format", "-t", self.cluster_id, "-c", str(properties))
                command = installation.command(
                    "kafka.tools.StorageTool", *arguments, java_options=options.all_java_options
                )
                formatting.append((home, OwnedProcess.spawn(command, str(properties), home / "format.log")))
        while any(process.is_running for _, process in formatting):
            time.sleep(_POLL_S)
        for home, _ in formatting:
            if not (home / "data" / "meta.properties").exists():
                raise LocalKafkaError(f"Kafka could not prepare {home}/data:\n{_last_lines(home / 'format.log')}")

    def _spawn(self, node: Node, installation: Installation, options: BrokerOptions) -> None:
        home = self._home(node)
        log = home / "broker.log"
        if log.exists():
            log.replace(home / "broker.log.1")  # of the run before; bounded, yet there for a look after a fault
        properties = str(home / "server.properties")
        command = installation.command("kafka.Kafka", properties, java_options=options.all_java_options)
        self.processes[node.node_id] = OwnedProcess.spawn(command, properties, log)
        self.save()

    def _wait_until_it_answers(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not _answers(self.bootstrap_servers, [node.port for node in self.nodes]):
            ended = [node for node in self.nodes if not self.processes[node.node_id].is_running]
            if ended or time.monotonic() > deadline:
                node = ended[0] if ended else self.nodes[0]
                log = self._home(node) / "broker.log"
                what = "ended while starting" if ended else f"did not answer within {timeout_s:g} s"
                raise LocalKafkaError(f"Kafka node {node.node_id} {what}; the end of {log}:\n{_last_lines(log)}")
            time.sleep(_POLL_S)


def _answers(bootstrap_servers: str, ports: Sequence[int]) -> bool:
    """Say whether an administrator's client sees every broker, none of them fenced off by the controllers."""
    from kafka import KafkaAdminClient  # noqa: PLC0415  0.3 s, which `status` and the guard do not need
    from kafka.errors import KafkaError  # noqa: PLC0415

    if not all(_is_listening(port) for port in ports):  # spare us the client's own warnings
        return False
    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers, bootstrap_timeout_ms=2000)
    except KafkaError:
        return False
    try:
        brokers = admin.describe_cluster()["brokers"]
    except KafkaError:
        return False
    finally:
        admin.close()
    return len([broker for broker in brokers if not broker.get("is_fenced")]) == len(ports)


def _is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _last_lines(log: Path) -> str:
    try:
        with log.open(errors="replace") as lines:
            return "".join(deque(lines, _LOG_LINES)).rstrip()
    except FileNotFoundError:
        return "(there is no log)"
