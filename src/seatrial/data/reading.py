"""Reading: what are the rows of a source, in the one form that every later stage takes?

Whatever the format, the result is one Arrow table in the order of the source, in which

- every timestamp and date is timestamp[us, tz=UTC]; a time without a zone is read in the source's
  `timezone=`, or as UTC with one DataWarning that names the columns; nanoseconds are cut toward the past
  and counted;
- a missing value is null: NaN in a column of floats becomes null, infinities stay;
- text is `string`, whether it came as large_string, as a view or as a dictionary (a category);
- rows that a `SetAside` rule matches are gone, and kept beside the table with a count for each rule.

Nothing is written, and nothing of the project is touched.
"""

from __future__ import annotations

import csv
import glob
import gzip
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from zoneinfo import ZoneInfo

from seatrial.core.errors import Failed, Unavailable, UsageError, did_you_mean, listed
from seatrial.data.expectations import SetAside
from seatrial.data.session import ROW, in_one_line, is_one_select, literal, quoted, session, with_row_numbers
from seatrial.data.snapshot import plain_column
from seatrial.data.sources import (
    CsvSource,
    DeltaSource,
    FrameSource,
    ParquetSource,
    PostgresSource,
    QuerySource,
    Source,
    column_missing,
    raw_sources,
    require_columns,
)

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITERS = (",", ";", "\t", "|")
HASHED_BYTES = 1 << 20
LARGEST_STRING = 2**31 - 1  # bytes that one chunk of Arrow's `string` can hold


class DataWarning(UserWarning):
    """Something about the data had to be assumed; the message says what, and how to declare it."""


class SourceMissing(Failed):
    """A source's file is not there."""

    code = "data.source_missing"


class SourceUnavailable(Unavailable):
    """The server of a source does not answer, or stopped to while it was read."""

    code = "data.source_unavailable"


class LoginRefused(Failed):
    """The server of a source does not let this user in, or has no such database."""

    code = "data.login_refused"


class SourceEmpty(Failed):
    """A source has no rows."""

    code = "data.source_empty"


class SourceUnreadable(Failed):
    """A source is there, but is not what it is declared to be, or is damaged."""

    code = "data.source_unreadable"


class ColumnWrongType(Failed):
    """A column does not hold what its declared role needs."""

    code = "data.column_wrong_type"


class ColumnDuplicated(Failed):
    """Two columns of a source have one name (letters of either case count as equal, as in SQL)."""

    code = "data.column_duplicated"


class BadQuery(Failed):
    """The SQL of a query source does not run."""

    code = "data.bad_query"


class BadSetAside(Failed):
    """The SQL of a set-aside rule does not run."""

    code = "data.bad_set_aside"


class UnknownTimezone(UsageError):
    """A source names a time zone that does not exist."""

    code = "data.unknown_timezone"


@dataclass(frozen=True)
class SourceFile:
    """A file that was read. path: as declared when relative to the project's folder; digest: BLAKE3, 64 hex digits."""

    path: str
    bytes: int
    digest: str


@dataclass(frozen=True)
class Removed:
    """What one rule took out of one source. A row that several rules match counts for the first.

    rows: the rows themselves; None when the source was read in batches, and they were only counted.
    """

    source: str
    rule: SetAside
    count: int
    rows: pa.Table | None = field(default=None, repr=False, compare=False)

    def as_plain(self) -> dict[str, Any]:
        return {"source": self.source, "where": self.rule.where, "reason": self.rule.reason, "rows": self.count}


@dataclass(frozen=True)
class Reading:
    """The rows of a source and how they were obtained.

    table: the rows that stay, in order.
    set_aside: what each rule took out, also of the sources below a query.
    truncated: column ("source.column" below a query) -> values whose nanoseconds were cut; only where any.
    naive: columns whose times carried no zone.
    files: the files read, also those of the sources below a query; not of tables that were given.
    versions: source -> the version of it that was read, where the source has versions (Delta), also below a query.
    """

    source: str
    table: pa.Table = field(repr=False, compare=False)
    set_aside: tuple[Removed, ...] = ()
    truncated: Mapping[str, int] = field(default_factory=dict)
    naive: tuple[str, ...] = ()
    files: tuple[SourceFile, ...] = ()
    versions: Mapping[str, int] = field(default_factory=dict)


