"""Section `windows`: size and grace, and how long the absence of an entity is news."""

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_iwae.units import Milliseconds


class WindowsConfig(BaseModel):
    """Section `windows`; durations are of event time unless they say otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tumbling", "hopping", "record"] = "tumbling"
    size: Milliseconds = Field(60_000, gt=0)
    advance: Milliseconds | None = Field(None, gt=0, description="Of hopping windows; at most the size")
    grace: Milliseconds = Field(5_000, description="How far the watermark trails the highest event time")
    idle_after: Milliseconds = Field(
        0, description="A partition that is quiet for so long (wall time) moves its watermark with the clock; 0: never"
    )
    max_entities: int = Field(100_000, ge=1, description="A pane; later ones are folded into `other`")
    max_distinct: int = Field(65_536, ge=2, description="Values counted for an entity and a pane of many events")
    absent_windows: int = Field(3, ge=0, le=16, description="Empty windows of an entity that fell silent; 0: none")
    present_history: int = Field(10, ge=1, le=48, description="Windows before an entity can be missed")
    present_share: float = Field(0.8, gt=0, le=1, description="Share of its windows that a missed entity was there")
    source_share: float = Field(
        0.8, gt=0, le=1, description="Share of a source's entities whose silence is the source's"
    )
    source_min_entities: int = Field(5, ge=2, description="A source with fewer is not judged as a whole")

    @model_validator(mode="after")
    def _advance_fits(self) -> Self:
        if (self.kind == "hopping") != (self.advance is not None):
            raise ValueError("advance belongs to hopping windows, and they need it")
        if self.advance is not None and self.advance > self.size:
            raise ValueError("advance is longer than size, so events would be lost between windows")
        return self

    @property
    def step(self) -> int:
        """From one window's end to the next, in milliseconds."""
        return self.advance or self.size

    @property
    def pane(self) -> int:
        """Size of a pane in milliseconds: windows are made of whole panes."""
        return math.gcd(self.size, self.step)
