"""What every EventSource does, in memory and on Kafka."""

import pytest

from stream_iwae.batches import RecordBatch
from stream_iwae.errors import FencedError
from stream_iwae.ports import CommittedOffset, OutputRecord


def test_a_newly_assigned_partition_gives_nothing_until_it_is_resumed(world, poll_until, assigned):
    topic = world.topic()
    world.produce(topic, 0, b"1", b"2")
    source = world.source(topic)

    taken = assigned(source)
    assert taken.assigned == {0}
    assert not taken.values
    for _ in range(3):
        assert source.poll(0.05).records == ()

    source.resume(frozenset({0}))
    assert poll_until(source, lambda seen: len(seen.values) == 2).values == [b"1", b"2"]


def test_a_batch_holds_the_records_column_by_column(world, poll_until, assigned):
    topic = world.topic()
    world.produce(topic, 0, b"value", timestamp_ms=1_700_000_000_123, key=b"key")
    world.produce(topic, 0, None, key=b"key")
    source = world.source(topic)
    assigned(source)
    source.resume(frozenset({0}))

    (first, *others) = poll_until(source, lambda seen: len(seen.values) == 2).batches

    assert isinstance(first, RecordBatch)
    assert (first.topic, first.partition) == (topic, 0)
    assert first.offsets[0] == 0
    assert first.timestamps_ms[0] == 1_700_000_000_123
    assert first.values[0] == b"value"
    assert (others or [first])[-1].values[-1] is None
    assert (others or [first])[-1].next_offset == 2 == source.position(0)


def test_polls_are_cut_to_size_and_lose_nothing(world, poll_until, assigned):
    topic = world.topic()
    values = [str(i).encode() for i in range(25)]
    world.produce(topic, 0, *values)
    source = world.source(topic, cut=7)
    assigned(source)
    source.resume(frozenset({0}))

    taken = poll_until(source, lambda seen: len(seen.values) == 25)

    assert taken.values == values
    assert taken.offsets == list(range(25))
    assert max(len(batch) for batch in taken.batches) <= 7


def test_a_paused_partition_is_silent_and_goes_on_where_it_was(world, poll_until, assigned):
    topic = world.topic(2)
    world.produce(topic, 0, b"a0")
    world.produce(topic, 1, b"b0")
    source = world.source(topic)
    assigned(source, n=2)
    both = frozenset({0, 1})
    source.resume(both)
    poll_until(source, lambda seen: len(seen.values) == 2)

    source.pause(frozenset({0}))
    world.produce(topic, 0, b"a1")
    world.produce(topic, 1, b"b1")
    assert poll_until(source, lambda seen: seen.values).values == [b"b1"]
    assert source.poll(0.2).records == ()
    assert source.position(0) == 1

    source.resume(both)
    assert poll_until(source, lambda seen: seen.values).values == [b"a1"]


def test_seek_goes_back_and_forth(world, poll_until, assigned):
    topic = world.topic()
    world.produce(topic, 0, b"0", b"1", b"2", b"3")
    source = world.source(topic)
    assigned(source)
    source.resume(frozenset({0}))
    poll_until(source, lambda seen: len(seen.values) == 4)

    source.seek(0, 1)
    assert source.position(0) == 1
    assert poll_until(source, lambda seen: len(seen.values) >= 3).values == [b"1", b"2", b"3"]

    source.seek(0, 3)
    assert poll_until(source, lambda seen: seen.values).values == [b"3"]


def test_the_log_tells_its_ends_and_its_times(world, assigned):
    topic = world.topic(2)
    for i in range(5):
        world.produce(topic, 0, b"x", timestamp_ms=1_700_000_000_000 + 1000 * i)
    both = frozenset({0, 1})
    source = world.source(topic)
    assigned(source, n=2)

    assert source.n_partitions() == 2
    assert source.beginning_offsets(both) == {0: 0, 1: 0}
    assert source.end_offsets(both) == {0: 5, 1: 0}
    assert source.offsets_for_time(both, 1_700_000_001_500) == {0: 2, 1: 0}
    assert source.offsets_for_time(both, 1_700_000_002_000) == {0: 2, 1: 0}
    assert source.offsets_for_time(both, 1_900_000_000_000) == {0: 5, 1: 0}


def test_high_water_is_the_end_as_seen_by_the_last_fetch(world, poll_until, assigned):
    topic = world.topic()
    world.produce(topic, 0, b"0", b"1")
    source = world.source(topic)
    assigned(source)
    source.resume(frozenset({0}))

    poll_until(source, lambda seen: len(seen.values) == 2)

    assert source.high_water(0) == 2


def test_a_commit_is_read_back_with_its_metadata_by_the_next_member(world, assigned):
    topic, out = world.topic(2), world.topic()
    world.produce(topic, 0, b"0", b"1")
    first = world.source(topic)
    assigned(first, n=2)
    both = frozenset({0, 1})
    assert first.committed(both) == {0: None, 1: None}

    metadata = '{"wm": 17, "text": "ü"}'
    sink = world.sink()
    sink.commit([OutputRecord(out, b"k", b"v")], {0: CommittedOffset(1, metadata)}, topic, first.group_token())

    assert first.committed(both) == {0: CommittedOffset(1, metadata), 1: None}
    world.leave(first)
    second = world.source(topic, member="b")
    assigned(second, n=2)
    assert second.committed(both) == {0: CommittedOffset(1, metadata), 1: None}


