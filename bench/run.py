"""All benchmarks: a table on the terminal and rows in results.json. `--events` and `--only` make it shorter."""

import argparse
import json
import os
import secrets
import statistics
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the service's own command line has it
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")

import numpy as np
from against_quix import against_quix
from backlog import backlog
from flows import EVENTS_A_WINDOW, a_config, a_model, a_pool, minute
from ingest import bare_poll, ingest
from latency import latency
from partitions import cost_by_partitions, spread
from rekey import rekey_rates
from rich.console import Console
from rich.table import Table
from service import service_cost
from sizes import table
from soak import soak

from stream_iwae.bootstrap import settle_process, stages_of
from stream_iwae.lab.local_kafka import local_kafka
from stream_iwae.lab.publish import MessagePublisher, create_topic

TOPIC = "bench"
ENTITIES = 5_000
PARTS = ("ingest", "service", "quix", "partitions", "rekey", "latency", "sizes", "backlog")
LONG = ("soak",)  # only where it is asked for
HALF, NEARLY_FULL = 0.5, 0.9  # of what the service takes
CLIENTS = {"kafka-python": 60_000, "confluent": 120_000}  # and what the whole service should take, events/s

Row = dict[str, object]


def fill(servers: str, n_events: int) -> None:
    rng = np.random.default_rng(1)
    create_topic(servers, TOPIC)
    pool = a_pool(rng, ENTITIES)
    with MessagePublisher(servers, TOPIC) as publisher:
        number = 0
        while publisher.n_events < n_events:
            for _, message in minute(number, ENTITIES, pool):
                publisher.send(None, message)
                if publisher.n_events == n_events:
                    break
            number += 1


def row(name: str, value: float, unit: str, rival: str = "", ratio: float | None = None) -> Row:
    return {"name": name, "value": round(value, 4), "unit": unit, "rival": rival, "ratio": ratio and round(ratio, 3)}


def ingest_rows(servers: str, n_events: int) -> Iterator[Row]:
    """From Kafka to feature vectors, with either client."""
    for client in CLIENTS:
        chosen = a_config(servers, TOPIC, client=client)
        # Alternating, so that a noisy neighbour hits both.
        pairs = [
            (bare_poll(chosen, TOPIC, n_events), n_events / ingest(chosen, TOPIC, n_events).seconds) for _ in range(3)
        ]
        bare, ours = (statistics.harmonic_mean(rates) for rates in zip(*pairs, strict=True))
        yield row(f"ingest-{client}", ours, "events/s", f"bare poll loop {bare:,.0f} events/s", ours / bare)


def service_rows(servers: str, blob: bytes, n_events: int) -> Iterator[Row]:
    """The whole service, with either client."""
    for client, target in CLIENTS.items():
        rate = service_rate(servers, blob, n_events, client)
        yield row(f"service-{client}", rate, "events/s", f"target {target:,.0f} events/s", rate / target)


def service_rate(servers: str, blob: bytes, n_events: int, client: str) -> float:
    """Events a second, by a group of its own."""
    config = a_config(servers, TOPIC, client=client, group=f"{TOPIC}-{client}-{secrets.token_hex(2)}")
    return n_events / service_cost(config, n_events, 1, blob).seconds


def quix_rows(servers: str, n_events: int) -> Iterator[Row]:
    """Quix Streams and us per CPU-second, with either client."""
    per_cpu_s = against_quix(servers, ENTITIES, n_events)
    for client in CLIENTS:
        name = "against-quix" if client == "kafka-python" else f"against-quix-{client}"
        rival = f"Quix Streams {per_cpu_s['quix']:,.0f} events/CPU-s"
        yield row(name, per_cpu_s[client], "events/CPU-s", rival, per_cpu_s[client] / per_cpu_s["quix"])


def partition_rows(servers: str, blob: bytes, n_events: int) -> Iterator[Row]:
    """The same events on more and more partitions."""
    for count, costs in cost_by_partitions(servers, blob, ENTITIES, n_events, (1, 2, 4, 8), n_runs=5):
        yield row(f"cpu-partitions-{count}", statistics.median(costs), "CPU-s/million", f"5 runs: {spread(costs)}")


def rekey_rows(servers: str, n_events: int) -> Iterator[Row]:
    """What re-keying costs, and what is read behind it, beside reading the events themselves; with either client."""
    for client in CLIENTS:
        through, behind, direct = rekey_rates(servers, ENTITIES, n_events, client)
        rival = f"read directly {direct:,.0f} events/CPU-s"
        for name, rate in (("rekey", through), ("rekeyed-read", behind)):
            yield row(f"{name}-{client}", rate, "events/CPU-s", rival, rate / direct)


def latency_rows(servers: str, blob: bytes, load: float, rate: float) -> Iterator[Row]:
    """Of alerts, by how many windows close together, at this share of what the service takes."""
    pace, prefix = load * rate, "latency" if load == HALF else f"latency-at-{load:.0%}"
    for n_entities, n_minutes in ((100, 400), (1_000, 150), (10_000, 20)):
        measured = latency(servers, blob, n_entities, pace, n_minutes, f"{prefix.rstrip('%')}-{n_entities}")
        for quantile, most in (("p50", 0.3), ("p99", 1.0)):
            value = measured[quantile]
            name = f"{prefix}-{quantile}-{n_entities}-windows"
            last = row(name, value, "s", f"target {most} s, at {pace:,.0f} events/s", value / most)
            yield last
    if load == HALF:
        yield {**last, "name": "latency"}  # the figure to hold: p99 of 10,000 windows closing together


