"""What every OutputSink does, in memory and on Kafka."""

import pytest

from stream_iwae.errors import AmbiguousCommitError, DeliveryError, FencedError, StaleGroupError
from stream_iwae.ports import CommittedOffset, OutputRecord


@pytest.fixture
def flow(world, assigned):
    """A member of a group on a topic of two partitions, and a topic to write to."""

    class Flow:
        events = world.topic(2)
        out = world.topic(2)
        source = world.source(events)
        everything = frozenset({0, 1})

        def commit(self, sink, *values, offsets=None, group=None):
            records = [OutputRecord(self.out, b"k", value, 0) for value in values]
            sink.commit(records, offsets or {}, self.events, group or self.source.group_token())

        def values(self):
            return [value for _, _, value, _ in world.records(self.out)]

    made = Flow()
    assigned(made.source, n=2)
    return made


def test_records_arrive_with_key_partition_and_headers_in_order(world, flow):
    headers = (("reason", b"bad"), ("offset", b"17"))
    records = [
        OutputRecord(flow.out, b"a", b"1", 1, headers),
        OutputRecord(flow.out, b"a", b"2", 1),
        OutputRecord(flow.out, b"b", None, 0),
        OutputRecord(flow.out, None, b"3", 0),
    ]

    world.sink().commit(records, {}, flow.events, flow.source.group_token())

    assert world.records(flow.out) == [
        (0, b"b", None, ()),
        (0, None, b"3", ()),
        (1, b"a", b"1", headers),
        (1, b"a", b"2", ()),
    ]


def test_records_without_a_partition_go_by_their_key(world, flow):
    keys = [str(i % 5).encode() for i in range(20)]
    sink = world.sink()
    for key in keys:
        sink.commit([OutputRecord(flow.out, key, b"v")], {}, flow.events, flow.source.group_token())

    places = {}
    for partition, key, _, _ in world.records(flow.out):
        places.setdefault(key, set()).add(partition)

    assert set(places) == set(keys)
    assert all(len(partitions) == 1 for partitions in places.values())


def test_offsets_commit_with_the_records(world, flow):
    world.produce(flow.events, 0, b"0", b"1")
    sink = world.sink()

    flow.commit(sink, b"1", offsets={0: CommittedOffset(1, "one"), 1: CommittedOffset(0, "")})
    flow.commit(sink, b"2", offsets={0: CommittedOffset(2, "two")})

    assert flow.values() == [b"1", b"2"]
    assert flow.source.committed(flow.everything) == {0: CommittedOffset(2, "two"), 1: CommittedOffset(0, "")}


def test_a_commit_of_nothing_is_no_error(world, flow):
    sink = world.sink()
    flow.commit(sink)
    flow.commit(sink, b"1")
    assert flow.values() == [b"1"]


def assert_nothing_was_committed(flow):
    assert flow.values() == []
    assert flow.source.committed(flow.everything) == {0: None, 1: None}


def test_a_record_that_is_too_large_takes_nothing_with_it(world, flow):
    sink = world.sink()
    offsets = {0: CommittedOffset(1, "lost")}

    with pytest.raises(DeliveryError, match=r"record of \d+ bytes"):
        flow.commit(sink, b"small", b"x" * (world.max_message + 1), offsets=offsets)

    assert_nothing_was_committed(flow)
    flow.commit(sink, b"next")
    assert flow.values() == [b"next"]


def test_metadata_that_is_too_long_takes_nothing_with_it(world, flow):
    sink = world.sink()

    with pytest.raises(DeliveryError, match="metadata"):
        flow.commit(sink, b"small", offsets={0: CommittedOffset(1, "m" * (world.max_metadata + 1))})

    assert_nothing_was_committed(flow)
    flow.commit(sink, b"next")
    assert flow.values() == [b"next"]


