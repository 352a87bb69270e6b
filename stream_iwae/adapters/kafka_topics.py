"""The topics: ours are made where they are missing, the input never is."""

from typing import Any, Final

from kafka import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

from stream_iwae.adapters.kafka_client import client_settings, connected
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.errors import ConfigurationError, DeliveryError

_DAY_MS: Final = 86_400_000
_COMPACTED: Final = {"cleanup.policy": "compact", "segment.ms": "600000", "min.cleanable.dirty.ratio": "0.1"}


def ensure_topics(config: KafkaConfig, n_input_partitions: int) -> None:
    """Make the missing ones of our topics, and refuse those that do not fit.

    Raises:
        ConfigurationError: A topic exists with a number of partitions that cannot work.
        DeliveryError: The broker refuses to make one.
    """
    topics = config.topics
    wanted: dict[str, tuple[int, dict[str, str]]] = {
        topics.alerts: (n_input_partitions, {"retention.ms": str(30 * _DAY_MS)}),
        topics.dead_letters: (1, {"retention.ms": str(14 * _DAY_MS)}),
        topics.state: (n_input_partitions, _COMPACTED),
        topics.models: (1, _COMPACTED),
        topics.training: (1, {"retention.ms": str(7 * _DAY_MS), "retention.bytes": str(4 * 1024**3)}),
    }
    if topics.scores is not None:
        wanted[topics.scores] = (n_input_partitions, {"retention.ms": str(7 * _DAY_MS)})
    admin = connected(config, lambda: KafkaAdminClient(**client_settings(config, "admin")))
    try:
        for name, (partitions, settings) in wanted.items():
            _ensure(admin, name, partitions, settings, config.replication_factor)
        _check_partitions(admin, "kafka.topics.state", topics.state, n_input_partitions)
        _check_partitions(admin, "kafka.topics.training", topics.training, 1)
        _check_partitions(admin, "kafka.topics.models", topics.models, 1)
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
            "windows would be wrong. If the producer keys messages by the entity, set it to true; else key them so, or "
            "use a topic with one partition",
        )


def _ensure(admin: Any, name: str, partitions: int, settings: dict[str, str], replication: int) -> None:
    wanted = {"num_partitions": partitions, "replication_factor": replication, "configs": settings}
    try:
        admin.create_topics({name: wanted}, wait_for_metadata=True)
    except TopicAlreadyExistsError:
        return
    except KafkaError as error:
        raise DeliveryError(f"topic {name} could not be made: {error}") from error


def _check_partitions(admin: Any, key: str, name: str, wanted: int) -> None:
    found = len(admin.describe_topics([name])[0]["partitions"])
    if found != wanted:
        raise ConfigurationError(key, name, f"has {found} partitions and needs {wanted}; name another, or delete it")
