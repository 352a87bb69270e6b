"""What hosts use a network for: an application is the shape of one kind of conversation."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from stream_iwae.lab.flows import ICMP, TCP, UDP


class Role(StrEnum):
    """What a host is for."""

    CLIENT = "client"
    WEB = "web"
    MAIL = "mail"
    NAME_SERVER = "name server"
    PRINTER = "printer"
    CAMERA = "camera"
    RECORDER = "recorder"  # keeps what cameras see and servers report, and asks devices how they are
    BACKUP = "backup server"


class Pool(StrEnum):
    """Whom an application talks to: hosts of a role, or addresses outside."""

    WEB = Role.WEB
    MAIL = Role.MAIL
    NAME_SERVER = Role.NAME_SERVER
    PRINTER = Role.PRINTER
    RECORDER = Role.RECORDER
    BACKUP = Role.BACKUP
    SERVER = "any server"
    WATCHED = "servers, printers and cameras"
    SITES = "sites outside"
    RESOLVED = "name servers outside"
    MAILERS = "mail servers outside"
    VISITORS = "visitors from outside"
    MULTICAST = "all neighbours"


class Rhythm(StrEnum):
    """How the rate follows the hour."""

    OFFICE = "office"  # people at their desks
    INTERNET = "internet"  # the public, awake until late
    FLAT = "flat"  # machines
    CALLS = "calls"  # while a person is in a call
    NIGHTLY = "nightly"  # in the backup's half hour
    HOURLY = "hourly"  # a few minutes of each hour


@dataclass(frozen=True, slots=True)
class Spread:
    """A lognormal amount: its median, and the standard deviation of its logarithm."""

    median: float
    sigma: float


@dataclass(frozen=True, slots=True)
class Application:
    """One kind of conversation."""

    name: str
    proto: int
    port: int
    pool: Pool
    up: Spread  # payload bytes of who asks
    down: Spread  # payload bytes of who answers
    duration_s: Spread
    rhythm: Rhythm = Rhythm.OFFICE
    is_inbound: bool = False  # the pool asks, and the host answers
    is_regular: bool = False  # as many each minute, give or take one
    answered: float = 1.0  # share of conversations
    tail: float = 0.0  # share whose answer is up to thousands of times as large (Pareto)
    elsewhere: float = 0.0  # share with none of the host's favourites
    per_visit: float = 1.0  # mean of consecutive conversations with the same far end


DNS: Final = Application(
    "dns", UDP, 53, Pool.NAME_SERVER, Spread(42, 0.22), Spread(130, 0.55), Spread(0.02, 0.9), answered=0.99
)
VISIT: Final = Application(
    *("visit", TCP, 443, Pool.VISITORS, Spread(1600, 0.8), Spread(14_000, 1.5), Spread(2.5, 1.1), Rhythm.INTERNET),
    is_inbound=True,
    answered=0.985,
    tail=0.01,
    elsewhere=1.0,
    per_visit=3.0,
)

APPLICATIONS: Final = (
    DNS,
    VISIT,
    Application(
        *("web", TCP, 443, Pool.SITES, Spread(1700, 0.9), Spread(9_000, 1.7), Spread(3.0, 1.3)),
        answered=0.98,
        tail=0.02,
        elsewhere=0.3,
    ),
    Application(
        *("quic", UDP, 443, Pool.SITES, Spread(2200, 0.9), Spread(16_000, 1.8), Spread(4.0, 1.3)),
        answered=0.99,
        tail=0.03,
        elsewhere=0.2,
    ),
    Application("intranet", TCP, 443, Pool.WEB, Spread(1200, 0.8), Spread(15_000, 1.4), Spread(1.0, 1.2), tail=0.005),
    Application("mail", TCP, 993, Pool.MAIL, Spread(1500, 1.0), Spread(6_000, 1.9), Spread(5.0, 1.4)),
    Application("submission", TCP, 587, Pool.MAIL, Spread(9_000, 2.1), Spread(900, 0.3), Spread(2.0, 0.8)),
    Application("print", TCP, 9100, Pool.PRINTER, Spread(250_000, 1.4), Spread(300, 0.6), Spread(8.0, 0.9)),
    Application("sync", TCP, 443, Pool.SITES, Spread(350_000, 1.6), Spread(3_000, 0.9), Spread(9.0, 1.1)),
    Application("update", TCP, 443, Pool.SITES, Spread(15_000, 0.8), Spread(6e7, 1.1), Spread(40.0, 0.7), Rhythm.FLAT),
    Application("ssh", TCP, 22, Pool.SERVER, Spread(5_000, 1.2), Spread(9_000, 1.5), Spread(45.0, 1.4)),
    Application(
        *("call", UDP, 8801, Pool.SITES, Spread(5e6, 0.7), Spread(7e6, 0.8), Spread(59.0, 0.05), Rhythm.CALLS),
        is_regular=True,
    ),
    Application("ntp", UDP, 123, Pool.NAME_SERVER, Spread(48, 0), Spread(48, 0), Spread(0.01, 0.5), Rhythm.FLAT),
    Application(
        "mdns", UDP, 5353, Pool.MULTICAST, Spread(90, 0.7), Spread(0, 0), Spread(0.5, 1.5), Rhythm.FLAT, answered=0
    ),
    Application(
        *("resolve", UDP, 53, Pool.RESOLVED, Spread(45, 0.22), Spread(160, 0.6), Spread(0.04, 0.9)),
        answered=0.97,
        elsewhere=0.8,
    ),
    Application("outbound", TCP, 25, Pool.MAILERS, Spread(12_000, 2.0), Spread(700, 0.4), Spread(3.0, 0.9)),
    Application(
        *("inbound", TCP, 25, Pool.MAILERS, Spread(15_000, 2.0), Spread(700, 0.4), Spread(3.0, 0.9), Rhythm.INTERNET),
        is_inbound=True,
        elsewhere=0.9,
        per_visit=1.5,
    ),
    Application(
        *("stream", UDP, 5004, Pool.RECORDER, Spread(1.1e7, 0.12), Spread(1200, 0.1), Spread(59.5, 0.01)),
        rhythm=Rhythm.FLAT,
        is_regular=True,
    ),
    Application(
        *("ping", ICMP, 0, Pool.WATCHED, Spread(56, 0), Spread(56, 0), Spread(0.002, 0.6), Rhythm.FLAT),
        elsewhere=1.0,
        answered=0.995,
    ),
    Application(
        *("snmp", UDP, 161, Pool.WATCHED, Spread(80, 0.2), Spread(350, 0.8), Spread(0.03, 0.8), Rhythm.FLAT),
        elsewhere=1.0,
    ),
    Application(
        "report", TCP, 6514, Pool.RECORDER, Spread(4_000, 1.3), Spread(250, 0.5), Spread(2.0, 1.5), Rhythm.FLAT
    ),
    Application(
        *("backup", TCP, 9103, Pool.BACKUP, Spread(8e7, 0.5), Spread(2_000, 0.3), Spread(55.0, 0.1)),
        rhythm=Rhythm.NIGHTLY,
        is_regular=True,
    ),
    Application(
        *("increment", TCP, 9103, Pool.BACKUP, Spread(2.5e7, 1.2), Spread(2_000, 0.3), Spread(45.0, 0.4)),
        rhythm=Rhythm.HOURLY,
        is_regular=True,
    ),
)

_MACHINE: Final = {"dns": 0.4, "ntp": 0.1, "update": 0.002, "report": 0.7}

RATES: Final[dict[Role, dict[str, float]]] = {  # conversations a minute at the busiest hour
    Role.CLIENT: {
        "dns": 2.2,
        "web": 2.4,
        "quic": 0.9,
        "intranet": 0.5,
        "mail": 0.3,
        "submission": 0.02,
        "print": 0.012,
        "sync": 0.05,
        "update": 0.0015,
        "ssh": 0.01,
        "call": 1.6,
        "ntp": 0.06,
        "mdns": 0.15,
    },
    Role.WEB: {**_MACHINE, "visit": 14.0},
    Role.MAIL: {**_MACHINE, "dns": 2.5, "outbound": 1.2, "inbound": 2.0},
    Role.NAME_SERVER: {"ntp": 0.3, "report": 0.7},  # its questions to others follow from the clients'
    Role.PRINTER: {"dns": 0.25, "ntp": 0.1, "mdns": 0.9},
    Role.CAMERA: {"stream": 1.0, "dns": 0.15, "ntp": 0.15, "mdns": 0.4},
    Role.RECORDER: {"dns": 0.4, "ntp": 0.1, "ping": 9.0, "snmp": 6.0},
    Role.BACKUP: _MACHINE,
}
SAVED: Final = {"backup": 2.0, "increment": 1.2}  # the same, of hosts that are backed up, while it runs
CACHE_MISSES: Final = 0.3  # share of a name server's questions that it passes on
