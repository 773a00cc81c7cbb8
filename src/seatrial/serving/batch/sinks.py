"""Sinks: where a batch's answers go. A Parquet file, a folder of them, a Delta table, a table of a database.

A sink takes the rows of one batch whole, in the place of what the same batch wrote before, so that a batch may run any
number of times. Whoever looks at a sink sees the rows from before or those from after, never a part of them:

| sink | how |
|---|---|
| file, folder | written under a hidden name, then renamed to its own |
| delta:PATH | one commit, which takes the batch's rows of before away and adds the new ones |
| postgresql://..., sqlite:///... | one transaction, which deletes the batch's rows of before and adds the new ones |

A file or folder belongs to one batch; a table holds many, told apart by the column `batch_id`.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from seatrial.core.errors import Conflict, Failed, Unavailable, UsageError
from seatrial.core.identity import canonical_json, digest
from seatrial.serving.scoring import stored
from seatrial.stores.online import OnlineStore

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
NOTE = b"seatrial.batch"
"""The name under which a Parquet file's footer says which batch wrote it."""
ABOUT = "_seatrial_batch.json"
BATCH_ID = "batch_id"
DELTA, SQLITE, POSTGRES = "delta:", "sqlite:///", ("postgresql://", "postgres://")
ROWS_AT_ONCE = 65_536
FILE_ROWS = 2_000_000
"""Rows of one file of a folder, about."""

Rows = Iterator["pa.Table"]


class SinkBusy(Conflict):
    """Another batch writes to the same output."""

    code = "batch.output_busy"


class SinkTaken(Conflict):
    """The output holds what this batch did not write."""

    code = "batch.output_taken"


class SinkUnwritable(Unavailable):
    """The output takes no rows: the disk is full or failing, rights are missing, or the server does not answer."""

    code = "batch.output_unwritable"


class SinkDiffers(Failed):
    """A table has other columns than the answers."""

    code = "batch.output_differs"


class BadSink(UsageError):
    """Where answers are to go cannot be understood."""

    code = "batch.bad_output"


class SinkExtraMissing(UsageError):
    """An output needs a package that is not installed."""

    code = "batch.extra_missing"


class Batch(msgspec.Struct, frozen=True):
    """Which batch's rows they are.

    id: of the model and of what was asked, such as a path or a window: who writes again what it wrote before has the
    same. digest: of everything that the rows are made of. rows: how many this digest gave before; -1: never.
    """

    id: str
    digest: str
    rows: int = -1


class Sink(Protocol):
    """Where rows go. shown: for people, without passwords; live: whether rows can be written while others are made."""

    shown: str
    live: bool

    def home(self) -> Path | None:
        """The folder beside which the batch's stage is best kept, on the same disk; None: it does not matter."""

    def check(self, batch: Batch, schema: pa.Schema, /) -> bool:
        """Whether exactly these rows are there already. Raises SinkTaken and what can be known before writing."""

    def write(self, batch: Batch, schema: pa.Schema, rows: Rows, /) -> int:
        """Put the rows in the place of those that this batch wrote before; how many they are."""


def open_sink(address: str, *, folder: Path, by_day: str = "") -> Sink:
    """The sink at an address: `out.parquet`, a folder, `delta:FOLDER`, `postgresql://...?table=NAME` or
    `sqlite:///PATH?table=NAME`; `${VAR}` in the last two is taken from the environment.

    folder: where relative paths start. by_day: the column by whose day a folder or Delta table is divided.
    Raises BadSink and SinkExtraMissing.
    """
    if address.startswith(DELTA):
        _need("deltalake", "delta", "A Delta table")
        return DeltaSink(folder / address.removeprefix(DELTA), by_day)
    if by_day and (address.startswith((SQLITE, *POSTGRES)) or address.endswith(".parquet")):
        raise BadSink(f"'{_plain(address)}' cannot be divided by day.", expected="A folder or a Delta table can.")
    if address.startswith(POSTGRES):
        _need("psycopg", "postgres", "PostgreSQL")
        url, table = _table_of(address)
        return PostgresSink(url, table)
    if address.startswith(SQLITE):
        url, table = _table_of(address)
        return SqliteSink(folder / url.removeprefix(SQLITE), table)
    if "://" in address or not address.strip():
        raise BadSink(
            f"the output's address is of the kind '{address.partition('://')[0][:20]}'.",
            expected="A .parquet file, a folder, delta:FOLDER, postgresql://HOST/DB?table=NAME, "
            "sqlite:///PATH?table=NAME or `online` is expected.",
        )
    path = folder / address
    return FileSink(path) if path.suffix == ".parquet" else FolderSink(path, by_day)


