import io
import json
import random
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_iwae.errors import BrokerUnreachableError, ConfigurationError, DeliveryError, StreamIwaeError
from stream_iwae.lab.messages import KeyedEvent, Message, encoded, from_lines, grouped, one_by_one
from stream_iwae.lab.publish import MessagePublisher, create_topic
from stream_iwae.lab.publish_command import paced, publish


@pytest.fixture
def read_back(kafka):
    """Read all of a topic: ``read_back(topic) -> [(partition, key, value)]``."""
    from kafka import KafkaConsumer, TopicPartition

    def read(topic):
        consumer = KafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest")
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        records = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            for polled in consumer.poll(timeout_ms=1000).values():
                records.extend((record.partition, record.key, record.value) for record in polled)
        consumer.close()
        return records

    return read


@pytest.mark.kafka
class TestPublish:
    def test_every_line_of_a_file_arrives_keyed_and_unchanged(self, kafka, topic, read_back, tmp_path):
        lines = [json.dumps({"host": f"h{i % 7}", "port": 80, "n": i}) for i in range(5000)]
        (tmp_path / "events.ndjson").write_text("\n".join(lines) + "\n\n")
        name = topic(partitions=3)

        report = publish(str(tmp_path / "events.ndjson"), name, kafka.bootstrap_servers, key="host, port")

        records = read_back(name)
        assert (report.n_events, report.n_messages, len(records)) == (5000, 5000, 5000)
        assert sorted(value.decode() for _, _, value in records) == sorted(lines)
        assert all(key.decode() == f"{json.loads(value)['host']}\x1f80" for _, key, value in records)
        for number in range(7):
            of_host = [(p, json.loads(v)["n"]) for p, k, v in records if k.startswith(b"h%d" % number)]
            assert len({partition for partition, _ in of_host}) == 1, "an entity is in one partition"
            assert [n for _, n in of_host] == list(range(number, 5000, 7)), "in order"

    def test_a_missing_topic_is_made_and_keeps_old_records(self, kafka, kafka_admin, tmp_path, read_back):
        from kafka.admin import ConfigResource, ConfigResourceType

        (tmp_path / "e").write_text('{"a": 1}\n')

        publish(str(tmp_path / "e"), "made-by-publish", kafka.bootstrap_servers, partitions=5)

        [described] = kafka_admin.describe_topics(["made-by-publish"])
        assert len(described["partitions"]) == 5
        configs = kafka_admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, "made-by-publish")])
        assert configs["topic"]["made-by-publish"]["retention.ms"]["value"] == "-1"
        assert create_topic(kafka.bootstrap_servers, "made-by-publish", partitions=1) is False
        [(_, key, value)] = read_back("made-by-publish")
        assert (key, value) == (None, b'{"a": 1}')

    def test_several_events_of_an_entity_share_a_message(self, kafka, topic, read_back, tmp_path):
        events = [{"ts": i * 10, "host": f"h{i % 2}", "n": i} for i in range(1000)]
        (tmp_path / "e").write_text("\n".join(map(json.dumps, events)))
        name = topic()

        report = publish(str(tmp_path / "e"), name, kafka.bootstrap_servers, key="host", batch=25)

        assert (report.n_events, report.n_messages) == (1000, 40)
        records = [(key, json.loads(value)) for _, key, value in read_back(name)]
        for host in ("h0", "h1"):
            sent = [event for key, array in records if key == host.encode() for event in array]
            assert sent == [event for event in events if event["host"] == host]

    @pytest.mark.data
    def test_a_data_set_is_keyed_by_its_entity(self, kafka, topic, read_back, data_dir, capsys):
        name = topic()

        report = publish("darpa98", name, kafka.bootstrap_servers, limit=500, data=data_dir)

        records = read_back(name)
        assert (report.n_events, len(records)) == (500, 500)
        assert all(key.decode() == json.loads(value)["dst"] for _, key, value in records)
        assert "all arrived: 500 events" in capsys.readouterr().err

    def test_standard_input_is_a_source(self, kafka, topic, read_back, monkeypatch):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"a":1}\nnot json\n')))
        name = topic()

        publish("-", name, kafka.bootstrap_servers)

        assert [value for *_, value in read_back(name)] == [b'{"a":1}', b"not json"]

    def test_what_the_broker_refuses_is_an_error(self, kafka, topic):
        name = topic(config={"max.message.bytes": "1000"})

        with pytest.raises(DeliveryError, match=f"to {name} did not arrive"):  # noqa: SIM117
            with MessagePublisher(kafka.bootstrap_servers, name) as publisher:
                publisher.send(b"k", random.Random(1).randbytes(20_000))

    def test_what_the_producer_refuses_is_an_error(self, kafka, topic):
        name = topic()

        with pytest.raises(DeliveryError, match=f"to {name} was refused"):  # noqa: SIM117
            with MessagePublisher(kafka.bootstrap_servers, name) as publisher:
                publisher.send(None, bytes(5_000_000))

    def test_more_messages_than_may_be_under_way_all_arrive(self, kafka, topic, monkeypatch, read_back):
        monkeypatch.setattr("stream_iwae.lab.publish._MAX_IN_FLIGHT", 50)
        name = topic()

        with MessagePublisher(kafka.bootstrap_servers, name) as publisher:
            for number in range(1000):
                publisher.send(None, b"%d" % number, n_events=2)
                assert len(publisher._under_way) <= 50
        assert (publisher.n_messages, publisher.n_events) == (1000, 2000)
        assert [int(value) for *_, value in read_back(name)] == list(range(1000))


