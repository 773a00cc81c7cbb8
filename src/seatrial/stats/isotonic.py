"""Isotonic regression: what does a score mean, if all that is known is that a higher one means more?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[Any]


@dataclass(frozen=True)
class Isotonic:
    """A rising map from scores to means of labels. scores: ascending; means: not falling; both (k,), k >= 1."""

    scores: NDArray[np.float64]
    means: NDArray[np.float64]

    def __call__(self, scores: Vector) -> NDArray[np.float64]:
        """The mean at each score: straight between neighbours, and flat beyond the ends. NaN stays NaN."""
        return np.interp(scores, self.scores, self.means)


def isotonic(scores: Vector, labels: Vector, weights: Vector | None = None) -> Isotonic:
    """The rising map with the least weighted squared error, by pooling adjacent violators.

    scores, labels: (n,), n >= 1, finite. weights: (n,), >= 0, one of them > 0; rows of weight 0 do not count.
    Ayer, Brunk, Ewing, Reid and Silverman 1955; Zadrozny and Elkan 2002 for probabilities. Equal scores are one point
    first, and a block of pooled points keeps its first and last score, as in scikit-learn.

    >>> isotonic(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0, 0.5])).means.tolist()
    [0.0, 0.75, 0.75]
    """
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, dtype=np.float64)
    counted = weights > 0
    points, place = np.unique(np.asarray(scores, dtype=np.float64)[counted], return_inverse=True)
    weight: Vector = np.bincount(place, weights=weights[counted])
    mean = np.bincount(place, weights=weights[counted] * np.asarray(labels, dtype=np.float64)[counted]) / weight
    starts, means = pooled(mean, weight)
    ends = np.append(starts[1:], points.size) - 1
    several = ends > starts
    kept = np.concatenate([starts, ends[several]])
    order = np.argsort(kept, kind="stable")
    return Isotonic(points[kept][order], np.concatenate([means, means[several]])[order])


def pooled(means: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Blocks of neighbours whose means do not fall: where each begins, and its mean. weights: > 0."""
    starts: list[int] = []
    blocks: list[float] = []
    sizes: list[float] = []
    for place, (mean, weight) in enumerate(zip(means.tolist(), weights.tolist(), strict=True)):
        start = place
        while blocks and blocks[-1] >= mean:
            size = sizes.pop()
            mean = (blocks.pop() * size + mean * weight) / (size + weight)
            weight += size
            start = starts.pop()
        starts.append(start)
        blocks.append(mean)
        sizes.append(weight)
    return np.array(starts, dtype=np.intp), np.array(blocks)
