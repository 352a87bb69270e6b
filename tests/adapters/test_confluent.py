"""What the faster client says where nothing can work; its promises are tests/contracts'."""

import sys

import pytest

from stream_iwae.adapters.kafka_choice import open_sink, open_source
from stream_iwae.errors import BrokerUnreachableError, ConfigurationError

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
