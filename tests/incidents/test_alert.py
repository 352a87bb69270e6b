import json

import jsonschema
import pytest

from stream_iwae.batches import Finding
from stream_iwae.incidents.alert import CloseReason, rfc3339
from stream_iwae.incidents.confidence import confidence
from stream_iwae.incidents.reason import closing_text, entity_text, reason_text

PORTS = Finding("dst_ports", 812.0, 3.0, 1.0, 9.0, 7.5, "above", "", False)
PROTOCOL = Finding("protocol", "gre", "tcp", None, None, 3.0, "unusual", "", False)
BYTES = Finding("bytes", 1_234_567.8, 0.123456, 0.0, 2e20, 2.0, "unusual", "B", False)
MISSING = Finding("ttl", None, 64.0, 60.0, 64.0, 0.0, "unusual", "", True)
QUIET = Finding("n_events", 0.0, None, None, None, 0.0, "below", "events", False)


@pytest.fixture
def an_alert(driver, row):
    """The message of one anomalous window, as a consumer reads it."""

    def of(*args, **columns):
        (alert,) = driver.track(row(*args, **columns), now_ms=1_700_000_000_123)
        return json.loads(alert.encode())

    return of


def test_an_alert_names_all_that_people_need(an_alert):
    alert = an_alert("m", minute=5, entity="192.0.2.7", offset=42)

    assert alert | {"alert_id": "", "incident_id": "", "group_id": ""} == {
        "schema_version": 1,
        "alert_id": "",
        "incident_id": "",
        "group_id": "",
        "status": "open",
        "detector": "flows",
        "tenant": None,
        "entity": {"src": "192.0.2.7"},
        "window_start": "1970-01-01T00:05:00.000Z",
        "window_end": "1970-01-01T00:06:00.000Z",
        "detected_at": "2023-11-14T22:13:20.123Z",
        "started_at": "1970-01-01T00:05:00.000Z",
        "ended_at": None,
        "score": pytest.approx(9.9034876),
        "p_value": 5e-5,
        "threshold": pytest.approx(6.9077553),
        "extrapolated": False,
        "direction": "high",
        "severity": "major",
        "confidence": pytest.approx(0.656, abs=1e-3),
        "features": [
            {
                "name": "dst_ports",
                "value": 812.0,
                "expected": 3.0,
                "expected_low": 1.0,
                "expected_high": 9.0,
                "contribution": 7.5,
                "direction": "above",
                "unit": "",
                "imputed": False,
            }
        ],
        "imputed_share": 0.5,
        "reason": "192.0.2.7 in 1m: dst_ports 812, expected about 3 (1 to 9)",
        "close_reason": None,
        "windows": 1,
        "peak_score": pytest.approx(9.9034876),
        "model_version": "m:1",
        "origin": {"topic": "events", "partition": 0, "first_offset": 42, "last_offset": 42},
        "trace_id": None,
    }


def test_an_alert_of_an_empty_window_has_no_offsets(an_alert):
    alert = an_alert("w", is_empty=True)

    assert alert["origin"]["first_offset"] is None
    assert alert["direction"] == "low"


def test_an_alert_of_a_quiet_source_names_the_source(an_alert):
    alert = an_alert("c", entity="\x1er1", is_empty=True, silence_p=5e-6)

    assert alert["entity"] == {"source": "r1"}
    assert alert["reason"] == "source r1 has gone quiet as a whole: none of its entities sent an event in 1m"


def test_the_key_of_an_alert_is_its_entity(make_driver, row):
    (alert,) = make_driver(entity_names=("exporter", "interface")).track(row("w", entity="r1\x1f7"))

    assert alert.key == b"r1\x1f7"
    assert alert.entity == {"exporter": "r1", "interface": "7"}


def test_a_tenant_is_named_where_there_is_one(make_driver, row, load_schema):
    (alert,) = make_driver(tenant="campus").track(row("w"))

    load_schema("alert").validate(json.loads(alert.encode()))
    assert alert.tenant == "campus"


# --- schema ------------------------------------------------------------------------------------


