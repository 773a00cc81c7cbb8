import gzip
import subprocess
import sys
import warnings
from datetime import UTC, datetime
from pathlib import Path

import blake3
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.core.errors import SeatrialError, UsageError
from seatrial.data.expectations import SetAside
from seatrial.data.given import conform, table_of
from seatrial.data.reading import (
    BadQuery,
    BadSetAside,
    ColumnDuplicated,
    ColumnWrongType,
    DataWarning,
    SourceEmpty,
    SourceMissing,
    SourceUnreadable,
    UnknownTimezone,
    read,
)
from seatrial.data.sources import (
    BadSource,
    ColumnMissing,
    CsvSource,
    FrameSource,
    ParquetSource,
    QuerySource,
    raw_sources,
)

UTC_US = pa.timestamp("us", tz="UTC")


def us(*texts: str | None) -> pa.Array:
    return pa.array([None if text is None else datetime.fromisoformat(text) for text in texts], UTC_US)


def rows(source, folder, **given):
    return read(source, folder=folder, **given).table


def csv(folder: Path, text: str, name: str = "t.csv", **declared) -> CsvSource:
    (folder / name).write_text(text, encoding="utf-8")
    return CsvSource(name, **declared)


class Streamed:
    """A table of another library: nothing but the Arrow C stream interface."""

    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


# Formats


def test_every_format_of_the_same_rows_gives_the_same_table(tmp_path):
    table = pa.table(
        {
            "flight": pa.array([1, 2, None], pa.int64()),
            "carrier": ["AA", None, "UA"],
            "delay": [1.5, None, -3.0],
            "late": [True, False, None],
            "at": us("2013-01-01T06:00:00+00:00", None, "2013-07-01T06:00:00.000001+00:00"),
        }
    )
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1)
    text = "flight,carrier,delay,late,at\n1,AA,1.5,true,2013-01-01T07:00:00+01:00\n2,,,false,\n"
    text += ",UA,-3.0,,2013-07-01 06:00:00.000001Z\n"
    (tmp_path / "t.csv").write_text(text)
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(text)
    dictionary = table.set_column(1, "carrier", table["carrier"].dictionary_encode())
    sources = [
        ParquetSource("t.parquet"),
        CsvSource("t.csv"),
        CsvSource("t.csv.gz"),
        FrameSource(table),
        FrameSource(dictionary),
        FrameSource(table.set_column(1, "carrier", table["carrier"].cast(pa.large_string()))),
        FrameSource(Streamed(table)),
        FrameSource(table.to_pandas(types_mapper=pd.ArrowDtype)),
        QuerySource(sql="SELECT * FROM t", tables={"t": FrameSource(table)}),
    ]
    for source in sources:
        found = rows(source, tmp_path)
        assert found.equals(table), source


def test_a_glob_is_read_in_the_order_of_the_paths(tmp_path):
    for name, value in (("b", 2), ("a", 1), ("c", 3)):
        pq.write_table(pa.table({"x": [value]}), tmp_path / f"part-{name}.parquet")
    reading = read(ParquetSource("part-*.parquet"), folder=tmp_path)
    assert reading.table["x"].to_pylist() == [1, 2, 3]
    assert [file.path for file in reading.files] == ["part-a.parquet", "part-b.parquet", "part-c.parquet"]
    content = (tmp_path / "part-a.parquet").read_bytes()
    assert (reading.files[0].bytes, reading.files[0].digest) == (len(content), blake3.blake3(content).hexdigest())
    assert rows(ParquetSource(str(tmp_path / "*.parquet")), Path("/")).num_rows == 3


def test_files_of_a_glob_must_have_one_schema(tmp_path):
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "b.parquet")
    with pytest.raises(SourceUnreadable, match="'x' is double instead of int64"):
        read(ParquetSource("*.parquet"), folder=tmp_path)


def test_csv_keeps_the_order_of_rows_on_any_number_of_threads(tmp_path):
    source = csv(tmp_path, "n,text\n" + "".join(f"{i},{'x' * 90}\n" for i in range(60_000)))
    for threads in (1, 2):
        assert rows(source, tmp_path, threads=threads)["n"].to_pylist() == list(range(60_000))


