"""What a metric will be, as far as calibrated probabilities can tell, before any label is known.

Each row counts as positive with its probability, and as negative with the rest: the expected confusion matrix, and
from it the metric (confidence-based performance estimation, CBPE, of NannyML: docs, "Deep dive: estimation of
performance of the monitored model"). A function of sums of many rows is about the function of their expectations.

It assumes that the probabilities are right for these rows. If the world answers differently they are not, and nothing
here can notice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]
Figures = dict[str, float | None]


def expected_binary(
    probabilities: Vector, scores: Vector, *, threshold: float = 0.5, weights: Vector | None = None
) -> Figures:
    """The metrics of `stats.metrics` that are to be expected of a binary model; None where undefined.

    probabilities: (n,), P(positive) as calibrated. scores: (n,) in [0, 1], what the model said, by which it ranks and
    decides. weights: (n,) rows that each stands for.
    The calibration error is left out: calibrated probabilities are right by assumption.
    """
    if not len(scores):
        return dict.fromkeys(BINARY)
    weights = np.ones(len(scores)) if weights is None else weights
    positives, negatives = probabilities * weights, (1 - probabilities) * weights
    decided = scores >= threshold
    rows, hits, false = float(weights.sum()), float(positives[decided].sum()), float(negatives[decided].sum())
    happened = float(positives.sum())
    missed = happened - hits
    epsilon = float(np.finfo(np.float64).eps)
    sure = np.clip(scores, epsilon, 1 - epsilon)
    loss = -(positives * np.log(sure) + negatives * np.log1p(-sure)).sum()
    squared = (positives * (1 - scores) ** 2 + negatives * scores**2).sum()
    area, precision = expected_ranking(positives, negatives, scores)
    return {
        "roc_auc": area,
        "average_precision": precision,
        "log_loss": float(loss) / rows,
        "brier": float(squared) / rows,
        "accuracy": (rows - false - missed) / rows,
        "precision": hits / (hits + false) if hits + false > 0 else 0.0,
        "recall": hits / happened if happened > 0 else None,
        "f1": 2 * hits / (2 * hits + false + missed) if happened > 0 else None,
    }


BINARY = ("roc_auc", "average_precision", "log_loss", "brier", "accuracy", "precision", "recall", "f1")
MULTICLASS = ("roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1")


def expected_ranking(positives: Vector, negatives: Vector, scores: Vector) -> tuple[float | None, float | None]:
    """ROC AUC and average precision when each row holds so much of a positive and so much of a negative.

    positives, negatives: (n,), >= 0. With 0 and 1 these are the metrics of `stats.metrics`, ties included.
    """
    total, others = float(positives.sum()), float(negatives.sum())
    if total <= 0:
        return None, None
    levels, place = np.unique(scores, return_inverse=True)
    up, down = (np.bincount(place, weights=side, minlength=levels.size) for side in (positives, negatives))
    area = None
    if others > 0:
        below = np.cumsum(down) - down / 2
        area = float((up * below).sum() / (total * others))
    found, told = np.cumsum(up[::-1]), np.cumsum((up + down)[::-1])
    right = np.divide(found, told, out=np.zeros_like(found), where=told > 0)
    return area, float((up[::-1] * right).sum() / total)


def expected_multiclass(probabilities: Vector, scores: Vector) -> Figures:
    """The metrics of `stats.metrics` that are to be expected of a model of several classes.

    probabilities: (n, C), rows sum to 1, as calibrated. scores: (n, C) in [0, 1], what the model said; the decision
    is the likeliest class. A class that is neither expected nor decided for does not count.
    """
    if not len(scores):
        return dict.fromkeys(MULTICLASS)
    rows, size = scores.shape
    decided = scores.argmax(axis=1)
    right = probabilities[np.arange(rows), decided]
    hits, chosen = np.bincount(decided, weights=right, minlength=size), np.bincount(decided, minlength=size)
    happened = probabilities.sum(axis=0)
    there = happened + chosen > 0
    hits, chosen, happened = hits[there], chosen[there], happened[there]
    epsilon = float(np.finfo(np.float64).eps)
    loss = -(probabilities * np.log(np.clip(scores, epsilon, 1 - epsilon))).sum() / rows
    squared = ((scores**2).sum(axis=1) - 2 * (probabilities * scores).sum(axis=1) + 1).mean()
    curves = [
        area
        for number in range(size)
        if (area := expected_ranking(probabilities[:, number], 1 - probabilities[:, number], scores[:, number])[0])
        is not None
    ]
    return {
        "roc_auc": float(np.mean(curves)) if len(curves) > 1 else None,
        "log_loss": float(loss),
        "brier": float(squared),
        "accuracy": float(right.mean()),
        "precision": float(np.mean(hits / np.maximum(chosen, 1))),
        "recall": float(np.mean(np.divide(hits, happened, out=np.zeros_like(hits), where=happened > 0))),
        "f1": float(np.mean(2 * hits / (happened + chosen))),
    }
