"""What truly happened in a simulated network: who did what, and when. Only judges of a detector read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True, slots=True)
class ScenarioTruth:
    """One attack, or one thing that looks odd and is none; all its flows end in [start_ms, end_ms)."""

    name: str
    kind: str
    benign: bool
    entities: tuple[str, ...]  # sources that a detector per source should flag; an exporter where it falls silent
    related: tuple[str, ...]  # victims and far ends: an alert on them tells of the scenario as well
    start_ms: int
    end_ms: int
    description: str  # one sentence with the strength that was drawn

    @property
    def concerned(self) -> frozenset[str]:
        """All that an alert about this scenario may name."""
        return frozenset(self.entities) | frozenset(self.related)


def write_truth(truth: Sequence[ScenarioTruth], path: Path) -> None:
    """Write the scenarios as an indented JSON array."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(list(truth)), indent=2) + b"\n")


def read_truth(path: Path) -> list[ScenarioTruth]:
    """Read what `write_truth` wrote.

    Raises:
        msgspec.ValidationError: The file holds something else.
    """
    return msgspec.json.decode(path.read_bytes(), type=list[ScenarioTruth])
