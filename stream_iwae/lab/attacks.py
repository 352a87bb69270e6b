"""The attacks: each is as strong as the tool it is named after is when its user wants not to be noticed."""

from collections.abc import Callable
from typing import Final

import numpy as np

from stream_iwae.lab.applications import Role
from stream_iwae.lab.crafted import CLOSED, FILTERED, OPEN, everywhere, exchange, half_open, probes
from stream_iwae.lab.flows import TCP, UDP, Flows
from stream_iwae.lab.scenarios import Draft, Stage, behind, exporter_name, paced

_SCANNED_PORTS: Final = 10_000


def vertical_scan(stage: Stage) -> Draft:
    """One host asks for one port of a server after another, 3 to 8 a second for 6 to 14 minutes.

    `nmap -T2` sends 2.5 probes a second, `-T3` some hundred in a local network. A probe is one SYN
    of 44 bytes from a constant port; 80 % are refused by a reset, some fall to a filter, few ports are open.
    """
    rng, rate = stage.rng, stage.between(3, 8)
    attacker, target = stage.intruder(), stage.server(Role.WEB, Role.MAIL, Role.NAME_SERVER)

    def build(start_ms: int, end_ms: int) -> Flows:
        ts = paced(rng, start_ms, end_ms, 1000 / rate, 0.3)
        ports = rng.permutation(np.arange(1, _SCANNED_PORTS + 1))[: len(ts)]
        ts = ts[: len(ports)]
        source_port = np.full(len(ts), rng.integers(35_000, 62_000))
        state = rng.choice([CLOSED, FILTERED, OPEN], len(ts), p=[0.80, 0.18, 0.02])
        return probes(ts, everywhere(attacker, ts), everywhere(target, ts), source_port, ports, state, rng)

    return Draft(
        *("vertical scan", "vertical_scan", False, stage.minutes(6, 14), stage.names(attacker), stage.names(target)),
        f"{rate:.1f} ports a second of one server, as nmap -T2 does",
        build,
    )


def horizontal_scan(stage: Stage) -> Draft:
    """A client that was taken over asks for one service on all addresses inside, 1 to 4 a second for 10 to 25 minutes.

    `nmap -T2 -p 445` does 2.5 a second; the worm WannaCry about 25. Most addresses belong to nobody,
    clients have a firewall, and devices are behind an access list: one SYN and up to two repeats
    without an answer. Servers answer with a reset, some with an open port.
    """
    rng, rate, network = stage.rng, stage.between(1, 4), stage.network
    attacker, port = stage.client(), int(rng.choice([22, 23, 445, 3389]))

    def build(start_ms: int, end_ms: int) -> Flows:
        ts = paced(rng, start_ms, end_ms, 1000 / rate, 0.3)
        hosts = np.setdiff1d(np.arange(network.n_hosts), [network.newcomer, attacker])
        targets = rng.permutation(np.concatenate([hosts, network.unused]))[: len(ts)]
        ts = ts[: len(targets)]
        answers = np.isin(targets, network.hosts(Role.WEB, Role.MAIL, Role.NAME_SERVER, Role.BACKUP))
        state = np.where(answers, rng.choice([CLOSED, OPEN], len(ts), p=[0.8, 0.2]), FILTERED)
        ports = rng.integers(33_000, 60_000, len(ts))
        return probes(ts, everywhere(attacker, ts), targets, ports, everywhere(port, ts), state, rng)

    return Draft(
        *("horizontal scan", "horizontal_scan", False, stage.minutes(10, 25), stage.names(attacker), ()),
        f"{rate:.1f} addresses a second on port {port}, as nmap -T2 does",
        build,
    )


def syn_flood(stage: Stage) -> Draft:
    """A bot opens 15 to 40 half connections a second to a web server for 5 to 10 minutes.

    `hping3 --fast` sends 100 a second. Each SYN has another port and is a flow of its own; the
    server answers the half of them, and repeats its SYN-ACK as nobody completes the handshake.
    """
    rng, rate = stage.rng, stage.between(15, 40)
    attacker, target = stage.client(), stage.server(Role.WEB)

    def build(start_ms: int, end_ms: int) -> Flows:
        ts = paced(rng, start_ms, end_ms, 1000 / rate, 0.5)
        return half_open(ts, attacker, target, 443, rng)

    return Draft(
        *("SYN flood", "syn_flood", False, stage.minutes(5, 10), stage.names(attacker), stage.names(target)),
        f"{rate:.0f} half connections a second to a web server; hping3 --fast makes 100",
        build,
    )


def slow_exfiltration(stage: Stage) -> Draft:
    """A client sends 8 to 18 MB a minute to one address outside for 40 to 80 minutes.

    That is 130 to 300 kB/s, no more than a video call sends up: a script around `split -b 256K` and
    `curl --limit-rate`, a connection for each piece.
    """
    rng, rate = stage.rng, stage.between(8e6, 18e6)
    attacker, sink, chunk = stage.client(), stage.stranger(), 256 * 1024

    def build(start_ms: int, end_ms: int) -> Flows:
        gap_ms = chunk / rate * 60_000
        ts = paced(rng, start_ms, end_ms, gap_ms, 0.2)
        n = len(ts)
        up, down = chunk * rng.uniform(0.98, 1.03, n), rng.uniform(500, 900, n)
        duration_ms = gap_ms * rng.uniform(0.6, 0.95, n)
        return exchange(ts, attacker, sink, 443, TCP, up, down, duration_ms, rng)

    return Draft(
        *("slow exfiltration", "slow_exfiltration", False, stage.minutes(40, 80)),
        *(stage.names(attacker), stage.names(sink)),
        f"{rate / 1e6:.0f} MB a minute to one address outside, in pieces of 256 KiB",
        build,
    )


