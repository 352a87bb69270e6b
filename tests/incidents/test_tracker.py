import json

import msgspec
import pytest
from pydantic import ValidationError

from stream_iwae.batches import OTHER_ENTITY
from stream_iwae.incidents.config import IncidentsConfig

MINUTE = 60_000


def test_ordinary_windows_tell_nothing_and_leave_no_state(driver):
    assert driver.minutes("..-u.") == []
    assert len(driver.tracker.state) == 0


def test_an_empty_batch_changes_nothing(driver):
    assert driver.track() == []


def test_the_first_anomalous_window_opens_an_incident(driver, summary):
    driver.minutes("..m")

    assert summary(driver.alerts) == [("open", 3, "major")]
    assert driver.tracker.is_open("a")
    assert not driver.tracker.is_open("b")
    assert driver.tracker.open_by_severity() == {"warning": 0, "major": 1, "critical": 0}


def test_an_incident_is_told_again_at_most_once_an_interval(driver, summary):
    driver.minutes("w" * 25)

    assert summary(driver.alerts) == [("open", 1, "warning"), ("update", 11, "warning"), ("update", 21, "warning")]
    assert [alert.windows for alert in driver.alerts] == [1, 11, 21]


def test_a_rising_severity_is_told_at_once_and_never_falls(driver, summary):
    driver.minutes("wmwcw")

    assert summary(driver.alerts) == [("open", 1, "warning"), ("update", 2, "major"), ("update", 4, "critical")]
    assert driver.tracker.open_by_severity()["critical"] == 1


def test_quiet_windows_close_it_as_recovered(driver, summary):
    driver.minutes("wm...")

    closing = driver.alerts[-1]
    assert summary(driver.alerts)[-1] == ("close", 2, "major")
    assert closing.close_reason == "recovered"
    assert closing.ended_at == closing.window_end == "1970-01-01T00:02:00.000Z"
    assert closing.windows == 2
    assert not driver.tracker.is_open("a")
    assert len(driver.tracker.state) == 0


@pytest.mark.parametrize("kinds", ["w..w..", "w..-..", "w..u", "w.-.-.-"])
def test_only_consecutive_quiet_windows_count(driver, kinds):
    driver.minutes(kinds)

    assert driver.tracker.is_open("a")


def test_an_unscorable_window_is_neither_quiet_nor_anomalous(driver, summary):
    driver.minutes("w.u.u.")

    assert summary(driver.alerts) == [("open", 1, "warning"), ("close", 1, "warning")]


def test_a_window_between_exit_and_entry_keeps_an_incident_open_but_opens_none(driver):
    driver.minutes("-" * 5)
    assert driver.alerts == []

    driver.minutes("w" + "-" * 5, first=5)
    assert driver.tracker.is_open("a")


def test_an_exit_factor_of_one_takes_every_ordinary_window_as_quiet(make_driver):
    driver = make_driver(exit_factor=1.0)
    driver.minutes("w---")

    assert driver.alerts[-1].close_reason == "recovered"


def test_after_a_close_another_incident_opens(driver):
    driver.minutes("w...w")

    first, _, second = driver.alerts
    assert (first.status, second.status) == ("open", "open")
    assert first.incident_id != second.incident_id


def test_without_data_it_grows_stale_by_the_watermark(driver, summary):
    driver.minutes("w.")  # the last window ends at minute 2

    assert driver.expire(61) == []
    assert driver.tracker.is_open("a")
    driver.expire(62)
    assert summary(driver.alerts)[-1] == ("close", 1, "warning")
    assert driver.alerts[-1].close_reason == "stale"
    assert driver.expire(63) == []


def test_windows_of_others_let_it_grow_stale_too(driver, row):
    driver.track(row("w"), row("w", minute=200), row("w", minute=200, entity="b"))

    assert [(alert.status, alert.entity["src"]) for alert in driver.alerts] == [
        ("open", "a"),
        ("close", "a"),
        ("open", "a"),
        ("open", "b"),
    ]


def test_unscorable_windows_do_not_keep_it_from_growing_stale(driver):
    driver.minutes("w" + "u" * 61)

    assert driver.alerts[-1].close_reason == "stale"


def test_entities_have_incidents_of_their_own(driver, row):
    driver.track(row("w", entity="a"), row(".", entity="b"), row("m", entity="c"))

    assert [alert.entity["src"] for alert in driver.alerts] == ["a", "c"]
    assert driver.tracker.open_by_severity() == {"warning": 1, "major": 1, "critical": 0}


def test_incidents_that_open_in_the_same_window_share_a_group(driver, row):
    driver.track(row("w", entity="a"), row("w", entity="b"), row("w", minute=1, entity="c"))

    a, b, c = driver.alerts
    assert a.group_id == b.group_id != c.group_id


def test_one_extrapolated_window_is_major_at_most_until_a_second_agrees(driver, summary):
    driver.minutes("cwc", is_extrapolated=True)

    assert summary(driver.alerts) == [("open", 1, "major"), ("update", 3, "critical")]