@contextmanager
def only_one(path: Path, shown: str) -> Iterator[None]:
    """Nobody else on this machine is in such a block for the same path. Raises SinkBusy, SinkUnwritable."""
    try:
        file = _locked(path)
    except BlockingIOError:
        raise SinkBusy(
            f"another batch is writing to {shown}.", state="Nothing was written.", next="Wait until it is done."
        ) from None
    except OSError as error:
        raise _unwritable(shown, error) from None
    with file:
        yield


def _locked(path: Path) -> Any:
    """The file at a path, made and locked."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                return file
        except FileNotFoundError:
            pass  # whoever had it before has taken it away
        except OSError:
            file.close()
            raise
        file.close()


# -- Parquet


class FileSink:
    """One Parquet file."""

    live = True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.shown = str(path)

    def home(self) -> Path | None:
        return self.path

    def check(self, batch: Batch, _schema: pa.Schema) -> bool:
        if not self.path.exists():
            return False
        return _same(_note_of(self.path), batch, self.shown)

    def write(self, batch: Batch, schema: pa.Schema, rows: Rows) -> int:
        hidden = self.path.with_name(f".{self.path.name}.writing")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            written = _write_file(hidden, schema, rows, batch)
            hidden.rename(self.path)
            _sync(self.path.parent)
        except BaseException as error:
            with suppress(OSError):
                hidden.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise _unwritable(self.shown, error) from None
            raise
        return written


class FolderSink:
    """A folder of Parquet files, which belongs to one batch. by_day: divided by the day (UTC) of this column."""

    live = True

    def __init__(self, path: Path, by_day: str = "") -> None:
        self.path = path
        self.shown = f"{path}/"
        self._by_day = by_day

    def home(self) -> Path | None:
        return self.path

    def check(self, batch: Batch, schema: pa.Schema) -> bool:
        _has_time(schema, self._by_day)
        before = self.path.with_name(f".{self.path.name}.before")
        if before.exists() and not self.path.exists():
            before.rename(self.path)  # whoever exchanged them did not live to end
        if not self.path.exists():
            return False
        if not self.path.is_dir():
            raise _taken(self.shown, "it is a file")
        if not any(self.path.iterdir()):
            return False
        try:
            said = (self.path / ABOUT).read_bytes()
        except OSError:
            raise _taken(self.shown, "it holds files that no batch wrote") from None
        return _same(said, batch, self.shown)

    def write(self, batch: Batch, schema: pa.Schema, rows: Rows) -> int:
        hidden = self.path.with_name(f".{self.path.name}.writing")
        try:
            shutil.rmtree(hidden, ignore_errors=True)
            hidden.mkdir(parents=True)
            written = self._by_days(hidden, schema, rows) if self._by_day else self._in_order(hidden, schema, rows)
            (hidden / ABOUT).write_bytes(canonical_json({"format": FORMAT, **msgspec.to_builtins(batch)}))
            _sync(hidden)
            _exchange(hidden, self.path)
            _sync(self.path.parent)
        except BaseException as error:
            shutil.rmtree(hidden, ignore_errors=True)
            if isinstance(error, OSError):
                raise _unwritable(self.shown, error) from None
            raise
        return written

    def _in_order(self, folder: Path, schema: pa.Schema, rows: Rows) -> int:
        written = 0
        number = 0
        for some in _lots(rows, FILE_ROWS):
            written += _write_file(folder / f"part-{number:05}.parquet", schema, some, None)
            number += 1
        if not number:
            _write_file(folder / "part-00000.parquet", schema, iter(()), None)
        return written

    def _by_days(self, folder: Path, schema: pa.Schema, rows: Rows) -> int:
        """A file for each day, `day=YYYY-MM-DD/part-00000.parquet`; a row without a time is of no day."""
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        open_files: dict[str, Any] = {}
        written = 0
        try:
            for table in rows:
                days = pc.fill_null(pc.strftime(table[self._by_day], format="%Y-%m-%d"), "none")
                for day in pc.unique(days).to_pylist():
                    if day not in open_files:
                        path = folder / f"day={day}" / "part-00000.parquet"
                        path.parent.mkdir()
                        open_files[day] = pq.ParquetWriter(path, schema, **_how(schema))
                    open_files[day].write_table(table.filter(pc.equal(days, day)))
                written += table.num_rows
        finally:
            for file in open_files.values():
                file.close()
        return written


def _lots(rows: Rows, most: int) -> Iterator[Rows]:
    """The tables in order, in lots of about so many rows."""
    waiting = next(rows, None)

    def lot() -> Rows:
        nonlocal waiting
        count = 0
        while waiting is not None and count < most:
            count += waiting.num_rows
            yield waiting
            waiting = next(rows, None)

    while waiting is not None:
        yield lot()


def _write_file(path: Path, schema: pa.Schema, rows: Rows, batch: Batch | None) -> int:
    import pyarrow.parquet as pq

    if batch is not None:
        note = canonical_json({"format": FORMAT, **msgspec.to_builtins(batch)})
        schema = schema.with_metadata({**(schema.metadata or {}), NOTE: note})
    written = 0
    with path.open("wb") as file:
        with pq.ParquetWriter(file, schema, **_how(schema)) as writer:
            for table in rows:
                writer.write_table(table.cast(schema))
                written += table.num_rows
        file.flush()
        os.fsync(file.fileno())
    return written


def _how(schema: pa.Schema) -> dict[str, Any]:
    """How files are written: dictionaries only where values repeat. To try them on numbers takes most of the time."""
    import pyarrow as pa

    numbers = {one.name for one in schema if pa.types.is_floating(one.type) or pa.types.is_integer(one.type)}
    repeating = [name for name in schema.names if name not in numbers]
    if "prediction" in schema.names and not pa.types.is_floating(schema.field("prediction").type):
        repeating.append("prediction")
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": list(dict.fromkeys(repeating)) or False}


def _note_of(path: Path) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return bytes(dict(pq.read_schema(path).metadata or {}).get(NOTE, b""))
    except (pa.ArrowException, OSError):
        return b""


def _same(said: bytes, batch: Batch, shown: str) -> bool:
    """Whether a note is that of the same rows. Raises SinkTaken when it is of another batch, or there is none."""
    try:
        known = json.loads(said)
        number, there = known["format"], known["id"]
    except (ValueError, KeyError, TypeError):
        raise _taken(shown, "no batch wrote what is there") from None
    if number > FORMAT or there != batch.id:
        raise _taken(shown, "another batch wrote what is there" if number <= FORMAT else f"its format is {number}")
    return bool(known["digest"] == batch.digest)


def _taken(shown: str, why: str) -> SinkTaken:
    return SinkTaken(
        f"{shown} is there already, and {why}.",
        expected="An output that is not there yet is expected, or one that the same batch wrote before.",
        state="Nothing was written.",
        next="Name another output, or move this one away.",
    )


def _exchange(new: Path, old: Path) -> None:
    """Put a folder under the name of another, which is removed. At no time is there none, where Linux can exchange."""
    if not old.exists():
        new.rename(old)
        return
    with suppress(AttributeError, OSError):
        exchange, here = 2, -100
        call = ctypes.CDLL(None, use_errno=True).renameat2
        if call(here, os.fsencode(new), here, os.fsencode(old), exchange) == 0:
            shutil.rmtree(new)
            return
    before = old.with_name(f".{old.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    old.rename(before)
    new.rename(old)
    shutil.rmtree(before)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# -- Delta


class DeltaSink:
    """A Delta table, of which this batch's rows are replaced by one commit."""

    live = False

    def __init__(self, path: Path, by_day: str) -> None:
        self.path = path
        self.shown = f"{DELTA}{path}"
        self._by_day = by_day

    def home(self) -> Path | None:
        return None

    def check(self, batch: Batch, schema: pa.Schema) -> bool:
        _has_time(schema, self._by_day)
        table = self._table()
        if table is None:
            return False
        _same_columns(self.shown, [field.name for field in table.schema().fields], self._columns(schema))
        said = f"{batch.id}:{batch.digest}"
        mine = (one for one in table.history() if str(one.get("seatrial_batch", "")).startswith(f"{batch.id}:"))
        return next((one["seatrial_batch"] for one in mine), "") == said  # the newest comes first

    def write(self, batch: Batch, schema: pa.Schema, rows: Rows) -> int:
        import pyarrow as pa
        from deltalake import CommitProperties, write_deltalake
        from deltalake.exceptions import DeltaError

        written = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal written
            for table in rows:
                written += table.num_rows
                yield from _with_id(self._with_day(table), batch).to_batches()

        whole = _with_id(self._with_day(schema.empty_table()), batch).schema
        try:
            how: dict[str, Any] = {"mode": "append", "partition_by": ["day"] if self._by_day else None}
            if self._table() is not None:
                how = {"mode": "overwrite", "predicate": f"{BATCH_ID} = '{batch.id}'"}
            write_deltalake(
                self.path,
                pa.RecordBatchReader.from_batches(whole, batches()),
                commit_properties=CommitProperties(custom_metadata={"seatrial_batch": f"{batch.id}:{batch.digest}"}),
                **how,
            )
        except (DeltaError, OSError) as error:
            raise _unwritable(self.shown, error) from None
        return written

    def _table(self) -> Any:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        if not (self.path / "_delta_log").is_dir():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise _taken(self.shown, "it is no Delta table")
            return None
        try:
            return DeltaTable(self.path)
        except (DeltaError, OSError) as error:
            raise _unwritable(self.shown, error) from None

    def _columns(self, schema: pa.Schema) -> list[str]:
        return [*schema.names, *(["day"] if self._by_day else []), BATCH_ID]

    def _with_day(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        return table.append_column("day", pc.cast(table[self._by_day], pa.date32())) if self._by_day else table


def _with_id(table: pa.Table, batch: Batch) -> pa.Table:
    import pyarrow as pa

    return table.append_column(BATCH_ID, pa.repeat(pa.scalar(batch.id, pa.string()), len(table)))


# -- databases


class PostgresSink:
    """A table of a PostgreSQL database, filled by COPY."""

    live = False

    def __init__(self, url: str, table: str) -> None:
        parts = urlsplit(url)
        self._url = url
        self._table = table
        self.shown = f"postgresql://{parts.hostname or ''}{parts.path}?table={table}"

    def home(self) -> Path | None:
        return None

    def check(self, batch: Batch, schema: pa.Schema) -> bool:
        _types(schema, _POSTGRES, self.shown)
        with self._connected() as connection:
            there = self._columns(connection)
            if not there:
                return False
            _same_columns(self.shown, there, [*schema.names, BATCH_ID])
            from psycopg import sql

            count = sql.SQL("SELECT count(*) FROM {} WHERE batch_id = %s").format(self._named())
            return bool(connection.execute(count, [batch.id]).fetchone()[0] == batch.rows)

    def write(self, batch: Batch, schema: pa.Schema, rows: Rows) -> int:
        from psycopg import sql

        name = self._named()
        columns = [*schema.names, BATCH_ID]
        types = [*_types(schema, _POSTGRES, self.shown), "text"]
        described = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(column), sql.SQL(kind))
            for column, kind in zip(columns, types, strict=True)
        )
        listed_columns = sql.SQL(", ").join(map(sql.Identifier, columns))
        written = 0
        with self._connected() as connection, connection.transaction():
            # one batch at a time, from whichever machine
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [int(digest(self.shown.encode())[:15], 16)])
            connection.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(name, described))
            connection.execute(sql.SQL("DELETE FROM {} WHERE batch_id = %s").format(name), [batch.id])
            copy = sql.SQL("COPY {} ({}) FROM STDIN").format(name, listed_columns)
            with connection.cursor() as cursor, cursor.copy(copy) as into:
                for table in rows:
                    for values in _rows_of(table):
                        into.write_row((*values, batch.id))
                    written += table.num_rows
        return written

    def _named(self) -> Any:
        from psycopg import sql

        return sql.Identifier(*self._table.split("."))

    def _columns(self, connection: Any) -> list[str]:
        found = connection.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum",
            [".".join('"' + part.replace('"', '""') + '"' for part in self._table.split("."))],
        )
        return [name for (name,) in found]

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        import psycopg

        try:
            with psycopg.connect(self._url, connect_timeout=10, application_name="seatrial") as connection:
                yield connection
        except psycopg.Error as error:  # which may quote a value, or the address
            detail = getattr(error.diag, "message_primary", None) or type(error).__name__
            raise SinkUnwritable(
                f"{self.shown} took no rows: {detail}.",
                state="Its rows are as they were; parts that are scored are kept.",
                next="Mend it, and run the same command again.",
            ) from None