def test_csv_types_are_guessed_from_every_row(tmp_path):
    source = csv(tmp_path, "a,b\n" + "1,\n" * 30_000 + "1.5,7\n")
    assert rows(source, tmp_path).schema.types == [pa.float64(), pa.int64()]


def test_csv_types_can_be_declared(tmp_path):
    source = csv(tmp_path, "zip,n\n12345,1\n", types={"zip": "VARCHAR", "n": "DOUBLE"})
    assert rows(source, tmp_path).to_pylist() == [{"zip": "12345", "n": 1.0}]
    with pytest.raises(ColumnMissing, match="'zop'"):
        read(csv(tmp_path, "zip\n1\n", types={"zop": "VARCHAR"}), folder=tmp_path)


def test_csv_null_texts_are_declared(tmp_path):
    source = csv(tmp_path, "wind,dest\n10,NA\nNA,JFK\n", nulls=["NA"])
    assert rows(source, tmp_path).to_pylist() == [{"wind": 10, "dest": None}, {"wind": None, "dest": "JFK"}]


def test_a_csv_file_may_have_a_name_that_looks_like_a_glob(tmp_path):
    csv(tmp_path, "a\n1\n", "w1.csv")
    csv(tmp_path, "a\n2\n", "w*.csv")
    csv(tmp_path, "a\n3\n", "w[1].csv")
    assert rows(CsvSource("w*.csv"), tmp_path)["a"].to_pylist() == [2]
    assert rows(CsvSource("w[1].csv"), tmp_path)["a"].to_pylist() == [3]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiters_are_found_in_the_header(tmp_path, delimiter):
    source = csv(tmp_path, f'a{delimiter}"b,;c"\n1{delimiter}"x ""y"" z"\n')
    assert rows(source, tmp_path).to_pylist() == [{"a": 1, "b,;c": 'x "y" z'}]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("n/a", "DOUBLE", ["line 3 of t.csv", "'n/a'", "column 'x'", "nulls=['', 'n/a']"]),
        ("13/02/2013", "DATE", ["line 3 of t.csv", "'13/02/2013'", "column 'x'", "strptime(x"]),
        ("13/02/2013", "TIMESTAMP", ["row 1", "'13/02/2013'", "column 'x'", "strptime(x"]),
    ],
)
def test_a_csv_value_that_is_not_of_its_declared_type_is_named_with_its_place_and_what_to_do(
    tmp_path, text, kind, words
):
    (tmp_path / "t.csv").write_text(f"id,x\n1,\n2,{text}\n")
    with pytest.raises(ColumnWrongType) as caught:
        read(CsvSource("t.csv", types={"x": kind}), folder=tmp_path)
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_csv_time_that_is_not_iso_is_named_with_its_row_and_what_to_do(tmp_path):
    (tmp_path / "t.csv").write_text("id,x\n1,2013-02-01\n2,13/02/2013\n")
    with pytest.raises(ColumnWrongType, match=r"Row 1 .*'13/02/2013'") as caught:
        read(CsvSource("t.csv", event_timestamp="x"), folder=tmp_path)
    assert "strptime(x, '%d/%m/%Y')" in str(caught.value)


def test_ambiguous_day_and_month_stay_text(tmp_path):
    found = rows(csv(tmp_path, "day,at\n01/02/2013,01/02/2013 10:00:00\n"), tmp_path)
    assert found.schema.types == [pa.string(), pa.string()]


# Times


def test_times_without_a_zone_are_utc_with_one_warning_that_names_them(tmp_path):
    table = pa.table(
        {
            "dep": pa.array([datetime(2013, 1, 1, 6)], pa.timestamp("ms")),
            "day": pa.array([datetime(2013, 1, 1)], pa.date32()),
            "at": us("2013-01-01T06:00:00+00:00"),
        }
    )
    with pytest.warns(DataWarning, match="dep, day carry no time zone") as caught:
        reading = read(FrameSource(table, name="f"), folder=tmp_path)
    assert len(caught) == 1
    assert reading.naive == ("dep", "day")
    assert reading.table.schema.types == [UTC_US] * 3
    assert reading.table["dep"][0].as_py() == datetime(2013, 1, 1, 6, tzinfo=UTC)
    assert reading.table["day"][0].as_py() == datetime(2013, 1, 1, tzinfo=UTC)


