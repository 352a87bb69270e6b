import hashlib
import itertools
import json
import re

import msgspec
import numpy as np
import pytest

from stream_iwae.batches import RecordBatch
from stream_iwae.errors import ConfigurationError
from stream_iwae.events.config import EventsConfig
from stream_iwae.events.decode import Decoder
from stream_iwae.lab.applications import Role
from stream_iwae.lab.flows import Flow
from stream_iwae.lab.network import EXPORTERS
from stream_iwae.lab.simulate import HOUR_MS, START_MS, Simulation
from stream_iwae.lab.traffic import MINUTE_MS
from stream_iwae.lab.truth import read_truth

EVERYTHING = ("history", "live")


def a_small_one(seed=1, **changes):
    return Simulation(**{"seed": seed, "n_hosts": 40, "history_ms": HOUR_MS, "live_ms": 2 * HOUR_MS} | changes)


def decoded(messages):
    """Pairs of (message, its events)."""
    decode = msgspec.json.Decoder(list[Flow]).decode
    return [(message, decode(message.value)) for message in messages]


def fingerprint(simulation):
    digest = hashlib.sha256()
    for part in EVERYTHING:
        for message in simulation.messages(part):
            digest.update(message.key + message.value + str(message.timestamp_ms).encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def small():
    return a_small_one()


@pytest.fixture(scope="module")
def small_messages(small):
    return {part: decoded(small.messages(part)) for part in EVERYTHING}


@pytest.fixture(scope="module")
def a_day():
    """Ordinary traffic of a Monday, as columns."""
    simulation = Simulation(seed=2, n_hosts=60, live_ms=0)
    events = list(simulation.events("history"))
    return simulation, events


class TestTheSeed:
    def test_the_same_seed_gives_the_same_bytes(self):
        one, other = (a_small_one(seed=7, live_ms=HOUR_MS) for _ in range(2))

        assert fingerprint(one) == fingerprint(other)
        assert one.truth() == other.truth()

    def test_another_seed_gives_another_network_and_other_scenarios(self, small):
        other = a_small_one(seed=2)

        assert set(other.network.addresses[: other.n_hosts]) != set(small.network.addresses[: small.n_hosts])
        assert [truth.start_ms for truth in other.truth()] != [truth.start_ms for truth in small.truth()]
        assert fingerprint(other) != fingerprint(small)

    def test_the_live_part_is_the_same_without_drawing_the_history_first(self, small_messages):
        alone = list(itertools.islice(a_small_one().messages("live"), 500))

        assert alone == [message for message, _ in small_messages["live"][:500]]


class TestMessages:
    def test_a_message_holds_the_flows_of_one_source_in_one_minute_in_order_of_time(self, small_messages):
        seen = set()
        for message, events in itertools.chain(*small_messages.values()):
            minutes = {event.ts // MINUTE_MS for event in events}
            times = [event.ts for event in events]
            assert {event.src.encode() for event in events} == {message.key}
            assert len(minutes) == 1
            assert times == sorted(times)
            assert (message.n_events, message.timestamp_ms) == (len(events), times[-1])
            seen.add((message.key, minutes.pop()))
        assert len(seen) == sum(map(len, small_messages.values()))

    def test_messages_come_in_order_of_time_and_minutes_do_not_mix(self, small_messages):
        messages = [message for message, _ in itertools.chain(*small_messages.values())]

        times = [message.timestamp_ms for message in messages]
        assert times == sorted(times)

    def test_all_times_lie_in_their_part(self, small, small_messages):
        for part, first_ms, end_ms in (
            ("history", START_MS, small.live_start_ms),
            ("live", small.live_start_ms, small.end_ms),
        ):
            times = [event.ts for _, events in small_messages[part] for event in events]
            assert first_ms <= min(times)
            assert max(times) < end_ms

    def test_the_file_holds_the_same_events_one_a_line_in_order_of_time(self, small, small_messages, tmp_path):
        n_events = small.write_ndjson(tmp_path / "events.ndjson")

        lines = (tmp_path / "events.ndjson").read_bytes().splitlines()
        events = [msgspec.json.decode(line, type=Flow) for line in lines]
        assert n_events == len(lines) == sum(m.n_events for m, _ in itertools.chain(*small_messages.values()))
        assert [event.ts for event in events] == sorted(event.ts for event in events)
        in_messages = [event for _, batch in itertools.chain(*small_messages.values()) for event in batch]
        assert sorted(map(msgspec.json.encode, events)) == sorted(map(msgspec.json.encode, in_messages))

    def test_a_part_can_be_written_alone(self, small, small_messages, tmp_path):
        n_events = small.write_ndjson(tmp_path / "live.ndjson", "live")

        assert n_events == sum(message.n_events for message, _ in small_messages["live"])

    def test_the_preset_takes_every_event(self, small_messages):
        batch = small_messages["live"][:2000]
        records = RecordBatch(
            topic="flows",
            partition=0,
            offsets=np.arange(len(batch)),
            timestamps_ms=np.array([message.timestamp_ms for message, _ in batch]),
            values=[message.value for message, _ in batch],
            next_offset=len(batch),
        )

        decoded_batch = Decoder(EventsConfig(preset="simulated")).decode(records)

        frame = decoded_batch.events.frame
        assert not decoded_batch.rejected
        assert frame["timestamp_ms"].to_list() == [event.ts for _, events in batch for event in events]
        assert frame["entity"].to_list() == [event.src for _, events in batch for event in events]
        assert frame["bytes"].to_list() == [event.bytes for _, events in batch for event in events]
        assert set(frame["source"].to_list()) <= set(EXPORTERS)

    def test_an_event_has_the_fields_of_a_flow(self, small_messages):
        [event, *_] = json.loads(small_messages["live"][0][0].value)

        wanted = "ts src dst src_port dst_port proto bytes packets duration_s flags exporter"
        assert set(event) == set(wanted.split())
        assert isinstance(event["ts"], int)
        assert event["proto"] in {"tcp", "udp", "icmp"}

    def test_no_label_is_part_of_an_event(self, small, small_messages):
        kinds = {truth.kind.encode() for truth in small.truth()}

        assert not any(kind in message.value for message, _ in small_messages["live"] for kind in kinds)


class TestTheNetwork:
    def test_every_role_is_there_and_most_hosts_are_clients(self):
        roles = Simulation(seed=1, live_ms=0, history_ms=0).network.roles

        assert set(roles) == set(Role)
        assert len(roles) == 120
        assert roles.count(Role.CLIENT) > 60

    def test_every_ordinary_host_is_heard_of_within_an_hour(self, small, small_messages):
        sources = {message.key.decode() for message, _ in small_messages["history"]}
        hosts = set(small.network.addresses[: small.n_hosts]) - {small.network.addresses[small.network.newcomer]}

        assert hosts <= sources

    def test_addresses_differ_and_are_private_or_set_aside_for_benchmarks(self, small):
        addresses = small.network.addresses.tolist()

        assert len(set(addresses)) == len(addresses)
        assert all(re.fullmatch(r"(10|198\.1[89])(\.\d+){2,3}|224\.0\.0\.251", address) for address in addresses)

    def test_a_request_is_answered_by_a_flow_the_other_way(self, a_day):
        _, events = a_day
        asked = {(e.src, e.dst, e.src_port) for e in events if e.dst_port == 443 and e.flags == ".AP.SF"}
        answered = {(e.dst, e.src, e.dst_port) for e in events if e.src_port == 443 and e.flags == ".AP.SF"}

        assert len(asked & answered) > 0.99 * len(asked)

    def test_exporters_report_the_hosts_behind_them(self, small, small_messages):
        place = {address: i for i, address in enumerate(small.network.addresses[: small.n_hosts].tolist())}
        for _, events in small_messages["history"][:5000]:
            for event in events:
                if event.src in place:
                    assert event.exporter == EXPORTERS[small.network.exporters[place[event.src]]]

    def test_a_network_too_small_for_its_roles_is_refused(self):
        with pytest.raises(ConfigurationError, match="at least 24"):
            Simulation(seed=1, n_hosts=10)

    def test_a_time_that_is_no_whole_minute_is_refused(self):
        with pytest.raises(ConfigurationError, match="whole minutes"):
            Simulation(seed=1, history_ms=90_500)


class TestOrdinaryTraffic:
    def test_bytes_have_a_heavy_tail(self, a_day):
        _, events = a_day
        sizes = np.sort([event.bytes for event in events if event.src_port == 443 and event.proto == "tcp"])

        assert sizes[-len(sizes) // 100 :].sum() > 0.5 * sizes.sum()  # a hundredth carries more than half
        logarithms = np.log(sizes)
        assert 1.2 < logarithms.std() < 2.5

    def test_clients_sleep_at_night_and_machines_do_not(self, a_day):
        simulation, events = a_day
        network = simulation.network
        clients, cameras = (set(network.names(network.hosts(role))) for role in (Role.CLIENT, Role.CAMERA))

        def per_hour(sources):
            hours = np.array([(e.ts - START_MS) // HOUR_MS for e in events if e.src in sources])
            return np.bincount(hours, minlength=24)

        by_clients, by_cameras = per_hour(clients), per_hour(cameras)
        assert by_clients.max() > 3 * by_clients.min()
        assert by_clients[6] > 2.5 * by_clients[22]  # ten o'clock there, against two at night
        assert by_cameras.max() < 1.2 * by_cameras.min()

    def test_hosts_of_a_role_differ_in_their_habits(self, a_day):
        simulation, events = a_day
        network = simulation.network
        clients = [c for c in network.hosts(Role.CLIENT).tolist() if c != network.newcomer]
        counts = dict.fromkeys(network.names(np.array(clients)), 0)
        for event in events:
            if event.src in counts:
                counts[event.src] += 1

        assert max(counts.values()) > 3 * min(counts.values()) > 0

    def test_a_minute_of_an_awake_host_has_some_ten_events(self, a_day):
        simulation, events = a_day
        minutes = 24 * 60 * simulation.n_hosts

        assert 5 < len(events) / minutes < 15

    def test_the_backup_runs_in_the_history_at_the_same_minute_of_the_day(self):
        simulation = Simulation(seed=3, n_hosts=30, live_ms=3 * HOUR_MS)
        [backup] = [truth for truth in simulation.truth() if truth.kind == "nightly_backup"]

        def large(part, shift_ms):
            return [
                event.ts
                for event in simulation.events(part)
                if event.dst_port == 9103
                and event.bytes > 2e7
                and backup.start_ms <= event.ts + shift_ms < backup.end_ms
            ]

        assert len(large("live", 0)) > 50
        assert len(large("history", 24 * HOUR_MS)) > 50


class TestTruth:
    def test_the_truth_survives_its_file(self, small, tmp_path):
        small.write_truth(tmp_path / "truth.json")

        assert read_truth(tmp_path / "truth.json") == small.truth()