def beaconing(stage: Stage) -> Draft:
    """An implant in a printer asks its master for orders each 2 to 3.5 seconds for 50 to 100 minutes.

    Cobalt Strike's `sleep 3 20`: interactive work, 20 % jitter; it sleeps 60 seconds by default. The
    request and the empty answer are the same bytes each time, over a connection of their own.
    """
    rng, period_s, jitter = stage.rng, stage.between(2, 3.5), stage.between(0.05, 0.2)
    attacker, master = stage.device(), stage.stranger()
    up_bytes, down_bytes = float(rng.integers(350, 900)), float(rng.integers(150, 500))

    def build(start_ms: int, end_ms: int) -> Flows:
        ts = paced(rng, start_ms, end_ms, 1000 * period_s, jitter)
        n = len(ts)
        sizes = np.full(n, up_bytes), np.full(n, down_bytes)
        return exchange(ts, attacker, master, 443, TCP, *sizes, rng.uniform(120, 260, n), rng)

    return Draft(
        *("beaconing", "beaconing", False, stage.minutes(50, 100), stage.names(attacker), stage.names(master)),
        f"{up_bytes:.0f} bytes each {period_s:.1f} s to one address outside, jitter {100 * jitter:.0f} %",
        build,
    )


def dns_tunnel(stage: Stage) -> Draft:
    """A client carries data out in names to look up, 2 to 6 questions a second for 20 to 45 minutes.

    `dnscat2` asks once a second when idle, `iodine` up to 100 times under load. Names fill most of
    the 255 bytes, answers are TXT records. The own name server passes all on to the tunnel's end.
    """
    rng, rate = stage.rng, stage.between(2, 6)
    attacker, resolver, end_point = stage.client(), stage.server(Role.NAME_SERVER), stage.stranger()

    def build(start_ms: int, end_ms: int) -> Flows:
        ts = paced(rng, start_ms, end_ms, 1000 / rate, 0.6)
        n = len(ts)
        up, down = rng.uniform(190, 250, n), rng.lognormal(np.log(330), 0.35, n).clip(120, 1_200)
        wait_ms = rng.lognormal(np.log(45), 0.4, n)
        asked = exchange(ts, attacker, resolver, 53, UDP, up, down, wait_ms, rng)
        return Flows.concat([asked, exchange(ts, resolver, end_point, 53, UDP, up, down, 0.9 * wait_ms, rng)])

    return Draft(
        *("DNS tunnel", "dns_tunnel", False, stage.minutes(20, 45)),
        *(stage.names(attacker), stage.names(resolver, end_point)),
        f"{rate:.1f} questions of 220 bytes a second; dnscat2 asks 1, iodine up to 100",
        build,
    )


def password_guessing(stage: Stage) -> Draft:
    """Someone tries 120 to 280 passwords a minute on a server for 10 to 25 minutes.

    `hydra -t 16 ssh://...` comes to about 250 a minute. A try is a whole connection of 15 to 22
    packets and some 2.5 kB, and lasts 2 to 4 seconds.
    """
    rng, rate = stage.rng, stage.between(120, 280)
    attacker, target = stage.intruder(), stage.server(Role.WEB, Role.MAIL)

    def build(start_ms: int, end_ms: int) -> Flows:
        ts = paced(rng, start_ms, end_ms, 60_000 / rate, 0.5)
        n = len(ts)
        sizes = rng.normal(1_650, 60, n).clip(1_200), rng.normal(2_300, 80, n).clip(1_800)
        return exchange(ts, attacker, target, 22, TCP, *sizes, rng.uniform(2_000, 4_000, n), rng)

    return Draft(
        *("password guessing", "password_guessing", False, stage.minutes(10, 25)),
        *(stage.names(attacker), stage.names(target)),
        f"{rate:.0f} tries a minute on port 22 of a server, as hydra -t 16 makes",
        build,
    )


def silent_exporter(stage: Stage) -> Draft:
    """An exporter of an edge sends nothing for 15 to 30 minutes: a lost route, a filled disk, a cut cable.

    The hosts behind it go on as ever; nobody sees it.
    """
    exporter = int(stage.rng.integers(1, 3))
    hosts = behind(stage.network, exporter)
    return Draft(
        *("silent exporter", "silent_exporter", False, stage.minutes(15, 30)),
        *((exporter_name(exporter), *stage.network.names(hosts)), ()),
        f"no flow from {exporter_name(exporter)} with its {len(hosts)} hosts",
        silenced=exporter,
    )


ATTACKS: Final[tuple[Callable[[Stage], Draft], ...]] = (
    *(vertical_scan, horizontal_scan, syn_flood, slow_exfiltration),
    *(beaconing, dns_tunnel, password_guessing, silent_exporter),
)