def read(
    source: Source,
    *,
    folder: Path,
    tables: Mapping[str, pa.Table] | None = None,
    threads: int = 1,
    columns: Sequence[str] | None = None,
) -> Reading:
    """The rows of `source`.

    folder: where relative paths start.
    tables: rows already read, by source name; a query takes them instead of reading that source again.
    threads: for reading files. The order of rows never depends on it; queries always run on one.
    columns: the only columns wanted, in the order in which the table has them; None: all. Those of the source's times
        and event key come with them. The files are then not digested, and the Reading has none. Parquet, Delta and
        PostgreSQL read no other column, unless the source has rules that set rows aside.

    Raises SourceMissing, SourceEmpty, SourceUnreadable, SourceUnavailable, LoginRefused, SourceExtraMissing,
    ColumnMissing, ColumnWrongType, ColumnDuplicated, BadQuery, BadSetAside, BadSource, UnknownTimezone. Warns with
    DataWarning, at most once a source.
    """
    raw_sources(source)  # refuses a query that reads itself
    times = Times(source)
    below: list[Reading] = []
    files: list[SourceFile] = []
    versions: dict[str, int] = {}
    wanted = None if columns is None else _wanted(source, columns)
    only = None if source.set_aside else wanted
    match source:
        case ParquetSource():
            paths = matching(source, folder)
            if columns is None:
                files = [_source_file(source, path, folder) for path in paths]
            table = _parquet(source, paths, folder, threads, only)
        case CsvSource():
            path = _existing(source, folder)
            files = [_source_file(source, path, folder)] if columns is None else []
            table = _csv(source, path, times, threads)
        case QuerySource():
            table = _query(source, folder, tables or {}, threads, below)
        case FrameSource():
            table = frame_table(source)
        case PostgresSource():
            from seatrial.data.postgres import rows as postgres_rows

            table = postgres_rows(source, only)
        case DeltaSource():
            from seatrial.data.delta import rows as delta_rows

            table, versions[source.name] = delta_rows(source, folder, only, threads)
        case _:
            raise TypeError(f"{type(source).__name__} is not a kind of source that can be read")
    if not table.num_rows:
        raise _empty(source, "has no rows")
    _check_names(source, table.column_names)
    for column in source.event_key:
        require_columns(source, table, [column])
    table = _plain_layout(times.read(table))
    times.warn()
    table, removed = _set_aside(source, table)
    if wanted is not None:
        require_columns(source, table, wanted)
        table = table.select([name for name in table.column_names if name in wanted])
    return Reading(
        source.name,
        table,
        set_aside=(*(one for reading in below for one in reading.set_aside), *removed),
        truncated={f"{r.source}.{name}": n for r in below for name, n in r.truncated.items()} | times.truncated,
        naive=tuple(times.naive),
        files=() if columns is not None else (*files, *(file for reading in below for file in reading.files)),
        versions={name: version for reading in below for name, version in reading.versions.items()} | versions,
    )


def _wanted(source: Source, columns: Sequence[str]) -> list[str]:
    """`columns` and those that the source itself names."""
    if not columns:
        raise UsageError(
            f"source '{source.name}' is read with columns=[], which names none.",
            expected="At least one column is expected, or None for all.",
        )
    times = (source.event_timestamp, source.known_at, source.label_known_at)
    return list(dict.fromkeys([*columns, *source.event_key, *(name for name in times if name is not None)]))


def query_schema(source: QuerySource, tables: Mapping[str, pa.Schema]) -> pa.Schema:
    """The columns of a query's rows without reading any. tables: the columns of the sources below, by name.

    Raises BadQuery.
    """
    import pyarrow as pa

    empty = {name: schema.empty_table() for name, schema in tables.items()}
    found = _query(source, Path(), empty, 1, [])
    fields = [
        field.with_type(_utc_type()) if pa.types.is_timestamp(field.type) or pa.types.is_date(field.type) else field
        for field in _plain_layout(found).schema
    ]
    return pa.schema(fields)


# Files


def matching(source: ParquetSource, folder: Path) -> list[Path]:
    """The file of that name, or the files that the glob matches, sorted by path. Raises SourceMissing."""
    path = folder / source.path
    if path.exists() or not glob.has_magic(source.path):
        return [_existing(source, folder)]
    absolute = Path(source.path).is_absolute()
    start = Path(path.anchor) if absolute else folder
    found = sorted(
        entry for entry in start.glob(source.path.removeprefix(path.anchor if absolute else "")) if entry.is_file()
    )
    if not found:
        raise SourceMissing(
            f"no file matches {source.path!r} of source '{source.name}' in {folder}.",
            expected="At least one Parquet file is expected.",
            next=f"Correct the path of source '{source.name}' in project.py, or put the files there.",
            source=source.name,
            path=str(path),
        )
    return found


