"""Business: what a number that the business keeps says of the requests of a window.

Its rows name their request or prediction, or the model's key; one row counts once, however many predictions its request
asked for. The mean has an interval by blocks of time, because orders of one day share its weather too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.monitoring.figures import Business
from seatrial.monitoring.looks.calibration import blocks
from seatrial.monitoring.rows.numbers import numbers
from seatrial.stats.bootstrap import resample

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.monitoring.definition import BusinessMetric

FEWEST = 50
LARGEST = 1e100
"""Beyond it sums and squares are not finite."""


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
    kept = numbers(metric, told, key, known_us=as_of_us)
    if isinstance(kept, str):
        return Business(**facts, rows=0, mean=None, total=None, note=kept)
    asked = predictions[kept.by].combine_chunks()
    places = np.unique(pc.dictionary_encode(asked, null_encoding="encode").indices.to_numpy(), return_index=True)[1]
    first = np.sort(places[asked.take(pa.array(places)).is_valid().to_numpy(zero_copy_only=False)])
    at_us = predictions["at"].cast(pa.int64()).to_numpy()[first]
    place = pc.index_in(asked.take(pa.array(first)), value_set=kept.ids)
    there = place.is_valid().to_numpy(zero_copy_only=False)
    found = np.full(first.size, np.nan)
    found[there] = kept.values[place.fill_null(0).to_numpy(zero_copy_only=False)[there].astype(np.int64)]
    without = int(np.count_nonzero(~np.isfinite(found)))
    if metric.without_row is not None:
        found[~np.isfinite(found)] = metric.without_row
    valued = np.isfinite(found)
    return _figures(facts, found[valued], at_us[valued], without, first.size, seed)


def _figures(
    facts: dict[str, Any], found: NDArray[np.float64], at_us: NDArray[np.int64], without: int, asked: int, seed: int
) -> Business:
    if not found.size:
        nothing = "no request of the window has a row" if asked else "no predictions in this window"
        return Business(**facts, rows=0, mean=None, total=None, without=without, note=nothing)
    if np.abs(found).max() > LARGEST:
        beyond = f"numbers reach {np.abs(found).max():.3g}, and beyond {LARGEST:g} nothing is added up"
        return Business(**facts, rows=found.size, mean=None, total=None, without=without, note=beyond)
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
