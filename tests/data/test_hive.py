"""Folders such as year=2013 are columns: the same ones whatever the order in which the files lie on the disk."""

from __future__ import annotations

from datetime import UTC, date, datetime
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial.data.reading import DataWarning, read
from seatrial.data.sources import BadSource, ColumnMissing, ParquetSource


def put(folder, path, **columns):
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"x": [1]}), folder / path)


def rows(source, folder, **given):
    return read(source, folder=folder, **given).table.to_pylist()


@pytest.mark.parametrize("hive", [None, True])
def test_folders_are_columns_after_those_of_the_files_in_the_order_of_the_paths(tmp_path, hive):
    for month, x in ((4, 2), (10, 1), (5, 3)):
        put(tmp_path, f"events/year=2013/month={month}/part.parquet", x=[x, x + 10])
    source = ParquetSource("events/**/*.parquet", hive=hive)
    assert rows(source, tmp_path) == [
        {"x": x, "year": 2013, "month": month} for month, x in ((10, 1), (10, 11), (4, 2), (4, 12), (5, 3), (5, 13))
    ]


def test_without_hive_folders_are_no_columns(tmp_path):
    put(tmp_path, "year=2013/a.parquet")
    assert rows(ParquetSource("*/*.parquet", hive=False), tmp_path) == [{"x": 1}]
    assert rows(ParquetSource("year=2013/a.parquet"), tmp_path) == [{"x": 1}]
    assert rows(ParquetSource("year=2013/a.parquet", hive=True), tmp_path) == [{"x": 1, "year": 2013}]


def test_whole_numbers_and_dates_have_their_types_when_every_value_is_one(tmp_path):
    for n, day, mixed in (("01", "2013-04-01", "1"), ("-7", "2013-04-02", "one"), ("+5", "2013-02-30", "2")):
        put(tmp_path, f"n={n}/day={day}/mixed={mixed}/a.parquet")
    found = read(ParquetSource("n=*[17]/**/*.parquet", timezone="UTC"), folder=tmp_path).table
    assert found.to_pylist() == [
        {"x": 1, "n": -7, "day": datetime(2013, 4, 2, tzinfo=UTC), "mixed": "one"},
        {"x": 1, "n": 1, "day": datetime(2013, 4, 1, tzinfo=UTC), "mixed": "1"},
    ]
    found = read(ParquetSource("**/*.parquet"), folder=tmp_path).table
    assert found.schema.types[1:] == [pa.string()] * 3
    put(tmp_path, "huge/k=99999999999999999999/a.parquet")
    assert rows(ParquetSource("huge/*/*.parquet"), tmp_path)[0]["k"] == "99999999999999999999"


def test_a_date_in_a_path_is_a_midnight_without_a_zone(tmp_path):
    put(tmp_path, "day=2013-04-01/a.parquet")
    with pytest.warns(DataWarning, match="day carries no time zone"):
        assert rows(ParquetSource("*/*.parquet"), tmp_path)[0]["day"] == datetime(2013, 4, 1, tzinfo=UTC)


def test_the_default_partition_is_null(tmp_path):
    put(tmp_path, "k=__HIVE_DEFAULT_PARTITION__/a.parquet")
    put(tmp_path, "k=3/a.parquet")
    assert [row["k"] for row in rows(ParquetSource("*/*.parquet"), tmp_path)] == [3, None]


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_back_from_a_path_in_which_it_was_escaped(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("escaped")
    for position, text in enumerate(texts):
        put(folder, f"k={quote('t' + text, safe='')}/{position}.parquet", position=[position])
    found = read(ParquetSource("*/*.parquet"), folder=folder).table.sort_by("position")
    assert found["k"].to_pylist() == ["t" + text for text in texts]


def test_what_arrow_writes_as_a_hive_dataset_is_read_back(tmp_path):
    table = pa.table({"x": [1, 2, 3, 4], "day": [date(2013, 1, 2)] * 4, "k": ["a b", "c/d", None, "é=%"]})
    pq.write_to_dataset(table, tmp_path / "set", partition_cols=["day", "k"])
    found = read(ParquetSource("set/**/*.parquet", timezone="UTC"), folder=tmp_path).table.sort_by("x")
    assert found["k"].to_pylist() == table["k"].to_pylist()


@pytest.mark.parametrize("values", [pa.array([2013, 2013], pa.int32()), pa.array(["2013"] * 2).dictionary_encode()])
def test_a_column_in_file_and_path_stays_that_of_the_file_when_they_agree(tmp_path, values):
    put(tmp_path, "year=2013/a.parquet", year=values, x=[1, 2])
    assert read(ParquetSource("*/*.parquet"), folder=tmp_path).table.column_names == ["year", "x"]


@pytest.mark.parametrize("values", [[2013, 2012], [2013, None], ["2013", "soon"]])
def test_a_column_in_file_and_path_that_differs_is_refused(tmp_path, values):
    put(tmp_path, "year=2013/a.parquet", year=values)
    with pytest.raises(BadSource, match=r"'year' .* 2013, and in the file"):
        read(ParquetSource("*/*.parquet"), folder=tmp_path)
    assert [row["year"] for row in rows(ParquetSource("*/*.parquet", hive=False), tmp_path)] == values


def test_files_with_other_partitions_are_refused(tmp_path):
    put(tmp_path, "year=2013/a.parquet")
    put(tmp_path, "years=2014/a.parquet")
    with pytest.raises(BadSource, match="has years"):
        read(ParquetSource("*/*.parquet"), folder=tmp_path)


def test_hive_without_partitions_is_refused(tmp_path):
    put(tmp_path, "a.parquet")
    with pytest.raises(BadSource, match="no folder such as"):
        read(ParquetSource("*.parquet", hive=True), folder=tmp_path)
    with pytest.raises(BadSource, match="hive="):
        ParquetSource("*.parquet", hive="yes")


def test_only_the_wanted_columns_are_read_also_of_the_path(tmp_path):
    put(tmp_path, "year=2013/a.parquet", x=[1, 2], y=[3, 4])
    source = ParquetSource("*/*.parquet", event_key=["x"])
    assert rows(source, tmp_path, columns=["year"]) == [{"x": 1, "year": 2013}, {"x": 2, "year": 2013}]
    assert rows(ParquetSource("*/*.parquet"), tmp_path, columns=["year"]) == [{"year": 2013}] * 2
    assert rows(ParquetSource("*/*.parquet"), tmp_path, columns=["y"]) == [{"y": 3}, {"y": 4}]
    with pytest.raises(ColumnMissing, match="no column 'yeer'"):
        read(source, folder=tmp_path, columns=["yeer"])


def test_partitions_do_not_change_what_older_declarations_say():
    assert "hive" not in ParquetSource("a.parquet").as_plain()
    assert ParquetSource("a.parquet", hive=True).as_plain()["hive"] is True
