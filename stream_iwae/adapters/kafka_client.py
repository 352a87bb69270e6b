"""What every Kafka client of ours is told: brokers, security and time-outs; and how its errors are read."""

import ssl
from collections.abc import Callable
from typing import Any, Final, TypeVar

from kafka.errors import KafkaConfigurationError, KafkaError

from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.adapters.kafka_probe import probe
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError

T = TypeVar("T")
# As Java's clients. The client's own 30 s would also be how long it asks nobody else for the new leader of a partition.
_RECONNECT_MS: Final = 1_000


def client_settings(config: KafkaConfig, role: str) -> dict[str, Any]:
    """Settings common to consumers, producers and administrators."""
    settings: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap_servers,
        "client_id": f"{config.group}-{config.instance}-{role}",
        "security_protocol": config.security_protocol,
        "bootstrap_timeout_ms": config.connect_timeout,
        "reconnect_backoff_max_ms": _RECONNECT_MS,
    }
    if config.security_protocol.startswith("SASL"):
        settings |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": config.password(),
        }
    context = tls_context(config)
    if context is not None:
        settings["ssl_context"] = context
    return settings


def tls_context(config: KafkaConfig) -> ssl.SSLContext | None:
    """Whom we trust and who we are; None without TLS. Host names are always checked.

    Raises:
        ConfigurationError: A file cannot be read, or is none of its kind.
    """
    if not config.security_protocol.endswith("SSL"):
        return None
    key, path = "kafka.ssl_cafile", config.ssl_cafile
    try:
        context = ssl.create_default_context(cafile=str(path) if path else None)
        if config.ssl_certfile is not None:
            key, path = "kafka.ssl_certfile", config.ssl_certfile
            if config.ssl_keyfile is not None and not config.ssl_keyfile.is_file():
                key, path = "kafka.ssl_keyfile", config.ssl_keyfile
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, password=_no_password)
    except OSError as error:  # ssl.SSLError is one
        remedy = f"cannot be used ({error.strerror or error}); name a PEM file, with a key that has no pass phrase"
        raise ConfigurationError(key, str(path), remedy) from error
    return context


def _no_password() -> str:
    """Else the library would ask for a key's pass phrase on the terminal, and wait."""
    raise OSError("it has a pass phrase")


def connected(config: KafkaConfig, make: Callable[[], T]) -> T:
    """Make a client.

    Raises:
        BrokerUnreachableError: No broker answers.
        ConfigurationError: One answers and refuses us.
    """
    try:
        return make()
    except KafkaConfigurationError as error:
        raise ConfigurationError(
            "kafka", config.bootstrap_servers, f"the client refuses the settings: {error}"
        ) from error
    except (KafkaError, OSError) as error:
        probe(config, tls_context(config))  # tells a refusal from a broker that is away
        raise BrokerUnreachableError(
            f"a Kafka broker answers at {config.bootstrap_servers}, but those that it names do not; are their "
            f"advertised addresses right? ({error})"
        ) from error
