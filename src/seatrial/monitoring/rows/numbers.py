"""Numbers: whose each number is that the business keeps, and what it is.

A row of its source says whose it is by prediction_id, by request_id or by all columns of the model's key, and each is
named once. A row whose number is null is as good as none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from seatrial.core.errors import listed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.monitoring.definition import BusinessMetric

IDS = ("prediction_id", "request_id")
KEY = "key"


class Numbers(NamedTuple):
    """by: what names them, "prediction_id", "request_id" or "key". ids: (n,) text. values: (n,), finite."""

    by: str
    ids: pa.Array
    values: NDArray[np.float64]


def numbers(metric: BusinessMetric, told: pa.Table, key: list[str], *, known_us: int) -> Numbers | str:
    """The numbers that were known by an instant (microseconds since 1970); or what is wrong with them.

    told: the rows of the metric's source. key: the columns of the model's key; empty where rows cannot be named by it.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    by, problem = _named_by(metric.name, told.column_names, key)
    if problem:
        return problem
    kind = told[metric.name].type
    number = any(one(kind) for one in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))
    if not number and not pa.types.is_decimal(kind) and not pa.types.is_null(kind):
        return f"'{metric.name}' is a {kind}, and numbers are expected"
    told = told.filter(told[metric.name].is_valid())
    since = metric.source.known_at or metric.source.event_timestamp
    if since is not None and since in told.column_names:
        told = told.filter(pc.fill_null(pc.less_equal(told[since].cast(pa.int64()), known_us), False))
    nested = [name for name in (key if by == KEY else [by]) if pa.types.is_nested(told[name].type)]
    if nested:
        return f"its column '{nested[0]}' is a {told[nested[0]].type}, and a text or a number is expected"
    ids, values = _ids(told, by, key), _values(told[metric.name])
    if not np.isfinite(values).all():
        return f"{int((~np.isfinite(values)).sum()):,} rows of '{metric.name}' are infinite or no numbers"
    several = len(ids) - ids.null_count - pc.count_distinct(ids).as_py()
    if several:
        group = ", ".join(key) if by == KEY else by
        return f"{several:,} rows name a {by} that another row named: add them up in the query, GROUP BY {group}"
    return Numbers(by, ids, values)


def _named_by(name: str, there: list[str], key: list[str]) -> tuple[str, str]:
    """By what the rows say whose they are; or what is wrong with the columns."""
    if name not in there:
        return "", f"its source has no column '{name}'; it has {listed(there)}"
    for id in IDS:
        if id in there:
            return id, ""
    if key and all(column in there for column in key):
        return KEY, ""
    ways = listed([*IDS, *([f"the key ({', '.join(key)})"] if key else [])])
    return "", f"its rows do not say whose they are: one of {ways} is expected, and there is {listed(there)}"


def _ids(told: pa.Table, by: str, key: list[str]) -> pa.Array:
    import pyarrow as pa

    from seatrial.monitoring.rows.labels import keys

    found = keys(told, key) if by == KEY else told[by].cast(pa.string())
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def _values(column: pa.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow as pa

    of_bits = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    found: NDArray[np.float64] = of_bits.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return found
