"""All benchmarks: a table on the terminal and rows in results.json. `--events` and `--only` make it shorter."""

import argparse
import json
import os
import statistics
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
from flows import a_config, a_model, a_pool, minute
from ingest import bare_poll, ingest
from latency import latency
from rich.console import Console
from rich.table import Table
from service import publish_model, service_rate

from stream_iwae.bootstrap import settle_process, stages_of
from stream_iwae.lab.local_kafka import local_kafka
from stream_iwae.lab.publish import MessagePublisher, create_topic

TOPIC = "bench"
ENTITIES = 5_000
CLIENTS = {"kafka-python": 60_000, "confluent": 120_000}  # and what the whole service should take, events/s


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


def row(name: str, value: float, unit: str, rival: str = "", ratio: float | None = None) -> dict[str, object]:
    return {"name": name, "value": round(value, 4), "unit": unit, "rival": rival, "ratio": ratio and round(ratio, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000, help="on the topic before anything is measured")
    parser.add_argument("--only", choices=["ingest", "service", "latency"], help="one of them")
    options = parser.parse_args()
    settle_process()
    rows: list[dict[str, object]] = []
    console = Console()
    with local_kafka() as kafka:
        servers = kafka.bootstrap_servers
        config = a_config(servers, TOPIC)
        console.print(f"filling a topic with {options.events:,} events")
        fill(servers, options.events)
        blob = a_model(config, stages_of(config))
        rate = 60_000.0
        for client, target in CLIENTS.items():
            chosen = a_config(servers, TOPIC, client=client, group=f"{TOPIC}-{client}")
            if options.only in {None, "ingest"}:
                # Alternating, so that a noisy neighbour hits both.
                pairs = [
                    (bare_poll(chosen, TOPIC, options.events), ingest(chosen, TOPIC, options.events)) for _ in range(3)
                ]
                bare, ours = (statistics.harmonic_mean(rates) for rates in zip(*pairs, strict=True))
                rival = f"bare poll loop {bare:,.0f} events/s"
                rows.append(row(f"ingest-{client}", ours, "events/s", rival, ours / bare))
                console.print(rows[-1])
            if options.only in {None, "service"}:
                if client == "kafka-python":
                    publish_model(chosen, blob)
                taken = service_rate(chosen, options.events)
                rate = taken if client == config.kafka.client else rate
                rival = f"target {target:,.0f} events/s"
                rows.append(row(f"service-{client}", taken, "events/s", rival, taken / target))
                console.print(rows[-1])
        if options.only in {None, "latency"}:
            pace = rate / 2
            for n_entities, n_minutes in ((100, 400), (1_000, 150), (10_000, 20)):
                measured = latency(servers, blob, n_entities, pace, n_minutes, f"latency-{n_entities}")
                for quantile, most in (("p50", 0.3), ("p99", 1.0)):
                    value = measured[quantile]
                    name = f"latency-{quantile}-{n_entities}-windows"
                    rows.append(row(name, value, "s", f"target {most} s, at {pace:,.0f} events/s", value / most))
                console.print(rows[-2:])
            rows.append({**rows[-1], "name": "latency"})  # the figure to hold: p99 of 10,000 windows closing together
    Path(__file__).with_name("results.json").write_text(json.dumps(rows, indent=2) + "\n")
    table = Table("name", "value", "unit", "rival", "ratio")
    for entry in rows:
        table.add_row(*(f"{v:,.4g}" if isinstance(v, float) else str(v) for v in entry.values()))
    console.print(table)


if __name__ == "__main__":
    main()
