"""What every client of confluent-kafka is told, in the words of librdkafka; and how its first errors are read."""

import time
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException

from stream_iwae.adapters.kafka_client import tls_context
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_permissions import Permission, lacking, read_group, topic_permission
from stream_iwae.adapters.kafka_probe import probe
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError, StreamIwaeError

REFUSED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001  # the client's own name for a public number
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError._SSL,  # noqa: SLF001
    }
)
_ASK_S: Final = 1.0


class Errors:
    """What a client said of its connections, for whoever has to tell people why nothing works."""

    def __init__(self) -> None:
        self.refusal: str | None = None

    def __call__(self, error: KafkaError) -> None:
        """Take an error that belongs to no request."""
        if error.code() in REFUSED:
            self.refusal = error.str()


def confluent_settings(config: KafkaConfig, role: str, errors: Errors) -> dict[str, Any]:
    """Settings common to consumers and producers."""
    settings: dict[str, Any] = {
        "bootstrap.servers": config.bootstrap_servers,
        "client.id": f"{config.group}-{config.instance}-{role}",
        "security.protocol": config.security_protocol,
        "error_cb": errors,
        "log_level": 3,  # its warnings come as errors of the requests that they concern
    }
    if config.security_protocol.startswith("SASL"):
        settings |= {
            "sasl.mechanism": config.sasl_mechanism,
            "sasl.username": config.sasl_username,
            "sasl.password": config.password(),
        }
    for key, path in (
        ("ssl.ca.location", config.ssl_cafile),
        ("ssl.certificate.location", config.ssl_certfile),
        ("ssl.key.location", config.ssl_keyfile),
    ):
        if path is not None and config.security_protocol.endswith("SSL"):
            settings[key] = str(path)
    return settings


def n_partitions_of(consumer: Consumer, topic: str, config: KafkaConfig, errors: Errors) -> int:
    """How many partitions a topic has, 0 where there is none: the first question, which shows whether a broker answers.

    Raises:
        BrokerUnreachableError: No broker answers.
        ConfigurationError: One answers and refuses us.
    """
    deadline_s = time.monotonic() + config.connect_timeout / 1000
    while True:
        try:
            found = consumer.list_topics(topic, timeout=_ASK_S).topics[topic]
        except KafkaException as error:
            consumer.poll(0)  # serves the errors of connections
            if errors.refusal is not None or time.monotonic() >= deadline_s:
                raise unconnected(config, errors.refusal or str(error)) from error
            continue
        if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise lacking(config, [topic_permission(config, "READ", topic)])
        return 0 if found.error is not None else len(found.partitions)


def unconnected(config: KafkaConfig, said: str) -> StreamIwaeError:
    """Why there is no connection: what is wrong with ours if a broker answers, else that none does."""
    try:
        probe(config, tls_context(config))
    except (BrokerUnreachableError, ConfigurationError) as error:
        return error
    return BrokerUnreachableError(
        f"a Kafka broker answers at {config.bootstrap_servers}, but those that it names do not; are their "
        f"advertised addresses right? ({said})"
    )


def refusal(config: KafkaConfig, error: KafkaError, permission: Permission) -> ConfigurationError | None:
    """The error that names what is not allowed; None where `error` is another."""
    match error.code():
        case KafkaError.GROUP_AUTHORIZATION_FAILED:
            return lacking(config, [read_group(config.group)])
        case KafkaError.TOPIC_AUTHORIZATION_FAILED | KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            return lacking(config, [permission])
        case _:
            return None