def size_rows(n_events: int) -> Iterator[Row]:
    """More and more entities and features."""
    for n_entities, n_features, found in table((1_000, 10_000, 100_000), (10, 20, 50, 200), n_events):
        name = f"size-{n_entities}-entities-{n_features}-features"
        yield row(f"{name}-cpu", found["us"], "us/event")
        yield row(f"{name}-memory", found["peak_mb"], "MB", f"{found['added_mb']:,.0f} MB more than idle")


def backlog_rows(servers: str, blob: bytes, n_events: int) -> Iterator[Row]:
    """Everything waits, and the scorer is slow."""
    n_entities = min(50_000, n_events // 40)
    found = backlog(servers, blob, n_entities, n_events // EVENTS_A_WINDOW // n_entities)
    assert found.fates == found.expected, f"{found.fates}, not {found.expected}"
    assert found.scored == found.n_windows, f"{found.scored} windows scored of {found.n_windows}"
    early_mb, late_mb = found.rss_mb
    yield row("backlog-seconds", found.seconds, "s", f"{found.fates}; each met its one fate")
    yield row("backlog-left", found.left, "records", "target 0")
    yield row("backlog-rebalances", found.rebalances - 1, "after the first assignment", f"{found.memberships}")
    yield row("backlog-longest-standstill", found.longest_wave_s, "s", "max_poll_interval 10 s")
    yield row("backlog-memory", late_mb, "MB", f"second quarter {early_mb:,.0f} MB", late_mb / early_mb)
    yield row("backlog-peak", found.samples[-1].peak_mb, "MB", f"the highest at any moment, {n_entities:,} entities")
    yield row("backlog-delay", found.most_lag_s, "s", "the most that consumer_lag_seconds told")


def soak_rows(servers: str, blob: bytes, rate: float, minutes: float) -> Iterator[Row]:
    """For a long time at half load."""
    found = soak(servers, blob, HALF * rate, minutes, warm_up=minutes / 6)
    paced = f"{minutes:.0f} minutes at {found.pace:,.0f} events/s, the service takes {rate:,.0f}"
    yield row("soak-memory", found.rss_mb, "MB", paced)
    yield row("soak-memory-growth", found.growth, "share", "target .02", found.growth / 0.02)
    yield row("soak-peak-growth", found.peak_growth, "share", "highest of the last tenth to that of the first")
    yield row("soak-files", found.files, "more files", "target 0")
    yield row("soak-threads", found.threads, "more threads", "target 0")
    held_back = f"the most after the warm-up; the sender waited {found.held_back_s:.0f} s for the service"
    yield row("soak-lag", found.most_lag, "records", held_back)


def all_rows(servers: str, wanted: set[str], n_events: int, minutes: float) -> Iterator[Row]:
    """Whatever is wanted, in the order of the table."""
    if {"ingest", "service", "latency", "soak"} & wanted:
        fill(servers, n_events)
    blob = a_model(config := a_config(servers, TOPIC), stages_of(config))
    if "ingest" in wanted:
        yield from ingest_rows(servers, n_events)
    if "service" in wanted:
        yield from service_rows(servers, blob, n_events)
    if "quix" in wanted:
        yield from quix_rows(servers, min(n_events, 500_000))
    if "partitions" in wanted:
        yield from partition_rows(servers, blob, min(n_events, 1_000_000))
    if "rekey" in wanted:
        yield from rekey_rows(servers, min(n_events, 1_000_000))
    if "latency" in wanted:
        rate = service_rate(servers, blob, n_events, "kafka-python")
        for load in (HALF, NEARLY_FULL):
            yield from latency_rows(servers, blob, load, rate)
    if "sizes" in wanted:
        yield from size_rows(n_events // 2)
    if "backlog" in wanted:
        yield from backlog_rows(servers, blob, n_events)
    if "soak" in wanted:
        yield from soak_rows(servers, blob, service_rate(servers, blob, n_events, "kafka-python"), minutes)


def _keep(rows: list[Row]) -> None:
    """Write the rows, in place of those of the same name; others stay."""
    path = Path(__file__).with_name("results.json")
    former = {entry["name"]: entry for entry in json.loads(path.read_text())} if path.exists() else {}
    path.write_text(json.dumps(list({**former, **{entry["name"]: entry for entry in rows}}.values()), indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000, help="on the topic before anything is measured")
    parser.add_argument(
        "--only", choices=(*PARTS, *LONG), action="append", help="one of them; may be given several times"
    )
    parser.add_argument("--minutes", type=float, default=30, help="of the soak")
    options = parser.parse_args()
    settle_process()
    rows: list[Row] = []
    console = Console()
    with local_kafka() as kafka:
        console.print(f"{options.events:,} events")
        for found in all_rows(kafka.bootstrap_servers, set(options.only or PARTS), options.events, options.minutes):
            rows.append(found)
            console.print(found)
    _keep(rows)
    shown = Table("name", "value", "unit", "rival", "ratio")
    for entry in rows:
        shown.add_row(*(f"{v:,.4g}" if isinstance(v, float) else str(v) for v in entry.values()))
    console.print(shown)


if __name__ == "__main__":
    main()
