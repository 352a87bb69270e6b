"""The faults: what each does, and undoes, to the processes and brokers of a schedule that is being run."""

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.outages.child import set_clock
from tests.outages.cluster import BROKERS, Cluster
from tests.outages.fleet import Fleet, Slot, wait_for
from tests.outages.settings import Names

_READY_S: Final = 40.0


@dataclass(slots=True)
class Scene:
    """Where faults strike."""

    cluster: Cluster
    fleet: Fleet
    names: Names
    is_aborted: threading.Event  # the schedule ends before its time

    def hold(self, seconds: float) -> None:
        """For as long as the fault lasts."""
        self.is_aborted.wait(seconds)


def kill(scene: Scene, slot: Slot, amount: int) -> None:
    """kill -9; it comes again at once, soon, or after its session's end."""
    with slot.lock:
        if slot.running is None:
            return
        slot.kill()
        scene.hold((0.0, 0.3, 2.0, 7.0)[amount % 4])
        slot.start()


def terminate(scene: Scene, slot: Slot, amount: int) -> None:
    """SIGTERM; it comes again."""
    with slot.lock:
        if slot.running is None:
            return
        slot.stop()
        scene.hold((0.0, 1.0, 2.0, 7.0)[amount % 4])
        slot.start()


def pause(scene: Scene, slot: Slot, amount: int) -> None:
    """SIGSTOP past the session, and SIGCONT: a zombie."""
    _pause(scene, slot, 7.0 + amount % 3)


def long_pause(scene: Scene, slot: Slot, amount: int) -> None:
    """SIGSTOP past the session and the transaction, and SIGCONT."""
    _pause(scene, slot, 11.5 + amount % 3)


def _pause(scene: Scene, slot: Slot, seconds: float) -> None:
    with slot.lock:
        slot.pause()
        try:
            scene.hold(seconds)
        finally:
            slot.resume()


def replace_sleeper(scene: Scene, slot: Slot, amount: int) -> None:
    """SIGSTOP, a second process under the same name, and SIGCONT: one of the two has to go."""
    with slot.lock:
        sleeper = slot.running
        if sleeper is None:
            return
        slot.pause()
        twin = slot.start()
        scene.hold(3.0 + amount)
        sleeper.send(signal.SIGCONT)
        wait_for(lambda: sleeper.exit_code is not None or twin.exit_code is not None, _READY_S, "one of two twins goes")
        if sleeper.exit_code is None:
            slot.note_end(twin)
            slot.running = sleeper
        else:
            slot.note_end(sleeper)


def rolling_restart(scene: Scene, _: Slot, __: int) -> None:
    """SIGTERM to each replica in turn, which comes again as the same static member."""
    for slot in scene.fleet.replicas:
        with slot.lock:
            if slot.running is None:
                continue
            slot.stop()
            running = slot.start()
            wait_for(lambda r=running: bool(r.status().get("partitions")), _READY_S, f"{slot.name} works again")


def scale(scene: Scene, _: Slot, amount: int) -> None:
    """One replica becomes three, and one again."""
    others = scene.fleet.replicas[1:]
    for slot in others:
        with slot.lock:
            slot.start()
    wait_for(lambda: all(r.status().get("partitions") for r in scene.fleet.running), _READY_S, "three replicas work")
    scene.hold(1.0 + amount % 3)
    for slot in others:
        with slot.lock:
            slot.stop()
    # Static members do not leave: their partitions wait for the end of their sessions.


def step_clock(scene: Scene, slot: Slot, amount: int) -> None:
    """The wall clock of one process is set; it stays so, or is set back after a while."""
    set_clock(slot.clock, (-3600.0, -60.0, 60.0, 3000.0)[amount % 4])
    if amount > 3:
        scene.hold(3.0)
        set_clock(slot.clock, 0.0)


def _away(choose: Callable[[Scene, Slot], int], *, is_killed: bool) -> "Strike":
    """A broker ends, by SIGTERM or kill -9, and comes again."""

    def fault(scene: Scene, slot: Slot, amount: int) -> None:
        with scene.cluster.lock:
            scene.cluster.stop_broker(choose(scene, slot), is_killed=is_killed)
            scene.hold((0.0, 1.0, 3.0, 6.0)[amount % 4])
            scene.cluster.start_missing()
            scene.cluster.wait_until_in_sync()

    return fault


def pause_coordinator(scene: Scene, slot: Slot, _: int) -> None:
    """SIGSTOP of the broker that a replica's transactions go by, past every time-out of theirs."""
    with scene.cluster.lock:
        scene.cluster.pause_broker(coordinator(scene, slot))
        try:
            scene.hold(11.5)
        finally:
            scene.cluster.resume_broker()
        scene.cluster.wait_until_in_sync()


def coordinator(scene: Scene, slot: Slot) -> int:
    """Of the transactions of a replica."""
    return scene.cluster.coordinator_of(f"{scene.names.group}-{slot.name}", "__transaction_state")


def any_broker(_: Scene, slot: Slot) -> int:
    return int(slot.name[-1]) % BROKERS + 1


Strike = Callable[[Scene, Slot, int], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault."""

    strike: Strike
    is_of_trainer: bool = False
    may_end: bool = False  # whether processes may give up: nothing can be delivered, or they were replaced


KINDS: Final[dict[str, Kind]] = {
    "kill": Kind(kill),
    "terminate": Kind(terminate),
    "pause": Kind(pause),
    "long pause": Kind(long_pause),
    "replace sleeper": Kind(replace_sleeper, may_end=True),
    "rolling restart": Kind(rolling_restart),
    "scale": Kind(scale),
    "clock step": Kind(step_clock),
    "kill trainer": Kind(kill, is_of_trainer=True),
    "pause trainer": Kind(pause, is_of_trainer=True),
    "bounce broker": Kind(_away(any_broker, is_killed=False), may_end=True),
    "kill broker": Kind(_away(any_broker, is_killed=True), may_end=True),
    "kill coordinator": Kind(_away(coordinator, is_killed=True), may_end=True),
    "pause coordinator": Kind(pause_coordinator, may_end=True),
}
