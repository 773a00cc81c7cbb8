"""Events: a source's rows in the one form that the offline join and the online store both read.

An event row has the entity's key, the time at which it happened, the time from which it was known, the key
that names the event, and values: as they are for last-value features, as integers of value x scale for
windowed ones. Both paths go through `view_events`, so a value is rounded once, by one function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed
from seatrial.data.expressions import evaluate
from seatrial.data.sources import column_missing
from seatrial.data.text import why_text
from seatrial.features.plan import TailColumn, ViewPlan, plan_view

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

Int64 = NDArray[np.int64]

NEVER_US = 2**63 - 1  # "known at" of a row that is never known; "superseded at" of a row that never is
LEAST = -(2**63)  # stands for null among integers
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999  # the years 1 to 9999
LARGEST_SUM = 2**48  # 32,768 of them still add up within 64 bits


class EventTimeMissing(Failed):
    """Rows of a view's source have no event time."""

    code = "features.event_time_missing"


class EventTimeOutOfRange(Failed):
    """Rows of a view's source have an event time that no calendar has."""

    code = "features.event_time_out_of_range"


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


def view_events(view: FeatureView | ViewPlan, rows: pa.Table, *, plain_last: bool = True) -> pa.Table:
    """The events in `rows`, one per row with a full entity key, in the order of the rows.

    rows: columns of the view's source; times are timestamp[us, tz=UTC].
    Columns: `key_i` (entity keys, see `as_kept`), `event_us`, `known_us` (int64; NEVER_US where null),
    `id_i` (event key), `last_COLUMN` (see `as_kept`; as the source has it without `plain_last`) and
    `tail_i` (int64, for each of the plan's `tail_columns`; null stays null).
    Raises EventTimeMissing, EventTimeOutOfRange, ValueTooLarge, ValueNotNumeric, TypeNotKept, BadExpression;
    ColumnMissing for a column that is not there.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    plan = plan_view(view)
    source = plan.source
    assert source is not None  # who has only a plan without one cannot come here
    times = [source.event_timestamp, *([source.known_at] if source.known_at else [])]
    named = [a.column for a in plan.features.values() if a.column and not a.sql]
    for column in (*plan.keys, *times, *source.event_key, *named):
        if column not in rows.column_names:
            raise column_missing(source.name, column, rows.column_names)
    rows = evaluate(rows, plan.expressions, where=f"view '{plan.name}'")
    for column in (*plan.keys, *source.event_key):
        _check_kept(plan, source.name, column, rows[column].type)
    for column in plan.last_columns:
        _check_kept(plan, source.name, column, rows[column].type, lists=True)
    keyed = None
    for key in plan.keys:
        valid = pc.is_valid(rows[key])
        keyed = valid if keyed is None else pc.and_(keyed, valid)
    if keyed is not None and not pc.all(keyed).as_py():
        rows = rows.filter(keyed)
    columns: dict[str, Any] = {f"key_{i}": as_kept(rows[key]) for i, key in enumerate(plan.keys)}
    event_us = _microseconds(rows[source.event_timestamp])
    if event_us.null_count:
        raise EventTimeMissing(
            f"{event_us.null_count} of {len(rows)} rows of source '{source.name}' have no '{source.event_timestamp}'.",
            expected="Every row of a view's source needs the time at which it happened.",
            next=f"Set such rows aside: SetAside(where='{source.event_timestamp} IS NULL', reason='...').",
        )
    beyond = _beyond(event_us)
    if beyond:
        raise EventTimeOutOfRange(
            f"{beyond} of {len(rows)} rows of source '{source.name}' have a '{source.event_timestamp}' before the "
            "year 1 or after 9999.",
            expected="The time at which a row happened is a time; infinity is none.",
            next=f"Set such rows aside, or make them null and set these aside, by '{source.event_timestamp}'.",
        )
    columns["event_us"] = event_us
    known = _microseconds(rows[source.known_at]) if source.known_at else event_us
    columns["known_us"] = pc.fill_null(known, NEVER_US) if known.null_count else known
    for i, column in enumerate(source.event_key):
        if rows[column].null_count:
            raise EventKeyMissing(
                f"{rows[column].null_count} of {len(rows)} rows of source '{source.name}' have no '{column}'.",
                expected="It is part of the event_key: rows with equal keys are versions of one event.",
                next=f"Set such rows aside: SetAside(where='{column} IS NULL', reason='...').",
            )
        columns[f"id_{i}"] = as_kept(rows[column])
    for column in plan.last_columns:
        columns[f"last_{column}"] = as_kept(rows[column]) if plain_last else rows[column]
    for i, tail in enumerate(plan.tail_columns):
        columns[f"tail_{i}"] = pa.chunked_array([_integers(plan, tail, rows[tail.reads])])
    return pa.table(columns)


def finish(
    function: str,
    total: NDArray[np.int64],
    count: NDArray[np.int64],
    scale: int,
    squares: NDArray[Any] | None = None,
) -> NDArray[np.float64]:
    """The value of a windowed feature from its exact sum of value x scale and its count; NaN where it is null.

    squares: for "std" the exact sum of (value x scale) squared: int64, or Python integers where that is too small.
    One IEEE operation on exactly known integers at a time, offline and online alike.
    """
    if function == "count":
        return count.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        if function == "std":
            assert squares is not None
            wide = squares.dtype == object
            n, sum_ = (count.astype(object), total.astype(object)) if wide else (count, total)
            spread = (n * squares - sum_ * sum_).astype(np.float64)
            value: NDArray[np.float64] = np.sqrt(spread / (count * (count - 1)).astype(np.float64)) / float(scale)
            value[count < 2] = np.nan
            return value
        divisor = np.full(len(count), scale, dtype=np.int64) if function == "sum" else count * scale
        value = np.asarray(total.astype(np.float64) / divisor.astype(np.float64))
    value[count == 0] = np.nan
    return value


def superseded_us(key: Int64, known_us: Int64, event_us: Int64, tail: Sequence[Int64]) -> Int64:
    """For each event, when the next version of its key was known; NEVER_US for the newest.

    Versions are ordered by known time, event time, then content, null first (the least int64).
    """
    order = np.lexsort((*tail[::-1], event_us, known_us, key))
    key, known_us = key[order], known_us[order]
    following = np.full(len(order), NEVER_US, dtype=np.int64)
    same = key[1:] == key[:-1]
    following[:-1][same] = known_us[1:][same]
    found = np.empty_like(following)
    found[order] = following
    return found


def to_order(values: NDArray[np.float64]) -> Int64:
    """Integers that compare like the numbers do; never the least int64, which no number but a NaN could be."""
    bits = (values + 0.0).view(np.int64)  # -0.0 becomes 0.0
    ordered: Int64 = np.where(bits < 0, bits ^ np.int64(2**63 - 1), bits)
    return ordered


def from_order(values: Any) -> NDArray[np.float64]:
    """The numbers that `to_order` made integers of."""
    numbers: NDArray[np.float64] = np.where(values < 0, values ^ np.int64(2**63 - 1), values).view(np.float64)
    return numbers


def age(at_us: Any, event_us: Any, unit_us: int) -> Any:
    """Time from the event to `at` in units; float64."""
    return (at_us - event_us) / float(unit_us)


def _microseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())


def _beyond(event_us: pa.ChunkedArray) -> int:
    """How many times lie outside the years 1 to 9999."""
    import pyarrow.compute as pc

    least, most = pc.min_max(event_us).as_py().values()
    if least is None or (least >= FIRST_US and most <= LAST_US):
        return 0
    return pc.sum(pc.or_(pc.less(event_us, FIRST_US), pc.greater(event_us, LAST_US))).as_py() or 0


def as_kept(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as keys and last values are kept: NaN as null, dictionaries decoded, times as int64 microseconds."""
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
        numbers = pc.add(column.cast(pa.float64()), 0.0)  # -0.0 becomes 0.0
        return pc.if_else(pc.is_nan(numbers), pa.scalar(None, pa.float64()), numbers)
    return column


