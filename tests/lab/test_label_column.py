"""What a label column is taken to mean."""

import polars as pl
import pytest

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.label_column import read_labels


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 0], [False, True, False]),
        ([0.0, 1.0, 3.0], [False, True, True]),
        (["0", "1", ""], [False, True, False]),
        ([True, False], [True, False]),
        (["False", "True"], [False, True]),
        (["no", "Yes"], [False, True]),
        (["normal.", "smurf."], [False, True]),
        (["BENIGN", "DoS Hulk", " benign "], [False, True, False]),
        (["", "Exploits", None], [False, True, False]),
        (["-", "neptune"], [False, True]),
    ],
)
def test_what_is_normal_without_being_told(values, expected):
    assert read_labels(pl.Series("label", values, strict=False)).is_anomaly.tolist() == expected


@pytest.mark.parametrize(("normal", "expected"), [("ok", [False, True, True]), ("OK, fine", [False, False, True])])
def test_normal_values_can_be_named(normal, expected):
    assert read_labels(pl.Series("state", ["ok", "fine", "bad"]), normal).is_anomaly.tolist() == expected


@pytest.mark.parametrize("values", [["a", "b"], [-1, 1], [1, 2, 3]])
def test_what_cannot_be_told_is_asked_for(values):
    with pytest.raises(ConfigurationError, match="--normal-label VALUE"):
        read_labels(pl.Series("class", values))


def test_a_normal_value_that_no_row_has_is_refused_with_those_there_are():
    with pytest.raises(ConfigurationError, match=r"no row has it; .*benign \(2\)"):
        read_labels(pl.Series("class", ["benign", "dos", "benign"]), "good")


@pytest.mark.parametrize(("values", "word"), [(["benign"] * 3, "normal"), ([1, 1], "an anomaly"), ([0, 0], "normal")])
def test_labels_that_are_all_alike_are_refused(values, word):
    with pytest.raises(ConfigurationError, match=f"every row is {word}|--normal-label"):
        read_labels(pl.Series("class", values))


def test_people_are_told_how_it_was_understood():
    told = read_labels(pl.Series("class", ["benign", "dos", "dos", "scan"])).explanation

    assert told == "label 'class': 3 of 4 rows (75.00%) are anomalies: dos (2), scan (1); normal is 'benign'"


def test_whole_numbers_are_told_without_a_fraction():
    assert "1 (2); normal is '0'" in read_labels(pl.Series("y", [0.0, 1.0, 1.0])).explanation
    assert read_labels(pl.Series("y", [0.0, 1.0, 2.0]), "0,2").is_anomaly.tolist() == [False, True, False]