class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"source": "no-such-thing"}, "neither a file nor one of the data sets nsl-kdd"),
            ({"source": "nsl-kdd", "speed_up": 0.0}, "speed-up = 0.0"),
            ({"source": "nsl-kdd", "batch": 0}, "batch = 0"),
            ({"source": "nsl-kdd", "limit": -1}, "limit = -1"),
        ],
    )
    def test_a_wrong_parameter_is_named_before_anything_is_sent(self, arguments, named):
        with pytest.raises(ConfigurationError, match=named):
            publish(topic="t", bootstrap_servers="127.0.0.1:1", **arguments)

    def test_no_broker_is_no_time_out_without_a_word(self, monkeypatch):
        from kafka.errors import KafkaTimeoutError

        def refuse(**_settings):
            raise KafkaTimeoutError

        monkeypatch.setattr("stream_iwae.lab.publish.KafkaAdminClient", refuse)
        with pytest.raises(BrokerUnreachableError, match=r"127\.0\.0\.1:1"):
            create_topic("127.0.0.1:1", "t")

    def test_a_line_that_cannot_be_keyed_is_named_by_its_number(self):
        with pytest.raises(StreamIwaeError, match="line 2 is no JSON object"):
            list(from_lines([b'{"host":"a"}', b"[1]"], ["host"], is_timed=False))

    def test_a_missing_key_field_is_named_with_those_there_are(self):
        with pytest.raises(StreamIwaeError, match=r"event 1 has no field 'src' .*\['dst', 'ts'\]"):
            list(encoded([{"ts": 1, "dst": "a"}], ["src"]))


class TestMessages:
    def test_events_of_another_second_begin_new_messages(self):
        events = [KeyedEvent(b"a", b"%d" % ms, ms) for ms in (0, 999, 1000, 2500)]

        assert [message.value for message in grouped(events, 10)] == [b"[0,999]", b"[1000]", b"[2500]"]

    def test_a_full_message_does_not_wait(self):
        def events():
            yield KeyedEvent(b"a", b"1", 0)
            yield KeyedEvent(b"a", b"2", 0)
            raise AssertionError("asked for more before the message was out")

        assert next(grouped(events(), 2)) == Message(b"a", b"[1,2]", 2, 0)

    def test_events_without_a_time_are_grouped_too(self):
        events = [KeyedEvent(key, b"1", None) for key in (b"a", b"b", b"a")]

        assert {m.key: m.n_events for m in grouped(events, 10)} == {b"a": 2, b"b": 1}

    def test_memory_is_bounded_where_every_event_has_its_own_key(self, monkeypatch):
        monkeypatch.setattr("stream_iwae.lab.messages._MAX_HELD", 10)
        taken = 0

        def events():
            nonlocal taken
            for number in range(1000):
                taken = number
                yield KeyedEvent(b"%d" % number, b"1", 0)

        next(grouped(events(), 100))

        assert taken == 10

    @given(
        st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.integers(0, 5000)), max_size=60),
        st.integers(1, 7),
    )
    def test_grouping_loses_nothing_and_keeps_the_order_of_each_key(self, rows, size):
        events = [KeyedEvent(key, b"%d" % number, ms) for number, (key, ms) in enumerate(rows)]

        sent = [(m.key, number) for m in grouped(events, size) for number in json.loads(m.value)]

        assert all(m.n_events == len(json.loads(m.value)) <= size for m in grouped(events, size))
        for key in (b"a", b"b", b"c"):
            expected = [int(event.value) for event in events if event.key == key]
            assert [number for of, number in sent if of == key] == expected
        assert len(sent) == len(events)


class TestPace:
    def pace(self, times_ms, speed_up):
        now_s = 100.0

        def sleep(duration_s):
            nonlocal now_s
            now_s += duration_s

        messages = [Message(None, b"", 1, ms) for ms in times_ms]
        return [now_s - 100.0 for _ in paced(messages, speed_up, lambda: now_s, sleep)]

    def test_a_minute_at_sixty_times_its_speed_takes_a_second(self):
        assert self.pace([0, 30_000, 60_000], 60.0) == pytest.approx([0.0, 0.5, 1.0])

    def test_an_earlier_event_does_not_wait(self):
        assert self.pace([10_000, 5_000, 11_000], 1.0) == pytest.approx([0.0, 0.0, 1.0])

    def test_events_without_a_time_cannot_be_paced(self):
        with pytest.raises(ConfigurationError, match="'ts'"):
            self.pace([None], 1.0)


def test_one_by_one_sends_an_event_as_it_is():
    assert list(one_by_one([KeyedEvent(b"k", b"{}", 5)])) == [Message(b"k", b"{}", 1, 5)]
