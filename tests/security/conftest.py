"""A secured Kafka beside the plain one: SCRAM and mutual TLS, a user without rights, and the means to give it some."""

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)
from kafka.admin import UserScramCredentialUpsertion as Credential

from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.lab.kafka_properties import free_nodes
from stream_iwae.lab.local_kafka import BrokerOptions, SecureListeners, local_kafka

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `secured_user` is theirs alone

from secured_user import PASSWORD, USER

PRINCIPAL = f"User:{USER}"


@dataclass(frozen=True)
class Certificates:
    """PEM files of one authority, and of another that nobody trusts."""

    authority: Path
    other_authority: Path
    broker: Path  # key and certificates in one file
    client: Path
    client_key: Path
    stranger: Path  # signed by the other authority
    stranger_key: Path


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    trustme = pytest.importorskip("trustme")
    home = tmp_path_factory.mktemp("certificates")
    authority, other = trustme.CA(), trustme.CA()

    def write(name, *blobs):
        path = home / f"{name}.pem"
        path.write_bytes(b"".join(blob.bytes() if hasattr(blob, "bytes") else blob for blob in blobs))
        return path

    def pkcs8(issued):
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    broker = authority.issue_cert("127.0.0.1", "localhost")
    client = authority.issue_cert("svc.example", common_name=USER)
    stranger = other.issue_cert("svc.example", common_name=USER)
    return Certificates(
        authority=write("authority", authority.cert_pem),
        other_authority=write("other", other.cert_pem),
        broker=write("broker", pkcs8(broker), *broker.cert_chain_pems),
        client=write("client", *client.cert_chain_pems),
        client_key=write("client-key", pkcs8(client)),
        stranger=write("stranger", *stranger.cert_chain_pems),
        stranger_key=write("stranger-key", pkcs8(stranger)),
    )


@dataclass(frozen=True)
class Secured:
    """The addresses of the listeners."""

    plain: str  # everything is allowed here
    sasl: str
    tls: str


@pytest.fixture(scope="session")
def secured(certificates):
    [ports] = free_nodes(1)
    listeners = SecureListeners(ports.port, ports.controller_port, certificates.broker, certificates.authority)
    with local_kafka(options=BrokerOptions(secure=listeners)) as running:
        yield Secured(running.bootstrap_servers, f"127.0.0.1:{listeners.sasl_port}", f"127.0.0.1:{listeners.tls_port}")


@pytest.fixture(scope="session")
def administrator(secured):
    admin = KafkaAdminClient(bootstrap_servers=secured.plain)
    admin.alter_user_scram_credentials([Credential(USER, "SCRAM-SHA-512", PASSWORD)])
    yield admin
    admin.close()


@pytest.fixture
def rights(administrator):
    """Give and take what the user may do: ``rights.set(permissions)``."""
    anything = ResourcePatternFilter(ResourceType.ANY, None, ACLResourcePatternType.ANY)
    everything = ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, anything)

    class Rights:
        def set(self, permissions):
            administrator.delete_acls([everything])
            acls = [
                ACL(
                    PRINCIPAL,
                    "*",
                    ACLOperation[permission.operation],
                    ACLPermissionType.ALLOW,
                    ResourcePattern(ResourceType[permission.resource], permission.name),
                )
                for permission in permissions
            ]
            if acls:
                administrator.create_acls(acls)

    yield Rights()
    administrator.delete_acls([everything])


@pytest.fixture
def secure_settings(secured, certificates, administrator):
    """The security part of the section `kafka`, by the way in: scram or mutual-tls."""

    def settings(way):
        if way == "scram":
            return {
                "bootstrap_servers": secured.sasl,
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_username": USER,
                "sasl_password": PASSWORD,
                "ssl_cafile": str(certificates.authority),
            }
        return {
            "bootstrap_servers": secured.tls,
            "security_protocol": "SSL",
            "ssl_cafile": str(certificates.authority),
            "ssl_certfile": str(certificates.client),
            "ssl_keyfile": str(certificates.client_key),
        }

    return settings


@pytest.fixture
def secure_config(secure_settings):
    """A KafkaConfig; every test has topics and a group of its own."""
    name = f"secure-{secrets.token_hex(4)}"

    def make(way="scram", **settings):
        outputs = ("alerts", "dead_letters", "state", "training", "models", "scores")
        wanted = {
            "group": name,
            "instance": "one",
            "topics": {"events": f"{name}.events", **{output: f"{name}.{output}" for output in outputs}},
            "session_timeout": "6s",
            "transaction_timeout": "5s",
            "connect_timeout": "3s",
            **secure_settings(way),
            **settings,
        }
        return KafkaConfig.model_validate(wanted)

    return make
