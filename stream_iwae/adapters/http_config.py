"""Section `http`: where metrics, health and status are served, and to whom."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from stream_iwae.adapters.secret_file import read_secret
from stream_iwae.units import Milliseconds


class HttpConfig(BaseModel):
    """Section `http`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    host: str = Field("127.0.0.1", description="Address to listen on; other machines see nothing by default")
    port: int = Field(
        9109, ge=0, le=65533, description="The trainer takes the next one, the re-keyer the one after; 0: free ones"
    )
    stalled_after: Milliseconds = Field(120_000, description="/healthz fails when the loop is stuck for so long")
    token: SecretStr | None = Field(None, description="Asked for (Authorization: Bearer) by all but /healthz")
    token_file: Path | None = Field(None, description="The token in a file")
    tls_certfile: Path | None = Field(None, description="PEM certificate, and the chain above it; serves HTTPS")
    tls_keyfile: Path | None = Field(None, description="PEM key of it, without a pass phrase")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.tls_certfile is None) != (self.tls_keyfile is None):
            raise ValueError("tls_certfile and tls_keyfile belong together; set both or none")
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are the same; set one")
        if self.token is not None and not self.token.get_secret_value().strip():
            raise ValueError("token is empty; leave it out to ask for none")
        return self

    def secret(self) -> str | None:
        """The token, from the configuration or its file.

        Raises:
            ConfigurationError: The file cannot be read, or is empty.
        """
        if self.token_file is not None:
            return read_secret(self.token_file, "http.token_file")
        return self.token.get_secret_value().strip() if self.token else None

    @property
    def is_open(self) -> bool:
        """Whether other machines can read everything: there is no token, and it is not this machine's own address."""
        if self.token is not None or self.token_file is not None:
            return False
        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"
