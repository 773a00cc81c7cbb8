"""PostgreSQL: what are the rows of a table or query, all as of one instant, in an order that is always the same?

One read-only transaction, REPEATABLE READ, and a cursor on the server, from which batches become Arrow. The rows are
sorted by the server: first by `order_by`, then by every other column, texts by their bytes (collation "C").

| PostgreSQL | Arrow |
|---|---|
| boolean, smallint, integer, bigint, real, double precision | bool, int16, int32, int64, float, double |
| numeric(p, s), p up to 38 | decimal128(p, s) |
| any other numeric | double |
| text, varchar, char, name, uuid, json, jsonb, enums | string |
| bytea | binary |
| date; timestamp; timestamptz | date32; timestamp[us]; timestamp[us, UTC] |
| arrays of one dimension of boolean, integers, floats, numeric, text, uuid, enums | list of those |

Every other type is refused by column; so are `infinity` as a time and arrays of several dimensions.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import SeatrialError, did_you_mean, listed
from seatrial.data.reading import (
    BadQuery,
    ColumnDuplicated,
    ColumnWrongType,
    LoginRefused,
    SourceMissing,
    SourceUnavailable,
    SourceUnreadable,
)
from seatrial.data.session import in_one_line
from seatrial.data.sources import BadSource, PostgresSource, SourceExtraMissing, column_missing, without_password

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

BATCH_ROWS = 10_000
CONNECT_SECONDS = 10  # unless the address has connect_timeout=
REFUSALS = ("authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "not permitted to log in")
TEXTS = frozenset("text varchar bpchar name uuid json jsonb".split())
NUMBERS = {"int2": "int16", "int4": "int32", "int8": "int64", "float4": "float32", "float8": "float64"}


@dataclass(frozen=True)
class Column:
    """A column of the rows as the server has it. type: its name there; array: whether it holds arrays of that type."""

    name: str
    type: str
    array: bool
    enum: bool
    precision: int | None
    scale: int | None


def rows(source: PostgresSource, only: Sequence[str] | None = None) -> pa.Table:
    """The rows of `source`. only: the columns to read; None: all.

    Raises SourceExtraMissing, BadSource, SourceUnavailable, LoginRefused, SourceMissing, SourceUnreadable, BadQuery,
    ColumnMissing, ColumnWrongType.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise SourceExtraMissing(
            f"source '{source.name}' is a PostgresSource, which needs the package 'psycopg'; it is not installed.",
            next='Install seatrial with its extra: pip install "seatrial[postgres]".',
        )
    url = _resolved(source)
    with _translated(source, url), _connected(source, url) as connection:
        inner = _inner(source, connection)
        there = _columns(source, connection, inner)
        chosen = there if only is None else [_named(source, there, name) for name in only]
        chosen = [column for column in there if column in chosen]
        types = {column.name: _arrow(source, column) for column in chosen}
        order = [_named(source, there, name) for name in source.order_by]
        order += [column for column in there if column not in order and _sorts(column)]
        sql = f"SELECT {', '.join(_selected(column) for column in chosen) or 'NULL'} FROM ({inner}\n) AS q"
        sql += f" ORDER BY {', '.join(map(_sorted_by, order))}" if order else ""
        try:
            return _fetched(source, connection, sql, types)
        except (_driver().DataError, _driver().NotSupportedError) as error:
            connection.rollback()
            raise _wrong_value(source, connection, inner, chosen, error) from None