def test_several_anomalous_windows_may_be_asked_for(make_driver, summary):
    driver = make_driver(min_windows=2, of_windows=3)
    driver.minutes("w..w.m")

    assert summary(driver.alerts) == [("open", 6, "major")]
    assert driver.alerts[0].started_at == "1970-01-01T00:03:00.000Z"
    assert driver.alerts[0].windows == 2


def test_a_suspicion_that_is_not_confirmed_is_forgotten(make_driver):
    driver = make_driver(min_windows=2, of_windows=3)
    driver.minutes("w")
    assert len(driver.tracker.state) == 1
    assert not driver.tracker.is_open("a")
    assert driver.tracker.open_by_severity() == {"warning": 0, "major": 0, "critical": 0}

    driver.minutes("...", first=1)
    assert len(driver.tracker.state) == 0

    driver.minutes("w", first=4)
    assert driver.expire(100) == []
    assert len(driver.tracker.state) == 0


def test_past_the_bound_the_oldest_tenth_is_evicted(make_driver, row):
    driver = make_driver(max_open=20)
    for minute in range(21):
        driver.track(row("w", minute=minute, entity=f"e{minute:02}"))

    evicted = [alert.entity["src"] for alert in driver.alerts if alert.close_reason == "evicted"]
    assert evicted == ["e00", "e01"]
    assert len(driver.tracker.state) == 19


# --- identity ----------------------------------------------------------------------------------


def test_a_replay_gives_the_same_alerts_but_for_the_wall_clock(make_driver, row):
    rows = [row(kind, minute) for minute, kind in enumerate("wm.c...w")]
    first = make_driver().track(*rows, now_ms=1)
    again = make_driver().track(*rows, now_ms=2)

    assert [alert.detected_at for alert in first] != [alert.detected_at for alert in again]
    strip = {"detected_at": ""}
    assert [msgspec.structs.replace(a, **strip) for a in first] == [msgspec.structs.replace(a, **strip) for a in again]


def test_all_alerts_of_an_incident_share_its_id_and_have_their_own(driver):
    driver.minutes("wmc...")

    assert len({alert.incident_id for alert in driver.alerts}) == 1
    assert len({alert.alert_id for alert in driver.alerts}) == len(driver.alerts) == 4


def test_detectors_entities_and_times_have_incident_ids_of_their_own(make_driver, row):
    alerts = make_driver().track(row("w"), row("w", entity="b")) + make_driver().track(row("w", minute=1))

    assert len({alert.incident_id for alert in alerts}) == 3


@pytest.mark.parametrize(("entity", "is_shared"), [("a", True), (OTHER_ENTITY, False), ("\x1er1", False)])
def test_only_entities_that_may_live_in_several_partitions_take_its_number_into_their_id(
    make_driver, row, entity, is_shared
):
    (here,) = make_driver(partition=0).track(row("w", entity=entity))
    (there,) = make_driver(partition=1).track(row("w", entity=entity))

    assert (here.incident_id == there.incident_id) is is_shared
    assert here.group_id != there.group_id


def test_single_events_of_the_same_time_have_ids_of_their_own(make_driver, row):
    driver = make_driver(quiet_windows=1)
    driver.track(*(row(kind, offset=offset, time_ms=5) for offset, kind in enumerate("w.wmc.")))

    assert [alert.status for alert in driver.alerts] == ["open", "close", "open", "update", "update", "close"]
    assert len({alert.alert_id for alert in driver.alerts}) == 6
    assert len({alert.incident_id for alert in driver.alerts}) == 2


def test_single_events_of_one_record_have_ids_of_their_own(driver, row):
    driver.track(*(row(kind, offset=7, time_ms=5) for kind in "wmc"))

    assert len({alert.alert_id for alert in driver.alerts}) == 3


# --- state -------------------------------------------------------------------------------------


def test_a_restart_opens_nothing_twice_and_goes_on(make_driver):
    undisturbed, before, after = make_driver(), make_driver(), make_driver()
    kinds = "wm.c..m...w"
    undisturbed.minutes(kinds)

    before.minutes(kinds[:5])
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(before.tracker.state.snapshot()))
    after.tracker.state.restore(stored)
    after.minutes(kinds[5:], first=5)

    assert before.alerts + after.alerts == undisturbed.alerts


def test_changes_of_the_state_rebuild_it(make_driver):
    driver = make_driver()
    rebuilt = {}
    for minute, kind in enumerate("wm...w.m"):
        driver.minutes(kind, first=minute)
        for entity, value in driver.tracker.state.take_changes().items():
            rebuilt.pop(entity, None)
            if value is not None:
                rebuilt[entity] = value

    assert rebuilt == driver.tracker.state.snapshot() != {}


def test_the_state_is_small(make_driver):
    driver = make_driver()
    driver.minutes("w")

    assert len(json.dumps(driver.tracker.state.snapshot())) < 2_500


# --- configuration -----------------------------------------------------------------------------


def test_durations_carry_their_unit():
    assert IncidentsConfig(update_interval="5m", stale_after="2h").stale_after == 7_200_000
    with pytest.raises(ValidationError, match="update_interval"):
        IncidentsConfig(update_interval=300)


def test_more_anomalous_windows_than_windows_are_refused():
    with pytest.raises(ValidationError, match="min_windows 3"):
        IncidentsConfig(min_windows=3, of_windows=2)
