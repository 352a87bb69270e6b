"""What the faster client says where nothing can work; its promises are tests/contracts'."""

import sys
import threading

import pytest

from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError, DeliveryError
from stream_iwae.ports import CommittedOffset, OutputRecord

pytestmark = pytest.mark.kafka  # the configuration is made for the running one


def test_a_client_that_is_not_installed_is_named_with_the_extra_that_brings_it(make_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)

    for open_one in (lambda c: open_source(c, "t", "g"), lambda c: open_sink(c, "id")):
        with pytest.raises(ConfigurationError, match=r"kafka\.client.*extra `fast`"):
            open_one(make_config(client="confluent"))


def test_a_missing_topic_is_named_with_its_key(make_config):
    pytest.importorskip("confluent_kafka")
    config = make_config(client="confluent", topics={"events": "there-is-none"})

    with pytest.raises(ConfigurationError, match=r"kafka\.topics\.events.*there-is-none"):
        open_source(config, "there-is-none", "group")


def test_a_broker_that_does_not_answer_is_named_with_its_address(make_config):
    pytest.importorskip("confluent_kafka")
    config = make_config(client="confluent", bootstrap_servers="127.0.0.1:1", connect_timeout="1500ms")

    with pytest.raises(BrokerUnreachableError, match=r"127\.0\.0\.1:1"):
        open_source(config, "events", "group")
    with pytest.raises(BrokerUnreachableError, match=r"127\.0\.0\.1:1"):
        open_sink(
            make_config(
                client="confluent",
                bootstrap_servers="127.0.0.1:1",
                connect_timeout="1500ms",
                transaction_timeout="1500ms",
            ),
            "id",
        )


class Hung:
    """A producer of which one call never comes back."""

    def __init__(self, producer, *calls):
        self._producer, self._calls, self.is_over = producer, calls, threading.Event()

    def __getattr__(self, name):
        return (lambda *_: self.is_over.wait()) if name in self._calls else getattr(self._producer, name)


@pytest.mark.parametrize("call", ["send_offsets_to_transaction", "commit_transaction"])
def test_a_client_that_never_comes_back_is_replaced_and_nothing_is_committed(
    make_config, opened, topic, visible, monkeypatch, call
):
    """librdkafka does so where a coordinator dies just then; its own time limits do not hold."""
    pytest.importorskip("confluent_kafka")
    monkeypatch.setattr("stream_iwae.adapters.confluent_sink._GRACE_S", 0.1)
    monkeypatch.setattr("stream_iwae.adapters.confluent_sink._CLOSE_S", 0.1)
    config, out = make_config(client="confluent", transaction_timeout="2s"), topic()
    member = opened(open_source(config, topic(), config.group))
    while not member.poll(0.1).assigned:
        pass
    sink = opened(open_sink(config, config.group))
    hung = sink._producer = Hung(sink._producer, call, "abort_transaction", "close")
    offsets = {0: CommittedOffset(0, "")}

    with pytest.raises(DeliveryError):
        sink.commit([OutputRecord(out, b"k", b"lost")], offsets, member.topic, member.group_token())
    sink.recover()
    sink.commit([OutputRecord(out, b"k", b"kept")], offsets, member.topic, member.group_token())

    assert visible(out) == [b"kept"]
    hung.is_over.set()