def test_times_without_a_zone_are_read_in_the_declared_zone(tmp_path):
    source = csv(tmp_path, "at\n2013-01-01 06:00:00\n2013-07-01T06:00:00Z\n", timezone="America/New_York")
    expected = us("2013-01-01T11:00:00+00:00", "2013-07-01T06:00:00+00:00")
    assert rows(source, tmp_path)["at"].combine_chunks().equals(expected)


def test_local_times_that_the_clock_shows_twice_are_the_later_instant(tmp_path):
    naive = pa.array([datetime(2013, 11, 3, 1, 30), datetime(2013, 3, 10, 2, 30)], pa.timestamp("us"))
    source = FrameSource(pa.table({"at": naive}), name="f", timezone="America/New_York")
    with pytest.warns(DataWarning, match="2 values of at"):
        found = rows(source, tmp_path)["at"].combine_chunks()
    assert found[0].as_py() == datetime(2013, 11, 3, 6, 30, tzinfo=UTC)


def test_nanoseconds_are_cut_toward_the_past_and_counted(tmp_path):
    values = [1_999, -1, None, 2_000]
    for kind in (pa.timestamp("ns", tz="UTC"), pa.timestamp("ns", tz="America/New_York"), pa.timestamp("ns")):
        source = FrameSource(pa.table({"at": pa.array(values, pa.int64()).cast(kind)}), timezone="UTC")
        reading = read(source, folder=tmp_path)
        assert reading.table["at"].cast(pa.int64()).to_pylist() == [1, -1, None, 2]
        assert reading.truncated == {"at": 2}
    text = "at\n1960-01-01T00:00:00.0000019Z\n1960-01-01T00:00:00.000001000Z\n"
    reading = read(csv(tmp_path, text), folder=tmp_path)
    assert reading.table["at"].combine_chunks().equals(us(*["1960-01-01T00:00:00.000001+00:00"] * 2))
    assert reading.truncated == {"at": 1}


def test_an_unknown_zone_is_an_error(tmp_path):
    with pytest.raises(UnknownTimezone, match="Mars/Olympus"):
        read(FrameSource(pa.table({"a": [1]}), timezone="Mars/Olympus"), folder=tmp_path)


@pytest.mark.parametrize("role", ["event_timestamp", "known_at", "label_known_at"])
def test_a_declared_time_must_be_a_time(tmp_path, role):
    source = FrameSource(pa.table({"a": ["soon"]}), name="f", **{role: "a"})
    with pytest.raises(ColumnWrongType, match=f"declared as its {role}") as caught:
        read(source, folder=tmp_path)
    assert "'soon'" in str(caught.value)
    source = FrameSource(pa.table({"b": [1]}), name="f", **{role: "a"})
    with pytest.raises(ColumnMissing, match="no column 'a'"):
        read(source, folder=tmp_path)


def test_a_declared_time_may_be_all_null(tmp_path):
    source = FrameSource(pa.table({"at": pa.nulls(2)}), label_known_at="at")
    assert rows(source, tmp_path)["at"].combine_chunks().equals(us(None, None))


# Missing values


def test_nan_is_null_and_infinity_stays(tmp_path):
    table = pa.table({"x": [float("nan"), float("inf"), None, 1.0]})
    assert rows(FrameSource(table), tmp_path)["x"].to_pylist() == [None, float("inf"), None, 1.0]


# Queries


