"""Where rows come from: files, frames and queries, declared once and read through one adapter.

A `Source` is a frozen description; nothing is opened until a stage reads it (`data.reading`). Every kind
becomes one Arrow table, in which types, zones and nulls mean the same whatever the format.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.data.expectations import Expectation, SetAside

if TYPE_CHECKING:
    import pyarrow as pa

LONGEST_PATH, LONGEST_NAME = 4096, 255  # bytes; what file systems take


class BadSource(UsageError):
    """A source is declared in a way that cannot work."""

    code = "data.bad_source"


class SourceExtraMissing(UsageError):
    """A kind of source needs a package that the base install does not hold."""

    code = "data.extra_missing"


class ColumnMissing(Failed):
    """A declaration names a column that the source does not have."""

    code = "data.column_missing"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A table of rows.

    name: by default the stem of the path.
    event_timestamp: column with the time at which the row's event happened.
    known_at: column with the time from which the row could be known; None: known when it happened.
    event_key: columns that name the event; rows with equal keys are restatements of one event.
    label_known_at: for label sources, column with the time at which the label could be known; null: never.
    timezone: the zone of time columns that carry none; None: UTC, with one warning that names the column.
    expectations: what must hold for the rows; set_aside: rules that take rows out, with a reason.
    """

    name: str = ""
    event_timestamp: str | None = None
    known_at: str | None = None
    event_key: Sequence[str] = ()
    label_known_at: str | None = None
    timezone: str | None = None
    expectations: Sequence[Expectation] = ()
    set_aside: Sequence[SetAside] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise self._wrong("name", "Text is expected.")
        for what in ("event_timestamp", "known_at", "label_known_at", "timezone"):
            if (value := getattr(self, what)) is not None and (not isinstance(value, str) or not value):
                raise self._wrong(what, 'A name in text is expected, such as "recorded_at" or "Europe/Vienna".')
        for what, kind, example in (
            ("event_key", str, '["order_id"]'),
            ("expectations", Expectation, '[expect.not_null("order_id")]'),
            ("set_aside", SetAside, '[SetAside(where="amount < 0", reason="test data")]'),
        ):
            if not _is_list_of(getattr(self, what), kind):
                raise self._wrong(what, f"A list is expected, for example {example}.")

    def _wrong(self, what: str, expected: str) -> BadSource:
        value = repr(getattr(self, what))
        value = value if len(value) <= 80 else f"{value[:60]}... ({len(value):,} letters)"
        name = repr(self.name) if isinstance(self.name, str) and len(self.name) <= 80 and self.name else "a source"
        return BadSource(f"{type(self).__name__} {name} is declared with {what}={value}.", expected=expected)

    def _check_path(self, path: object) -> None:
        if not isinstance(path, str) or not path or "\0" in path:
            raise self._wrong("path", "The path of a file in text is expected.")
        parts = [path.encode(errors="replace"), *(part.encode(errors="replace") for part in PurePath(path).parts)]
        if len(parts[0]) > LONGEST_PATH or max(map(len, parts[1:]), default=0) > LONGEST_NAME:
            raise self._wrong(
                "path", f"File systems take {LONGEST_PATH:,} bytes, and {LONGEST_NAME} for each name in it."
            )

    def as_plain(self) -> dict[str, Any]:
        """What determines the rows and their times, as plain values for digests; not expectations."""
        return {
            "kind": type(self).__name__,
            "event_timestamp": self.event_timestamp,
            "known_at": self.known_at,
            "event_key": list(self.event_key),
            "label_known_at": self.label_known_at,
            "timezone": self.timezone,
            "set_aside": [rule.where for rule in self.set_aside],
        }


@dataclass(frozen=True)
class ParquetSource(Source):
    """A Parquet file, or a glob of files with one schema; a relative path starts at the project's folder.

    hive: whether folders such as year=2013 in the path are columns; None: in a glob they are.
    """

    path: str
    hive: bool | None = None

    def __post_init__(self) -> None:
        self._check_path(self.path)
        if not self.name:
            object.__setattr__(self, "name", PurePath(self.path).stem)
        super().__post_init__()
        if self.hive is not None and not isinstance(self.hive, bool):
            raise self._wrong("hive", "True, False or nothing is expected.")

    def as_plain(self) -> dict[str, Any]:
        hive = {} if self.hive is None else {"hive": self.hive}
        return super().as_plain() | {"path": self.path} | hive


