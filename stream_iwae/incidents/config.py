"""When an incident opens, speaks again and ends."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_iwae.units import Milliseconds


class IncidentsConfig(BaseModel):
    """The life of an incident, in event time and in windows of its entity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str | None = Field(default=None, description="Named in every alert, where several parties share a topic.")
    min_windows: int = Field(default=1, ge=1, description="Anomalous windows that open an incident.")
    of_windows: int = Field(default=1, ge=1, le=100, description="They must be among this many consecutive ones.")
    update_interval: Milliseconds = Field(
        default=600_000, description="An open incident is told again at most this often, or when its severity rises."
    )
    quiet_windows: int = Field(default=3, ge=1, description="Consecutive quiet windows that end an incident.")
    exit_factor: float = Field(
        default=10.0,
        ge=1,
        allow_inf_nan=False,
        description="A window is quiet when its p-value exceeds this many times that of a warning.",
    )
    stale_after: Milliseconds = Field(
        default=3_600_000, gt=0, description="An incident ends this long after the last scored window of its entity."
    )
    max_open: int = Field(
        default=10_000, ge=10, description="Open incidents a partition; beyond, the oldest tenth is evicted."
    )

    @model_validator(mode="after")
    def _windows_suffice(self) -> Self:
        if self.min_windows > self.of_windows:
            raise ValueError(f"min_windows {self.min_windows} must not exceed of_windows {self.of_windows}")
        return self
