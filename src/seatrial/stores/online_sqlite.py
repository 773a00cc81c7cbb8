"""The online store on SQLite: one file, written in one transaction at a time, read without waiting (WAL)."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from pathlib import Path

from seatrial.core.errors import Failed, Unavailable
from seatrial.stores.online import (
    Key,
    OnlineStoreDamaged,
    OnlineStoreFull,
    OnlineStoreTooNew,
    OnlineStoreUnavailable,
    Result,
    Rows,
)

FORMAT = 1
MOST_KEYS = 500  # in one statement
PAGES_IN_LOG = 8192  # of 4 KiB, until they are written back: each time waits for the disk


class SqliteOnlineStore:
    """Packed rows in one SQLite file.

    One instance may be used by many threads; each has its own connection. A reader or writer that waits longer
    than `busy_seconds` for another gets OnlineStoreUnavailable.
    lazy: the file is opened, and made where there is none, by the first call; what is wrong with it is raised there,
        and the next call looks again.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 30.0, read_only: bool = False, lazy: bool = False) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._read_only = read_only
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._prepared = False
        if not lazy:
            self._prepare()

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        """The packed row of each key, in order; None where there is none. One statement, one consistent state."""
        if not keys:
            return []
        connection = self._connection()
        try:
            return _select(connection, keys)
        except sqlite3.Error as error:
            self._forget(connection)
            raise self._explained(error) from None

    def update(self, change: Callable[[Rows], Result]) -> Result:
        """Let `change` read and write rows in one transaction, all of its writes or none; what it returned.

        It may be called again, from the start, when another writer came between.
        """
        connection = self._connection()
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                rows = _Rows(connection)
                result = change(rows)
                rows.write()
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._explained(error) from None
        return result

    def count(self, view: str) -> int:
        """Number of entities of a view."""
        connection = self._connection()
        try:
            row = connection.execute("SELECT count(*) FROM rows WHERE view = ?", (view,)).fetchone()
        except sqlite3.Error as error:
            raise self._explained(error) from None
        return int(row[0])

    def close(self) -> None:
        """Close the connections of every thread."""
        for connection in self._opened:
            connection.close()
        self._opened.clear()
        self._local = threading.local()

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection to a file that was found to be a store of this format."""
        if not self._prepared:
            self._prepare()
        try:
            return self._connect()
        except sqlite3.Error as error:
            raise self._explained(error) from None

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            where = f"{self._path.resolve().as_uri()}?mode={'ro' if self._read_only else 'rwc'}"
            connection = sqlite3.connect(
                where, uri=True, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
            )
            try:
                # a row can be rebuilt from its source, so a commit need not wait for the disk
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA mmap_size=268435456")
                connection.execute(f"PRAGMA wal_autocheckpoint={PAGES_IN_LOG}")
            except sqlite3.Error:
                connection.close()
                raise
            self._local.connection = connection
            self._opened.append(connection)
        return connection

    def _forget(self, connection: sqlite3.Connection) -> None:
        """The next call opens the file anew: a damaged one may have been replaced by then."""
        connection.close()
        self._opened.remove(connection)
        self._local.connection = None
        self._prepared = False

    def _prepare(self) -> None:
        try:
            if not self._read_only:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            connection = self._connect()
        except OSError as error:
            raise self._unavailable(error.strerror or str(error)) from None
        except sqlite3.Error as error:
            raise self._explained(error) from None
        try:
            if not self._read_only:
                self._create(connection)
            found = connection.execute("PRAGMA user_version").fetchone()[0]
        except sqlite3.Error as error:
            self._forget(connection)
            raise self._explained(error) from None
        if found > FORMAT:
            self._forget(connection)
            raise OnlineStoreTooNew(
                f"the online store {self._path.name} has format {found}; this version reads up to {FORMAT}.",
                next="Update seatrial.",
            )
        self._prepared = True

    def _create(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA user_version").fetchone()[0]:
            return  # nor wait for a writer
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] == 0:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS rows (view TEXT, entity BLOB, packed BLOB NOT NULL, "
                "PRIMARY KEY (view, entity)) WITHOUT ROWID"
            )
            connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")

    def _explained(self, error: sqlite3.Error) -> Failed | Unavailable:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_FULL:
            return OnlineStoreFull(
                f"there is no room for the online store {self._path.name}.", next="Make room; repeat."
            )
        no_store = code == sqlite3.SQLITE_ERROR or self._path.is_dir()  # a table that is missing, or is another
        if isinstance(error, sqlite3.OperationalError) and not no_store:
            return self._unavailable(str(error))
        return OnlineStoreDamaged(
            f"the online store {self._path.name} cannot be read: {error}.",
            next="Move the file away and run `seatrial materialize`; it is rebuilt from the sources.",
        )

    def _unavailable(self, why: str) -> OnlineStoreUnavailable:
        return OnlineStoreUnavailable(
            f"the online store {self._path.name} did not answer: {why}.",
            next="Try again; if it stays so, see `seatrial doctor`.",
        )


class _Rows:
    """`Rows` within a transaction that is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: dict[Key, bytes] = {}  # written together: many statements cost more than many rows

    def get(self, keys: Sequence[Key]) -> list[bytes | None]:
        self.write()
        found: list[bytes | None] = []
        for first in range(0, len(keys), MOST_KEYS):
            found += _select(self._connection, keys[first : first + MOST_KEYS])
        return found

    def put(self, key: Key, packed: bytes) -> None:
        self._waiting[key] = packed

    def delete(self, key: Key) -> None:
        self.write()
        self._connection.execute("DELETE FROM rows WHERE view = ? AND entity = ?", key)

    def write(self) -> None:
        """Write the rows that were put."""
        if self._waiting:
            self._connection.executemany(
                "INSERT INTO rows (view, entity, packed) VALUES (?, ?, ?) "
                "ON CONFLICT (view, entity) DO UPDATE SET packed = excluded.packed",
                [(*key, packed) for key, packed in self._waiting.items()],
            )
            self._waiting.clear()


def _select(connection: sqlite3.Connection, keys: Sequence[Key]) -> list[bytes | None]:
    if len(keys) == 1:
        row = connection.execute(_ONE, keys[0]).fetchone()
        return [row[0] if row else None]
    rows = connection.execute(_query(len(keys)), list(chain.from_iterable(keys)))
    found = {(view, entity): packed for view, entity, packed in rows}
    return [found.get(key) for key in keys]


_ONE = "SELECT packed FROM rows WHERE view = ? AND entity = ?"


@cache
def _query(keys: int) -> str:
    # a join from the keys looks each of them up; an IN over pairs would read the whole table
    marks = ",".join(["(?,?)"] * keys)
    return (
        f"WITH wanted(view, entity) AS (VALUES {marks}) SELECT rows.view, rows.entity, rows.packed "
        "FROM wanted CROSS JOIN rows ON rows.view = wanted.view AND rows.entity = wanted.entity"
    )
