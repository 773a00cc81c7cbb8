"""Times as features: `agg.last` of a time is a time to whoever reads it.

Inside, in packed rows, in training sets and for request-time functions, it is int64 microseconds since 1970, in which
online and offline are equal bit by bit. Frames and lists that people read get timestamps of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import from_us, iso
from seatrial.features.plan import ViewPlan, plan_view

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView


def time_features(view: FeatureView | ViewPlan, schema: pa.Schema | None) -> list[str]:
    """The names of a view's features whose values are times. schema: its source's columns; None: nobody knows."""
    from seatrial.data.expressions import evaluate

    plan = plan_view(view)
    last = {name: a for name, a in plan.features.items() if a.function == "last"}
    if schema is None or not last:
        return []
    expressions = {a.reads: a.column for a in last.values() if a.sql and a.column}
    there = set(schema.names)
    if expressions:
        schema = evaluate(schema.empty_table(), expressions, where=f"view '{plan.name}'").schema
        there |= expressions.keys()
    return [name for name, a in last.items() if a.reads in there and is_time(schema.field(a.reads).type)]


def time_columns(
    views: Mapping[str, FeatureView] | Mapping[str, ViewPlan], schemas: Mapping[str, pa.Schema | None]
) -> list[str]:
    """The columns `view__feature` that hold times. schemas: of each view's source, by the view's name."""
    return [f"{name}__{one}" for name, view in views.items() for one in time_features(view, schemas.get(name))]


def with_times(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """`table` with these of its columns, int64 microseconds, as timestamp[us, tz=UTC]."""
    import pyarrow as pa

    for position, name in enumerate(table.column_names):
        if name in columns:
            table = table.set_column(position, name, table[name].cast(pa.int64()).cast(pa.timestamp("us", tz="UTC")))
    return table


def time_text(us: Any) -> Any:
    """Microseconds as ISO 8601 in UTC; null, and what no date can say, stay as they are."""
    try:
        return us if us is None else iso(from_us(us))
    except OverflowError:
        return us


def is_time(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))
