"""What an undisturbed run would have published: the same pipeline fed the log as it is stored, without Kafka or shell.

That a real run without faults gives the same, to the letter, is seed 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stream_iwae.adapters.memory import MemoryTelemetry
from stream_iwae.batches import RecordBatch
from stream_iwae.bootstrap import model_loader, stages_of, topics_of
from stream_iwae.config import Config
from stream_iwae.outputs import Publisher
from stream_iwae.pipeline import Pipeline
from tests.outages.effects import Effects, Published, effects_of
from tests.outages.logs import Stored

_AT_ONCE = 64  # where the log is cut changes nothing


@dataclass(frozen=True, slots=True)
class Committed:
    """What a group has committed for a partition."""

    offset: int
    position: int
    watermark_ms: int | None


@dataclass(frozen=True, slots=True)
class Reference:
    """All that is known of a log."""

    effects: Effects
    committed: dict[int, Committed]


def reference_of(config: Config, logs: Mapping[int, Sequence[Stored]], model: bytes) -> Reference:
    """What comes of the log of every partition."""
    published, committed = published_of(config, logs, model)
    return Reference(effects_of(published), committed)


def published_of(
    config: Config, logs: Mapping[int, Sequence[Stored]], model: bytes
) -> tuple[list[Published], dict[int, Committed]]:
    """Run the pipeline of every partition over its log."""
    published: list[Published] = []
    committed = {}
    serving = model_loader(config, MemoryTelemetry())(model)
    kinds = {name: kind for kind, name in config.kafka.topics if name is not None}
    for partition, log in sorted(logs.items()):
        stages = stages_of(config)
        pipeline, publisher = Pipeline(stages, partition), Publisher(topics_of(config), stages)
        publisher.begin(partition, seq=0, stale_keys=[])
        pipeline.begin(0, None)
        for start in range(0, len(log), _AT_ONCE):
            pipeline.process(_batch(stages.topic, partition, log[start : start + _AT_ONCE]), serving, 0, lambda: None)
            commit = publisher.prepare(pipeline)
            published += [
                Published(kinds[record.topic], partition, record.key, record.value, record.headers)
                for record in (() if commit is None else commit.records)
            ]
        progress = pipeline.progress()
        committed[partition] = Committed(progress.offset, progress.position, progress.watermark_ms)
    return published, committed


def _batch(topic: str, partition: int, records: Sequence[Stored]) -> RecordBatch:
    return RecordBatch(
        topic,
        partition,
        np.array([record.offset for record in records], dtype=np.int64),
        np.array([record.timestamp_ms for record in records], dtype=np.int64),
        [record.value for record in records],
        records[-1].offset + 1,
    )
