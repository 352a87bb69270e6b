import json

import numpy as np
import pytest

from stream_iwae.batches import RecordBatch
from stream_iwae.events.config import EventsConfig, preset_names
from stream_iwae.events.decode import Decoder

PMACCT = (
    '{"event_type":"purge","ip_src":"192.0.2.10","ip_dst":"198.51.100.3","port_src":40009,"port_dst":443,"tcp_flags":"24",'
    '"ip_proto":"tcp","timestamp_start":"2023-11-14 22:13:20.180000","timestamp_end":"0000-00-00 00:00:00.000000",'
    '"stamp_inserted":"2023-11-14 22:13:00","packets":1,"bytes":149}'
)
GOFLOW2 = (
    '{"type":"NETFLOW_V5","time_received_ns":1700000004833000000,"sampling_rate":100,"sampler_address":"203.0.113.1",'
    '"time_flow_start_ns":1700000000000000000,"time_flow_end_ns":1700000004000000000,"bytes":1000,"packets":10,'
    '"src_addr":"192.0.2.1","dst_addr":"198.51.100.7","etype":"IPv4","proto":"TCP","src_port":40000,"dst_port":443}'
)
ZEEK = '{"ts":1700000012.25,"id.orig_h":"192.0.2.44","id.resp_h":"::ffff:198.51.100.20","proto":"17","orig_bytes":812}'
GNMIC = '[{"name":"ifstats","timestamp":1700000010000000000,"tags":{"source":"203.0.113.7:57400"},"values":{"/if/in":"48213377"}}]'


def decode(config, *texts):
    values = [text.encode() for text in texts]
    n = len(values)
    records = RecordBatch("t", 0, np.arange(n), np.full(n, 1_800_000_000_000), values, n)
    return Decoder(EventsConfig.model_validate(config)).decode(records)


def test_a_pmacct_message_is_read_and_its_markers_are_skipped():
    decoded = decode({"preset": "pmacct"}, PMACCT, '{"event_type":"purge_init"}', '{"event_type":"purge_close"}')

    (event,) = decoded.events.frame.to_dicts()
    assert event["timestamp_ms"] == 1_700_000_000_180  # the end is absent, so the start counts
    assert (event["entity"], event["dst"], event["dst_port"], event["proto"]) == (
        "192.0.2.10",
        "198.51.100.3",
        443,
        "tcp",
    )
    assert (event["bytes"], event["packets"], event["source"]) == (149, 1, None)
    assert decoded.skipped == {"marker": 2}


@pytest.mark.parametrize(("rate", "n_bytes"), [(100, 100_000), (0, 1000), (None, 1000)])
def test_a_goflow2_message_is_multiplied_by_its_sampling_rate_where_that_is_known(rate, n_bytes):
    message = json.dumps({**json.loads(GOFLOW2), "sampling_rate": rate})

    (event,) = decode({"preset": "goflow2"}, message).events.frame.to_dicts()

    assert (event["timestamp_ms"], event["bytes"], event["proto"]) == (1_700_000_004_000, n_bytes, "tcp")
    assert event["source"] == "203.0.113.1"


def test_dotted_names_are_literal_first_and_addresses_canonical():
    fields = {"src": {"path": "id.orig_h", "type": "address"}, "dst": {"path": "id.resp_h", "type": "address"}}
    fields |= {"proto": {"path": "proto", "type": "protocol"}}
    config = {"time": [{"field": "ts", "format": "epoch_s"}], "fields": fields, "entity": ["src"]}
    nested = '{"ts":1700000012.25,"id":{"orig_h":"192.0.2.44","resp_h":"2001:DB8:0::1"}}'

    flat, deep = decode(config, ZEEK, nested).events.frame.to_dicts()

    assert (flat["entity"], flat["dst"], flat["proto"], flat["timestamp_ms"]) == (
        "192.0.2.44", "198.51.100.20", "udp", 1_700_000_012_250,
    )  # fmt: skip
    assert (deep["entity"], deep["dst"]) == ("192.0.2.44", "2001:db8::1")


def test_a_gnmic_event_gives_its_device_without_the_port_and_numbers_from_texts():
    fields = {"device": {"path": "tags.source", "type": "address", "strip_port": True}, "in_octets": "values./if/in"}
    config = {"time": [{"field": "timestamp", "format": "epoch_ns"}], "fields": fields, "entity": ["device"]}

    (event,) = decode(config, GNMIC).events.frame.to_dicts()

    assert (event["entity"], event["in_octets"], event["timestamp_ms"]) == (
        "203.0.113.7",
        48_213_377,
        1_700_000_010_000,
    )


@pytest.mark.parametrize(
    ("time_format", "value", "expected"),
    [
        ("epoch_s", 1_700_000_000, 1_700_000_000_000),
        ("epoch_s", 1_700_000_000.25, 1_700_000_000_250),
        ("epoch_s", "1680626664.000000", 1_680_626_664_000),
        ("epoch_ms", 1_700_000_000_123, 1_700_000_000_123),
        ("epoch_us", 1_700_000_000_123_456, 1_700_000_000_123),
        ("epoch_ns", 1_700_000_000_123_456_789, 1_700_000_000_123),
        ("iso", "2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("iso", "2023-11-14T22:13:20.123456789Z", 1_700_000_000_123),
        ("iso", "2023-11-14T23:13:20.5+0100", 1_700_000_000_500),
        ("iso", "2023-11-14T23:13:20.5+01:00", 1_700_000_000_500),
        ("datetime", "2023-11-14 22:13:20.180000", 1_700_000_000_180),
        ("datetime", "2023-11-14 22:13:20", 1_700_000_000_000),
    ],
)
def test_every_time_format_is_read_to_the_millisecond(time_format, value, expected):
    config = {"time": [{"field": "t", "format": time_format}], "fields": {"x": "x"}}

    assert decode(config, json.dumps({"t": value})).events.frame["timestamp_ms"].to_list() == [expected]


def test_a_time_without_a_zone_is_of_the_configured_one():
    config = {"time": [{"field": "t", "format": "datetime"}], "fields": {"x": "x"}, "timezone": "Europe/Berlin"}

    assert decode(config, '{"t":"2023-11-14 23:13:20"}').events.frame["timestamp_ms"].to_list() == [1_700_000_000_000]


def test_several_fields_can_name_an_entity_and_none_means_all():
    fields = {"a": {"path": "a", "type": "text"}, "b": {"path": "b", "type": "text"}}
    time = [{"field": "t", "format": "epoch_ms"}]
    text = '{"t":1700000000000,"a":"x","b":7}'

    assert decode({"time": time, "fields": fields, "entity": ["a", "b"]}, text).events.frame["entity"][0] == "x\x1f7"
    assert decode({"time": time, "fields": fields}, text).events.frame["entity"][0] == "all"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_complete(name):
    config = EventsConfig.model_validate({"preset": name})

    assert config.entity
    assert config.time


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"preset": "pmact"}, "no preset 'pmact'; there are"),
        ({"preset": "pmacct", "entity": ["scr"]}, "did you mean 'src'?"),
        ({"preset": "pmacct", "skip": [{"field": "x"}]}, "need exactly one of equals, in, not_in"),
        ({"preset": "pmacct", "max_clock_skew": "10"}, "need a duration"),
        ({"preset": "pmacct", "fields": {"entity": "x"}}, "is a name of our own"),
    ],
)
def test_a_wrong_section_says_what_to_do(changes, told):
    with pytest.raises(ValueError) as caught:
        EventsConfig.model_validate(changes)

    assert told in str(caught.value)
