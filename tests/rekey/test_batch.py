"""Re-keyed events as bytes: what goes in comes out, however it is cut, and damage is told."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.batches import NEVER_MS, REACHED
from stream_iwae.errors import StateError
from stream_iwae.rekey.batch import MAX_SOURCES, Header, Part, RekeyedBatch, decode_events, decode_header, encode_batch
from stream_iwae.rekey.merge import SourceMerge

SCHEMA = pl.Schema(
    {"timestamp_ms": pl.Int64, "entity": pl.String, "bytes": pl.Float64, "flags": pl.String, REACHED: pl.Int64}
)
TEXTS = st.one_of(st.none(), st.text(max_size=30))
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
ROWS = st.tuples(st.integers(0, 10**12), st.text(max_size=20), NUMBERS, TEXTS, st.integers(0, 10**12))


@st.composite
def batches(draw):
    parts, rows = [], []
    for number in range(draw(st.integers(1, 4))):
        own = draw(st.lists(ROWS, max_size=6))
        times = sorted(draw(st.lists(st.integers(0, 10**12), min_size=len(own) + 1, max_size=len(own) + 1)))
        own = [(*row[:-1], before) for row, before in zip(own, times[:-1], strict=True)]
        reached = times[-1] if draw(st.booleans()) or own else NEVER_MS
        parts.append(Part(number, len(own), reached, draw(st.booleans()), draw(st.booleans())))
        rows += own
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return RekeyedBatch(Header("digest", 5, parts), frame)


def decoded(message):
    header = decode_header(message)
    return header, decode_events(message, header, SCHEMA)


@given(batches())
def test_what_goes_in_comes_out(batch):
    (message,) = encode_batch(batch, 10**6)

    header, frame = decoded(message)

    assert header == batch.header
    assert frame.equals(batch.frame)


@given(batches(), st.integers(0, 400))
def test_a_batch_cut_into_messages_has_the_same_events_and_ends_the_same(batch, spare):
    smallest = max(len(encode_batch(_one_event(batch, i), 10**6)[0]) for i in range(max(1, batch.frame.height)))

    messages = [decoded(message) for message in encode_batch(batch, smallest + spare)]

    assert pl.concat([frame for _, frame in messages]).equals(batch.frame)
    whole, cut = SourceMerge(10**9), SourceMerge(10**9)
    whole.take(batch.header, 0, 0, None)
    for header, _ in messages:
        cut.take(header, 0, 0, None)
    assert cut.shown() == whole.shown()
    assert cut.is_history == whole.is_history
    assert cut.reached_ms == whole.reached_ms


def _one_event(batch, i):
    """The largest message that cannot be cut: all parts' words, and one event."""
    n = min(1, batch.frame.height)
    parts = [Part(4, 0, 10**12, is_idle=False, is_history=False) for _ in batch.header.parts]
    last = Part(4, n, 10**12, is_idle=False, is_history=False)
    return RekeyedBatch(Header("digest", 5, [*parts, last]), batch.frame[i : i + n])


def test_one_event_that_fits_no_message_is_an_error():
    frame = pl.DataFrame([(1, "x" * 5000, None, None, 0)], schema=SCHEMA, orient="row")
    with pytest.raises(ValueError, match="one event needs"):
        encode_batch(RekeyedBatch(Header("d", 1, [Part(0, 1, 1, False, False)]), frame), 4000)


def test_parts_must_add_up_to_the_events():
    with pytest.raises(ValueError, match="the parts of a batch have 2 events, its columns 0"):
        RekeyedBatch(Header("d", 1, [Part(0, 2, 1, False, False)]), SCHEMA.to_frame())


@given(batches(), st.data())
def test_damage_anywhere_is_told(batch, data):
    (message,) = encode_batch(batch, 10**6)
    at = data.draw(st.integers(0, len(message) - 1))
    damaged = data.draw(
        st.sampled_from(
            [message[:at], message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :], message + b"x", b"", b"{}"]
        )
    )
    with pytest.raises(StateError):
        decoded(damaged)


@given(st.binary(max_size=200))
def test_other_bytes_are_no_batch(value):
    with pytest.raises(StateError):
        decode_header(value)


@pytest.mark.parametrize(
    "header",
    [
        Header("d", 1, [Part(1, 0, 0, False, False)]),
        Header("d", 1, [Part(-1, 0, 0, False, False)]),
        Header("d", MAX_SOURCES + 1, []),
        Header("d", 1, [Part(0, 0, 2**63, False, False)]),
        Header("d", 1, [Part(0, 0, -(2**63), False, False)]),
    ],
)
def test_a_header_that_says_what_cannot_be_is_refused(header):
    (message,) = encode_batch(RekeyedBatch(header, pl.DataFrame()), 10**6)
    with pytest.raises(StateError, match="what cannot be"):
        decode_header(message)


def test_columns_of_another_kind_are_refused():
    frame = pl.DataFrame({"entity": ["a"]})
    (message,) = encode_batch(RekeyedBatch(Header("d", 1, [Part(0, 1, 0, False, False)]), frame), 10**6)
    with pytest.raises(StateError, match="holds 1 with"):
        decoded(message)


def test_a_slice_of_long_texts_takes_no_more_than_its_own():
    """Columns share their buffers in memory; on the wire each message has what is its own."""
    texts = [f"{i:06d}" * 20 for i in range(1000)]
    frame = pl.DataFrame(
        {"timestamp_ms": range(1000), "entity": texts, "bytes": 1.0, "flags": None, REACHED: 0}, schema=SCHEMA
    )
    part = RekeyedBatch(Header("d", 1, [Part(0, 10, 0, False, False)]), frame[500:510])
    (message,) = encode_batch(part, 10**6)
    assert len(message) < 10 * 120 + 4000