def _existing(source: ParquetSource | CsvSource, folder: Path) -> Path:
    path = folder / source.path
    if path.is_file():
        return path
    if path.is_dir():
        raise SourceUnreadable(
            f"{source.path!r} of source '{source.name}' is a folder.",
            expected="A file is expected"
            + ("." if isinstance(source, CsvSource) else ", or a glob such as 'data/*.parquet'."),
            source=source.name,
            path=str(path),
        )
    if path.parent.is_dir():
        beside = sorted(entry.name for entry in path.parent.iterdir() if entry.is_file() and entry.name[0] != ".")
        expected = f"That folder has {listed(beside)}. {did_you_mean(path.name, beside)}".strip()
    else:
        expected = f"The folder {path.parent} is not there either."
    raise SourceMissing(
        f"the file {source.path!r} of source '{source.name}' is not there (looked for {path}).",
        expected=expected,
        next=f"Correct the path of source '{source.name}' in project.py, or put the file there.",
        source=source.name,
        path=str(path),
    )


def _source_file(source: Source, path: Path, folder: Path) -> SourceFile:
    import blake3

    try:
        size = path.stat().st_size
        if not size:
            raise _empty(source, f"is the file {path.name}, which has 0 bytes")
        hasher = blake3.blake3()
        with path.open("rb") as file:  # not mapped: memory would hold the pages of the whole file
            while block := file.read(HASHED_BYTES):
                hasher.update(block)
    except OSError as error:
        raise unreadable(source, f"cannot be opened: {error}", path) from None
    name = path.relative_to(folder) if path.is_relative_to(folder) else path
    return SourceFile(name.as_posix(), size, hasher.hexdigest())