def comparable(column: pa.ChunkedArray) -> Int64:
    """Ranks that order values of `as_kept`: equal for equal values, null first; lists by their bytes."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if _is_list(column.type):
        encoded = [None if value is None else msgspec.msgpack.encode(value) for value in column.to_pylist()]
        column = pa.chunked_array([pa.array(encoded, pa.binary())])
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_null(column.type):
        return np.zeros(len(column), dtype=np.int64)
    ranks = pc.rank(column.combine_chunks(), tiebreaker="dense").cast(pa.int64())  # from 1
    found: Int64 = pc.if_else(column.combine_chunks().is_null(), 0, ranks).to_numpy()
    return found


def _check_kept(view: ViewPlan, source: str, column: str, kind: pa.DataType, *, lists: bool = False) -> None:
    import pyarrow as pa

    types = pa.types
    known = [
        types.is_null, types.is_boolean, types.is_integer, types.is_string, types.is_large_string, types.is_string_view
    ]  # fmt: skip
    inside = kind.value_type if types.is_dictionary(kind) else kind
    if lists and _is_list(kind):
        inside = kind.value_type
        known += [types.is_float32, types.is_float64]  # what a list holds is kept as it is
    else:
        known += [types.is_floating, types.is_decimal, types.is_timestamp, types.is_date]
    if not any(matches(inside) for matches in known):
        raise TypeNotKept(
            f"view '{view.name}' reads column '{column}' of source '{source}', whose type is {kind}.",
            expected="Keys and last values are numbers, booleans, text or times; last values also lists of integers, "
            "floats, booleans and text.",
            next="Take a part of it, or convert it, in a QuerySource.",
            column=column,
            type=str(kind),
        )


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return any((pa.types.is_list(kind), pa.types.is_large_list(kind), pa.types.is_fixed_size_list(kind)))


def _integers(view: ViewPlan, tail: TailColumn, values: pa.ChunkedArray) -> pa.Array:
    """Values as they are kept for windows, see `TailColumn`; null and NaN are null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if tail.kind == "count":
        return pc.if_else(pc.is_null(values, nan_is_null=True), pa.scalar(None, pa.int64()), 0).combine_chunks()
    if tail.kind == "distinct":
        return _told_apart(view, tail.reads, values)
    floats, missing = _numbers(view, tail.reads, values)
    if tail.kind == "order":
        return pa.array(to_order(floats), mask=missing)
    return pa.array(_fixed(view, tail.reads, floats, tail.scale), mask=missing)