def test_the_schema_asks_for_every_field_and_lets_new_ones_come(an_alert, load_schema):
    schema, alert = load_schema("alert"), an_alert("w")

    schema.validate(alert | {"new_field": 1})
    assert set(schema.schema["required"]) == set(alert)
    for name in alert:
        with pytest.raises(jsonschema.ValidationError):
            schema.validate({key: value for key, value in alert.items() if key != name})


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"alert_id": "x"},
        {"status": "opened"},
        {"status": "close"},
        {"severity": "none"},
        {"p_value": 0},
        {"p_value": None},
        {"window_end": "1970-01-01 00:00:00"},
        {"ended_at": "1970-01-01T00:00:00.000Z"},
        {"windows": 0},
        {"entity": {}},
        {"entity": {"src": 1}},
        {"features": [{}]},
        {"origin": {}},
    ],
)
def test_the_schema_refuses_what_no_alert_says(an_alert, load_schema, change):
    assert not load_schema("alert").is_valid(an_alert("w") | change)


def test_the_headers_of_a_dead_letter_have_a_schema(load_schema):
    headers = {"reason": "not_json", "detail": "no JSON", "topic": "t", "partition": "0", "offset": "7", "length": "3"}
    schema = load_schema("dead_letter")

    schema.validate(headers)
    schema.validate(headers | {"sha256": "0" * 64})
    assert not schema.is_valid(headers | {"offset": "-1"})
    assert not schema.is_valid(headers | {"reason": "No JSON"})


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (PORTS, "dst_ports 812, expected about 3 (1 to 9)"),
        (PROTOCOL, "protocol gre, expected tcp"),
        (BYTES, "bytes 1,234,568 B, expected about 0.123 (0 to 2e+20)"),
        (MISSING, "ttl missing, expected about 64 (60 to 64)"),
        (QUIET, "n_events 0 events"),
    ],
)
def test_a_finding_is_told_with_what_was_expected(finding, text):
    assert reason_text({"src": "a"}, [finding], 90_000, is_silence=False) == f"a in 90s: {text}"


def test_a_sentence_has_three_features_at_most():
    assert reason_text({"src": "a"}, [PORTS, PROTOCOL, MISSING, BYTES], 1, is_silence=False).count("expected") == 3


def test_a_sentence_is_one_even_without_findings():
    assert reason_text({"src": "a"}, [], 1, is_silence=False) == "a in one event is unusual"


def test_long_texts_are_cut():
    long = Finding("sni", "x" * 5_000, None, None, None, 1.0, "unusual", "", False)

    assert len(reason_text({"src": "a"}, [long], 1, is_silence=False)) < 150


def test_the_entity_past_the_bound_is_named_in_words():
    assert entity_text({"other": "entities past max_entities"}) == "the entities past max_entities"


@pytest.mark.parametrize("reason", CloseReason)
def test_every_end_has_its_words(reason):
    text = closing_text({"src": "a"}, reason, 2, "a in 60s: ports")

    assert text.startswith("a ")
    assert text.endswith("after 2 anomalous windows; last: a in 60s: ports")


def test_one_window_is_singular():
    assert "after 1 anomalous window;" in closing_text({"src": "a"}, CloseReason.STALE, 1, "")


def test_times_are_utc_with_milliseconds():
    assert rfc3339(1_767_225_600_001) == "2026-01-01T00:00:00.001Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"


def test_confidence_grows_with_windows_and_severity_and_falls_with_doubt():
    base = confidence(1, 1, 5.0, 0.1, 0.0, False)

    assert confidence(2, 1, 5.0, 0.1, 0.0, False) > base
    assert confidence(1, 2, 5.0, 0.1, 0.0, False) > base
    assert confidence(1, 1, 0.0, 0.1, 0.0, False) == pytest.approx(base / 2, abs=1e-3)
    assert confidence(1, 1, 5.0, 0.1, 0.5, False) < base
    assert confidence(1, 1, 5.0, 0.1, 0.0, True) < base
    assert confidence(1, 1, float("nan"), 0.1, 0.0, False) == base
