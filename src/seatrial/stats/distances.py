"""Distances between two samples: how far has the current window moved from the reference?

Samples come as counts over shared bins, or as the values themselves where that is exact; 0.0 means "the same". A
distance is an effect size; how surprising it is comes from a p-value beside it, and neither is enough alone: with
many rows everything is significant, with few everything is far. Nothing here knows of features, models or windows.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64] | NDArray[np.float64]


class NothingToCompare(UsageError):
    """One of two samples is empty."""

    code = "stats.nothing_to_compare"


def kolmogorov_smirnov(reference: Counts, current: Counts) -> float:
    """The largest difference of the cumulative shares at the edges of shared bins, in [0, 1].

    reference, current: (b,) counts in ascending bins. With bins of equal mass in the reference it is at most 1/b
    below the exact statistic; with a bin for each distinct value it is exact, ties included.
    Raises NothingToCompare when either is empty.

    >>> kolmogorov_smirnov(np.array([5, 5]), np.array([10, 0]))
    0.5
    """
    below, others = np.cumsum(reference), np.cumsum(current)
    if not below[-1] or not others[-1]:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    return float(np.abs(below / below[-1] - others / others[-1]).max())


def kolmogorov_smirnov_exact(reference: Floats, current: Floats) -> float:
    """The two-sample statistic of the values themselves, (n,) and (m,) without NaN; ties are handled exactly."""
    if not reference.size or not current.size:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    reference, current = np.sort(reference), np.sort(current)
    values = np.concatenate([reference, current])
    below = np.searchsorted(reference, values, side="right") / reference.size
    return float(np.abs(below - np.searchsorted(current, values, side="right") / current.size).max())


def kolmogorov_smirnov_p_value(statistic: float, n: int, m: int) -> float:
    """How often two samples of one distribution lie this far apart; asymptotic, in [0, 1].

    Kolmogorov's series at sqrt(nm / (n + m)) D with Stephens' correction (1970). Conservative for ties.
    """
    if n < 1 or m < 1:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    root = math.sqrt(n * m / (n + m))
    x = (root + 0.12 + 0.11 / root) * statistic
    if x < 0.2:  # the series converges too slowly where it is 1 to many digits
        return 1.0
    total = math.fsum((1 if k % 2 else -1) * math.exp(-2 * k * k * x * x) for k in range(1, 101))
    return min(1.0, max(0.0, 2 * total))


def total_variation(reference: Counts, current: Counts) -> float:
    """Half the sum of absolute differences of the shares: the mass that would have to move, in [0, 1].

    >>> total_variation(np.array([9, 1]), np.array([5, 5]))
    0.4
    """
    return float(np.abs(_shares(reference) - _shares(current)).sum() / 2)


def chi_square_p_value(reference: Counts, current: Counts) -> float:
    """The p-value of Pearson's test that both rows of the 2 x b table come from one distribution, in [0, 1].

    A contingency table, with b - 1 degrees of freedom: the reference is a sample too. Bins that both leave empty
    do not count; fewer than two bins are never a surprise (1.0).
    """
    table = np.array([reference, current], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    if not table.size or (table.sum(axis=1) == 0).any():
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    statistic = float(((table - expected) ** 2 / expected).sum())
    return chi_square_tail(statistic, table.shape[1] - 1)


def chi_square_tail(statistic: float, degrees: int) -> float:
    """P(chi-square with `degrees` > statistic): the regularised upper incomplete gamma function Q(k/2, x/2).

    By its series below k/2 + 1 and by Lentz's continued fraction above (Abramowitz and Stegun 6.5.29, 6.5.31).
    """
    a, x = degrees / 2, statistic / 2
    if x <= 0:
        return 1.0
    front = math.exp(-x + a * math.log(x) - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        for k in range(1, 10_000):
            term *= x / (a + k)
            total += term
            if term < total * 1e-16:
                break
        return min(1.0, max(0.0, 1 - front * total))
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    h = d
    for k in range(1, 10_000):
        an = -k * (k - a)
        b += 2
        d = 1 / (an * d + b or tiny)
        c = b + an / c or tiny
        step = d * c
        h *= step
        if abs(step - 1) < 1e-15:
            break
    return min(1.0, max(0.0, front * h))


def proportion_p_value(hits: int, n: int, other_hits: int, m: int) -> float:
    """The two-sided p-value that two shares are one: the pooled normal approximation, in [0, 1]."""
    if n < 1 or m < 1:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    pooled = (hits + other_hits) / (n + m)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    if spread == 0:
        return 1.0
    return math.erfc(abs(hits / n - other_hits / m) / spread / math.sqrt(2))


def _shares(counts: Counts) -> Floats:
    total = counts.sum()
    if not total:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    return np.asarray(counts / total, dtype=np.float64)
