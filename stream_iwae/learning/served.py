"""A version of the model as one thing: weights, calibration, and what learning remembers."""

import re
from dataclasses import dataclass
from typing import Final, Protocol, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_iwae.detection.calibration import Calibration
from stream_iwae.errors import ArtefactError
from stream_iwae.learning.rows import Rows

_VERSION: Final = re.compile(r"(\d+)\.(\d+)")


class Tick(Protocol):
    """Called between two steps of a computation; whoever wants it to end raises from here."""

    def __call__(self) -> None:
        """Go on."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model says of N rows."""

    scores: NDArray[np.float64]  # (N,), nats
    bounds: NDArray[np.float64]  # (N,), nats: minus the estimated log p(x); one model is compared with another by it
    effective_samples: NDArray[np.float64]  # (N,)


class Weights(Protocol):
    """Trained weights with their transforms, for one feature schema."""

    def score(self, values: NDArray[np.float64], tick: Tick) -> Scored:
        """Score (N, D) raw values."""

    def astonished(self, values: NDArray[np.float64], tick: Tick) -> NDArray[np.bool_]:
        """Which of (N, D) raw values lie far beyond the ordinary; none where scores have no common scale."""

    def tuned(self, rows: Rows, seed: int, tick: Tick) -> "Weights":
        """A copy, fine-tuned from these weights on more rows."""

    def cascading(self, threshold: float) -> "Weights | None":
        """The same weights, scoring more exactly where a decision hangs on it; None where that is not configured.

        Args:
            threshold: Of a warning, in nats of this object's scores.
        """

    def pack(self, version: str, extra: dict[str, object]) -> bytes:
        """The artefact: weights, transforms and `extra`, which is plain JSON."""


class Memory(msgspec.Struct, frozen=True):
    """What learning needs to go on from an artefact, in milliseconds of event time."""

    trained_until_ms: int
    calibrated_until_ms: int
    reference_until_ms: int  # the reference is what was held out up to here
    first_ms: int


@dataclass(frozen=True, slots=True)
class Served:
    """The model in use."""

    version: str  # "major.minor": new weights, new calibration of the same weights
    weights: Weights
    calibration: Calibration
    memory: Memory

    def pack(self) -> bytes:
        """The artefact as bytes; `of` understands its JSON part."""
        extra: dict[str, object] = {
            "calibration": self.calibration.to_json(),
            "learning": msgspec.to_builtins(self.memory),
        }
        return self.weights.pack(self.version, extra)

    @classmethod
    def of(cls, version: str, weights: Weights, extra: dict[str, object]) -> Self:
        """Put together what `pack` took apart.

        Raises:
            ArtefactError: The JSON part is damaged.
        """
        try:
            memory = msgspec.convert(extra.get("learning"), Memory)
        except msgspec.ValidationError as error:
            raise ArtefactError(f"the artefact {version} has no learning section: {error}") from error
        return cls(version, weights, read_calibration(extra), memory)


def read_calibration(extra: dict[str, object]) -> Calibration:
    """The calibration in the JSON part of an artefact.

    Raises:
        ArtefactError: It is missing or damaged.
    """
    document = extra.get("calibration")
    if not isinstance(document, str):
        raise ArtefactError("the artefact has no calibration")
    return Calibration.from_json(document)


def version_after(version: str, *, is_new_weights: bool) -> str:
    """The next version.

    >>> version_after("1.3", is_new_weights=False)
    '1.4'
    """
    major, minor = parse_version(version)
    return f"{major + 1}.0" if is_new_weights else f"{major}.{minor + 1}"


def parse_version(version: str) -> tuple[int, int]:
    """Major and minor number.

    Raises:
        ArtefactError: It is no version of ours.
    """
    matched = _VERSION.fullmatch(version)
    if matched is None:
        raise ArtefactError(f"need a version such as 2.0, got {version!r}")
    return int(matched[1]), int(matched[2])
