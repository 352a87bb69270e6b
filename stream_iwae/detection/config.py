"""How many incidents an operator can look at, and what makes some of them graver."""

import re
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

_PER_DAY: Final = {
    "min": 1440.0,
    "minute": 1440.0,
    "h": 24.0,
    "hour": 24.0,
    "d": 1.0,
    "day": 1.0,
    "w": 1 / 7,
    "week": 1 / 7,
}
_RATE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*([a-zA-Z]+)\s*")


def parse_rate_per_day(value: object) -> float:
    """Turn ``"20/day"`` or ``"5/h"`` into a rate a day; a bare number is a rate a day.

    >>> parse_rate_per_day("5/h")
    120.0

    Raises:
        ValueError: The text is no number with one of the units.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    matched = _RATE.fullmatch(value) if isinstance(value, str) else None
    if matched is None or matched[2].lower() not in _PER_DAY:
        raise ValueError(f"need a rate such as 20/day, 5/h or 10/week, got {value!r}")
    return float(matched[1]) * _PER_DAY[matched[2].lower()]


RatePerDay = Annotated[float, BeforeValidator(parse_rate_per_day), Field(gt=0, allow_inf_nan=False)]
"""A rate a day, written with its unit in the configuration."""


class DetectionConfig(BaseModel):
    """From p-values to severities."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: RatePerDay = Field(default=20.0, description="False alarms that are acceptable, such as 20/day or 5/h.")
    major_share: float = Field(default=0.1, gt=0, lt=1, description="Share of the budget for severity major.")
    critical_share: float = Field(default=0.01, gt=0, lt=1, description="Share of the budget for severity critical.")
    low_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of the budget for windows that are too quiet, with a score below ordinary ones; 0: none.",
    )
    max_p_value: float = Field(
        default=0.01,
        gt=0,
        le=0.1,
        description="A window with a higher p-value is never anomalous, however few windows a day has.",
    )
    top_features: int = Field(default=5, ge=1, le=50, description="Features that an alert names at most.")
    min_excesses: int = Field(
        default=50,
        ge=10,
        description="Outermost scores that a tail is fitted to; the p-values of all others are observed shares.",
    )

    @model_validator(mode="after")
    def _shares_descend(self) -> Self:
        if self.critical_share > self.major_share:
            raise ValueError(f"critical_share {self.critical_share} must not exceed major_share {self.major_share}")
        return self

    def warning_p_value(self, windows_per_day: float) -> float:
        """The p-value at or below which a window is anomalous, so that the budget holds."""
        return min(self.budget / windows_per_day, self.max_p_value)