def _parquet(
    source: ParquetSource, paths: Sequence[Path], folder: Path, threads: int, only: Sequence[str] | None
) -> pa.Table:
    """The rows of the files, one after another. only: columns to read, of those that there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seatrial.data.hive import partitions, with_partitions

    parts = partitions(source, paths, folder)
    tables: list[pa.Table] = []
    schemas: list[pa.Schema] = []
    for position, path in enumerate(paths):
        try:
            with pq.ParquetFile(path) as file:
                schema = file.schema_arrow.remove_metadata()
                _check_names(source, schema.names)
                schemas.append(schema)
                if only is not None and not position:
                    require_columns(source, schema.empty_table(), [one for one in only if one not in parts])
                inside = None if only is None else [one for one in schema.names if one in only]
                table = file.read(columns=inside, use_threads=threads > 1).replace_schema_metadata(None)
                if inside == []:  # Arrow forgets the number of rows of a table without columns
                    table = pa.table({ROW: pa.nulls(file.metadata.num_rows)})
        except (pa.ArrowException, OSError) as error:
            raise unreadable(source, f"is not readable as Parquet: {in_one_line(error)}", path) from None
        difference = _schema_difference(schemas[0], schema)
        if difference:
            raise unreadable(source, f"differs from {paths[0].name}: {difference}", path)
        values = {name: column[position] for name, column in parts.items() if only is None or name in only}
        table = with_partitions(source, table, values, path)
        tables.append(table.drop_columns([ROW]) if inside == [] and ROW not in schema.names else table)
    return pa.concat_tables([table.cast(tables[0].schema) for table in tables])


def _schema_difference(first: pa.Schema, other: pa.Schema) -> str:
    if first.names != other.names:
        return f"it has the columns {listed(other.names)} instead of {listed(first.names)}"
    changed = [
        f"'{a.name}' is {b.type} instead of {a.type}" for a, b in zip(first, other, strict=True) if a.type != b.type
    ]
    return ", ".join(changed)


@dataclass(frozen=True)
class CsvPlan:
    """How a CSV file is read. sql: its rows, with the columns of `timed` and `counted` as they stand in the file.

    timed: columns that look like times; counted: those declared as exact numbers.
    """

    names: list[str]
    delimiter: str
    sql: str
    declared: Mapping[str, str]
    timed: list[str]
    counted: list[str]


def csv_plan(connection: Any, source: CsvSource, path: Path, *, buffer: int | None = None) -> CsvPlan:
    """The types are guessed from every row; times stay text here, so that zones are seen.

    buffer: bytes that are read at once; None: what DuckDB takes. Raises what reading a CSV file raises.
    """
    names, delimiter = csv_header(source, path)
    _check_names(source, names)
    declared = dict(source.types or {})
    for name in declared:
        if name not in names:
            raise column_missing(source.name, name, names)
    nulls = ", ".join(literal(text) for text in source.nulls) or "''"
    options = (
        f"{literal(glob.escape(str(path)))}, header = true, skip = 0, delim = {literal(delimiter)}, quote = '\"', "
        f"escape = '\"', comment = '', nullstr = [{nulls}], dateformat = '%Y-%m-%d', strict_mode = true, "
        f"compression = '{'gzip' if path.suffix == '.gz' else 'none'}'"
        + ("" if buffer is None else f", buffer_size = {buffer}")
    )
    types = _csv_types(connection, options, names) | declared
    timed = [name for name in names if types[name].upper().startswith("TIMESTAMP")]
    counted = [name for name in declared if _decimals(declared[name]) is not None]
    text = {*timed, *counted}
    columns = ", ".join(f"{literal(name)}: {literal('VARCHAR' if name in text else types[name])}" for name in names)
    sql = f"SELECT * FROM read_csv({options}, auto_detect = false, columns = {{{columns}}})"
    return CsvPlan(names, delimiter, sql, declared, timed, counted)


def _csv(source: CsvSource, path: Path, times: Times, threads: int) -> pa.Table:
    """The file as a table."""
    with csv_errors(source, path), session(files=True, threads=threads) as connection:
        plan = csv_plan(connection, source, path)
        table = connection.sql(plan.sql).to_arrow_table()
    table = csv_typed(source, path, plan, table, times)
    empty = [name for name in plan.names if name not in plan.declared and table[name].null_count == table.num_rows]
    return without_type(table, empty)


@contextmanager
def csv_errors(source: CsvSource, path: Path) -> Iterator[None]:
    """What DuckDB says of a CSV file, as errors of a source."""
    import duckdb

    try:
        yield
    except duckdb.ConversionException as error:
        raise _wrong_text(source, path, error) from None
    except duckdb.Error as error:
        raise unreadable(source, f"is not readable as CSV: {in_one_line(error)}", path) from None


def csv_typed(
    source: CsvSource, path: Path, plan: CsvPlan, table: pa.Table, times: Times, *, first_row: int = 0
) -> pa.Table:
    """`table`, rows of the file from `first_row`, with its times and exact numbers as what they are."""
    for name in plan.timed:
        parsed = times.parse(name, table[name], must=name in plan.declared)
        table = table.set_column(plan.names.index(name), name, parsed)
    for name in plan.counted:
        exact = _exact(source, path, plan.delimiter, name, table[name], first_row)
        table = table.set_column(plan.names.index(name), name, exact)
    return table


def without_type(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """`table` with these columns, which have no value, as columns of no type yet."""
    import pyarrow as pa

    for name in names:
        nothing = pa.chunked_array([pa.nulls(table.num_rows)])
        table = table.set_column(table.column_names.index(name), name, nothing)
    return table


_WHOLE = frozenset(
    "TINYINT SMALLINT INTEGER BIGINT HUGEINT UTINYINT USMALLINT UINTEGER UBIGINT UHUGEINT INT INT1 INT2 INT4 INT8 "
    "INT16 INT32 INT64 INT128 SHORT LONG SIGNED".split()
)


def _decimals(kind: str) -> int | None:
    """The decimals that a declared type of exact numbers keeps; None for every other type."""
    kind = kind.strip().upper()
    if kind in _WHOLE:
        return 0
    found = re.fullmatch(r"(?:DECIMAL|NUMERIC|DEC)(?:\s*\(\s*\d+\s*(?:,\s*(\d+)\s*)?\))?", kind)
    if found is None:
        return None
    return int(found[1] or 0) if "(" in kind else 3  # DuckDB's own default is DECIMAL(18, 3)


def _exact(
    source: CsvSource, path: Path, delimiter: str, name: str, texts: pa.ChunkedArray, first_row: int
) -> pa.ChunkedArray:
    """Texts as the declared type of exact numbers; a text that DuckDB would round is refused, like one that is none.

    first_row: where `texts` begin in the file, from 0.
    """
    import duckdb
    import pyarrow as pa

    kind = (source.types or {})[name]
    rounded = (
        f"CASE WHEN contains(lower(text), 'e') THEN CAST(number AS DOUBLE) <> TRY_CAST(text AS DOUBLE) "
        f"ELSE regexp_matches(text, '\\.\\d{{{_decimals(kind)}}}\\d*[1-9]') END"
    )
    cast = f"SELECT {ROW}, text, TRY_CAST(text AS {kind}) AS number FROM texts"
    with session({"texts": with_row_numbers(pa.table({"text": texts}))}) as connection:
        try:
            wrong = connection.sql(
                f"SELECT {ROW}, text FROM ({cast}) WHERE text IS NOT NULL AND (number IS NULL OR {rounded}) "
                f"ORDER BY {ROW} LIMIT 1"
            ).fetchall()
            if not wrong:
                return connection.sql(f"SELECT number FROM ({cast}) ORDER BY {ROW}").to_arrow_table()["number"]
        except duckdb.Error as error:
            raise unreadable(source, f"is not readable as CSV: {in_one_line(error)}", path) from None
    row, text = wrong[0]
    line = _line_of(path, delimiter, first_row + row, columns_there=len(csv_header(source, path)[0]))
    raise _not_of_its_type(source, path, str(line), name, text, kind.upper())


def _line_of(path: Path, delimiter: str, row: int, *, columns_there: int) -> int:
    """The line, from 1, at which a row, from 0, starts. Empty lines are no rows where there are several columns."""
    with _open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter)
        next(reader)
        line = reader.line_num + 1
        for cells in reader:
            if cells or columns_there == 1:
                if not row:
                    return line
                row -= 1
            line = reader.line_num + 1
    return line


def _wrong_text(source: CsvSource, path: Path, error: Exception) -> Failed:
    """The error for a text that is not of its column's declared type, by line, column and value."""
    said = " ".join(str(error).split())
    found = re.search(
        r"Line: (\d+) .*converting column \"(.+?)\"\. Could not convert string \"(.*?)\" to '(.+?)'", said
    )
    if found is None:
        return unreadable(source, f"is not readable as CSV: {in_one_line(error)}", path)
    line, column, value, kind = found.groups()
    return _not_of_its_type(source, path, line, column, value, kind)


