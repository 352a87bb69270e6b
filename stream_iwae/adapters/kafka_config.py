"""Section `kafka`: where the brokers are, who we are, and what the topics are called."""

import socket
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from stream_iwae.adapters.secret_file import read_secret
from stream_iwae.units import Bytes, Milliseconds


class TopicsConfig(BaseModel):
    """Topic names. The service makes all but `events`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    events: str = Field(description="What is read; made by whoever writes it")
    alerts: str = "stream-iwae.alerts"
    dead_letters: str = "stream-iwae.dead-letters"
    state: str = "stream-iwae.state"
    training: str = "stream-iwae.training"
    models: str = "stream-iwae.models"
    rekeyed: str | None = Field(None, description="Events keyed by entity, where `events.rekey` asks for it")
    scores: str | None = Field(None, description="Scores of all windows; none are published without a name")


class KafkaConfig(BaseModel):
    """Section `kafka`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bootstrap_servers: str = Field(description="host:port, several separated by commas")
    client: Literal["kafka-python", "confluent"] = Field(
        "kafka-python", description="confluent: confluent-kafka, from the extra `fast`; more events on the same core"
    )
    group: str = Field("stream-iwae", min_length=1, description="Consumer group; replicas share it")
    instance: str = Field(
        default_factory=socket.gethostname, min_length=1, description="Unique and lasting name of this replica"
    )
    topics: TopicsConfig
    start: Literal["history", "earliest", "latest"] = Field(
        "history", description="Where a group without commits begins: learn from history, read all, or only what comes"
    )
    replication_factor: int = Field(1, ge=1, description="Of the topics that the service makes")
    commit_interval: Milliseconds = 500
    max_poll_records: int = Field(10_000, ge=1)
    session_timeout: Milliseconds = 45_000
    max_poll_interval: Milliseconds = 300_000
    transaction_timeout: Milliseconds = 60_000
    connect_timeout: Milliseconds = 15_000
    max_unpacked: Bytes = Field(
        67_108_864, ge=1_048_576, description="Compressed batches that unpack to more are passed over; not by confluent"
    )
    max_message: Bytes = Field(1_048_576, description="Largest record that the brokers take")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _joined(cls, value: Any) -> Any:
        is_list = isinstance(value, list) and all(isinstance(part, str) for part in value)
        return ",".join(value) if is_list else value

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if self.security_protocol.startswith("SASL") and not (
            self.sasl_mechanism and self.sasl_username and (self.sasl_password or self.sasl_password_file)
        ):
            raise ValueError("SASL needs sasl_mechanism, sasl_username, and sasl_password or sasl_password_file")
        if self.sasl_mechanism == "PLAIN" and self.security_protocol == "SASL_PLAINTEXT":
            raise ValueError("sasl_mechanism PLAIN would send the password in the clear; use SASL_SSL")
        return self

    def password(self) -> str | None:
        """The SASL password, from the configuration or its file.

        Raises:
            ConfigurationError: The file cannot be read, or is empty.
        """
        if self.sasl_password_file is not None:
            return read_secret(self.sasl_password_file, "kafka.sasl_password_file")
        return self.sasl_password.get_secret_value() if self.sasl_password else None
