"""Times as files have them."""

from datetime import UTC, datetime

import polars as pl
import pytest

from stream_iwae.lab.time_column import read_times

MAY_3_MS = int(datetime(2024, 5, 3, 13, 30, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-03 13:30:00",
        "2024-05-03T13:30:00",
        "2024-05-03T13:30:00Z",
        "2024-05-03T15:30:00+02:00",
        "2024-05-03 13:30:00.000",
        "2024/05/03 13:30:00",
    ],
)
def test_a_time_in_its_usual_forms(text):
    assert read_times(pl.Series([text] * 3)).tolist() == [MAY_3_MS] * 3


@pytest.mark.parametrize("unit", [1e-3, 1, 1e3, 1e6])
def test_numbers_are_seconds_to_nanoseconds_by_their_size(unit):
    assert read_times(pl.Series([MAY_3_MS * unit])).tolist() == pytest.approx([MAY_3_MS], abs=200)


def test_small_numbers_are_seconds_since_some_beginning():
    assert read_times(pl.Series([0.0, 1.5])).tolist() == [0, 1_500]


def test_day_and_month_are_told_apart_by_what_reads_and_stays_in_order():
    in_may = pl.Series(["28/05/2024 10:00:00", "01/06/2024 10:00:00", "02/06/2024 10:00:00"])
    in_order = pl.Series(["01/05/2024 10:00", "02/05/2024 10:00", "01/06/2024 10:00", "02/06/2024 10:00"])

    for column in (in_may, in_order):
        times = read_times(column)
        assert (times[1:] > times[:-1]).all()
        assert times[-1] - times[0] < 40 * 86_400_000


def test_a_missing_time_is_that_of_the_row_before():
    assert read_times(pl.Series(["2024-05-03 13:30:00", None, "2024-05-03 13:31:00"])).tolist() == [
        *(MAY_3_MS, MAY_3_MS, MAY_3_MS + 60_000),
    ]


@pytest.mark.parametrize("values", [["tcp", "udp"], ["1.2.3.4", "5.6.7.8"], [None, None]])
def test_what_is_no_time_is_none(values):
    assert read_times(pl.Series(values, dtype=pl.String)) is None
