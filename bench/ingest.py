"""Events to feature vectors on one core, against the bare poll loop of the same client over the same topic."""

import subprocess
import sys
import time
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

from stream_iwae.adapters.kafka_records import read_plain_records
from stream_iwae.adapters.kafka_source import record_batch
from stream_iwae.bootstrap import stages_of
from stream_iwae.config import Config
from stream_iwae.events.decode import Decoder
from stream_iwae.features.config import aggregates, needed_fields
from stream_iwae.features.extract import FeatureExtractor
from stream_iwae.windows.operator import WindowOperator


def bare_poll(config: Config, topic: str, n_events: int) -> float:
    """Events a second that the client alone delivers, as a newcomer would write the loop."""
    command = [sys.executable, Path(__file__).with_name("bare_poll.py"), config.kafka.bootstrap_servers]
    done = subprocess.run([*command, topic, str(n_events)], check=True, capture_output=True, text=True)
    return float(done.stdout)


def ingest(config: Config, topic: str, n_events: int) -> float:
    """Events a second from Kafka to feature vectors."""
    stages = stages_of(config)
    decoder = Decoder(stages.events, needed_fields(stages.features))
    windows = WindowOperator(stages.windows, aggregates(stages.features), 0)
    extractor = FeatureExtractor(stages.features, stages.events.field_types())
    consumer = KafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap_servers,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=config.kafka.max_poll_records,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    read_plain_records(consumer)
    consumer.assign([TopicPartition(topic, 0)])
    n, n_vectors, began = 0, 0, None
    while n < n_events:
        for partition, records in consumer.poll(timeout_ms=1000).items():
            began = began or time.perf_counter()
            batch = record_batch(partition, records, consumer.position(partition))
            events = decoder.decode(batch).events
            n_vectors += len(extractor.extract(windows.add(events, batch.next_offset).windows))
            n += len(records)
    seconds = time.perf_counter() - began
    consumer.close()
    assert n_vectors > n / 12, f"{n} events gave only {n_vectors} vectors"
    return n / seconds
