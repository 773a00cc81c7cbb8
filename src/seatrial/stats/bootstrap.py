"""How far could a metric be from what it would be on other rows like these? Intervals by the bootstrap.

Clusters of rows are drawn with replacement, as many as there are, and the metric of what was drawn is computed again;
the interval is the middle 95 % of the replicates (the percentile interval: Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13; whole clusters drawn: Davison and Hinkley, Bootstrap Methods and their Application, 1997,
section 3.8; Field and Welsh 2007). Rows of one day share its weather: drawn one by one they would seem to say more than
they do, so with times a block of time is a cluster, and with a split by groups a group is one.

Every metric here is a function of sums, so a replicate is a product of two matrices and no row is copied: a million
rows take some seconds. What is capped is said: more than 500 rows without time or group are dealt at random into 500
clusters, which leaves the spread as it is; ranking metrics see at most 2,000 levels of scores, and their replicates are
moved so that they are centred where the metric of all levels is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task
from seatrial.core.windows import HOUR_US
from seatrial.stats.metrics import METRICS, average_precision, measure, multiclass_losses, roc_auc

REPLICATES = 1000
CLUSTERS = 500
LEVELS = 2000
FEWEST = 20
"""Blocks below which shorter ones are taken; and below which an interval is said to rest on few, and is too narrow."""
LEVEL = 0.95
UNDEFINED = 0.05
"""Share of replicates that may leave a metric undefined; with more there is no interval."""
MOST_CLASSES = 100
"""Classes up to which metrics that are means over classes have an interval."""
MOST_CURVES = 10
"""Classes up to which the area under their curves has one."""
BINS = 10  # of the calibration error, as in stats.metrics
BLOCKS = (("week", 7 * 24), ("day", 24), ("6 hours", 6), ("hour", 1))

Vector = NDArray[Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Resampling:
    """Draws of clusters, the same for everything that is compared on the same rows.

    cluster: (n,) the cluster of each row, from 0. counts: (replicates, clusters), how often each was drawn.
    unit: what a cluster is: "row", "day", the name of a column; "1/500 of the rows" when rows were dealt.
    few: there are so few clusters, or so little time in which all rows lie, that intervals are too narrow.
    """

    cluster: NDArray[np.intp]
    counts: NDArray[np.float32]
    unit: str
    few: bool = False

    @property
    def clusters(self) -> int:
        return int(self.counts.shape[1])

    @property
    def words(self) -> str:
        """What is drawn, in words: "15 days"."""
        if self.clusters >= FEWEST:
            return "rows of one hour"
        return f"{self.clusters} blocks of {self.unit}" if self.unit[0].isdigit() else f"{self.clusters} {self.unit}s"

    def as_plain(self) -> dict[str, Any]:
        """How intervals were made, for a record."""
        return {
            "method": "percentile bootstrap of clusters",
            "level": LEVEL,
            "replicates": int(self.counts.shape[0]),
            "unit": self.unit,
            "clusters": self.clusters,
            "few": self.few,
        }


def resample(
    rows: int,
    *,
    seed: int,
    at_us: NDArray[np.int64] | None = None,
    groups: Vector | None = None,
    unit: str = "group",
    replicates: int = REPLICATES,
) -> Resampling:
    """Draws for `rows` rows.

    at_us: (n,) instants; the longest blocks of time of which there are 20 are the clusters (days, 6 hours, hours; weeks
    from 500 days on). Where there are 20 of none, as of fifteen days with one batch each, the shortest are, and are
    few; rows that all lie within an hour are drawn one by one, and are few as well.
    groups: (n,) integers, the group of each row; it goes before the times. unit: what a group is.
    """
    random = np.random.default_rng(seed)
    cluster, unit = _clusters(rows, at_us, groups, unit, random)
    within_an_hour = groups is None and at_us is not None and unit not in dict(BLOCKS)
    size = int(cluster.max()) + 1
    drawn = random.integers(0, size, size=(replicates, size))
    drawn += np.arange(replicates)[:, np.newaxis] * size
    counts = np.bincount(drawn.reshape(-1), minlength=replicates * size).reshape(replicates, size)
    return Resampling(cluster, counts.astype(np.float32), unit, few=size < FEWEST or within_an_hour)


def intervals(
    task: Task, labels: Vector, scores: Vector, drawn: Resampling, *, threshold: float = 0.5, quantile: float = 0.5
) -> dict[str, Interval | None]:
    """The interval of every metric of the task; None for one that these rows, or too many draws of them, do not define.

    labels: (n,). scores: (n,), or (n, classes) for multiclass.
    """
    found = replicates(task, labels, scores, drawn, threshold=threshold, quantile=quantile)
    return {name: _middle(found[name]) if name in found else None for name in METRICS[task]}


@dataclass(frozen=True)
class Difference:
    """One metric of two sets of scores on the same rows: the first minus the second, and its interval."""

    value: float | None
    interval: Interval | None


def difference(
    task: Task,
    metric: str,
    labels: Vector,
    scores: tuple[Vector, Vector],
    drawn: Resampling,
    *,
    thresholds: tuple[float, float] = (0.5, 0.5),
    quantile: float = 0.5,
) -> Difference:
    """How much larger the metric of the first scores is than that of the second, drawing the same rows for both."""
    points, made = [], []
    for one, threshold in zip(scores, thresholds, strict=True):
        points.append(measure(task, labels, one, threshold=threshold, quantile=quantile).get(metric))
        made.append(replicates(task, labels, one, drawn, threshold=threshold, quantile=quantile).get(metric))
    first, second = points
    value = None if first is None or second is None else first - second
    return Difference(value, None if made[0] is None or made[1] is None else _middle(made[0] - made[1]))


def replicates(
    task: Task, labels: Vector, scores: Vector, drawn: Resampling, *, threshold: float = 0.5, quantile: float = 0.5
) -> dict[str, NDArray[np.float64]]:
    """Metrics of each draw, (replicates,), NaN where a draw does not define one."""
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if scores.ndim == 2:
        return _multiclass(labels, scores, drawn)
    if task == "binary":
        return _binary(labels, scores, drawn, threshold)
    return _regression(labels, scores, drawn, quantile)


def _clusters(
    rows: int, at_us: NDArray[np.int64] | None, groups: Vector | None, unit: str, random: np.random.Generator
) -> tuple[NDArray[np.intp], str]:
    if groups is not None:
        _, codes = np.unique(groups, return_inverse=True)
        return _dealt(codes.astype(np.intp), unit, random)
    if at_us is not None:
        taken, most = "", 1
        for name, hours in BLOCKS:
            _, found = np.unique((at_us - at_us.min()) // (hours * HOUR_US), return_inverse=True)
            size = int(found.max()) + 1
            if size >= (FEWEST if hours < 7 * 24 else CLUSTERS // 7):
                return _dealt(found.astype(np.intp), name, random)
            if size > most:  # shorter blocks, but no more of them, are the same ones
                taken, most, codes = name, size, found
        if taken:
            return codes.astype(np.intp), taken
    return _dealt(np.arange(rows), "row", random)


def _dealt(codes: NDArray[np.intp], unit: str, random: np.random.Generator) -> tuple[NDArray[np.intp], str]:
    """The clusters as they are, or dealt at random into at most CLUSTERS of nearly the same number each."""
    size = int(codes.max()) + 1
    if size <= CLUSTERS:
        return codes, unit
    return (random.permutation(size) % CLUSTERS)[codes], f"1/{CLUSTERS} of the {unit}s"


def _middle(values: NDArray[np.float64]) -> Interval | None:
    defined = values[np.isfinite(values)]
    if defined.size < (1 - UNDEFINED) * values.size:
        return None
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _sums(drawn: Resampling, *columns: Vector) -> list[NDArray[np.float64]]:
    """Of each column (n,) its sum over the rows of each draw, (replicates,)."""
    size = drawn.clusters
    by_cluster = [np.bincount(drawn.cluster, weights=column, minlength=size) for column in columns]
    return list((drawn.counts @ np.stack(by_cluster, axis=1)).T)


def _binary(labels: Vector, scores: Vector, drawn: Resampling, threshold: float) -> dict[str, NDArray[np.float64]]:
    positive, decided = labels == 1, scores >= threshold
    epsilon = float(np.finfo(np.float64).eps)
    sure = np.clip(scores, epsilon, 1 - epsilon)
    loss = -np.where(positive, np.log(sure), np.log1p(-sure))
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], scores)
    gaps = [np.where(place == number, scores - labels, 0.0) for number in range(BINS)]
    rows, losses, squares, hits, positives, alarms, *bins = _sums(
        drawn,
        np.ones(labels.size),
        loss,
        (scores - labels) ** 2,
        positive & decided,
        positive,
        decided & ~positive,
        *gaps,
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        told = hits + alarms
        found = {
            "log_loss": losses / rows,
            "brier": squares / rows,
            "expected_calibration_error": np.abs(np.stack(bins)).sum(axis=0) / rows,
            "accuracy": (rows - alarms - (positives - hits)) / rows,
            "precision": np.where(told > 0, hits / told, 0.0),
            "recall": hits / positives,
            "f1": np.where(positives > 0, 2 * hits / (told + positives), np.nan),
        }
    # A draw's calibration error is larger than that of all rows, because noise adds to every gap: taken off on average.
    own = measure("binary", labels, scores)["expected_calibration_error"]
    found["expected_calibration_error"] = _centred(found["expected_calibration_error"], own)
    if positive.any() and not positive.all():
        found |= _ranking(labels, scores, drawn)
    return found


def _centred(values: NDArray[np.float64], own: float | None) -> NDArray[np.float64]:
    centred: NDArray[np.float64] = np.maximum(values - values.mean() + (own or 0.0), 0.0)
    return centred


def _ranking(labels: Vector, scores: Vector, drawn: Resampling) -> dict[str, NDArray[np.float64]]:
    """ROC AUC and average precision of each draw, by the number of positives and negatives at each level of scores."""
    levels, size = _levels(labels, scores)
    ranked = {"roc_auc": np.empty(len(drawn.counts)), "average_precision": np.empty(len(drawn.counts))}
    cells = drawn.cluster * size + levels
    width = drawn.clusters * size
    positives, negatives = (
        np.bincount(cells[labels == value], minlength=width).reshape(drawn.clusters, size).astype(np.float32)
        for value in (1, 0)
    )
    for part in _parts(len(drawn.counts), size):
        hits = (drawn.counts[part] @ positives).astype(np.float64)
        misses = (drawn.counts[part] @ negatives).astype(np.float64)
        total, others = hits.sum(axis=1), misses.sum(axis=1)
        below = np.cumsum(misses, axis=1) - misses / 2
        above = np.cumsum(hits[:, ::-1], axis=1)
        told = above + np.cumsum(misses[:, ::-1], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ranked["roc_auc"][part] = (hits * below).sum(axis=1) / (total * others)
            right = np.where(told > 0, above / told, 0.0)
            ranked["average_precision"][part] = (hits[:, ::-1] * right).sum(axis=1) / total
    if size < np.unique(scores).size:
        for name, exact in (("roc_auc", roc_auc), ("average_precision", average_precision)):
            ranked[name] += exact(labels, scores) - exact(labels, levels.astype(np.float64))
    return ranked


def _levels(labels: Vector, scores: Vector) -> tuple[NDArray[np.intp], int]:
    """The level of each score, from 0, and how many levels there are: each distinct score, or 2,000 at most.

    With more scores the levels hold equal shares of the positives and of the negatives, so that a few positives
    among a million rows keep a level each.
    """
    values, place = np.unique(scores, return_inverse=True)
    if values.size <= LEVELS:
        return place, int(values.size)
    steps = np.linspace(0, 1, LEVELS // 2 + 1)[1:-1]
    cuts = [np.quantile(scores[labels == value], steps, method="higher") for value in (0, 1)]
    edges = np.unique(np.concatenate(cuts))
    levels = np.searchsorted(edges, scores, side="right")
    return levels, int(edges.size) + 1


def _parts(size: int, width: int) -> Iterator[slice]:
    """Slices of the replicates, so that no matrix of one holds more than a million numbers."""
    step = max(1, 1_000_000 // max(width, 1))
    for start in range(0, size, step):
        yield slice(start, start + step)


def _regression(labels: Vector, scores: Vector, drawn: Resampling, quantile: float) -> dict[str, NDArray[np.float64]]:
    over = labels - scores
    centred = labels - labels.mean()  # the variance of a draw is a difference: of small numbers, then
    rows, absolute, squares, pinball, sums, sums_of_squares = _sums(
        drawn,
        np.ones(labels.size),
        np.abs(over),
        over**2,
        np.maximum(quantile * over, (quantile - 1) * over),
        centred,
        centred**2,
    )
    total = sums_of_squares - sums**2 / rows
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "mae": absolute / rows,
            "rmse": np.sqrt(squares / rows),
            "r2": np.where(total > 0, 1 - squares / total, np.nan),
            "quantile_loss": pinball / rows,
        }


def _multiclass(labels: Vector, scores: Vector, drawn: Resampling) -> dict[str, NDArray[np.float64]]:
    """As in stats.metrics, where a class that neither happened nor was decided for in a draw does not count."""
    size = scores.shape[1]
    told, decided = scores[np.arange(labels.size), labels.astype(np.intp)], scores.argmax(axis=1)
    rows, right, losses, squares = _sums(
        drawn,
        np.ones(labels.size),
        decided == labels,
        multiclass_losses(labels, scores),
        (scores**2).sum(axis=1) - 2 * told + 1,
    )
    found = {"accuracy": right / rows, "log_loss": losses / rows, "brier": squares / rows}
    if size > MOST_CLASSES:
        return found
    hits, happened, chosen = (
        np.stack(_sums(drawn, *[of_rows & (place == number) for number in range(size)]))
        for of_rows, place in ((decided == labels, labels), (labels == labels, labels), (labels == labels, decided))
    )
    there = (happened + chosen) > 0
    for name, values in (
        ("precision", hits / np.maximum(chosen, 1)),
        ("recall", hits / np.maximum(happened, 1)),
        ("f1", 2 * hits / np.maximum(happened + chosen, 1)),
    ):
        found[name] = (values * there).sum(axis=0) / there.sum(axis=0)
    present = [number for number in range(size) if 0 < (labels == number).sum() < labels.size]
    if 1 < len(present) <= MOST_CURVES:
        curves = [_ranking(labels == number, scores[:, number], drawn)["roc_auc"] for number in present]
        found["roc_auc"] = np.mean(curves, axis=0)
    return found
