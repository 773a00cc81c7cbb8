"""The metadata store: which records exist, what happened to them, and which is current?

One SQLite file holds records, their inputs, the hash-chained events, the heads and an outbox for other systems.
Records and events are only ever added. A writer has the file for itself from the start of its transaction, so what
it reads stays true until it commits; readers never wait for a writer. A commit returns after the disk has it.

Nothing that sqlite3 raises leaves this module: see the errors below.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from seatrial.core.clock import machine_us, monotonic
from seatrial.core.errors import Conflict, Failed, SeatrialError, Unavailable, UsageError, listed
from seatrial.core.identity import canonical_json, uuid7
from seatrial.core.records import GENESIS, Event, Head, Record, event_hash, record_digest

BUSY_SECONDS = 30.0
APPLICATION_ID = 0x53544D44  # "STMD" in the file's header: whose file this is
EVENT_FORMAT = 1
MOST_FOUND = 20
READ_ONLY = "ro&immutable=1"

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # seq is the order of arrival
        "CREATE TABLE records (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, "
        "name TEXT NOT NULL, format INTEGER NOT NULL, body TEXT NOT NULL)",
        "CREATE INDEX records_by_kind ON records (kind, name)",
        "CREATE TABLE record_inputs (record_id TEXT NOT NULL, position INTEGER NOT NULL, input_id TEXT NOT NULL, "
        "PRIMARY KEY (record_id, position))",
        "CREATE INDEX record_inputs_by_input ON record_inputs (input_id, record_id)",
        # AUTOINCREMENT: the file remembers the highest seq ever given, so a tail that is cut off leaves a trace
        "CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, format INTEGER NOT NULL, kind TEXT NOT NULL, "
        "subject TEXT NOT NULL, records TEXT NOT NULL, actor TEXT NOT NULL, asserted INTEGER NOT NULL, "
        "at_us INTEGER NOT NULL, recorded_at_us INTEGER NOT NULL, body TEXT NOT NULL, previous TEXT NOT NULL, "
        "hash TEXT NOT NULL)",
        "CREATE INDEX events_by_subject ON events (subject)",
        "CREATE INDEX events_by_kind ON events (kind)",
        "CREATE TABLE heads (kind TEXT NOT NULL, name TEXT NOT NULL, record_id TEXT NOT NULL, "
        "generation INTEGER NOT NULL, PRIMARY KEY (kind, name))",
        "CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, body TEXT NOT NULL)",
        "CREATE INDEX outbox_by_topic ON outbox (topic, seq)",
        "CREATE TABLE migrations (number INTEGER PRIMARY KEY, applied_us INTEGER NOT NULL)",
    ),
)
"""The statements of each migration, from number 1. Only ever appended to; the file's format is the last number."""


class MetadataBusy(Unavailable):
    """Another process kept the metadata store for too long."""

    code = "metadata.busy"


class MetadataUnwritable(Unavailable):
    """The disk under the metadata store is full or failing."""

    code = "metadata.unwritable"


class MetadataUnreachable(Failed):
    """The metadata store's file cannot be opened, made or written: a folder, rights, a read-only disk."""

    code = "metadata.unreachable"


class MetadataDamaged(Failed):
    """The metadata store's file is not what was written to it."""

    code = "metadata.damaged"


class MetadataTooNew(Failed):
    """The metadata store, or an event in it, was written by a newer version."""

    code = "metadata.too_new"


class NotMetadata(Failed):
    """The file is a database of another program."""

    code = "metadata.not_ours"


class MigrationFailed(Failed):
    """The metadata store could not be brought to this version's format."""

    code = "metadata.migration_failed"


class RecordDiffers(Conflict):
    """A record with this id is kept already, with other content."""

    code = "metadata.record_differs"


class HeadMoved(Conflict):
    """Somebody else moved the head first. facts: `head` as it is now (None: there is none) and `expected`."""

    code = "metadata.head_moved"


class UnknownRecord(UsageError):
    """A head was to name a record that is not kept."""

    code = "metadata.unknown_record"


