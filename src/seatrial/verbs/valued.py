"""Valued: what a metric of the business says of the requests that a rollout's arms answered.

One request (or one key, where that is how the metric names them) is one observation, also when it asked for several
rows. One that both arms answered belongs to neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from seatrial.core.errors import SeatrialError, listed
from seatrial.deployment.analysis import NOTHING, Valued, Values
from seatrial.deployment.definition import Metric

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.data.sources import Source

IDS = ("prediction_id", "request_id")


def valued(
    metric: Metric,
    read: Callable[[Source], pa.Table],
    answers: pa.Table,
    arms: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    keys: Callable[[], pa.Array],
    key: list[str],
    *,
    now_us: int,
) -> Valued:
    """The metric's value of each request of both arms.

    read: the rows of a source. answers: the log's rows of the step, with at, prediction_id and request_id. arms: (n,)
    which of them the live and the new release gave. keys: (n,) the model's key of each, called when the metric names
    its rows by it. A metric that cannot be read is told of, not raised: guardrails do not wait for it.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = read(metric.source)
        by, problem = _names(metric, table, key)
        if by is None:
            return _nothing(problem)
        table = _known(metric, table, now_us)
        ids, values, problem = _values(metric, table, by, key)
        if problem:
            return _nothing(problem)
        asked = keys() if by == "key" else _flat(answers[by])
    except SeatrialError as error:
        return _nothing(error.found)
    of_arms = arms[0] | arms[1]
    codes = pc.dictionary_encode(asked, null_encoding="encode").indices.to_numpy(zero_copy_only=False)
    nameless = asked.is_null().to_numpy(zero_copy_only=False)
    codes = np.where(nameless, codes.max(initial=-1) + 1 + np.arange(codes.size), codes)  # each is one of its own
    of_live, of_new = (np.unique(codes[arm]) for arm in arms)
    both = np.isin(codes, np.intersect1d(of_live, of_new))
    place = pc.index_in(asked, value_set=ids, skip_nulls=True).to_numpy(zero_copy_only=False)
    found = np.isfinite(place)
    of_row = np.full(codes.size, np.nan)
    of_row[found] = values[place[found].astype(np.int64)]
    at_us = answers["at"].cast(pa.int64()).to_numpy()
    sides = []
    for arm in arms:
        counted = arm & ~both & _first_of(codes, arm)
        sides.append(Values(at_us[counted], of_row[counted]))
    used = np.unique(place[found & of_arms])
    return Valued(sides[0], sides[1], mixed=int(np.unique(codes[both & of_arms]).size), stray=len(ids) - used.size)


def _first_of(codes: NDArray[np.int64], arm: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) which rows are the first of their request among those of the arm, and so stand for it."""
    import numpy as np

    rows = np.flatnonzero(arm)
    first = np.zeros(codes.size, dtype=bool)
    first[rows[np.unique(codes[rows], return_index=True)[1]]] = True
    return first


def _names(metric: Metric, table: pa.Table, key: list[str]) -> tuple[str | None, str]:
    """By what the rows say whose they are; or None and what is wrong with the columns."""
    there = table.column_names
    if metric.name not in there:
        return None, f"its source has no column '{metric.name}'; it has {listed(there)}"
    for name in IDS:
        if name in there:
            return name, ""
    if key and all(name in there for name in key):
        return "key", ""
    ways = listed([*IDS, *([f"the key ({', '.join(key)})"] if key else [])])
    return None, f"its rows do not say whose they are: one of {ways} is expected, and there is {listed(there)}"


def _known(metric: Metric, table: pa.Table, now_us: int) -> pa.Table:
    """The rows that are known by now, where the source says since when."""
    import pyarrow as pa
    import pyarrow.compute as pc

    since = metric.source.known_at or metric.source.event_timestamp
    if since is None:
        return table
    return table.filter(pc.less_equal(table[since].cast(pa.int64()), now_us))


def _values(metric: Metric, table: pa.Table, by: str, key: list[str]) -> tuple[pa.Array, NDArray[np.float64], str]:
    """Whose each value is, and the values; or what is wrong with them. A null is as good as no row."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.monitoring.rows.labels import keys

    empty = pa.array([], pa.string()), np.empty(0)
    kind = table[metric.name].type
    number = any(one(kind) for one in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean))
    if not number and not pa.types.is_decimal(kind) and not pa.types.is_null(kind):
        return *empty, f"'{metric.name}' is a {kind}, and numbers are expected"
    table = table.filter(table[metric.name].is_valid())
    ids = _flat(keys(table, key) if by == "key" else table[by].cast(pa.string()))
    values = table[metric.name].cast(pa.float64()).to_numpy(zero_copy_only=False)
    if not np.isfinite(values).all():
        return *empty, f"{int((~np.isfinite(values)).sum()):,} rows of '{metric.name}' are infinite or no numbers"
    several = len(ids) - ids.null_count - pc.count_distinct(ids).as_py()
    if several:
        return *empty, f"{several:,} rows name a {by} that another row named: add them up in the query, GROUP BY {by}"
    return ids, values, ""


def _flat(column: pa.ChunkedArray) -> pa.Array:
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _nothing(problem: str) -> Valued:
    return Valued(NOTHING, NOTHING, problem=problem)
