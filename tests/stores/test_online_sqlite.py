"""The online store on SQLite: the conformance suite, and what is true of a file."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from seatrial.stores.online import OnlineStoreDamaged, OnlineStoreTooNew, OnlineStoreUnavailable
from seatrial.stores.online_sqlite import SqliteOnlineStore
from seatrial.testing import OnlineStoreSuite
from seatrial.testing.online_suite import put


class TestSqliteOnlineStore(OnlineStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path):
        opened = []

        def open_store():
            opened.append(SqliteOnlineStore(tmp_path / "online.db"))
            return opened[-1]

        yield open_store
        for store in opened:
            store.close()


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / "online.db"
    file.write_bytes(b"not a database" * 1000)
    with pytest.raises(OnlineStoreDamaged, match="materialize"):
        SqliteOnlineStore(file)
    assert file.read_bytes() == b"not a database" * 1000


def test_a_store_of_a_newer_version_is_refused(tmp_path):
    SqliteOnlineStore(tmp_path / "online.db").close()
    with sqlite3.connect(tmp_path / "online.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(OnlineStoreTooNew, match="99"):
        SqliteOnlineStore(tmp_path / "online.db")


def test_a_writer_that_waits_too_long_says_that_it_may_be_tried_again(tmp_path):
    store = SqliteOnlineStore(tmp_path / "online.db", busy_seconds=0.05)
    holder = sqlite3.connect(tmp_path / "online.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(OnlineStoreUnavailable):
        put(store, {("view", b"a"): b"1"})
    assert store.get([("view", b"a")]) == [None]  # reading never waits for a writer
    holder.execute("ROLLBACK")
    holder.close()
    put(store, {("view", b"a"): b"1"})
    assert store.get([("view", b"a")]) == [b"1"]
    store.close()


def test_a_store_is_opened_and_read_while_another_writes(tmp_path):
    path = tmp_path / "online.db"
    with closing(SqliteOnlineStore(path)) as store:
        store.update(lambda rows: rows.put(("v", b"k"), b"row"))
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with closing(SqliteOnlineStore(path, busy_seconds=0.0)) as store:
            assert store.get([("v", b"k")]) == [b"row"]


def test_a_file_whose_table_is_another_or_missing_is_damaged(tmp_path):
    for name, table in (("none.db", "other (x)"), ("another.db", "rows (x)")):
        with closing(sqlite3.connect(tmp_path / name)) as made:
            made.execute(f"CREATE TABLE {table}")
            made.execute("PRAGMA user_version=1")
        with closing(SqliteOnlineStore(tmp_path / name)) as store, pytest.raises(OnlineStoreDamaged):
            store.get([("v", b"k")])
    (tmp_path / "folder.db").mkdir()
    with pytest.raises(OnlineStoreDamaged):
        SqliteOnlineStore(tmp_path / "folder.db")
