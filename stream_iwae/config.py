"""config.yaml and the environment -> Config: every section, each declared beside the code it configures.

A key from the environment wins: `STREAM_IWAE__KAFKA__BOOTSTRAP_SERVERS` sets `kafka.bootstrap_servers`.
`${NAME}` in a value of the file is replaced by the environment variable NAME, which must be set.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

import pydantic
from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from stream_iwae.adapters.http_config import HttpConfig
from stream_iwae.adapters.kafka_config import KafkaConfig
from stream_iwae.detection.config import DetectionConfig
from stream_iwae.errors import ConfigurationError
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig, check_fields, check_windows
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.learning.config import LearningConfig
from stream_iwae.redaction import shown
from stream_iwae.rekey.config import RekeyConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.yaml_text import read_yaml

ENVIRONMENT_PREFIX: Final = "STREAM_IWAE__"
_PLACEHOLDER: Final = re.compile(r"\$\{(\w+)\}")


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelConfig(ModelSettings):
    """The settings of the model, as `iwae/settings.py` declares them."""


class Config(BaseSettings):
    """The whole configuration of one detector."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__"
    )

    detector: str = Field("stream-iwae", min_length=1, max_length=64, description="Name of the stream, in every alert")
    kafka: KafkaConfig
    events: EventsConfig
    rekey: RekeyConfig = RekeyConfig()
    windows: WindowsConfig = WindowsConfig()
    features: FeaturesConfig
    model: ModelConfig = ModelConfig()
    detection: DetectionConfig = DetectionConfig()
    learning: LearningConfig = LearningConfig()
    incidents: IncidentsConfig = IncidentsConfig()
    http: HttpConfig = HttpConfig()

    @property
    def rekeyed_topic(self) -> str:
        """Where re-keyed events go; with the detector's name, since another configuration needs another topic."""
        return self.kafka.topics.rekeyed or f"{self.detector}.rekeyed"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature of pydantic-settings
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over the file, and nothing else."""
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a configuration file and the environment.

        Raises:
            ConfigurationError: The file is missing or no YAML, or a key, value or placeholder is wrong.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            raise ConfigurationError("--config", str(path), f"cannot be read ({reason}); name a file") from None
        return cls.parse(text, where=str(path))

    @classmethod
    def parse(cls, text: str, where: str = "configuration") -> Self:
        """Read a configuration from YAML text and the environment.

        Raises:
            ConfigurationError: It is no YAML mapping, or a key, value or placeholder is wrong.
        """
        data = read_yaml(text, where)
        if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
            raise ConfigurationError(where, type(data).__name__, "must be a mapping of section names to sections")
        try:
            config = cls(**_with_environment(data, os.environ))
        except ValidationError as error:
            raise _explained(error, cls) from None
        except SettingsError:
            key = f"{ENVIRONMENT_PREFIX}..."
            raise ConfigurationError(key, "environment", "a variable of a whole section holds no JSON") from None
        check_fields(config.features, config.events.field_types())
        check_windows(config.features, config.windows.kind)
        return config


def _with_environment(value: Any, environment: Mapping[str, str], path: str = "") -> Any:
    """Replace `${NAME}` in every text of a nested mapping."""
    if isinstance(value, dict):
        return {key: _with_environment(item, environment, f"{path}.{key}".strip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_environment(item, environment, f"{path}[{i}]") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in _PLACEHOLDER.findall(value):
        if name not in environment:
            raise ConfigurationError(path, value, f"the environment variable {name} is not set; set it")
    return _PLACEHOLDER.sub(lambda found: environment[found[1]], value)


def _explained(error: ValidationError, config: type[BaseSettings]) -> ConfigurationError:
    """The first problem, as key, value and remedy."""
    problem = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden" or problem["type"] == "unexpected_keyword_argument":
        unknown = str(problem["loc"][-1])
        known = _known_keys(config, problem["loc"][:-1])
        close = difflib.get_close_matches(unknown, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys here: {', '.join(sorted(known)) or 'none'}"
        return ConfigurationError(key, shown(key, problem["input"]), f"unknown key; {hint}")
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "missing":
        return ConfigurationError(key, None, "is required; see config.yaml for an example")
    return ConfigurationError(key, shown(key, problem["input"]), message)


def _known_keys(model: type[Any], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int):
            continue
        field = _fields(model).get(part)
        inner = _inner_model(field.annotation) if field is not None else None
        if inner is None:
            return []
        model = inner
    return list(_fields(model))


def _fields(model: type[Any]) -> dict[str, Any]:
    return getattr(model, "model_fields", None) or getattr(model, "__pydantic_fields__", {})


def _inner_model(annotation: Any) -> type[Any] | None:
    """The first model in an annotation such as `list[Model] | None`."""
    if isinstance(annotation, type) and _fields(annotation):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def json_schema() -> dict[str, Any]:
    """The JSON Schema of config.yaml, for editors."""
    return pydantic.TypeAdapter(Config).json_schema()