def test_a_record_for_a_partition_that_does_not_exist_takes_nothing_with_it(world, flow):
    sink = world.sink()
    records = [OutputRecord(flow.out, b"k", b"before", 0), OutputRecord(flow.out, b"k", b"v", 7)]

    with pytest.raises(DeliveryError):
        sink.commit(records, {}, flow.events, flow.source.group_token())

    assert_nothing_was_committed(flow)
    flow.commit(sink, b"next")
    assert flow.values() == [b"next"]


def test_a_record_for_a_topic_that_does_not_exist_takes_nothing_with_it(world, flow):
    sink = world.sink()
    offsets = {0: CommittedOffset(1, "lost")}
    records = [OutputRecord(flow.out, b"k", b"before", 0), OutputRecord("there-is-no-such-topic", b"k", b"v")]

    with pytest.raises(DeliveryError, match=r"there-is-no-such-topic|not delivered|could not be"):
        sink.commit(records, offsets, flow.events, flow.source.group_token())

    assert_nothing_was_committed(flow)
    flow.commit(sink, b"next", offsets={0: CommittedOffset(1, "kept")})
    assert flow.values() == [b"next"]
    assert flow.source.committed(flow.everything)[0] == CommittedOffset(1, "kept")


def test_a_commit_of_a_former_generation_is_refused_whole(world, flow, poll_until):
    sink = world.sink()
    stale = flow.source.group_token()
    other = world.source(flow.events, member="b")
    poll_until([flow.source, other], lambda _, b: b.assigned)

    with pytest.raises(StaleGroupError):
        flow.commit(sink, b"stale", offsets=dict.fromkeys((0, 1), CommittedOffset(1, "stale")), group=stale)

    assert_nothing_was_committed(flow)

    def is_committed(*_):
        """The membership is that of the last poll: while a rebalance goes on it may be refused once more."""
        try:
            flow.commit(sink, b"now", offsets={0: CommittedOffset(1, "now")})
        except StaleGroupError:
            return False
        return True

    poll_until([flow.source, other], is_committed)
    assert flow.values() == [b"now"]
    # What was refused does not come with what is committed later.
    assert flow.source.committed(flow.everything) == {0: CommittedOffset(1, "now"), 1: None}


def test_a_second_sink_of_the_same_name_fences_the_first(world, flow):
    first = world.sink()
    flow.commit(first, b"first")
    second = world.sink()

    with pytest.raises(FencedError):
        flow.commit(first, b"zombie", offsets={0: CommittedOffset(1, "zombie")})
    flow.commit(second, b"second", offsets={0: CommittedOffset(1, "second")})

    assert flow.values() == [b"first", b"second"]
    assert flow.source.committed(flow.everything)[0] == CommittedOffset(1, "second")


def test_a_fenced_sink_stays_fenced_until_it_recovers_and_then_fences_the_other(world, flow):
    first = world.sink()
    second = world.sink()
    for _ in range(2):
        with pytest.raises(FencedError):
            flow.commit(first, b"zombie")

    first.recover()
    flow.commit(first, b"first again")

    with pytest.raises(FencedError):
        flow.commit(second, b"second")
    assert flow.values() == [b"first again"]


def test_sinks_of_different_names_do_not_disturb_each_other(world, flow):
    one, two = world.sink("one"), world.sink("two")
    flow.commit(one, b"1")
    flow.commit(two, b"2")
    flow.commit(one, b"3")
    assert flow.values() == [b"1", b"2", b"3"]


def test_a_sink_goes_on_after_it_recovered(world, flow):
    sink = world.sink()
    flow.commit(sink, b"1", offsets={0: CommittedOffset(1, "1")})
    sink.recover()
    flow.commit(sink, b"2", offsets={0: CommittedOffset(2, "2")})
    assert flow.values() == [b"1", b"2"]
    assert flow.source.committed(flow.everything)[0] == CommittedOffset(2, "2")


def test_every_refusal_is_a_delivery_error():
    """A caller that treats them alike loses nothing."""
    assert all(issubclass(kind, DeliveryError) for kind in (StaleGroupError, FencedError, AmbiguousCommitError))
