"""Sinks: the same batch twice leaves the same rows, other batches' rows stay, and nobody sees a half."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.serving.batch.sinks import (
    BadSink,
    Batch,
    FolderSink,
    OnlineSink,
    SinkBusy,
    SinkDiffers,
    SinkTaken,
    SinkUnwritable,
    only_one,
    open_sink,
)
from seatrial.serving.scoring.stored import read
from seatrial.stores.online import open_online
from tests.data.postgres_server import PostgresServer

ONE, OTHER = Batch("a" * 32, "1", rows=3), Batch("b" * 32, "1", rows=3)
DAYS = [datetime(2024, 1, day, 23, 59, tzinfo=UTC) for day in (1, 2, 2)]


@pytest.fixture(scope="module")
def postgres():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(params=["file", "folder", "delta", "sqlite", "postgres"])
def kind(request):
    return request.param


@pytest.fixture
def address(kind, request, tmp_path):
    if kind == "postgres":
        server = request.getfixturevalue("postgres")
        server.run("DROP TABLE IF EXISTS answers")
        url = server.url
        return url + ("&" if "?" in url else "?") + "table=answers"
    return {"file": "out.parquet", "folder": "out", "delta": "delta:table", "sqlite": "sqlite:///db?table=answers"}[
        kind
    ]


@pytest.fixture
def sink(address, tmp_path):
    return open_sink(address, folder=tmp_path)


def answers(*flights):
    return pa.table(
        {
            "flight": list(flights),
            "at": pa.array(DAYS[: len(flights)], pa.timestamp("us", "UTC")),
            "prediction": pa.array(range(len(flights)), pa.int64()),
            "probability": [0.1 + 0.2 * place for place in range(len(flights))],
            "release": ["rel_1"] * len(flights),
            "model_version": ["1"] * len(flights),
        }
    )


def put(sink, batch, table):
    return sink.write(batch, table.schema, iter([table.slice(0, 1), table.slice(1)]))


def failing(table):
    yield table.slice(0, 1)
    raise RuntimeError("no more")


def found(kind, address, tmp_path):
    """Every row, as (flight, probability), sorted."""
    if kind == "file":
        rows = pq.read_table(tmp_path / "out.parquet")
    elif kind == "folder":
        rows = pq.read_table(tmp_path / "out")
    elif kind == "delta":
        from deltalake import DeltaTable

        rows = pa.table(DeltaTable(tmp_path / "table").to_pyarrow_table())
    else:
        query = "SELECT flight, probability FROM answers"
        if kind == "sqlite":
            with sqlite3.connect(tmp_path / "db") as connection:
                told = connection.execute(query).fetchall()
            connection.close()
            return sorted(told)
        import psycopg

        with psycopg.connect(address.replace("?table=answers", "").replace("&table=answers", "")) as connection:
            return sorted(connection.execute(query).fetchall())
    return sorted(zip(rows["flight"].to_pylist(), rows["probability"].to_pylist(), strict=True))


def test_the_same_batch_twice_leaves_the_same_rows(sink, kind, address, tmp_path):
    table = answers("a", "b", "c")
    assert not sink.check(ONE, table.schema)
    assert put(sink, ONE, table) == 3
    before = found(kind, address, tmp_path)
    assert before == [("a", 0.1), ("b", 0.1 + 0.2), ("c", 0.1 + 0.4)]
    assert sink.check(ONE, table.schema)
    put(sink, ONE, table)
    assert found(kind, address, tmp_path) == before


def test_a_batch_replaces_what_it_wrote_before(sink, kind, address, tmp_path):
    put(sink, ONE, answers("a", "b", "c"))
    newer = Batch(ONE.id, "2", rows=-1)
    assert not sink.check(newer, answers("d").schema)
    put(sink, newer, answers("d"))
    assert found(kind, address, tmp_path) == [("d", 0.1)]


def test_rows_that_end_half_way_leave_what_was_there(sink, kind, address, tmp_path):
    table = answers("a", "b")
    put(sink, ONE, table)
    with pytest.raises(Exception, match=r"no more|took no rows|cannot be written"):
        sink.write(ONE, table.schema, failing(answers("x", "y")))
    assert [flight for flight, _ in found(kind, address, tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("kind", ["delta", "sqlite", "postgres"])
def test_a_table_holds_many_batches(sink, kind, address, tmp_path):
    put(sink, ONE, answers("a", "b"))
    put(sink, OTHER, answers("c"))
    put(sink, ONE, answers("d"))
    assert [flight for flight, _ in found(kind, address, tmp_path)] == ["c", "d"]


@pytest.mark.parametrize("kind", ["delta", "sqlite", "postgres"])
def test_a_table_with_other_columns_is_left_alone(sink, kind, address, tmp_path):
    put(sink, ONE, answers("a", "b"))
    with pytest.raises(SinkDiffers, match="more"):
        sink.check(ONE, answers("a").append_column("more", pa.array([1])).schema)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_or_folder_is_one_batch_s(sink, kind, address, tmp_path):
    put(sink, ONE, answers("a"))
    with pytest.raises(SinkTaken):
        sink.check(OTHER, answers("a").schema)
    assert sorted(path.name for path in tmp_path.iterdir()) == [address]


def test_a_folder_with_files_of_others_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    sink = open_sink("out", folder=tmp_path)
    assert not sink.check(ONE, answers("a").schema)  # an empty one is nobody's
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(SinkTaken):
        sink.check(ONE, answers("a").schema)


def test_a_folder_that_was_put_aside_by_a_process_that_died_comes_back(tmp_path):
    sink = FolderSink(tmp_path / "out")
    put(sink, ONE, answers("a"))
    (tmp_path / "out").rename(tmp_path / ".out.before")
    assert sink.check(ONE, answers("a").schema)


@pytest.mark.parametrize("kind", ["folder", "delta"])
def test_rows_may_be_divided_by_day(kind, address, tmp_path):
    sink = open_sink(address, folder=tmp_path, by_day="at")
    put(sink, ONE, answers("a", "b", "c"))
    put(sink, ONE, answers("a", "b", "c"))
    folder = tmp_path / ("out" if kind == "folder" else "table")
    assert sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name.startswith("day")) == [
        "day=2024-01-01",
        "day=2024-01-02",
    ]
    with pytest.raises(BadSink):
        sink.check(ONE, answers("a").drop(["at"]).schema)


def test_the_online_store_keeps_the_newest_answer_of_each_key(tmp_path):
    online = open_online("sqlite:///online.db", folder=tmp_path, project="p")
    sink = OnlineSink(online, "late", ["flight"], "at")
    assert not sink.check(ONE, answers("a").schema)
    put(sink, ONE, answers("a", "b"))
    put(sink, ONE, answers("a", "b"))
    assert read(online, "late", "b").probability == 0.1 + 0.2
    assert read(online, "late", "b").as_of == DAYS[1]
    with pytest.raises(BadSink, match="tail"):
        OnlineSink(online, "late", ["tail"], "at").check(ONE, answers("a").schema)
    online.close()


@pytest.mark.parametrize(
    "address",
    ["s3://bucket/x", "", "postgresql://u:hidden@h/db", "sqlite:///x", "sqlite:///x?table=a;b", "mysql://u:hidden@h/d"],
)
def test_what_is_no_output_is_told_without_its_password(address, tmp_path):
    with pytest.raises(BadSink) as error:
        open_sink(address, folder=tmp_path)
    assert "hidden" not in str(error.value)


def test_a_server_that_is_away_is_told_without_its_password(tmp_path):
    sink = open_sink("postgresql://u:hidden@127.0.0.1:9/db?table=t", folder=tmp_path)
    with pytest.raises(SinkUnwritable) as error:
        sink.check(ONE, answers("a").schema)
    assert "hidden" not in str(error.value) + sink.shown


def test_a_folder_that_takes_nothing_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    sink = open_sink("file/out.parquet", folder=tmp_path)
    with pytest.raises(SinkUnwritable):
        put(sink, ONE, answers("a"))


def test_one_at_a_time(tmp_path):
    with only_one(tmp_path / "lock", "out"), pytest.raises(SinkBusy), only_one(tmp_path / "lock", "out"):
        pass
    with only_one(tmp_path / "lock", "out"):
        pass