class SqliteSink:
    """A table of an SQLite file."""

    live = False

    def __init__(self, path: Path, table: str) -> None:
        self.path = path
        self._table = table
        self.shown = f"{SQLITE}{path}?table={table}"

    def home(self) -> Path | None:
        return None

    def check(self, batch: Batch, schema: pa.Schema) -> bool:
        _types(schema, _SQLITE, self.shown)
        if self.path.exists():
            with self._connected() as connection:
                there = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({_quoted(self._table)})")]
                if there:
                    _same_columns(self.shown, there, [*schema.names, BATCH_ID])
                    count = f"SELECT count(*) FROM {_quoted(self._table)} WHERE {BATCH_ID} = ?"
                    return bool(connection.execute(count, (batch.id,)).fetchone()[0] == batch.rows)
        return False

    def write(self, batch: Batch, schema: pa.Schema, rows: Rows) -> int:
        table = _quoted(self._table)
        types = _types(schema, _SQLITE, self.shown)
        described = ", ".join(f"{_quoted(name)} {kind}" for name, kind in zip(schema.names, types, strict=True))
        marks = ", ".join("?" * (len(schema.names) + 1))
        written = 0
        with self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table} ({described}, {BATCH_ID} TEXT)")
                connection.execute(f"DELETE FROM {table} WHERE {BATCH_ID} = ?", (batch.id,))
                for some in rows:
                    found = ((*map(_plain_value, values), batch.id) for values in _rows_of(some))
                    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", found)
                    written += some.num_rows
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        return written

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30)) as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise SinkUnwritable(
                f"{self.shown} took no rows: {error}.",
                state="Its rows are as they were; parts that are scored are kept.",
                next="Mend it, and run the same command again.",
            ) from None


