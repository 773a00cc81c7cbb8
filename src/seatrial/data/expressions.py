"""Expressions: SQL over the columns of one row, and nothing else.

An expression that looked at other rows could look into the future of its own, and one that asked for the time or a
random number would say something else tomorrow; both are refused before they run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed, did_you_mean, listed
from seatrial.data.session import in_one_line, is_one_select, quoted, session

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = "rows"


class BadExpression(Failed):
    """A text is no SQL expression over the columns of one row."""

    code = "data.bad_expression"


def evaluate(rows: pa.Table, expressions: Mapping[str, str], *, where: str) -> pa.Table:
    """`rows` with a column appended per expression, named by its key; the rows keep their order.

    where: who asks, for messages: "view 'carrier_delay'". Raises BadExpression.
    """
    import duckdb

    if not expressions:
        return rows
    for name, text in expressions.items():
        problem = f"the rows have a column '{name}'" if name in rows.column_names else wrong(text, rows)
        if problem:
            raise BadExpression(
                f"the expression {text!r} of {where} cannot be used: {problem}.",
                expected=f"A DuckDB expression over the columns of one row is expected: {listed(rows.column_names)}.",
            )
    made = ", ".join(f"(\n{text}\n) AS {quoted(name)}" for name, text in expressions.items())
    try:
        with session({ROWS: rows}) as connection:
            table = connection.sql(f"SELECT {made} FROM {ROWS}").to_arrow_table()
    except duckdb.Error as error:
        raise BadExpression(
            f"an expression of {where} failed: {in_one_line(error)}.",
            next="Use try_cast, or a CASE, for values that it does not fit.",
        ) from None
    for name, column in zip(expressions, table.columns, strict=True):
        rows = rows.append_column(name, column)
    return rows


def wrong(expression: str, rows: pa.Table) -> str:
    """Why `expression` cannot be computed for each row of `rows` by itself; empty when it can."""
    import duckdb

    sql = f"SELECT (\n{expression}\n) AS value FROM {ROWS}"
    try:
        if not is_one_select(sql):
            return "it is not one expression"
        with session({ROWS: rows}) as connection:
            problem = _looks_beyond(connection, sql, rows.column_names)
            if not problem:
                connection.execute(f"SELECT *, (\n{expression}\n) AS value FROM {ROWS} LIMIT 0")
    except duckdb.Error as error:
        return " ".join(str(error).split("\n")[0].split())
    return problem


def columns_read(expression: str, columns: Sequence[str]) -> list[str]:
    """Those of `columns` that an expression names, in their order; none when it is no expression."""
    import duckdb
    import msgspec

    try:
        with session({}) as connection:
            sql = f"SELECT (\n{expression}\n) AS value"
            (text,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone() or ("{}",)
    except duckdb.Error:
        return []
    named = [node["column_names"] for node in _nodes(msgspec.json.decode(text)) if node["class"] == "COLUMN_REF"]
    read = {part.lower() for parts in named for part in parts}
    return [column for column in columns if column.lower() in read]


def _looks_beyond(connection: Any, sql: str, columns: Sequence[str]) -> str:
    """What in a parsed expression depends on more than one row's columns; empty when nothing does."""
    import msgspec

    (text,) = connection.execute("SELECT json_serialize_sql(?)", [sql]).fetchone()
    selected = msgspec.json.decode(text)["statements"][0]["node"].get("select_list", [])
    if len(selected) != 1:
        return "it is not one expression"
    nodes = list(_nodes(selected))
    kinds = {node["class"] for node in nodes}
    if {"WINDOW", "SUBQUERY"} & kinds:
        return "it looks at other rows, which may lie in the future of this one"
    if "STAR" in kinds:
        return "it is not one value, but several columns"
    functions = [node for node in nodes if node["class"] == "FUNCTION"]
    used = [node["function_name"] for node in functions]
    if {"unnest", "unlist"} & set(used):
        return "it makes several rows, or none, of one"
    ages = [node.get("arguments") or node.get("children", ()) for node in functions if node["function_name"] == "age"]
    if any(len(given) == 1 for given in ages):
        return "age of one time looks at the clock; give it two times"
    unsteady = connection.execute(
        "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
    ).fetchall()
    for (name,) in unsteady:
        if name in used:
            return f"{name} gives another value every time"
    known = {ROWS, *(column.lower() for column in columns)}
    if "LAMBDA" not in kinds:  # whose parameters look like columns
        for node in nodes:
            if node["class"] == "COLUMN_REF" and node["column_names"][0].lower() not in known:
                name = node["column_names"][0]
                return f"there is no column '{name}'. {did_you_mean(name, columns)}".strip().rstrip(".")
    return ""


def _nodes(tree: Any) -> Iterable[dict[str, Any]]:
    """Every node of a syntax tree that has a class."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)
