"""The world: a broker, a clock, processes that come and go, and the faults of one schedule.

Everything is a function of the schedule. One thread: where a process is stopped in the middle of a step, others
take their turns inside the call that it is stopped in.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from stream_iwae.adapters.memory_broker import MemoryBroker
from stream_iwae.errors import DeliveryError
from stream_iwae.ports import ModelAnnouncement
from tests.simulation.clock import WorldClock
from tests.simulation.coordinator import Coordinator
from tests.simulation.faults import KINDS, TRANSACTION_TIMEOUT_MS, CrashedError
from tests.simulation.logs import PARTITIONS, START_MS, logs_of, stages_of
from tests.simulation.memo import Memo
from tests.simulation.models import PINNED, blob_of
from tests.simulation.ports import ModelTopic
from tests.simulation.processes import (
    GROUP,
    REKEYERS,
    TRAINERS,
    Process,
    RekeyerProcess,
    ServiceProcess,
    TrainerProcess,
)
from tests.simulation.reference import RereadLog
from tests.simulation.rekeyed import waking
from tests.simulation.scattered import ORDERED, REKEYED, rekeyed_stages, scattered
from tests.simulation.schedule import Schedule
from tests.simulation.witness import Witness

CALM_TURNS = 60  # within which everything has to be caught up once the faults are over
_TURN_MS = 1_000
_PATIENCE = 60  # effects that a fault waits for one it fits, before it is left out


@dataclass(slots=True, eq=False)
class Slot:
    """A place for a process: made again after each end, unless it was a guest."""

    member: str
    group: str
    make: Callable[["World", str], Process]
    process: Process | None = None
    back_at: int = 0  # the turn from which it may start again
    is_stopping: bool = False
    is_guest: bool = False


class World(Witness):
    """One run of a schedule."""

    def __init__(self, schedule: Schedule, memo: Memo | None = None, tell: Callable[[str], None] | None = None) -> None:
        super().__init__()
        group = schedule.group
        self.schedule, self._tell = schedule, tell
        self.memo = memo if memo is not None else Memo()
        self.rng = random.Random(f"world/{schedule.seed}")
        self.is_rekeyed = group.is_rekeyed
        self.scored = REKEYED if self.is_rekeyed else "events"
        if self.is_rekeyed:
            self.stages = rekeyed_stages(schedule.windows)
            self.logs = scattered(schedule.log, is_unruly=schedule.windows not in ORDERED).sources
        else:
            self.stages = stages_of(schedule.windows)
            self.logs = logs_of(schedule.log, is_idle=group.is_idle, is_full=schedule.windows.startswith("full"))
        self.log_key = (schedule.log, group.is_idle)
        self.clock = WorldClock(START_MS + 600_000)
        self.broker = MemoryBroker(self.clock.true_ms, TRANSACTION_TIMEOUT_MS)
        self.broker.before_effect, self.broker.on_commit = self.effect, self.note_commit
        self.broker.on_wait = self.pass_time
        self.coordinators = {GROUP: Coordinator(self.broker, GROUP, len(PARTITIONS))}
        if group.has_trainers:
            self.coordinators[TRAINERS] = Coordinator(self.broker, TRAINERS, 1)
        if group.is_rekeyed:
            self.coordinators[REKEYERS] = Coordinator(self.broker, REKEYERS, len(self.logs))
        self._lay_out()
        self.slots = [Slot(member, GROUP, ServiceProcess) for member in group.members]
        if group.has_trainers:
            self.slots += [Slot(member, TRAINERS, TrainerProcess) for member in ("a", "b")]
        if self.is_rekeyed:
            self.slots = [Slot(member, REKEYERS, RekeyerProcess) for member in group.members] + self.slots
            self.reread = RereadLog(self.broker.logs[REKEYED], self.stages)
        self._announced: list[ModelAnnouncement] = []
        self._n_announcements = -1
        self.turn = 0
        self.faults = list(schedule.faults)
        self.struck: Counter[str] = Counter()
        self._running: list[Slot] = []
        self._since = 0  # effects since the last fault
        self._n_effects = 0
        self._delayed: list[tuple[int, str, int]] = []  # (at which effect, transactional id, epoch)

    def _lay_out(self) -> None:
        self.broker.create_topic("events", len(self.logs))
        for topic in (self.scored, "alerts", "dead-letters", "state", "scores"):
            self.broker.create_topic(topic, len(PARTITIONS))
        for topic in ("training", ModelTopic.TOPIC):
            self.broker.create_topic(topic)
        for partition, log in enumerate(self.logs):
            self.broker.logs["events"][partition] += log.entries[: log.second_part]
        if not self.schedule.group.has_trainers:
            self.broker.append(ModelTopic.TOPIC, 0, b"current", blob_of(PINNED, 0, 0), START_MS)

    # --- running ------------------------------------------------------------------------------

    def run(self, at_half_time: Callable[["World"], None] = lambda _: None) -> "World":
        """Faults for a number of turns, a look, then calm until all is caught up, and an orderly end."""
        n_turns = self.schedule.group.turns
        for self.turn in range(n_turns):
            if self.turn == n_turns // 2:
                self._second_part()
            if self.turn > n_turns // 2 and not self.faults:
                break  # nothing more will happen that calm does not bring
            self._take_turn(self.rng.choice(self.slots))
            self._let_pass(_TURN_MS)
        at_half_time(self)
        self._calm_down()
        for slot in self.slots:
            slot.is_stopping = True
            self._take_turn(slot)
        return self

    def _calm_down(self) -> None:
        self._second_part()
        self.faults = []
        for slot in [slot for slot in self.slots if slot.is_guest]:
            self.slots.remove(slot)
            self._end(slot)
        for slot in self.slots:
            slot.back_at, slot.is_stopping = 0, False
        for _ in range(CALM_TURNS):
            self.turn += 1
            for slot in self.slots:
                self._take_turn(slot)
            self._let_pass(_TURN_MS)
            lagging = self._lagging()
            if not lagging:
                return
        self.stalled = lagging

    def _second_part(self) -> None:
        for partition, log in enumerate(self.logs):
            present = self.broker.logs["events"][partition]
            present += log.entries[len(present) :]

    def _lagging(self) -> list[str]:
        found = self._behind(self.scored, self.positions())
        found += self._behind("events", self.source_positions()) if self.is_rekeyed else []
        found += [f"the transaction of {name} is open" for name in self.broker.open]
        if self.is_rekeyed and self.schedule.windows == "unruly" and not found:
            found += [f"source {source} is silent and waited for" for source in waking(self)]
        trainers = [slot.process.trainer for slot in self.slots if isinstance(slot.process, TrainerProcess)]
        if trainers:
            owners = [trainer for trainer in trainers if trainer.learner is not None]
            n_rows = sum(len(rows) for rows in self.training_rows())
            if len(owners) != 1 or owners[0].learner.n_rows < n_rows - owners[0].learner.EACH_ROWS:
                found.append(f"{len(owners)} trainers own the training topic")
        return found

    def _behind(self, topic: str, positions: dict[int, int]) -> list[str]:
        ends = enumerate(map(len, self.broker.logs[topic]))
        return [f"{topic} {p}: {positions.get(p)} of {end}" for p, end in ends if positions.get(p) != end]

    def _take_turn(self, slot: Slot) -> None:
        if slot.process is None and self.turn < slot.back_at:
            return
        self._running.append(slot)
        try:
            if slot.process is None:
                self.tell("start", {})
                self.coordinators[slot.group].join(slot.member)
                slot.process = slot.make(self, slot.member)
            slot.process.turn()
            if slot.is_stopping:
                self.unclean += slot.process.stop()
                self._end(slot)
        except CrashedError:
            self.n_deaths += 1
            self._end(slot)
        except Exception as error:  # noqa: BLE001  # exit 1; whoever looks after processes starts it again
            self.n_deaths += 1
            self.tell("exit", {"error": repr(error)})
            if not isinstance(error, DeliveryError):
                self.errors.append(repr(error))
            slot.back_at = self.turn + 2
            self._end(slot)
        finally:
            self._running.pop()

    def _end(self, slot: Slot) -> None:
        slot.process, slot.is_stopping = None, False
        if slot.is_guest and slot in self.slots:
            self.slots.remove(slot)
        others = (other for other in self.slots if other is not slot and other.process is not None)
        if not any((other.member, other.group) == (slot.member, slot.group) for other in others):
            self.coordinators[slot.group].die(slot.member, self.clock.true_ms())

    def _let_pass(self, duration_ms: int) -> None:
        self.pass_time(duration_ms)
        for coordinator in self.coordinators.values():
            coordinator.settle(self.clock.true_ms())

    # --- effects ------------------------------------------------------------------------------

    def effect(self, name: str) -> None:
        """Something is about to leave the running process, or has: the place where faults strike."""
        self._n_effects += 1
        if self._delayed:
            self._land_delayed()
        if not self._running:
            return
        if self._tell is not None:
            self.tell(f". {name}", {})
        if not self.faults:
            return
        self._since += 1
        fault = self.faults[0]
        if self._since <= fault.after:
            return
        slot, kind = self._running[-1], KINDS[fault.kind]
        if (kind.effects and name not in kind.effects) or (kind.is_nesting and len(self._running) > 1):
            if self._since > fault.after + _PATIENCE:
                del self.faults[0]
            return
        del self.faults[0]
        self._since = 0
        self.struck[fault.kind] += 1
        self.tell(f"FAULT {fault.kind} at {name}", {"amount": fault.amount})
        kind.strike(self, slot, fault.amount)

    def _land_delayed(self) -> None:
        for delayed in [delayed for delayed in self._delayed if delayed[0] <= self._n_effects]:
            self._delayed.remove(delayed)
            _, transactional_id, epoch = delayed
            if self.broker.is_current(transactional_id, epoch):
                self.tell("a delayed commit arrives", {"of": transactional_id})
                self.broker.end(transactional_id, epoch, is_committed=True)

    # --- what faults do -----------------------------------------------------------------------

    def pass_time(self, duration_ms: int) -> None:
        """Let time pass for everyone."""
        self.clock.advance(max(0, duration_ms))
        self.broker.abort_expired()

    def let_others_work(self, slot: Slot, n_turns: int) -> None:
        """Others take turns while the slot's process stands still."""
        for _ in range(n_turns):
            others = [other for other in self.slots if other not in self._running]
            if others:
                self._take_turn(self.rng.choice(others))
            self._let_pass(_TURN_MS // 5)

    def add_twin(self, slot: Slot) -> None:
        """A second process of the same name."""
        self.slots.append(Slot(slot.member, slot.group, slot.make, is_guest=True))

    def add_trainer(self, member: str) -> None:
        """One more trainer."""
        if all((slot.member, slot.group) != (member, TRAINERS) for slot in self.slots):
            self.slots.append(Slot(member, TRAINERS, TrainerProcess))

    def delay_commit(self, transactional_id: str, n_effects: int) -> None:
        """The commit will arrive after so many effects, if its producer still has the epoch."""
        epoch = self.broker.epoch(transactional_id)
        self._delayed.append((self._n_effects + 1 + n_effects, transactional_id, epoch))

    def delete_records(self, amount: int) -> None:
        """Retention deletes the beginning of a partition."""
        partition = amount % len(PARTITIONS)
        end = len(self.broker.logs["events"][partition])
        first = self.broker.first_offset("events", partition)
        self.broker.delete_before("events", partition, self.rng.randint(first, end))

    def cuts(self, partition: int) -> tuple[int, ...] | None:
        """Where polls of the input may end; None: anywhere."""
        return None if self.schedule.windows.startswith("full") else self.logs[partition].cuts

    def announced(self) -> list[ModelAnnouncement]:
        """The models that a read_committed reader finds; read again when the log has grown, as it does by each end."""
        n_entries = len(self.broker.logs[ModelTopic.TOPIC][0])
        if n_entries != self._n_announcements:
            self._n_announcements = n_entries
            entries = self.broker.committed_records(ModelTopic.TOPIC)
            self._announced = [ModelAnnouncement(json.loads(e.value)["version"], e.value) for _, _, e in entries]
        return self._announced

    def tell(self, event: str, fields: dict) -> None:
        """A line of the trace."""
        if self._tell is not None:
            who = " > ".join(f"{slot.group}/{slot.member}{'*' * slot.is_guest}" for slot in self._running)
            text = " ".join(f"{name}={value}" for name, value in fields.items())
            self._tell(f"{self.turn:3} {self.clock.true_ms() - START_MS:8} {who:24} {event} {text}".rstrip())
