"""The faults: at which effects each may strike, and what it does to the process that is running there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from stream_iwae.errors import AmbiguousCommitError, DeliveryError
from tests.simulation.coordinator import SESSION_MS

TRANSACTION_TIMEOUT_MS: Final = 10_000
MAX_POLL_INTERVAL_MS: Final = 300_000
ANY: Final = frozenset()
AFTER_COMMIT: Final = frozenset({"committed"})
BEFORE_COMMIT: Final = frozenset({"commit"})
SENDING: Final = frozenset({"append", "flush"})


class CrashedError(BaseException):
    """The process ends here, whatever it would have caught."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Where a fault fits, and what it does with the world and the running slot."""

    effects: frozenset[str]
    strike: Callable
    is_nesting: bool = False  # lets others take turns while the process is stopped


def kill(world, slot, amount):
    """kill -9; it comes again under its name, sooner or later than its session times out."""
    slot.back_at = world.turn + 1 + amount * 2
    raise CrashedError


def stall(world, slot, amount):
    """Others work while this one stands still for a moment."""
    world.let_others_work(slot, 1 + amount)


def pause(world, slot, amount):
    """SIGSTOP past the session, sometimes past the transaction too, and SIGCONT: a zombie."""
    world.pass_time(SESSION_MS + 1_000 + (TRANSACTION_TIMEOUT_MS if amount % 2 else 0))
    world.coordinators[slot.group].expel(slot.member)
    world.let_others_work(slot, 2 + amount)


def lose_coordinator(world, *_):
    """The coordinator of transactions is away for so long that what is open times out; its producer is fenced."""
    world.pass_time(TRANSACTION_TIMEOUT_MS)


def pause_trainer(world, slot, amount):
    """The same between training and announcing, for so long that another trains and announces."""
    world.pass_time(SESSION_MS + 1_000)
    world.coordinators[slot.group].expel(slot.member)
    world.let_others_work(slot, 10 + 2 * amount)


def slow(world, slot, _):
    """A chunk takes longer than a member may be away."""
    world.pass_time(MAX_POLL_INTERVAL_MS + 1_000)
    world.coordinators[slot.group].expel(slot.member)


def rebalance(world, slot, _):
    """A partition gets another owner, or the group just begins a new generation."""
    world.coordinators[slot.group].move_one(world.rng)


def twin(world, slot, _):
    """A second process under the same instance id."""
    world.add_twin(slot)


def twin_trainer(world, _, amount):
    """One more trainer than there should be comes, as replicas come."""
    world.add_trainer(f"twin{amount}")


def terminate(world, slot, amount):
    """SIGTERM: it ends in order after this turn."""
    slot.is_stopping, slot.back_at = True, world.turn + 1 + amount * 2


def lose_reply(*_):
    """The commit took effect, and nobody said so."""
    raise AmbiguousCommitError("no answer: applied")


def lose_commit(*_):
    """The commit never arrived; the transaction stays open."""
    raise AmbiguousCommitError("no answer: lost")


def delay_commit(world, slot, amount):
    """The commit is on its way for a while, and may meet another transaction of the same producer."""
    world.delay_commit(slot.process.transactional_id, amount * 3)
    raise AmbiguousCommitError("no answer: late")


def expire(world, *_):
    """A record expires on its way: its future fails, and nothing else."""
    world.broker.is_losing = True


def refuse(*_):
    """The broker cannot be reached for a moment."""
    raise DeliveryError("disconnected")


def step_clock(world, _, amount):
    """The wall clock is set, an hour back or forth."""
    world.clock.set_wall(world.clock.now_ms() + (3_600_000 if amount % 2 else -3_600_000))


def delete(world, _, amount):
    """Retention deletes records, read or not."""
    world.delete_records(amount)


KINDS: Final = {
    "kill": Kind(ANY, kill),
    "stall": Kind(ANY, stall, is_nesting=True),
    "pause": Kind(ANY, pause, is_nesting=True),
    "coordinator gone": Kind(ANY, lose_coordinator),
    "pause trainer": Kind(frozenset({"trained"}), pause_trainer, is_nesting=True),
    "slow": Kind(frozenset({"chunk", "tick"}), slow),
    "rebalance": Kind(ANY, rebalance),
    "twin": Kind(ANY, twin),
    "twin trainer": Kind(ANY, twin_trainer),
    "terminate": Kind(ANY, terminate),
    "reply lost": Kind(AFTER_COMMIT, lose_reply),
    "commit lost": Kind(BEFORE_COMMIT, lose_commit),
    "commit delayed": Kind(BEFORE_COMMIT, delay_commit),
    "expire": Kind(frozenset({"append"}), expire),
    "refuse": Kind(SENDING, refuse),
    "clock step": Kind(ANY, step_clock),
    "delete": Kind(ANY, delete),
}
