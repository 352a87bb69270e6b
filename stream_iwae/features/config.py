"""Which numbers describe a window: aggregates of its events, ratios of aggregates, and the time of day."""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.windows.aggregates import AggregateConfig

_KIND_OF_AGGREGATE: Final = {
    "count": Kind.MAGNITUDE,
    "distinct": Kind.MAGNITUDE,
    "share": Kind.RATIO,
    "top_share": Kind.RATIO,
    "entropy": Kind.GAUGE,
}
_NEEDS_NUMBERS: Final = ("sum", "mean", "std", "min", "max", "quantile", "rate")


class FeatureConfig(BaseModel):
    """One feature: give `aggregate`, or `ratio`, or `time`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    aggregate: str | None = Field(None, description="count, sum, mean, std, min, max, quantile, distinct, entropy, ...")
    field: str | None = Field(None, description="The event field that is aggregated")
    q: float | None = Field(None, description="Of a quantile")
    where: dict[str, Any] | None = Field(None, description="Only events that meet this condition")
    ratio: tuple[str, str] | None = Field(None, description="Numerator and denominator, other features' names")
    time: Literal["hour_of_day", "day_of_week"] | None = Field(None, description="Phase of the window's start, UTC")
    kind: Kind | None = Field(None, description="Picks transform and likelihood; by default from the aggregate")
    unit: str = ""
    output: bool = Field(True, description="False: only an operand of ratios")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.aggregate, self.ratio, self.time)) != 1:
            raise ValueError(f"feature {self.name!r} needs exactly one of aggregate, ratio, time")
        if self.aggregate is not None:
            self.as_aggregate()
        return self

    def as_aggregate(self) -> AggregateConfig:
        """The aggregate that the windows compute for this feature."""
        given = {"name": self.name, "aggregate": self.aggregate, "field": self.field, "q": self.q, "where": self.where}
        return AggregateConfig.model_validate({key: value for key, value in given.items() if value is not None})

    def resolved_kind(self, *, is_text: bool = False) -> Kind:
        """The kind given, or the one that the source suggests."""
        if self.kind is not None:
            return self.kind
        if self.time is not None:
            return Kind.CYCLIC
        if self.aggregate == "last" and is_text:
            return Kind.CATEGORY
        return _KIND_OF_AGGREGATE.get(self.aggregate or "", Kind.MAGNITUDE)


class FeaturesConfig(BaseModel):
    """Section `features`: a preset, a list, or both; a listed feature replaces the preset's of the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = Field(None, description="flows-per-source")
    list: tuple[FeatureConfig, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"list": data} if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        features = self.features
        if not any(feature.output for feature in features):
            raise ValueError("need at least one feature, or a preset")
        names = [feature.name for feature in features]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"features repeat: {', '.join(sorted(repeated))}")
        operands = {feature.name for feature in features if feature.aggregate is not None}
        for feature in features:
            for operand in feature.ratio or ():
                if operand not in operands:
                    raise ValueError(f"feature {feature.name!r} needs an aggregate {operand!r}, which is not there")
        return self

    @property
    def features(self) -> tuple[FeatureConfig, ...]:
        """All features, those of the preset first."""
        listed = {feature.name for feature in self.list}
        preset = load_preset(self.preset) if self.preset else ()
        return (*(feature for feature in preset if feature.name not in listed), *self.list)


def load_preset(name: str) -> tuple[FeatureConfig, ...]:
    """Read a shipped list of features.

    Raises:
        ValueError: There is none of that name.
    """
    folder = resources.files("stream_iwae.features") / "presets"
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    if name not in names:
        raise ValueError(f"no preset {name!r}; there are {', '.join(names)}")
    listed = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    return tuple(FeatureConfig.model_validate(feature) for feature in listed)


def aggregates(config: FeaturesConfig) -> tuple[AggregateConfig, ...]:
    """What the windows have to compute."""
    return tuple(feature.as_aggregate() for feature in config.features if feature.aggregate is not None)


def needed_fields(config: FeaturesConfig) -> frozenset[str]:
    """The event fields that the features read."""
    fields = set()
    for aggregate in aggregates(config):
        if aggregate.field is not None:
            fields.add(aggregate.field)
        if aggregate.where is not None:
            fields.add(aggregate.where.field)
    return frozenset(fields)


def schema(config: FeaturesConfig, field_types: Mapping[str, str]) -> FeatureSchema:
    """Names, kinds and units of the features that reach the model."""
    features = [feature for feature in config.features if feature.output]
    return FeatureSchema(
        tuple(feature.name for feature in features),
        tuple(feature.resolved_kind(is_text=field_types.get(feature.field or "") == "text") for feature in features),
        tuple(feature.unit for feature in features),
    )


def check_fields(config: FeaturesConfig, field_types: Mapping[str, str]) -> None:
    """Check that every feature reads a field that the events have, of a type that fits.

    Raises:
        ConfigurationError: One does not; names the feature and what there is.
    """
    for name in sorted(needed_fields(config)):
        if name not in field_types:
            raise ConfigurationError("features", name, f"no such event field; there are {', '.join(field_types)}")
    for feature in config.features:
        if feature.aggregate in _NEEDS_NUMBERS and field_types.get(feature.field or "number") != "number":
            raise ConfigurationError(
                f"features.{feature.name}", feature.aggregate, f"needs a number, but {feature.field!r} is text"
            )
