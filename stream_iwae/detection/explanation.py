"""Explanations of rows -> findings: the features behind a verdict, for people."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stream_iwae.batches import Direction, Explanations, FeatureBatch, FeatureSchema, Finding, Kind

ABOVE, BELOW, UNUSUAL = "above", "below", "unusual"

_WITHOUT_SIDES = frozenset({Kind.CATEGORY, Kind.CYCLIC})
_VOLUMES = frozenset({Kind.MAGNITUDE, Kind.COUNT})  # kinds whose low side means "too quiet"


def findings_of_rows(
    features: FeatureBatch,
    rows: NDArray[np.int64],
    explanations: Explanations,
    is_low: NDArray[np.bool_],
    top: int,
) -> dict[int, tuple[Finding, ...]]:
    """The `top` features of each row that add most to its score.

    Args:
        features: The batch that the rows belong to.
        rows: Shape (R,), row numbers in `features`; row r of `explanations` explains `rows[r]`.
        explanations: Of those rows.
        is_low: Shape (R,), rows that are too ordinary: there the features that are most so come first.
        top: How many features a row gets at most.

    Returns:
        Row number in `features` -> findings, largest contribution first; at least one a row. Further
        ones add to the score: a feature that makes the row more ordinary explains nothing.
    """
    return {
        int(row): tuple(_finding(features, int(row), explanations, r, j) for j in _largest(contributions, top))
        for r, (row, contributions) in enumerate(
            zip(rows, np.where(is_low[:, None], -1, 1) * explanations.contributions, strict=True)
        )
    }


def direction_of(findings: Sequence[Finding], schema: FeatureSchema) -> Direction:
    """The side on which a window that has events is anomalous.

    High where the leading feature is above what was expected; low where all that have a side
    are volumes below it; else unusual.
    """
    if findings and findings[0].direction == ABOVE:
        return Direction.HIGH
    kinds = dict(zip(schema.names, schema.kinds, strict=True))
    sided = [finding for finding in findings if finding.direction != UNUSUAL]
    if sided and all(finding.direction == BELOW and kinds[finding.name] in _VOLUMES for finding in sided):
        return Direction.LOW
    return Direction.UNUSUAL


def silence_finding(n_events: int) -> Finding:
    """What is found at a source gone quiet as a whole, which no model has judged."""
    return Finding(
        name="n_events",
        value=float(n_events),
        expected=None,
        expected_low=None,
        expected_high=None,
        contribution=0.0,
        direction=BELOW,
        unit="events",
        imputed=False,
    )


def _largest(contributions: NDArray[np.float64], top: int) -> list[int]:
    """Column numbers of the largest contributions; masked features (NaN) last."""
    order = np.argsort(-contributions, kind="stable")  # NaN sorts last
    first, *others = order[:top].tolist()
    return [first, *(j for j in others if contributions[j] > 0)]


def _finding(features: FeatureBatch, row: int, explanations: Explanations, r: int, j: int) -> Finding:
    kind = features.schema.kinds[j]
    value = float(features.values[row, j])
    low, high = float(explanations.expected_low[r, j]), float(explanations.expected_high[r, j])
    expected = float(explanations.expected[r, j])
    contribution = float(explanations.contributions[r, j])
    is_category = kind is Kind.CATEGORY
    return Finding(
        name=features.schema.names[j],
        value=_text(value, features.labels) if is_category else _number(value),
        expected=_text(expected, explanations.labels) if is_category else _number(expected),
        expected_low=None if is_category else _number(low),
        expected_high=None if is_category else _number(high),
        contribution=contribution if np.isfinite(contribution) else 0.0,
        direction=_side(value, low, high) if kind not in _WITHOUT_SIDES else UNUSUAL,
        unit=features.schema.units[j],
        imputed=bool(np.isnan(value)),
    )


def _side(value: float, low: float, high: float) -> str:
    """Where the value lies; inside the interval it is the company of the others that is unusual."""
    if value > high:
        return ABOVE
    return BELOW if value < low else UNUSUAL  # NaN compares False


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _text(code: float, labels: Mapping[int, str]) -> str | None:
    """The text of a category's CRC-32, or the code itself where nobody knows the text any more."""
    if not np.isfinite(code):
        return None
    return labels.get(int(code), f"#{int(code):08x}")
