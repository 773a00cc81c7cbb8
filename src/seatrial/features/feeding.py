"""Feeding: can a source, as it is declared and read now, still feed a view as it was frozen?

It can when it has the columns that the view reads, in types that mean the same, and when its rows mean what they
meant: the same times, event key and zone, the same rows set aside, and for a query the same values as the frozen
source finds in the same rows.
Where its rows lie, in which format, and what else they hold does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.data.expressions import evaluate, wrong
from seatrial.data.sources import FrameSource, QuerySource, Source, raw_sources
from seatrial.features.frozen import FrozenSource, thawed
from seatrial.features.plan import ViewPlan
from seatrial.features.shared import AT

if TYPE_CHECKING:
    import pyarrow as pa

NUMBERS = ("mean", "sum", "std", "min", "max")
"""Functions to which a number is a number, whole or not."""

_FAMILIES = {
    "int": "integer",
    "uint": "integer",
    "float": "number",
    "double": "number",
    "halffloat": "number",
    "decimal": "number",
    "bool": "boolean",
    "string": "text",
    "large_string": "text",
    "timestamp": "time",
    "date": "time",
}


def differences(
    plan: ViewPlan,
    before: FrozenSource | None,
    sources: Mapping[str, Source],
    tables: Mapping[str, pa.Table],
) -> list[str]:
    """Why the declared sources cannot feed a frozen view, one sentence each; none when they can.

    plan: with its source. before: the source as it was frozen; None for views older than that, of which only names
    are compared. sources: every declared source by name.
    tables: rows of raw sources as they are now; what cannot be read from them is not compared.
    """
    assert plan.source is not None
    name = plan.source.name
    source = sources.get(name)
    if source is None:
        return [_gone(plan, before, sources)]
    was: dict[str, Any] = {what: getattr(plan.source, what) for what in ("event_timestamp", "known_at", "event_key")}
    was |= {"timezone": before.timezone} if before else {}
    found = []
    for what, old in was.items():
        new = tuple(source.event_key) if what == "event_key" else getattr(source, what)
        if old != new:
            found.append(f"Source '{name}' had {what}={_shown(old)} and now has {what}={_shown(new)}.")
    if before is not None and _left_out(plan, before) != _left_out(plan, source):
        old, new = (sorted(_left_out(plan, one)) for one in (before, source))
        found.append(f"Source '{name}' had set_aside={old} and now has set_aside={new}, which leaves other rows.")
    schema = schema_of(source, tables)
    if schema is not None:
        columns = before.columns if before else {}
        found += column_differences(plan, columns, name, schema) or _values(plan, before, source, tables)
    return found


def columns_read(plan: ViewPlan) -> dict[str, str]:
    """Each column that a view reads -> its role: "key" (of entities and events), "time", "number" or "value".

    What expressions read is not among them.
    """
    assert plan.source is not None
    read = [a for a in plan.features.values() if a.column and not a.sql]
    found = {a.column: "number" if a.function in NUMBERS else "value" for a in read if a.column}
    found |= {column: "time" for column in (plan.source.event_timestamp, plan.source.known_at) if column}
    return found | dict.fromkeys((*plan.source.event_key, *plan.keys), "key")


def _gone(plan: ViewPlan, before: FrozenSource | None, sources: Mapping[str, Source]) -> str:
    assert plan.source is not None
    name = plan.source.name
    if AT in name:
        return (
            f"View '{plan.name}' of another project, with its source '{name}', is no longer declared by shared_view()."
        )
    path = before.path if before else ""
    renamed = [one.name for one in sources.values() if path and getattr(one, "path", "") == path]
    near = f"Source '{renamed[0]}' reads the same file." if renamed else did_you_mean(name, sources)
    return f"Source '{name}' is no longer declared. {near}".strip()


def _left_out(plan: ViewPlan, source: Source | FrozenSource) -> set[str]:
    """The conditions of rows that are set aside, here and below, but for rows that no view could take."""
    assert plan.source is not None
    needed = (plan.source.event_timestamp, *plan.source.event_key, *plan.keys)
    rules = [rule if isinstance(rule, str) else rule.where for rule in source.set_aside]
    found = {" ".join(rule.split()) for rule in rules} - {f"{column} IS NULL" for column in needed}
    below = source.tables if isinstance(source, QuerySource | FrozenSource) else {}
    return found.union(*(_left_out(plan, table) for table in below.values()))


def _shown(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def schema_of(source: Source, tables: Mapping[str, pa.Table]) -> pa.Schema | None:
    """The columns that a source has now; None when `tables` do not tell."""
    from seatrial.data.reading import BadQuery, query_schema

    if source.name in tables:
        return tables[source.name].schema
    if not isinstance(source, QuerySource):
        return None
    below = {table.name: schema_of(table, tables) for table in source.tables.values()}
    known = {name: schema for name, schema in below.items() if schema is not None}
    try:
        return query_schema(source, known) if len(known) == len(below) else None
    except BadQuery:
        return None  # whoever reads it is told


def column_differences(plan: ViewPlan, before: Mapping[str, str], source: str, schema: pa.Schema) -> list[str]:
    """What of the columns that a view reads is gone, or of another kind. before: column -> Arrow type, where known."""
    found = []
    for column, role in columns_read(plan).items():
        if column not in schema.names:
            near = did_you_mean(column, schema.names)
            found.append(f"Source '{source}' has no column '{column}' any more. {near}".strip())
            continue
        old, new = before.get(column, ""), str(schema.field(column).type)
        if old and _family(old, role) != _family(new, role) and "null" not in (old, new):
            found.append(f"Column '{column}' of source '{source}' was {old} and is {new}.")
    for expression in plan.expressions.values():
        problem = wrong(expression, schema.empty_table())
        if problem:
            found.append(f"The expression {expression!r} no longer fits source '{source}': {problem}.")
    return found


def _family(kind: str, role: str) -> str:
    """What an Arrow type is in a role: widths do not count, and numbers are numbers unless they are keys."""
    family = next((family for start, family in _FAMILIES.items() if kind.startswith(start)), kind)
    if family == "integer" or (family == "boolean" and role == "number"):
        return family if role == "key" else "number"
    return family


def _values(plan: ViewPlan, before: FrozenSource | None, source: Source, tables: Mapping[str, pa.Table]) -> list[str]:
    """What a query finds otherwise than the frozen one does, in the same rows.

    When the frozen query cannot be run any more, there is nothing to compare with.
    """
    from seatrial.data.reading import read
    from seatrial.data.session import quoted, session

    if before is None or not isinstance(source, QuerySource):
        return []
    below = {getattr(one, "path", None): one.name for one in raw_sources(source)}

    def raw(frozen: FrozenSource) -> Source | None:
        """The rows that a raw source has now, be it declared under another name."""
        found = frozen.name if frozen.name in tables else below.get(frozen.path, "")
        return FrameSource(tables[found], name=frozen.name) if found in tables else None

    old = thawed(before, raw)
    if old is None or _queries(old) == _queries(source):
        return []
    where = f"view '{plan.name}'"
    try:
        found_by = [read(one, folder=Path(), tables=tables).table for one in (old, source)]
        first, second = (evaluate(rows, plan.expressions, where=where) for rows in found_by)
    except (Failed, UsageError):
        return []
    roles = columns_read(plan)
    shared = [column for column, role in roles.items() if role in ("key", "time")]
    values = [column for column in (*roles, *plan.expressions) if column not in shared]
    found = []
    with session({"first": first, "second": second}) as connection:

        def gone(columns: list[str], one: str, other: str) -> int:
            names = ", ".join(map(quoted, columns))
            rows = f"SELECT {names} FROM {one} EXCEPT ALL SELECT {names} FROM {other}"
            return int(connection.sql(f"SELECT count(*) FROM ({rows})").fetchall()[0][0])

        lost, added = gone(shared, "first", "second"), gone(shared, "second", "first")
        if lost or added:
            found.append(
                f"The query of source '{source.name}' was changed: of {first.num_rows:,} rows that the frozen query "
                f"finds it has lost {lost:,}, and it finds {added:,} others, by {listed(shared)}."
            )
        for column in values if not found else ():
            other = gone([*shared, column], "first", "second")
            if other:
                found.append(
                    f"The query of source '{source.name}' was changed: '{column}' has another value in {other:,} of "
                    f"{first.num_rows:,} rows."
                )
    return found


def _queries(source: Source) -> Any:
    """The SQL of a source and of those below it, spaces aside, for comparison."""
    if not isinstance(source, QuerySource):
        return source.name
    return " ".join(source.sql.split()), {alias: _queries(table) for alias, table in source.tables.items()}
