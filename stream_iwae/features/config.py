"""Which numbers describe a window: aggregates of its events, ratios of aggregates, and the time of day."""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_iwae.batches import FeatureSchema, Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.features.profiles import LOGARITHMIC
from stream_iwae.windows.aggregates import NEEDS_NUMBERS, AggregateConfig

_KIND_OF_AGGREGATE: Final = {
    "count": Kind.MAGNITUDE,
    "distinct": Kind.MAGNITUDE,
    "share": Kind.RATIO,
    "top_share": Kind.RATIO,
    "entropy": Kind.GAUGE,
}
_WITHOUT_PROFILE: Final = frozenset({Kind.CATEGORY, Kind.CYCLIC})
_WITH_RECENT: Final = frozenset({Kind.GAUGE, Kind.RATIO, Kind.NUMBER})
_PROFILE_SUFFIX, _RECENT_SUFFIX = "_vs_own", "_vs_recent"
_TIMES, _SPREADS = "times its usual limit", "spreads beyond its usual limit"  # units, as alerts show them


class FeatureConfig(BaseModel):
    """One feature: give `aggregate`, or `per_event`, or `ratio`, or `time`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    aggregate: str | None = Field(None, description="count, sum, mean, std, min, max, quantile, distinct, entropy, ...")
    field: str | None = Field(None, description="The event field that is aggregated")
    q: float | None = Field(None, description="Of a quantile")
    where: dict[str, Any] | None = Field(None, description="Only events that meet this condition")
    past_windows: int | None = Field(None, description="Of a surge: windows over which the past fades; 10080")
    per_event: str | None = Field(None, description="Of `record` windows: an event field as it is")
    ratio: tuple[str, str] | None = Field(None, description="Numerator and denominator, other features' names")
    time: Literal["hour_of_day", "day_of_week"] | None = Field(None, description="Phase of the window's start, UTC")
    kind: Kind | None = Field(None, description="Picks transform and likelihood; by default from the aggregate")
    unit: str = ""
    output: bool = Field(True, description="False: only an operand of ratios, or of its own past")
    profile: bool = Field(False, description="Adds `<name>_vs_own`: how far it lies beyond the entity's usual range")
    recent: bool = Field(False, description="Of a gauge: adds `<name>_vs_recent`, its step from the last windows' mean")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(given is not None for given in (self.aggregate, self.per_event, self.ratio, self.time)) != 1:
            raise ValueError(f"feature {self.name!r} needs exactly one of aggregate, per_event, ratio, time")
        if self.aggregate is None and (self.field, self.q, self.where, self.past_windows) != (None,) * 4:
            raise ValueError(f"feature {self.name!r}: field, q, where and past_windows belong to an aggregate")
        self.as_aggregate()
        if self.profile and (self.time is not None or self.kind in _WITHOUT_PROFILE):
            raise ValueError(f"feature {self.name!r}: only a number has a usual range, so profile does not go here")
        if self.recent and self.resolved_kind() not in _WITH_RECENT:
            kind = self.resolved_kind().value
            raise ValueError(f"feature {self.name!r}: recent is for a gauge or a ratio, this is a {kind}; try profile")
        return self

    def as_aggregate(self) -> AggregateConfig | None:
        """The aggregate that the windows compute for this feature; None for ratios and times."""
        if self.per_event is not None:
            return AggregateConfig(name=self.name, aggregate="last", field=self.per_event)
        if self.aggregate is None:
            return None
        given = self.model_dump(include={"name", "aggregate", "field", "q", "where", "past_windows"})
        return AggregateConfig.model_validate({key: value for key, value in given.items() if value is not None})

    def derived_names(self) -> tuple[str, ...]:
        """The names of further features that come of this one."""
        wanted = {_PROFILE_SUFFIX: self.profile, _RECENT_SUFFIX: self.recent}
        return tuple(self.name + suffix for suffix, is_wanted in wanted.items() if is_wanted)

    def resolved_kind(self, *, is_text: bool = False) -> Kind:
        """The kind given, or the one that the source suggests."""
        if self.kind is not None:
            return self.kind
        if self.time is not None:
            return Kind.CYCLIC
        if is_text and (self.per_event is not None or self.aggregate == "last"):
            return Kind.CATEGORY
        if self.per_event is not None:
            return Kind.NUMBER
        return _KIND_OF_AGGREGATE.get(self.aggregate or "", Kind.MAGNITUDE)


class FeaturesConfig(BaseModel):
    """Section `features`: a preset, a list, or both; a listed feature replaces the preset's of the same name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str | None = Field(None, description="flows-per-source")
    list: tuple[FeatureConfig, ...] = ()
    profile_windows: int = Field(1_440, ge=2, le=50_000, description="Windows over which an entity's past fades")
    profile_entities: int = Field(100_000, ge=1, description="Entities with a past of their own; others borrow it")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        return {"list": data} if isinstance(data, list | tuple) else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        features = self.features
        if not any(feature.output or feature.profile or feature.recent for feature in features):
            raise ValueError("need at least one feature, or a preset")
        names = [name for feature in features for name in (feature.name, *feature.derived_names())]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"features repeat: {', '.join(sorted(repeated))}")
        operands = {aggregate.name for aggregate in map(FeatureConfig.as_aggregate, features) if aggregate is not None}
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
    found = (feature.as_aggregate() for feature in config.features)
    return tuple(aggregate for aggregate in found if aggregate is not None)