class NotPlain(UsageError):
    """A value cannot be kept as plain JSON."""

    code = "metadata.not_plain"


@dataclass(frozen=True)
class UnreadableEvent:
    """A row of the log that is no event any more; see `MetadataStore.chain`."""

    seq: int
    reason: str


class MetadataStore:
    """Records, events, heads and the outbox in one SQLite file.

    path: made with its folders when it is not there; a file of an older format is copied beside itself
        (`NAME.format-N.backup`) and then migrated.
    busy_seconds: how long to wait for another writer before MetadataBusy.
    make: False leaves a file that is not there, or has no byte, to the first transaction; until then it is empty.
    read_only: never writes, not even beside the file; for the store of another project. It must be there.

    A user who may not write the file or its folder can read it; a transaction is then refused.
    One instance may be used by many threads, and after a fork by the child: each call takes a connection of its own
    from a pool, and a transaction keeps its connection to its end. Reads by the thread that is inside a transaction
    see what that transaction wrote.
    Raises NotMetadata, MetadataTooNew, MetadataDamaged, MetadataUnreachable, MigrationFailed.
    """

    def __init__(
        self, path: Path, *, busy_seconds: float = BUSY_SECONDS, make: bool = True, read_only: bool = False
    ) -> None:
        self.path = path
        self._read_only = read_only
        self._busy_seconds = busy_seconds
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._inherited: list[sqlite3.Connection] = []
        self._pid = os.getpid()
        self._closed = False
        self._mine = threading.local()
        self._prepared = False
        self._mode = "rw"
        if make or self._is_made():
            self._prepare()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One write transaction: everything in the block is kept when it ends, or nothing when it raises.

        Waits until no other writer is at work; do nothing slow inside, and never call a network.
        """
        if getattr(self._mine, "connection", None) is not None:
            raise RuntimeError("this thread is inside a transaction; pass that one on")
        if not self._prepared:
            self._prepare()
        connection = self._take()
        transaction = Transaction(self, connection)
        try:
            with self._explaining():
                connection.execute("BEGIN IMMEDIATE")
                self._refuse_newer(_version(connection))
            self._mine.connection = connection
            yield transaction
            with self._explaining():
                transaction._require_open().execute("COMMIT")
        finally:
            self._mine.connection = None
            transaction._connection = None
            self._release(connection)

    def record(self, record_id: str) -> Record | None:
        """The record with this id, or None."""
        found = self._records("r.id = ?", (record_id,))
        return found[0] if found else None

    def records(self, kind: str, name: str | None = None, *, newest: int | None = None) -> list[Record]:
        """Records of a kind, or those of one name, oldest first; the `newest` of them, without reading the others."""
        where, values = ("r.kind = ?", [kind]) if name is None else ("r.kind = ? AND r.name = ?", [kind, name])
        if newest is None:
            return self._records(where, values)
        last = f"SELECT r.seq FROM records r WHERE {where} ORDER BY r.seq DESC LIMIT ?"
        return self._records(f"r.seq IN ({last})", [*values, newest])

    def made_from(self, record_id: str) -> list[Record]:
        """Records that name `record_id` among their inputs, oldest first."""
        return self._records("r.id IN (SELECT record_id FROM record_inputs WHERE input_id = ?)", (record_id,))

    def find(self, prefix: str) -> list[str]:
        """Record ids that start with `prefix`, sorted; the first 20."""
        rows = self._read(
            "SELECT id FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (prefix, prefix + chr(0x10FFFF), MOST_FOUND),
        )
        return [row[0] for row in rows]

    def head(self, kind: str, name: str) -> Head | None:
        """What is current for (kind, name), or None."""
        rows = self._read(
            "SELECT kind, name, record_id, generation FROM heads WHERE kind = ? AND name = ?", (kind, name)
        )
        return Head(*rows[0]) if rows else None

    def heads(self, kind: str) -> list[Head]:
        """Every head of a kind, by name."""
        rows = self._read("SELECT kind, name, record_id, generation FROM heads WHERE kind = ? ORDER BY name", (kind,))
        return [Head(*row) for row in rows]

    def events(
        self, *, subject: str | None = None, kind: str | None = None, after: int = 0, limit: int | None = None
    ) -> list[Event]:
        """Events in order, oldest first: those about `subject`, of `kind`, with seq > `after`; at most `limit`.

        Raises MetadataDamaged when one of them cannot be read, MetadataTooNew when one has a newer format.
        """
        where, values = ["seq > ?"], [after]
        for column, value in (("subject", subject), ("kind", kind)):
            if value is not None:
                where.append(f"{column} = ?")
                values.append(value)  # type: ignore[arg-type]
        found = []
        for event in self._chain(" AND ".join(where), values, limit):
            if isinstance(event, UnreadableEvent):
                raise self._damaged(f"event {event.seq} {event.reason}", seq=event.seq)
            if event.format > EVENT_FORMAT:
                raise MetadataTooNew(
                    f"event {event.seq} has the format {event.format}; this version reads up to {EVENT_FORMAT}.",
                    next="Update seatrial.",
                )
            found.append(event)
        return found

    def chain(self, *, after: int | None = None, limit: int | None = None) -> list[Event | UnreadableEvent]:
        """The log exactly as it lies in the file, for whoever verifies it: nothing is skipped, nothing raises.

        after: only what has a higher seq; None: all, even a seq below 1, which nobody gave.
        """
        return self._chain("1 = 1" if after is None else "seq > ?", [] if after is None else [after], limit)

    def last_event(self) -> Event | None:
        """The newest event, or None when nothing has happened yet."""
        rows = self._read(f"SELECT {_EVENT} FROM events ORDER BY seq DESC LIMIT 1", ())
        found = _event(rows[0]) if rows else None
        if isinstance(found, UnreadableEvent):
            raise self._damaged(f"event {found.seq} {found.reason}", seq=found.seq)
        return found

    def appended(self) -> int:
        """The highest seq ever given to an event, also when that event was taken out of the file since."""
        rows = self._read(_APPENDED, ())
        return int(rows[0][0]) if rows else 0

    def pending(self, topic: str) -> list[tuple[int, dict[str, Any]]]:
        """Messages of the outbox that wait, oldest first, each with the number that `done` takes."""
        rows = self._read("SELECT seq, body FROM outbox WHERE topic = ? ORDER BY seq", (topic,))
        return [(seq, self._decoded(body, f"message {seq} of the outbox")) for seq, body in rows]

    def done(self, topic: str, seq: int) -> None:
        """Take a message off the outbox. When it is gone already, nothing happens."""
        with self.transaction() as transaction:
            transaction.done(topic, seq)

    def close(self) -> None:
        """Close the file. A transaction that is open in another thread ends first; then the store is of no use."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # Reading

    def _records(self, where: str, values: Sequence[Any]) -> list[Record]:
        """One statement, so that a record and its inputs come from one state."""
        rows = self._read(
            "SELECT r.id, r.kind, r.name, r.format, r.body, i.input_id FROM records r "
            f"LEFT JOIN record_inputs i ON i.record_id = r.id WHERE {where} ORDER BY r.seq, i.position",
            values,
        )
        inputs: dict[str, list[str]] = {}
        for row in rows:
            inputs.setdefault(row[0], []).extend(() if row[5] is None else (row[5],))
        first = {row[0]: row for row in reversed(rows)}
        return [
            Record(record_id, first[record_id][1], first[record_id][2], tuple(names), body, first[record_id][3])
            for record_id, names in inputs.items()
            for body in [self._decoded(first[record_id][4], f"the body of record '{record_id}'")]
        ]

    def _chain(self, where: str, values: Sequence[Any], limit: int | None) -> list[Event | UnreadableEvent]:
        sql = f"SELECT {_EVENT} FROM events WHERE {where} ORDER BY seq LIMIT ?"
        values = (*values, -1 if limit is None else limit)
        if not self._is_made():
            return []
        with self._connection() as connection:
            try:
                rows = connection.execute(sql, values).fetchall()
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
                # bytes that are no text must not hide the events around them
                connection.text_factory = _lenient_text
                rows = connection.execute(sql, values).fetchall()
                connection.text_factory = str
        return [_event(row) for row in rows]

    def _decoded(self, text: Any, what: str) -> dict[str, Any]:
        try:
            return _plain(text)
        except msgspec.MsgspecError:
            raise self._damaged(f"{what} is no JSON object") from None

    def _read(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not self._is_made():
            return []
        with self._connection() as connection:
            return connection.execute(sql, values).fetchall()

    # Connections

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """The connection of this thread's transaction, or one for the block; what sqlite3 raises is explained."""
        mine: sqlite3.Connection | None = getattr(self._mine, "connection", None)
        connection = mine or self._take()
        try:
            with self._explaining():
                yield connection
        finally:
            if mine is None:
                self._release(connection)

    def _take(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise RuntimeError("this metadata store is closed")
            if self._pid != os.getpid():
                # closing a connection that a parent process opened would end the parent's locks: leave them alone
                self._inherited += self._idle
                self._idle = []
                self._pid = os.getpid()
            if self._idle:
                return self._idle.pop()
        with self._explaining():
            return self._connect(self._mode)

    def _release(self, connection: sqlite3.Connection) -> None:
        """Back to the pool, outside of any transaction."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()  # which rolls back as well
            return
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self, mode: str) -> sqlite3.Connection:
        """mode: "rw", or "rwc" to make the file. Later connections never make it: a vanished file is an error.

        READ_ONLY: as the file is, without the files that SQLite keeps beside it.
        """
        connection = sqlite3.connect(
            f"{self.path.resolve().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_seconds,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            connection.execute("PRAGMA synchronous=FULL")  # reads the file
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    # Format

    def _is_made(self) -> bool:
        """Whether there is a file to read; one that another process made meanwhile is taken."""
        if not self._prepared:
            try:
                there = self.path.stat().st_size > 0
            except FileNotFoundError:
                return False
            except OSError as error:
                raise self._unreachable(error.strerror or str(error)) from None
            if there:
                self._prepare()
        return self._prepared

    def _prepare(self) -> None:
        if self._read_only:
            return self._prepare_to_read()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unreachable(error.strerror or str(error)) from None
        with self._explaining():
            connection = self._open()
            try:
                if self._found_format(connection) < len(MIGRATIONS):
                    self._use_wal(connection)
                    self._migrate(connection)
            except BaseException:
                connection.close()
                raise
        self._prepared = True
        self._release(connection)
        return None

    def _prepare_to_read(self) -> None:
        """Take the file as it is; while a writer has a log beside it, with that log."""
        log = self.path.with_name(f"{self.path.name}-wal")
        self._mode = "ro" if log.exists() and log.stat().st_size else READ_ONLY
        with self._explaining():
            connection = self._connect(self._mode)
            try:
                found = self._found_format(connection)
            except BaseException:
                connection.close()
                raise
        self._release(connection)
        if found < len(MIGRATIONS):
            raise MigrationFailed(
                f"the metadata store {self.path} has the format {found}, and is only read here.",
                expected=f"The format {len(MIGRATIONS)} is expected.",
                next="Run `seatrial status` in its own project, which brings it up to date.",
            )
        self._prepared = True

    def _open(self) -> sqlite3.Connection:
        """The first connection. SQLite reads a write-ahead log only where it may write beside it; a user who may not
        reads the file itself, which holds everything as long as no log lies beside it."""
        try:
            return self._connect("rwc")
        except sqlite3.Error as error:
            log = self.path.with_name(f"{self.path.name}-wal")
            whole = self.path.is_file() and not (log.exists() and log.stat().st_size)
            if not whole or _primary(error) not in _NO_RIGHTS:
                raise
        self._mode = READ_ONLY
        return self._connect(READ_ONLY)

    def _found_format(self, connection: sqlite3.Connection) -> int:
        """The file's format, 0 for a new file. Raises NotMetadata and MetadataTooNew."""
        own = connection.in_transaction
        if not own:
            connection.execute("BEGIN")  # one state for the three questions
        try:
            owner = connection.execute("PRAGMA application_id").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            found = _version(connection)
        finally:
            if not own and connection.in_transaction:
                connection.execute("ROLLBACK")
        if owner != APPLICATION_ID and (owner or tables or found):
            raise NotMetadata(
                f"{self.path} is a database of another program.",
                expected="A metadata file of seatrial, or a path where there is nothing yet, is expected.",
                next="Correct stores.metadata in seatrial.toml.",
            )
        self._refuse_newer(found)
        return found

    def _refuse_newer(self, found: int) -> None:
        if found > len(MIGRATIONS):
            raise MetadataTooNew(
                f"the metadata store {self.path} has the format {found}; this version reads up to {len(MIGRATIONS)}.",
                next="Update seatrial.",
            )

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Readers beside a writer. SQLite does not wait its busy time for this switch in all cases, so we do."""
        deadline = monotonic() + self._busy_seconds
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                if _primary(error) != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        found = number = self._found_format(connection)  # another process may have been faster
        try:
            if 0 < found < len(MIGRATIONS):
                self._back_up(found)
            for number, statements in enumerate(MIGRATIONS[found:], start=found + 1):
                for statement in statements:
                    connection.execute(statement)
                connection.execute("INSERT INTO migrations (number, applied_us) VALUES (?, ?)", (number, machine_us()))
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, sqlite3.Error) and _primary(error) in _OUTSIDE:
                raise
            raise MigrationFailed(
                f"migration {number} of the metadata store {self.path} failed: {error}.",
                state=f"The store has the format {found} as before.",
            ) from None

    def _back_up(self, found: int) -> None:
        """Copy the file as it is, while this process keeps every writer out. The copy appears whole or not at all."""
        backup = self.path.with_name(f"{self.path.name}.format-{found}.backup")
        unfinished = backup.with_name(f"{backup.name}.{uuid7()}")
        try:
            with closing(self._connect("rw")) as source, closing(sqlite3.connect(unfinished)) as copy:
                source.backup(copy)
            _sync(unfinished)
            unfinished.replace(backup)
            _sync(backup.parent)
        finally:
            unfinished.unlink(missing_ok=True)

    # Errors

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explained(error) from None
        except UnicodeError as error:
            raise NotPlain(
                f"a text cannot be kept in the metadata store: {error}.",
                expected="Texts must be valid Unicode.",
            ) from None
        except OverflowError:
            raise NotPlain(
                "a number is too large for the metadata store.", expected="Integers must fit into 64 bits."
            ) from None

    def _explained(self, error: sqlite3.Error) -> SeatrialError:
        primary = _primary(error)
        if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return MetadataBusy(
                f"the metadata store {self.path} was kept by another process for {self._busy_seconds:g} s.",
                next="Try again; if it stays so, see which process is at work with `seatrial doctor`.",
            )
        if primary in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return MetadataUnwritable(
                f"the disk did not take what was written to the metadata store {self.path}: {error}.",
                next="Make room on the disk and try again.",
            )
        if primary in _NO_RIGHTS:
            return self._unreachable(str(error))
        return self._damaged(str(error))

    def _unreachable(self, reason: str) -> MetadataUnreachable:
        return MetadataUnreachable(
            f"the metadata store {self.path} cannot be opened for writing: {reason}.",
            expected="A file in a folder that this user may write to is expected.",
            next="Correct the rights, or stores.metadata in seatrial.toml.",
        )

    def _damaged(self, reason: str, **facts: Any) -> MetadataDamaged:
        return MetadataDamaged(
            f"the metadata store {self.path} is damaged: {reason}.",
            expected="A file as seatrial wrote it is expected.",
            next="Keep the file, and put a backup in its place.",
            **facts,
        )


class Transaction:
    """One write transaction; made by `MetadataStore.transaction`, used by its thread, of no use after the block."""

    def __init__(self, store: MetadataStore, connection: sqlite3.Connection) -> None:
        self._store = store
        self._connection: sqlite3.Connection | None = connection
        self._uncovered: list[Record] = []  # added, and no event since

    def add(self, record: Record) -> bool:
        """Keep a record. False when it is there already, equal in everything.

        Raises RecordDiffers when one with this id is there and differs, NotPlain for a body that is not plain JSON
        (NaN and infinities are kept as null).
        """
        self._require_open()
        body = _text(record.body, f"the body of record '{record.id}'")
        there = self._store.record(record.id)
        if there is not None:
            other = [part for part in _PARTS if _differ(getattr(there, part), getattr(record, part))]
            if not other:
                return False
            raise RecordDiffers(
                f"record '{record.id}' is kept already, with another {listed(other)}.",
                expected="A record never changes; other content needs another id.",
                record_id=record.id,
            )
        self._run(
            "INSERT INTO records (id, kind, name, format, body) VALUES (?, ?, ?, ?, ?)",
            (record.id, record.kind, record.name, record.format, body),
        )
        for position, input_id in enumerate(record.inputs):
            self._run("INSERT INTO record_inputs VALUES (?, ?, ?)", (record.id, position, input_id))
        self._uncovered.append(replace(record, body=_plain(body)))
        return True

    def event(
        self,
        kind: str,
        subject: str,
        *,
        actor: str,
        at_us: int,
        body: dict[str, Any] | None = None,
        asserted: bool = True,
    ) -> Event:
        """Append an event to the log. at_us: domain time; the record time is the machine's.

        The event's hash covers the records that were added in this transaction since the event before, and the
        record that `subject` names, if it names one: add first, then tell.
        Raises NotPlain for a body that is not plain JSON (NaN and infinities are kept as null).
        """
        self._require_open()
        text = _text(body or {}, f"the body of event '{kind}'")
        named = self._store.record(subject)
        covered = [*self._uncovered, *([named] if named else [])]
        rows = self._run("SELECT hash FROM events ORDER BY seq DESC LIMIT 1", ())
        event = Event(
            seq=self._run(_APPENDED, ())[0][0] + 1,
            kind=kind,
            subject=subject,
            actor=actor,
            at_us=at_us,
            recorded_at_us=machine_us(),
            body=_plain(text),
            previous=rows[0][0] if rows else GENESIS,
            hash="",
            asserted=asserted,
            records={record.id: record_digest(record) for record in covered},
            format=EVENT_FORMAT,
        )
        with self._store._explaining():
            event = replace(event, hash=event_hash(event))
        values = [_column(getattr(event, name)) for name in _EVENT.split(", ")]
        self._run(f"INSERT INTO events ({_EVENT}) VALUES ({', '.join('?' * len(values))})", values)
        self._uncovered.clear()
        return event

    def head(self, kind: str, name: str) -> Head | None:
        """What is current for (kind, name); stays true until this transaction ends."""
        self._require_open()
        return self._store.head(kind, name)

    def move(self, kind: str, name: str, record_id: str, *, expected: int | None) -> Head:
        """Let (kind, name) name a kept record from now on; returns the head with its new generation.

        expected: the generation that the caller saw (0: there was no head); None: whatever it is now.
        Raises HeadMoved when it is another, UnknownRecord when no such record is kept.
        """
        now = self.head(kind, name)
        generation = now.generation if now else 0
        if expected is not None and expected != generation:
            there = f"names '{now.record_id}', generation {generation}" if now else "does not exist"
            raise HeadMoved(
                f"somebody else moved {kind} '{name}' first: it {there} now.",
                expected=f"Generation {expected} was expected." if expected else "It was expected not to exist.",
                next="Look at it again, then decide.",
                head=now,
                expected_generation=expected,
            )
        if not self._run("SELECT 1 FROM records WHERE id = ?", (record_id,)):
            raise UnknownRecord(
                f"{kind} '{name}' cannot name '{record_id}': no such record is kept.",
                expected="The record is added first, in the same transaction or before.",
            )
        if now is None:
            self._run("INSERT INTO heads VALUES (?, ?, ?, ?)", (kind, name, record_id, 1))
        else:
            self._run(
                "UPDATE heads SET record_id = ?, generation = ? WHERE kind = ? AND name = ?",
                (record_id, generation + 1, kind, name),
            )
        return Head(kind, name, record_id, generation + 1)

    def enqueue(self, topic: str, body: dict[str, Any]) -> None:
        """Leave a message for another system, to be sent after the commit. Raises NotPlain."""
        self._run("INSERT INTO outbox (topic, body) VALUES (?, ?)", (topic, _text(body, f"a message for '{topic}'")))

    def done(self, topic: str, seq: int) -> None:
        """Take a message off the outbox. When it is gone already, nothing happens."""
        self._run("DELETE FROM outbox WHERE topic = ? AND seq = ?", (topic, seq))

    def _run(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._store._explaining():
            return self._require_open().execute(sql, values).fetchall()

    def _require_open(self) -> sqlite3.Connection:
        """SQLite ends a transaction by itself when the disk fails; nothing may then be written outside of one."""
        if self._connection is None or not self._connection.in_transaction:
            raise RuntimeError("this transaction has ended")
        return self._connection


_EVENT = "seq, format, kind, subject, records, actor, asserted, at_us, recorded_at_us, body, previous, hash"
_PARTS = ("kind", "name", "inputs", "format", "body")
_APPENDED = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'events'"


class _EventRow(msgspec.Struct, array_like=True):
    """The types of the columns of _EVENT; SQLite keeps whatever it is given."""

    seq: int
    format: int
    kind: str
    subject: str
    records: str
    actor: str
    asserted: int
    at_us: int
    recorded_at_us: int
    body: str
    previous: str
    hash: str


def _event(row: tuple[Any, ...]) -> Event | UnreadableEvent:
    try:
        read = msgspec.convert(row, _EventRow)
        body, records = _plain(read.body), _plain(read.records)
    except (msgspec.MsgspecError, UnicodeError) as error:
        return UnreadableEvent(int(row[0]), f"cannot be read ({error})")
    return Event(
        seq=read.seq,
        kind=read.kind,
        subject=read.subject,
        actor=read.actor,
        at_us=read.at_us,
        recorded_at_us=read.recorded_at_us,
        body=body,
        previous=read.previous,
        hash=read.hash,
        asserted=bool(read.asserted),
        records=records,
        format=read.format,
    )


_object = msgspec.json.Decoder(dict[str, Any])


def _column(value: Any) -> Any:
    return canonical_json(value).decode() if isinstance(value, dict) else value


def _plain(text: Any) -> dict[str, Any]:
    """The JSON object in `text`. Raises MsgspecError when it is none."""
    if not isinstance(text, str):
        raise msgspec.DecodeError("not a text")
    try:
        return _object.decode(text)
    except (UnicodeError, RecursionError):
        raise msgspec.DecodeError("not valid Unicode, or nested too deeply") from None


def _text(body: dict[str, Any], what: str) -> str:
    """Canonical JSON of a plain object, which reads back as the same object. Raises NotPlain."""
    try:
        encoded = canonical_json(body)
        if canonical_json(_plain(encoded.decode())) == encoded:
            return encoded.decode()
        reason = "a number does not survive"
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        reason = str(error)
    raise NotPlain(
        f"{what} cannot be kept as JSON: {reason}.", expected="Plain values are expected: texts, numbers, lists."
    )


def _differ(there: Any, given: Any) -> bool:
    """As JSON: a tuple equals a list, but 1 is not 1.0."""
    return canonical_json(there) != canonical_json(given)


def _lenient_text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


_OUTSIDE = (  # causes that are not a migration's fault
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
)


_NO_RIGHTS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


def _primary(error: sqlite3.Error) -> int:
    """SQLite's primary result code; the driver's own errors have none and count as a plain error."""
    code = getattr(error, "sqlite_errorcode", None)
    return sqlite3.SQLITE_ERROR if code is None else int(code) & 0xFF


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
