import pytest

from stream_iwae.adapters.memory import MemoryEventSource, MemoryTelemetry, VirtualClock
from stream_iwae.adapters.memory_broker import MemoryBroker
from stream_iwae.adapters.stall_watchdog import StallWatchdog
from stream_iwae.ports import OutputRecord

BOTH = frozenset({0, 1})


class StuckSource(MemoryEventSource):
    """Gives nothing of partition 1, until it is sought or for ever."""

    is_stuck = True
    is_for_ever = False
    is_closed = False

    def _fetch(self, partition):
        return None if partition == 1 and self.is_stuck else super()._fetch(partition)

    def seek(self, partition, offset):
        super().seek(partition, offset)
        if self.is_paused_once and not self.is_for_ever:
            self.is_stuck = False

    is_paused_once = False  # the first seek is the caller's

    def resume(self, partitions):
        super().resume(partitions)
        self.is_paused_once = True

    def close(self):
        self.is_closed = True


class Lines:
    def __init__(self):
        self.lines = []

    def warning(self, event, **fields):
        self.lines.append((event, fields))

    error = warning


class World:
    def __init__(self):
        self.clock, self.telemetry, self.log = VirtualClock(), MemoryTelemetry(), Lines()
        self.broker = MemoryBroker(self.clock.now_ms)
        self.broker.create_topic("events", 2)
        self.broker.rebalance("g", {"a": BOTH})
        self.sources = []
        self.source = StallWatchdog(self.open, self.clock, self.telemetry, self.log)
        self.take_over()

    def open(self):
        source = StuckSource(self.broker, "events", "g", "a")
        self.sources.append(source)
        return source

    def take_over(self):
        assigned = self.source.poll(0).assigned
        for partition in assigned:
            self.source.seek(partition, 0)
        self.source.resume(assigned)
        return assigned

    def poll_for(self, minutes):
        """A poll every tenth of a second; what all of them brought."""
        brought, lost = [], frozenset()
        for _ in range(minutes * 600):
            self.clock.advance(100)
            polled = self.source.poll(0.1)
            brought += [(records.partition, value) for records in polled.records for value in records.values]
            lost |= polled.lost
            if polled.lost:
                break
        return brought, lost

    @property
    def n_stalls(self):
        return self.telemetry.total("consumer_stalls")


@pytest.fixture
def world():
    return World()


def produce(world, partition, value=b"v"):
    world.broker.append("events", partition, None, value, 0)


def test_a_partition_that_stands_still_is_counted_and_fetched_anew(world):
    produce(world, 1)
    brought, lost = world.poll_for(2)

    assert brought == [(1, b"v")]
    assert not lost
    assert world.n_stalls == 1
    assert world.log.lines == [("partitions stand still, fetching them anew", {"partitions": [1]})]


def test_where_that_is_not_enough_the_consumer_is_replaced_and_all_is_lost_and_assigned(world):
    world.sources[0].is_for_ever = True
    produce(world, 0, b"0")
    produce(world, 1, b"1")

    _, lost = world.poll_for(5)
    assert lost == BOTH
    assert world.sources[0].is_closed
    world.sources[1].is_stuck = False
    assert world.take_over() == BOTH

    assert sorted(world.poll_for(1)[0]) == [(0, b"0"), (1, b"1")]
    assert world.n_stalls == 2


def test_a_quiet_partition_is_not_stalled(world):
    world.poll_for(5)

    assert world.n_stalls == 0


def test_a_paused_partition_is_not_stalled(world):
    produce(world, 1)
    world.source.pause(BOTH)
    world.poll_for(3)
    world.source.resume(BOTH)
    world.poll_for(1)

    assert world.n_stalls == 0


def test_a_partition_behind_an_open_transaction_is_not_stalled(world):
    epoch = world.broker.init_transactions("another's")
    world.broker.begin("another's", epoch)
    world.broker.send("another's", epoch, OutputRecord("events", None, b"v", 1))
    world.poll_for(3)

    assert world.source.high_water(1) == 1
    assert world.n_stalls == 0


def test_a_long_wait_between_two_polls_is_no_stall(world):
    produce(world, 1)
    world.source.poll(0)
    world.clock.advance(600_000)
    world.source.poll(0)

    assert world.n_stalls == 0


def test_what_is_revoked_is_watched_no_more(world):
    produce(world, 1)
    world.broker.rebalance("g", {"a": frozenset({0}), "b": frozenset({1})})
    world.poll_for(3)

    assert world.n_stalls == 0
