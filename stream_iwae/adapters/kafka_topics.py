"""The topics: ours are made where they are missing, the input never is."""

import re
from collections.abc import Collection
from typing import Any, Final, NamedTuple

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource
from kafka.errors import AuthorizationError, KafkaError, TopicAlreadyExistsError

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig, TopicsConfig
from stream_iwae.adapters.kafka_permissions import principal
from stream_iwae.errors import ConfigurationError, DeliveryError
from stream_iwae.rekey.config import RekeyConfig

_DAY_MS: Final = 86_400_000
_POLICY: Final = "cleanup.policy"
_COMPACTED: Final = {_POLICY: "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}
NO_TOPIC: Final = "there is no such topic; make it, or correct the name"
_NAME: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SAFE_REPLICATION: Final = 3  # from here on two replicas must have a record before it counts


class _Topic(NamedTuple):
    """What one of our topics must be like."""

    key: str  # in the section kafka.topics
    n_partitions: int
    settings: dict[str, str]
    is_any_number: bool = False  # of partitions: any would do


def ensure_topics(config: KafkaConfig, n_input_partitions: int, keys: Collection[str] | None = None) -> None:
    """Make the missing ones of our topics, and refuse those that do not fit.

    Args:
        config: Where the brokers are, and what the topics are called.
        n_input_partitions: Of the topic that the service reads.
        keys: Keys of `kafka.topics` to look at alone; None for all that are ours.

    Raises:
        ConfigurationError: A topic exists with partitions or a clean-up policy that cannot work.
        DeliveryError: The broker refuses to make one.
    """
    wanted = {
        name: topic
        for name, topic in _wanted(config.topics, n_input_partitions).items()
        if keys is None or topic.key in keys
    }
    admin = connected(config, lambda: KafkaAdminClient(**client_settings(config, "admin")))
    try:
        existing = set(admin.list_topics())
        for name, topic in wanted.items():
            if name not in existing:
                _make(admin, name, topic, config)
        for name, topic in wanted.items():
            if name in existing:
                _check(admin, name, topic)
    finally:
        admin.close()


def ensure_rekeyed_topic(config: KafkaConfig, rekey: RekeyConfig, name: str) -> int:
    """Make the re-keyed topic where it is missing; returns its number of partitions.

    Raises:
        ConfigurationError: It cannot be called so, there is no events topic, or it exists and does not fit.
        DeliveryError: The broker refuses to make it.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigurationError("kafka.topics.rekeyed", name, "is no name that a topic may have; give one here")
    admin = connected(config, lambda: KafkaAdminClient(**client_settings(config, "admin")))
    try:
        existing = set(admin.list_topics())
        events = config.topics.events
        if events not in existing:
            raise ConfigurationError("kafka.topics.events", events, NO_TOPIC)
        n_partitions = rekey.partitions or _n_partitions(admin, events)
        topic = _Topic("rekeyed", n_partitions, {"retention.ms": str(rekey.retention)}, rekey.partitions is None)
        if name in existing:
            _check(admin, name, topic)
        else:
            _make(admin, name, topic, config)
        return _n_partitions(admin, name)
    finally:
        admin.close()


def check_keying(topic: str, n_partitions: int, *, is_keyed: bool) -> None:
    """Refuse a topic whose entities may be scattered over partitions.

    Raises:
        ConfigurationError: It has several partitions and is not declared keyed by entity.
    """
    if n_partitions > 1 and not is_keyed:
        raise ConfigurationError(
            "events.keyed_by_entity",
            False,
            f"topic {topic!r} has {n_partitions} partitions, so the events of one entity may be in several and its "
            "windows would be wrong. If the producer keys messages by the entity, set it to true; else set "
            "events.rekey to true, and the service brings them together itself",
        )


def _wanted(topics: TopicsConfig, n_input_partitions: int) -> dict[str, _Topic]:
    same = n_input_partitions
    wanted = {
        topics.alerts: _Topic("alerts", same, {"retention.ms": str(30 * _DAY_MS)}, is_any_number=True),
        topics.dead_letters: _Topic("dead_letters", 1, {"retention.ms": str(14 * _DAY_MS)}, is_any_number=True),
        topics.state: _Topic("state", same, _COMPACTED),
        topics.models: _Topic("models", 1, _COMPACTED),
        topics.training: _Topic("training", 1, {"retention.ms": str(7 * _DAY_MS), "retention.bytes": str(4 * 1024**3)}),
    }
    if topics.scores is not None:
        wanted[topics.scores] = _Topic("scores", same, {"retention.ms": str(7 * _DAY_MS)}, is_any_number=True)
    return wanted


def _make(admin: Any, name: str, topic: _Topic, config: KafkaConfig) -> None:
    is_safe = config.replication_factor >= _SAFE_REPLICATION
    settings = topic.settings | ({"min.insync.replicas": "2"} if is_safe else {})
    wanted = {
        "num_partitions": topic.n_partitions,
        "replication_factor": config.replication_factor,
        "configs": settings,
    }
    try:
        try:
            admin.create_topics({name: wanted}, wait_for_metadata=True)
        except TopicAlreadyExistsError:  # another replica was quicker, and brokers may not have heard of it yet
            admin.wait_for_topics([name])
            _check(admin, name, topic)
    except AuthorizationError as error:
        raise ConfigurationError(
            f"kafka.topics.{topic.key}",
            name,
            f"is not there, and the broker does not let us make it; make it with {topic.n_partitions} partitions and "
            f"{topic.settings}, or allow CREATE on TOPIC {name} to {principal(config)}",
        ) from error
    except KafkaError as error:
        raise DeliveryError(f"topic {name} could not be made: {error}") from error


def _n_partitions(admin: Any, name: str) -> int:
    return len(admin.describe_topics([name])[0]["partitions"])


def _check(admin: Any, name: str, topic: _Topic) -> None:
    key = f"kafka.topics.{topic.key}"
    found = _n_partitions(admin, name)
    if found != topic.n_partitions and not topic.is_any_number:
        raise ConfigurationError(
            key, name, f"has {found} partitions and needs {topic.n_partitions}; name another, or delete it"
        )
    try:
        asked = [ConfigResource("TOPIC", name, [_POLICY])]
        found_settings = admin.describe_configs(asked, config_filter="all")["topic"].get(name, {})
    except AuthorizationError:
        return
    if _POLICY not in found_settings:  # describing settings is a right of its own, which the service can do without
        return
    policy = found_settings[_POLICY]["value"]
    needed = topic.settings.get(_POLICY, "delete")
    if policy != needed:
        raise ConfigurationError(
            key, name, f"has {_POLICY}={policy}, which would lose data; set it to {needed}, or name another topic"
        )
