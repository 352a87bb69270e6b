"""What the brokers have to allow: one list for the documentation, for the check at the start and for the messages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.errors import (
    AuthorizationError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from stream_iwae.adapters.kafka_client import client_settings, connected, tls_context
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_probe import probe
from stream_iwae.errors import ConfigurationError

_REKEYED: Final = "kafka.topics.rekeyed"


@dataclass(frozen=True, slots=True)
class Permission:
    """One access-control entry: an operation on one named resource. Each implies DESCRIBE."""

    operation: str  # READ, WRITE or DESCRIBE, as Kafka names it
    resource: str  # TOPIC, GROUP or TRANSACTIONAL_ID
    name: str
    key: str  # of our configuration, which names the resource

    def __str__(self) -> str:
        return f"{self.operation} on {self.resource} {self.name}"


def service_permissions(config: KafkaConfig, rekeyed: str | None = None) -> tuple[Permission, ...]:
    """What `run` needs for itself; `rekeyed` is the topic that it reads in place of the events, if any."""
    if rekeyed is None:
        reads = [_topic(config, "READ", "events")]
    else:
        reads = [_topic(config, "DESCRIBE", "events"), Permission("READ", "TOPIC", rekeyed, _REKEYED)]
    wanted = [
        *reads,
        *(_topic(config, "WRITE", name) for name in ("alerts", "dead_letters")),
        *(_topic(config, operation, "state") for operation in ("READ", "WRITE")),
        _topic(config, "WRITE", "training"),
        _topic(config, "READ", "models"),
    ]
    if config.topics.scores is not None:
        wanted.append(_topic(config, "WRITE", "scores"))
    return (*wanted, read_group(config.group), write_transactions(f"{config.group}-{config.instance}"))


def trainer_permissions(config: KafkaConfig) -> tuple[Permission, ...]:
    """What `train` needs, which `run` starts as its child unless told otherwise."""
    return (
        _topic(config, "READ", "training"),
        *(_topic(config, operation, "models") for operation in ("READ", "WRITE")),
        read_group(f"{config.group}-trainer"),
        write_transactions(f"{config.group}-{config.instance}-trainer"),
    )


def rekeyer_permissions(config: KafkaConfig, rekeyed: str) -> tuple[Permission, ...]:
    """What `rekey` needs, which `run` starts as its child where `events.rekey` asks for it."""
    return (
        _topic(config, "READ", "events"),
        Permission("WRITE", "TOPIC", rekeyed, _REKEYED),
        _topic(config, "WRITE", "dead_letters"),
        read_group(f"{config.group}-rekeyer"),
        write_transactions(f"{config.group}-{config.instance}-rekeyer"),
    )


def topic_permission(config: KafkaConfig, operation: str, topic: str) -> Permission:
    """An operation on a topic, with the key that names it."""
    name = next((f"kafka.topics.{name}" for name, value in config.topics if value == topic), "kafka.topics")
    return Permission(operation, "TOPIC", topic, name)


def read_group(group: str) -> Permission:
    """To be a member of a group and commit for it."""
    return Permission("READ", "GROUP", group, "kafka.group")


def write_transactions(transactional_id: str) -> Permission:
    """To publish and commit as one transaction."""
    return Permission("WRITE", "TRANSACTIONAL_ID", transactional_id, "kafka.instance")


def _topic(config: KafkaConfig, operation: str, name: str) -> Permission:
    return Permission(operation, "TOPIC", getattr(config.topics, name), f"kafka.topics.{name}")


def principal(config: KafkaConfig) -> str:
    """Who we are to the broker."""
    if config.security_protocol.startswith("SASL"):
        return f"User:{config.sasl_username}"
    if config.ssl_certfile is not None:
        return f"the user of the certificate {config.ssl_certfile}"
    return "User:ANONYMOUS"


def lacking(config: KafkaConfig, missing: Sequence[Permission]) -> ConfigurationError:
    """The error that names what has to be allowed, and to whom; at least one permission."""
    listed = "; ".join(map(str, missing))
    return ConfigurationError(
        missing[0].key,
        missing[0].name,
        f"the broker does not allow {listed} to {principal(config)}; add {'this' if len(missing) == 1 else 'these'} to "
        "its access-control list (docs/operations.md, Security)",
    )


def check_permissions(config: KafkaConfig, wanted: Sequence[Permission]) -> None:
    """Ask the broker what we may do, before anything is read; topics that are not there yet are passed over.

    A transactional id cannot be asked about: its producer finds out when it begins.

    Raises:
        ConfigurationError: Something is not allowed, or the broker refuses us altogether.
        BrokerUnreachableError: No broker answers.
    """
    topics = [permission for permission in wanted if permission.resource == "TOPIC"]
    groups = [permission for permission in wanted if permission.resource == "GROUP"]
    probe(config, tls_context(config))  # at once; the client would try for all of `connect_timeout`
    admin = connected(config, lambda: KafkaAdminClient(**client_settings(config, "permissions")))
    try:
        missing = _missing_topics(admin, topics) + _missing_groups(admin, groups)
    finally:
        admin.close()
    if missing:
        raise lacking(config, missing)


def _missing_topics(admin: Any, wanted: Sequence[Permission]) -> list[Permission]:
    names = list(dict.fromkeys(permission.name for permission in wanted))
    found = {topic["name"]: topic for topic in admin.describe_topics(names)} if names else {}
    missing = []
    for permission in wanted:
        topic = found.get(permission.name, {})
        is_hidden = topic.get("error_code") == TopicAuthorizationFailedError.errno
        allowed = topic.get("authorized_operations")
        if is_hidden or (topic.get("error_code") == 0 and allowed and permission.operation not in allowed):
            missing.append(permission)
    return missing


def _missing_groups(admin: Any, wanted: Sequence[Permission]) -> list[Permission]:
    missing = []
    for permission in wanted:
        try:
            found = admin.describe_groups([permission.name])[permission.name]
        except GroupAuthorizationFailedError:
            missing.append(permission)
            continue
        except KafkaError:  # a new cluster has no coordinator for a moment: whoever joins is told
            continue
        allowed = found.get("authorized_operations")
        is_hidden = GroupAuthorizationFailedError.__name__ in str(found.get("error"))
        if is_hidden or (allowed and permission.operation not in allowed):
            missing.append(permission)
    return missing


def refused(config: KafkaConfig, error: AuthorizationError, permission: Permission) -> ConfigurationError:
    """What a refusal in the midst of work means."""
    if isinstance(error, GroupAuthorizationFailedError) and permission.resource != "GROUP":
        permission = read_group(config.group)
    return lacking(config, [permission])