def test_a_query_reads_its_tables_and_nothing_else(tmp_path):
    secret = csv(tmp_path, "a\n1\n")
    for sql in (
        f"SELECT * FROM '{tmp_path / 't.csv'}'",
        f"SELECT * FROM read_text('{tmp_path / 't.csv'}')",
        "SELECT * FROM secret",
        "SET enable_external_access = true",
        f"COPY t TO '{tmp_path / 'out.csv'}'",
        "SELECT 1; SELECT 2",
        "SELEC 1",
    ):
        with pytest.raises(BadQuery):
            read(QuerySource(name="q", sql=sql, tables={"t": secret}), folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_a_query_takes_tables_that_were_read_already(tmp_path):
    source = QuerySource(
        name="q", sql="SELECT sum(a) AS a FROM t", tables={"t": CsvSource("not-there.csv", name="raw")}
    )
    reading = read(source, folder=tmp_path, tables={"raw": pa.table({"a": [1, 2]})})
    assert reading.table.equals(pa.table({"a": pa.array([3], pa.int64())}))
    assert reading.files == ()


def test_a_query_reports_what_its_sources_set_aside(tmp_path):
    raw = csv(tmp_path, "a\n1\n2\n3\n", set_aside=[SetAside("a > 2", "too large")])
    middle = QuerySource(name="m", sql="SELECT a + 1 AS a FROM t", tables={"t": raw})
    top = QuerySource(name="q", sql="SELECT m.a FROM m, t WHERE t.a = 1", tables={"m": middle, "t": raw})
    reading = read(top, folder=tmp_path)
    assert sorted(reading.table["a"].to_pylist()) == [2, 3]
    assert {one.rule.where for one in reading.set_aside} == {"a > 2"}
    assert {file.path for file in reading.files} == {"t.csv"}
    assert raw_sources(top) == [raw]


def test_a_query_counts_days_in_utc(tmp_path):
    table = pa.table({"at": us("2013-01-01T23:30:00+00:00")})
    sql = """SELECT date_trunc('day', "at") AS d, hour("at") AS h FROM t"""
    source = QuerySource(sql=sql, tables={"t": FrameSource(table)})
    assert rows(source, tmp_path).to_pylist() == [{"d": datetime(2013, 1, 1, tzinfo=UTC), "h": 23}]


# Set-aside rules


def test_set_aside_rules_take_rows_out_and_keep_them_with_a_count(tmp_path):
    rules = [SetAside("wind > 150 -- impossible", "sensor fault"), SetAside("wind > 100 OR gust < 0", "storm")]
    table = pa.table({"wind": [10.0, 1048.0, None, 120.0, 20.0], "gust": [1, 1, 1, 1, -1]})
    reading = read(FrameSource(table, name="w", set_aside=rules), folder=tmp_path)
    assert reading.table["wind"].to_pylist() == [10.0, None]
    assert [(one.source, one.rule.reason, one.count) for one in reading.set_aside] == [
        ("w", "sensor fault", 1),
        ("w", "storm", 2),
    ]
    assert reading.set_aside[1].rows["wind"].to_pylist() == [120.0, 20.0]


@pytest.mark.parametrize("where", ["winde > 150", "wind >", "wind); DROP TABLE rows; --", "wind > 'x'"])
def test_a_rule_that_does_not_run_is_an_error(tmp_path, where):
    source = FrameSource(pa.table({"wind": [1.0]}), name="w", set_aside=[SetAside(where, "why")])
    with pytest.raises(BadSetAside, match="source 'w'"):
        read(source, folder=tmp_path)


def test_rules_that_leave_nothing_are_an_error_with_counts(tmp_path):
    source = FrameSource(pa.table({"wind": [1.0, 2.0]}), name="w", set_aside=[SetAside("wind > 0", "why")])
    with pytest.raises(SourceEmpty, match="2 where wind > 0"):
        read(source, folder=tmp_path)


# Bad input


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path):
    csv(tmp_path, "a\n1\n", "weather.csv")
    with pytest.raises(SourceMissing) as caught:
        read(CsvSource("wether.csv"), folder=tmp_path)
    assert "Did you mean 'weather.csv'?" in str(caught.value)
    assert str(tmp_path / "wether.csv") in str(caught.value)
    for path in ("nowhere/x.parquet", "none-*.parquet"):
        with pytest.raises(SourceMissing):
            read(ParquetSource(path), folder=tmp_path)