@dataclass(frozen=True)
class Asked:
    """The rows of a source, where they lie: what is asked of them is SQL, and only what comes out of that is fetched.

    inner: a SELECT of the rows; columns: theirs.
    """

    inner: str
    columns: tuple[Column, ...]
    _connection: psycopg.Connection[Any]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of the answer. sql: one SELECT in which nothing is a parameter."""
        return self._connection.execute(sql.encode()).fetchall()

    def literal(self, value: Any) -> str:
        """The value as it is written in SQL."""
        from psycopg.sql import Literal

        return Literal(value).as_string(self._connection)


@contextmanager
def asked(source: PostgresSource) -> Iterator[Asked]:
    """One read-only transaction over the rows of `source`, all questions of one instant. Raises as `rows` does."""
    if importlib.util.find_spec("psycopg") is None:
        raise SourceExtraMissing(
            f"source '{source.name}' is in PostgreSQL, which needs the package 'psycopg'; it is not installed.",
            next='Install seatrial with its extra: pip install "seatrial[postgres]".',
        )
    url = _resolved(source)
    with _translated(source, url), _connected(source, url) as connection:
        inner = _inner(source, connection)
        yield Asked(inner, tuple(_columns(source, connection, inner)), connection)


# The connection


def _driver() -> Any:
    import psycopg

    return psycopg


def _resolved(source: PostgresSource) -> str:
    """The address with the variables of the environment put in. Raises BadSource, which does not show it."""
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    def value(found: re.Match[str]) -> str:
        if not os.environ.get(found[1]):
            raise BadSource(
                f"the url of source '{source.name}' is taken from the variable {found[1]}, which is not set.",
                expected="An address such as postgresql://user:password@host/database is expected in it.",
                next=f"Set {found[1]} in the environment, and try again.",
                source=source.name,
                variable=found[1],
            )
        return os.environ[found[1]]

    url = re.sub(r"\$\{(\w+)\}", value, source.url)
    try:
        said: dict[str, Any] = dict(conninfo_to_dict(url))
        return str(make_conninfo(**({"connect_timeout": CONNECT_SECONDS} | said)))
    except _driver().Error:  # what it says may hold the password
        raise BadSource(
            f"the url of source '{source.name}' is no address of a PostgreSQL database (it is not shown, because it "
            "may hold a password).",
            expected="postgresql://user@host/database is expected.",
            source=source.name,
        ) from None


@contextmanager
def _connected(source: PostgresSource, url: str) -> Iterator[psycopg.Connection[Any]]:
    import psycopg

    try:
        connection = psycopg.connect(url, client_encoding="utf8", application_name="seatrial")
    except psycopg.OperationalError as error:
        words = _said(error, url)
        place = without_password(source.url)
        if any(refusal in words for refusal in REFUSALS):
            raise LoginRefused(
                f"the server of source '{source.name}' ({place}) refuses the login: {words}",
                expected="A user who may read, and a database that is there, are expected.",
                next="Correct user, password or database in url=.",
                source=source.name,
            ) from None
        raise SourceUnavailable(
            f"the server of source '{source.name}' ({place}) cannot be reached: {words}",
            expected=f"A PostgreSQL server is expected to answer within {_timeout(url)} seconds.",
            next="Start it or correct url=, and try again.",
            source=source.name,
        ) from None
    try:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.prepare_threshold = None
        connection.execute("SET TimeZone = 'UTC'")  # what a query makes of times must not hang on the server's own
        connection.execute("SET DateStyle = 'ISO, YMD'")
        yield connection
    finally:
        connection.close()


def _timeout(url: str) -> str:
    from psycopg.conninfo import conninfo_to_dict

    return str(conninfo_to_dict(url).get("connect_timeout"))


@contextmanager
def _translated(source: PostgresSource, url: str) -> Iterator[None]:
    """Errors of the driver become ours; none of them holds the password."""
    import psycopg

    try:
        yield
    except SeatrialError:
        raise
    except psycopg.errors.InsufficientPrivilege as error:
        raise SourceUnreadable(
            f"source '{source.name}' may not be read: {_said(error, url)}.",
            next="Grant its user SELECT on what it reads.",
            source=source.name,
        ) from None
    except psycopg.errors.QueryCanceled as error:
        raise SourceUnavailable(
            f"the server stopped reading source '{source.name}': {_said(error, url)}.",
            next="Try again, or raise the server's statement_timeout.",
            source=source.name,
        ) from None
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise SourceUnavailable(
            f"the connection was lost while source '{source.name}' was read: {_said(error, url)}.".replace("..", "."),
            next="Try again.",
            source=source.name,
        ) from None
    except psycopg.Error as error:
        raise BadQuery(
            f"the query of source '{source.name}' failed: {_said(error, url)}.",
            expected="One SELECT of PostgreSQL, which only reads, is expected.",
            next=f"Correct sql= of source '{source.name}' in project.py.",
            source=source.name,
        ) from None


def _said(error: Exception, url: str) -> str:
    from urllib.parse import quote

    from psycopg.conninfo import conninfo_to_dict

    words = in_one_line(error)
    secret = str(conninfo_to_dict(url).get("password") or "")
    for shown in (secret, quote(secret, safe="")) if secret else ():
        words = re.sub(rf"(?<!\w){re.escape(shown)}(?!\w)", "***", words)
    return words.rstrip(".")


# What to read


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _inner(source: PostgresSource, connection: psycopg.Connection[Any]) -> str:
    """The SELECT whose rows are wanted, without what sorts them."""
    if source.sql is not None:
        return source.sql.strip().rstrip(";")
    table = ".".join(_quoted(part) for part in source.table_parts)
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        found = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
        ).fetchall()
        names = [name if schema == "public" else f"{schema}.{name}" for schema, name in found]
        raise SourceMissing(
            f"the database of source '{source.name}' has no table '{source.table}'.",
            expected=f"It has {listed(names)}. {did_you_mean(source.table or '', names)}".strip(),
            next=f"Correct table= of source '{source.name}' in project.py.",
            source=source.name,
        )
    return f"SELECT * FROM {table}"


def _columns(source: PostgresSource, connection: psycopg.Connection[Any], inner: str) -> list[Column]:
    """The columns of the rows. Running nothing but a SELECT can give them, so anything else ends here."""
    # prepared by itself first: what closes the bracket below is then refused as the two statements that it is
    connection.execute(f"DECLARE checked NO SCROLL CURSOR FOR {inner}\n".encode(), prepare=False, binary=True)
    connection.execute("CLOSE checked")
    cursor = connection.execute(f"SELECT * FROM ({inner}\n) AS q LIMIT 0".encode())
    described = cursor.description or []
    seen: dict[str, str] = {}
    for one in described:
        if seen.setdefault(one.name.lower(), one.name) != one.name or [d.name for d in described].count(one.name) > 1:
            raise ColumnDuplicated(
                f"source '{source.name}' has the column '{one.name}' twice (in either case of its letters).",
                expected="Every column needs a name of its own.",
                next="Give one another name in sql=.",
                source=source.name,
                column=one.name,
            )
    codes = list({one.type_code for one in described})
    found = connection.execute(
        "SELECT t.oid, coalesce(e.typname, t.typname), e.oid IS NOT NULL, coalesce(e.typtype, t.typtype) = 'e' "
        "FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A' "
        "WHERE t.oid = ANY(%s)",
        [codes],
    ).fetchall()
    types = {oid: (name, array, enum) for oid, name, array, enum in found}
    return [Column(one.name, *types[one.type_code], one.precision, one.scale) for one in described]


def _named(source: PostgresSource, there: Sequence[Column], name: str) -> Column:
    for column in there:
        if column.name == name:
            return column
    raise column_missing(source.name, name, [column.name for column in there])


def _arrow(source: PostgresSource, column: Column) -> pa.DataType:
    import pyarrow as pa

    kind: pa.DataType | None = None
    if column.type == "bool":
        kind = pa.bool_()
    elif column.type in NUMBERS:
        kind = pa.type_for_alias(NUMBERS[column.type])
    elif column.type == "numeric":
        precision, scale = column.precision, column.scale
        if precision and scale is not None and precision <= 38 and 0 <= scale <= precision and not column.array:
            kind = pa.decimal128(precision, scale)
        else:
            kind = pa.float64()
    elif column.type in TEXTS or column.enum:
        kind = pa.string()
    elif not column.array:
        times = {"date": pa.date32(), "timestamp": pa.timestamp("us"), "timestamptz": pa.timestamp("us", tz="UTC")}
        kind = pa.binary() if column.type == "bytea" else times.get(column.type)
    if kind is None:
        shown = f"{column.type}[]" if column.array else column.type
        raise ColumnWrongType(
            f"column '{column.name}' of source '{source.name}' has the type {shown} of PostgreSQL, which is not read.",
            expected="Booleans, numbers, text, uuid, json, bytea, dates, timestamps and arrays of the first five are.",
            next="Cast it in sql=, for example to text, or leave it out.",
            source=source.name,
            column=column.name,
            type=shown,
        )
    return pa.list_(kind) if column.array else kind


def _selected(column: Column) -> str:
    """The column as it is fetched: times as whole numbers, which neither a driver nor a zone can bend."""
    name, array = _quoted(column.name), "[]" if column.array else ""
    if column.type == "date" and not column.array:
        return f"({name} - date '1970-01-01') AS {name}"
    if column.type == "timestamp" and not column.array:
        return f"(extract(epoch FROM {name}) * 1000000)::bigint AS {name}"
    if column.type == "timestamptz" and not column.array:
        return f"(extract(epoch FROM {name} AT TIME ZONE 'UTC') * 1000000)::bigint AS {name}"
    if column.type == "numeric" and not column.array:
        exact = bool(column.precision) and _is_exact(column)
        return f"nullif({name}, 'NaN') AS {name}" if exact else f"{name}::float8 AS {name}"
    if column.type == "numeric":
        return f"{name}::float8[] AS {name}"
    if column.type in TEXTS or column.enum:
        return f"{name}::text{array} AS {name}"
    return name


def _is_exact(column: Column) -> bool:
    precision, scale = column.precision or 0, column.scale
    return scale is not None and 0 < precision <= 38 and 0 <= scale <= precision


def _sorts(column: Column) -> bool:
    """Whether rows can be sorted by the column; one of an unknown type is not read, and cannot be told apart by."""
    known = {"bool", "numeric", "bytea", "date", "timestamp", "timestamptz", *NUMBERS, *TEXTS}
    return column.type in known or column.enum


def _sorted_by(column: Column) -> str:
    name = f"q.{_quoted(column.name)}"  # the column itself, not what is selected under its name
    if column.type in TEXTS or column.enum:
        return f'{name}::text{"[]" if column.array else ""} COLLATE "C"'
    return name


# The rows


def _fetched(
    source: PostgresSource, connection: psycopg.Connection[Any], sql: str, types: dict[str, pa.DataType]
) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(list(types.items()))
    batches: list[pa.RecordBatch] = []
    with connection.cursor(name="seatrial", binary=True) as cursor:
        cursor.execute(sql.encode())
        while fetched := cursor.fetchmany(BATCH_ROWS):
            arrays = []
            for (name, kind), values in zip(types.items(), zip(*fetched, strict=True), strict=False):
                arrays.append(_array(source, name, values, kind))
            batches.append(pa.record_batch(arrays, schema=schema))
    return pa.Table.from_batches(batches, schema)


def _array(source: PostgresSource, name: str, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    plain = pa.int32() if pa.types.is_date(kind) else pa.int64() if pa.types.is_timestamp(kind) else kind
    try:
        return pa.array(values, plain).cast(kind)
    except (pa.ArrowException, TypeError, ValueError):
        nested = pa.types.is_list(kind)
        raise ColumnWrongType(
            f"column '{name}' of source '{source.name}' holds values that are no {kind}"
            + (": arrays of several dimensions." if nested else "."),
            expected="Arrays of one dimension are expected." if nested else "",
            next="Cast it in sql=, for example to text, or leave it out.",
            source=source.name,
            column=name,
        ) from None


def _wrong_value(
    source: PostgresSource, connection: psycopg.Connection[Any], inner: str, columns: Sequence[Column], error: Exception
) -> SeatrialError:
    """The error for a value that no table can hold: `infinity` as a time; else what the server said."""
    for column in columns:
        if column.type in ("date", "timestamp", "timestamptz"):
            name = _quoted(column.name)
            found = connection.execute(f"SELECT count(*) FROM ({inner}\n) AS q WHERE NOT isfinite({name})".encode())
            count = (found.fetchone() or (0,))[0]
            if count:
                return ColumnWrongType(
                    f"column '{column.name}' of source '{source.name}' holds 'infinity' in {count:,} rows, which is no "
                    "time.",
                    expected="Times are expected; what never happens is null.",
                    next=f"Replace it in sql=: CASE WHEN isfinite({name}) THEN {name} END AS {name}.",
                    source=source.name,
                    column=column.name,
                )
    return BadQuery(
        f"the query of source '{source.name}' failed: {in_one_line(error)}.",
        next=f"Correct sql= of source '{source.name}' in project.py.",
        source=source.name,
    )
