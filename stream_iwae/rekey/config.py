"""Section `rekey`: how events are brought to the partition of their entity, where `events.rekey` asks for it."""

from pydantic import BaseModel, ConfigDict, Field

from stream_iwae.units import Milliseconds


class RekeyConfig(BaseModel):
    """Section `rekey`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    partitions: int | None = Field(
        None, ge=1, description="Of the re-keyed topic where it has to be made; null: as many as the events topic has"
    )
    commit_interval: Milliseconds = Field(
        100,
        description="Longest time between two transactions: each holds one message a partition of the re-keyed topic",
    )
    idle_after: Milliseconds = Field(
        30_000, gt=0, description="Wall time; a partition that is quiet for so long holds back no windows"
    )
    forget_after: Milliseconds = Field(
        600_000, gt=0, description="Nor does one of which nothing is heard for so long while others are"
    )
    retention: Milliseconds = Field(86_400_000, gt=0, description="Of the re-keyed topic where it has to be made")
