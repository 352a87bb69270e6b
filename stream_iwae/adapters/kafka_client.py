"""What every Kafka client of ours is told: brokers, security and time-outs; and how its errors are read."""

import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from kafka.errors import (
    AuthorizationError,
    KafkaConfigurationError,
    KafkaError,
    KafkaTimeoutError,
    SaslAuthenticationFailedError,
)

from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError

T = TypeVar("T")


def client_settings(config: KafkaConfig, role: str) -> dict[str, Any]:
    """Settings common to consumers, producers and administrators."""
    settings: dict[str, Any] = {
        "bootstrap_servers": config.bootstrap_servers,
        "client_id": f"{config.group}-{config.instance}-{role}",
        "security_protocol": config.security_protocol,
        "bootstrap_timeout_ms": config.connect_timeout,
    }
    if config.security_protocol.startswith("SASL"):
        settings |= {
            "sasl_mechanism": config.sasl_mechanism,
            "sasl_plain_username": config.sasl_username,
            "sasl_plain_password": config.password(),
        }
    if config.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=str(config.ssl_cafile) if config.ssl_cafile else None)
        if config.ssl_certfile is not None:
            context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile)
        settings["ssl_context"] = context
    return settings


def connected(config: KafkaConfig, make: Callable[[], T]) -> T:
    """Make a client.

    Raises:
        BrokerUnreachableError: No broker answers.
        ConfigurationError: One answers and refuses us.
    """
    try:
        return make()
    except (SaslAuthenticationFailedError, AuthorizationError) as error:
        raise ConfigurationError(
            "kafka.sasl_username", config.sasl_username, f"the broker refuses it: {error}"
        ) from error
    except KafkaConfigurationError as error:
        raise ConfigurationError(
            "kafka", config.bootstrap_servers, f"the client refuses the settings: {error}"
        ) from error
    except (KafkaTimeoutError, KafkaError, OSError) as error:
        hint = "is it running, and is the address right?"
        if config.security_protocol != "PLAINTEXT":
            hint += " A wrong password or certificate also ends like this."
        raise BrokerUnreachableError(
            f"no Kafka broker answers at {config.bootstrap_servers}; {hint} ({error})"
        ) from error