def _not_of_its_type(source: CsvSource, path: Path, line: str, column: str, value: str, kind: str) -> ColumnWrongType:
    time = kind == "DATE" or kind.startswith("TIME")
    return ColumnWrongType(
        f"line {line} of {path.name} has {value!r} in column '{column}' of source '{source.name}', which is declared "
        f"{kind}.",
        expected="ISO 8601 is expected of a time."
        if time
        else f"A {kind} is expected, or what nulls= says is missing.",
        next=f"Give it types={{{column!r}: 'VARCHAR'}}. {_to_time(column)}"
        if time
        else f"Give nulls={[*source.nulls, value]} to source '{source.name}', or correct types= or the file.",
        source=source.name,
        column=column,
        value=value,
    )


def _csv_types(connection: Any, options: str, names: Sequence[str]) -> dict[str, str]:
    """column -> DuckDB type that every row's text fits. VARCHAR for all when the rows do not fit together."""
    import duckdb

    try:
        found = connection.sql(f"SELECT columns FROM sniff_csv({options}, sample_size = -1)").fetchall()[0][0]
    except duckdb.Error:
        found = []  # reading, which comes next, tells the line
    if len(found) != len(names):
        return dict.fromkeys(names, "VARCHAR")
    return {name: column["type"] for name, column in zip(names, found, strict=True)}


def csv_header(source: CsvSource, path: Path) -> tuple[list[str], str]:
    """The column names, and the delimiter: the one that cuts the first rows alike, into the most columns."""
    try:
        with _open_text(path) as file:
            tried: list[tuple[bool, int, list[str], str]] = []
            for delimiter in DELIMITERS:
                file.seek(0)
                head = list(islice(csv.reader(file, delimiter=delimiter), 10))
                header = head[0] if head else []
                even = len(header) > 1 and all(len(row) == len(header) for row in head if row)
                tried.append((even, len(header), header, delimiter))
    except UnicodeDecodeError:
        raise unreadable(source, "is not text in UTF-8", path) from None
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise unreadable(source, f"is not readable as CSV: {in_one_line(error)}", path) from None
    _, _, header, chosen = max(tried, key=lambda one: one[:2])  # the first of equals
    names = [name.strip() for name in header]
    if not any(names):
        raise _empty(source, f"is the file {path.name}, which has no header")
    if "" in names:
        raise unreadable(source, f"has no name for column {names.index('') + 1} in its header", path)
    return names, chosen


def _open_text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


# Queries and frames


def _query(
    source: QuerySource, folder: Path, given: Mapping[str, pa.Table], threads: int, below: list[Reading]
) -> pa.Table:
    import duckdb

    tables: dict[str, pa.Table] = {}
    read_already: dict[int, pa.Table] = {}
    for name, table in source.tables.items():
        if table.name in given:
            tables[name] = given[table.name]
            continue
        if id(table) not in read_already:
            below.append(read(table, folder=folder, tables=given, threads=threads))
            read_already[id(table)] = below[-1].table
        tables[name] = read_already[id(table)]
    try:
        if not is_one_select(source.sql):
            raise BadQuery(
                f"the query of source '{source.name}' is not one SELECT statement.",
                expected="Exactly one statement, which only reads, is expected.",
                source=source.name,
            )
        with session(tables) as connection:
            relation = connection.sql(source.sql)
            _check_names(source, relation.columns)
            huge = [name for name, kind in zip(relation.columns, relation.types, strict=True) if str(kind) == "HUGEINT"]
            return _without_huge_integers(relation.to_arrow_table(), huge)
    except duckdb.Error as error:
        raise BadQuery(
            f"the query of source '{source.name}' failed: {in_one_line(error)}",
            expected=f"It can read the tables {listed(tables)}, and no file.",
            next=f"Correct sql= of source '{source.name}' in project.py.",
            source=source.name,
        ) from None


