"""Rows that are handed over: do they have the types of the source that they are for?

A key that is 7 in the file and "7" in a pushed row would be two entities, and nothing would say so. So rows given
as dicts, frames or files become the source's own types, or are refused by row, column and value. An int is taken
for a float; text is never taken for a number, except in CSV, where everything is text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed, did_you_mean, listed
from seatrial.data.reading import Times
from seatrial.data.sources import CsvSource, Source

if TYPE_CHECKING:
    import pyarrow as pa


class RowWrongType(Failed):
    """A row that was handed over has a value of another type than its source's column."""

    code = "data.row_wrong_type"


class ColumnLacking(Failed):
    """A row that was handed over lacks a column that a view reads."""

    code = "data.row_lacks_column"


def require(rows: object, source: Source, needs: Sequence[str]) -> None:
    """Raise ColumnLacking for the first row that lacks one of the columns `needs`; null is a value.

    rows: dicts, each of which may lack others, or a table, whose rows all lack the same.
    """
    if isinstance(rows, list):
        given = ((place, row) for place, row in enumerate(rows) if isinstance(row, Mapping))
    else:
        names = getattr(rows, "column_names", None)
        given = iter([(0, dict.fromkeys(names))] if names is not None and len(rows) else [])  # type: ignore[arg-type]
    for place, row in given:
        for name in needs:
            if name not in row:
                raise lacking(place, source, name, list(row))


def lacking(row: int, source: Source, column: str, there: Sequence[str]) -> ColumnLacking:
    """The error for one row. row: counted from 0; there: the columns that it has."""
    return ColumnLacking(
        f"row {row} lacks column '{column}' of source '{source.name}'.",
        expected=f"A row has each column that a view reads, if only as null; this one has {listed(there)}. "
        f"{did_you_mean(column, there)}".strip(),
        state="Nothing was written.",
        next="Correct the rows and push them again.",
        source=source.name,
        column=column,
        row=row,
    )


def table_of(rows: Sequence[Mapping[str, Any]], source: Source, schema: pa.Schema | None) -> pa.Table:
    """Dicts as a table with the columns that they name; a key that a row lacks is null.

    schema: the source's columns as they are read; None when they are not known, and then types are guessed.
    Times may be ISO text or datetimes; those without a zone are read in the source's, as in a file.
    Raises RowWrongType; ColumnWrongType for a text that is no time.
    """
    import pyarrow as pa

    times = Times(source)
    declared = {source.event_timestamp, source.known_at, source.label_known_at}
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        kind = schema.field(name).type if schema is not None and name in schema.names else None
        kind = None if kind is not None and pa.types.is_null(kind) else kind
        if name in declared or (kind is not None and pa.types.is_timestamp(kind)):
            columns[name] = times.parse(name, _time_texts(source, name, values), must=True)
        else:
            columns[name] = _typed(source, name, values, kind)
    times.warn()
    return pa.table(columns)


