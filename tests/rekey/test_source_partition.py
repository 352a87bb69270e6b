"""One source partition: how far event time has come, as its records tell."""

import json

import numpy as np
from rekey_world import START_MS, event, the_stages

from stream_iwae.batches import RecordBatch
from stream_iwae.features.config import needed_fields
from stream_iwae.rekey.source_partition import SourcePartition


def test_a_time_ahead_of_its_record_moves_event_time_no_further_than_the_record():
    stages = the_stages()
    partition = SourcePartition(stages.events, needed_fields(stages.features), 0, 2, 1_000_000)
    ahead = [json.dumps(event(START_MS + 60_000, "a")).encode(), json.dumps(event(START_MS, "b")).encode()]
    offsets = np.arange(2)

    partition.process(RecordBatch("events", 0, offsets, START_MS + 1_000 * (1 + offsets), ahead, 2))

    assert partition.reached_ms == START_MS + 1_000
    forwarded = [portion.frame for portion in partition.share.portions if portion.frame is not None]
    assert sum(frame.height for frame in forwarded) == 2
    assert "moves_ms" not in forwarded[0].columns
