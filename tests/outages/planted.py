"""Bugs to plant in the children, each with the checks that have to notice and a schedule that brings it out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kafka import ConsumerGroupMetadata

from stream_iwae.adapters.kafka_source import KafkaEventSource
from stream_iwae.outputs import Publisher
from stream_iwae.windows.operator import WindowOperator
from stream_iwae.windows.progress import Progress


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake in one method."""

    target: Any
    attribute: str
    replacement: Callable[[Any], Any]  # the honest one -> the mistaken one
    seed: int  # of a schedule that brings it out
    noticed_by: frozenset[str]

    def plant(self) -> None:
        """Make the mistake in this process from now on."""
        setattr(self.target, self.attribute, self.replacement(getattr(self.target, self.attribute)))


def _last_polled(_):
    """Commit last polled + 1: a restart loses the windows that were open."""

    def progress(self, position):
        return Progress(position, self.watermark_ms, self.watermark_ms, position)

    return progress


def _unfenced(_):
    """Commit without the membership of the group."""
    return lambda self: ConsumerGroupMetadata(self._config.group)


def _alerts_twice(honest):
    """The first alert of each commit is published twice."""

    def alerts(self, outcome):
        found = honest(self, outcome)
        return found + found[:1]

    return alerts


BUGS: Final = {
    "commits last polled + 1": Bug(WindowOperator, "progress", _last_polled, 1, frozenset({"I1", "I6"})),
    "does not fence": Bug(KafkaEventSource, "group_token", _unfenced, 2, frozenset({"I2", "I5", "I11", "sum"})),
    "emits an alert twice": Bug(Publisher, "_alerts", _alerts_twice, 0, frozenset({"I2", "I11"})),
}