def test_a_missing_event_key_is_named(tmp_path):
    source = csv(tmp_path, "dep_delay,dest\n1,JFK\n", "flights.csv", event_key=["dep_dealy"])
    with pytest.raises(ColumnMissing) as caught:
        read(source, folder=tmp_path)
    assert str(caught.value).splitlines()[:2] == [
        "ColumnMissing [data.column_missing]: source 'flights' has no column 'dep_dealy'.",
        "It has dep_delay, dest. Did you mean 'dep_delay'?",
    ]


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.csv", b"", SourceEmpty),
        ("a.csv", b"\n", SourceEmpty),
        ("a.csv", b"a,b\n", SourceEmpty),
        ("a.csv", b"a,a\n1,2\n", ColumnDuplicated),
        ("a.csv", b"a,A\n1,2\n", ColumnDuplicated),
        ("a.csv", b"a,\n1,2\n", SourceUnreadable),
        ("a.csv", b"a,b\n1,2\n3,4,5\n", SourceUnreadable),
        ("a.csv", b"a,b\n1,2\n3\n", SourceUnreadable),
        ("a.csv", b'a,b\n1,"x\n', SourceUnreadable),
        ("a.csv", b"a,b\n1,\xff\xfe\n", SourceUnreadable),
        ("a.csv", b"PK\x03\x04\xff\xfe\x00", SourceUnreadable),
        ("a.csv.gz", b"not gzip at all", SourceUnreadable),
        ("a.csv.gz", gzip.compress(b"a\n1\n" * 50, mtime=0)[:-12], SourceUnreadable),
        ("a.parquet", b"", SourceEmpty),
        ("a.parquet", b"PAR1 but no more", SourceUnreadable),
    ],
)
def test_a_bad_file_is_one_clear_error(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content)
    source = ParquetSource(name) if name.endswith("parquet") else CsvSource(name)
    with pytest.raises(error) as caught:
        read(source, folder=tmp_path)
    assert caught.value.__cause__ is None
    assert "\n" not in caught.value.found
    assert len(caught.value.found) < 500


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        ([1, 2], SourceUnreadable),
        (pa.table({"a": pa.array([], pa.int64())}), SourceEmpty),
        (pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"]), ColumnDuplicated),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ColumnDuplicated),
        (pd.DataFrame({"a": [1, "x", object()]}), SourceUnreadable),
    ],
)
def test_a_bad_frame_is_one_clear_error(tmp_path, frame, error):
    with pytest.raises(error):
        read(FrameSource(frame, name="f"), folder=tmp_path)


def test_a_named_pandas_index_is_a_column(tmp_path):
    frame = pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="key"))
    assert rows(FrameSource(frame), tmp_path).to_pylist() == [{"a": 1, "key": "x"}]
    assert rows(FrameSource(frame.reset_index(drop=True)), tmp_path).column_names == ["a"]


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(SourceUnreadable, match="is a folder"):
        read(CsvSource("."), folder=tmp_path)


