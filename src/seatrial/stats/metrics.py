"""Metrics of predictions against labels: how good are these scores on these rows?

Every function takes two one-dimensional arrays of one length, n >= 1: what happened, and what was predicted.
For binary targets labels are 0 and 1 and scores are P(positive); decisions are `score >= threshold`. For multiclass
targets labels are places of classes, scores (n, C) probabilities, and the decision is the likeliest class. A metric
that the rows cannot define (an area under the curve without negatives) raises `MetricUndefined` instead of
returning a number. Nothing here knows of models, splits or gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed, UsageError
from seatrial.core.signature import Task

Vector = NDArray[Any]


class MetricUndefined(Failed):
    """The rows do not define the metric: one class only, no positives, or no variance."""

    code = "metrics.undefined"


class BadScores(UsageError):
    """Labels and scores do not fit together, or hold values that cannot be measured."""

    code = "metrics.bad_scores"


def roc_auc(labels: Vector, scores: Vector) -> float:
    """Probability that a random positive scores above a random negative, ties counting one half.

    The Mann-Whitney form (Hanley and McNeil 1982): (R - p(p + 1)/2) / (p q), with R the sum of the mid-ranks of
    the p positives among all p + q scores. Scores may be of any scale.
    Raises MetricUndefined when labels hold one class.

    >>> roc_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    labels, scores = _binary(labels, scores)
    positives = float(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        raise _one_class("roc_auc", labels)
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    ranks = float(mid_ranks[place][labels == 1].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def average_precision(labels: Vector, scores: Vector) -> float:
    """Precision averaged over the recall gained at each distinct score, from the highest down.

    Sum over thresholds of (recall_i - recall_{i-1}) x precision_i, without interpolation.
    Raises MetricUndefined without positives.

    >>> round(average_precision(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])), 6)
    0.833333
    """
    labels, scores = _binary(labels, scores)
    if not labels.any():
        raise _one_class("average_precision", labels)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), labels.size - 1)
    found = np.cumsum(labels[order])[last_of_tie]
    gained = np.diff(found / found[-1], prepend=0.0)
    return float(np.sum(gained * found / (last_of_tie + 1)))


def log_loss(labels: Vector, scores: Vector) -> float:
    """Mean of -(y ln p + (1 - y) ln(1 - p)), in nats; lower is better. Defined for one class too.

    Probabilities are kept 2.2e-16 (the float64 epsilon) away from 0 and 1, so that one sure mistake costs 36
    nats instead of infinity. Raises BadScores for scores outside [0, 1].

    >>> round(log_loss(np.array([1, 0]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    labels, scores = _probabilities(labels, scores)
    epsilon = float(np.finfo(np.float64).eps)
    clipped = np.clip(scores, epsilon, 1 - epsilon)
    return float(-np.mean(np.where(labels == 1, np.log(clipped), np.log1p(-clipped))))


def brier(labels: Vector, scores: Vector) -> float:
    """Mean of (p - y)^2 (Brier 1950, for the positive class); lower is better.

    >>> brier(np.array([1, 0]), np.array([0.5, 0.5]))
    0.25
    """
    labels, scores = _probabilities(labels, scores)
    return float(np.mean((scores - labels) ** 2))


def expected_calibration_error(labels: Vector, scores: Vector, *, bins: int = 10) -> float:
    """Mean gap between predicted and observed rate, over `bins` equal-width bins weighted by their rows.

    Sum over bins of (n_b / n) |mean score_b - positive rate_b| (Guo et al. 2017); a bin holds its upper edge.

    >>> round(expected_calibration_error(np.array([0, 0, 0, 1]), np.full(4, 0.3)), 6)
    0.05
    """
    labels, scores = _probabilities(labels, scores)
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], scores)
    gaps = np.bincount(place, weights=scores - labels, minlength=bins)
    return float(np.abs(gaps).sum() / labels.size)


def accuracy(labels: Vector, scores: Vector, *, threshold: float = 0.5) -> float:
    """Share of rows whose decision is right.

    >>> accuracy(np.array([0, 1, 1]), np.array([0.2, 0.5, 0.1])) == 2 / 3
    True
    """
    _, false_alarms, misses, rows = _decisions(labels, scores, threshold)
    return (rows - false_alarms - misses) / rows


def precision(labels: Vector, scores: Vector, *, threshold: float = 0.5) -> float:
    """Share of positive decisions that are right; by convention 0 when none is positive.

    >>> precision(np.array([0, 1, 1]), np.array([0.9, 0.5, 0.1]))
    0.5
    """
    hits, false_alarms, _, _ = _decisions(labels, scores, threshold)
    return hits / (hits + false_alarms) if hits + false_alarms else 0.0


def recall(labels: Vector, scores: Vector, *, threshold: float = 0.5) -> float:
    """Share of positives that are found. Raises MetricUndefined without positives.

    >>> recall(np.array([0, 1, 1]), np.array([0.9, 0.5, 0.1]))
    0.5
    """
    hits, _, misses, _ = _decisions(labels, scores, threshold)
    if not hits + misses:
        raise _one_class("recall", labels)
    return hits / (hits + misses)


def f1(labels: Vector, scores: Vector, *, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN). Raises MetricUndefined without positives.

    >>> f1(np.array([0, 1, 1]), np.array([0.9, 0.5, 0.1]))
    0.5
    """
    hits, false_alarms, misses, _ = _decisions(labels, scores, threshold)
    if not hits + misses:
        raise _one_class("f1", labels)
    return 2 * hits / (2 * hits + false_alarms + misses)


