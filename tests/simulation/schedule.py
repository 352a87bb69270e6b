"""Seed -> schedule: which log, which configuration, and which faults strike after how many effects.

A schedule is a value: it is printed, replayed and cut down (`shrunk`) without a world.
"""

import random
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """Strikes at the first effect it fits, once `after` effects have passed since the fault before."""

    after: int
    kind: str  # a key of faults.KINDS
    amount: int  # what the kind makes of it: turns, effects, a choice


@dataclass(frozen=True, slots=True)
class Group:
    """What a share of all schedules have in common."""

    name: str
    share: int  # of a hundred seeds
    windows: tuple[str, ...]  # keys of logs.WINDOWS
    n_logs: int  # few where pipelines are remembered
    faults: tuple[str, ...]
    is_remembered: bool = False  # see memo.py; where hardly two runs ask the same, it would cost more than it saves
    members: tuple[str, ...] = ("a", "b")
    has_trainers: bool = False
    is_rekeyed: bool = False  # a topic that nobody keyed, with re-keyers before the service
    is_idle: bool = False  # two parts of the log with a silence between them, in which the clock closes windows
    turns: int = 16


_OF_ANY: Final = ("kill", "kill", "kill", "stall", "pause", "rebalance", "rebalance", "twin", "terminate", "terminate")
_OF_COMMITS: Final = ("reply lost", "commit lost", "commit delayed", "expire", "refuse", "coordinator gone")
_OF_ALL: Final = (*_OF_ANY, *_OF_COMMITS, "slow", "clock step")

GROUPS: Final = (
    Group("crashes", 87, ("tumbling", "tumbling", "hopping", "record"), 4, _OF_ALL, is_remembered=True),
    Group(
        "idle",
        4,
        ("tumbling", "hopping"),
        4,
        (*_OF_ANY, *_OF_COMMITS, "slow", "slow"),
        is_idle=True,
        is_remembered=True,
    ),
    Group("whole", 1, ("full", "full hopping", "full record", "full history"), 1000, _OF_ALL, turns=20),
    Group("retention", 2, ("tumbling", "hopping"), 4, (*_OF_ALL, "delete", "delete"), is_remembered=True),
    Group(
        "trainers",
        4,
        ("hold",),
        8,
        (*_OF_ALL, "twin trainer", "pause trainer", "pause trainer"),
        has_trainers=True,
        is_remembered=True,
        turns=40,
    ),
    Group("rekey", 2, ("rekeyed", "rekeyed hopping", "unruly"), 8, _OF_ALL, is_rekeyed=True, turns=24),
)
BY_NAME: Final = {group.name: group for group in GROUPS}


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run of the world."""

    seed: int
    group: Group
    log: int
    windows: str
    faults: tuple[Fault, ...]

    def describe(self) -> list[str]:
        """Lines for people."""
        faults = [f"  after {fault.after:3} effects: {fault.kind} ({fault.amount})" for fault in self.faults]
        head = f"seed {self.seed}: {self.group.name}, {self.windows} windows, log {self.log}, {len(faults)} faults"
        return [head, *faults]


def group_of(seed: int) -> Group:
    """Each hundred seeds has every group by its share."""
    place = seed % 100
    for group in GROUPS:
        if place < group.share:
            return group
        place -= group.share
    raise AssertionError("the shares sum to 100")


def make_schedule(seed: int, group: Group | None = None) -> Schedule:
    """The schedule of a seed."""
    group = group or group_of(seed)
    rng = random.Random(f"schedule/{seed}")
    n_faults = rng.choice((1, 2, 3, 4, 6, 9))
    spread = rng.choice((4, 12, 30))
    return Schedule(
        seed=seed,
        group=group,
        log=rng.randrange(group.n_logs),
        windows=rng.choice(group.windows),
        faults=tuple(Fault(rng.randrange(spread), rng.choice(group.faults), rng.randrange(8)) for _ in range(n_faults)),
    )


def shrunk(schedule: Schedule, fails) -> Schedule:
    """The schedule without every fault that it fails without."""
    at = 0
    while at < len(schedule.faults):
        fewer = replace(schedule, faults=schedule.faults[:at] + schedule.faults[at + 1 :])
        if fails(fewer):
            schedule = fewer
        else:
            at += 1
    return schedule
