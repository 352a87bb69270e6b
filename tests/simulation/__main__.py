"""python -m tests.simulation --seed 123: replay a schedule, step by step, and cut it down to what fails."""

import argparse
import gc
import sys
import time
from collections import Counter

from tests.simulation.logs import SOON_MATURE
from tests.simulation.run import SHARED, run
from tests.simulation.schedule import BY_NAME, make_schedule, shrunk

_FREEZE_EVERY = 250  # schedules


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedules", type=int, default=1, help="how many seeds, from --seed on")
    parser.add_argument("--group", choices=sorted(BY_NAME), help="instead of the one that the seed belongs to")
    parser.add_argument("--quiet", action="store_true", help="no steps")
    parser.add_argument("--shrink", action="store_true", help="leave out every fault that a failure does not need")
    given = parser.parse_args()
    for module, name, value in SOON_MATURE:
        setattr(module, name, value)
    group = BY_NAME[given.group] if given.group else None
    n_failed, struck, began = 0, Counter(), time.process_time()
    for seed in range(given.seed, given.seed + given.schedules):
        schedule = make_schedule(seed, group)
        if given.shrink:
            schedule = shrunk(schedule, lambda fewer: bool(run(fewer).violated))
        is_traced = given.schedules == 1 and not given.quiet
        verdict = run(schedule, SHARED, print if is_traced else None)
        struck += verdict.struck
        if verdict.violated or given.schedules == 1:
            print(verdict.describe())
        n_failed += bool(verdict.violated)
        if seed % _FREEZE_EVERY == 0:  # what is remembered stays: no need to look through it for garbage
            gc.collect()
            gc.freeze()
    used_s = time.process_time() - began
    print(f"{given.schedules} schedules, {n_failed} failed, {sum(struck.values())} faults, {used_s:.1f} s of CPU")
    if given.schedules > 1:
        print(", ".join(f"{kind} {n}" for kind, n in struck.most_common()))
    return bool(n_failed)


if __name__ == "__main__":
    sys.exit(main())
