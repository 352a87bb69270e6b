import itertools

import numpy as np
import pytest

from stream_iwae.lab.flows import FLAGS, TCP, UDP
from stream_iwae.lab.scenarios import APART_MS, paced
from stream_iwae.lab.simulate import HOUR_MS, Simulation
from stream_iwae.lab.traffic import MINUTE_MS

ATTACKS = {
    *("vertical_scan", "horizontal_scan", "syn_flood", "slow_exfiltration"),
    *("beaconing", "dns_tunnel", "password_guessing", "silent_exporter"),
}
HARMLESS = {"flash_crowd", "nightly_backup", "new_host"}
SYN = FLAGS.index("....S.")


@pytest.fixture(scope="module")
def simulation():
    return Simulation(seed=1, n_hosts=60, history_ms=2 * HOUR_MS)


@pytest.fixture(scope="module")
def scenarios(simulation):
    """By kind."""
    return {scenario.truth.kind: scenario for scenario in simulation._scenarios}


@pytest.fixture(scope="module")
def live(simulation):
    """All live events."""
    return list(simulation.events("live"))


@pytest.mark.parametrize("seed", range(1, 6))
class TestTheSchedule:
    @pytest.fixture
    def truth(self, seed):
        return Simulation(seed=seed).truth()

    def test_every_scenario_happens_once(self, truth):
        assert {one.kind for one in truth if not one.benign} == ATTACKS
        assert {one.kind for one in truth if one.benign} == HARMLESS
        assert len(truth) == 11

    def test_scenarios_are_told_in_order_of_time_and_lie_in_the_live_part(self, seed, truth):
        simulation = Simulation(seed=seed)

        assert truth == sorted(truth, key=lambda one: one.start_ms)
        assert all(simulation.live_start_ms < one.start_ms < one.end_ms <= simulation.end_ms for one in truth)

    def test_scenarios_of_the_same_entity_are_far_apart(self, truth):
        for one, other in itertools.combinations(truth, 2):
            if one.concerned & other.concerned:
                first, second = sorted((one, other), key=lambda each: each.start_ms)
                assert second.start_ms - first.end_ms >= APART_MS >= 10 * MINUTE_MS


class TestIntervals:
    def test_a_scenario_adds_flows_from_its_first_moment_to_its_last_and_never_outside(self, scenarios):
        for kind in ATTACKS - {"silent_exporter"} | {"flash_crowd"}:
            truth, ts = scenarios[kind].truth, scenarios[kind].added.ts
            assert truth.start_ms <= ts.min() < truth.start_ms + MINUTE_MS, kind
            assert truth.end_ms - MINUTE_MS < ts.max() < truth.end_ms, kind

    def test_what_a_scenario_adds_is_in_the_stream(self, simulation, scenarios, live):
        stream = {(e.ts, e.src, e.dst, e.src_port, e.dst_port, e.bytes) for e in live}
        addresses = simulation.network.addresses
        for scenario in scenarios.values():
            added = scenario.added
            columns = (added.ts, addresses[added.src], addresses[added.dst], added.src_port, added.dst_port)
            rows = set(zip(*(column.tolist() for column in (*columns, added.n_bytes)), strict=True))
            assert rows <= stream

    def test_a_live_part_too_short_for_a_scenario_goes_without_it(self):
        truth = Simulation(seed=1, n_hosts=40, history_ms=0, live_ms=HOUR_MS).truth()

        assert "vertical_scan" in {one.kind for one in truth}
        assert "beaconing" not in {one.kind for one in truth}


