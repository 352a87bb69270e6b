"""Section `http`: where metrics, health and status are served."""

from pydantic import BaseModel, ConfigDict, Field

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
