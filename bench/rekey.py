"""What re-keying costs, and what it saves the reader: events per CPU-second through each, one after the other."""

import secrets
import time
from collections.abc import Callable

import numpy as np
import yaml
from flows import a_config_data, a_pool, minute

from stream_iwae.adapters.clock import SystemClock
from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.adapters.kafka_topics import ensure_rekeyed_topic, ensure_topics
from stream_iwae.adapters.log import get_logger
from stream_iwae.adapters.prometheus import PrometheusTelemetry
from stream_iwae.bootstrap import stages_of
from stream_iwae.config import Config
from stream_iwae.features.config import aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.intake import Intake
from stream_iwae.lab.publish import MessagePublisher, create_topic
from stream_iwae.rekey_outputs import RekeyTopics
from stream_iwae.rekeyer import Rekeyer, RekeyerSettings
from stream_iwae.windows.operator import WindowOperator

N_PARTITIONS = 4


def rekey_rates(servers: str, n_entities: int, n_events: int, client: str) -> tuple[float, float, float]:
    """Through the re-keyer, and what is read behind it and without it, with four partitions under keys of no use."""
    topic = f"scattered-{client}"
    _fill(servers, topic, n_entities, n_events)
    data = a_config_data(servers, topic, client=client, group=topic)
    rekeyed = Config.parse(yaml.safe_dump({**data, "events": {"preset": "simulated", "rekey": True}}))
    direct = Config.parse(yaml.safe_dump(data))
    return rekey_rate(rekeyed, n_events), read_rate(rekeyed, n_events), read_rate(direct, n_events)


def rekey_rate(config: Config, n_events: int) -> float:
    """Through the re-keyer, from the first record to the last commit."""
    telemetry, name = PrometheusTelemetry(), config.rekeyed_topic
    n_targets = ensure_rekeyed_topic(config.kafka, config.rekey, name)
    ensure_topics(config.kafka, n_targets)
    rekeyer = Rekeyer(
        source=open_source(config.kafka, config.kafka.topics.events, f"{config.kafka.group}-rekeyer"),
        sink=open_sink(config.kafka, f"{config.kafka.group}-rekeyer"),
        telemetry=telemetry,
        clock=SystemClock(),
        log=get_logger(),
        events=config.events,
        needed=needed_fields(config.features),
        topics=RekeyTopics(config.kafka.topics.events, name, n_targets, config.kafka.topics.dead_letters),
        rekey=config.rekey,
        settings=RekeyerSettings(start="earliest", max_message_bytes=config.kafka.max_message),
    )
    while not rekeyer.partitions:
        rekeyer.step()
    measured = _measure(rekeyer.step, lambda: rekeyer.totals.consumed, n_events)
    rekeyer.close()
    return measured


def read_rate(config: Config, n_events: int) -> float:
    """From Kafka to feature vectors, through all that the service reads with: events as they came, or re-keyed ones."""
    stages = stages_of(config)
    source = open_source(config.kafka, stages.topic, f"read-{secrets.token_hex(4)}")
    needed = needed_fields(stages.features)
    assigned: frozenset[int] = frozenset()
    while not assigned:
        assigned = source.poll(0.2).assigned
    intakes = {
        partition: Intake(stages.events, needed, stages.rekey, stages.windows.max_entities) for partition in assigned
    }
    windows = {
        partition: WindowOperator(stages.windows, aggregates(stages.features), partition) for partition in assigned
    }
    extractor = FeatureExtractor(stages.features, stages.events.field_types())
    for partition in assigned:
        source.seek(partition, 0)
    source.resume(assigned)
    n = 0

    def turn() -> None:
        nonlocal n
        for batch in source.poll(1.0).records:
            decoded = intakes[batch.partition].read(batch)
            extractor.extract(windows[batch.partition].add(decoded.events, batch.next_offset).windows)
            n += decoded.n_consumed

    measured = _measure(turn, lambda: n, n_events)
    source.close()
    return measured


def _measure(turn: Callable[[], None], done: Callable[[], int], n_events: int) -> float:
    """Events a second of CPU time, from the turn that brings the first on."""
    began_s = time.process_time()
    while done() < n_events:
        if done() == 0:  # nothing has come yet
            began_s = time.process_time()
        turn()
    return n_events / (time.process_time() - began_s)


def _fill(servers: str, topic: str, n_entities: int, n_events: int) -> None:
    """Keys say nothing of the entity, as those of most emitters."""
    create_topic(servers, topic, N_PARTITIONS)
    pool = a_pool(np.random.default_rng(1), n_entities)
    with MessagePublisher(servers, topic) as publisher:
        number = 0
        while publisher.n_events < n_events:
            for _, message in minute(number, n_entities, pool):
                if publisher.n_events == n_events:
                    break
                publisher.send(str(publisher.n_events).encode(), message)
            number += 1
