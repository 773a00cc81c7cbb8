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


NAMES = ("ks", "wasserstein", "js", "psi", "chi2", "tv")
"""What a report and an alarm call the distances below: Kolmogorov-Smirnov, Wasserstein, Jensen-Shannon, population
stability index, chi-square, total variation."""
OF_NUMBERS = ("ks", "wasserstein")
"""Those that need an order of the values."""


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


def wasserstein_exact(reference: Floats, current: Floats) -> float:
    """How far values move on average, in their own unit, (n,) and (m,) without NaN; ties are handled exactly.

    The area between the two cumulative distributions (Vallender 1974). Divide it by the reference's standard deviation
    to compare columns.
    """
    if not reference.size or not current.size:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    reference, current = np.sort(reference), np.sort(current)
    values = np.sort(np.concatenate([reference, current]))
    below = np.searchsorted(reference, values[:-1], side="right") / reference.size
    others = np.searchsorted(current, values[:-1], side="right") / current.size
    return float((np.abs(below - others) * np.diff(values)).sum())


def wasserstein(reference: Counts, current: Counts, cuts: Floats, beyond: tuple[float, float] = (0.0, 0.0)) -> float:
    """The area between two cumulative distributions that are known at the `cuts` only, in the values' unit.

    reference, current: (k + 1,) counts below the first of k ascending cuts, between them and from the last on. Between
    two cuts values count as spread evenly, which of smooth values in a hundred bins errs by up to 5 %, in the long
    outermost ones above all. beyond: by how much the current values lie below the first cut and above
    the last, summed over them; the reference has none there.

    >>> wasserstein(np.array([0, 10, 0]), np.array([0, 5, 5]), np.array([0.0, 1.0]), (0.0, 5.0))
    0.75
    """
    total, others = reference.sum(), current.sum()
    if not total or not others:
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    outer = (beyond[0] + beyond[1]) / float(others)
    if len(cuts) < 2:
        return outer
    apart = np.cumsum(reference)[:-1] / total - np.cumsum(current)[:-1] / others
    left, right = apart[:-1], apart[1:]
    crossing = left * right < 0
    both = np.abs(left) + np.abs(right)
    # |a line| over one step: a trapezoid, or two triangles where it crosses zero
    area = np.where(crossing, (left**2 + right**2) / (2 * np.where(both > 0, both, 1)), both / 2)
    return float((area * np.diff(cuts)).sum()) + outer


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """The Jensen-Shannon *distance* to base 2, in [0, 1]: the root of the divergence (Endres and Schindelin 2003).

    The divergence itself is its square; to base e it would end at 0.83 and not at 1.

    >>> jensen_shannon(np.array([1, 0]), np.array([0, 1]))
    1.0
    """
    one, other = _shares(reference), _shares(current)
    middle = (one + other) / 2
    divergence = sum(float((p[p > 0] * np.log2(p[p > 0] / middle[p > 0])).sum()) / 2 for p in (one, other))
    return math.sqrt(min(1.0, max(0.0, divergence)))


PSI_FLOOR = 1e-4


def population_stability_index(reference: Counts, current: Counts, *, floor: float = PSI_FLOOR) -> float:
    """The sum over bins of (current - reference) ln(current / reference) of the shares, >= 0, in nats.

    floor: the least share that a bin counts with, so that an empty one gives a number; the shares are not scaled
    again. The usual reading (below 0.1 stable, above 0.25 moved) is of ten bins of equal mass and of many rows: of two
    samples of one distribution it is about (bins - 1)(1/n + 1/m).

    >>> round(population_stability_index(np.array([50, 50]), np.array([60, 40])), 4)
    0.0405
    """
    one, other = (np.maximum(_shares(counts), floor) for counts in (reference, current))
    return float(((other - one) * np.log(other / one)).sum())


def chi_square(reference: Counts, current: Counts) -> tuple[float, int]:
    """Pearson's statistic of the 2 x b contingency table, and its degrees of freedom; (0.0, 0) below two bins.

    Bins that both leave empty do not count. The statistic grows with the rows: it is no effect size.
    """
    table = np.array([reference, current], dtype=np.float64)
    table = table[:, table.sum(axis=0) > 0]
    if not table.size or (table.sum(axis=1) == 0).any():
        raise NothingToCompare("one of the two samples is empty.", expected="At least one value each is expected.")
    if table.shape[1] < 2:
        return 0.0, 0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    return float(((table - expected) ** 2 / expected).sum()), table.shape[1] - 1


def chi_square_p_value(reference: Counts, current: Counts) -> float:
    """The p-value of Pearson's test that both rows of the 2 x b table come from one distribution, in [0, 1].

    A contingency table, with b - 1 degrees of freedom: the reference is a sample too. Bins that both leave empty
    do not count; fewer than two bins are never a surprise (1.0).
    """
    statistic, degrees = chi_square(reference, current)
    return chi_square_tail(statistic, degrees) if degrees else 1.0


def in_tenths(reference: NDArray[np.int64], current: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both in at most ten bins of about equal mass of the reference, and one on either side for what it does not have.

    reference: (b,) in ascending bins, the first and the last of which are empty in it. Many bins make noise of an
    index that adds them up; a bin that holds more than a tenth stays one.
    """
    inside = np.cumsum(reference[1:-1])
    if not inside.size or not inside[-1]:
        return reference, current
    middle = (inside - reference[1:-1] / 2) / inside[-1]  # the tenth that a bin's own middle lies in
    tenth = np.minimum((middle * 10).astype(np.int64), 9)
    starts = np.concatenate([[0], np.flatnonzero(np.diff(tenth)) + 1])
    one, other = (
        np.concatenate([counts[:1], np.add.reduceat(counts[1:-1], starts), counts[-1:]])
        for counts in (reference, current)
    )
    return one, other


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