def conform(table: pa.Table, source: Source, schema: pa.Schema) -> pa.Table:
    """`table` with each column that the source has in the source's type. Times and other columns stay as they are.

    Raises RowWrongType for the first value that has another type, or does not fit.
    """
    import pyarrow as pa

    for position, name in enumerate(table.column_names):
        column = table[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        target = schema.field(name).type if name in schema.names else pa.null()
        theirs, ours = _family(column.type), _family(target)
        if ours == "null" or (theirs == ours and ours in ("string", "time")):
            continue  # reading, which comes next, gives text and times their one form
        if column.null_count == len(column):
            column = pa.chunked_array([pa.nulls(len(column), target)])
        theirs = _family(column.type)
        numbers = {theirs, ours} in ({"int", "float"}, {"list of int", "list of float"})
        if theirs != ours and theirs != "list of null" and not numbers:
            raise _wrong(source, name, column, target)
        if pa.types.is_decimal(target) and pa.types.is_floating(column.type):
            column = _decimals(source, name, column, target)
        try:
            column = column.cast(target)
        except pa.ArrowException:
            raise _wrong(source, name, column, target) from None
        table = table.set_column(position, name, column)
    return table


def csv_types(source: Source, names: Sequence[str], schema: pa.Schema) -> dict[str, str]:
    """For a CSV file with these columns the types that must not be guessed; numbers are, and then compared."""
    kinds = {"string": "VARCHAR", "time": "TIMESTAMPTZ", "bool": "BOOLEAN"}
    found = {name: kinds.get(_family(schema.field(name).type), "") for name in names if name in schema.names}
    said = source.types if isinstance(source, CsvSource) and source.types else {}
    return {name: kind for name, kind in found.items() if kind} | {n: t for n, t in said.items() if n in names}


def _typed(source: Source, name: str, values: list[Any], kind: pa.DataType | None) -> pa.Array:
    import pyarrow as pa

    if kind is not None:
        family = _family(kind)
        values = [None if value != value and family in ("int", "float") else value for value in values]  # NaN
        for row, value in enumerate(values):
            if value is not None and not _fits(value, family):
                raise wrong_value(source, name, row, value, kind)
        if family.startswith("list of "):
            values = [None if value is None else _elements(value, family) for value in values]
        if family == "int":
            values = [None if value is None else int(value) for value in values]
        elif family == "float" and pa.types.is_floating(kind):
            values = [None if value is None else float(value) for value in values]
        elif pa.types.is_decimal(kind):
            values = [None if value is None else _decimal(value) for value in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        if kind is not None:
            for row, value in enumerate(values):
                try:
                    pa.array([value], kind)
                except (pa.ArrowException, TypeError, ValueError, OverflowError):
                    raise wrong_value(source, name, row, value, kind) from None
        raise RowWrongType(
            f"column '{name}' of the rows for source '{source.name}' does not hold values of one type: {error}.",
            expected="Every value of a column needs the column's type.",
            column=name,
        ) from None


def _elements(value: Any, family: str) -> list[Any]:
    """A list as a column of lists of `family` holds it: whole numbers as int, NaN as null."""
    found = [None if one is not None and one != one else one for one in value]
    return [None if one is None else int(one) for one in found] if family == "list of int" else found


def _decimal(value: Any) -> Any:
    """The number as it is written: 2.55 is 2.55, and not the binary fraction beside it."""
    from decimal import Decimal

    return Decimal(repr(float(value))) if isinstance(value, Real) and not isinstance(value, Integral) else value


def _fits(value: Any, family: str) -> bool:
    import numpy as np

    if family.startswith("list of "):
        inside = family.removeprefix("list of ")
        if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str | bytes):
            return False
        return all(one is None or one != one or _fits(one, inside) for one in value)

    truth = isinstance(value, bool | np.bool_)
    match family:
        case "bool":
            return truth
        case "int":
            return not truth and isinstance(value, Real) and (isinstance(value, Integral) or float(value).is_integer())
        case "float":
            from decimal import Decimal

            return not truth and isinstance(value, Real | Decimal)
        case "string":
            return isinstance(value, str)
    return True


def _time_texts(source: Source, name: str, values: list[Any]) -> pa.ChunkedArray:
    import pyarrow as pa

    texts: list[str | None] = []
    for row, value in enumerate(values):
        if value is None or value != value:  # pandas' NaT is unlike itself
            texts.append(None)
        elif isinstance(value, str):
            texts.append(value)
        elif isinstance(value, date | datetime):
            texts.append(value.isoformat())
        else:
            raise wrong_value(source, name, row, value, pa.timestamp("us", tz="UTC"))
    return pa.chunked_array([pa.array(texts, pa.string())])


def _decimals(source: Source, name: str, column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Floats as decimals. Raises RowWrongType for the first that has more decimals; Arrow's own cast would round it."""
    import pyarrow as pa

    found = []
    for row, value in enumerate(column.to_pylist()):
        missing = value is None or value != value
        try:
            found.append(pa.scalar(None if missing else _decimal(value), kind))
        except pa.ArrowException:
            raise wrong_value(source, name, row, value, kind) from None
    return pa.chunked_array([pa.array(found, kind)])


def _wrong(source: Source, name: str, column: pa.ChunkedArray, target: pa.DataType) -> RowWrongType:
    """The error for the first value of `column` that does not fit into `target`, or else for the first value."""
    import pyarrow as pa

    present = [(row, value) for row, value in enumerate(column.to_pylist()) if value is not None]
    for row, value in present:
        try:
            pa.array([value], column.type).cast(target)
        except pa.ArrowException:
            return wrong_value(source, name, row, value, target)
    return wrong_value(source, name, *present[0], target)


_WORDS = {"int": "A whole number", "float": "A number", "bool": "true or false", "string": "Text"}


def wrong_value(source: Source, column: str, row: int, value: Any, kind: pa.DataType) -> RowWrongType:
    """The error for one value. row: counted from 0."""
    family = _family(kind)
    return RowWrongType(
        f"row {row} (counted from 0) for source '{source.name}' has {value!r} in column '{column}', "
        f"which is {kind} in the source.",
        expected=_expected(family, kind),
        next="Correct the rows and push them again.",
        source=source.name,
        column=column,
        row=row,
    )


def _expected(family: str, kind: pa.DataType) -> str:
    if family.startswith("list of "):
        return f"A list is expected, of which every value fits into {kind.value_type}."
    if family == "time":
        return "A time is expected: an ISO 8601 text or a datetime."
    return f"{_WORDS.get(family, f'A value of type {kind}')} is expected that fits into {kind}."


def _family(kind: pa.DataType) -> str:
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {_family(kind.value_type)}"
    for family, matches in (
        ("null", types.is_null),
        ("bool", types.is_boolean),
        ("int", types.is_integer),
        ("float", types.is_floating),
        ("float", types.is_decimal),
        ("string", types.is_string),
        ("string", types.is_large_string),
        ("string", types.is_string_view),
        ("time", types.is_timestamp),
        ("time", types.is_date),
    ):
        if matches(kind):
            return family
    return str(kind)
