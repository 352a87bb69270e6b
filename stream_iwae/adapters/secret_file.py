"""A secret that lies in a file, as Kubernetes, systemd and Docker hand them out."""

from pathlib import Path

from stream_iwae.errors import ConfigurationError


def read_secret(path: Path, key: str) -> str:
    """The text of the file without the white space around it.

    Raises:
        ConfigurationError: It cannot be read or is empty; names `key`, and never what was read.
    """
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        # `from None`: the text of a decoding error holds the bytes.
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigurationError(key, str(path), f"cannot be read ({reason}); name a file with the secret") from None
    if not text:
        raise ConfigurationError(key, str(path), "is empty; name a file with the secret")
    return text