def _told_apart(view: ViewPlan, reads: str, values: pa.ChunkedArray) -> pa.Array:
    """An int64 for each value: the value itself, the bits of a float, or a hash of text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    _check_kept(view, view.source.name if view.source else "", reads, values.type)
    kept = as_kept(values).combine_chunks()
    kind = kept.type
    if pa.types.is_floating(kind):
        return pa.array(to_order(kept.fill_null(0.0).to_numpy()), mask=np.asarray(kept.is_null()))
    if pa.types.is_null(kind):
        return kept.cast(pa.int64())
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        encoded = kept.dictionary_encode()
        hashes = [_hash(text) for text in encoded.dictionary.to_pylist()]
        return pa.array(hashes, pa.int64()).take(encoded.indices)
    whole = kept.cast(pa.int64(), safe=False)
    return pc.if_else(pc.equal(whole, LEAST), _hash(str(LEAST)), whole)  # LEAST stands for null


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return max(int.from_bytes(digest, "little", signed=True), 1 - 2**63)


def _numbers(view: ViewPlan, reads: str, values: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Values as float64, 0.0 where they are missing, and where that is."""
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
            f"view '{view.name}' reckons with column '{reads}', whose type is {kind}.",
            expected="mean, sum, std, min and max need numbers or booleans.",
            next=why_text(values),
        )
    numbers = values.cast(pa.float64(), safe=False).combine_chunks()  # beyond 2**53 to the nearest
    missing = np.asarray(numbers.is_null(nan_is_null=True))
    return np.where(missing, 0.0, numbers.fill_null(0.0).to_numpy(zero_copy_only=False)), missing


def _fixed(view: ViewPlan, reads: str, values: NDArray[np.float64], scale: int) -> Int64:
    """Values as value x scale, rounded half to even."""
    scaled = np.rint(values * scale)
    too_large = ~(np.abs(scaled) <= LARGEST_SUM)
    if too_large.any():
        worst = float(values[int(np.argmax(too_large))])
        raise ValueTooLarge(
            f"view '{view.name}' cannot add up {worst!r} of column '{reads}' at a resolution of {1 / scale:g}.",
            expected=f"Values up to {LARGEST_SUM / scale:g} in size fit; infinities never do.",
            next="Give the feature a coarser resolution=, or set such rows aside.",
        )
    return scaled.astype(np.int64)