def test_reading_never_writes(tmp_path):
    csv(tmp_path, "a\n1\n")
    before = sorted(tmp_path.rglob("*"))
    read(CsvSource("t.csv"), folder=tmp_path)
    with pytest.raises(SeatrialError):
        read(CsvSource("u.csv"), folder=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_no_warning_when_every_time_has_a_zone(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(csv(tmp_path, "at\n2013-01-01T00:00:00Z\n"), folder=tmp_path)


def test_declarations_load_no_engine():
    code = "import sys, seatrial.data.sources, seatrial.data.reading, seatrial.data.snapshot;"
    code += "print([name for name in ('duckdb', 'pyarrow', 'pandas', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# A query that reads itself


def test_a_query_that_reads_itself_is_named_with_its_circle(tmp_path):
    tables = {"t": FrameSource(pa.table({"a": [1]}), name="t")}
    first = QuerySource(name="first", sql="SELECT * FROM t", tables=tables)
    second = QuerySource(name="second", sql="SELECT * FROM first", tables={"first": first})
    assert [one.name for one in raw_sources(second)] == ["t"]
    tables["second"] = second
    for use in (raw_sources, lambda one: read(one, folder=tmp_path), lambda one: one.as_plain()):
        with pytest.raises(BadSource, match="'second' -> 'first' -> 'second'"):
            use(second)


# Exact numbers and empty columns of CSV


@pytest.mark.parametrize("kind", ["BIGINT", "int", "SMALLINT", "HUGEINT", "DECIMAL(9, 0)"])
@pytest.mark.parametrize("text", ["5.7", "1e-1", "five", "5.0000001"])
def test_a_csv_number_that_would_be_rounded_is_refused_with_its_line_and_value(tmp_path, kind, text):
    (tmp_path / "t.csv").write_text(f'note,n\n"two\nlines",1\n\n"",{text}\n')
    with pytest.raises(ColumnWrongType) as caught:
        read(CsvSource("t.csv", types={"n": kind}), folder=tmp_path)
    assert f"line 5 of t.csv has '{text}' in column 'n'" in str(caught.value)


def test_csv_decimals_beyond_the_declared_ones_are_refused(tmp_path):
    source = csv(tmp_path, "n\n1.25\n1.5\n1.500\n", types={"n": "DECIMAL(9,2)"})
    assert [float(one) for one in rows(source, tmp_path)["n"].to_pylist()] == [1.25, 1.5, 1.5]
    with pytest.raises(ColumnWrongType, match=r"line 2 .*'1.255'"):
        read(csv(tmp_path, "n\n1.255\n", types={"n": "DECIMAL(9,2)"}), folder=tmp_path)


def test_whole_csv_numbers_may_be_written_in_any_way(tmp_path):
    source = csv(tmp_path, "n,m\n5,a\n-7,b\n5.0,c\n2.5e3,d\nNA,e\n", types={"n": "BIGINT"}, nulls=["NA"])
    found = rows(source, tmp_path)
    assert found["n"].type == pa.int64()
    assert found["n"].to_pylist() == [5, -7, 5, 2500, None]


def test_an_empty_csv_column_has_no_type_yet(tmp_path):
    source = csv(tmp_path, "a,b,c\n1,,\n2,,\n", types={"c": "VARCHAR"})
    assert rows(source, tmp_path).schema.types == [pa.int64(), pa.null(), pa.string()]
    query = QuerySource(name="q", sql="SELECT *, b AS d FROM t", tables={"t": source})
    assert rows(query, tmp_path).schema.types == [pa.int64(), pa.null(), pa.string(), pa.null()]
    for value in (1, 1.5, "text", True):
        pushed = pa.table({"b": [value]})
        assert conform(pushed, source, rows(source, tmp_path).schema).equals(pushed)
        assert table_of([{"b": value}], source, rows(source, tmp_path).schema).equals(pushed)


# Some columns


def test_only_the_wanted_columns_and_the_declared_ones_are_read(tmp_path):
    table = pa.table({"k": [1, 2], "at": us("2013-01-01T00:00:00+00:00", None), "x": [1.0, 2.0], "y": ["a", "b"]})
    pq.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("k,at,x,y\n1,2013-01-01T00:00:00Z,1.0,a\n2,,2.0,b\n")
    declared = {"event_timestamp": "at", "event_key": ["k"]}
    for source in (
        ParquetSource("t.parquet", **declared),
        CsvSource("t.csv", **declared),
        FrameSource(table, name="f", **declared),
        QuerySource(name="q", sql="SELECT * FROM t", tables={"t": ParquetSource("t.parquet")}, **declared),
    ):
        reading = read(source, folder=tmp_path, columns=["x"])
        assert reading.table.equals(table.select(["k", "at", "x"])), source
        assert reading.files == ()
        with pytest.raises(ColumnMissing, match="no column 'z'"):
            read(source, folder=tmp_path, columns=["z"])


def test_no_column_at_all_cannot_be_wanted(tmp_path):
    with pytest.raises(UsageError, match=r"columns=\[\]"):
        read(FrameSource(pa.table({"a": [1]}), name="f"), folder=tmp_path, columns=[])


def test_rules_see_the_columns_that_are_not_wanted(tmp_path):
    pq.write_table(pa.table({"x": [1, 2], "y": [0, 9]}), tmp_path / "t.parquet")
    source = ParquetSource("t.parquet", set_aside=[SetAside("y > 5", "too large")])
    reading = read(source, folder=tmp_path, columns=["x"])
    assert reading.table.to_pylist() == [{"x": 1}]
    assert reading.set_aside[0].count == 1
