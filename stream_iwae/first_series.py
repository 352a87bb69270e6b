"""Series that /metrics shows before anything has happened: at 0, so that a rate sees the first increase."""

from typing import Final

from stream_iwae.events.config import EventsConfig
from stream_iwae.events.rejections import RejectReason
from stream_iwae.ports import Telemetry

_SEVERITIES: Final = ("warning", "major", "critical")
_COMMITS: Final = ("committed", "stale", "ambiguous", "fenced", "failed")
_RUNS: Final = ("promoted", "rejected", "failed", "skipped")


def show_service_series(telemetry: Telemetry, topic: str, events: EventsConfig) -> None:
    """Make the labelled counters of the service appear."""
    for name in ("events_consumed", "bytes_consumed", "events_aggregated", "events_late"):
        telemetry.count(name, 0, topic=topic)
    for name in ("consumer_gap_records", "consumer_oversized_records", "consumer_stalls"):
        telemetry.count(name, 0, topic=topic)
    _show_fates(telemetry, topic, events)
    for severity in _SEVERITIES:
        telemetry.count("anomalies", 0, severity=severity)
        telemetry.count("alerts_published", 0, severity=severity)


def show_rekeyer_series(telemetry: Telemetry, topic: str, events: EventsConfig) -> None:
    """Make the labelled counters of the re-keyer appear."""
    fates = ("events_consumed", "bytes_consumed", "events_forwarded")
    for name in (*fates, "consumer_gap_records", "consumer_oversized_records"):
        telemetry.count(name, 0, topic=topic)
    _show_fates(telemetry, topic, events)


def show_trainer_series(telemetry: Telemetry) -> None:
    """Make the labelled counters of the trainer appear."""
    for outcome in _RUNS:
        telemetry.count("finetune_runs", 0, outcome=outcome)
    for reason in ("damaged", "schema"):
        telemetry.count("training_records_skipped", 0, reason=reason)


def _show_fates(telemetry: Telemetry, topic: str, events: EventsConfig) -> None:
    for reject in RejectReason:
        telemetry.count("events_rejected", 0, topic=topic, reason=reject)
    is_counting = any(field.counter == "cumulative" for field in events.fields.values())
    counting = {"first_sample", "out_of_order", "too_many_series"} if is_counting else set()
    for skip in sorted({"empty", *(rule.reason for rule in events.skip), *counting}):
        telemetry.count("events_skipped", 0, topic=topic, reason=skip)
    for outcome in _COMMITS:
        telemetry.count("consumer_commits", 0, outcome=outcome)
