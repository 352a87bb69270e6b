"""A simulated network: hosts in roles behind exporters, the addresses outside, and each host's habits."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.applications import APPLICATIONS, CACHE_MISSES, RATES, SAVED, Pool, Role
from stream_iwae.lab.flows import Floats, Ints

MIN_HOSTS: Final = 24
EXPORTERS: Final = ("core-1", "edge-1", "edge-2")
N_FAVOURITES: Final = 12
_SHARES: Final = {Role.WEB: 0.025, Role.MAIL: 0.016, Role.NAME_SERVER: 0.016, Role.PRINTER: 0.06, Role.CAMERA: 0.1}
_SUBNETS: Final = {Role.CLIENT: 10, Role.PRINTER: 20, Role.CAMERA: 21}  # the rest, servers, are in subnet 1
_N_SUBNETS: Final = 32
_OUTSIDE: Final = {Pool.SITES: 400, Pool.RESOLVED: 80, Pool.MAILERS: 60, Pool.VISITORS: 3000}
_N_STRANGERS: Final = 16
_SERVERS: Final = (Role.WEB, Role.MAIL, Role.NAME_SERVER)
_NAMES: Final = [application.name for application in APPLICATIONS]
_SAVED_CLIENTS: Final = 0.08  # share of clients that are backed up as the servers are


@dataclass(frozen=True, slots=True)
class Network:
    """H hosts that come first in the table of addresses, and what they do with A applications."""

    roles: tuple[Role, ...]  # H
    addresses: NDArray[np.object_]  # all there are, inside and outside
    exporters: Ints  # (H,), place in EXPORTERS
    pools: dict[Pool, Ints]  # places in `addresses`
    strangers: Ints  # places outside that nobody talks to by habit
    unused: Ints  # places inside that no host has
    agents: Ints  # hosts that are backed up
    newcomer: int  # a client that joins late
    rates: Floats  # (H, A), conversations a minute at the busiest hour
    sizes: Floats  # (H, A), factor on payloads
    favourites: Ints  # (H, A, N_FAVOURITES), the usual far ends, best first
    shifts_h: Floats  # (H,), how much later than others a person works
    first_port: Ints  # (H,), where the operating system's ephemeral ports begin

    @property
    def n_hosts(self) -> int:
        """H."""
        return len(self.roles)

    def hosts(self, *roles: Role) -> Ints:
        """Places of the hosts in these roles."""
        return np.array([place for place, role in enumerate(self.roles) if role in roles], np.int64)

    def names(self, places: Ints) -> tuple[str, ...]:
        """The addresses at these places."""
        return tuple(self.addresses[places].tolist())

    def exporters_of(self, src: Ints, dst: Ints) -> Ints:
        """(N,) exporters of flows: the one before the sender; for senders outside, before the receiver."""
        inside = np.where(src < self.n_hosts, src, dst)
        is_inside = inside < self.n_hosts  # between two strangers, or to an address nobody has, it is the core
        return np.where(is_inside, self.exporters[np.where(is_inside, inside, 0)], 0)


def make_network(n_hosts: int, rng: np.random.Generator) -> Network:
    """Draw a network.

    Raises:
        ConfigurationError: It has too few hosts for its roles.
    """
    if n_hosts < MIN_HOSTS:
        raise ConfigurationError("hosts", n_hosts, f"a network with all roles needs at least {MIN_HOSTS}")
    roles = _roles(n_hosts)
    by_role = {role: np.flatnonzero([other is role for other in roles]) for role in Role}
    clients = by_role[Role.CLIENT]
    inside, unused = _inside(roles, rng)
    outside = _outside(rng)
    addresses = np.array([*inside, *outside, "224.0.0.251", *unused], object)
    ends = np.cumsum([n_hosts, *_OUTSIDE.values(), _N_STRANGERS])
    pools = {pool: np.arange(ends[i], ends[i + 1]) for i, pool in enumerate(_OUTSIDE)}
    pools |= {Pool(role.value): by_role[role] for role in Role if role.value in set(Pool)}
    pools[Pool.SERVER] = np.concatenate([by_role[role] for role in _SERVERS])
    pools[Pool.WATCHED] = np.concatenate([pools[Pool.SERVER], by_role[Role.PRINTER], by_role[Role.CAMERA]])
    pools[Pool.MULTICAST] = np.array([ends[-1]])
    saved = rng.choice(clients[:-1], max(2, round(_SAVED_CLIENTS * len(clients))), replace=False)
    agents = np.concatenate([by_role[Role.WEB], by_role[Role.MAIL], saved])
    return Network(
        roles=roles,
        addresses=addresses,
        exporters=_exporters(roles),
        pools=pools,
        strangers=np.arange(ends[-2], ends[-1]),
        unused=np.arange(ends[-1] + 1, len(addresses)),
        agents=agents,
        newcomer=int(clients[-1]),
        rates=_rates(roles, agents, rng),
        sizes=np.exp(rng.normal(0, 0.3, (n_hosts, len(APPLICATIONS)))),
        favourites=_favourites(n_hosts, pools, rng),
        shifts_h=rng.normal(0, 0.8, n_hosts).clip(-2, 2),
        first_port=rng.choice([32_768, 49_152], n_hosts),
    )


def _roles(n_hosts: int) -> tuple[Role, ...]:
    few = [role for role, share in _SHARES.items() for _ in range(max(2, round(share * n_hosts)))]
    few += [Role.RECORDER, Role.BACKUP]
    return (*few, *[Role.CLIENT] * (n_hosts - len(few)))


def _exporters(roles: tuple[Role, ...]) -> Ints:
    """Servers are behind the core, printers and cameras behind one edge each, clients behind either."""
    fixed = {Role.PRINTER: 1, Role.CAMERA: 2}
    return np.array(
        [1 + place % 2 if role is Role.CLIENT else fixed.get(role, 0) for place, role in enumerate(roles)], np.int64
    )


def _inside(roles: tuple[Role, ...], rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Addresses of the hosts, in an order that tells nothing, and all others of the subnets."""
    site = int(rng.integers(16, 200))
    exporters = _exporters(roles)
    subnets = [_SUBNETS.get(role, 1) + (exporters[i] == 2 and role is Role.CLIENT) for i, role in enumerate(roles)]
    capacity = 250
    taken: dict[int, int] = {}
    last = {subnet: rng.permutation(np.arange(2, 2 + capacity)) for subnet in range(_N_SUBNETS)}
    inside = []
    for subnet in subnets:
        number = taken.get(subnet, 0)
        taken[subnet] = number + 1
        inside.append((int(subnet) + 2 * (number // capacity), int(last[subnet][number % capacity])))
    used = set(inside)
    unused = [(subnet, host) for subnet in range(_N_SUBNETS) for host in range(1, 255) if (subnet, host) not in used]
    return [f"10.{site}.{s}.{h}" for s, h in inside], [f"10.{site}.{s}.{h}" for s, h in unused]


def _outside(rng: np.random.Generator) -> list[str]:
    """Distinct addresses of 198.18.0.0/15, the range set aside for benchmarks (RFC 2544)."""
    numbers = rng.choice(2 * 256 * 254, sum(_OUTSIDE.values()) + _N_STRANGERS, replace=False).tolist()
    return [f"198.{18 + n // (256 * 254)}.{n // 254 % 256}.{1 + n % 254}" for n in numbers]


def _rates(roles: tuple[Role, ...], agents: Ints, rng: np.random.Generator) -> Floats:
    """(H, A): what the role does, times the habits of the host."""
    usual = {role: np.array([RATES[role].get(name, 0.0) for name in _NAMES]) for role in Role}
    rates = np.stack([usual[role] for role in roles])
    is_client = np.array([role is Role.CLIENT for role in roles])
    rates *= np.exp(rng.normal(0, np.where(is_client, 0.4, 0.15)))[:, None]
    rates *= np.exp(rng.normal(0, 1, rates.shape) * np.where(is_client, 0.4, 0.1)[:, None])
    regular = [place for place, application in enumerate(APPLICATIONS) if application.is_regular]
    for place in regular:  # a camera has one stream, whatever its habits
        rates[:, place] = [usual[role][place] for role in roles]
    for name, rate in SAVED.items():
        rates[agents, _NAMES.index(name)] = rate
    is_name_server = np.array([role is Role.NAME_SERVER for role in roles])
    questions = rates[:, _NAMES.index("dns")].sum() * CACHE_MISSES / is_name_server.sum()
    rates[is_name_server, _NAMES.index("resolve")] = questions
    return rates


def _favourites(n_hosts: int, pools: dict[Pool, Ints], rng: np.random.Generator) -> Ints:
    """(H, A, N_FAVOURITES): drawn with repetition, so that small pools and strong habits come out by themselves."""
    drawn = np.empty((n_hosts, len(APPLICATIONS), N_FAVOURITES), np.int64)
    for place, application in enumerate(APPLICATIONS):
        pool = pools[application.pool]
        popular = rng.random((n_hosts, N_FAVOURITES)) ** 2  # some sites are everybody's
        drawn[:, place] = pool[(popular * len(pool)).astype(np.int64)]
    return drawn
