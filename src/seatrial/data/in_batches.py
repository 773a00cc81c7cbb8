"""In batches: the rows of files, checked and kept without ever being one table in memory.

`take` reads a Parquet or CSV source as `reading.read` does, batch by batch, and writes the file that a snapshot of it
is; on the way it digests what it writes. `check` tries the source's expectations on that file. Both say what the way
through a table says: the same id, the same bytes, the same report. Memory holds a few batches, the values that
`references` looks up, and for `unique` up to `session.MEMORY`, beyond which it goes to disk.

A rule or a condition of which each row must see other rows (one with a SELECT in it) needs the table, and so do the
sources that are no files. `take` gives None for them.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.data import reading
from seatrial.data.expectations import (
    EXAMPLES,
    Between,
    CannotCheck,
    Columns,
    Example,
    Expectation,
    Known,
    NotNull,
    OneOf,
    References,
    Result,
    Rows,
    Sql,
    Unique,
    ValidationReport,
    Whole,
    example,
    judged,
    require_known,
)
from seatrial.data.reading import Removed, SourceFile, Times
from seatrial.data.session import ROW, literal, quoted, session
from seatrial.data.snapshot import FEW_ROWS, PAGE_BYTES, Content, Hasher, Writer
from seatrial.data.sources import CsvSource, ParquetSource, Source, require_columns

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS, BATCH_CELLS = 1 << 15, 1 << 20
CSV_BUFFER = 8_000_000  # bytes; DuckDB takes no line that is longer than a fourth of it


@dataclass(frozen=True)
class Streamed:
    """The rows of a source in a file, and how they were obtained. The other fields are those of a `Reading`.

    path: Parquet, as a snapshot is kept.
    """

    source: str
    path: Path
    content: Content
    set_aside: tuple[Removed, ...] = ()
    truncated: Mapping[str, int] = field(default_factory=dict)
    files: tuple[SourceFile, ...] = ()

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows, or some columns of them, one table after another; at least one."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=PAGE_BYTES) as file:
            rows = _batch_rows(file.schema_arrow)
            for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(None)


def take(source: Source, *, folder: Path, path: Path) -> Streamed | None:
    """The rows of `source` in a file at `path`; None when it has to be read as a table.

    folder: where relative paths start. Beside `path` lies what does not fit into memory. Raises and warns as
    `reading.read` does.
    """
    if not isinstance(source, ParquetSource | CsvSource) or not _by_row(rule.where for rule in source.set_aside):
        return None
    times = Times(source)
    removed = [Removed(source.name, rule, 0) for rule in source.set_aside]
    with ExitStack() as stack:
        files, batches = (
            _parquet(source, folder)
            if isinstance(source, ParquetSource)
            else stack.enter_context(_csv(source, folder, times, path.parent))
        )
        hasher: Hasher | None = None
        writer: Writer | None = None
        read = 0
        for batch in batches:
            read += batch.num_rows
            if not batch.num_rows:
                continue
            if not _has_times(source, batch.schema):
                return None
            table = reading._plain_layout(times.read(batch))
            table, apart = reading.apart(source, table)
            removed = [
                Removed(source.name, one.rule, one.count + more.count) for one, more in zip(removed, apart, strict=True)
            ]
            if hasher is None or writer is None:
                reading._check_names(source, table.column_names)
                require_columns(source, table, source.event_key)
                hasher, writer = Hasher(table.schema), stack.enter_context(Writer(path, table.schema))
            hasher.feed(table)
            writer.feed(table)
        times.warn()
        if not read or hasher is None or writer is None:
            raise reading._empty(source, "has no rows")
        content = hasher.content()
        if not content.rows:
            raise reading.none_left(source, removed)
        writer.finish(content)
    return Streamed(source.name, path, content, tuple(removed), times.truncated, tuple(files))


def _by_row(conditions: Iterable[str]) -> bool:
    """Whether each of these SQL conditions can be answered from the row alone."""
    return not any(re.search(rf"\bselect\b|\bfrom\b|{ROW}", one, re.IGNORECASE) for one in conditions)


def _has_times(source: Source, schema: pa.Schema) -> bool:
    """Whether the declared times are times, or not there at all, which reading refuses."""
    import pyarrow as pa

    for name in (source.event_timestamp, source.known_at, source.label_known_at):
        if name is not None and name in schema.names:
            kind = schema.field(name).type
            if not (pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind)):
                return False
    return True


def _batch_rows(schema: pa.Schema) -> int:
    """Rows read at once: fewer where there are many columns, or text, whose length is not known before."""
    import pyarrow as pa

    most = BATCH_ROWS if all(pa.types.is_primitive(field.type) for field in schema) else FEW_ROWS
    return max(1, min(most, BATCH_CELLS // max(1, len(schema))))


def _parquet(source: ParquetSource, folder: Path) -> tuple[list[SourceFile], Iterator[pa.Table]]:
    from seatrial.data.hive import partitions

    paths = reading.matching(source, folder)
    files = [reading._source_file(source, path, folder) for path in paths]
    return files, _parquet_tables(source, paths, partitions(source, paths, folder))


def _parquet_tables(source: ParquetSource, paths: Sequence[Path], parts: Mapping[str, Any]) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seatrial.data.hive import with_partitions
    from seatrial.data.session import in_one_line

    first: pa.Schema | None = None
    whole: pa.Schema | None = None
    for position, path in enumerate(paths):
        values = {name: column[position] for name, column in parts.items()}
        try:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=PAGE_BYTES) as file:
                schema = file.schema_arrow.remove_metadata()
                reading._check_names(source, schema.names)
                first = schema if first is None else first
                difference = reading._schema_difference(first, schema)
                if difference:
                    raise reading.unreadable(source, f"differs from {paths[0].name}: {difference}", path)
                for batch in file.iter_batches(batch_size=_batch_rows(schema), use_threads=False):
                    table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                    table = with_partitions(source, table, values, path)
                    whole = table.schema if whole is None else whole
                    yield table.cast(whole)
        except (pa.ArrowException, OSError) as error:
            raise reading.unreadable(source, f"is not readable as Parquet: {in_one_line(error)}", path) from None


@contextmanager
def _csv(
    source: CsvSource, folder: Path, times: Times, spill: Path
) -> Iterator[tuple[list[SourceFile], Iterator[pa.Table]]]:
    path = reading._existing(source, folder)
    files = [reading._source_file(source, path, folder)]
    with reading.csv_errors(source, path), session(files=True, spill=spill) as connection:
        plan = reading.csv_plan(connection, source, path, buffer=CSV_BUFFER)
        rows, empty, wrong = _looked_over(connection, plan)
        for name in wrong:
            if name in plan.declared:
                raise _no_times(connection, plan, times, name, wrong[name], rows)
        timed = [name for name in plan.timed if name not in wrong]
        yield files, _csv_tables(source, path, connection, replace(plan, timed=timed), times, empty)


def _looked_over(connection: Any, plan: reading.CsvPlan) -> tuple[int, list[str], dict[str, int]]:
    """The rows of a CSV file, its columns without any value, and of those that look like times how many do not."""
    counts = [f"count({quoted(name)})" for name in plan.names]
    wrong = [
        f"count(*) FILTER ({quoted(name)} IS NOT NULL AND TRY_CAST({quoted(name)} AS TIMESTAMPTZ) IS NULL)"
        for name in plan.timed
    ]
    found = connection.sql(f"SELECT {', '.join(['count(*)', *counts, *wrong])} FROM ({plan.sql})").fetchall()[0]
    rows, present, no_times = found[0], found[1 : 1 + len(counts)], found[1 + len(counts) :]
    empty = [n for n, there in zip(plan.names, present, strict=True) if not there and n not in plan.declared]
    return rows, empty, {name: count for name, count in zip(plan.timed, no_times, strict=True) if count}


def _no_times(connection: Any, plan: reading.CsvPlan, times: Times, name: str, wrong: int, rows: int) -> Exception:
    numbered = f"SELECT {quoted(name)} AS text, row_number() OVER () - 1 AS {ROW} FROM ({plan.sql})"
    first, row = connection.sql(
        f"SELECT text, {ROW} FROM ({numbered}) WHERE text IS NOT NULL AND TRY_CAST(text AS TIMESTAMPTZ) IS NULL LIMIT 1"
    ).fetchall()[0]
    return times.no_times(name, wrong, rows, first, row)


def _csv_tables(
    source: CsvSource, path: Path, connection: Any, plan: reading.CsvPlan, times: Times, empty: Sequence[str]
) -> Iterator[pa.Table]:
    import pyarrow as pa

    first_row = 0
    for batch in connection.sql(plan.sql).to_arrow_reader(BATCH_ROWS):
        table = pa.Table.from_batches([batch])
        typed = reading.csv_typed(source, path, plan, table, times, first_row=first_row)
        first_row += table.num_rows
        yield reading.without_type(typed, empty)


# Expectations


def can_check(source: Source) -> bool:
    """Whether every expectation of `source` can be tried on a file."""
    kinds = Between | NotNull | OneOf | References | Rows | Columns | Unique | Sql | Whole
    conditions = [one.condition for one in source.expectations if isinstance(one, Sql)]
    return all(isinstance(one, kinds) for one in source.expectations) and _by_row(conditions)


def check(
    source: Source, rows: Streamed, others: Mapping[str, pa.Table] | None = None, *, known: Known | None = None
) -> ValidationReport:
    """Try every expectation of `source`, for which `can_check` holds, on its rows.

    others, known: as for `expectations.check`; of the others, only the columns that are referred to are needed.
    """
    import pyarrow.parquet as pq

    schema = pq.read_schema(rows.path).remove_metadata()
    tried = [_Tried(source, one, rows, schema, others or {}, known or Known()) for one in source.expectations]
    single = [one for one in tried if one.result is None]
    if single:
        first_row = 0
        columns = None if any(not one.columns for one in single) else {c for one in single for c in one.columns}
        named = None if columns is None else [name for name in schema.names if name in columns]
        for table in rows.tables(named):
            for one in single:
                one.feed(table, first_row)
            first_row += table.num_rows
    return ValidationReport(source.name, rows.content.rows, tuple(one.done() for one in tried), rows.set_aside)


class _Tried:
    """One expectation, while it is tried on one table after another."""

    def __init__(
        self,
        source: Source,
        expectation: Expectation,
        rows: Streamed,
        schema: pa.Schema,
        others: Mapping[str, pa.Table],
        known: Known,
    ) -> None:
        self._source, self._expectation, self._rows = source, expectation, rows
        self._others = others
        self._failing = 0
        self._examples: list[Example] = []
        self._broken: list[pa.Table] = []
        where = [*source.event_key, *([source.event_timestamp] if source.event_timestamp else [])]
        self._shown = [name for name in dict.fromkeys([*expectation.columns, *where]) if name in schema.names]
        self.result: Result | None = None
        try:
            require_known(expectation, schema.names)
            self.result = self._at_once(schema, known)
        except CannotCheck as why:
            self._cannot(why)

    @property
    def columns(self) -> Sequence[str]:
        """The columns to read; none: all."""
        return () if isinstance(self._expectation, Sql) else self._shown

    def _at_once(self, schema: pa.Schema, known: Known) -> Result | None:
        """The result of what is not about single rows, or needs all of them together; None for the rest."""
        import pyarrow as pa

        one, told = self._expectation, "as expected"
        counted = pa.table({ROW: pa.nulls(self._rows.content.rows)})  # takes no memory
        match one:
            case Whole():
                told = one.found(self._rows.tables(list(one.columns)) if one.columns else [counted], known)
            case Rows():
                one.failing(counted, {})
            case Columns():
                one.failing(schema.empty_table(), {})
            case Unique():
                return self._unique(one)
            case _:
                return None
        return Result(one.text, passed=True, failing=None, detail=told, severity=one.severity)

    def feed(self, table: pa.Table, first_row: int) -> None:
        if self.result is not None:
            return
        try:
            failing = self._expectation.failing(table, self._others)
        except CannotCheck as why:
            self._cannot(self._told_of_all(why))
            return
        if not len(failing):
            return
        self._failing += len(failing)
        for row in failing[: EXAMPLES - len(self._examples)]:
            self._examples.append(example(self._source, self._expectation, table, row, first_row=first_row))
        self._keep(table.take(list(failing)))

    def done(self) -> Result:
        if self.result is not None:
            return self.result
        return self._judged()

    def _judged(self) -> Result:
        import pyarrow as pa

        def broken() -> pa.Table:
            return pa.concat_tables(self._broken) if self._broken else pa.table({})

        return judged(self._expectation, self._failing, self._rows.content.rows, self._examples, broken)

    def _keep(self, broken: pa.Table) -> None:
        """Keep, of the broken rows, those that the remedy is made of."""
        import pyarrow as pa

        telling = self._expectation.telling(broken)
        self._broken = [self._expectation.telling(pa.concat_tables([*self._broken, telling]))]

    def _cannot(self, why: CannotCheck) -> None:
        one = self._expectation
        self.result = Result(one.text, passed=False, failing=None, detail=str(why), severity=one.severity)

    def _told_of_all(self, why: CannotCheck) -> CannotCheck:
        """What is said of text where numbers are wanted, from the whole column: it names the value that made it so."""
        one = self._expectation
        if isinstance(one, Between):
            import pyarrow as pa

            try:
                one.failing(pa.concat_tables(self._rows.tables([one.column])), {})
            except CannotCheck as told:
                return told
        return why

    def _unique(self, one: Unique) -> Result:
        """`Unique.failing` in SQL that goes to disk where memory ends: which keys there are twice, then their rows."""
        import duckdb
        import pyarrow as pa

        keys = [f'"{key.replace(chr(34), chr(34) * 2)}"' for key in dict.fromkeys(one.keys)]
        full = " AND ".join(f"{key} IS NOT NULL" for key in keys)
        listed = ", ".join(keys)
        rows = f"read_parquet({literal(glob.escape(str(self._rows.path)))}, file_row_number = true)"
        seen = f"SELECT {listed}, file_row_number AS {ROW} FROM {rows} WHERE {full}"
        twice = (
            f"SELECT {listed}, min({ROW}) AS __first, count(*) AS __count FROM ({seen}) GROUP BY {listed} "
            "HAVING count(*) > 1"
        )
        try:
            with session(files=True, spill=self._rows.path.parent) as connection:
                failing = connection.sql(f"SELECT coalesce(sum(__count - 1), 0) FROM ({twice})").fetchall()[0][0]
                found = (
                    connection.sql(
                        f"SELECT {ROW} FROM ({seen}) JOIN ({twice}) USING ({listed}) WHERE {ROW} > __first "
                        f"ORDER BY {ROW} LIMIT {EXAMPLES}"
                    ).fetchall()
                    if failing
                    else []
                )
        except duckdb.Error:  # a type that DuckDB does not read from Parquet: of these columns a table is made
            table = pa.concat_tables(self._rows.tables(list(dict.fromkeys(one.keys))))
            positions = one.failing(table, {})
            failing, found = len(positions), [(row,) for row in positions[:EXAMPLES]]
        self._failing = int(failing)
        self._examples = self._read([row for (row,) in found])
        return self._judged()

    def _read(self, positions: Sequence[int]) -> list[Example]:
        """Examples of the rows at these positions, ascending."""
        found: list[Example] = []
        first_row = 0
        for table in self._rows.tables(self._shown) if positions else ():
            inside = [row - first_row for row in positions if 0 <= row - first_row < table.num_rows]
            found += [example(self._source, self._expectation, table, row, first_row=first_row) for row in inside]
            first_row += table.num_rows
            if len(found) == len(positions):
                break
        return found


def values_of(tables: Iterable[pa.Table], column: str) -> pa.Table:
    """The different values of a column, as a table of it; where it is not there, no row of the columns that are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found: pa.Array | None = None
    for table in tables:
        if column not in table.column_names:
            return table.slice(0, 0)
        values = pc.unique(table[column])
        found = values if found is None else pc.unique(pa.chunked_array([found, values]))
    return pa.table({column: found})


def beside(table: pa.Table | None, other: pa.Table) -> pa.Table:
    """Two tables of values as one, the shorter filled up with nulls."""
    import pyarrow as pa

    if table is None:
        return other
    rows = max(table.num_rows, other.num_rows)
    columns = {}
    for one in (table, other):
        for name in one.column_names:
            if name not in columns or one.num_rows:
                nothing = pa.nulls(rows - one.num_rows, one[name].type)
                columns[name] = pa.chunked_array([*one[name].chunks, nothing], one[name].type)
    return pa.table(columns)