def needed_fields(config: FeaturesConfig) -> frozenset[str]:
    """The event fields that the features read."""
    return frozenset(name for aggregate in aggregates(config) for name in aggregate.reads())


def schema(config: FeaturesConfig, field_types: Mapping[str, str]) -> FeatureSchema:
    """Names, kinds and units of the features that reach the model."""
    given = [feature for feature in config.features if feature.output]
    kinds = [feature.resolved_kind(is_text=_is_text(feature, field_types)) for feature in given]
    profiled = profiled_features(config)
    is_log = [kind in LOGARITHMIC for kind in profile_kinds(config)]
    recent = recent_features(config)
    return FeatureSchema(
        (
            *(feature.name for feature in given),
            *(feature.name + _PROFILE_SUFFIX for feature in profiled),
            *(feature.name + _RECENT_SUFFIX for feature in recent),
        ),
        (
            *kinds,
            *(Kind.MAGNITUDE if logged else Kind.GAUGE for logged in is_log),
            *(Kind.NUMBER if feature.resolved_kind() is Kind.NUMBER else Kind.GAUGE for feature in recent),
        ),
        (
            *(feature.unit for feature in given),
            *(_TIMES if logged else _SPREADS for logged in is_log),
            *(feature.unit for feature in recent),
        ),
    )


def profiled_features(config: FeaturesConfig) -> tuple[FeatureConfig, ...]:
    """The features that are compared with the entity's own past, in order."""
    return tuple(feature for feature in config.features if feature.profile)


def profile_kinds(config: FeaturesConfig) -> tuple[Kind, ...]:
    """What those features are."""
    return tuple(feature.resolved_kind() for feature in profiled_features(config))


def recent_features(config: FeaturesConfig) -> tuple[FeatureConfig, ...]:
    """The features that are compared with the entity's last windows, in order."""
    return tuple(feature for feature in config.features if feature.recent)


def check_fields(config: FeaturesConfig, field_types: Mapping[str, str]) -> None:
    """Check that every feature reads fields that the events have, of types that fit.

    Raises:
        ConfigurationError: One does not; names the feature and what there is.
    """
    for name in sorted(needed_fields(config)):
        if name not in field_types:
            raise ConfigurationError("features", name, f"no such event field; there are {', '.join(field_types)}")
    for aggregate in aggregates(config):
        key = f"features.{aggregate.name}"
        if aggregate.aggregate in NEEDS_NUMBERS and field_types[aggregate.field or ""] != "number":
            raise ConfigurationError(key, aggregate.aggregate, f"needs a number, but {aggregate.field!r} is text")
        where = aggregate.where
        if where is not None and where.compares() != {field_types[where.field]}:
            shown = where.model_dump(by_alias=True, exclude_none=True)
            raise ConfigurationError(
                key, shown, f"{where.field!r} is a {field_types[where.field]}; compare it with one"
            )
    for feature in config.features:
        is_one_text = _is_text(feature, field_types) and (feature.per_event or feature.aggregate == "last")
        if is_one_text and (feature.profile or feature.recent):
            remedy = "only a number has a usual range; this field is text"
            key = "profile" if feature.profile else "recent"
            raise ConfigurationError(f"features.{feature.name}.{key}", True, remedy)
        kind, is_text = feature.resolved_kind(is_text=_is_text(feature, field_types)), _is_text(feature, field_types)
        is_value = feature.per_event is not None or feature.aggregate == "last"
        if (kind is Kind.CATEGORY and not is_value) or (kind is not Kind.CATEGORY and is_value and is_text):
            remedy = "a category is one text of a window: use it with `last` or `per_event`, and for every text"
            raise ConfigurationError(f"features.{feature.name}.kind", kind.value, remedy)


def check_windows(config: FeaturesConfig, kind: str) -> None:
    """Check that every feature has a meaning in windows of a kind.

    Raises:
        ConfigurationError: One compares whole windows, and each event is one.
    """
    for aggregate in aggregates(config):
        if kind == "record" and aggregate.aggregate == "surge":
            remedy = "compares a window's events with those before; take windows.kind tumbling or hopping"
            raise ConfigurationError(f"features.{aggregate.name}.aggregate", "surge", remedy)


def _is_text(feature: FeatureConfig, field_types: Mapping[str, str]) -> bool:
    return field_types.get(feature.per_event or feature.field or "") == "text"
