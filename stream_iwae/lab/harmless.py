"""What must not alarm: a flash crowd, the nightly backup, a new host."""

from collections.abc import Callable
from typing import Final

import numpy as np

from stream_iwae.lab.applications import Role
from stream_iwae.lab.flows import Flows
from stream_iwae.lab.scenarios import Draft, Stage
from stream_iwae.lab.traffic import DAY_MINUTES, MINUTE_MS, VISIT_PLACE, Backup

_RISE_MS: Final = 5 * MINUTE_MS


def flash_crowd(stage: Stage) -> Draft:
    """A web server gets 3 to 5 times its usual visits for 20 to 35 minutes, say after a newsletter.

    Every visitor is an ordinary one; it takes 5 minutes to rise, and as long to fall. Smaller spells
    of this kind come several times a day, in the history too.
    """
    rng, server, times = stage.rng, stage.server(Role.WEB), stage.between(3, 5)
    usual = 0.6 * stage.network.rates[server, VISIT_PLACE]  # at the time of day of a live part by default

    def build(start_ms: int, end_ms: int) -> Flows:
        n = int(rng.poisson((times - 1) * usual * (end_ms - start_ms) / MINUTE_MS))
        ts = np.sort(rng.integers(start_ms, end_ms, n))
        slope = np.minimum(ts - start_ms, end_ms - ts) / _RISE_MS
        ts = ts[rng.random(n) < slope]
        places = np.full(len(ts), server), np.full(len(ts), VISIT_PLACE)
        return stage.traffic.converse(*places, ts, rng)

    return Draft(
        *("flash crowd", "flash_crowd", True, stage.minutes(20, 35), stage.names(server), ()),
        f"{times:.1f} times the usual visits to a web server",
        build,
    )


def nightly_backup(backup: Backup, live_start_ms: int) -> Callable[[Stage], Draft]:
    """The servers and some clients send 160 MB a minute each to the backup server, as every night.

    Bacula over a gigabit line; what changed meanwhile follows each hour. The traffic makes it itself,
    at the same minute of each day.
    """

    def draft(stage: Stage) -> Draft:
        network = stage.network
        wait_minutes = (backup.first_minute - live_start_ms // MINUTE_MS) % DAY_MINUTES
        servers = tuple(network.hosts(Role.BACKUP).tolist())
        return Draft(
            *("nightly backup", "nightly_backup", True, backup.n_minutes * MINUTE_MS),
            *(stage.names(*servers, *network.agents.tolist()), ()),
            f"{len(network.agents)} hosts to the backup server, at the same time as the night before",
            starts_ms=live_start_ms + wait_minutes * MINUTE_MS,
        )

    return draft


def new_host(stage: Stage) -> Draft:
    """A client of an ordinary kind that was never seen before is switched on, and stays."""
    return Draft(
        *("new host", "new_host", True, stage.minutes(60, 61), stage.names(stage.network.newcomer), ()),
        "a client like the others that was never seen before",
        lasts=True,
    )