def _without_huge_integers(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """DuckDB's sum of integers is 128 bits wide and leaves as a decimal; int64 again where it fits."""
    import pyarrow as pa

    for name in columns:
        try:
            narrow = table[name].cast(pa.int64())
        except pa.ArrowInvalid:
            continue
        table = table.set_column(table.column_names.index(name), name, narrow)
    return table


def frame_table(source: FrameSource) -> pa.Table:
    import pyarrow as pa

    frame = source.frame
    try:
        if type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns"):
            _check_names(source, [str(name) for name in frame.columns])
            named = any(name is not None for name in frame.index.names)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pyarrow reads pandas' columns in a way that pandas will change
                table = pa.Table.from_pandas(frame, preserve_index=named)
        elif hasattr(frame, "read_all") and hasattr(frame, "__arrow_c_stream__"):
            table = frame.read_all()
            object.__setattr__(source, "frame", table)  # such a reader gives its rows once
        elif hasattr(frame, "__arrow_c_stream__") or hasattr(frame, "__arrow_c_array__"):
            table = pa.table(frame)
        else:
            raise SourceUnreadable(
                f"the frame of source '{source.name}' is {type(frame).__name__}, which is not a table.",
                expected="A table of Arrow, pandas or polars is expected.",
                source=source.name,
            )
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise unreadable(source, f"cannot be turned into Arrow: {in_one_line(error)}") from None
    table = table.replace_schema_metadata(None)
    for position, one in enumerate(table.schema):
        if pa.types.is_nested(one.type):
            table = table.set_column(position, one.name, plain_column(table.column(position)))
    return table


# Times


class Times:
    """Turns the time columns of one source into UTC, and remembers what had to be assumed.

    The rows may come in several tables, one after another.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.naive: list[str] = []
        self.truncated: dict[str, int] = {}
        self.doubled: dict[str, int] = {}  # local times that the clocks show twice, or never
        if source.timezone is not None:
            try:
                ZoneInfo(source.timezone)
            except (KeyError, ValueError, OSError):
                raise UnknownTimezone(
                    f"source '{source.name}' is declared with timezone={source.timezone!r}, which does not exist.",
                    expected="A name of the IANA database is expected, such as 'UTC' or 'America/New_York'.",
                    source=source.name,
                ) from None

    def read(self, table: pa.Table) -> pa.Table:
        """`table` with every timestamp and date as timestamp[us, tz=UTC], and the declared ones checked."""
        import pyarrow as pa

        source = self.source
        roles = {
            "event_timestamp": source.event_timestamp,
            "known_at": source.known_at,
            "label_known_at": source.label_known_at,
        }
        declared = {column: role for role, column in roles.items() if column is not None}
        require_columns(source, table, declared)
        for position, name in enumerate(table.column_names):
            column = table[name]
            kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_temporal(kind) and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
                table = table.set_column(position, name, self._utc(name, column.cast(kind)))
            elif name in declared and column.null_count == len(column):
                table = table.set_column(position, name, pa.chunked_array([pa.nulls(len(column), _utc_type())]))
            elif name in declared:
                raise ColumnWrongType(
                    f"column '{name}' of source '{source.name}' is {kind}, and is declared as its {declared[name]}.",
                    expected=f"A timestamp, a date or, in CSV, ISO 8601 is expected.{_first_no_time(column)}",
                    next=_to_time(name, text=pa.types.is_string(kind)),
                    source=source.name,
                    column=name,
                    type=str(kind),
                )
        return table

    def parse(self, name: str, texts: pa.ChunkedArray, *, must: bool) -> pa.ChunkedArray:
        """Texts of a CSV column as times; the texts themselves when one is no ISO time and `must` is false.

        A column may mix times with and without a zone; those without are read like a naive column.
        """
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        with session({"texts": pa.table({"text": texts})}) as connection:
            parsed = connection.sql(
                r"""
                SELECT TRY_CAST(text AS TIMESTAMPTZ) AS at,
                       regexp_matches(text, '[A-Za-z]\s*$|:\d\d(\.\d+)?\s*[+-]\d\d(:?\d\d)?\s*$') AS zoned,
                       regexp_matches(text, '\.\d{6}\d*[1-9]') AS cut
                FROM texts
                """
            ).to_arrow_table()
        at, zoned = parsed["at"], parsed["zoned"]
        if at.null_count != texts.null_count:
            if not must:
                return texts
            wrong = np.flatnonzero(pc.and_(at.is_null(), texts.is_valid()).to_numpy())
            raise self.no_times(name, len(wrong), len(texts), texts[int(wrong[0])].as_py(), int(wrong[0]))
        self._cut(name, pc.sum(parsed["cut"]).as_py() or 0)
        if pc.all(zoned).as_py() is not False:
            return at
        unzoned = pc.if_else(zoned, pa.scalar(None, at.type), at)
        naive = self._localise(name, unzoned.cast(pa.int64()).cast(pa.timestamp("us")))
        return pa.chunked_array([pc.if_else(zoned.combine_chunks(), at.combine_chunks(), naive.combine_chunks())])

    def no_times(self, name: str, wrong: int, rows: int, first: str, row: int) -> ColumnWrongType:
        """The error for a declared time of a CSV file, `wrong` of whose values are none."""
        return ColumnWrongType(
            f"column '{name}' of source '{self.source.name}' is a time, but {wrong} of its {rows} "
            f"values are none, first {first!r} in row {row} (counted from 0).",
            expected="ISO 8601 is expected, for example 2013-04-01T00:00:00Z.",
            next=_to_time(name),
            source=self.source.name,
            column=name,
            row=row,
        )

    def _cut(self, name: str, count: int) -> None:
        if count:
            self.truncated[name] = self.truncated.get(name, 0) + count

    def warn(self) -> None:
        """At most one warning: times without a zone were read as UTC, or local times were not unique."""
        said = []
        if self.naive and self.source.timezone is None:
            said.append(
                f"{', '.join(self.naive)} {'carries' if len(self.naive) == 1 else 'carry'} no time zone, read as UTC; "
                "give the source timezone= to say which zone they are in"
            )
        for name, count in self.doubled.items():
            said.append(
                f"{count} values of {name} are local times that {self.source.timezone} has twice or not at all "
                "because of a change of clocks, read as the later instant"
            )
        if said:
            warnings.warn(f"source '{self.source.name}': {'; '.join(said)}.", DataWarning, stacklevel=3)

    def _utc(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        import pyarrow as pa

        kind = column.type
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            column = self._cut_nanoseconds(name, column)
        elif pa.types.is_timestamp(kind):
            column = self._to_microseconds(name, column.cast(pa.int64()).cast(pa.timestamp(kind.unit)))
        else:
            column = self._to_microseconds(name, column)
        if zoned:
            return column.cast(pa.int64()).cast(_utc_type())
        return self._localise(name, column)

    def _to_microseconds(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        import pyarrow as pa

        try:
            return column.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            raise ColumnWrongType(
                f"column '{name}' of source '{self.source.name}' holds times beyond the year 294,247.",
                expected="Times that fit into 64 bits of microseconds are expected.",
                source=self.source.name,
                column=name,
            ) from None

    def _cut_nanoseconds(self, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
        import numpy as np
        import pyarrow as pa

        chunks, cut = [], 0
        for chunk in column.chunks:
            missing = chunk.is_null().to_numpy(zero_copy_only=False)
            nanoseconds = chunk.cast(pa.int64()).fill_null(0).to_numpy()
            microseconds = np.floor_divide(nanoseconds, 1000)
            cut += int(np.count_nonzero(microseconds * 1000 != nanoseconds))
            chunks.append(pa.array(microseconds, mask=missing).cast(pa.timestamp("us")))
        self._cut(name, cut)
        return pa.chunked_array(chunks, pa.timestamp("us"))

    def _localise(self, name: str, naive: pa.ChunkedArray) -> pa.ChunkedArray:
        """timestamp[us] without a zone -> UTC. Of two possible instants the later: nothing is known too early."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if name not in self.naive:
            self.naive.append(name)
        zone = self.source.timezone or "UTC"
        if zone == "UTC":
            return naive.cast(pa.int64()).cast(_utc_type())
        later = pc.assume_timezone(naive, zone, ambiguous="latest", nonexistent="latest").cast(_utc_type())
        earlier = pc.assume_timezone(naive, zone, ambiguous="earliest", nonexistent="earliest").cast(_utc_type())
        doubled = pc.sum(pc.not_equal(later, earlier)).as_py() or 0
        if doubled:
            self.doubled[name] = self.doubled.get(name, 0) + doubled
        return later


def _utc_type() -> pa.DataType:
    import pyarrow as pa

    return pa.timestamp("us", tz="UTC")


def _first_no_time(column: pa.ChunkedArray) -> str:
    """The first value that is no ISO time, and its row."""
    for row, value in enumerate(column.to_pylist()):
        try:
            known = value is None or bool(datetime.fromisoformat(value))
        except (TypeError, ValueError):
            known = False
        if not known:
            return f" Row {row} (counted from 0) has {value!r}."
    return ""


def _to_time(name: str, *, text: bool = True) -> str:
    column = quoted(name)
    made = f"strptime({column}, '%d/%m/%Y')" if text else f"CAST({column} AS TIMESTAMPTZ)"
    how = ", in the format that it has" if text else ""
    return f"Convert it in a QuerySource{how}: SELECT * REPLACE ({made} AS {column}) FROM ..."


# The one form


def _plain_layout(table: pa.Table) -> pa.Table:
    """Missing floats as null, dictionaries decoded, one layout of text and of bytes."""
    for position, name in enumerate(table.column_names):
        column = _plain_column(table[name])
        if column is not table[name]:
            table = table.set_column(position, name, column)
    return table


def _plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.nbytes < LARGEST_STRING:
        column = plain_column(column)
    kind = column.type
    if pa.types.is_floating(kind):
        missing = pc.is_nan(column)
        if pc.any(missing).as_py():
            return pc.if_else(missing, pa.scalar(None, kind), column)
    if pa.types.is_list(column.type) and pa.types.is_floating(column.type.value_type):
        return pa.chunked_array([_without_nan(chunk) for chunk in column.chunks], column.type)
    return column


def _without_nan(lists: pa.ListArray) -> pa.ListArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = lists.values
    missing = pc.is_nan(values)
    if not pc.any(missing).as_py():
        return lists
    values = pc.if_else(missing, pa.scalar(None, values.type), values)
    offsets = pa.array(lists.offsets.to_numpy())  # copied: Arrow takes no mask with offsets that are a slice
    return pa.ListArray.from_arrays(offsets, values, mask=lists.is_null() if lists.null_count else None)


def _set_aside(source: Source, table: pa.Table) -> tuple[pa.Table, list[Removed]]:
    table, removed = apart(source, table)
    if not table.num_rows:
        raise none_left(source, removed)
    return table, removed


def none_left(source: Source, removed: Sequence[Removed]) -> SourceEmpty:
    """The error for a source whose rules leave no row."""
    counts = ", ".join(f"{one.count:,} where {one.rule.where}" for one in removed)
    return _empty(source, f"has no rows left: its rules set aside {counts}")


def apart(source: Source, table: pa.Table) -> tuple[pa.Table, list[Removed]]:
    """The rows that stay, and for each rule those that it takes out."""
    import numpy as np
    import pyarrow as pa

    removed = []
    for rule in source.set_aside:
        matched = _matched(source, rule, table)
        if not len(matched):
            removed.append(Removed(source.name, rule, 0, table.slice(0, 0)))
            continue
        stays = np.ones(table.num_rows, dtype=bool)
        stays[matched] = False
        removed.append(Removed(source.name, rule, len(matched), table.take(pa.array(matched))))
        table = table.filter(pa.array(stays))
    return table, removed


def _matched(source: Source, rule: SetAside, table: pa.Table) -> Any:
    """Positions of the rows for which the rule's condition is true, ascending (int64)."""
    import duckdb
    import numpy as np

    sql = f"SELECT {ROW} FROM rows WHERE (\n{rule.where}\n)"
    try:
        if not is_one_select(sql):
            raise duckdb.ParserException("it is not one condition")
        with session({"rows": with_row_numbers(table)}) as connection:
            return np.sort(connection.sql(sql).to_arrow_table()[ROW].to_numpy())
    except duckdb.Error as error:
        raise BadSetAside(
            f"the rule SetAside(where={rule.where!r}) of source '{source.name}' failed: {in_one_line(error)}",
            expected=f"An SQL condition over {listed(table.column_names)} is expected.",
            next=f"Correct set_aside= of source '{source.name}' in project.py.",
            source=source.name,
            where=rule.where,
        ) from None


def _check_names(source: Source, names: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.get(name.lower())
        seen[name.lower()] = name
        if twin is not None:
            both = f"'{name}' twice" if twin == name else f"'{twin}' and '{name}', which SQL does not tell apart"
            raise ColumnDuplicated(
                f"source '{source.name}' has the column {both}.",
                expected="Every column needs a name of its own.",
                next="Rename one where the data is made.",
                source=source.name,
                column=name,
            )


def _empty(source: Source, how: str) -> SourceEmpty:
    return SourceEmpty(
        f"source '{source.name}' {how}.",
        expected="At least one row is expected.",
        next="Check the step that delivers it.",
        source=source.name,
    )


def unreadable(source: Source, what: str, path: Path | None = None) -> SourceUnreadable:
    where = f" ({path.name})" if path else ""
    return SourceUnreadable(
        f"source '{source.name}'{where} {what}.".replace("..", "."),
        expected="The format is given by the kind of source, such as ParquetSource or CsvSource.",
        next="Check the file, or the step that delivers it." if path else "",
        source=source.name,
        path=str(path) if path else None,
    )
