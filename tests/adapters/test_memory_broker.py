"""What the in-memory Kafka promises beyond the contracts: where Kafka refuses, waits or forgets, so does it."""

import pytest

from stream_iwae.adapters.memory import MemoryEventSource, MemoryOutputSink, MemoryStateReader, VirtualClock
from stream_iwae.adapters.memory_broker import MemoryBroker
from stream_iwae.errors import DeliveryError, FencedError, StaleGroupError
from stream_iwae.ports import CommittedOffset, OutputRecord

OFFSETS = {0: CommittedOffset(1, "one")}


class EndedError(BaseException):
    """The process ends here."""


class World:
    def __init__(self):
        self.clock = VirtualClock()
        self.broker = MemoryBroker(self.clock.now_ms, transaction_timeout_ms=10_000)
        for topic in ("events", "out"):
            self.broker.create_topic(topic)
        self.broker.rebalance("g", {"a": frozenset({0})})
        self.source = MemoryEventSource(self.broker, "events", "g", "a")
        self.source.poll(0)
        self.sink = MemoryOutputSink(self.broker, "g-a")

    def commit(self, value=b"v", sink=None):
        (sink or self.sink).commit([OutputRecord("out", b"k", value, 0)], OFFSETS, "events", self.source.group_token())

    def end_at(self, effect):
        def before(name):
            if name == effect:
                raise EndedError

        self.broker.before_effect = before
        with pytest.raises(EndedError):
            self.commit()
        self.broker.before_effect = lambda _: None

    def values(self):
        return [entry.value for _, _, entry in self.broker.committed_records("out")]


@pytest.fixture
def world():
    return World()


def test_a_record_that_expires_fails_the_commit_and_leaves_nothing(world):
    world.broker.is_losing = True

    with pytest.raises(DeliveryError, match="1 of 1 records expired"):
        world.commit()

    assert world.values() == []
    world.commit(b"again")
    assert world.values() == [b"again"]


@pytest.mark.parametrize("effect", ["append", "flush", "offsets", "commit"])
def test_a_process_that_ends_before_the_commit_leaves_a_transaction_open_until_its_id_comes_again(world, effect):
    world.end_at(effect)

    assert list(world.broker.open) == ["g-a"]
    MemoryOutputSink(world.broker, "g-a")
    assert not world.broker.open
    assert world.values() == []
    assert world.source.committed(frozenset({0})) == {0: None}


def test_what_lies_behind_an_open_transaction_is_not_read(world):
    world.end_at("commit")
    MemoryOutputSink(world.broker, "another").commit(
        [OutputRecord("out", b"k", b"later", 0)], {}, "events", world.source.group_token()
    )

    assert world.values() == []
    assert MemoryStateReader(world.broker, "out").read(0) == []
    world.sink.recover()
    assert world.values() == [b"later"]


def test_a_transaction_that_takes_too_long_is_aborted_and_its_producer_fenced(world):
    world.end_at("commit")
    world.clock.advance(10_000)
    world.broker.abort_expired()

    assert not world.broker.open
    with pytest.raises(FencedError):
        world.commit()
    world.sink.recover()
    world.commit()
    assert world.values() == [b"v"]


def test_who_asks_for_an_offset_that_is_about_to_be_committed_waits(world):
    world.end_at("commit")
    with pytest.raises(DeliveryError, match="does not end"):
        world.source.committed(frozenset({0}))

    def wait(duration_ms):
        world.clock.advance(duration_ms)
        world.broker.abort_expired()

    world.broker.on_wait = wait
    assert world.source.committed(frozenset({0})) == {0: None}
    assert world.clock.now_ms() == 10_000


def test_a_rebalance_after_the_offsets_were_taken_does_not_undo_the_commit(world):
    """Kafka checks the generation with the offsets, and not again at the end."""

    def rebalance_at_commit(name):
        if name == "commit":
            world.broker.rebalance("g", {"b": frozenset({0})})

    world.broker.before_effect = rebalance_at_commit
    world.commit()

    assert world.values() == [b"v"]
    with pytest.raises(StaleGroupError):
        world.commit()


def test_a_second_process_of_the_same_name_ends_the_first(world):
    second = MemoryEventSource(world.broker, "events", "g", "a")

    assert second.poll(0).assigned == {0}
    with pytest.raises(FencedError, match="used twice"):
        world.source.poll(0)
    with pytest.raises(FencedError, match="used twice"):
        world.commit()
    assert world.values() == []


def test_a_member_that_was_expelled_cannot_commit(world):
    world.broker.rebalance("g", {"b": frozenset({0})})

    assert world.source.poll(0).revoked == {0}
    with pytest.raises(StaleGroupError):
        world.commit()
