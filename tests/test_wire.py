import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.batches import (
    Direction,
    FeatureBatch,
    FeatureSchema,
    Kind,
    ScoreBatch,
    TrainingBatch,
    VerdictBatch,
)
from stream_iwae.errors import StateError
from stream_iwae.wire import (
    decode_scores,
    decode_state,
    decode_training,
    encode_scores,
    encode_state_delta,
    encode_state_shard,
    encode_training,
    rounded_for_wire,
)


def a_training_batch(values, **overrides):
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    columns = {
        "schema_digest": "0123456789abcdef",
        "model_version": "1.0",
        "row_ids": np.arange(n, dtype=np.uint64) + np.uint64(2**63),
        "entity_ids": np.arange(n, dtype=np.uint64),
        "window_end_ms": 60_000 * np.arange(n, dtype=np.int64),
        "values": values,
        "scores": np.linspace(0, 1, n),
        "p_values": np.linspace(1e-30, 1, n),
        "in_incident": np.arange(n) % 2 == 0,
        "labels": {},
    }
    return TrainingBatch(**(columns | overrides))


def assert_same(actual, expected):
    for name in ("row_ids", "entity_ids", "window_end_ms", "scores", "p_values", "in_incident"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name))
    np.testing.assert_array_equal(actual.values, rounded_for_wire(expected.values))
    for name in ("schema_digest", "model_version", "labels", "history_ended", "partition", "in_history"):
        assert getattr(actual, name) == getattr(expected, name)


@given(
    st.lists(st.tuples(st.floats(), st.floats(width=32), st.integers(0, 2**32 - 1)), min_size=0, max_size=20),
    st.booleans(),
    st.integers(0, 5),
)
def test_training_rows_come_back_as_they_were(rows, ended, partition):
    values = np.array(rows, dtype=np.float64).reshape(-1, 3)
    batch = a_training_batch(values, history_ended=ended, partition=partition, in_history=not ended)

    decoded = [decode_training(record) for record in encode_training(batch)]

    assert len(decoded) == (1 if rows or ended else 0)
    for part in decoded:
        assert_same(part, batch)


def test_the_code_of_a_category_stays_exact_and_keeps_its_text():
    batch = a_training_batch([[4_294_967_291.0, 0.1]], labels={4_294_967_291: "tcp", 7: "absent"})

    (decoded,) = map(decode_training, encode_training(batch))

    assert decoded.values[0, 0] == 4_294_967_291.0
    assert decoded.values[0, 1] == np.float32(0.1)
    assert decoded.labels == {4_294_967_291: "tcp"}


def test_a_value_does_not_depend_on_the_rows_beside_it():
    alone = decode_training(encode_training(a_training_batch([[0.1]]))[0])
    beside = decode_training(encode_training(a_training_batch([[0.1], [1e12]]))[0])

    assert alone.values[0, 0] == beside.values[0, 0]


def test_a_large_batch_becomes_records_below_the_limit_and_only_the_last_ends_the_history():
    batch = a_training_batch(np.arange(3000.0).reshape(1000, 3), history_ended=True)

    records = encode_training(batch, max_bytes=5_000)
    decoded = [decode_training(record) for record in records]

    assert max(map(len, records)) <= 5_000
    assert [part.history_ended for part in decoded] == [False] * (len(decoded) - 1) + [True]
    np.testing.assert_array_equal(np.concatenate([part.row_ids for part in decoded]), batch.row_ids)
    np.testing.assert_array_equal(np.concatenate([part.values for part in decoded]), batch.values)


def test_a_row_over_the_limit_is_refused():
    with pytest.raises(ValueError, match="one training row needs"):
        encode_training(a_training_batch(np.ones((1, 100))), max_bytes=200)


@given(st.data())
def test_damaged_training_records_are_named_as_such(data):
    (record,) = encode_training(a_training_batch(np.ones((3, 2)), labels={1: "one"}))
    at = data.draw(st.integers(0, len(record) - 1))
    damaged = bytearray(record)
    damaged[at] ^= data.draw(st.integers(1, 255))

    for bad in (bytes(damaged), record[:at], record + b"x"):
        with pytest.raises(StateError):
            decode_training(bad)