def test_metadata_of_four_thousand_bytes_is_kept(world, assigned):
    topic = world.topic()
    source = world.source(topic)
    assigned(source)

    world.sink().commit([], {0: CommittedOffset(0, "m" * world.max_metadata)}, topic, source.group_token())

    assert source.committed(frozenset({0}))[0] == CommittedOffset(0, "m" * world.max_metadata)


def test_positions_pass_over_transaction_markers(world, poll_until, assigned):
    topic, committed_to = world.topic(), world.topic()
    source = world.source(topic)
    assigned(source)
    sink = world.sink()
    sink.commit([OutputRecord(topic, b"k", b"0", 0)], {}, committed_to, source.group_token())
    sink.commit([OutputRecord(topic, b"k", b"1", 0)], {}, committed_to, source.group_token())
    poll_until(source, lambda seen: source.end_offsets(frozenset({0})) == {0: 4})  # a marker may come after its commit
    world.produce(topic, 0, b"2")
    source.resume(frozenset({0}))

    taken = poll_until(source, lambda seen: len(seen.values) == 3)

    assert taken.offsets == [0, 2, 4]  # each transaction is followed by its marker
    assert source.position(0) == 5
    batches = [half for batch in taken.batches for half in batch.split(3)]
    assert [o for half in batches if half.next_offset <= 3 for o in half.offsets.tolist()] == [0, 2]


def test_the_position_reaches_the_end_behind_a_last_marker(world, poll_until, assigned):
    topic = world.topic()
    source = world.source(topic)
    assigned(source)
    source.resume(frozenset({0}))
    world.sink().commit([OutputRecord(topic, b"k", b"0", 0)], {}, topic, source.group_token())

    poll_until(source, lambda seen: seen.values and source.position(0) == 2)

    assert source.end_offsets(frozenset({0})) == {0: 2}


def test_records_deleted_before_they_were_read_are_a_counted_gap(world, poll_until, assigned):
    topic = world.topic()
    world.produce(topic, 0, *[str(i).encode() for i in range(6)])
    source = world.source(topic)
    assigned(source)
    world.expire(topic, 0, 4)
    source.resume(frozenset({0}))

    taken = poll_until(source, lambda seen: seen.values)

    assert taken.gaps == [(0, 4)]
    assert taken.values == [b"4", b"5"]
    assert source.beginning_offsets(frozenset({0})) == {0: 4}


def test_a_second_member_takes_its_share_and_gives_it_back(world, poll_until, assigned):
    topic = world.topic(4)
    first = world.source(topic)
    assigned(first, n=4)
    first.resume(frozenset(range(4)))

    second = world.source(topic, member="b")
    seen = poll_until([first, second], lambda a, b: len(b.assigned - b.revoked) == 2 and len(a.revoked) >= 2)
    hers = seen[1].assigned
    assert len(hers) == 2
    assert hers <= seen[0].revoked

    world.leave(second, member="b")
    again = poll_until(first, lambda a: len(a.assigned) >= 2)
    assert again.assigned >= hers


def test_a_partition_kept_in_a_rebalance_reads_on(world, poll_until, assigned):
    topic = world.topic(2)
    world.produce(topic, 0, b"0")
    world.produce(topic, 1, b"0")
    first = world.source(topic)
    assigned(first, n=2)
    first.resume(frozenset({0, 1}))
    poll_until(first, lambda a: len(a.values) == 2)

    second = world.source(topic, member="b")
    seen, _ = poll_until([first, second], lambda a, b: a.revoked and b.assigned)
    (kept,) = {0, 1} - seen.revoked
    world.produce(topic, kept, b"1")

    assert poll_until([first, second], lambda a, _: a.values)[0].values == [b"1"]
    assert first.position(kept) == 2


@pytest.mark.parametrize("n", [0, 1])
def test_a_poll_that_finds_nothing_brings_empty_things(world, assigned, n):
    source = world.source(world.topic())
    assigned(source)
    if n:
        source.resume(frozenset({0}))

    polled = source.poll(0.0)

    assert (polled.records, polled.assigned, polled.revoked, polled.lost, polled.gaps) == ((), set(), set(), set(), ())


def test_members_that_are_busy_between_polls_settle_a_rebalance(world, poll_until, assigned):
    """A join that finishes between two polls counts; were it thrown away, they would rejoin for ever."""
    topic = world.topic(4)
    first = world.source(topic)
    assigned(first, n=4)
    second = world.source(topic, member="b")

    _, hers = poll_until([first, second], lambda _, b: len(b.assigned) == 2, wait_s=0.0)

    for partition in hers.assigned:
        second.seek(partition, 0)
        world.produce(topic, partition, b"v")
    second.resume(frozenset(hers.assigned))
    poll_until([first, second], lambda _, b: len(b.values) == 2, wait_s=0.0)


def test_a_second_member_of_the_same_name_ends_the_first(world, poll_until, assigned):
    if world.name == "memory":
        pytest.skip("members of the twin have their names from the broker")
    topic = world.topic()
    first = world.source(topic)
    assigned(first)
    second = world.source(topic)
    poll_until(second, lambda seen: seen.assigned)

    with pytest.raises(FencedError, match=r"kafka\.instance 'a' is used twice"):
        poll_until(first, lambda _: False)
