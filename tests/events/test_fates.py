"""Every element of every record meets exactly one fate."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.batches import RecordBatch
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder

AT_MS = 1_700_000_000_000
GOOD = {"ts": AT_MS, "src": "192.0.2.1", "dst": "198.51.100.2", "bytes": 10, "packets": 1}
CONFIG = EventsConfig.model_validate({"preset": "simulated"})


def records(*values, at_ms=AT_MS + 60_000):
    n = len(values)
    return RecordBatch("t", 0, np.arange(n) + 7, np.full(n, at_ms), list(values), 7 + n)


def decode(*values, config=CONFIG):
    decoded = Decoder(config).decode(records(*values))
    assert decoded.n_consumed == len(decoded.events) + len(decoded.rejected) + sum(decoded.skipped.values())
    return decoded


def as_json(**changes):
    return json.dumps({**GOOD, **changes}).encode()


def test_an_object_an_array_and_lines_are_events():
    lines = as_json(src="a") + b"\n" + as_json(src="b") + b"\n"
    array = b"[" + as_json(src="c") + b"," + as_json(src="d") + b"]"
    decoded = decode(as_json(src="z"), lines, array)

    assert decoded.events.frame["entity"].to_list() == ["z", "a", "b", "c", "d"]
    assert decoded.events.frame["offset"].to_list() == [7, 8, 8, 9, 9]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"42", "not_an_object"),
        (b'"text"', "not_an_object"),
        (as_json(ts=None), "no_time"),
        (as_json(ts=""), "no_time"),
        (as_json(ts="noon"), "bad_time"),
        (as_json(ts=-1), "bad_time"),
        (as_json(ts=True), "bad_time"),
        (as_json(ts=2**62), "bad_time"),
        (as_json(ts=1.5e300), "bad_time"),
        (as_json(ts=AT_MS + 3_600_000), "future"),
        (as_json(src=None), "no_entity"),
        (as_json(src=""), "no_entity"),
        (as_json(bytes="many"), "bad_field"),
        (as_json(bytes=True), "bad_field"),
        (as_json(bytes=[1]), "bad_field"),
        (as_json(bytes={"a": 1}), "bad_field"),
        (as_json(bytes="nan"), "bad_field"),
        (as_json(bytes="inf"), "bad_field"),
        (as_json(dst={"a": 1}), "bad_field"),
        (b'{"ts":NaN}', "invalid_json"),
        (b"x" * 1_100_000, "too_large"),
    ],
)
def test_a_bad_message_is_rejected_for_its_reason_and_the_others_go_on(value, reason):
    decoded = decode(as_json(src="before"), value, as_json(src="after"))

    assert decoded.events.frame["entity"].to_list() == ["before", "after"]
    (rejected,) = decoded.rejected
    assert (rejected.reason, rejected.offset, rejected.value) == (reason, 8, value)
    assert 0 < len(rejected.detail) < 300


def test_a_bad_element_does_not_lose_the_others():
    decoded = decode(b"[" + as_json(src="a") + b",3," + as_json(bytes="x") + b"," + as_json(src="b") + b"]")

    assert decoded.events.frame["entity"].to_list() == ["a", "b"]
    assert sorted(rejected.reason for rejected in decoded.rejected) == ["bad_field", "not_an_object"]


@pytest.mark.parametrize("value", [None, b"", b"  ", b"[]"])
def test_a_message_without_an_event_is_skipped(value):
    assert decode(value).skipped == {"empty": 1}


def test_nesting_beyond_all_bounds_is_rejected():
    decoded = decode(b"[" * 100_000, b'{"a":' * 100_000)

    assert len(decoded.rejected) == 2


def test_numbers_may_be_texts_and_may_be_missing():
    frame = decode(as_json(bytes="12.5", packets=None)).events.frame

    assert frame["bytes"].to_list() == [12.5]
    assert frame["packets"].to_list() == [None]


def test_an_ordinary_batch_and_one_with_a_stray_value_read_the_same():
    ordinary = [as_json(src=f"h{i}", bytes=i) for i in range(5)]

    alone = decode(*ordinary).events.frame
    beside = decode(*ordinary, b"{").events.frame

    assert alone.equals(beside)


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_at_all_can_stop_the_decoder(values):
    decode(*values)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*GOOD, "x"]), inner, max_size=6),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=6))
def test_no_json_at_all_can_stop_the_decoder(values):
    decode(*(json.dumps(value).encode() for value in values))


@given(
    st.lists(st.sampled_from([as_json(), as_json(bytes="x"), b"{", b"[]", None, as_json(src="9")]), max_size=12),
    st.data(),
)
def test_where_the_poll_cuts_changes_nothing(values, data):
    whole = decode(*values)
    at = data.draw(st.integers(0, len(values)))
    head, tail = records(*values).split(7 + at)
    parts = [Decoder(CONFIG).decode(part) for part in (head, tail)]

    assert whole.events.frame.equals(parts[0].events.frame.vstack(parts[1].events.frame))
    assert list(whole.rejected) == [*parts[0].rejected, *parts[1].rejected]
    assert whole.n_consumed == sum(part.n_consumed for part in parts)


@pytest.mark.parametrize("n", [1, 3])
def test_records_whose_times_are_all_lists_of_a_number_are_bad_times(n):
    decoder = Decoder(EventsConfig.model_validate({"preset": "simulated"}))

    decoded = decoder.decode(
        RecordBatch("t", 0, np.arange(n), np.arange(n) + 10**13, [b'{"ts": [2], "src": "a"}'] * n, n)
    )

    assert [rejected.reason for rejected in decoded.rejected] == ["bad_time"] * n
