"""Means of parts of the rows, and whether they are others than before, when the rows of a block of time go together.

The variance of each mean is that of its clusters' totals (Liang and Zeger 1986): rows of one day share its weather.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.stats.student import t_p_value, t_quantile

Floats = NDArray[np.float64]
Places = NDArray[Any]


@dataclass(frozen=True)
class Means:
    """Of each of k parts, (k,): rows, mean, variance of the mean, and degrees of freedom (clusters less one). NaN for a
    part without rows, and the variance of one with a single cluster."""

    rows: NDArray[np.int64]
    mean: Floats
    variance: Floats
    degrees: Floats


def means(values: Floats, part: Places, parts: int, cluster: Places, weights: Floats | None = None) -> Means:
    """values: (n,), finite. part: (n,) in [0, parts). cluster: (n,) integers from 0. weights: (n,), >= 0."""
    weights = np.ones(values.size) if weights is None else weights
    rows = np.bincount(part, minlength=parts)
    mass = np.bincount(part, weights=weights, minlength=parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(part, weights=weights * values, minlength=parts) / mass
    size = int(cluster.max()) + 1 if cluster.size else 1
    cell = part.astype(np.int64) * size + cluster
    width = parts * size
    there = (np.bincount(cell, minlength=width) > 0).reshape(parts, size)
    totals = np.bincount(cell, weights=weights * (values - mean[part]), minlength=width).reshape(parts, size)
    clusters = there.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (totals**2).sum(axis=1) / mass**2 * clusters / (clusters - 1.0)
    return Means(rows, mean, np.where(clusters > 1, variance, np.nan), clusters - 1.0)


@dataclass(frozen=True)
class Change:
    """now - before, of each of k parts, (k,): its error, degrees of freedom, and p-value; NaN where there is none."""

    value: Floats
    error: Floats
    degrees: Floats
    p_value: Floats

    def interval(self, place: int, level: float = 0.95) -> tuple[float, float] | None:
        """Of one part; None where there is none."""
        error, degrees = float(self.error[place]), float(self.degrees[place])
        if not np.isfinite(error) or not degrees > 0:
            return None
        half = t_quantile(level, degrees) * error
        return float(self.value[place]) - half, float(self.value[place]) + half


def change(before: Means, now: Means) -> Change:
    """Welch's test of two means (1947), with Satterthwaite's degrees of freedom."""
    value = now.mean - before.mean
    variance = now.variance + before.variance
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = variance**2 / (now.variance**2 / now.degrees + before.variance**2 / before.degrees)
        t = np.where(variance > 0, value / np.sqrt(variance), np.where(value == 0, 0.0, np.inf))
    t = np.where(np.isfinite(variance), t, np.nan)
    degrees = np.where(variance > 0, degrees, np.minimum(now.degrees, before.degrees))
    p_value = np.array([t_p_value(float(a), float(b)) for a, b in zip(t, degrees, strict=True)])
    return Change(value, np.sqrt(variance), degrees, p_value)
