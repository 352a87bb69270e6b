"""YAML text -> plain values: nothing is executed, nothing multiplies, and no error quotes a line."""

from typing import Any, Final

import yaml

from stream_iwae.errors import ConfigurationError

_MOST_VALUES: Final = 100_000
_WORDS: Final = {  # of errors whose own words quote the text, which may be a secret
    yaml.constructor.ConstructorError: "a tag is not allowed; put quotes around a value that begins with !",
    yaml.composer.ComposerError: "an alias that means nothing; put quotes around a value that begins with *",
}


def read_yaml(text: str, where: str) -> Any:
    """Read one document.

    Raises:
        ConfigurationError: It is no YAML, has tags, is nested too deeply, or its aliases multiply beyond all use.
    """
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it is no YAML"
        said = next((words for kind, words in _WORDS.items() if isinstance(error, kind)), problem)
        raise ConfigurationError(where, "YAML", f"cannot be parsed{at}: {said}") from None
    except (RecursionError, ValueError) as error:  # nested without end; a date that is none
        raise ConfigurationError(where, "YAML", f"cannot be parsed: {type(error).__name__}") from None
    if _is_too_large(data):
        raise ConfigurationError(where, "YAML", f"holds more than {_MOST_VALUES} values; its aliases multiply or recur")
    return data


def _is_too_large(data: Any) -> bool:
    """Whether a reader that follows aliases would meet too many values."""
    n_seen, waiting = 0, [data]
    while waiting:
        value = waiting.pop()
        n_seen += 1
        if n_seen > _MOST_VALUES:
            return True
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return False
