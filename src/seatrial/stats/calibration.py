"""Do scores mean what they say? Predicted against observed, by bins of equal width, and by the line that would put
them right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]


def reliability(labels: Vector, scores: Vector, *, bins: int = 10) -> list[dict[str, float | int]]:
    """Of each bin that has rows its borders, rows, mean score and rate of positives, from the lowest up.

    labels: (n,) 0 and 1. scores: (n,) in [0, 1]. A bin holds its upper border, the first one 0 too; these are the bins
    of `stats.metrics.expected_calibration_error`, which is the mean of |mean score - rate| over rows.
    """
    edges = np.linspace(0, 1, bins + 1)
    place = np.searchsorted(edges[1:-1], scores)
    found: list[dict[str, float | int]] = []
    for number in np.unique(place):
        inside = place == number
        found.append(
            {
                "low": float(edges[number]),
                "high": float(edges[number + 1]),
                "rows": int(inside.sum()),
                "mean_score": float(scores[inside].mean()),
                "rate": float(labels[inside].mean()),
            }
        )
    return found


@dataclass(frozen=True)
class Recalibrated:
    """A line that would put scores right. intercept, slope: 0 and 1 are right; errors: their standard errors, robust to
    what the rows of a cluster share; level: the intercept when the slope is kept at 1."""

    intercept: float
    slope: float
    intercept_error: float
    slope_error: float
    level: float


def recalibrated(labels: Vector, scores: Vector, cluster: Vector | None = None) -> Recalibrated | None:
    """The logistic regression of the labels on the logits of the scores (Cox 1958; Van Calster et al. 2016).

    labels: (n,) 0 and 1. scores: (n,) in [0, 1], kept 1e-6 away from the ends. cluster: (n,) integers from 0; None:
    each row by itself. None when it is not defined: one class, scores that are all equal, or classes that the scores
    part without a mistake.
    """
    if not labels.size or labels.min() == labels.max():
        return None
    sure = np.clip(np.asarray(scores, dtype=np.float64), 1e-6, 1 - 1e-6)
    logit = np.log(sure) - np.log1p(-sure)
    level = _newton(labels, logit, np.ones((labels.size, 1)))
    if level is None:
        return None
    if np.ptp(logit) < 1e-9:
        return None
    design = np.column_stack([np.ones(labels.size), logit])
    beta = _newton(labels, np.zeros(labels.size), design)
    if beta is None:
        return None
    told = 1 / (1 + np.exp(-(design @ beta)))
    bread = np.linalg.inv(design.T @ (design * (told * (1 - told))[:, np.newaxis]))
    errors = _robust(bread, design * (labels - told)[:, np.newaxis], cluster)
    return Recalibrated(float(beta[0]), float(beta[1]), errors[0], errors[1], float(level[0]))


def realigned(labels: Vector, scores: Vector, cluster: Vector | None = None) -> Recalibrated | None:
    """The same for numbers: the least squares line of the labels on the scores. None when all scores are equal."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.size < 3 or np.ptp(scores) <= 1e-12 * max(1.0, float(np.abs(scores).max())):
        return None
    centre, spread = float(scores.mean()), float(scores.std())
    design = np.column_stack([np.ones(scores.size), (scores - centre) / spread])
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ (design.T @ labels)
    rest = labels - design @ beta
    # in the scores' own unit: slope / spread, and the intercept where the score is 0
    turn = np.array([[1.0, -centre / spread], [0.0, 1 / spread]])
    errors = _robust(turn @ bread, design * rest[:, np.newaxis], cluster)
    intercept, slope = turn @ beta
    return Recalibrated(float(intercept), float(slope), errors[0], errors[1], float((labels - scores).mean()))


def _newton(labels: Vector, offset: Vector, design: Vector) -> Vector | None:
    """Maximum likelihood of a logistic regression with an offset; None when it runs away."""
    beta = np.zeros(design.shape[1])
    for _ in range(50):
        told = 1 / (1 + np.exp(-np.clip(offset + design @ beta, -500, 500)))
        spread = np.maximum(told * (1 - told), 1e-12)
        step = np.linalg.solve(
            design.T @ (design * spread[:, np.newaxis]) + 1e-12 * np.eye(beta.size), design.T @ (labels - told)
        )
        size = float(np.abs(step).max())
        beta = beta + (step if size <= 5 else step * (5 / size))
        if float(np.abs(beta).max()) > 100:
            return None
        if size < 1e-9:
            return beta
    return None


def _robust(bread: Vector, moments: Vector, cluster: Vector | None) -> list[float]:
    """Standard errors by the sandwich, moments summed within clusters (Liang and Zeger 1986), with G / (G - 1)."""
    if cluster is not None:
        size = int(cluster.max()) + 1
        moments = np.column_stack([np.bincount(cluster, weights=column, minlength=size) for column in moments.T])
        moments = moments[np.bincount(cluster, minlength=size) > 0]
    count = len(moments)
    if count < 2:
        return [float("nan")] * len(bread)
    covariance = bread @ (moments.T @ moments) @ bread.T * (count / (count - 1))
    return [float(np.sqrt(max(one, 0.0))) for one in np.diag(covariance)]