@dataclass(frozen=True)
class CsvSource(Source):
    """A CSV file in UTF-8 with a header (also .gz), separated by commas, semicolons, tabs or bars.

    nulls: texts that mean null; types: column -> DuckDB type where guessing (from every row) is wrong.
    """

    path: str
    nulls: Sequence[str] = ("",)
    types: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self._check_path(self.path)
        if not self.name:
            object.__setattr__(self, "name", PurePath(self.path).stem)
        super().__post_init__()
        if not _is_list_of(self.nulls, str):
            raise self._wrong("nulls", 'A list of texts is expected, for example ["", "NA"].')
        if self.types is not None and not _is_map_of(self.types, str):
            raise self._wrong("types", 'Types by column are expected, for example {"zip": "VARCHAR"}.')

    def as_plain(self) -> dict[str, Any]:
        return super().as_plain() | {"path": self.path, "nulls": list(self.nulls), "types": dict(self.types or {})}


@dataclass(frozen=True)
class QuerySource(Source):
    """A DuckDB query over other sources, named in `tables`. It reads nothing else.

    Its rows come in the order of the query; one without ORDER BY runs on one thread and repeats its order.
    """

    sql: str
    tables: Mapping[str, Source]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.sql, str) or not self.sql.strip():
            raise self._wrong("sql", "A SELECT statement in text is expected.")
        if not _is_map_of(self.tables, Source):
            raise self._wrong("tables", 'Sources by name are expected, for example {"orders": orders}.')

    def as_plain(self) -> dict[str, Any]:
        raw_sources(self)  # refuses a query that reads itself
        tables = {name: table.as_plain() for name, table in self.tables.items()}
        return super().as_plain() | {"sql": self.sql, "tables": tables}


@dataclass(frozen=True)
class PostgresSource(Source):
    """The rows of a PostgreSQL table or query, all as of one instant. Needs `pip install "seatrial[postgres]"`.

    url: postgresql://user@host/database, or with variables of the environment: "${DATABASE_URL}". A password in it is
        used, and shown nowhere: not by repr, messages, records or digests.
    table: "table" or "schema.table"; or sql: one SELECT.
    order_by: columns that the rows are sorted by; rows that are equal in them, and all rows by default, are sorted by
        the other columns from left to right, texts by their bytes. What a snapshot holds thus never hangs on how the
        server stores or plans.
    """

    url: str = field(repr=False)
    table: str | None = None
    sql: str | None = None
    order_by: Sequence[str] = ()

    def __post_init__(self) -> None:
        for what in ("table", "sql"):
            if (value := getattr(self, what)) is not None and (not isinstance(value, str) or not value.strip()):
                raise self._wrong(what, 'Text is expected, such as "shop.orders" or "SELECT * FROM shop.orders".')
        if not self.name and self.table:
            object.__setattr__(self, "name", self.table.rpartition(".")[2].strip('"'))
        if not isinstance(self.url, str) or not self.url or "\0" in self.url:
            raise BadSource(
                f"PostgresSource '{self.name}' is declared with a url= that is no text.",  # it may hold a password
                expected='An address is expected, such as "${DATABASE_URL}" or "postgresql://user@host/database".',
            )
        super().__post_init__()
        if (self.table is None) == (self.sql is None):
            raise self._wrong("table", 'Either table="schema.table" or sql="SELECT ..." is expected.')
        if self.table is not None and not 1 <= len(self.table_parts) <= 2:
            raise self._wrong("table", 'The name of a table is expected, such as "orders" or "shop.orders".')
        if not _is_list_of(self.order_by, str):
            raise self._wrong("order_by", 'A list of columns is expected, for example ["order_id"].')

    @property
    def table_parts(self) -> list[str]:
        """The schema, where one is named, and the table; a part in double quotes may hold dots."""
        parts = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', self.table or "")
        whole = ".".join(f'"{quoted}"' if quoted else plain for quoted, plain in parts)
        return [quoted.replace('""', '"') or plain for quoted, plain in parts] if whole == self.table else []

    def as_plain(self) -> dict[str, Any]:
        url = without_password(self.url)
        what = {"url": url, "table": self.table, "sql": self.sql, "order_by": list(self.order_by)}
        return super().as_plain() | what


@dataclass(frozen=True)
class DeltaSource(Source):
    """The rows of a Delta table in a local folder. Needs `pip install "seatrial[delta]"`.

    path: the table's folder; a relative path starts at the project's folder.
    version: which version of the table; None: the newest, and the reading says which that was.
    by_reference: whether snapshots leave the rows where they are, and keep the version and digests only.
    """

    path: str
    version: int | None = None
    by_reference: bool = False

    def __post_init__(self) -> None:
        self._check_path(self.path)
        if not self.name:
            object.__setattr__(self, "name", PurePath(self.path).stem)
        super().__post_init__()
        version = self.version
        if version is not None and (not isinstance(version, int) or isinstance(version, bool) or version < 0):
            raise self._wrong("version", "A whole number from 0 is expected, or nothing for the newest version.")
        if not isinstance(self.by_reference, bool):
            raise self._wrong("by_reference", "True or False is expected.")

    def as_plain(self) -> dict[str, Any]:
        return super().as_plain() | {"path": self.path, "version": self.version}


@dataclass(frozen=True, eq=False)
class FrameSource(Source):
    """A table in memory: Arrow, pandas or polars (anything with the Arrow C stream interface).

    Two of them are equal only when they are the same object. `as_plain` does not hold the rows. A reader of batches,
    which gives its rows only once, is read when the source first is, and kept as a table.
    """

    frame: Any = field(repr=False)


def without_password(url: str) -> str:
    """A PostgreSQL address, as URL or as `key=value` words, without the password that it may hold."""
    url = re.sub(r"(://[^:/?@]*):.*@", r"\1@", url, flags=re.DOTALL)
    url = re.sub(r"([?&])(?:ssl)?password=[^&]*", r"\1", url, flags=re.IGNORECASE)
    return re.sub(r"\b(?:ssl)?password\s*=\s*(?:'(?:[^'\\]|\\.)*'|\S+)", "", url, flags=re.IGNORECASE | re.DOTALL)


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(one, kind) for one in value)


def _is_map_of(value: object, kind: type) -> bool:
    return isinstance(value, Mapping) and all(isinstance(k, str) and isinstance(v, kind) for k, v in value.items())


def raw_sources(source: Source) -> list[Source]:
    """The sources that a source is read from: itself, or those below a query, each once, in order.

    Raises BadSource for a query that reads itself, directly or through others.
    """
    return _raw_below(source, ())


def _raw_below(source: Source, above: tuple[Source, ...]) -> list[Source]:
    if not isinstance(source, QuerySource):
        return [source]
    for position, one in enumerate(above):
        if one is source:
            names = " -> ".join(f"'{step.name}'" for step in (*above[position:], source))
            raise BadSource(
                f"the query source '{source.name}' reads itself: {names}.",
                expected="The tables of a query are sources that can be read before it.",
                next="Take the source that closes the circle out of tables=.",
                source=source.name,
                cycle=[step.name for step in (*above[position:], source)],
            )
    found: list[Source] = []
    for table in source.tables.values():
        found += [leaf for leaf in _raw_below(table, (*above, source)) if all(leaf is not known for known in found)]
    return found


def require_columns(source: Source, rows: pa.Table, columns: Iterable[str]) -> None:
    """Raise ColumnMissing for the first of `columns` that `rows`, read from `source`, does not have."""
    for column in columns:
        if column not in rows.column_names:
            raise column_missing(source.name, column, rows.column_names)


def column_missing(source: str, column: str, known: Sequence[str]) -> ColumnMissing:
    """The error for a column that a source does not have."""
    return ColumnMissing(
        f"source '{source}' has no column '{column}'.",
        expected=f"It has {listed(known)}. {did_you_mean(column, known)}".strip(),
        next="Correct the declaration that names it.",
        source=source,
        column=column,
        known=list(known),
    )
