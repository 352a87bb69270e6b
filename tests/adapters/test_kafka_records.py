"""Records as tuples are the records that the client itself reads, whatever the batch holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from stream_iwae.adapters.kafka_records import plain_records, read_plain_records

NOW_MS = 1_700_000_000_000
SIZES = st.sampled_from([0, 1, 62, 63, 64, 65, 8_190, 8_191, 8_192, 70_000])  # where a varint grows by a byte
CONTENTS = st.none() | st.binary(max_size=40) | SIZES.map(bytes)
RECORDS = st.lists(
    st.tuples(
        st.integers(-(2**40), 2**40) | st.integers(-70, 70),  # milliseconds from the first
        CONTENTS,
        CONTENTS,
        st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=9)), max_size=2),
    ),
    min_size=1,
    max_size=150,
)


def a_batch(records, codec=0, gap=1):
    """Bytes of a batch; between two offsets lie `gap` - 1 that compaction has removed."""
    builder = DefaultRecordBatchBuilder(2, codec, False, -1, -1, -1, 2**30)
    for i, (delta_ms, key, value, headers) in enumerate(records):
        builder.append(i * gap, NOW_MS + delta_ms, key, value, headers)
    return builder.build()


def by_the_client(data):
    return [(record.offset, record.timestamp, record.value) for record in DefaultRecordBatch(memoryview(data))]


def plain(data):
    return plain_records(DefaultRecordBatch(memoryview(data)), 2**30)


@given(RECORDS, st.sampled_from([0, 1, 2, 3, 4]), st.sampled_from([1, 3, 9_000, 200_000]))
def test_every_record_is_the_one_that_the_client_reads(records, codec, gap):
    data = a_batch(records, codec, gap)

    assert plain(data) == by_the_client(data)


def test_the_time_is_the_brokers_where_the_topic_says_so():
    data = a_batch([(0, None, b"a", []), (5, None, b"b", [])])
    data[22] |= 8  # the attribute's bit for the time of appending

    assert plain(data) == by_the_client(data) == [(0, NOW_MS + 5, b"a"), (1, NOW_MS + 5, b"b")]


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_batch_that_is_cut_short_is_corrupt(kept):
    data = a_batch([(0, None, b"x" * 50, [])] * 10)

    with pytest.raises(CorruptRecordError):
        plain(data[: 61 + int((len(data) - 61) * kept)])


@pytest.mark.parametrize(
    ("place", "byte"),
    [
        (0, 2),  # the length of the first record: shorter than the record
        (5, 0x7E),  # the size of its value: longer than the record
    ],
)
def test_sizes_that_contradict_each_other_are_corrupt(place, byte):
    data = a_batch([(0, None, b"x" * 20, [])] * 3)
    data[61 + place] = byte

    with pytest.raises(CorruptRecordError):
        plain(data)


def test_bytes_after_the_last_record_are_corrupt():
    with pytest.raises(CorruptRecordError):
        plain(a_batch([(0, None, b"x", [])]) + b"\0")


@pytest.mark.kafka
@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
@pytest.mark.parametrize("at_once", [1, 7, 10_000])
def test_a_topic_of_all_kinds_reads_as_the_client_reads_it(kafka, topic, opened, isolation, at_once):
    name = topic(config={"retention.ms": "-1"})
    servers = {"bootstrap_servers": kafka.bootstrap_servers}
    for codec in (None, "gzip", "snappy", "lz4", "zstd"):
        writer = KafkaProducer(**servers, compression_type=codec, transactional_id=f"{name}-{codec}", linger_ms=50)
        writer.init_transactions()
        for is_kept in (True, False, True):
            writer.begin_transaction()
            for i in range(10):
                headers = [("h", b"v")] * (i % 2)
                writer.send(name, b"%d" % i * 30, key=b"k" if i % 3 else None, headers=headers, timestamp_ms=NOW_MS + i)
            writer.flush()
            writer.commit_transaction() if is_kept else writer.abort_transaction()
        writer.close()
    partition = TopicPartition(name, 0)

    def read(*, is_plain, start):
        consumer = opened(
            KafkaConsumer(**servers, isolation_level=isolation, max_poll_records=at_once, enable_auto_commit=False)
        )
        if is_plain:
            read_plain_records(consumer, 2**30, lambda *_: None)
        consumer.assign([partition])
        consumer.seek(partition, start)
        end = consumer.end_offsets([partition])[partition]
        found, positions = [], []
        while consumer.position(partition) < end:
            polled = consumer.poll(timeout_ms=500).get(partition, [])
            found += polled if is_plain else [(record.offset, record.timestamp, record.value) for record in polled]
            positions.append(consumer.position(partition))
        return found, positions[-1]

    for start in (0, 3, 25):  # within a batch too
        assert read(is_plain=True, start=start) == read(is_plain=False, start=start)
    n_kept = 100 if isolation == "read_committed" else 150
    assert len(read(is_plain=True, start=0)[0]) == n_kept
