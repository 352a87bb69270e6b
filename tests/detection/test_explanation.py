import numpy as np
import pytest

from stream_iwae.batches import Direction
from stream_iwae.detection.explanation import direction_of, findings_of_rows

NAN = float("nan")


@pytest.fixture
def findings(features, explainer):
    def of(row, top=5, **explained):
        batch = features(row)
        return findings_of_rows(batch, np.array([0]), explainer(**explained)(batch.values), np.array([False]), top)[0]

    return of


def test_features_come_largest_first_and_ordinary_ones_are_left_out(findings, a_row):
    assert [finding.name for finding in findings(a_row)] == ["dst_ports", "bytes", "protocol"]


def test_there_are_no_more_than_asked_for(findings, a_row):
    assert [finding.name for finding in findings(a_row, top=1)] == ["dst_ports"]


def test_there_is_one_even_where_none_adds_to_the_score(findings, a_row):
    found = findings(a_row, contributions=(-3.0, -1.0, -2.0, -4.0))

    assert [finding.name for finding in found] == ["dst_ports"]


def test_a_number_has_a_value_an_expectation_and_a_side(findings, a_row):
    ports = findings(a_row)[0]

    assert (ports.value, ports.expected, ports.expected_low, ports.expected_high) == (812.0, 3.0, 1.5, 6.0)
    assert (ports.direction, ports.contribution, ports.imputed) == ("above", 9.0, False)


@pytest.mark.parametrize(("value", "side"), [(10.0, "below"), (100.0, "unusual"), (200.0, "unusual"), (201.0, "above")])
def test_the_side_is_that_of_the_expected_interval(findings, a_row, value, side):
    found = {finding.name: finding for finding in findings([value, *a_row[1:]])}

    assert found["bytes"].direction == side
    assert found["bytes"].unit == "B"


def test_a_category_is_told_by_its_text(findings, a_row):
    protocol = {finding.name: finding for finding in findings(a_row)}["protocol"]

    assert (protocol.value, protocol.expected, protocol.direction) == ("tcp", "udp", "unusual")
    assert protocol.expected_low is None


def test_a_category_whose_text_is_unknown_is_told_by_its_code(findings, a_row):
    protocol = {finding.name: finding for finding in findings([*a_row[:2], 0xBEEF, 0.5])}["protocol"]

    assert protocol.value == "#0000beef"


def test_a_missing_value_is_imputed_and_comes_last(findings, a_row):
    found = findings([NAN, *a_row[1:]], contributions=(NAN, NAN, NAN, NAN))

    assert [(finding.name, finding.value, finding.imputed, finding.contribution) for finding in found] == [
        ("bytes", None, True, 0.0)
    ]
    assert "bytes" not in {f.name for f in findings([NAN, *a_row[1:]], contributions=(NAN, 9.0, 1.0, 1.0))}


@pytest.mark.parametrize(
    ("row", "contributions", "direction"),
    [
        ((100.0, 812.0), (1.0, 9.0, -1.0, -1.0), Direction.HIGH),
        ((5.0, 0.0), (1.0, 9.0, -1.0, -1.0), Direction.LOW),
        ((5.0, 812.0), (9.0, 1.0, -1.0, -1.0), Direction.UNUSUAL),
        ((100.0, 3.0), (1.0, 1.0, 9.0, -1.0), Direction.UNUSUAL),
    ],
)
def test_the_leading_features_give_the_direction(findings, features, row, contributions, direction):
    batch = features([*row, 0.0, 0.5])

    assert direction_of(findings(batch.values[0], contributions=contributions), batch.schema) == direction
