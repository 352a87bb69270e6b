"""What only a real broker can do to a transaction; the promises all sinks share are in tests/contracts."""

import os
import secrets
import signal
import threading

import pytest
from kafka.errors import KafkaConnectionError

from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_source import KafkaEventSource
from stream_iwae.errors import AmbiguousCommitError, DeliveryError, FencedError
from stream_iwae.ports import CommittedOffset, OutputRecord

pytestmark = pytest.mark.kafka


@pytest.fixture
def sink(make_config, opened):
    return opened(KafkaOutputSink(make_config(), make_config().group))


@pytest.fixture
def member(make_config, opened, topic):
    """A member of the group that has partition 0 of a topic."""
    return opened(a_member(make_config(), topic()))


def a_member(config, topic):
    source = KafkaEventSource(config, topic, config.group)
    while not source.poll(0.1).assigned:
        pass
    source.seek(0, 0)
    return source


def a_record(topic, value=b"value", partition=None):
    return OutputRecord(topic, value, value, partition)


@pytest.mark.parametrize("what", ["a record", "only offsets"])
def test_a_twin_fences_the_former_producer_which_does_not_take_the_id_back(
    make_config, opened, topic, sink, member, visible, what
):
    out = topic()
    twin = opened(KafkaOutputSink(make_config(), make_config().group))
    offsets = {0: CommittedOffset(0, "former")}

    with pytest.raises(FencedError, match="another producer"):
        sink.commit([a_record(out)] if what == "a record" else [], offsets, member.topic, member.group_token())

    twin.commit([a_record(out, b"twin")], {}, member.topic, None)
    assert visible(out) == [b"twin"]
    assert member.committed(frozenset({0})) == {0: None}


def test_a_recovered_producer_takes_the_id_back(make_config, opened, topic, sink, visible):
    out = topic()
    opened(KafkaOutputSink(make_config(), make_config().group))
    with pytest.raises(FencedError):
        sink.commit([a_record(out, b"1")], {}, out, None)

    sink.recover()
    sink.commit([a_record(out, b"2")], {}, out, None)

    assert visible(out) == [b"2"]


def test_a_topic_that_has_gone_fails_the_commit_with_its_offsets(make_config, opened, topic, kafka_admin, visible):
    out, gone = topic(), topic()
    config = make_config(transaction_timeout="2s")
    sink, member = opened(KafkaOutputSink(config, config.group)), opened(a_member(config, topic()))
    sink.commit([a_record(gone)], {}, member.topic, None)
    kafka_admin.delete_topics([gone])

    with pytest.raises(DeliveryError):
        sink.commit([a_record(out), a_record(gone)], {0: CommittedOffset(0, "")}, member.topic, member.group_token())

    assert visible(out) == []
    assert member.committed(frozenset({0})) == {0: None}
    sink.commit([a_record(out)], {0: CommittedOffset(0, "")}, member.topic, member.group_token())
    assert visible(out) == [b"value"]


def test_a_record_that_the_topic_refuses_fails_the_commit_with_its_offsets(topic, sink, member, visible):
    out, narrow = topic(), topic(config={"max.message.bytes": "1000"})
    records = [a_record(out), a_record(narrow, secrets.token_bytes(2_000))]

    with pytest.raises(DeliveryError, match=narrow):
        sink.commit(records, {0: CommittedOffset(0, "")}, member.topic, member.group_token())

    assert visible(out) == []
    assert member.committed(frozenset({0})) == {0: None}
    sink.commit(records[:1], {0: CommittedOffset(0, "")}, member.topic, member.group_token())
    assert visible(out) == [b"value"]


def test_an_unknown_partition_fails_the_commit_and_the_next_one_works(topic, sink, visible):
    out = topic()

    with pytest.raises(DeliveryError):
        sink.commit([a_record(out, b"1"), a_record(out, b"2", 7)], {}, out, None)

    sink.commit([a_record(out, b"3")], {}, out, None)
    assert visible(out) == [b"3"]


