"""CPU-seconds that the whole service takes for a million events, with the events on 1, 2, 4 and 8 partitions."""

import statistics
from collections.abc import Iterator, Sequence

import numpy as np
import yaml
from flows import a_config_data, a_pool, minute
from service import service_cost

from stream_iwae.config import Config
from stream_iwae.lab.publish import MessagePublisher, create_topic

MILLION = 1_000_000


def cost_by_partitions(
    servers: str, blob: bytes, n_entities: int, n_events: int, counts: Sequence[int], n_runs: int
) -> Iterator[tuple[int, list[float]]]:
    """(partitions, CPU-seconds a million events of each run). Runs alternate, so a noisy neighbour hits all alike."""
    topics = {count: f"partitions-{count}" for count in counts}
    pool = a_pool(np.random.default_rng(6), n_entities)
    for count, topic in topics.items():
        create_topic(servers, topic, count)
        _fill(servers, topic, pool, n_events)
    costs: dict[int, list[float]] = {count: [] for count in counts}
    for run in range(n_runs):
        for count, topic in topics.items():
            data = a_config_data(servers, f"{topic}-run-{run}")
            data["kafka"]["topics"]["events"] = topic
            data["events"]["keyed_by_entity"] = True
            config = Config.parse(yaml.safe_dump(data))
            costs[count].append(service_cost(config, n_events, count, blob).cpu_s / n_events * MILLION)
    yield from costs.items()


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _fill(servers: str, topic: str, pool: list[list[bytes]], n_events: int) -> None:
    with MessagePublisher(servers, topic) as publisher:
        number = 0
        while publisher.n_events < n_events:
            for entity, message in minute(number, len(pool), pool):
                if publisher.n_events == n_events:
                    break
                publisher.send(str(entity).encode(), message)
            number += 1
