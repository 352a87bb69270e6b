import numpy as np
import polars as pl
import pytest

from stream_iwae.windows import panes
from stream_iwae.windows.aggregates import AggregateConfig
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.merging import Merged
from stream_iwae.windows.panes import Pane, Reducer

THREE_ROWS = Merged([np.array([0, 1], dtype=np.uint32), np.array([2, 1], dtype=np.uint32)], 3)


@pytest.mark.parametrize(
    ("merging", "parts", "merged"),
    [
        ("sum", ([1, 2], [3, 4]), [1, 6, 3]),
        ("sum", ([1.5, 2.0], [3.0, 4.0]), [1.5, 6.0, 3.0]),
        ("least", ([7, 2], [-3, 4]), [7, 2, -3]),
        ("least", ([None, 2.0], [3.0, None]), [None, 2.0, 3.0]),
        ("greatest", ([-7, 2], [3, 4]), [-7, 4, 3]),
        ("greatest", ([-7.0, None], [None, 4.0]), [-7.0, 4.0, None]),
        ("last", (["a", "b"], ["c", None]), ["a", None, "c"]),
        ("last_present", (["a", "b"], ["c", None]), ["a", "b", "c"]),
        ("last_present", ([None, 2.0], [3.0, 4.0]), [None, 4.0, 3.0]),
    ],
)
def test_the_rows_of_an_entity_are_merged_and_those_of_one_part_alone_stay(merging, parts, merged):
    columns = [pl.Series("x", part) for part in parts]

    found = THREE_ROWS.column(columns, merging)

    assert found.to_list() == merged
    assert (found.name, found.dtype) == ("x", columns[0].dtype)


def test_squares_are_taken_about_the_mean_of_all_and_not_of_each_part():
    first, second = np.array([1.0, 5.0, 6.0]), np.array([20.0, 22.0])  # of the entity in both parts
    parts = [(np.array([4.0, 4.0]), first), (np.array([9.0]), second)]
    squares, totals, n = (
        [pl.Series("x", [f(values) for values in part]) for part in parts]
        for f in (lambda v: float(((v - v.mean()) ** 2).sum()), lambda v: float(v.sum()), len)
    )

    found = THREE_ROWS.squares(squares, totals, n)

    both = np.concatenate([first, second])
    assert found.to_list() == pytest.approx([0.0, ((both - both.mean()) ** 2).sum(), 0.0])


def test_an_entity_without_values_has_no_squares():
    nothing = [pl.Series("x", [0.0, 0.0])] * 2

    assert THREE_ROWS.squares(nothing, nothing, [pl.Series("x", [0, 0])] * 2).to_list() == [0.0, 0.0, 0.0]


def test_what_a_pane_holds_of_entities_does_not_grow_with_the_values_they_have(monkeypatch):
    """Counts of values are added up seldom, as they are many; the rows of entities must not wait for that."""
    monkeypatch.setattr(panes, "CHUNK_ROWS", 20)
    distinct = AggregateConfig.model_validate({"name": "values", "aggregate": "distinct", "field": "x"})
    reducer = Reducer(WindowsConfig(), [distinct])
    pane, n = Pane(0, 0, 0), 4_000
    rows = {
        "entity": [f"h{i % 20}" for i in range(n)],
        "source": [""] * n,
        "offset": range(n),
        "x": map(float, range(n)),
    }

    reducer.hold(pane, pl.DataFrame(rows))

    assert sum(partial.scalars.height for partial in pane.partials) <= 2 * 20
    assert reducer.by_partials(60_000, [pane])["values"].to_list() == [n / 20] * 20
