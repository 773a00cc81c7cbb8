"""Events: a source's rows in the one form that the offline join and the online store both read.

An event row has the entity's key, the time at which it happened, the time from which it was known, the key
that names the event, and values: as they are for last-value features, as integers of value x scale for
windowed ones. Both paths go through `view_events`, so a value is rounded once, by one function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed
from seatrial.data.sources import column_missing
from seatrial.data.text import why_text
from seatrial.features.plan import ViewPlan, plan_view

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

NEVER_US = 2**63 - 1  # "known at" of a row that is never known; "superseded at" of a row that never is
LARGEST_SUM = 2**48  # 32,768 of them still add up within 64 bits


class EventTimeMissing(Failed):
    """Rows of a view's source have no event time."""

    code = "features.event_time_missing"


class ValueTooLarge(Failed):
    """A value cannot be summed exactly at the feature's resolution."""

    code = "features.value_too_large"


class SumTooLarge(Failed):
    """A window's exact sum does not fit into 64 bits."""

    code = "features.sum_too_large"


class EventKeyMissing(Failed):
    """Rows of a view's source have no event key, so they cannot be told from one another."""

    code = "features.event_key_missing"


class TypeNotKept(Failed):
    """A view reads a column of a type that no key and no feature can have."""

    code = "features.type_not_kept"


class ValueNotNumeric(Failed):
    """A windowed feature or an age is asked of a column that holds no numbers."""

    code = "features.value_not_numeric"


def view_events(view: FeatureView | ViewPlan, rows: pa.Table) -> pa.Table:
    """The events in `rows`, one per row with a full entity key, in the order of the rows.

    rows: columns of the view's source; times are timestamp[us, tz=UTC].
    Columns: `key_i` (entity keys, as they are), `event_us`, `known_us` (int64; NEVER_US where null),
    `id_i` (event key; timestamps as int64), `last_COLUMN` (as is; NaN is null; timestamps as int64) and
    `sum_COLUMN` (int64 of value x scale, null stays null).
    Raises EventTimeMissing, ValueTooLarge, ValueNotNumeric, TypeNotKept; ColumnMissing for a column that is not there.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plan = plan_view(view)
    source = plan.source
    assert source is not None  # who has only a plan without one cannot come here
    times = [source.event_timestamp, *([source.known_at] if source.known_at else [])]
    for column in (*plan.keys, *times, *source.event_key, *plan.last_columns, *plan.sum_columns):
        if column not in rows.column_names:
            raise column_missing(source.name, column, rows.column_names)
    for column in (*plan.keys, *source.event_key, *plan.last_columns):
        _check_kept(plan, source.name, column, rows[column].type)
    keyed = None
    for key in plan.keys:
        valid = pc.is_valid(rows[key])
        keyed = valid if keyed is None else pc.and_(keyed, valid)
    if keyed is not None and not pc.all(keyed).as_py():
        rows = rows.filter(keyed)
    columns: dict[str, Any] = {f"key_{i}": _plain(rows[key]) for i, key in enumerate(plan.keys)}
    event_us = _microseconds(rows[source.event_timestamp])
    if event_us.null_count:
        raise EventTimeMissing(
            f"{event_us.null_count} of {len(rows)} rows of source '{source.name}' have no '{source.event_timestamp}'.",
            expected="Every row of a view's source needs the time at which it happened.",
            next=f"Set such rows aside: SetAside(where='{source.event_timestamp} IS NULL', reason='...').",
        )
    columns["event_us"] = event_us
    known = _microseconds(rows[source.known_at]) if source.known_at else event_us
    columns["known_us"] = pc.fill_null(known, NEVER_US)
    for i, column in enumerate(source.event_key):
        if rows[column].null_count:
            raise EventKeyMissing(
                f"{rows[column].null_count} of {len(rows)} rows of source '{source.name}' have no '{column}'.",
                expected="It is part of the event_key: rows with equal keys are versions of one event.",
                next=f"Set such rows aside: SetAside(where='{column} IS NULL', reason='...').",
            )
        columns[f"id_{i}"] = _plain(rows[column])
    for column in plan.last_columns:
        columns[f"last_{column}"] = _plain(rows[column])
    for column, scale in zip(plan.sum_columns, plan.scales, strict=True):
        columns[f"sum_{column}"] = pa.chunked_array([_fixed(plan, column, rows[column], scale)])
    return pa.table(columns)


def finish(function: str, total: NDArray[np.int64], count: NDArray[np.int64], scale: int) -> NDArray[np.float64]:
    """The value of a windowed feature from its exact sum of value x scale and its count; NaN where it is null.

    One IEEE division of two exactly represented integers per value, offline and online alike.
    """
    if function == "count":
        return count.astype(np.float64)
    divisor = np.full(len(count), scale, dtype=np.int64) if function == "sum" else count * scale
    with np.errstate(invalid="ignore", divide="ignore"):
        value = total.astype(np.float64) / divisor.astype(np.float64)
    value[count == 0] = np.nan
    return value


def age(at_us: Any, event_us: Any, unit_us: int) -> Any:
    """Time from the event to `at` in units; float64."""
    return (at_us - event_us) / float(unit_us)


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with NaN as null, dictionaries decoded and times as microseconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.timestamp("us", tz="UTC" if getattr(kind, "tz", None) else None)).cast(pa.int64())
    if pa.types.is_decimal(kind):
        return column.cast(pa.float64())
    if pa.types.is_floating(kind):
        numbers = column.cast(pa.float64())
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    return column


def _check_kept(view: ViewPlan, source: str, column: str, kind: pa.DataType) -> None:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    known = (
        types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_timestamp,
        types.is_date, types.is_string, types.is_large_string, types.is_string_view,
    )  # fmt: skip
    if not any(matches(kind) for matches in known):
        raise TypeNotKept(
            f"view '{view.name}' reads column '{column}' of source '{source}', whose type is {kind}.",
            expected="Keys and last values are numbers, booleans, text or times.",
            next="Take a part of it, or convert it, in a QuerySource.",
            column=column,
            type=str(kind),
        )


def _fixed(view: ViewPlan, column: str, values: pa.ChunkedArray, scale: int) -> pa.Array:
    """Values as int64 of value x scale, rounded half to even; null and NaN are null."""
    import pyarrow as pa

    kind = values.type
    if pa.types.is_null(kind):  # a pushed row may hold nothing but nulls
        kind = pa.float64()
    if not (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    ):
        raise ValueNotNumeric(
            f"view '{view.name}' adds up column '{column}', whose type is {kind}.",
            expected="mean, sum and count of a column need numbers or booleans.",
            next=why_text(values),
        )
    numbers = values.cast(pa.float64()).combine_chunks()
    missing = np.asarray(numbers.is_null(nan_is_null=True))
    floats = np.where(missing, 0.0, numbers.fill_null(0.0).to_numpy(zero_copy_only=False))
    scaled = np.rint(floats * scale)
    too_large = ~(np.abs(scaled) <= LARGEST_SUM)
    if too_large.any():
        worst = float(floats[int(np.argmax(too_large))])
        raise ValueTooLarge(
            f"view '{view.name}' cannot add up {worst!r} of column '{column}' at a resolution of {1 / scale:g}.",
            expected=f"Values up to {LARGEST_SUM / scale:g} in size fit; infinities never do.",
            next="Give the feature a coarser resolution=, or set such rows aside.",
        )
    return pa.array(scaled.astype(np.int64), mask=missing)
