"""Bugs to plant: each replaces one method of the product by a plausible mistake, and names who must notice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from stream_iwae.adapters.memory import MemoryEventSource, MemoryOutputSink
from stream_iwae.adapters.memory_broker import Membership, MemoryBroker
from stream_iwae.delivery import Delivery
from stream_iwae.features.profiles import Profiles
from stream_iwae.outputs import Publisher
from stream_iwae.pipeline import Pipeline
from stream_iwae.service import Service
from stream_iwae.trainer import Trainer
from stream_iwae.windows.operator import WindowOperator
from stream_iwae.windows.progress import Progress
from stream_iwae.windows.value_past import ValuePasts


@dataclass(frozen=True, slots=True)
class Bug:
    """One mistake."""

    name: str
    invariant: str  # that is violated, and alone in some run
    target: Any
    attribute: str
    replacement: Callable[[Any], Any]  # the honest one -> the mistaken one
    also: frozenset[str] = frozenset()  # what it cannot but violate too
    group: str = "crashes"


def _last_polled(honest):
    """Commit last polled + 1: a restart loses the windows that were open."""

    def progress(self, position):
        return Progress(position, self.watermark_ms, self.watermark_ms, position)

    return progress


def _without_flush(honest):
    """Publish, but never look at the futures."""
    return lambda self, arrived: self._broker.before_effect("flush")


def _twice(honest):
    """After a commit in doubt, send again without a look at what was committed."""
    return lambda self: None


def _alerts_twice(honest):
    def alerts(self, outcome):
        found = honest(self, outcome)
        return found + found[:1]

    return alerts


def _uncommitted(honest):
    """isolation_level left at its default: read_uncommitted."""

    def fetch(self, partition):
        if self.topic != "training":
            return honest(self, partition)
        log = self._broker.logs[self.topic][partition]
        hidden = [entry for entry in log if not entry.is_visible and not entry.is_marker]
        for entry in hidden:
            entry.is_visible = True
        try:
            return honest(self, partition)
        finally:
            for entry in hidden:
                entry.is_visible = False

    return fetch


def _unsorted(honest):
    """Training rows of one commit leave in another order."""
    return lambda self, outcome: honest(self, outcome)[::-1]


def _offset_ahead(honest):
    """The position that is told is that of the next record but one."""

    def prepare(self, pipeline):
        commit = honest(self, pipeline)
        if commit is None:
            return None
        document = msgspec.json.decode(commit.offset.metadata)
        return replace(commit, offset=replace(commit.offset, offset=document["pos"] + 1))

    return prepare


def _forgetful_state(honest):
    """One kind of state is never written."""

    def changes(self, offset):
        return {**honest(self, offset), "presence": {}}

    return changes


def unfenced(honest):
    """The membership of a commit is looked up when it is sent, instead of when its records were polled."""

    def add_offsets(self, transactional_id, epoch, offsets, membership):
        group = self.group(membership.group)
        current = Membership(
            membership.group, membership.member, group.generation, group.incarnations[membership.member]
        )
        group.assignment.setdefault(membership.member, frozenset())
        honest(self, transactional_id, epoch, offsets, current)

    return add_offsets


def _watermark_lags(honest):
    """The watermark that is told is now and then an older one."""

    def progress(self, position):
        found = honest(self, position)
        if found.watermark_ms is None or found.position % 2:
            return found
        return replace(found, watermark_ms=found.watermark_ms - 30_000)

    return progress


def _forgotten_watermark(honest):
    """Metadata without the watermark: closed windows are emitted again."""

    def progress(self, position):
        found = honest(self, position)
        return replace(found, watermark_ms=found.watermark_at_offset_ms)

    return progress


def _paused_for_ever(honest):
    """A partition that comes back is never resumed."""

    def take_over(self, partitions):
        honest(self, partitions)
        if self._rows_published > 2:
            self._source.pause(partitions)

    return take_over


def _hasty_drain(honest):
    """SIGTERM ends the loop, and nothing else."""
    return lambda self: None


def _by_company(honest):
    """An alert depends on which others happen to be published with it."""

    def alerts(self, outcome):
        company = f" (one of {len(outcome.alerts)})"
        told = [msgspec.structs.replace(alert, reason=alert.reason + company) for alert in outcome.alerts]
        return honest(self, replace(outcome, alerts=told))

    return alerts


def _late_unsaid(honest):
    """Late events are dropped and not counted."""

    def consume(self, *given):
        honest(self, *given)
        self._outcome.counts.late = 0

    return consume


def _rows_twice(honest):
    """Training rows are sent again with the next commit."""

    def training(self, outcome):
        found = honest(self, outcome)
        again, self._again = getattr(self, "_again", []), found[:1]
        return found + again

    return training


def _unfenced_trainer(honest):
    """A trainer announces without its membership."""

    def announce(self, version, blob):
        self._store.publish(version, blob, self._clock.now_ms(), None)
        self._echoes.append(version)

    return announce


def _lost_and_found(honest):
    """What is lost and comes back in one poll counts as lost."""

    def follow(self, polled):
        lost = polled.revoked | polled.lost
        honest(self, replace(polled, assigned=polled.assigned - lost))

    return follow


def _hurried(honest):
    """The partitions of the beginning of the turn are walked through, whatever a poll between two chunks takes away."""

    def follow(self):
        for pipeline in self.pipelines.values():
            if not self._settings.idle_after_ms or pipeline.is_replaying or pipeline.watermark_ms is None:
                continue
            now_ms = self._clock.now_ms()
            pipeline.advance(now_ms, self.model, now_ms, self._keep_alive)
        honest(self)

    return follow


def _nothing_restored(honest):
    """What was kept is not read back."""
    return lambda self, values: None


_LOST: Final = frozenset({"I1", "I6", "I11"})  # a window that is lost takes its state and its alerts along

BUGS: Final = (
    Bug("commits last polled + 1", "I1", WindowOperator, "progress", _last_polled, _LOST),
    Bug("ignores failed futures", "I1", MemoryOutputSink, "check", _without_flush),
    Bug("repeats training rows", "I1", Publisher, "_training", _rows_twice),
    Bug("emits an alert twice", "I2", Publisher, "_alerts", _alerts_twice),
    Bug(
        "reads uncommitted records", "I3", MemoryEventSource, "_fetch", _uncommitted, frozenset({"models"}), "trainers"
    ),
    Bug("does not sort", "I4", Publisher, "_training", _unsorted),
    Bug("commits beyond its position", "I5", Publisher, "prepare", _offset_ahead),
    Bug("sends again what may be committed", "I5", Delivery, "_drop_committed", _twice, frozenset({"I1", "I2", "I4"})),
    Bug("forgets the watermark", "I6", WindowOperator, "progress", _forgotten_watermark, _LOST),
    Bug("restores no profiles", "I1", Profiles, "restore", _nothing_restored, _LOST, "whole"),
    Bug("restores no pasts of values", "I1", ValuePasts, "restore", _nothing_restored, _LOST, "whole"),
    Bug("writes no presence", "I6", Pipeline, "take_state_changes", _forgetful_state),
    Bug("does not fence a zombie", "I7", MemoryBroker, "add_offsets", unfenced),
    Bug("lets the watermark go back", "I8", WindowOperator, "progress", _watermark_lags),
    Bug("resumes no partition twice", "I9", Service, "_take_over", _paused_for_ever),
    Bug("takes a topic that came back for lost", "I9", Trainer, "_follow", _lost_and_found, group="trainers"),
    Bug("leaves without a commit", "I10", Service, "drain", _hasty_drain),
    Bug("words an alert by its company", "I11", Publisher, "_alerts", _by_company),
    Bug("does not count late events", "sum", Pipeline, "_consume", _late_unsaid),
    Bug("announces as a zombie", "models", Trainer, "_announce", _unfenced_trainer, group="trainers"),
    Bug(
        "asks where partitions are that were taken away", "exits", Service, "_follow_positions", _hurried, group="idle"
    ),
)