# -- the online store


class OnlineSink:
    """The online store: for each key the newest answer, to be asked for by `GET /predictions/MODEL/KEY`.

    key: the columns of the model's key. instant: the column of the instants that the answers are of.
    """

    live = False
    shown = "online"

    def __init__(self, online: OnlineStore, model: str, key: Sequence[str], instant: str) -> None:
        self._online = online
        self._model = model
        self._key = list(key)
        self._instant = instant

    def home(self) -> Path | None:
        return None

    def check(self, _batch: Batch, schema: pa.Schema) -> bool:
        lacking = [name for name in self._key if name not in schema.names]
        if lacking or not self._key:
            raise BadSink(
                f"model '{self._model}' has no key, by which stored answers are asked for."
                if not self._key
                else f"column '{lacking[0]}' of the key of model '{self._model}' is not kept.",
                expected="The online store keeps an answer for each key.",
                next="Give the model key=[...]." if not self._key else "Name it in --keep.",
            )
        return False

    def write(self, _batch: Batch, _schema: pa.Schema, rows: Rows) -> int:
        import pyarrow as pa

        written = 0
        for table in rows:
            if not table.num_rows:
                continue
            answers = stored.answers_of(table)
            release, version = table["release"][0].as_py(), table["model_version"][0].as_py()
            at_us = table[self._instant].cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64()).to_pylist()
            keys = stored.key_texts(table, self._key)
            stored.write(self._online, self._model, keys, answers, at_us, release=release, model_version=version)
            written += table.num_rows
        return written


