"""Packets -> pmacctd -> Kafka -> the service: what was sent on the wire is what the features hold."""

import json
import shutil
import subprocess
import time
from datetime import UTC, datetime

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from stream_iwae.config import Config
from stream_iwae.features.config import schema
from stream_iwae.lab.service_process import ServiceProcess
from stream_iwae.wire import decode_training

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(shutil.which("pmacctd") is None, reason="pmacctd is not installed"),
]

WRITTEN_S = 30.0
START_S = 1_700_000_040  # a whole minute
# pmacctd writes what it holds each refresh time and at its end. A refresh while it reads a file loses minutes of it:
# of 25 runs with 5 s, 6 put between 8 and 282 of the 400 packets on the topic; with an hour all 25 put all.
PMACCTD = """\
daemonize: false
pcap_savefile: {pcap}
plugins: kafka
aggregate: src_host,dst_host,src_port,dst_port,proto,tcpflags,timestamp_start,timestamp_end
kafka_output: json
kafka_topic: {topic}
kafka_broker_host: {host}
kafka_broker_port: {port}
kafka_refresh_time: 3600
kafka_history: 1m
kafka_history_roundoff: m
timestamps_utc: true
"""


@pytest.fixture
def packets(tmp_path):
    """Three minutes of packets of five hosts, written to a pcap; times and addresses are given, none is asked for."""
    rng = np.random.default_rng(7)
    made = []
    for at in np.sort(rng.uniform(0, 180, 400)):
        source, port = f"192.0.2.{rng.integers(1, 6)}", int(rng.integers(1024, 60_000))
        transport = TCP(sport=port, dport=443, flags="PA") if rng.random() < 0.7 else UDP(sport=port, dport=53)
        addresses = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src=source, dst="198.51.100.7")
        packet = addresses / transport / (b"x" * int(rng.integers(0, 900)))
        packet.time = START_S + float(at)
        made.append(packet)
    wrpcap(str(tmp_path / "traffic.pcap"), made)
    return made


def test_sums_of_packets_and_bytes_equal_those_of_the_pcap(
    packets, topic, kafka, publish, write_config, read_topic, tmp_path
):
    events_topic = topic()
    host, port = kafka.bootstrap_servers.split(":")
    (tmp_path / "pmacctd.conf").write_text(
        PMACCTD.format(pcap=tmp_path / "traffic.pcap", topic=events_topic, host=host, port=port)
    )
    subprocess.run(["pmacctd", "-f", str(tmp_path / "pmacctd.conf")], check=True, timeout=60, capture_output=True)
    # The plugin writes in processes of its own, which pmacctd may not wait for.
    sent, deadline = read_topic(events_topic), time.monotonic() + WRITTEN_S
    while (written := sum(json.loads(record.value)["packets"] for record in sent)) < len(packets):
        assert time.monotonic() < deadline, f"{written} of {len(packets)} packets are on the topic"
        sent = read_topic(events_topic)
    # A last record, after the grace, closes all windows but its own.
    later = datetime.fromtimestamp(START_S + 900, UTC).strftime("%Y-%m-%d %H:%M:%S.000000")
    publish(events_topic, [json.dumps({**json.loads(sent[-1].value), "timestamp_start": later}).encode()])
    path = write_config(
        events_topic,
        events_topic,
        events={"preset": "pmacct"},
        windows={"size": "60s", "grace": "3m"},
        features={"preset": "flows-per-source"},
        learning={"hold_until_ready": False},
    )

    with ServiceProcess(path, tmp_path / "log", "--no-trainer") as service:
        status = service.wait_until(lambda status: status["events"]["consumed"] > len(sent), 60, lambda _: None)

    config = Config.load(path)
    names = list(schema(config.features, config.events.field_types()).names)
    records = read_topic(f"{events_topic}.training")
    rows = np.concatenate([decode_training(record.value).values for record in records])
    by_source = {name: rows[:, names.index(name)].sum() for name in ("packets", "bytes")}
    assert status["events"]["late"] == 0
    assert not status["events"]["rejected"]
    assert len(rows) == len({(packet[IP].src, int(packet.time) // 60) for packet in packets})
    assert by_source == {"packets": len(packets), "bytes": sum(len(packet[IP]) for packet in packets)}
