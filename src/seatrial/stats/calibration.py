"""Do probabilities mean what they say? Predicted against observed rates, by bins of equal width over [0, 1]."""

from __future__ import annotations

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