_POSTGRES: Mapping[str, str] = {
    "bool": "boolean", "int8": "smallint", "int16": "smallint", "int32": "integer", "int64": "bigint",
    "uint8": "smallint", "uint16": "integer", "uint32": "bigint", "uint64": "numeric", "float": "real",
    "double": "double precision", "string": "text", "large_string": "text", "date32[day]": "date",
    "time": "timestamptz", "naive": "timestamp", "decimal": "numeric", "null": "text", "binary": "bytea",
}  # fmt: skip
_SQLITE: Mapping[str, str] = {
    "bool": "INTEGER", "int8": "INTEGER", "int16": "INTEGER", "int32": "INTEGER", "int64": "INTEGER",
    "uint8": "INTEGER", "uint16": "INTEGER", "uint32": "INTEGER", "uint64": "NUMERIC", "float": "REAL",
    "double": "REAL", "string": "TEXT", "large_string": "TEXT", "date32[day]": "TEXT", "time": "TEXT", "naive": "TEXT",
    "decimal": "NUMERIC", "null": "TEXT", "binary": "BLOB",
}  # fmt: skip


def _types(schema: pa.Schema, known: Mapping[str, str], shown: str) -> list[str]:
    import pyarrow as pa

    found = []
    for one in schema:
        name = str(one.type)
        if pa.types.is_timestamp(one.type):
            name = "time" if one.type.tz else "naive"
        elif pa.types.is_decimal(one.type):
            name = "decimal"
        if name not in known:
            raise SinkDiffers(
                f"column '{one.name}' is {one.type}, for which {shown.partition(':')[0]} has no type here.",
                next="Leave it out with --keep.",
            )
        found.append(known[name])
    return found


