"""Findings -> one sentence for people."""

from collections.abc import Mapping, Sequence
from typing import Final

from stream_iwae.batches import Finding
from stream_iwae.incidents.alert import AlertFeature, CloseReason
from stream_iwae.units import format_duration

MAX_FEATURES: Final = 3  # a sentence with more is no longer read
MAX_TEXT: Final = 80  # characters of a category's text

_ENDINGS: Final = {
    CloseReason.RECOVERED: "is back to normal",
    CloseReason.STALE: "has sent nothing more to judge",
    CloseReason.EVICTED: "is no longer followed: too many incidents are open",
    CloseReason.FEEDBACK: "was dismissed by an operator",
    CloseReason.MODEL_CHANGE: "was judged by a model that has been withdrawn",
}


def entity_text(entity: Mapping[str, str]) -> str:
    """How a sentence names an entity.

    >>> entity_text({"src": "192.0.2.1"})
    '192.0.2.1'
    >>> entity_text({"exporter": "r1", "interface": "7"})
    'exporter r1, interface 7'
    """
    if set(entity) == {"source"}:
        return f"source {entity['source']}"
    if set(entity) == {"other"}:
        return "the entities past max_entities"
    if len(entity) == 1:
        return next(iter(entity.values()))
    return ", ".join(f"{name} {value}" for name, value in entity.items())


def reason_text(
    entity: Mapping[str, str],
    findings: Sequence[Finding | AlertFeature],
    duration_ms: int,
    *,
    is_silence: bool,
    is_too_regular: bool = False,
) -> str:
    """What was seen in one anomalous window and what was expected instead.

    Args:
        entity: As in the alert.
        findings: Largest first.
        duration_ms: The window's length; 1 for a single event.
        is_silence: A whole source has gone quiet.
        is_too_regular: All is as expected, and closer to it than it ever is.
    """
    span = "one event" if duration_ms == 1 else format_duration(duration_ms)
    name = entity_text(entity)
    if is_silence:
        return f"{name} has gone quiet as a whole: none of its entities sent an event in {span}"
    parts = [_finding_text(finding) for finding in findings[:MAX_FEATURES]]
    if is_too_regular:
        return f"{name} in {span} varies less than it ever does: {'; '.join(parts) or 'every feature'}"
    return f"{name} in {span}: {'; '.join(parts)}" if parts else f"{name} in {span} is unusual"


def closing_text(entity: Mapping[str, str], reason: CloseReason, windows: int, last_reason: str) -> str:
    """Why an incident ended, and what its last anomalous window was like."""
    plural = "" if windows == 1 else "s"
    return f"{entity_text(entity)} {_ENDINGS[reason]} after {windows} anomalous window{plural}; last: {last_reason}"


def _finding_text(finding: Finding | AlertFeature) -> str:
    observed = "missing" if finding.value is None else _quantity(finding.value, finding.unit)
    if finding.expected is None:
        return f"{finding.name} {observed}"
    if finding.expected_low is None or finding.expected_high is None:
        return f"{finding.name} {observed}, expected {_quantity(finding.expected, '')}"
    low, high = _quantity(finding.expected_low, ""), _quantity(finding.expected_high, "")
    return f"{finding.name} {observed}, expected about {_quantity(finding.expected, '')} ({low} to {high})"


def _quantity(value: float | str, unit: str) -> str:
    """Three significant digits, but never fewer than the whole part.

    >>> _quantity(81234.4, "B")
    '81,234 B'
    """
    if isinstance(value, str):
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}..."
    number = f"{value:,.0f}" if 999.5 <= abs(value) < 1e15 else f"{value:.3g}"
    return f"{number} {unit}" if unit else number
