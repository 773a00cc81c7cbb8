"""Business: what a number that the business keeps says of the requests of a window.

Its rows name their request or prediction, or the model's key; one row counts once, however many predictions its request
asked for. The mean has an interval by blocks of time, because orders of one day share its weather too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.core.errors import listed
from seatrial.monitoring.figures import Business
from seatrial.monitoring.looks.calibration import blocks
from seatrial.stats.bootstrap import resample

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.monitoring.definition import BusinessMetric

IDS = ("prediction_id", "request_id")
FEWEST = 50


def business(
    metric: BusinessMetric, told: pa.Table, predictions: pa.Table, key: list[str], *, as_of_us: int, seed: int = 0
) -> Business:
    """The number over the window's requests.

    told: the rows of its source. predictions: of the window, with prediction_id, request_id and at (UTC), and
    `key` (the model's key as one text) when the rows may be named by it. Never raises for what the rows hold.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    facts: dict[str, Any] = {"name": metric.name, "better": metric.better}
    by, problem = _named_by(metric, told, key)
    if by is None:
        return Business(**facts, rows=0, mean=None, total=None, note=problem)
    since = metric.source.known_at or metric.source.event_timestamp
    if since is not None and since in told.column_names:
        told = told.filter(pc.fill_null(pc.less_equal(told[since].cast(pa.int64()), as_of_us), False))
    ids, values, problem = _values(metric, told, by, key)
    if problem:
        return Business(**facts, rows=0, mean=None, total=None, note=problem)
    asked = predictions["key" if by == "key" else by].combine_chunks()
    places = np.unique(pc.dictionary_encode(asked, null_encoding="encode").indices.to_numpy(), return_index=True)[1]
    first = np.sort(places[asked.take(pa.array(places)).is_valid().to_numpy(zero_copy_only=False)])
    at_us = predictions["at"].cast(pa.int64()).to_numpy()[first]
    place = pc.index_in(asked.take(pa.array(first)), value_set=ids)
    there = place.is_valid().to_numpy(zero_copy_only=False)
    found = np.full(first.size, np.nan)
    found[there] = values[place.fill_null(0).to_numpy(zero_copy_only=False)[there].astype(np.int64)]
    without = int(np.count_nonzero(~np.isfinite(found)))
    if metric.without_row is not None:
        found[~np.isfinite(found)] = metric.without_row
    kept = np.isfinite(found)
    return _figures(facts, found[kept], at_us[kept], without, first.size, seed)


def _figures(
    facts: dict[str, Any], found: NDArray[np.float64], at_us: NDArray[np.int64], without: int, asked: int, seed: int
) -> Business:
    if not found.size:
        nothing = "no request of the window has a row" if asked else "no predictions in this window"
        return Business(**facts, rows=0, mean=None, total=None, without=without, note=nothing)
    mean, total = float(found.mean()), float(found.sum())
    if found.size < FEWEST:
        note = f"not enough data for an interval: {found.size} of {FEWEST} requests"
        return Business(**facts, rows=found.size, mean=mean, total=total, without=without, note=note)
    drawn = resample(found.size, seed=seed, at_us=at_us)
    size = drawn.clusters
    sums, counts = (
        drawn.counts @ np.bincount(drawn.cluster, weights=one, minlength=size) for one in (found, np.ones(found.size))
    )
    low, high = np.quantile(sums[counts > 0] / counts[counts > 0], [0.025, 0.975])
    return Business(
        **facts,
        rows=found.size,
        mean=mean,
        total=total,
        interval=(float(low), float(high)),
        unit=blocks(drawn),
        without=without,
        note=f"the interval rests on {drawn.words} and is too narrow" if drawn.few else "",
    )


def _named_by(metric: BusinessMetric, told: pa.Table, key: list[str]) -> tuple[str | None, str]:
    there = told.column_names
    if metric.name not in there:
        return None, f"its source has no column '{metric.name}'; it has {listed(there)}"
    for name in IDS:
        if name in there:
            return name, ""
    if key and all(name in there for name in key):
        return "key", ""
    ways = listed([*IDS, *([f"the key ({', '.join(key)})"] if key else [])])
    return None, f"its rows do not say whose they are: one of {ways} is expected, and there is {listed(there)}"


def _values(
    metric: BusinessMetric, told: pa.Table, by: str, key: list[str]
) -> tuple[pa.Array, NDArray[np.float64], str]:
    """Whose each row is, and its number; the last row of one counts. Or what is wrong."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.monitoring.rows.labels import keys

    kind = told[metric.name].type
    if not (
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind) or pa.types.is_null(kind)
    ):  # fmt: skip
        return pa.nulls(0, pa.string()), np.empty(0), f"its column '{metric.name}' is {kind}, and numbers are expected"
    column = told[metric.name].cast(pa.int8()) if pa.types.is_boolean(kind) else told[metric.name]
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    names = keys(told, key) if by == "key" else told[by].cast(pa.string())
    names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
    known = names.is_valid().to_numpy(zero_copy_only=False)
    twice = int(np.count_nonzero(known)) - pc.count_distinct(names, mode="only_valid").as_py()
    if twice:
        return names, values, f"its source names {twice:,} requests twice, and one row a request is expected"
    return names, values, ""