def a_verdict_batch(n):
    schema = FeatureSchema(("bytes",), (Kind.MAGNITUDE,), ("B",))
    features = FeatureBatch(
        schema=schema,
        values=np.zeros((n, 1)),
        entities=[f"10.0.0.{i}" for i in range(n)],
        window_start_ms=np.zeros(n, np.int64),
        window_end_ms=np.arange(n, dtype=np.int64),
        n_events=np.ones(n, np.int64),
        first_offset=np.arange(n),
        last_offset=np.arange(n),
        silence_p_values=np.full(n, np.nan),
    )
    nan = np.full(n, np.nan)
    scores = np.linspace(-1, 1, n)
    scores[0] = np.nan
    return VerdictBatch(
        features=features,
        scores=ScoreBatch("1.0", scores, nan, nan, nan),
        p_values=np.where(np.isnan(scores), np.nan, 0.5),
        severities=np.zeros(n, np.int8),
        directions=(Direction.HIGH,) * n,
        is_low=np.zeros(n, np.bool_),
        thresholds_nats=np.ones(n),
        is_extrapolated=np.zeros(n, np.bool_),
        findings={},
    )


def test_a_thousand_windows_are_one_readable_scores_record():
    records = encode_scores(a_verdict_batch(1_001), "hosts", ["src"])

    assert [len(decode_scores(record).scores) for record in records] == [1_000, 1]
    first = json.loads(records[0])
    assert first["detector"] == "hosts"
    assert first["entities"][2] == {"src": "10.0.0.2"}
    assert first["scores"][0] is None
    assert first["p_values"][1] == 0.5


def test_scores_columns_of_different_length_are_refused():
    record = json.loads(encode_scores(a_verdict_batch(2), "hosts", ["src"])[0])
    record["severities"].pop()

    with pytest.raises(StateError, match="lengths"):
        decode_scores(json.dumps(record).encode())


changes_of_a_commit = st.dictionaries(
    st.sampled_from(["presence", "incidents"]),
    st.dictionaries(st.sampled_from([f"host{i}" for i in range(12)]), st.one_of(st.none(), st.integers(0, 9))),
)


@given(st.lists(changes_of_a_commit, max_size=40), st.sampled_from([60, 80, 10_000]))
def test_recovery_after_any_commit_gives_the_state_of_that_commit(commits, max_bytes):
    n_shards, ring = 4, 8
    log = []
    live = {}
    for seq, changes in enumerate(commits):
        for kind, entries in changes.items():
            for key, value in entries.items():
                if value is None:
                    live.get(kind, {}).pop(key, None)
                else:
                    live.setdefault(kind, {})[key] = value
        log += encode_state_delta(seq, changes, ring=ring, max_bytes=max_bytes)
        log += encode_state_shard(seq, seq % n_shards, live, n_shards=n_shards, max_bytes=max_bytes)

        recovered, highest = decode_state(log)

        assert {k: v for k, v in recovered.items() if v} == {k: v for k, v in live.items() if v}
        assert highest == seq


def test_the_state_of_a_fresh_partition_is_empty():
    assert decode_state([]) == ({}, -1)


def test_the_log_of_many_commits_keeps_a_bounded_number_of_keys():
    live = {"presence": {f"h{i}": [i, "x"] for i in range(50)}}
    log = {}
    for seq in range(300):
        log |= dict(encode_state_delta(seq, {"presence": {"h1": [seq, "y"]}}))
        log |= dict(encode_state_shard(seq, seq % 64, live))

    assert len(log) == 128 + 64


def test_values_keep_their_plain_types():
    value = {"a": [1, 2.5, None, "text", True], "b": {}}

    recovered, _ = decode_state(encode_state_delta(0, {"incidents": {"h": value}}))

    assert recovered == {"incidents": {"h": value}}


def test_state_parts_stay_below_the_limit():
    changes = {"presence": {f"host-{i}": [i] * 20 for i in range(500)}}

    records = encode_state_delta(0, changes, max_bytes=2_000)

    assert max(len(value) for _, value in records) <= 2_000
    assert decode_state(records)[0] == {"presence": dict(sorted(changes["presence"].items()))}


def test_damaged_or_foreign_state_is_refused():
    ((key, value),) = encode_state_delta(0, {"presence": {"h": 1}})
    with pytest.raises(StateError, match="damaged"):
        decode_state([(key, value[:-1] + bytes([value[-1] ^ 1]))])
    with pytest.raises(StateError, match="unknown state key"):
        decode_state([(b"other", value)])
    with pytest.raises(StateError, match="shards"):
        decode_state(encode_state_shard(0, 0, {}, n_shards=4) + encode_state_shard(1, 1, {}, n_shards=8))


def test_a_batch_with_nothing_to_say_writes_nothing():
    empty = a_training_batch(np.empty((0, 2)))

    assert encode_training(empty) == []
    (record,) = encode_training(replace(empty, history_ended=True, partition=3))
    assert decode_training(record).partition == 3
