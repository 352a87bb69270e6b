"""Seed -> schedule: which client, which log, and which faults strike when.

A schedule is a value: it is printed and replayed. Its log goes on until the faults are over.
"""

import random
from dataclasses import dataclass
from typing import Final

REPLICAS: Final = 3
CLIENTS: Final = ("kafka-python", "confluent")
_FIRST_S: Final = 1.0  # of load before the first fault
_LAST_S: Final = 1.0  # of load after the last


@dataclass(frozen=True, slots=True)
class Fault:
    """Strikes `at_s` seconds after the load has begun."""

    at_s: float
    kind: str  # a key of faults.KINDS
    target: int  # a replica or a broker, as the kind has it
    amount: int  # 0 to 7, what the kind makes of it: how long, how far


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run of three brokers, the replicas and the trainer."""

    seed: int
    theme: str
    client: str
    n_replicas: int  # at the start
    faults: tuple[Fault, ...]

    def describe(self) -> str:
        """A line for people."""
        faults = ", ".join(f"{fault.kind} {fault.target}/{fault.amount} at {fault.at_s:g} s" for fault in self.faults)
        return f"seed {self.seed}, {self.client}: {faults or 'undisturbed'}"


# Each seed has the kinds of its theme, and a few of `ALONGSIDE` that may strike while those are at work.
THEMES: Final[dict[str, tuple[str, ...]]] = {
    "kills": ("kill", "kill", "kill"),
    "zombies": ("pause", "pause"),
    "zombies beyond their transaction": ("long pause",),
    "bounce of a broker": ("bounce broker",),
    "kill of a broker": ("kill broker",),
    "coordinator does not answer": ("pause coordinator",),
    "coordinator dies": ("kill coordinator",),
    "rolling restart": ("rolling restart",),
    "scale": ("scale",),
    "clock steps": ("clock step", "clock step", "clock step"),
    "a twin": ("replace sleeper",),
    "everything": ("kill broker", "pause", "kill"),
}
ALONGSIDE: Final = ("kill", "terminate", "pause", "clock step", "kill trainer", "pause trainer")
NONE: Final = "undisturbed"  # seed 0


def make_schedule(seed: int, client: str | None = None) -> Schedule:
    """The schedule of a seed; seed 0 has no faults."""
    rng = random.Random(f"outages/{seed}")
    names = list(THEMES)
    theme = names[(seed - 1) % len(names)] if seed else NONE
    wanted = [*THEMES.get(theme, ()), *(rng.choices(ALONGSIDE, k=rng.choice((0, 1, 2))) if seed else ())]
    faults, at_s = [], _FIRST_S
    for kind in wanted:
        faults.append(Fault(round(at_s, 1), kind, rng.randrange(REPLICAS), rng.randrange(8)))
        at_s += rng.choice((0.5, 2.0, 3.5))
    # One and the other by turns, and by turns for each theme.
    by_turns = CLIENTS[(seed + (seed - 1) // len(names)) % 2]
    return Schedule(seed, theme, client or by_turns, 1 if "scale" in wanted else REPLICAS, tuple(faults))
