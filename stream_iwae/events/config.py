"""How records of one topic become events: where time, entity and fields are found."""

import difflib
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stream_iwae.units import Bytes, Milliseconds


class TimeFormat(StrEnum):
    """How a time is written; the unit is never guessed."""

    EPOCH_S = "epoch_s"
    EPOCH_MS = "epoch_ms"
    EPOCH_US = "epoch_us"
    EPOCH_NS = "epoch_ns"
    ISO = "iso"  # RFC 3339 up to nanoseconds, `Z`, `+00:00` or `+0000`
    DATETIME = "datetime"  # YYYY-MM-DD HH:MM:SS[.ffffff] in `timezone`


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TimeField(_Section):
    """One place to look for the event's time."""

    field: str
    format: TimeFormat


class EventField(_Section):
    """One field that features, entity or source need."""

    path: str = Field(description="Name in the message; with dots: the literal name first, then the path")
    type: Literal["number", "text", "address", "protocol"] = "number"
    counter: Literal["delta", "cumulative"] = "delta"
    bits: Literal[32, 64] = Field(64, description="Width of a cumulative counter, for its wrap")
    optional: bool = Field(True, description="A message without it is used; the value is missing")
    strip_port: bool = Field(False, description="`ip:port` is read as the address alone")


class Skip(_Section):
    """A rule for messages that are in order but not for us."""

    field: str
    equals: str | float | None = None
    is_in: tuple[str | float, ...] | None = Field(None, alias="in")
    not_in: tuple[str | float, ...] | None = None
    reason: str = Field("other_type", pattern=r"^[a-z_]{1,32}$", description="Label of the metric")

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if sum(condition is not None for condition in (self.equals, self.is_in, self.not_in)) != 1:
            raise ValueError("need exactly one of equals, in, not_in")
        return self


class EventsConfig(_Section):
    """Section `events`."""

    preset: str | None = Field(None, description="Ready-made mapping; keys given beside it win")
    format: Literal["json"] = "json"
    time: tuple[TimeField, ...] = Field(min_length=1, description="The first that is present counts")
    timezone: str = Field("UTC", description="Zone of `datetime` times")
    fields: dict[str, EventField] = Field(min_length=1)
    entity: tuple[str, ...] = Field((), description="The fields that name what is watched")
    source: str | None = Field(None, description="The field that names the exporter")
    sampling: str | None = Field(None, description="Sampling rate in the message; multiplies `sampled`")
    sampled: tuple[str, ...] = ()
    series: tuple[str, ...] = Field((), description="With the entity, what identifies a cumulative counter")
    max_gap: Milliseconds = Field(3_600_000, description="A longer pause restarts a cumulative series")
    skip: tuple[Skip, ...] = ()
    envelope: str | None = Field(None, description="Key under which the event, or a list of them, is wrapped")
    keyed_by_entity: bool = Field(False, description="All events of an entity are in one partition")
    rekey: bool = Field(False, description="Write events to a topic keyed by entity first; see section `rekey`")
    max_clock_skew: Milliseconds = Field(600_000, description="How far ahead of its record an event may be")
    max_record: Bytes = Field(1_048_576, description="Longer records are rejected unread")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("preset") is None:
            return data
        preset = load_preset(str(data["preset"]))
        return {**preset, **data, "fields": {**preset.get("fields", {}), **data.get("fields", {})}}

    @field_validator("fields", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {name: {"path": field} if isinstance(field, str) else field for name, field in value.items()}

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        named = [*self.entity, *self.series, *self.sampled, *([self.source] if self.source else [])]
        for name in named:
            if name not in self.fields:
                close = difflib.get_close_matches(name, self.fields, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"fields are {', '.join(self.fields)}"
                raise ValueError(f"{name!r} is no field; {hint}")
        for name in ("offset", "timestamp_ms", "entity", "source"):
            if name in self.fields:
                raise ValueError(f"{name!r} is a name of our own; call the field something else")
        return self

    def field_types(self) -> dict[str, str]:
        """Field name -> "number" or "text", for checks of features against it."""
        return {name: "number" if field.type == "number" else "text" for name, field in self.fields.items()}


def preset_names() -> list[str]:
    """The presets that are shipped."""
    folder = resources.files("stream_iwae.events") / "presets"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_preset(name: str) -> dict[str, Any]:
    """Read a shipped preset.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in preset_names():
        raise ValueError(f"no preset {name!r}; there are {', '.join(preset_names())}")
    text = (resources.files("stream_iwae.events") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded
