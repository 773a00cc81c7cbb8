"""Where rows come from: files, frames and queries, declared once and read through one adapter.

A `Source` is a frozen description; nothing is opened until a stage reads it (`data.reading`). Every kind
becomes one Arrow table, in which types, zones and nulls mean the same whatever the format.
"""

from __future__ import annotations

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


@dataclass(frozen=True, eq=False)
class FrameSource(Source):
    """A table in memory: Arrow, pandas or polars (anything with the Arrow C stream interface).

    Two of them are equal only when they are the same object. `as_plain` does not hold the rows. A reader of batches,
    which gives its rows only once, is read when the source first is, and kept as a table.
    """

    frame: Any = field(repr=False)


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
