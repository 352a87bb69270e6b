"""Who does what, and when: drafts of scenarios are cast and then given intervals that keep out of each other's way."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from stream_iwae.lab.applications import Role
from stream_iwae.lab.flows import Flows, Ints
from stream_iwae.lab.network import EXPORTERS, Network
from stream_iwae.lab.traffic import MINUTE_MS, Traffic
from stream_iwae.lab.truth import ScenarioTruth

APART_MS: Final = 25 * MINUTE_MS  # ten quiet minutes after the quarter of an hour in which an alert may still come
_LEAD_MS: Final = 15 * MINUTE_MS  # quiet at the beginning of the live part
_TAIL_MS: Final = 20 * MINUTE_MS  # and at its end
_TRIES: Final = 2_000  # places for one scenario
_PLANS: Final = 50  # attempts to place all

Build = Callable[[int, int], Flows]  # from start and end, in ms


@dataclass(frozen=True, slots=True)
class Draft:
    """A scenario with its cast and strength, but without a time."""

    name: str
    kind: str
    benign: bool
    duration_ms: int
    entities: tuple[str, ...]
    related: tuple[str, ...]
    description: str
    build: Build | None = None  # the flows it adds
    silenced: int | None = None  # the exporter it takes away
    starts_ms: int | None = None  # a time that cannot be chosen
    lasts: bool = False  # goes on to the end of the live part


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario with its time, and what it does to the traffic."""

    truth: ScenarioTruth
    added: Flows
    silenced: int | None


@dataclass(frozen=True, slots=True)
class Stage:
    """What the authors of scenarios draw from; nobody is cast twice."""

    network: Network
    traffic: Traffic
    rng: np.random.Generator
    cast: set[int] = field(default_factory=set)

    def between(self, low: float, high: float) -> float:
        """A strength."""
        return float(self.rng.uniform(low, high))

    def minutes(self, low: float, high: float) -> int:
        """A duration in milliseconds."""
        return int(self.between(low, high) * MINUTE_MS)

    def client(self) -> int:
        """An ordinary client that plays no other part and is not saved at night."""
        taken = self.cast | {self.network.newcomer, *self.network.agents.tolist()}
        return self._choose([host for host in self.network.hosts(Role.CLIENT).tolist() if host not in taken])

    def device(self) -> int:
        """A printer."""
        return self._choose([host for host in self.network.hosts(Role.PRINTER).tolist() if host not in self.cast])

    def server(self, *roles: Role) -> int:
        """A server; it may be the victim of several scenarios, one after another."""
        return int(self.rng.choice(self.network.hosts(*roles)))

    def stranger(self) -> int:
        """An address outside that nobody has talked to."""
        return self._choose([place for place in self.network.strangers.tolist() if place not in self.cast])

    def intruder(self) -> int:
        """One time in two a client that has been taken over, else a stranger."""
        return self.client() if self.rng.random() < 0.5 else self.stranger()

    def names(self, *places: int) -> tuple[str, ...]:
        """Addresses, as the truth tells them."""
        return self.network.names(np.array(places, np.int64))

    def _choose(self, places: Sequence[int]) -> int:
        chosen = int(self.rng.choice(places))
        self.cast.add(chosen)
        return chosen


def paced(rng: np.random.Generator, start_ms: int, end_ms: int, gap_ms: float, jitter: float) -> Ints:
    """Times in [start, end), the first at the start, a gap of `gap_ms` (1 +- jitter) between two."""
    n = int(np.ceil((end_ms - start_ms) / (gap_ms * (1 - jitter)))) + 1
    gaps = gap_ms * (1 + jitter * rng.uniform(-1, 1, n))
    gaps[0] = 0
    times = start_ms + np.cumsum(gaps).astype(np.int64)
    return times[times < end_ms]


def schedule(drafts: Sequence[Draft], stage: Stage, start_ms: int, end_ms: int) -> list[tuple[Draft, tuple[int, int]]]:
    """Give each draft an interval in [start, end); two that concern the same entity stay APART_MS apart.

    Who concerns most is placed first. A draft that fits nowhere is left out, which a live part of
    some hours does not bring about.
    """
    order = sorted(drafts, key=lambda draft: (draft.starts_ms is None, -len(_concerned(draft))))
    best: list[tuple[Draft, tuple[int, int]]] = []
    for _ in range(_PLANS):
        placed: list[tuple[Draft, tuple[int, int]]] = []
        for draft in order:
            interval = _place(draft, placed, stage, start_ms, end_ms)
            if interval is not None:
                placed.append((draft, interval))
        if len(placed) > len(best):
            best = placed
        if len(best) == len(drafts):
            break
    return sorted(best, key=lambda one: one[1])


def enact(draft: Draft, start_ms: int, end_ms: int) -> Scenario:
    """Let a draft happen in [start, end)."""
    truth = ScenarioTruth(
        *(draft.name, draft.kind, draft.benign, draft.entities, draft.related, start_ms, end_ms, draft.description)
    )
    added = Flows.none() if draft.build is None else draft.build(start_ms, end_ms)
    return Scenario(truth, added, draft.silenced)


def behind(network: Network, exporter: int) -> Ints:
    """The hosts whose flows an exporter reports."""
    return np.flatnonzero(network.exporters == exporter)


def exporter_name(exporter: int) -> str:
    """Its name in the events."""
    return EXPORTERS[exporter]


def _place(
    draft: Draft, placed: Sequence[tuple[Draft, tuple[int, int]]], stage: Stage, start_ms: int, end_ms: int
) -> tuple[int, int] | None:
    first, last = start_ms + _LEAD_MS, end_ms - _TAIL_MS - draft.duration_ms
    if draft.starts_ms is not None:
        return (draft.starts_ms, draft.starts_ms + draft.duration_ms) if draft.starts_ms <= last else None
    if last <= first:
        return None
    rivals = [when for other, when in placed if _meets(draft, other)]
    for begin in stage.rng.integers(first, last, _TRIES).tolist():
        end = end_ms if draft.lasts else begin + draft.duration_ms
        if all(end + APART_MS <= start or begin >= stop + APART_MS for start, stop in rivals):
            return begin, end
    return None


def _meets(one: Draft, other: Draft) -> bool:
    return bool(_concerned(one) & _concerned(other))


def _concerned(draft: Draft) -> set[str]:
    """Who takes part; an outage concerns all hosts behind its exporter."""
    return set(draft.entities) | set(draft.related)
