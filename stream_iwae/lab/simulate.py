"""A seeded, labelled network: its flows as messages in time order, and the truth about its scenarios.

The history is ordinary; attacks, and what must not alarm, come in the live part that follows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, Literal

import msgspec
import numpy as np

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab import harmless
from stream_iwae.lab.attacks import ATTACKS
from stream_iwae.lab.flows import Flow, Flows, to_events
from stream_iwae.lab.network import EXPORTERS, make_network
from stream_iwae.lab.scenarios import Scenario, Stage, enact, schedule
from stream_iwae.lab.traffic import DAY_MINUTES, MINUTE_MS, Backup, Traffic
from stream_iwae.lab.truth import ScenarioTruth, write_truth

Part = Literal["history", "live"]

START_MS: Final = 1_767_571_200_000  # 2026-01-05T00:00:00Z, a Monday
HOUR_MS: Final = 3_600_000
_SLICE_MINUTES: Final = 60  # drawn and held at once: about 60,000 flows
_PARTS: Final[tuple[Part, Part]] = ("history", "live")


@dataclass(frozen=True, slots=True)
class Message:
    """The flows of one source in one minute: a JSON array, keyed by the source."""

    timestamp_ms: int  # of its last flow
    key: bytes
    value: bytes
    n_events: int


class Simulation:
    """The same arguments give the same bytes; each part, and each hour of it, can be drawn alone.

    Args:
        seed: Another one is another network, with other scenarios at other times.
        n_hosts: At least 24.
        start_ms: Where the history begins, a whole minute.
        history_ms: How long it is, in whole minutes.
        live_ms: How long the part with the scenarios is, in whole minutes. Scenarios that do not fit
            into it are left out; all do from some 5 hours on.

    Raises:
        ConfigurationError: There are too few hosts, or a time is no whole minute.
    """

    def __init__(
        self,
        seed: int,
        n_hosts: int = 120,
        start_ms: int = START_MS,
        history_ms: int = 24 * HOUR_MS,
        live_ms: int = 8 * HOUR_MS,
    ) -> None:
        for name, value in {"start": start_ms, "history": history_ms, "live": live_ms}.items():
            if value < 0 or value % MINUTE_MS:
                raise ConfigurationError(name, value, "give whole minutes, in milliseconds")
        self.seed, self.n_hosts = seed, n_hosts
        self.start_ms, self.history_ms, self.live_ms = start_ms, history_ms, live_ms
        self.live_start_ms = start_ms + history_ms
        self.end_ms = self.live_start_ms + live_ms
        self.network = make_network(n_hosts, self._rng(0))
        backup_rng = self._rng(1)
        after_minutes = self.live_start_ms // MINUTE_MS + int(backup_rng.integers(45, 75))
        self._backup = Backup(after_minutes % DAY_MINUTES, int(backup_rng.integers(25, 40)))
        n_minutes = (history_ms + live_ms) // MINUTE_MS
        self.traffic = Traffic(self.network, start_ms, n_minutes, self._backup, self._rng(2))

    def truth(self) -> list[ScenarioTruth]:
        """What happens in the live part, in order of time."""
        return [scenario.truth for scenario in self._scenarios]

    def write_truth(self, path: Path) -> None:
        """Write `truth` as JSON."""
        write_truth(self.truth(), path)

    def messages(self, part: Part) -> Iterator[Message]:
        """A message for each source and minute; their times do not decrease, nor do those of the flows in one."""
        encode = msgspec.json.Encoder().encode
        keys = [address.encode() for address in self.network.addresses.tolist()]
        for flows in self._slices(part):
            order, firsts = _by_source_and_minute(flows)
            ordered = flows.take(order)
            events = self._events(ordered)
            ends = [*firsts[1:].tolist(), len(events)]
            spans = zip(firsts.tolist(), ends, ordered.src[firsts].tolist(), strict=True)
            for first, end, source in spans:
                yield Message(events[end - 1].ts, keys[source], encode(events[first:end]), end - first)

    def events(self, part: Part) -> Iterator[Flow]:
        """The same flows one by one, in order of time."""
        for flows in self._slices(part):
            yield from self._events(flows.take(np.argsort(flows.ts, kind="stable")))

    def write_ndjson(self, path: Path, part: Part | None = None) -> int:
        """Write an event a line in order of time, by default of both parts; returns how many."""
        encoder = msgspec.json.Encoder()
        n_events = 0
        with path.open("wb") as file:
            for one in _PARTS if part is None else (part,):
                for event in self.events(one):
                    file.write(encoder.encode(event) + b"\n")
                    n_events += 1
        return n_events

    # --- inside ------------------------------------------------------------------------------

    def _rng(self, *stream: int) -> np.random.Generator:
        """One of many independent streams of randomness of this seed."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=stream))

    @cached_property
    def _scenarios(self) -> list[Scenario]:
        stage = Stage(self.network, self.traffic, self._rng(3))
        backup = harmless.nightly_backup(self._backup, self.live_start_ms)
        authors = (*ATTACKS, harmless.flash_crowd, backup, harmless.new_host)
        drafts = [author(stage) for author in authors]
        return [enact(draft, *when) for draft, when in schedule(drafts, stage, self.live_start_ms, self.end_ms)]

    def _slices(self, part: Part) -> Iterator[Flows]:
        """All flows of each hour, in no order."""
        begin_ms, end_ms = {
            "history": (self.start_ms, self.live_start_ms),
            "live": (self.live_start_ms, self.end_ms),
        }[part]
        for start_ms in range(begin_ms, end_ms, _SLICE_MINUTES * MINUTE_MS):
            stop_ms = min(start_ms + _SLICE_MINUTES * MINUTE_MS, end_ms)
            first_minute = (start_ms - self.start_ms) // MINUTE_MS
            n_minutes = (stop_ms - start_ms) // MINUTE_MS
            ordinary = self.traffic.flows(first_minute, n_minutes, self._rng(4, first_minute))
            yield self._with_scenarios(ordinary, start_ms, stop_ms)

    def _with_scenarios(self, flows: Flows, start_ms: int, stop_ms: int) -> Flows:
        """Add what scenarios add in [start, stop), and take away what an outage and a host to come hide."""
        added = [scenario.added for scenario in self._scenarios]
        flows = Flows.concat([flows, *[more.take((more.ts >= start_ms) & (more.ts < stop_ms)) for more in added]])
        is_seen = (flows.ts >= self._joins_ms) | (
            (flows.src != self.network.newcomer) & (flows.dst != self.network.newcomer)
        )
        exporters = self.network.exporters_of(flows.src, flows.dst)
        for scenario in self._scenarios:
            if scenario.silenced is not None:
                is_within = (flows.ts >= scenario.truth.start_ms) & (flows.ts < scenario.truth.end_ms)
                is_seen &= ~(is_within & (exporters == scenario.silenced))
        return flows.take(is_seen)

    @property
    def _joins_ms(self) -> int:
        """When the new host is switched on."""
        return next((truth.start_ms for truth in self.truth() if truth.kind == "new_host"), self.end_ms)

    def _events(self, flows: Flows) -> list[Flow]:
        exporters = np.array(EXPORTERS, object)[self.network.exporters_of(flows.src, flows.dst)]
        return to_events(flows, self.network.addresses, exporters)


def _by_source_and_minute(flows: Flows) -> tuple[np.ndarray, np.ndarray]:
    """Order of the rows by (minute, time of the source's last flow, source, time), and where each source begins."""
    minute = flows.ts // MINUTE_MS
    order = np.lexsort((flows.ts, flows.src, minute))
    is_first = (np.diff(flows.src[order], prepend=-1) != 0) | (np.diff(minute[order], prepend=-1) != 0)
    firsts = np.flatnonzero(is_first)
    group = np.cumsum(is_first) - 1
    last_ts = flows.ts[order][np.append(firsts[1:], len(order))[group] - 1]
    order = order[np.lexsort((np.arange(len(order)), group, last_ts))]
    is_first = (np.diff(flows.src[order], prepend=-1) != 0) | (np.diff(minute[order], prepend=-1) != 0)
    return order, np.flatnonzero(is_first)
