"""Files as people have them: quoted, padded, semicolons, gaps, infinities."""

import gzip

import polars as pl
import pytest

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.table_file import find_column, is_table_file, read_table, safe_names


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_names_and_texts_are_stripped_and_numbers_are_numbers(tmp_path):
    frame = read_table(written(tmp_path / "a.csv", '"Flow ID", Bytes ," Proto"\n1, 10 , tcp \n2,20,"udp"\n'))

    assert frame.columns == ["Flow ID", "Bytes", "Proto"]
    assert frame.rows() == [(1.0, 10.0, "tcp"), (2.0, 20.0, "udp")]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path, separator):
    frame = read_table(written(tmp_path / "a.csv", f"a{separator}b\n1{separator}2\n"))

    assert frame.rows() == [(1.0, 2.0)]


def test_what_is_missing_or_infinite_in_a_column_of_numbers_is_null(tmp_path):
    values = ["1", "", "NaN", "Infinity", "-inf", "?", "NA", "null", *map(str, range(30))]
    frame = read_table(written(tmp_path / "a.csv", "x,y\n" + "".join(f"{value},0\n" for value in values)))

    assert frame["x"].dtype == pl.Float64
    assert frame["x"].to_list()[:8] == [1.0, *[None] * 7]


def test_a_few_words_among_many_numbers_are_missing_and_many_make_a_text(tmp_path):
    few = read_table(written(tmp_path / "a.csv", "x\n" + "1\n" * 99 + "0x1f\n"))["x"]
    many = read_table(written(tmp_path / "b.csv", "x\n" + "1\n" * 50 + "http\n" * 50))["x"]

    assert (few.dtype, few.null_count()) == (pl.Float64, 1)
    assert many.dtype == pl.String


def test_a_packed_file_one_with_a_mark_and_one_without_a_header(tmp_path):
    packed = tmp_path / "a.csv.gz"
    packed.write_bytes(gzip.compress(b"a,b\n1,2\n"))

    assert read_table(packed).columns == ["a", "b"]
    assert read_table(written(tmp_path / "b.csv", "\ufeffa,b\n1,2\n")).columns == ["a", "b"]
    assert read_table(written(tmp_path / "c.csv", "5,tcp\n6,udp\n"), has_header=False).columns == [
        "column_1",
        "column_2",
    ]


def test_parquet_keeps_its_types(tmp_path):
    pl.DataFrame({"n": [1, 2], "flag": [True, False], "name": ["a", None]}).write_parquet(tmp_path / "a.parquet")

    assert read_table(tmp_path / "a.parquet").rows() == [(1.0, "true", "a"), (2.0, "false", None)]


@pytest.mark.parametrize(("text", "words"), [("a,b\n", "no rows"), ("", "cannot be read as a table")])
def test_a_file_without_rows_is_refused(tmp_path, text, words):
    with pytest.raises(ConfigurationError, match=words):
        read_table(written(tmp_path / "a.csv", text))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="there is no such file"):
        read_table(tmp_path / "none.csv")


def test_a_column_is_found_but_for_case_and_spaces_and_else_the_nearest_is_named():
    frame = pl.DataFrame({"Attack Label": [1], "bytes": [2]})

    assert find_column(frame, "attack_label", "--label") == "Attack Label"
    with pytest.raises(ConfigurationError, match=r"did you mean 'bytes'\?.*--no-header"):
        find_column(frame, "byte", "--label")


def test_names_become_names_of_features():
    assert safe_names(["Flow Bytes/s", " flow_bytes_s", "2nd", "Größe", "%%", "x" * 99, "entity"]) == [
        *("flow_bytes_s", "flow_bytes_s_2", "f_2nd", "gr_e", "column", "x" * 60, "f_entity"),
    ]


def test_what_is_a_file_of_ours():
    assert is_table_file("a/B.CSV")
    assert is_table_file("x.parquet")
    assert not is_table_file("nsl-kdd")