def test_what_the_broker_would_refuse_is_refused_before_the_transaction(topic, sink, member, visible):
    out = topic()
    token = member.group_token()

    with pytest.raises(DeliveryError, match="bytes"):
        sink.commit([a_record(out, b"0"), a_record(out, b"x" * 65_536)], {}, out, None)
    with pytest.raises(DeliveryError, match="4096 bytes"):
        sink.commit([a_record(out, b"1")], {0: CommittedOffset(0, "m" * 4_096)}, member.topic, token)

    sink.commit([a_record(out, b"2")], {0: CommittedOffset(0, "m" * 4_095)}, member.topic, token)
    assert visible(out) == [b"2"]
    assert member.committed(frozenset({0})) == {0: CommittedOffset(0, "m" * 4_095)}


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_coordinator_that_cannot_be_reached_for_once_stops_no_commit(
    make_config, opened, topic, member, visible, monkeypatch, nth
):
    """The client by itself would forget the request that it had in hand, and wait for its answer for ever."""
    out, calls = topic(), []
    sink = KafkaOutputSink(make_config(), make_config().group)
    inner = type(sink._producer._sender._client)
    await_ready = inner.await_ready

    def now_and_then(*arguments, **settings):
        calls.append(arguments)
        if len(calls) == nth:
            raise KafkaConnectionError("not ready")
        return await_ready(*arguments, **settings)

    monkeypatch.setattr(inner, "await_ready", now_and_then)
    opened(sink).recover()  # as a sink is made, with the client as it is now
    committing = threading.Thread(
        target=sink.commit,
        args=([a_record(out, b"1")], {0: CommittedOffset(0, "1")}, member.topic, member.group_token()),
        daemon=True,
    )
    committing.start()
    committing.join(20.0)

    assert not committing.is_alive()
    assert len(calls) >= nth
    assert visible(out) == [b"1"]


def test_a_second_process_with_the_same_instance_fences_the_first(make_config, opened, topic, sink, member, visible):
    out = topic()
    usurper = opened(a_member(make_config(), member.topic))

    with pytest.raises(FencedError, match=r"kafka.instance 'a' is used twice"):
        sink.commit([a_record(out, b"1")], {0: CommittedOffset(0, "")}, member.topic, member.group_token())

    sink.commit([a_record(out, b"2")], {0: CommittedOffset(0, "")}, member.topic, usurper.group_token())
    assert visible(out) == [b"2"]


def test_a_record_that_is_not_acknowledged_fails_the_commit(topic, sink, member, visible, monkeypatch):
    """As where it expires: the client fails only its future, and would commit the offsets without it."""
    out = topic()
    token = member.group_token()
    sink.commit([a_record(out, b"1")], {}, member.topic, None)
    monkeypatch.setattr(sink._producer, "flush", lambda timeout: None)

    with pytest.raises(DeliveryError, match="not acknowledged"):
        sink.commit([a_record(out, b"2")], {0: CommittedOffset(0, "")}, member.topic, token)

    assert visible(out) == [b"1"]
    assert member.committed(frozenset({0})) == {0: None}


@pytest.mark.parametrize("freezes_at", ["the records", "the end"])
def test_a_broker_that_does_not_answer_leaves_a_commit_that_can_be_settled(
    kafka, make_config, opened, topic, visible, monkeypatch, freezes_at
):
    config = make_config(transaction_timeout="2s")
    out = topic()
    sink, member = opened(KafkaOutputSink(config, config.group)), opened(a_member(config, topic()))
    sink.commit([a_record(out, b"1")], {0: CommittedOffset(0, "1")}, member.topic, member.group_token())
    step = "flush" if freezes_at == "the records" else "commit_transaction"
    carry_on = getattr(sink._producer, step)

    def freeze(*given, **named):
        monkeypatch.undo()  # once
        os.kill(kafka.pids[0], signal.SIGSTOP)
        timer.start()
        return carry_on(*given, **named)

    timer = threading.Timer(4.0, os.kill, (kafka.pids[0], signal.SIGCONT))
    monkeypatch.setattr(sink._producer, step, freeze)
    try:
        sink.commit([a_record(out, b"2")], {0: CommittedOffset(0, "2")}, member.topic, member.group_token())
        fails = None
    except DeliveryError as error:
        fails = error
    finally:
        timer.join()  # the broker goes on

    sink.recover()
    is_committed = member.committed(frozenset({0})) == {0: CommittedOffset(0, "2")}
    assert visible(out) == ([b"1", b"2"] if is_committed else [b"1"])
    if freezes_at == "the records":
        assert fails is not None
        assert not is_committed
    else:  # where the client lost its connection first it has asked again, and knows
        assert isinstance(fails, AmbiguousCommitError) or (fails is None and is_committed)
    sink.commit([a_record(out, b"3")], {0: CommittedOffset(0, "3")}, member.topic, member.group_token())
    assert visible(out)[-1] == b"3"
    assert member.committed(frozenset({0})) == {0: CommittedOffset(0, "3")}
