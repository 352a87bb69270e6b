"""A value of the configuration as an error may show it: without secrets, and on one line."""

import re
from typing import Any, Final

MASK: Final = "**********"
_SECRET: Final = re.compile(r"pass|pwd|secret|token|credential|private|(^|_)key$", re.IGNORECASE)
_MOST_CHARS: Final = 200


def is_secret(key: str) -> bool:
    """Whether what stands under a key may be a secret, by the key's name; misspelt ones included.

    >>> is_secret("kafka.sasl_password"), is_secret("sasl_passwort"), is_secret("kafka.group")
    (True, True, False)
    """
    return _SECRET.search(key.rpartition(".")[2]) is not None


def shown(key: str, value: object) -> object:
    """The value, masked where it may be a secret and wherever one may be within it; cut to a line.

    >>> shown("kafka", {"group": "g", "sasl_password": "x"})
    {'group': 'g', 'sasl_password': '**********'}
    """
    masked = _masked(key, value)
    text = repr(masked)
    return masked if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}..."


def _masked(key: str, value: Any) -> Any:
    if value is None:
        return None
    if is_secret(key):
        return MASK
    if isinstance(value, dict):
        return {name: _masked(str(name), item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(key, item) for item in value]
    return value
