"""What every StateReader does, in memory and on Kafka."""

import pytest

from stream_iwae.ports import OutputRecord


@pytest.fixture
def state(world):
    """Write the state of a partition in one transaction, and read it."""

    class State:
        topic = world.topic(2, **{"cleanup.policy": "compact"})
        sink = world.sink()

        def write(self, partition, *pairs):
            self.sink.commit([OutputRecord(self.topic, key, value, partition) for key, value in pairs], {}, "", None)
            world.records(self.topic)  # returns once the markers of the commit are written

        def read(self, partition):
            return world.state_reader(self.topic).read(partition)

    return State()


def test_an_empty_partition_holds_nothing(state):
    assert state.read(0) == []


def test_the_last_value_of_each_key_counts(state):
    state.write(0, (b"a", b"1"), (b"b", b"1"))
    state.write(0, (b"a", b"2"))
    assert dict(state.read(0)) == {b"a": b"2", b"b": b"1"}


def test_keys_come_in_the_order_of_their_last_value(state):
    state.write(0, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    state.write(0, (b"a", b"2"))
    assert state.read(0) == [(b"b", b"1"), (b"c", b"1"), (b"a", b"2")]


def test_a_tombstone_removes_and_a_later_value_brings_back(state):
    state.write(0, (b"a", b"1"), (b"b", b"1"))
    state.write(0, (b"a", None), (b"b", None))
    assert state.read(0) == []
    state.write(0, (b"b", b"2"))
    assert state.read(0) == [(b"b", b"2")]


def test_partitions_are_apart(state):
    state.write(0, (b"a", b"0"))
    state.write(1, (b"a", b"1"))
    assert state.read(0) == [(b"a", b"0")]
    assert state.read(1) == [(b"a", b"1")]


def test_one_reader_reads_again_and_sees_what_came_since(world, state):
    reader = world.state_reader(state.topic)
    for i in range(3):
        state.write(0, (b"a", str(i).encode()))  # a marker ends the partition each time
        assert reader.read(0) == [(b"a", str(i).encode())]
        assert reader.read(1) == []


def test_a_partition_larger_than_one_fetch_is_read_whole(state):
    for start in range(0, 200, 50):
        state.write(0, *((str(i).encode(), bytes(20_000)) for i in range(start, start + 50)))
    assert len(state.read(0)) == 200
