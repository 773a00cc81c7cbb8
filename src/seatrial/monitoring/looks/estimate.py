"""How right is the model likely to be now, before a label is known? And what can that number not see?

The scores of labelled predictions of before (see `baseline`) are calibrated, of two classes by levels of scores, of
several by isotonic regression; the calibrated scores of the window give the expected confusion matrix, and from it the
metrics (`stats.expected`). When a domain classifier can tell the window's inputs from those of before, these are
weighted to the window's inputs first; when that leaves less than 5 % of them there is no estimate.

It rests on one belief: that the same inputs are still answered as before. When that is wrong the whole loss is missed,
so the sentence that says so stands beside every number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.figures import Estimate, Interval
from seatrial.monitoring.looks.performance import measure_sample
from seatrial.monitoring.looks.shift import TOLD_APART, shift
from seatrial.monitoring.rows.baseline import Baseline, chosen, labelled
from seatrial.stats.bootstrap import resample
from seatrial.stats.expected import Figures, expected_binary, expected_multiclass
from seatrial.stats.isotonic import Isotonic, isotonic
from seatrial.stats.metrics import measure

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample

BLIND = "this estimate cannot see that the world answers differently; only labels can"
LEAST_EFFECTIVE = 0.05
"""Effective share of the labelled rows below which weights leave too little to calibrate on."""
FEWEST = 200
LEVELS, FEWEST_LEVELS = 200, 20
ROWS_A_LEVEL = 10
REPLICATES = 200
LEVEL = 0.95
DRAWN = 20_000
"""Rows of a window of several classes from which intervals are made."""
FEWEST_SPREAD = 0.9
MOST_CLASSES = 50

Floats = NDArray[np.float64]


def estimate(inside: Sample, base: Baseline | None, why: str, *, seed: int = 0) -> Estimate:
    """The estimated metrics of the window's predictions, labelled or not.

    base: what to calibrate on; None: there is nothing, and `why` says so.
    The interval says where the metric will lie once the labels are there, as far as chance goes: labelled rows are
    drawn again by blocks of time and calibrated again, and labels are drawn for the window.
    """
    task = inside.task
    if task == "regression":
        return _none("there is no estimate for a regression: how far off a number is does not show in it")
    if inside.decided_only or (task == "multiclass" and not inside.of_classes):
        return _none("the log does not say how sure the model was, so nothing can be estimated from it")
    if base is None:
        return _none(f"nothing to calibrate on: {why}")
    now = chosen(inside, _plain(inside))
    before = chosen(labelled(base.sample), _plain(labelled(base.sample)))
    count = now.rows.num_rows
    if count < FEWEST:
        return _none(f"not enough data: {count:,} of {FEWEST} predictions")
    if before.rows.num_rows < FEWEST:
        return _none(f"nothing to calibrate on: {before.rows.num_rows:,} of {FEWEST} labelled rows")
    tested, problem = measure_sample(before, np.ones(before.rows.num_rows, dtype=bool))
    if np.unique(before.label_values() if task == "binary" else before.class_scores()[0]).size < 2:
        return _none(f"nothing to calibrate on: {problem or 'the labels of before are all alike'}".rstrip("."))
    found = shift(before, now, seed=seed)
    weighted = found is not None and found.moved(TOLD_APART)
    facts: dict[str, Any] = {
        "tested": tested,
        "blind": BLIND,
        "calibrated_on": f"{base.name} ({before.rows.num_rows:,} rows)",
        "rows": count,
        "auc": None if found is None else found.auc,
        "weighted": weighted,
        "effective": found.effective if weighted and found is not None else None,
    }
    weights = np.ones(before.rows.num_rows)
    note = "" if found is not None else "its inputs are not known, so whether the window's are others was not looked at"
    if weighted and found is not None:
        if found.effective < LEAST_EFFECTIVE:
            left = f"only {found.effective:.1%} of the labelled rows of before are like those of now"
            return Estimate(**facts, note=f"no estimate: {left}, {LEAST_EFFECTIVE:.0%} are needed")
        weights = found.weights
    at_us = before.at_us() if base.timed else None
    make = _binary if task == "binary" else _multiclass
    metrics, intervals = make(before, now, weights, at_us, seed)
    return Estimate(metrics=metrics, intervals=intervals, **facts, note=note)


def _none(note: str) -> Estimate:
    return Estimate(blind=BLIND, note=note)


def _plain(sample: Sample) -> NDArray[np.bool_]:
    """Which rows have probabilities that are probabilities."""
    if sample.task == "multiclass":
        _, scores = sample.class_scores()
        whole: NDArray[np.bool_] = ((scores >= 0) & (scores <= 1 + 1e-6)).all(axis=1) & (scores.sum(axis=1) > 0)
        return whole
    scores = sample.scores()
    with np.errstate(invalid="ignore"):
        inside: NDArray[np.bool_] = (scores >= 0) & (scores <= 1)
    return inside


# Two classes


def _binary(
    before: Sample, now: Sample, weights: Floats, at_us: NDArray[np.int64] | None, seed: int
) -> tuple[Figures, dict[str, Interval | None]]:
    """By levels of the window's scores: how often it happened in each, of the labelled rows as they are weighted.

    The metrics are sums of these shares, or ratios of such sums, so that the chance of each share cancels out. A rising
    map through them would follow it, and tell positives from negatives better than the scores can (by 0.005 in the AUC
    where weights leave 8 % of 50,000 rows).
    """
    labels, old = before.label_values(), before.scores()
    scores, threshold = now.scores(), now.threshold
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    edges = _edges(scores, threshold, levels=int(np.clip(effective / ROWS_A_LEVEL, FEWEST_LEVELS, LEVELS)))
    size = edges.size + 1
    place, earlier = (np.searchsorted(edges, values, side="right") for values in (scores, old))
    mass = np.bincount(earlier, weights=weights, minlength=size).astype(np.float64)
    shares = _shares(mass, np.bincount(earlier, weights=weights * labels, minlength=size).astype(np.float64))
    point = expected_binary(shares[place], scores, threshold=threshold)
    # chance is drawn on the levels that the window has
    rows = np.bincount(place, minlength=size)
    there = rows > 0
    level = np.bincount(place, weights=scores, minlength=size)[there] / rows[there]
    rows = rows[there].astype(np.float64)
    whole = expected_binary(shares[there], level, threshold=threshold, weights=rows)
    random = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in point}
    for mass, hits in zip(*_drawn_again(earlier, size, labels, weights, at_us, seed), strict=True):
        happened = random.binomial(rows.astype(np.int64), np.clip(_shares(mass, hits)[there], 0, 1)) / rows
        for name, value in expected_binary(happened, level, threshold=threshold, weights=rows).items():
            if value is not None:
                drawn[name].append(value)
    return point, _middle(point, whole, drawn)


def _shares(mass: Floats, hits: Floats) -> Floats:
    """(levels,) how often it happened in each level; where no row was, what lies between its neighbours."""
    known = np.flatnonzero(mass > 1e-12)
    found: Floats = np.interp(np.arange(mass.size), known, hits[known] / mass[known])
    return found


def _drawn_again(
    place: NDArray[np.intp],
    size: int,
    labels: Floats,
    weights: Floats,
    at_us: NDArray[np.int64] | None,
    seed: int,
) -> tuple[Floats, Floats]:
    """(draws, size) each: the mass of every place, and of what happened there, for draws of the labelled rows."""
    drawn = resample(place.size, seed=seed, at_us=at_us, replicates=REPLICATES)
    cell = drawn.cluster * size + place
    sums = [
        np.bincount(cell, weights=values, minlength=drawn.clusters * size).reshape(-1, size)
        for values in (weights, weights * labels)
    ]
    mass, hits = (np.asarray(drawn.counts @ one, dtype=np.float64) for one in sums)
    return mass, hits


def _edges(scores: Floats, threshold: float, levels: int) -> Floats:
    values = np.unique(scores)
    cuts = values[1:] if values.size <= levels else np.quantile(scores, np.linspace(0, 1, levels + 1)[1:-1])
    return np.unique(np.append(cuts, threshold))


def _middle(point: Figures, whole: Figures, drawn: dict[str, list[float]]) -> dict[str, Interval | None]:
    """The middle 95 % of the draws. whole: the estimates as made of levels, of which the draws are made."""
    found: dict[str, Interval | None] = dict.fromkeys(point)
    for name, value in point.items():
        at, values = whole[name], drawn[name]
        if value is not None and at is not None and len(values) >= FEWEST_SPREAD * REPLICATES:
            low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + (value - at)
            found[name] = (float(low), float(high))
    return found


# Several classes


def _multiclass(
    before: Sample, now: Sample, weights: Floats, at_us: NDArray[np.int64] | None, seed: int
) -> tuple[Figures, dict[str, Interval | None]]:
    names = _classes(before, now)
    labels, old = _table(before, names)
    _, scores = _table(now, names)
    maps = [isotonic(old[:, one], labels == one, weights) for one in range(len(names))]
    probabilities = _normal(np.column_stack([told(scores[:, one]) for one, told in enumerate(maps)]))
    point = expected_multiclass(probabilities, scores)
    if len(names) > MOST_CLASSES:
        return point, dict.fromkeys(point)
    random = np.random.default_rng(seed)
    size = min(len(scores), DRAWN)
    some = np.sort(random.permutation(len(scores))[:size])
    scores = scores[some]
    again = [
        _calibrated_again(old[:, one], (labels == one).astype(np.float64), weights, at_us, seed, scores[:, one])
        for one in range(len(names))
    ]
    whole = expected_multiclass(probabilities[some], scores)
    drawn: dict[str, list[float]] = {name: [] for name in point}
    for means in zip(*again, strict=True):
        sure = np.cumsum(_normal(np.column_stack(means)), axis=1)
        happened = np.minimum((random.random(size)[:, np.newaxis] > sure).sum(axis=1), len(names) - 1)
        for name, value in measure("multiclass", happened.astype(np.float64), scores).items():
            if value is not None and name in drawn:
                drawn[name].append(value)
    narrow = float(np.sqrt(size / len(probabilities)))
    point, found = _corrected(point, whole, drawn)
    for name, interval in found.items():
        value = point[name]
        if interval is not None and value is not None:  # all rows say more than those that were drawn
            found[name] = (value + (interval[0] - value) * narrow, value + (interval[1] - value) * narrow)
    return point, found


def _calibrated_again(
    scores: Floats, labels: Floats, weights: Floats, at_us: NDArray[np.int64] | None, seed: int, at: Floats
) -> list[Floats]:
    """What each score of `at` means, for each of the draws of the labelled rows."""
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, LEVELS + 1)[1:-1]))
    size = edges.size + 1
    place = np.searchsorted(edges, scores, side="right")
    sums = _drawn_again(place, size, labels, weights, at_us, seed)
    centre = np.bincount(place, weights=scores, minlength=size) / np.maximum(np.bincount(place, minlength=size), 1)
    found = []
    for mass, told in zip(*sums, strict=True):
        there = mass > 1e-12
        fitted: Isotonic = isotonic(centre[there], told[there] / mass[there], mass[there])
        found.append(fitted(at))
    return found


def _corrected(
    point: Figures, whole: Figures, drawn: dict[str, list[float]]
) -> tuple[Figures, dict[str, Interval | None]]:
    """The estimates less their optimism, and the middle 95 % of the draws around them.

    A rising map follows the chance of its rows, so it tells positives from negatives better than it can, the more the
    fewer rows weights leave. Drawing rows from rows adds as much again as drawing them from the world did: that much
    is taken off the estimate (Efron and Tibshirani 1993, "An introduction to the bootstrap", 10.2) and twice that much
    off the draws, where it is more than three standard errors of their mean. whole: the estimates as made of levels, of
    which the draws are made.
    """
    found: dict[str, Interval | None] = dict.fromkeys(point)
    estimates = dict(point)
    for name, value in point.items():
        at, values = whole[name], drawn[name]
        if value is None or at is None or len(values) < FEWEST_SPREAD * REPLICATES:
            continue
        optimism = float(np.mean(values)) - at
        if abs(optimism) <= 3 * float(np.std(values)) / len(values) ** 0.5:
            optimism = 0.0
        estimates[name] = value - optimism
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) + (value - at - 2 * optimism)
        found[name] = (float(low), float(high))
    return estimates, found


def _classes(before: Sample, now: Sample) -> list[str]:
    from seatrial.monitoring.rows.sample import OF_CLASS

    names = {
        name.removeprefix(OF_CLASS)
        for sample in (before, now)
        for name in sample.rows.column_names
        if name.startswith(OF_CLASS)
    }
    happened = {value for value in before.rows["label_class"].unique().to_pylist() if value is not None}
    return sorted(names | happened)


def _table(sample: Sample, names: list[str]) -> tuple[Floats, Floats]:
    """(n,) places of the classes that happened, NaN where not known, and (n, C) probabilities."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from seatrial.monitoring.rows.sample import OF_CLASS

    table = np.zeros((sample.rows.num_rows, len(names)))
    for place, name in enumerate(names):
        if OF_CLASS + name in sample.rows.column_names:
            column = sample.rows[OF_CLASS + name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            table[:, place] = np.nan_to_num(column)
    labels = pc.index_in(sample.rows["label_class"], value_set=pa.array(names, pa.string()))
    return labels.cast(pa.float64()).to_numpy(zero_copy_only=False), table


def _normal(table: Floats) -> Floats:
    """Rows that sum to 1; where nothing is likely, everything is alike."""
    total = table.sum(axis=1, keepdims=True)
    return np.where(total > 0, table / np.where(total > 0, total, 1), 1 / table.shape[1])
