import pytest
from kafka.errors import KafkaTimeoutError

from stream_iwae.adapters import kafka_state
from stream_iwae.adapters.kafka_sink import KafkaOutputSink
from stream_iwae.adapters.kafka_state import KafkaStateReader
from stream_iwae.ports import OutputRecord

pytestmark = pytest.mark.kafka


@pytest.fixture
def config(make_config, opened, topic):
    state = topic(config={"cleanup.policy": "compact"})
    made = make_config(topics={"events": "unused", "state": state})
    sink = opened(KafkaOutputSink(made, "writer"))
    sink.commit([OutputRecord(state, b"k", b"v", 0)], {}, "", None)
    return made


def deaf(*_, **__):
    raise KafkaTimeoutError("Failed to get offsets by timestamps")


def test_state_is_read_by_a_new_consumer_where_the_old_one_asks_a_broker_that_is_gone(config, opened, visible):
    reader = opened(KafkaStateReader(config))
    assert visible(config.topics.state) == [b"v"]
    former = reader._consumer
    former.end_offsets = deaf

    assert reader.read(0) == [(b"k", b"v")]
    assert reader._consumer is not former


def test_state_that_nobody_can_read_is_an_error_in_the_end(config, opened, monkeypatch):
    monkeypatch.setattr(kafka_state, "read_compacted", deaf)
    monkeypatch.setattr(kafka_state, "_ATTEMPTS", 2)

    with pytest.raises(KafkaTimeoutError):
        opened(KafkaStateReader(config)).read(0)