class TestAttacks:
    @pytest.fixture
    def by_attacker(self, simulation, scenarios):
        """Call with a kind: the flows that the attacker sends, and how many minutes it goes on."""

        def flows_of(kind):
            truth, flows = scenarios[kind].truth, scenarios[kind].added
            [attacker] = truth.entities
            is_sender = simulation.network.addresses[flows.src] == attacker
            return flows.take(is_sender), (truth.end_ms - truth.start_ms) / MINUTE_MS

        return flows_of

    def test_a_vertical_scan_asks_one_server_for_each_port_once(self, by_attacker):
        flows, minutes = by_attacker("vertical_scan")

        assert len(np.unique(flows.dst)) == 1
        assert len(np.unique(flows.dst_port)) == len(flows)
        assert 2.5 * 60 < len(flows) / minutes < 9 * 60
        assert (flows.packets <= 3).all()

    def test_a_horizontal_scan_asks_each_address_once_for_one_port(self, by_attacker):
        flows, minutes = by_attacker("horizontal_scan")

        assert len(np.unique(flows.dst)) == len(flows)
        assert len(np.unique(flows.dst_port)) == 1
        assert 50 < len(flows) / minutes < 250

    def test_a_syn_flood_never_completes_a_handshake(self, by_attacker):
        flows, minutes = by_attacker("syn_flood")

        assert (flows.flags == SYN).all()
        assert (flows.packets == 1).all()
        assert 14 * 60 < len(flows) / minutes < 41 * 60

    def test_slow_exfiltration_is_no_faster_than_a_video_call(self, by_attacker):
        flows, minutes = by_attacker("slow_exfiltration")

        assert 7e6 < flows.n_bytes.sum() / minutes < 20e6
        assert len(np.unique(flows.dst)) == 1

    def test_beacons_have_one_size_and_a_jittered_period(self, by_attacker):
        flows, _ = by_attacker("beaconing")
        gaps_s = np.diff(np.sort(flows.ts)) / 1000

        assert len(np.unique(flows.n_bytes)) == 1
        assert 1.5 < gaps_s.min() < gaps_s.max() < 5
        assert 0.01 < gaps_s.std() / gaps_s.mean() < 0.2

    def test_a_dns_tunnel_asks_often_with_long_names_and_the_name_server_passes_them_on(self, by_attacker, scenarios):
        flows, minutes = by_attacker("dns_tunnel")
        added = scenarios["dns_tunnel"].added

        assert (flows.proto == UDP).all()
        assert (flows.dst_port == 53).all()
        assert flows.n_bytes.mean() > 200
        assert 100 < len(flows) / minutes < 400
        assert len(added) == 4 * len(flows)  # question and answer, twice

    def test_password_guessing_is_whole_connections_to_one_port(self, by_attacker):
        flows, minutes = by_attacker("password_guessing")

        assert (flows.proto == TCP).all()
        assert set(flows.dst_port.tolist()) == {22}
        assert (flows.packets > 5).all()
        assert 110 < len(flows) / minutes < 290

    def test_a_silent_exporter_reports_nothing_and_the_others_go_on(self, scenarios, live):
        truth = scenarios["silent_exporter"].truth
        silent = truth.entities[0]
        within = [e.exporter for e in live if truth.start_ms <= e.ts < truth.end_ms]
        before = [e.exporter for e in live if truth.start_ms - HOUR_MS <= e.ts < truth.start_ms]

        assert silent in before
        assert silent not in within
        assert len(set(within)) == 2


class TestHarmless:
    def test_a_flash_crowd_brings_several_times_the_usual_visits(self, scenarios, live):
        truth = scenarios["flash_crowd"].truth
        [server] = truth.entities

        def visits(start_ms, end_ms):
            inside = [e for e in live if e.dst == server and e.dst_port == 443 and start_ms <= e.ts < end_ms]
            return len(inside) / (end_ms - start_ms)

        crowd = visits(truth.start_ms, truth.end_ms)
        around = visits(truth.start_ms - HOUR_MS // 2, truth.start_ms)
        assert 1.8 * around < crowd < 10 * around

    def test_a_new_host_is_silent_until_it_joins(self, simulation, scenarios, live):
        truth = scenarios["new_host"].truth
        [host] = truth.entities
        times = [e.ts for e in live if host in (e.src, e.dst)]

        assert truth.start_ms <= min(times) < truth.start_ms + 5 * MINUTE_MS
        assert truth.end_ms == simulation.end_ms
        assert not any(host in (e.src, e.dst) for e in simulation.events("history"))


class TestPaced:
    def test_times_begin_at_the_start_and_stay_below_the_end(self):
        times = paced(np.random.default_rng(0), 1_000, 11_000, gap_ms=100, jitter=0.2)

        assert times[0] == 1_000
        assert times[-1] < 11_000
        assert 95 < len(times) < 105
        assert ((np.diff(times) >= 79) & (np.diff(times) <= 121)).all()
