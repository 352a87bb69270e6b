"""One seed: schedule, world, verdict."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from tests.simulation.invariants import AT_HALF_TIME, violations
from tests.simulation.memo import Memo
from tests.simulation.reference import reference_of
from tests.simulation.schedule import Schedule, group_of
from tests.simulation.world import World

SHARED: Memo = Memo()  # of all honest runs of this process


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run came to."""

    schedule: Schedule
    violated: dict[str, list[str]]  # invariant -> what is wrong
    struck: Counter[str]  # faults, by kind

    def describe(self) -> str:
        """For people: the schedule, what is wrong, and how to see it happen."""
        seed, group = self.schedule.seed, self.schedule.group
        lines = self.schedule.describe()
        lines += [f"{name} violated: {sentence}" for name, found in self.violated.items() for sentence in found[:3]]
        of_group = "" if group_of(seed) is group else f' SIMULATE="--group {group.name}"'
        return "\n".join([*lines, f"replay: make simulate SEED={seed}{of_group}"])


def run(schedule: Schedule, memo: Memo | None = None, tell: Callable[[str], None] | None = None) -> Verdict:
    """Run a schedule; `memo` may be shared by runs of the same code."""
    reference = reference_of(schedule)
    violated: dict[str, list[str]] = {}

    def look(world: World) -> None:
        violated.update(violations(world, reference, AT_HALF_TIME))

    world = World(schedule, memo, tell).run(look)
    for name, found in violations(world, reference).items():
        violated.setdefault(name, found)
    return Verdict(schedule, violated, world.struck)
