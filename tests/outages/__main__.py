"""python -m tests.outages --seed 7: run schedules of faults against three brokers, three replicas and a trainer."""

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.outages.cluster import three_brokers
from tests.outages.planted import BUGS
from tests.outages.run import run
from tests.outages.schedule import CLIENTS, make_schedule


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first schedule; 0 has no faults")
    parser.add_argument("--schedules", type=int, default=50, help="how many seeds, from --seed on")
    parser.add_argument("--client", choices=CLIENTS, help="instead of the one of the seed")
    parser.add_argument("--logs", type=Path, help="where the logs of failed schedules are kept; default: a new folder")
    parser.add_argument("--bug", choices=BUGS, help="a mistake to plant in every replica: the checks should notice")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in order, as Ctrl-C ends it
    logs = given.logs or Path(tempfile.mkdtemp(prefix="stream-iwae-outages-"))
    began_s, n_failed, struck, waits = time.monotonic(), 0, Counter[str](), []
    with three_brokers() as cluster:
        for seed in range(given.seed, given.seed + given.schedules):
            schedule = make_schedule(seed, given.client)
            verdict = run(schedule, cluster, logs / f"seed-{seed}", given.bug)
            print(verdict.describe(), flush=True)
            n_failed += bool(verdict.violated)
            struck.update(fault.kind for fault in schedule.faults)
            waits.append(verdict.caught_up_s)
    minutes = (time.monotonic() - began_s) / 60
    print(f"{given.schedules} schedules, {n_failed} failed, {struck.total()} faults, {minutes:.1f} minutes")
    print(", ".join(f"{kind} {n}" for kind, n in struck.most_common()))
    print(f"caught up after the load: {sorted(waits)[len(waits) // 2]:.1f} s in the median, {max(waits):.1f} s at most")
    if n_failed:
        print(f"logs of what failed: {logs}")
    elif not given.logs:
        logs.rmdir()
    return bool(n_failed)


if __name__ == "__main__":
    sys.exit(main())
