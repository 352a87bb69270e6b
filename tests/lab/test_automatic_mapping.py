"""What a column is taken for."""

import numpy as np
import polars as pl
import pytest

from stream_iwae.batches import Kind
from stream_iwae.lab.automatic_mapping import automatic_mapping, choose_columns

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("bytes", np.exp(RNG.normal(6, 3, 500)), Kind.MAGNITUDE),
        ("temperature", RNG.normal(20, 2, 500), Kind.GAUGE),
        ("signed", RNG.normal(0, 9, 500), Kind.GAUGE),
        ("share", RNG.random(500), Kind.RATIO),
        ("flag", RNG.integers(0, 2, 500), Kind.CATEGORY),
        ("Dst Port", RNG.integers(0, 60_000, 500), Kind.CATEGORY),
        ("protocol", RNG.choice([1, 6, 17], 500), Kind.CATEGORY),
        ("support", RNG.normal(20, 2, 500), Kind.GAUGE),
        ("always_zero", np.zeros(500), Kind.MAGNITUDE),
        ("service", RNG.choice(["http", "dns"], 500), Kind.CATEGORY),
    ],
)
def test_kinds_come_from_the_values(name, values, kind):
    column = pl.Series(name, values) if values.dtype.kind == "U" else pl.Series(name, values.astype(float))
    columns, notes = choose_columns(pl.DataFrame([column]))

    assert [column.kind for column in columns] == [kind]
    assert not notes


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([f"flow-{i}" for i in range(100)], "hardly a value comes twice"),
        (np.arange(100.0), "a clock or a row number"),
        (1.7e9 + np.cumsum(RNG.random(100)), "a clock or a row number"),
        ([None] * 100, "it is empty"),
    ],
)
def test_what_names_a_row_is_left_out_with_the_reason(values, words):
    columns, [note] = choose_columns(pl.DataFrame({"x": values}))

    assert not columns
    assert words in note


def test_a_number_that_never_falls_but_repeats_is_kept():
    assert len(choose_columns(pl.DataFrame({"x": np.repeat(np.arange(10.0), 10)}))[0]) == 1


def test_odd_names_make_a_configuration_that_holds():
    columns, _ = choose_columns(pl.DataFrame({"Flow Bytes/s": RNG.random(50), "flow bytes s": RNG.random(50)}))
    mapping = automatic_mapping(columns)

    assert [feature.name for feature in mapping.features.features] == ["flow_bytes_s", "flow_bytes_s_2"]
    assert mapping.windows.kind == "record"
