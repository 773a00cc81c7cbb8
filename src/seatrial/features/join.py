"""The point-in-time join: what did each feature say at each row's instant?

Exactly one output row per input row, in input order. A row of a source counts at instant `at` when it was
known by then (`known_at <= at`) and had happened by then.

- Last-value features: among the counting rows of the entity no older than the ttl (`at - ttl <= event`, closed
  at both ends), the latest by (event time, known time, event key, content) wins as a whole row.
- Windowed features: every counting row with `at - window < event <= at`; of rows with one event key (within
  their entity) the newest known counts.

How: an event counts for a window from the moment it is known until it leaves the window or is superseded, so
each window is a running sum of +value and -value at those two moments, and a look-up is one ASOF join. Sums
are integers, so that no order, thread or engine can change them. The latest row is a running maximum of the
rows' rank in the order above, taken in the order in which rows became known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.core.errors import UsageError
from seatrial.core.windows import duration_text
from seatrial.data.session import quoted
from seatrial.features.events import NEVER_US, SumTooLarge, age, finish, view_events
from seatrial.features.plan import ViewPlan, plan_view

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView


class KeyMissing(UsageError):
    """The rows to be joined lack an entity key column, or it has another type than the view's."""

    code = "features.key_missing"


def as_of(
    rows: pa.Table,
    views: Mapping[str, FeatureView],
    events: Mapping[str, pa.Table],
    *,
    at: str = "at",
    threads: int = 1,
) -> pa.Table:
    """`rows` with one column `view__feature` appended per feature, as of each row's `at`.

    rows: n rows with the entity keys of every view and `at` (timestamp[us, tz=UTC], not null).
    events: for each view its source's rows (see `data.sources.read`).
    Feature columns are float64 for windows and ages (null: nothing counted), and the source's type for `last`.
    The result does not depend on the order of `events` or on the number of threads.
    Raises KeyMissing, and what `view_events` raises.
    """
    import duckdb
    import pyarrow as pa

    at_us = rows[at].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).combine_chunks()
    if at_us.null_count:
        raise UsageError(
            f"{at_us.null_count} of {len(rows)} rows have no '{at}'.", expected="Every row needs its instant."
        )
    result = rows
    with duckdb.connect(":memory:", config={"threads": threads}) as connection:
        for view in views.values():
            plan = plan_view(view)
            _register(connection, plan, rows, at_us, view_events(view, events[view.name]), view)
            for name, column in _view_columns(connection, plan, at_us, len(view.source.event_key)).items():
                result = result.append_column(f"{plan.name}__{name}", column)
    return result


def _register(
    connection: duckdb.DuckDBPyConnection,
    plan: ViewPlan,
    rows: pa.Table,
    at_us: pa.Array,
    events: pa.Table,
    view: FeatureView,
) -> None:
    """Make tables `l` (row, entity, at_us) and `e` (entity, start_us and the event's columns)."""
    import pyarrow as pa

    for key in plan.keys:
        if key not in rows.column_names:
            raise KeyMissing(
                f"the rows have no column '{key}', which view '{plan.name}' is looked up by.",
                expected=f"Columns {', '.join(plan.keys)} are needed.",
            )
    keys = {f"key_{i}": rows[key] for i, key in enumerate(plan.keys)}
    for i, key in enumerate(plan.keys):
        ours, theirs = _family(keys[f"key_{i}"].type), _family(events[f"key_{i}"].type)
        if len(events) and len(rows) and ours != theirs:
            raise KeyMissing(
                f"key '{key}' is {ours} in the rows and {theirs} in source '{view.source.name}' of view '{plan.name}'.",
                expected="A key needs one type on both sides.",
            )
    left = pa.table({"row": np.arange(len(rows)), "at_us": at_us, **keys})
    connection.register("left_rows", left)
    connection.register("right_rows", events)
    equal = " AND ".join(f"a.key_{i} = b.key_{i}" for i in range(len(plan.keys)))
    names = ", ".join(f"key_{i}" for i in range(len(plan.keys)))
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE entities AS
            SELECT {names}, row_number() OVER (ORDER BY {names}) AS entity
            FROM (SELECT DISTINCT {names} FROM right_rows);
        CREATE OR REPLACE TEMP TABLE l AS
            SELECT a.row, a.at_us, b.entity FROM left_rows a LEFT JOIN entities b ON {equal};
        CREATE OR REPLACE TEMP TABLE e AS
            SELECT b.entity, a.* EXCLUDE ({names}), greatest(a.known_us, a.event_us) AS start_us
            FROM right_rows a JOIN entities b ON {equal}
            WHERE a.known_us < {NEVER_US} AND a.known_us <= (SELECT max(at_us) FROM left_rows);
        """
    )
    connection.unregister("left_rows")
    connection.unregister("right_rows")


def _view_columns(
    connection: duckdb.DuckDBPyConnection, plan: ViewPlan, at_us: pa.Array, id_columns: int
) -> dict[str, pa.Array]:
    """The view's features in input order, name -> array."""
    found: dict[str, Any] = {}
    if plan.keeps_last:
        found |= _last_values(connection, plan, at_us, id_columns)
    for window_us in sorted({a.window_us for a in plan.features.values() if a.window_us}):
        found |= _window(connection, plan, window_us, id_columns)
    return {name: found[name] for name in plan.features}


