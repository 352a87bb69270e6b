import itertools

import pytest

from stream_iwae.incidents.alert import rfc3339
from stream_iwae.lab.outcome import GRACE_MS, judge_outcome
from stream_iwae.lab.truth import ScenarioTruth

MINUTE_MS = 60_000
numbers = itertools.count(1)


def a_scenario(name="scan", benign=False, entities=("10.0.0.1",), related=(), start=10.5, end=20):
    """From minute `start` to minute `end`."""
    interval = int(start * MINUTE_MS), int(end * MINUTE_MS)
    return ScenarioTruth(name, name, benign, tuple(entities), tuple(related), *interval, "")


def an_alert(minute, entity="10.0.0.1", status="open", severity="warning", incident=None):
    """About the window that begins at this minute."""
    return {
        "incident_id": incident or f"incident-{next(numbers)}",
        "entity": entity if isinstance(entity, dict) else {"src": entity},
        "status": status,
        "severity": severity,
        "window_start": rfc3339(int(minute * MINUTE_MS)),
        "window_end": rfc3339(int((minute + 1) * MINUTE_MS)),
        "started_at": rfc3339(int(minute * MINUTE_MS)),
        "reason": "many ports",
    }


def outcome(alerts, *truth, hours=8.0):
    return judge_outcome(alerts, truth, hours)


class TestCaught:
    def test_the_delay_runs_from_the_start_to_the_end_of_the_first_alerts_window(self):
        [scan] = outcome([an_alert(13), an_alert(12)], a_scenario(start=10.5)).scenarios

        assert scan.caught
        assert scan.delay_seconds == 2.5 * 60

    def test_a_scenario_without_an_alert_is_missed(self):
        [scan] = outcome([], a_scenario()).scenarios

        assert (scan.caught, scan.delay_seconds, scan.severity) == (False, None, None)

    def test_an_alert_on_someone_else_is_no_catch(self):
        [scan] = outcome([an_alert(12, "10.0.0.9")], a_scenario()).scenarios

        assert not scan.caught

    def test_an_alert_on_a_victim_tells_of_the_scenario(self):
        result = outcome([an_alert(12, "10.0.0.9")], a_scenario(related=["10.0.0.9"]))

        assert result.scenarios[0].caught
        assert result.false_incidents == ()

    def test_an_alert_on_a_whole_source_tells_of_its_silence(self):
        [silence] = outcome([an_alert(12, {"source": "edge-1"})], a_scenario(entities=["edge-1"])).scenarios

        assert silence.caught

    @pytest.mark.parametrize(
        ("minute", "is_caught"),
        [(9, False), (10, True), (19, True), (20 + GRACE_MS / MINUTE_MS - 1, True), (20 + GRACE_MS / MINUTE_MS, False)],
    )
    def test_a_window_must_overlap_the_interval_and_its_tail(self, minute, is_caught):
        [scan] = outcome([an_alert(minute)], a_scenario(start=10.5, end=20)).scenarios

        assert scan.caught == is_caught

    def test_a_close_is_no_catch(self):
        [scan] = outcome(
            [an_alert(5, incident="a"), an_alert(12, status="close", incident="a")], a_scenario()
        ).scenarios

        assert not scan.caught

    def test_an_update_of_an_older_incident_is_a_catch_and_the_incident_stays_false(self):
        alerts = [an_alert(5, incident="a"), an_alert(12, status="update", incident="a")]

        result = outcome(alerts, a_scenario())

        assert result.scenarios[0].caught
        assert [false.incident_id for false in result.false_incidents] == ["a"]

    def test_the_severity_is_the_highest(self):
        alerts = [an_alert(12, severity="critical"), an_alert(13, severity="warning"), an_alert(14, severity="major")]

        [scan] = outcome(alerts, a_scenario()).scenarios

        assert scan.severity == "critical"


class TestFalse:
    def test_an_incident_is_counted_once_however_many_alerts_it_has(self):
        alerts = [
            an_alert(100, incident="a"),
            an_alert(105, incident="a", status="update", severity="major"),
            an_alert(110, incident="a", status="close"),
        ]

        result = outcome(alerts, a_scenario(), hours=0.5)

        [false] = result.false_incidents
        assert (false.entity, false.severity, false.started_at) == ("10.0.0.1", "major", rfc3339(100 * MINUTE_MS))
        assert result.false_alerts_per_hour == 2.0

    def test_incidents_on_an_attack_are_not_false_even_when_they_go_on_after_it(self):
        alerts = [an_alert(12, incident="a"), an_alert(90, incident="a", status="update")]

        assert outcome(alerts, a_scenario()).false_incidents == ()

    def test_an_alert_on_a_harmless_scenario_is_false_and_names_it(self):
        crowd = a_scenario("flash crowd", benign=True)

        result = outcome([an_alert(12, severity="major")], crowd)

        assert [false.benign for false in result.false_incidents] == ["flash crowd"]
        assert result.worst_benign_severity == "major"
        assert result.false_alerts_per_hour == 1 / 8

    def test_without_alerts_nothing_is_false(self):
        result = outcome([], a_scenario("new host", benign=True))

        assert (result.false_alerts_per_hour, result.worst_benign_severity) == (0, None)

    def test_simulated_time_must_pass(self):
        with pytest.raises(ValueError, match="live_hours > 0"):
            outcome([], hours=0)


class TestShare:
    def test_harmless_scenarios_do_not_count_as_caught(self):
        attacks = [a_scenario("one"), a_scenario("two", entities=["10.0.0.2"])]
        crowd = a_scenario("crowd", benign=True, entities=["10.0.0.3"])

        result = outcome([an_alert(12), an_alert(12, "10.0.0.3")], *attacks, crowd)

        assert result.caught_share == 0.5
        assert [attack.name for attack in result.attacks] == ["one", "two"]

    def test_the_order_of_alerts_does_not_matter(self):
        alerts = [an_alert(12, incident="a"), an_alert(50, incident="b"), an_alert(60, status="update", incident="b")]

        assert all(
            outcome(order, a_scenario()) == outcome(alerts, a_scenario()) for order in itertools.permutations(alerts)
        )
