"""A frame gives the same rows as the Parquet file that it is written to, whatever made it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatrial import CsvSource, Entity, Project, agg, feature_view
from seatrial.core.clock import FixedClock
from seatrial.data import snapshot
from seatrial.data.given import RowWrongType, conform, table_of
from seatrial.data.reading import SourceUnreadable, read
from seatrial.data.sources import FrameSource, ParquetSource, QuerySource

AT = [datetime(2013, 7, 1, 6, tzinfo=UTC), None, datetime(2013, 1, 1, tzinfo=UTC)]
LISTS = pa.list_(pa.float64())


def rows(source, folder):
    return read(source, folder=folder).table


def same(frame, write, folder, **declared):
    """The rows of a frame, after holding them against those of the Parquet file of it."""
    write(folder / "t.parquet")
    found = rows(FrameSource(frame, name="f", timezone="UTC", **declared), folder)
    filed = rows(ParquetSource("t.parquet", timezone="UTC", **declared), folder)
    assert found.equals(filed)
    assert snapshot.content(found).id == snapshot.content(filed).id
    return found


def test_a_polars_frame_gives_the_rows_of_its_file(tmp_path):
    frame = pl.DataFrame(
        {
            "cat": pl.Series(["a", None, "b"], dtype=pl.Categorical),
            "enum": pl.Series(["x", "y", None], dtype=pl.Enum(["y", "x", "unused"])),
            "text": ["é", None, ""],
            "n": pl.Series([1, None, 3], dtype=pl.Int16),
            "f": [1.5, float("nan"), None],
            "flag": [True, None, False],
            "zoned": pl.Series(AT).dt.convert_time_zone("America/New_York"),
            "ns": pl.Series(AT).dt.cast_time_unit("ns"),
            "ms": pl.Series(AT).dt.cast_time_unit("ms").dt.replace_time_zone(None),
            "day": pl.Series(AT).dt.date(),
            "floats": [[1.0, None, float("nan")], None, []],
            "texts": [["a"], [None], None],
            "nested": [[[1]], None, [[], None]],
        }
    )
    found = same(frame, frame.write_parquet, tmp_path)
    utc = pa.timestamp("us", tz="UTC")
    assert found.schema.types == [
        pa.string(), pa.string(), pa.string(), pa.int16(), pa.float64(), pa.bool_(), utc, utc, utc, utc, LISTS,
        pa.list_(pa.string()), pa.list_(pa.list_(pa.int64())),
    ]  # fmt: skip
    assert found["enum"].to_pylist() == ["x", "y", None]
    assert found["floats"].to_pylist() == [[1.0, None, None], None, []]
    assert found["zoned"].to_pylist() == found["ns"].to_pylist() == found["ms"].to_pylist() == AT


def test_a_pandas_frame_gives_the_rows_of_its_file(tmp_path):
    frame = pd.DataFrame(
        {
            "cat": pd.Categorical(["a", None, "b"]),
            "n": pd.array([1, None, 3], dtype="Int64"),
            "f": [1.5, np.nan, np.inf],
            "zoned": pd.to_datetime(AT).tz_convert("Europe/Vienna"),
            "naive": pd.to_datetime(AT).tz_localize(None).as_unit("ns"),
            "floats": [np.array([1.0, np.nan]), None, np.array([])],
            "texts": [["a", None], None, []],
        }
    )
    found = same(frame, frame.to_parquet, tmp_path)
    assert found["floats"].to_pylist() == [[1.0, None], None, []]
    assert found["zoned"].to_pylist() == found["naive"].to_pylist() == AT


@given(
    lists=st.lists(st.none() | st.lists(st.none() | st.floats(width=32), max_size=4), min_size=1, max_size=30),
    start=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lists_of_floats_keep_every_value_but_nan_in_any_slice_and_layout(tmp_path, lists, start):
    expected = [None if one is None else [None if x is None or x != x else x for x in one] for one in lists]
    kinds = (pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.field("element", pa.float32())))
    for kind in kinds:
        table = pa.table({"n": range(len(lists)), "l": pa.array(lists, kind)}).slice(start)
        if table.num_rows:
            assert rows(FrameSource(table), tmp_path)["l"].to_pylist() == expected[start:]


def test_lists_in_a_slice_lose_their_nan_and_keep_their_nulls(tmp_path):
    table = pa.table({"l": [[0.0], None, [float("nan"), 1.0], None, [2.0, None]]})
    for start in range(5):
        expected = [[0.0], None, [None, 1.0], None, [2.0, None]][start:]
        assert rows(FrameSource(table.slice(start)), tmp_path)["l"].to_pylist() == expected


def test_lists_of_categories_are_lists_of_text(tmp_path):
    lists = pa.ListArray.from_arrays([0, 2, 2, 3], pa.array(["a", "b", "a"]).dictionary_encode())
    found = rows(FrameSource(pa.table({"l": lists})), tmp_path)["l"]
    assert found.type == pa.list_(pa.string())
    assert found.to_pylist() == [["a", "b"], [], ["a"]]


def test_a_reader_of_batches_is_read_once_and_kept(tmp_path):
    table = pa.table({"a": [1, 2, 3]})
    source = FrameSource(pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=1)))
    assert rows(source, tmp_path).equals(table)
    assert rows(source, tmp_path).equals(table)
    batch = FrameSource(table.to_batches()[0])
    assert rows(batch, tmp_path).equals(rows(batch, tmp_path))


def test_a_lazy_frame_is_no_table_yet(tmp_path):
    with pytest.raises(SourceUnreadable, match="LazyFrame"):
        rows(FrameSource(pl.LazyFrame({"a": [1]}), name="f"), tmp_path)


def test_lists_pass_through_a_query_and_a_snapshot(tmp_path):
    table = pa.table({"a": [1, 2], "l": pa.array([[1.5, None], None], LISTS)})
    found = rows(QuerySource(name="q", sql="SELECT * FROM t", tables={"t": FrameSource(table)}), tmp_path)
    assert found.equals(table)
    content = snapshot.content(found)
    snapshot.write(content, found, tmp_path / "s.parquet")
    assert snapshot.load(tmp_path / "s.parquet")[1].equals(table)


# Pushed lists


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (pa.list_(pa.float64()), [1, 2.5, None], [1.0, 2.5, None]),
        (pa.list_(pa.float64()), [1], [1.0]),
        (pa.list_(pa.int64()), [1, 2.0], [1, 2]),
        (pa.list_(pa.string()), ["a", None], ["a", None]),
        (pa.list_(pa.bool_()), [True], [True]),
        (pa.list_(pa.int64()), [], []),
        (pa.list_(pa.int64()), None, None),
        (pa.list_(pa.field("element", pa.int32())), [7], [7]),
    ],
)
def test_a_pushed_list_becomes_that_of_the_source(kind, value, expected):
    schema = pa.schema([("l", kind)])
    source = FrameSource(None, name="f")
    given = table_of([{"l": value}], source, schema)
    assert given["l"].to_pylist() == [expected]
    assert conform(given, source, schema).schema.equals(schema)
    if value is not None:
        assert conform(pa.table({"l": [value]}), source, schema)["l"].to_pylist() == [expected]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.list_(pa.float64()), ["1"]),
        (pa.list_(pa.int64()), [1.5]),
        (pa.list_(pa.int64()), [True]),
        (pa.list_(pa.int64()), [2**70]),
        (pa.list_(pa.string()), [1]),
        (pa.list_(pa.string()), "text"),
        (pa.list_(pa.int64()), 5),
        (pa.int64(), [5]),
        (pa.string(), ["a"]),
    ],
)
def test_a_pushed_list_of_another_type_is_refused_by_row_and_value(kind, value):
    schema = pa.schema([("l", kind)])
    source = FrameSource(None, name="f")
    with pytest.raises(RowWrongType, match=r"row 1 .*'l'"):
        table_of([{"l": None}, {"l": value}], source, schema)
    if value != [2**70]:
        with pytest.raises(RowWrongType, match=r"row 1 .*'l'"):
            conform(pa.table({"l": pa.array([None, value])}), source, schema)


def test_pushed_numbers_become_the_decimals_of_the_source_and_are_never_rounded():
    kind = pa.decimal128(9, 2)
    schema, source = pa.schema([("n", kind)]), FrameSource(None, name="f")
    expected = [Decimal("2.55"), Decimal("7.00"), Decimal("-0.10"), None]
    numbers = [2.55, 7, Decimal("-0.1"), None]
    assert table_of([{"n": one} for one in numbers], source, schema)["n"].to_pylist() == expected
    for frame in (pa.array([2.55, 7.0, -0.1, None]), pa.array(expected, pa.decimal128(5, 2))):
        assert conform(pa.table({"n": frame}), source, schema)["n"].to_pylist() == expected
    for wrong in (2.555, 1e12, float("inf")):
        with pytest.raises(RowWrongType, match=r"row 1 .*'n'"):
            table_of([{"n": 1}, {"n": wrong}], source, schema)
        with pytest.raises(RowWrongType, match=r"row 1 .*'n'"):
            conform(pa.table({"n": [1.0, wrong]}), source, schema)


def test_lists_in_pushed_json_lines_and_empty_columns_of_a_csv_source_are_taken(tmp_path):
    (tmp_path / "sales.csv").write_text("at,shop,receipt,amount\n2024-01-01T12:00:00Z,7,r0,\n")
    source = CsvSource("sales.csv", event_timestamp="at", event_key=["receipt"])

    @feature_view(entity=Entity("shop"), source=source)
    class till:
        count = agg.count(window="7d")

    line = {"at": "2024-01-01T13:00:00Z", "shop": 7, "receipt": "r1", "amount": 2.5}
    (tmp_path / "more.jsonl").write_text(json.dumps(line) + "\n")
    with Project(tmp_path, clock=FixedClock(datetime(2024, 1, 2, tzinfo=UTC)), definitions=[till]) as project:
        project.materialize()
        project.push("till", tmp_path / "more.jsonl")
    pq.write_table(pa.table({"l": pa.array([[1]], pa.list_(pa.int64()))}), tmp_path / "l.parquet")
    assert rows(ParquetSource("l.parquet"), tmp_path).schema.types == [pa.list_(pa.int64())]