def _last_values(
    connection: duckdb.DuckDBPyConnection, plan: ViewPlan, at_us: pa.Array, id_columns: int
) -> dict[str, pa.Array]:
    import pyarrow as pa
    import pyarrow.compute as pc

    values = [f"last_{column}" for column in plan.last_columns]
    order = ["event_us", "known_us", *(f"id_{i}" for i in range(id_columns)), *values]
    ranked = ", ".join(f"{quoted(column)} NULLS FIRST" for column in order)
    picked = "".join(f", e.{quoted(column)}" for column in values)
    table = connection.sql(
        f"""
        WITH ranked AS (SELECT *, row_number() OVER (ORDER BY {ranked}) AS rank FROM e),
        running AS (
            SELECT entity, start_us, max(rank) OVER (PARTITION BY entity ORDER BY start_us) AS rank FROM ranked
        ),
        steps AS (SELECT entity, start_us, any_value(rank) AS rank FROM running GROUP BY entity, start_us),
        matched AS (
            SELECT l.row, s.rank FROM l ASOF LEFT JOIN steps s ON l.entity = s.entity AND l.at_us >= s.start_us
        )
        SELECT e.event_us{picked} FROM matched m LEFT JOIN ranked e ON m.rank = e.rank ORDER BY m.row
        """
    ).to_arrow_table()
    event_us = table["event_us"].combine_chunks()
    within = event_us.is_valid()
    if plan.ttl_us is not None:
        young = pc.less_equal(pc.subtract(at_us, event_us), plan.ttl_us)
        within = pc.fill_null(young, False)
    found: dict[str, pa.Array] = {}
    for name, aggregation in plan.features.items():
        if aggregation.function == "last":
            column = table[f"last_{aggregation.column}"].combine_chunks()
            found[name] = pc.if_else(within, column, pa.scalar(None, column.type))
        elif aggregation.function == "age":
            ages = age(at_us.to_numpy(), event_us.fill_null(0).to_numpy(), aggregation.unit_us)
            found[name] = pa.array(ages, mask=~within.to_numpy(zero_copy_only=False))
    return found


def _window(
    connection: duckdb.DuckDBPyConnection, plan: ViewPlan, window_us: int, id_columns: int
) -> dict[str, pa.Array]:
    """The features of one window length. Times where a sum changes are `steps`; sums before the first step are 0."""
    import duckdb
    import pyarrow as pa

    wanted = {name: a for name, a in plan.features.items() if a.window_us == window_us}
    columns = list(dict.fromkeys(a.column for a in wanted.values() if a.column))
    end = f"event_us + {window_us}"
    superseded = "e"
    if id_columns:
        keys = ", ".join(["entity", *(f"id_{i}" for i in range(id_columns))])
        content = "".join(f", {quoted(f'sum_{column}')} NULLS FIRST" for column in plan.sum_columns)
        superseded = f"""(
            SELECT *, lead(known_us, 1, {NEVER_US}) OVER (
                PARTITION BY {keys} ORDER BY known_us, event_us{content}
            ) AS next_us
            FROM e
        )"""
        end = f"least({end}, next_us)"
    sums = "".join(
        f", sum(({column} * side)::HUGEINT) AS s{i}, sum(({column} IS NOT NULL)::BIGINT * side) AS n{i}"
        for i, column in enumerate(quoted(f"sum_{column}") for column in columns)
    )
    running = "".join(
        f", (sum(s{i}) OVER w)::BIGINT AS s{i}, (sum(n{i}) OVER w)::BIGINT AS n{i}" for i in range(len(columns))
    )
    picked = "".join(f", coalesce(s.s{i}, 0) AS s{i}, coalesce(s.n{i}, 0) AS n{i}" for i in range(len(columns)))
    try:
        table = connection.sql(
            f"""
            WITH active AS (SELECT *, {end} AS end_us FROM {superseded}),
            counting AS (
                SELECT * FROM active WHERE start_us < end_us AND end_us > (SELECT min(at_us) FROM l)
            ),
            sides AS (
                SELECT *, start_us AS t, 1 AS side FROM counting
                UNION ALL SELECT *, end_us AS t, -1 AS side FROM counting
            ),
            changes AS (SELECT entity, t, sum(side) AS n{sums} FROM sides GROUP BY entity, t),
            steps AS (
                SELECT entity, t, (sum(n) OVER w)::BIGINT AS n{running} FROM changes
                WINDOW w AS (PARTITION BY entity ORDER BY t ROWS UNBOUNDED PRECEDING)
            )
            SELECT coalesce(s.n, 0) AS n{picked}
            FROM l ASOF LEFT JOIN steps s ON l.entity = s.entity AND l.at_us >= s.t ORDER BY l.row
            """
        ).to_arrow_table()
    except (duckdb.ConversionException, duckdb.OutOfRangeException):
        raise SumTooLarge(
            f"a sum of view '{plan.name}' over {duration_text(window_us)} does not fit into 64 bits.",
            next="Give the feature a coarser resolution=.",
        ) from None
    found: dict[str, pa.Array] = {}
    for name, aggregation in wanted.items():
        if aggregation.column is None:
            count = total = table["n"].to_numpy()
            scale = 1
        else:
            position = columns.index(aggregation.column)
            total, count = table[f"s{position}"].to_numpy(), table[f"n{position}"].to_numpy()
            scale = plan.scales[plan.sum_columns.index(aggregation.column)]
        found[name] = pa.array(finish(aggregation.function, total, count, scale), from_pandas=True)
    return found


def _family(kind: pa.DataType) -> str:
    """The kind of key that values of this Arrow type are: integers of any width are one kind."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    return str(kind)
