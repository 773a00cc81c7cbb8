"""Snapshots taken batch by batch are those taken of a table: the same id, bytes, counts and reports."""

import gzip
import subprocess
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.core.errors import SeatrialError
from seatrial.data import in_batches, snapshot
from seatrial.data.expectations import SetAside, check, expect
from seatrial.data.profile import profile, profile_of
from seatrial.data.reading import read
from seatrial.data.sources import CsvSource, FrameSource, ParquetSource

quick = settings(max_examples=8, deadline=None)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(in_batches, "BATCH_ROWS", 7)
    monkeypatch.setattr(in_batches, "FEW_ROWS", 5)


def rows_of(count: int, seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    missing = random.random(count) < 0.1
    return pa.table(
        {
            "id": pa.array(random.permutation(count)),
            "amount": pa.array(random.normal(size=count) * 10, mask=missing),
            "nan": np.where(missing, np.nan, -0.0),
            "shop": pa.array(random.choice(["a", "b", "c"], count)).dictionary_encode(),
            "at": pa.array(random.integers(0, 10**15, count)).cast(pa.timestamp("us")),
            "nanos": pa.array(random.integers(0, 10**15, count)).cast(pa.timestamp("ns", tz="Europe/Vienna")),
            "day": pa.array(random.integers(0, 9999, count).astype("int32")).cast(pa.date32()),
            "tags": pa.array([[float(i), float("nan")] if i % 3 else None for i in range(count)]),
            "long": pa.array([f"x{i}" for i in range(count)], pa.large_string()),
            "none": pa.nulls(count),
        }
    )


def both(source, folder, path):
    """What a table gives and what batches give: content, bytes, and what reading told."""
    with warnings.catch_warnings(record=True) as of_table:
        warnings.simplefilter("always")
        reading = read(source, folder=folder)
    with warnings.catch_warnings(record=True) as of_batches:
        warnings.simplefilter("always")
        streamed = in_batches.take(source, folder=folder, path=path)
    assert [str(one.message) for one in of_batches] == [str(one.message) for one in of_table]
    return reading, streamed


def assert_same(reading, streamed, folder):
    content = snapshot.content(reading.table)
    assert streamed.content == content
    snapshot.write(content, reading.table, folder / "of_table.parquet")
    assert streamed.path.read_bytes() == (folder / "of_table.parquet").read_bytes()
    assert snapshot.load(streamed.path)[0] == content
    assert streamed.files == reading.files
    assert streamed.truncated == reading.truncated
    assert [one.as_plain() for one in streamed.set_aside] == [one.as_plain() for one in reading.set_aside]
    assert profile_of(streamed.tables) == profile(reading.table)


@quick
@given(count=st.integers(1, 60), group=st.integers(1, 40), seed=st.integers(0, 9), zone=st.sampled_from([None, "CET"]))
def test_a_parquet_file_in_batches_is_the_snapshot_of_its_table(tmp_path_factory, count, group, seed, zone):
    folder = tmp_path_factory.mktemp("t")
    pq.write_table(rows_of(count, seed), folder / "t.parquet", row_group_size=group)
    source = ParquetSource("t.parquet", event_timestamp="at", event_key=["id"], timezone=zone)
    assert_same(*both(source, folder, folder / "out.parquet"), folder)


def test_several_files_with_partitions_are_the_snapshot_of_their_table(tmp_path):
    for year in (2012, 2013):
        (tmp_path / f"year={year}").mkdir()
        pq.write_table(rows_of(30, year), tmp_path / f"year={year}" / "t.parquet")
    assert_same(*both(ParquetSource("*/t.parquet"), tmp_path, tmp_path / "out.parquet"), tmp_path)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_csv_file_in_batches_is_the_snapshot_of_its_table(tmp_path, zipped):
    lines = ["id,amount,price,at,mixed,maybe,empty,text"]
    for i in range(50):
        zone = "Z" if i % 2 else ""
        lines.append(
            f"{i},{'' if i % 7 == 0 else i / 8},{i}.25,2013-10-27T02:{i:02}:00,2013-10-27T02:{i:02}:00{zone},"
            f"2013-01-01T00:00:00,,{'x' if i % 3 else 'ü'}"
        )
    data = "\n".join(lines).encode()
    name = "t.csv.gz" if zipped else "t.csv"
    (tmp_path / name).write_bytes(gzip.compress(data) if zipped else data)
    source = CsvSource(name, types={"price": "DECIMAL(9, 2)"}, timezone="Europe/Vienna", event_timestamp="at")
    reading, streamed = both(source, tmp_path, tmp_path / "out.parquet")
    assert pa.types.is_null(reading.table["empty"].type)
    assert_same(reading, streamed, tmp_path)


def refusals(source, folder):
    found = []
    for work in (
        lambda: read(source, folder=folder),
        lambda: in_batches.take(source, folder=folder, path=folder / "o"),
    ):
        with pytest.raises(SeatrialError) as caught:
            work()
        found.append((type(caught.value), str(caught.value), caught.value.expected, caught.value.next))
    assert not (folder / "o").exists()
    assert not list(folder.glob(".*partial"))
    return found


BAD = [f"{i},{i}.25,2013-01-01T00:00:00Z" for i in range(30)]


@pytest.mark.parametrize(
    ("change", "types"),
    [
        ({20: "20,1.255,2013-01-01T00:00:00Z"}, {"price": "DECIMAL(9, 2)"}),
        ({20: "20,1.25,yesterday", 25: "25,1.25,soon"}, {"at": "TIMESTAMPTZ"}),
        ({20: "x,1.25,2013-01-01T00:00:00Z"}, {"id": "BIGINT"}),
        ({20: "20,1.25"}, None),
    ],
)
def test_a_csv_file_in_batches_is_refused_in_the_words_of_its_table(tmp_path, change, types):
    lines = ["id,price,at", *(change.get(i, line) for i, line in enumerate(BAD))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table, batches = refusals(CsvSource("t.csv", types=types), tmp_path)
    assert batches == table


@pytest.mark.parametrize(
    "source",
    [
        ParquetSource("t.parquet", event_key=["gone"]),
        ParquetSource("t.parquet", event_timestamp="gone"),
        ParquetSource("t.parquet", set_aside=[SetAside("id >= 0", "all")]),
        ParquetSource("t.parquet", set_aside=[SetAside("nonsense > 0", "none")]),
        ParquetSource("empty.parquet"),
        ParquetSource("cut.parquet"),
        ParquetSource("t*s.parquet"),
    ],
)
def test_a_parquet_file_in_batches_is_refused_in_the_words_of_its_table(tmp_path, source):
    table = rows_of(30).select(["id", "amount"])
    pq.write_table(table, tmp_path / "t.parquet")
    pq.write_table(table, tmp_path / "t1s.parquet")
    pq.write_table(table.select(["id"]), tmp_path / "t2s.parquet")
    pq.write_table(table.slice(0, 0), tmp_path / "empty.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:-40])
    table_said, batches_said = refusals(source, tmp_path)
    assert batches_said == table_said


def test_rules_take_the_same_rows_out_of_batches(tmp_path):
    pq.write_table(rows_of(60).drop_columns(["at"]), tmp_path / "t.parquet")
    rules = [SetAside("amount > 5", "too much"), SetAside("amount > 0 OR id = 3", "more")]
    reading, streamed = both(ParquetSource("t.parquet", set_aside=rules), tmp_path, tmp_path / "out.parquet")
    assert [one.count for one in streamed.set_aside] == [one.rows.num_rows for one in reading.set_aside]
    assert_same(reading, streamed, tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        FrameSource(pa.table({"id": [1]}), name="t"),
        ParquetSource("t.parquet", set_aside=[SetAside("id > (SELECT avg(id) FROM rows)", "large")]),
        CsvSource("t.csv", event_timestamp="id"),
    ],
)
def test_what_needs_the_table_is_not_taken_in_batches(tmp_path, source):
    pq.write_table(rows_of(5), tmp_path / "t.parquet")
    pyarrow.csv.write_csv(pa.table({"id": [1, 2]}), tmp_path / "t.csv")
    assert in_batches.take(source, folder=tmp_path, path=tmp_path / "out.parquet") is None
    assert not (tmp_path / "out.parquet").exists()


# Expectations

SHOPS = FrameSource(pa.table({"name": ["a", "b"]}), name="shops")
EXPECTED = [
    expect.between("amount", -8, 8),
    expect.between("amount", -15, 15, at_most=0.5),
    expect.between("amount", None, 3),
    expect.between("shop", 0, 1),
    expect.between("at", "1975-01-01T00:00Z", None),
    expect.not_null("amount"),
    expect.not_null("nan", at_most=0.9),
    expect.not_null("gone"),
    expect.unique("id"),
    expect.unique(["shop", "nan"]),
    expect.unique(["day", "shop"]),
    expect.unique("tags"),
    expect.one_of("shop", ["a", "b"]),
    expect.one_of("id", ["a"]),
    expect.references("shop", SHOPS, "name"),
    expect.references("shop", SHOPS, "gone"),
    expect.references("long", SHOPS, "name"),
    expect.sql("amount < 9 OR shop = 'c'", "no large ones"),
    expect.sql("nonsense"),
    expect.rows(at_least=50),
    expect.rows(at_most=10),
    expect.columns({"id": "int", "amount": "int", "gone": "float"}),
    expect.fresh("at", "2d"),
    expect.fresh("none", "2d"),
    expect.volume(at_least=0.5),
    expect.label_rate("shop", positive="a", at_least=0.9, severity="warn"),
]


@quick
@given(count=st.integers(1, 90), seed=st.integers(0, 9))
def test_a_report_on_a_file_is_the_report_on_its_table(tmp_path_factory, count, seed):
    folder = tmp_path_factory.mktemp("t")
    pq.write_table(rows_of(count, seed), folder / "t.parquet")
    source = ParquetSource("t.parquet", event_timestamp="at", timezone="UTC", event_key=["id"], expectations=EXPECTED)
    reading, streamed = both(source, folder, folder / "out.parquet")
    others = {"shops": SHOPS.frame}
    assert in_batches.can_check(source)
    of_table = check(source, reading.table, others, removed=reading.set_aside)
    assert in_batches.check(source, streamed, others) == of_table


def test_a_condition_that_looks_at_other_rows_needs_the_table():
    assert not in_batches.can_check(
        ParquetSource("t.parquet", expectations=[expect.sql("id <= (SELECT max(id) FROM rows)")])
    )


def test_values_of_two_columns_are_looked_up_beside_each_other():
    a = in_batches.values_of([pa.table({"a": [1, 2, 2]}), pa.table({"a": [3, 1]})], "a")
    found = in_batches.beside(a, in_batches.values_of([pa.table({"b": ["x"]})], "b"))
    assert pc.drop_null(found["a"]).to_pylist() == [1, 2, 3]
    assert pc.drop_null(found["b"]).to_pylist() == ["x"]


MEASURED = """
import sys
from pathlib import Path
from seatrial.data import in_batches
from seatrial.data.expectations import expect
from seatrial.data.profile import profile_of
from seatrial.data.sources import ParquetSource
def peak():  # not ru_maxrss, which starts with the memory of the parent
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
def once(name):
    said = [expect.unique("id"), expect.between("x0", -9, 9), expect.not_null("t"), expect.sql("x1 < 99")]
    source = ParquetSource(name, expectations=said)
    rows = in_batches.take(source, folder=Path(sys.argv[1]), path=Path(sys.argv[1]) / f"out_{name}")
    assert in_batches.check(source, rows).passed
    profile_of(rows.tables)
once("small.parquet")
before = peak()
once("large.parquet")
print((peak() - before) // 1024)
"""


@pytest.mark.slow
def test_a_large_file_is_taken_and_checked_in_less_memory_than_its_table(tmp_path):
    rows = 400_000
    random = np.random.default_rng(1)
    texts = pa.array([f"{i:064d}" for i in range(1000)]).take(pa.array(random.integers(0, 1000, rows)))
    numbers = {f"x{i}": random.normal(size=rows) for i in range(32)}
    table = pa.table({"id": random.permutation(rows), **numbers, "t": texts})
    assert table.nbytes > 126 << 20
    pq.write_table(table.slice(0, 132_000), tmp_path / "small.parquet")
    pq.write_table(table, tmp_path / "large.parquet", row_group_size=rows, compression="none", use_dictionary=False)
    said = subprocess.run([sys.executable, "-c", MEASURED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(said.stdout) <= 64