@dataclass(frozen=True)
class Confusion:
    """How many rows were decided how. A positive decision is `score >= threshold`."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    def as_plain(self) -> dict[str, int]:
        return asdict(self)


def confusion(labels: Vector, scores: Vector, *, threshold: float = 0.5) -> Confusion:
    """The four counts of decisions against labels.

    >>> confusion(np.array([0, 1, 1]), np.array([0.9, 0.5, 0.1]))
    Confusion(true_positive=1, false_positive=1, false_negative=1, true_negative=0)
    """
    hits, false_alarms, misses, rows = _decisions(labels, scores, threshold)
    return Confusion(hits, false_alarms, misses, rows - hits - false_alarms - misses)


def mae(labels: Vector, scores: Vector) -> float:
    """Mean absolute error, in the target's unit; lower is better.

    >>> mae(np.array([1.0, 3.0]), np.array([2.0, 5.0]))
    1.5
    """
    labels, scores = _numbers(labels, scores)
    return float(np.mean(np.abs(scores - labels)))


def rmse(labels: Vector, scores: Vector) -> float:
    """Root of the mean squared error, in the target's unit; lower is better.

    >>> rmse(np.array([0.0, 0.0]), np.array([3.0, -3.0]))
    3.0
    """
    labels, scores = _numbers(labels, scores)
    return float(np.sqrt(np.mean((scores - labels) ** 2)))


def quantile_loss(labels: Vector, scores: Vector, *, quantile: float = 0.5) -> float:
    """Mean pinball loss of a predicted quantile, in the target's unit; lower is better.

    A label above the score costs `quantile` for each unit, one below costs 1 - `quantile` (Koenker and Bassett 1978);
    at 0.5 it is half of the mean absolute error. quantile: in (0, 1).

    >>> quantile_loss(np.array([10.0, 0.0]), np.array([0.0, 10.0]), quantile=0.9)
    5.0
    """
    labels, scores = _numbers(labels, scores)
    over = labels - scores
    return float(np.mean(np.maximum(quantile * over, (quantile - 1) * over)))


def r2(labels: Vector, scores: Vector) -> float:
    """Share of the labels' variance that is explained: 1 - SS_residual / SS_total; negative when worse than the mean.

    Raises MetricUndefined when the labels do not vary.

    >>> r2(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0]))
    1.0
    """
    labels, scores = _numbers(labels, scores)
    total = float(np.sum((labels - labels.mean()) ** 2))
    if total == 0:
        raise MetricUndefined(
            f"r2 is not defined: all {labels.size} labels are {labels[0]:g}.",
            expected="At least two different labels are needed.",
            metric="r2",
        )
    return 1 - float(np.sum((scores - labels) ** 2)) / total


def multiclass_roc_auc(labels: Vector, scores: Vector) -> float:
    """Mean over the classes of the area under the curve of each against the rest (macro, one versus rest).

    Classes without a row, and one that has all rows, define no curve and do not count.
    Raises MetricUndefined when labels hold one class.

    >>> multiclass_roc_auc(np.array([0, 1, 2]), np.eye(3))
    1.0
    """
    labels, scores = _classes(labels, scores)
    found = np.unique(labels).astype(np.intp)
    if found.size < 2:
        raise _one_class("roc_auc", labels)
    return float(np.mean([roc_auc(labels == number, scores[:, number]) for number in found]))


def multiclass_log_loss(labels: Vector, scores: Vector) -> float:
    """Mean of -ln of the probability given to the class that happened, in nats; lower is better.

    Probabilities are kept 2.2e-16 away from 0 and 1, as in `log_loss`.

    >>> round(multiclass_log_loss(np.array([0, 1]), np.array([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])), 6)
    0.693147
    """
    return float(multiclass_losses(labels, scores).mean())


def multiclass_losses(labels: Vector, scores: Vector) -> NDArray[np.float64]:
    """The terms of `multiclass_log_loss`, one for each row."""
    labels, scores = _class_probabilities(labels, scores)
    epsilon = float(np.finfo(np.float64).eps)
    given = scores[np.arange(labels.size), labels.astype(np.intp)]
    return -np.log(np.clip(given, epsilon, 1 - epsilon))


def multiclass_brier(labels: Vector, scores: Vector) -> float:
    """Mean over rows of the sum over classes of (p - y)^2, from 0 to 2 (Brier 1950, as he wrote it); lower is better.

    >>> multiclass_brier(np.array([0]), np.array([[0.5, 0.25, 0.25]]))
    0.375
    """
    labels, scores = _class_probabilities(labels, scores)
    given = scores[np.arange(labels.size), labels.astype(np.intp)]
    return float(np.mean((scores**2).sum(axis=1) - 2 * given + 1))


def multiclass_accuracy(labels: Vector, scores: Vector) -> float:
    """Share of rows whose likeliest class is the one that happened.

    >>> multiclass_accuracy(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    0.5
    """
    labels, scores = _classes(labels, scores)
    return float(np.mean(scores.argmax(axis=1) == labels))


def multiclass_precision(labels: Vector, scores: Vector) -> float:
    """Mean over the classes (macro) of the share of their decisions that are right; 0 for one never decided for.

    The classes are those that happened or were decided for, also in `multiclass_recall` and `multiclass_f1`.

    >>> multiclass_precision(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    0.25
    """
    hits, happened, decided = _by_class(labels, scores)
    del happened
    return float(np.mean(hits / np.maximum(decided, 1)))


def multiclass_recall(labels: Vector, scores: Vector) -> float:
    """Mean over the classes (macro) of the share of their rows that is found; 0 for one that never happened.

    >>> multiclass_recall(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]]))
    0.5
    """
    hits, happened, _ = _by_class(labels, scores)
    return float(np.mean(hits / np.maximum(happened, 1)))


def multiclass_f1(labels: Vector, scores: Vector) -> float:
    """Mean over the classes (macro) of 2 TP / (2 TP + FP + FN).

    >>> round(multiclass_f1(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])), 6)
    0.333333
    """
    hits, happened, decided = _by_class(labels, scores)
    return float(np.mean(2 * hits / (happened + decided)))


def multiclass_confusion(labels: Vector, scores: Vector) -> NDArray[np.intp]:
    """(C, C) counts: row by row the class that happened, column by column the likeliest one.

    >>> multiclass_confusion(np.array([0, 1]), np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])).tolist()
    [[1, 0, 0], [1, 0, 0], [0, 0, 0]]
    """
    labels, scores = _classes(labels, scores)
    size = scores.shape[1]
    cells = labels.astype(np.intp) * size + scores.argmax(axis=1)
    return np.bincount(cells, minlength=size * size).reshape(size, size)


@dataclass(frozen=True)
class Metric:
    """A metric by name, and which way is better. at: what else its function is given, by the name of the argument."""

    name: str
    function: Callable[..., float]
    better: Literal["higher", "lower"]
    at: Literal["threshold", "quantile"] | None = None


METRICS: dict[Task, dict[str, Metric]] = {
    "binary": {
        metric.name: metric
        for metric in (
            Metric("roc_auc", roc_auc, "higher"),
            Metric("average_precision", average_precision, "higher"),
            Metric("log_loss", log_loss, "lower"),
            Metric("brier", brier, "lower"),
            Metric("expected_calibration_error", expected_calibration_error, "lower"),
            Metric("accuracy", accuracy, "higher", at="threshold"),
            Metric("precision", precision, "higher", at="threshold"),
            Metric("recall", recall, "higher", at="threshold"),
            Metric("f1", f1, "higher", at="threshold"),
        )
    },
    "multiclass": {
        metric.name: metric
        for metric in (
            Metric("roc_auc", multiclass_roc_auc, "higher"),
            Metric("log_loss", multiclass_log_loss, "lower"),
            Metric("brier", multiclass_brier, "lower"),
            Metric("accuracy", multiclass_accuracy, "higher"),
            Metric("precision", multiclass_precision, "higher"),
            Metric("recall", multiclass_recall, "higher"),
            Metric("f1", multiclass_f1, "higher"),
        )
    },
    "regression": {
        metric.name: metric
        for metric in (
            Metric("r2", r2, "higher"),
            Metric("mae", mae, "lower"),
            Metric("rmse", rmse, "lower"),
            Metric("quantile_loss", quantile_loss, "lower", at="quantile"),
        )
    },
}

MAIN: dict[Task, str] = {"binary": "roc_auc", "multiclass": "roc_auc", "regression": "r2"}
"""The metric whose spread over folds and whose gap to the test part the gates look at."""


MEAN = 0.5
"""The quantile of a regression that declares none: it is taken to predict the mean, whose loss is the squared error."""


def quantile_off(labels: Vector, scores: Vector, quantile: float) -> NDArray[np.float64]:
    """(n,) 1 less the quantile for each label below its score, minus the quantile for each above; of those that are
    equal the part counts as below that leaves the mean nearest to 0. The mean is 0 for a right quantile, also of labels
    of few values."""
    equal = labels == scores
    below, ties = float((labels < scores).mean()), float(equal.mean())
    part = min(max((quantile - below) / ties, 0.0), 1.0) if ties else 0.0
    found: NDArray[np.float64] = (labels < scores) + part * equal - quantile
    return found


def losses(task: Task, labels: Vector, scores: Vector, *, quantile: float = MEAN) -> NDArray[np.float64]:
    """Each row's loss: minus the log likelihood of classes, the squared error for regression; smaller is better.

    labels: (n,), NaN where not known, of classes their places; scores: (n,), or (n, C). (n,), NaN stays NaN.
    quantile: which one a regression predicts; of any but 0.5 the loss is the pinball loss, as in `quantile_loss`.
    """
    if task == "regression":
        over = labels - scores
        found: NDArray[np.float64] = np.square(over)
        return found if quantile == MEAN else np.maximum(quantile * over, (quantile - 1) * over)
    sure = np.clip(scores, 1e-15, 1 - 1e-15)
    if task == "multiclass":
        known = np.flatnonzero(~np.isnan(labels))
        of_classes = np.full(labels.size, np.nan)
        of_classes[known] = -np.log(sure[known, labels[known].astype(np.intp)])
        return of_classes
    surprise: NDArray[np.float64] = -(labels * np.log(sure) + (1 - labels) * np.log1p(-sure))
    return surprise


def measure(
    task: Task, labels: Vector, scores: Vector, *, threshold: float = 0.5, quantile: float = 0.5
) -> dict[str, float | None]:
    """Every metric of the task; None where the rows do not define it, or it is no finite number.

    scores: (n,), or (n, C) for multiclass. threshold: from which score on a binary decision is positive. quantile:
    which one a regression predicts.
    """
    given = {"threshold": threshold, "quantile": quantile}
    measured: dict[str, float | None] = {}
    for name, metric in METRICS[task].items():
        more = {metric.at: given[metric.at]} if metric.at else {}
        try:
            with np.errstate(over="ignore", invalid="ignore"):
                value = metric.function(labels, scores, **more)
            measured[name] = value if np.isfinite(value) else None
        except MetricUndefined:
            measured[name] = None
    return measured


def _numbers(labels: Vector, scores: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, scores = (np.asarray(values).astype(np.float64) for values in (labels, scores))
    if labels.ndim != 1 or labels.shape != scores.shape or not labels.size:
        raise BadScores(
            f"labels have the shape {labels.shape} and scores {scores.shape}.",
            expected="Two one-dimensional arrays of one length, at least 1, are expected.",
        )
    for what, values in (("label", labels), ("score", scores)):
        bad = ~np.isfinite(values)
        if bad.any():
            raise BadScores(
                f"{int(bad.sum())} of {bad.size} {what}s are missing or infinite, the first at {int(np.argmax(bad))}.",
                expected="Leave rows without a label or a score out before measuring.",
            )
    return labels, scores


def _binary(labels: Vector, scores: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, scores = _numbers(labels, scores)
    other = (labels != 0) & (labels != 1)
    if other.any():
        raise BadScores(f"a label is {labels[np.argmax(other)]:g}.", expected="Binary labels are 0 and 1.")
    return labels, scores


def _probabilities(labels: Vector, scores: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, scores = _binary(labels, scores)
    if scores.min() < 0 or scores.max() > 1:
        raise BadScores(
            f"scores reach from {scores.min():g} to {scores.max():g}.",
            expected="Probabilities in [0, 1] are expected.",
        )
    return labels, scores


def _decisions(labels: Vector, scores: Vector, threshold: float) -> tuple[int, int, int, int]:
    """True positives, false positives, false negatives, rows."""
    labels, scores = _binary(labels, scores)
    positive, decided = labels == 1, scores >= threshold
    hits = int((positive & decided).sum())
    return hits, int(decided.sum()) - hits, int(positive.sum()) - hits, labels.size


def _classes(labels: Vector, scores: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, scores = (np.asarray(values).astype(np.float64) for values in (labels, scores))
    if labels.ndim != 1 or not labels.size or scores.ndim != 2 or len(scores) != labels.size:
        raise BadScores(
            f"labels have the shape {labels.shape} and scores {scores.shape}.",
            expected="(n,) places of classes and (n, C) probabilities are expected, n >= 1.",
        )
    known = (labels >= 0) & (labels < scores.shape[1]) & (labels == np.floor(labels))
    for what, bad in (("label", ~known), ("row of score", ~np.isfinite(scores).all(axis=1))):
        if bad.any():
            raise BadScores(
                f"{int(bad.sum())} of {bad.size} {what}s are no class, missing or infinite, "
                f"the first at {int(np.argmax(bad))}.",
                expected=f"Labels are places among {scores.shape[1]} classes, scores finite.",
            )
    return labels, scores


def _class_probabilities(labels: Vector, scores: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    labels, scores = _classes(labels, scores)
    if scores.min() < 0 or scores.max() > 1 + 1e-6:
        raise BadScores(
            f"scores reach from {scores.min():g} to {scores.max():g}.",
            expected="Probabilities in [0, 1] are expected.",
        )
    return labels, scores


def _by_class(labels: Vector, scores: Vector) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rows decided rightly, rows that happened, rows decided for: of each class that has one of the latter two."""
    labels, scores = _classes(labels, scores)
    happened, decided = labels.astype(np.intp), scores.argmax(axis=1)
    size = scores.shape[1]
    counts = [np.bincount(of, minlength=size) for of in (happened[happened == decided], happened, decided)]
    there = counts[1] + counts[2] > 0
    hits, of_labels, of_decisions = (count[there].astype(np.float64) for count in counts)
    return hits, of_labels, of_decisions


def _one_class(metric: str, labels: Vector) -> MetricUndefined:
    only = int(labels[0])
    return MetricUndefined(
        f"{metric} is not defined: all {labels.size} labels are {only}.",
        expected="Rows of both classes are needed.",
        metric=metric,
        only=only,
    )
