"""What nobody should send, among what everybody does: every event meets one fate, and the broken ones are kept."""

import json
import shutil
import subprocess
import time
from collections import Counter

import pytest
from network import START_MS, a_day_in_the_network, flow

from stream_iwae.lab.service_process import ServiceProcess

pytestmark = pytest.mark.kafka

GOOD = flow(START_MS, "10.0.0.1")
TIMELESS = {name: value for name, value in GOOD.items() if name != "ts"}
NAMELESS = {name: value for name, value in GOOD.items() if name != "src"}


def js(event, **changes):
    return json.dumps({**event, **changes}).encode()


def kinds():
    """Twenty kinds of broken messages, with the reason of each; every call makes the same bytes but for one time."""
    tomorrow_ms = int(time.time() * 1000) + 86_400_000
    return [
        (js(GOOD)[:-7], "invalid_json"),
        (b"\xff\xfe\x00" + js(GOOD), "invalid_json"),
        (b"<14>Jan  5 00:00:00 r1 %SYS-5-CONFIG_I", "invalid_json"),
        (b"\x00" * 64, "invalid_json"),
        (js(GOOD) + b"}", "invalid_json"),
        (b"42", "not_an_object"),
        (b'"a flow"', "not_an_object"),
        (b"true", "not_an_object"),
        (b"[" + js(GOOD) + b", 7]", "not_an_object"),  # its other element is a good event
        (b'{"ts":' * 2_000, "too_deep"),
        (js(GOOD, flags="S" * 30_000), "too_large"),
        (js(TIMELESS), "no_time"),
        (js(GOOD, ts=None), "no_time"),
        (js(GOOD, ts="yesterday"), "bad_time"),
        (js(GOOD, ts=-5), "bad_time"),
        (js(GOOD, ts=tomorrow_ms), "future"),
        (js(NAMELESS), "no_entity"),
        (js(GOOD, src=""), "no_entity"),
        (js(GOOD, bytes="many"), "bad_field"),
        (js(GOOD, src={"ip": "10.0.0.1"}), "bad_field"),
    ]


def consumed_by(status):
    return sum(partition["position"] for partition in status["partitions"].values())


def totals(samples):
    found = Counter()
    for name, _, value in samples:
        found[name.removeprefix("stream_iwae_").removesuffix("_total")] += value
    return found


def test_every_event_meets_one_fate_and_broken_ones_become_dead_letters(
    topic, publish, write_config, pin_model, read_topic, metrics, tmp_path
):
    events_topic = topic()
    good = a_day_in_the_network(5, 40)
    broken = kinds() * 50
    values, is_broken = [], []
    for number, (message, _) in enumerate(broken):
        values += [*good[number::1000], message]
        is_broken += [False] * len(good[number::1000]) + [True]
    # Tombstones and blank messages are skipped, and what comes after its window has closed is late.
    extra = [None, b"", b" \n", b"[]", *(js(GOOD, src="10.0.0.9") for _ in range(3))]
    values, is_broken = [*values, *extra], [*is_broken, *[False] * len(extra)]
    offsets = publish(events_topic, values)
    path = write_config(events_topic, events_topic, events={"max_record": "20kB"})
    pin_model(path)

    with ServiceProcess(path, tmp_path / "log", "--no-trainer") as service:
        service.wait_until(lambda status: consumed_by(status) >= len(values), 60, lambda _: None)
        found = metrics(service)
        # The metrics tell what is committed; the last records are, a commit later.
        deadline = time.monotonic() + 20
        while totals(found)["events_consumed"] < len(values) + 50 and time.monotonic() < deadline:
            found = metrics(service)
    letters = read_topic(f"{events_topic}.dead_letters")

    seen = totals(found)
    fates = [seen[f"events_{fate}"] for fate in ("aggregated", "late", "rejected", "skipped")]
    assert service.exit_code == 0
    assert seen["events_consumed"] == len(values) + 50  # an array counts by its elements
    assert sum(fates) == seen["events_consumed"]
    assert seen["events_rejected"] == len(broken)
    assert seen["events_skipped"] == 4
    assert seen["events_late"] >= 3
    reasons = {labels["reason"]: n for name, labels, n in found if n and name.endswith("events_rejected_total")}
    assert reasons == Counter(reason for _, reason in broken)

    sent = {offset: value for offset, value, bad in zip(offsets, values, is_broken, strict=True) if bad}
    expected = dict(zip(sent, (reason for _, reason in broken), strict=True))
    kept = {}
    for letter in letters:
        headers = {name: value.decode() for name, value in letter.headers}
        assert (headers["topic"], headers["partition"]) == (events_topic, "0")
        assert headers["detail"]
        kept[int(headers["offset"])] = (letter.value, headers["reason"])
    assert len(letters) == len(kept)
    assert kept == {offset: (value, expected[offset]) for offset, value in sent.items()}


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
def test_kcat_sends_broken_lines_and_reads_alerts_and_dead_letters(
    topic, publish, kafka, write_config, pin_model, tmp_path
):
    events_topic = topic()
    broken = [b"not json", b'{"ts": 12', b'"text"', js(TIMELESS)]
    (tmp_path / "lines").write_bytes(b"\n".join(broken) + b"\n")
    kcat = ["kcat", "-b", kafka.bootstrap_servers]
    subprocess.run([*kcat, "-P", "-t", events_topic, "-l", str(tmp_path / "lines")], check=True, timeout=30)
    good = a_day_in_the_network(6, 9)
    publish(events_topic, good)
    path = write_config(events_topic, events_topic)
    pin_model(path)
    with ServiceProcess(path, tmp_path / "log", "--no-trainer") as service:
        n_all = len(broken) + len(good)
        service.wait_until(lambda status: consumed_by(status) >= n_all, 60, lambda _: None)

    def read(name, layout):
        command = [*kcat, "-C", "-t", f"{events_topic}.{name}", "-o", "beginning", "-e", "-q", "-f", layout]
        return subprocess.run(command, check=True, timeout=30, capture_output=True).stdout.splitlines()

    letters = [line.split(b"|", 1) for line in read("dead_letters", "%h|%s\n")]
    assert [value for _, value in letters] == broken
    assert all(f"offset={number}".encode() in headers.split(b",") for number, (headers, _) in enumerate(letters))
    assert all(headers.startswith(b"reason=") for headers, _ in letters)
    alerts = [json.loads(line) for line in read("alerts", "%s\n")]
    assert [alert["entity"] for alert in alerts if alert["status"] == "open"]
