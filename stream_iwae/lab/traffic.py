"""Ordinary traffic: conversations at rates that follow the hour, moods, breaks, busy spells and the nightly backup."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from stream_iwae.lab.applications import APPLICATIONS, VISIT, Application, Rhythm, Role
from stream_iwae.lab.flows import Conversations, Floats, Flows, Ints, both_directions
from stream_iwae.lab.network import N_FAVOURITES, Network

MINUTE_MS: Final = 60_000
DAY_MINUTES: Final = 1440
_UTC_OFFSET_H: Final = 4.0  # a live part of 8 hours from midnight UTC holds night, morning and noon
_MAX_PAYLOAD: Final = 2e9  # bytes
_MAX_DURATION_MS: Final = 300_000  # a usual active timeout of exporters
_LINE_BYTES_PER_MS: Final = 5_000  # 40 Mbit/s
_INCREMENT_MINUTES: Final = 5
VISIT_PLACE: Final = APPLICATIONS.index(VISIT)


@dataclass(frozen=True, slots=True)
class Backup:
    """When the nightly backup runs: minutes of the day in UTC; the hosts start one after another."""

    first_minute: int
    n_minutes: int


class Traffic:
    """The ordinary traffic of a network over M minutes; any part of it can be drawn alone."""

    def __init__(
        self, network: Network, start_ms: int, n_minutes: int, backup: Backup, rng: np.random.Generator
    ) -> None:
        self._network = network
        self._start_ms = start_ms
        self._backup = backup
        self._levels = _levels(network, n_minutes, rng)  # (H, M)
        self._is_at_desk = _persistent(network.n_hosts, n_minutes, 0.97, rng) > -0.4  # two thirds of the time
        self._is_in_call = _persistent(network.n_hosts, n_minutes, 0.97, rng) > 2.0  # one minute in 44
        self._shape = _Shape.of(APPLICATIONS)
        n_agents = len(network.agents)
        starts = rng.integers(0, max(1, backup.n_minutes - 10), n_agents)
        self._agent_starts = starts - starts.min()
        self._agent_ends = (self._agent_starts + rng.integers(8, 16, n_agents)).clip(max=backup.n_minutes)
        self._increment_starts = rng.integers(0, 20, network.n_hosts)

    def flows(self, first_minute: int, n_minutes: int, rng: np.random.Generator) -> Flows:
        """All flows that end in these minutes, in no order."""
        rates = self.rates(first_minute, n_minutes)  # (H, M, A)
        uneven = rates * rng.gamma(2.0, 0.5, rates.shape)  # people come in bursts
        counts = np.where(
            self._shape.is_regular, np.floor(rates + rng.random(rates.shape)), rng.poisson(uneven)
        ).astype(np.int64)
        cells = np.repeat(np.arange(counts.size), counts.ravel())
        hosts, minutes, applications = np.unravel_index(cells, counts.shape)
        ts = self._start_ms + (first_minute + minutes) * MINUTE_MS + rng.integers(0, MINUTE_MS, len(cells))
        return self.converse(hosts, applications, ts, rng)

    def rates(self, first_minute: int, n_minutes: int) -> Floats:
        """(H, n_minutes, A): conversations a minute to expect, before bursts."""
        network, minutes = self._network, slice(first_minute, first_minute + n_minutes)
        utc_minutes = self._start_ms // MINUTE_MS + first_minute + np.arange(n_minutes)
        hours = utc_minutes / 60 + _UTC_OFFSET_H - network.shifts_h[:, None]  # (H, M), local
        office = _office(hours)
        is_client = np.array([role is Role.CLIENT for role in network.roles])[:, None]
        desk = np.where(is_client, np.where(self._is_at_desk[:, minutes], 1.35, 0.2), 1.0)
        rhythms = {
            Rhythm.OFFICE: (0.12 + 0.88 * office * desk) * self._levels[:, minutes],
            Rhythm.INTERNET: _internet(hours) * self._levels[:, minutes],
            Rhythm.FLAT: np.ones_like(hours),
            Rhythm.CALLS: (self._is_in_call[:, minutes] & (office > 0.3)).astype(float),
            Rhythm.NIGHTLY: self._nightly(utc_minutes),
            Rhythm.HOURLY: ((utc_minutes - self._increment_starts[:, None]) % 60 < _INCREMENT_MINUTES).astype(float),
        }
        by_application = np.stack([rhythms[application.rhythm] for application in APPLICATIONS], axis=2)
        rates: Floats = network.rates[:, None, :] * by_application
        return rates

    def converse(self, hosts: Ints, applications: Ints, ts: Ints, rng: np.random.Generator) -> Flows:
        """Conversations of these hosts by these applications that end at `ts`, all (N,)."""
        network, shape, n = self._network, self._shape, len(hosts)
        far = _by_visit(self._far_ends(hosts, applications, rng), hosts, applications, shape, rng)
        sizes = network.sizes[hosts, applications]
        up = _lognormal(shape.up[applications], rng) * sizes
        down = _lognormal(shape.down[applications], rng) * sizes
        is_large = rng.random(n) < shape.tail[applications]
        down *= np.where(is_large, 10 * (1 + rng.pareto(1.1, n)), 1.0)
        down = down.clip(0, _MAX_PAYLOAD)
        duration_ms = 1000 * _lognormal(shape.duration_s[applications], rng) + (up + down) / _LINE_BYTES_PER_MS
        is_inbound = shape.is_inbound[applications]
        ephemeral = network.first_port[hosts] + (rng.random(n) * 11_000).astype(np.int64)
        port = shape.port[applications]
        proto = shape.proto[applications]
        talk = Conversations(
            ts=ts,
            client=np.where(is_inbound, far, hosts),
            server=np.where(is_inbound, hosts, far),
            client_port=np.where(shape.is_symmetric[applications], port, ephemeral),
            server_port=port,
            proto=proto,
            up=up,
            down=down,
            duration_ms=duration_ms.clip(1, _MAX_DURATION_MS).astype(np.int64),
            is_answered=rng.random(n) < shape.answered[applications],
            is_ongoing=shape.is_regular[applications],
        )
        return both_directions(talk, rng.integers(0, 3, n))

    def _far_ends(self, hosts: Ints, applications: Ints, rng: np.random.Generator) -> Ints:
        """(N,): mostly favourites, the first ones most; else anyone of the pool."""
        n, pools = len(hosts), self._network.pools
        rank = (N_FAVOURITES * rng.random(n) ** 2.2).astype(np.int64)
        far = self._network.favourites[hosts, applications, rank]
        is_elsewhere = rng.random(n) < self._shape.elsewhere[applications]
        anyone = rng.random(n)
        for place, application in enumerate(APPLICATIONS):
            rows = np.flatnonzero(is_elsewhere & (applications == place))
            pool = pools[application.pool]
            skew = 1.0 if application.rhythm is Rhythm.FLAT else 2.5  # machines take turns, people follow fame
            far[rows] = pool[(len(pool) * anyone[rows] ** skew).astype(np.int64)]
        return far

    def _nightly(self, utc_minutes: Ints) -> Floats:
        """(H, M): 1 while a host is being saved."""
        since = (utc_minutes - self._backup.first_minute) % DAY_MINUTES
        saved = np.zeros((self._network.n_hosts, len(utc_minutes)))
        saved[self._network.agents] = (since >= self._agent_starts[:, None]) & (since < self._agent_ends[:, None])
        return saved


@dataclass(frozen=True, slots=True)
class _Shape:
    """The table of applications as columns, (A,) or (A, 2) for median and sigma."""

    proto: Ints
    port: Ints
    up: Floats
    down: Floats
    duration_s: Floats
    is_inbound: NDArray[np.bool_]
    is_regular: NDArray[np.bool_]
    is_symmetric: NDArray[np.bool_]  # the same port at both ends, or none
    answered: Floats
    tail: Floats
    elsewhere: Floats
    per_visit: Floats

    @classmethod
    def of(cls, table: tuple[Application, ...]) -> "_Shape":
        return cls(
            proto=np.array([a.proto for a in table]),
            port=np.array([a.port for a in table]),
            up=np.array([(a.up.median, a.up.sigma) for a in table]),
            down=np.array([(a.down.median, a.down.sigma) for a in table]),
            duration_s=np.array([(a.duration_s.median, a.duration_s.sigma) for a in table]),
            is_inbound=np.array([a.is_inbound for a in table]),
            is_regular=np.array([a.is_regular for a in table]),
            is_symmetric=np.array([a.port in {0, 123, 5353} for a in table]),
            answered=np.array([a.answered for a in table]),
            tail=np.array([a.tail for a in table]),
            elsewhere=np.array([a.elsewhere for a in table]),
            per_visit=np.array([a.per_visit for a in table]),
        )


def _lognormal(spread: Floats, rng: np.random.Generator) -> Floats:
    """(N,) amounts from (N, 2) medians and sigmas."""
    return np.asarray(spread[:, 0] * np.exp(spread[:, 1] * rng.standard_normal(len(spread))))


def _by_visit(far: Ints, hosts: Ints, applications: Ints, shape: _Shape, rng: np.random.Generator) -> Ints:
    """Give consecutive conversations of a host the same far end, `per_visit` of them on average."""
    n = len(far)
    is_first = rng.random(n) * shape.per_visit[applications] < 1
    changes = (np.diff(hosts, prepend=-1) != 0) | (np.diff(applications, prepend=-1) != 0)
    leader = np.maximum.accumulate(np.where(is_first | changes, np.arange(n), 0))
    return far[leader]


# --- what rates follow -----------------------------------------------------------------------


def _office(hours: Floats) -> Floats:
    """Working hours in [0, 1]: from eight to six with a lunch, and a quarter of it at weekends."""
    hour, day = hours % 24, (hours // 24 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    rise = 1 / (1 + np.exp(-(hour - 8.2) / 0.45))
    fall = 1 / (1 + np.exp((hour - 17.8) / 0.6))
    lunch = 1 - 0.35 * np.exp(-(((hour - 12.6) / 0.6) ** 2))
    return np.asarray(rise * fall * lunch * np.where(day >= 5, 0.25, 1.0))


def _internet(hours: Floats) -> Floats:
    """The public in [.35, 1]: least at four in the morning, most at four in the afternoon."""
    return np.asarray(0.675 - 0.325 * np.cos(2 * np.pi * (hours - 4) / 24))


def _persistent(n_hosts: int, n_minutes: int, memory: float, rng: np.random.Generator) -> Floats:
    """(H, M) standard normal values that change slowly: autoregressive, of order 1."""
    noise = rng.standard_normal((n_hosts, n_minutes)) * np.sqrt(1 - memory**2)
    noise[:, :1] /= np.sqrt(1 - memory**2)
    return np.asarray(lfilter([1.0], [1.0, -memory], noise, axis=1))


def _levels(network: Network, n_minutes: int, rng: np.random.Generator) -> Floats:
    """(H, M) factors around 1: moods, and now and then a busy spell."""
    is_web = np.array([role is Role.WEB for role in network.roles])
    mood = np.exp(np.where(is_web, 0.2, 0.35)[:, None] * _persistent(network.n_hosts, n_minutes, 0.95, rng))
    longest = np.where(is_web, 30, 8)[:, None]
    begins = rng.random((network.n_hosts, n_minutes)) < np.where(is_web, 5 / DAY_MINUTES, 3 / DAY_MINUTES)[:, None]
    lengths = rng.integers(1, longest + 1, begins.shape) * begins
    strengths = rng.uniform(2, 5, begins.shape)
    spell = np.ones_like(mood)
    for ago in range(min(int(longest.max()), n_minutes)):  # a spell that began so many minutes ago still lasts
        began = slice(0, n_minutes - ago)
        lasts = lengths[:, began] > ago
        spell[:, ago:] = np.maximum(spell[:, ago:], np.where(lasts, strengths[:, began], 1.0))
    return mood * spell
