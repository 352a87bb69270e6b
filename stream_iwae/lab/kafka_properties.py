"""What a node of the local cluster is told: server.properties."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from typing import Final

_FIRST_PORT, _LAST_PORT = 20_000, 32_000  # below the range from which systems give ports to clients


@dataclass(frozen=True, slots=True)
class SecureListeners:
    """What one broker offers beside its plain listener, with access control for all who come this way.

    The plain listener of 127.0.0.1 stays, for whoever administers the cluster: it is nobody's, and may do everything.
    """

    sasl_port: int  # SASL_SSL with SCRAM-SHA-512
    tls_port: int  # SSL; clients show a certificate, whose common name is the user
    keystore: Path  # PEM: the broker's key as PKCS#8, for Java reads no other, then its certificates
    truststore: Path  # PEM: the authority of the brokers and of the clients

    @property
    def listeners(self) -> str:
        """As server.properties lists them."""
        return f"SASL_SSL://127.0.0.1:{self.sasl_port},SSL://127.0.0.1:{self.tls_port}"

    @property
    def properties(self) -> dict[str, str]:
        """What else they need."""
        return {
            "listener.security.protocol.map": f"{_PROTOCOLS},SASL_SSL:SASL_SSL,SSL:SSL",
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.truststore),
            "listener.name.ssl.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """How each broker is run."""

    heap: str = "512m"
    # C1 alone starts sooner. A benchmark of throughput wants the second compiler too: pass () here.
    java_options: tuple[str, ...] = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
    properties: Mapping[str, str] = field(default_factory=dict)  # over or beside our own
    log_level: str = "info"
    secure: SecureListeners | None = None  # for a cluster of one broker

    @property
    def all_java_options(self) -> tuple[str, ...]:
        """The options of the Java machine, in order."""
        return (
            f"-Xmx{self.heap}",
            *self.java_options,
            "-XX:-UsePerfData",  # leave no /tmp/hsperfdata_* behind
            f"-Dorg.slf4j.simpleLogger.defaultLogLevel={self.log_level}",
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One broker, which is a controller as well."""

    node_id: int  # from 1
    port: int
    controller_port: int


_PROTOCOLS: Final = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"
_OURS: Final = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": _PROTOCOLS,
    "inter.broker.listener.name": "PLAINTEXT",
    # Few internal partitions and threads, and a small buffer for compaction (128 MB by default): a
    # fast start and 60 MB less memory.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "group.initial.rebalance.delay.ms": "0",
    # As most clusters in production: a misspelt topic is an error and not a new topic.
    "auto.create.topics.enable": "false",
}


def server_properties(node: Node, nodes: Sequence[Node], directory: Path, options: BrokerOptions) -> str:
    """Write server.properties of `node`, which is one of `nodes`, with its data below `directory`."""
    replicas = min(3, len(nodes))
    in_sync = 2 if replicas == 3 else 1
    listeners = f"PLAINTEXT://127.0.0.1:{node.port}"
    if options.secure is not None:
        listeners += f",{options.secure.listeners}"
    values = {
        **_OURS,
        "node.id": str(node.node_id),
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": listeners,
        # Voters by name: unlike a dynamic quorum, a stopped cluster may come back on other ports.
        "controller.quorum.voters": ",".join(f"{n.node_id}@127.0.0.1:{n.controller_port}" for n in nodes),
        "log.dirs": str(directory / "data"),
        "default.replication.factor": str(replicas),
        "min.insync.replicas": str(in_sync),
        "offsets.topic.replication.factor": str(replicas),
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": str(in_sync),
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": str(in_sync),
        **(options.secure.properties if options.secure is not None else {}),
        **options.properties,
    }
    # Properties files take a backslash for an escape.
    return "".join(f"{key}={value}\n" for key, value in values.items()).replace("\\", "\\\\")


def free_nodes(n_nodes: int) -> tuple[Node, ...]:
    """Choose two free ports of 127.0.0.1 for each of `n_nodes`."""
    random = SystemRandom()
    ports: set[int] = set()
    while len(ports) < 2 * n_nodes:
        port = random.randrange(_FIRST_PORT, _LAST_PORT)
        if is_free(port):
            ports.add(port)
    chosen = iter(ports)
    return tuple(Node(node_id, next(chosen), next(chosen)) for node_id in range(1, n_nodes + 1))


def is_free(port: int) -> bool:
    """Say whether nobody listens on `port` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: past a closed connection
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