def _rows_of(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    for some in table.to_batches(ROWS_AT_ONCE):
        yield from zip(*(column.to_pylist() for column in some.columns), strict=True)


def _plain_value(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if isinstance(value, int | float | str | bytes | None) else str(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


# -- what sinks share


def _table_of(address: str) -> tuple[str, str]:
    """The address without its table, and the table. Raises BadSink."""

    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise BadSink(f"the output's address is taken from the variable {found[1]}, which is not set.")
        return os.environ[found[1]]

    parts = urlsplit(re.sub(r"\$\{(\w+)\}", value, address))
    options = parse_qsl(parts.query)
    table = dict(options).get("table", "")
    if not re.fullmatch(r"\w+(\.\w+)?", table):
        raise BadSink(
            f"the output '{_plain(address)}' names no table.",
            expected="An address that ends with ?table=NAME, or &table=NAME, is expected.",
        )
    rest = urlencode([one for one in options if one[0] != "table"])
    if parts.scheme == "sqlite":
        return f"{SQLITE}{parts.path.removeprefix('/')}", table
    return urlunsplit((parts.scheme, parts.netloc, parts.path, rest, "")), table


def _plain(address: str) -> str:
    """An address without user and password."""
    return re.sub(r"//[^/@]*@", "//", address.partition("?")[0])[:100]


def _same_columns(shown: str, there: list[str], wanted: list[str]) -> None:
    if sorted(there) != sorted(wanted):
        lacking = sorted({*wanted} - {*there}) or sorted({*there} - {*wanted})
        raise SinkDiffers(
            f"{shown} has other columns than these answers: '{lacking[0]}' is only in one of them.",
            expected=f"It has {', '.join(there)}; the answers have {', '.join(wanted)}.",
            next="Name another table, or choose the columns with --keep.",
        )


def _has_time(schema: pa.Schema, column: str) -> None:
    import pyarrow as pa

    if column and (column not in schema.names or not pa.types.is_timestamp(schema.field(column).type)):
        raise BadSink(
            f"the answers cannot be divided by the day of '{column}'.",
            expected="A column of times that is kept is expected, or predicted_at.",
        )


def _need(package: str, extra: str, what: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise SinkExtraMissing(
            f"{what} as an output needs the package '{package}', which is not installed.",
            next=f"Install seatrial with its extra: pip install 'seatrial[{extra}]'.",
        )


def _unwritable(shown: str, error: Exception) -> SinkUnwritable:
    why = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
    return SinkUnwritable(
        f"{shown} cannot be written: {why}.",
        state="It is as it was; parts that are scored are kept.",
        next="Make room, or mend its rights, and run the same command again.",
    )
