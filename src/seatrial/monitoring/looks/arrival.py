"""Arrival: how many of the window's labels are there, how many are usual at its age, and are the early ones like the
others?

The curve is the product-limit estimate over all predictions that are known (`stats.arrival`): the young ones count for
as long as they were waited for. A window is ripe when 95 % of the labels that ever come had the time to. A young one
is set beside the window before it as that stood at the same age, and what became of that since.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import HOUR_US, Window
from seatrial.monitoring.figures import Age, Arrival
from seatrial.stats.arrival import ArrivalCurve, arrival_curve, slowest_age

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample

MINUTE_US = 60_000_000
USUAL = 0.95
POINTS = 60
FEWEST = 200
"""Labels of predictions below which history says nothing."""
FEWEST_LATE = 50
MOSTLY = 0.5
ONE_SIDED = "all labels so far say the same, and most predictions have none: the others may be known later"
SURE = 0.001
APART = 0.01
"""Mean difference of label and score between early and late labels that is borne; of a regression in standard
deviations of the label."""


def arrival(sample: Sample, window: Window, as_of_us: int) -> Arrival:
    """How the labels of `window` arrive. sample: its predictions and those before it, labels known at `as_of_us`."""
    inside = sample.within(window)
    count = inside.rows.num_rows
    if not count:
        return Arrival(note="no predictions in this window")
    told = np.isfinite(inside.label_values())
    known = float(told.mean())
    delays, waited = _delays(sample, as_of_us)
    there = int(np.count_nonzero(~np.isnan(delays)))
    if not there:
        return Arrival(known=known, note="no label was ever told, so it is not known when they come")
    if there < FEWEST:
        return Arrival(known=known, note=f"when labels come is not known: {there:,} of {FEWEST} came so far")
    if not np.nanmax(delays):
        return Arrival(known=known, note="the log does not say since when its labels are known")
    curve = arrival_curve(delays, waited)
    ages = np.maximum((as_of_us - inside.at_us()) / HOUR_US, 0.0)
    outcomes = outcomes_of(sample)
    outcomes = None if outcomes is None else outcomes[sample.at_us() <= as_of_us]
    usual = slowest_age(curve, delays, outcomes, USUAL)
    if one_sided(~np.isnan(delays), outcomes, waited >= (usual or 0.0)):
        return Arrival(known=known, one_sided=True, note=ONE_SIDED)
    last = min(int(inside.at_us()[-1]), as_of_us)
    ripe_us = None if usual is None else math.ceil((last + usual * HOUR_US) / MINUTE_US) * MINUTE_US
    ripe = None if ripe_us is None else ripe_us <= as_of_us
    first = iso(from_us(int(sample.at_us()[0])))[:10]
    found = Arrival(
        known=known,
        expected=float(curve.at(ages).mean()),
        final=curve.final,
        curve=_points(curve),
        usual_hours=usual,
        ripe_at=None if ripe_us is None else iso(from_us(ripe_us)),
        ripe=ripe,
        of=f"{delays.size:,} predictions since {first}",
    )
    return found if ripe else _young(found, sample, window, as_of_us)


def ripe_rows(sample: Sample, as_of_us: int, found: Arrival) -> NDArray[np.bool_]:
    """(n,) which predictions are old enough for their labels to be there; all where history does not say."""
    if found.usual_hours is None or found.ripe:
        return np.ones(sample.rows.num_rows, dtype=bool)
    old: NDArray[np.bool_] = sample.at_us() + found.usual_hours * HOUR_US <= as_of_us
    return old


def _delays(sample: Sample, as_of_us: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Hours from prediction to label (NaN: none), and hours that each prediction was waited for."""
    import pyarrow as pa

    at_us = sample.at_us()
    known_at = sample.rows["label_known_at"].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    past = at_us <= as_of_us
    told = np.isfinite(sample.label_values())
    delays = np.where(told, np.maximum(known_at - at_us, 0) / HOUR_US, np.nan)
    return delays[past], np.maximum(as_of_us - at_us[past], 0) / HOUR_US


def one_sided(told: NDArray[np.bool_], outcomes: NDArray[np.int64] | None, old: NDArray[np.bool_]) -> bool:
    """Whether all labels say the same, and most predictions have none that are as old as the known labels took: what
    happens otherwise may be known later. told, old: (n,) which have a label, and which are as old as that."""
    return outcomes is not None and np.unique(outcomes[told]).size == 1 and float(told[old].mean()) < MOSTLY


def outcomes_of(sample: Sample) -> NDArray[np.int64] | None:
    """(n,) which class happened, as a number; where no label is known, any. None of a regression, and of classes where
    only is known whether the answer was right."""
    column = {"binary": "label", "multiclass": "label_class"}.get(sample.task, "")
    if column not in sample.rows.column_names:
        return None
    happened = sample.rows[column].combine_chunks()
    codes: NDArray[np.int64] = happened.dictionary_encode(null_encoding="encode").indices.to_numpy().astype(np.int64)
    return codes


def _points(curve: ArrivalCurve) -> list[Age]:
    """The curve at some of its ages: even steps of the share, so that nothing of its shape is lost."""
    places = np.searchsorted(curve.shares, np.linspace(0, curve.final, POINTS + 1)[1:] - 1e-12)
    places = np.unique(np.minimum(places, curve.ages.size - 1))
    return [Age(round(float(curve.ages[one]), 4), float(curve.shares[one])) for one in places]


def _young(found: Arrival, sample: Sample, window: Window, as_of_us: int) -> Arrival:
    """With the window before as it stood at the same age, and what became of it."""
    import msgspec
    import pyarrow as pa

    length = window.end_us - window.start_us
    earlier = sample.within(Window(window.start_us - length, window.start_us))
    labels, scores = earlier.label_values(), earlier.scores()
    known_at = earlier.rows["label_known_at"].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    told = np.isfinite(labels)
    early = told & (known_at <= as_of_us - length)
    if np.count_nonzero(early) < FEWEST:
        return msgspec.structs.replace(
            found, note="the labels that come first may be unlike the others; there is no window before to compare with"
        )
    late = told & ~early
    rest = labels - (0.0 if earlier.decided_only else scores)
    rest = rest / (float(labels[told].std()) or 1.0) if earlier.task == "regression" else rest
    return msgspec.structs.replace(
        found,
        same_age=_means(labels, scores, early),
        later=_means(labels, scores, told),
        biased=_apart(rest[early & np.isfinite(rest)], rest[late & np.isfinite(rest)]),
    )


def _means(labels: NDArray[np.float64], scores: NDArray[np.float64], which: NDArray[np.bool_]) -> dict[str, float]:
    found = {"labelled": float(np.count_nonzero(which)), "observed": float(labels[which].mean())}
    sure = which & np.isfinite(scores)
    return found | ({"mean_score": float(scores[sure].mean())} if sure.any() else {})


def _apart(early: NDArray[np.float64], late: NDArray[np.float64]) -> bool:
    if early.size < FEWEST or late.size < FEWEST_LATE:
        return False
    difference = float(early.mean() - late.mean())
    error = math.sqrt(early.var(ddof=1) / early.size + late.var(ddof=1) / late.size)
    sure = error == 0 or math.erfc(abs(difference) / error / math.sqrt(2)) < SURE
    return abs(difference) > APART and sure
