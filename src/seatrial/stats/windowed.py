"""Statistics of many windows at once: each row of counts is one window, and the reference is one row for all of them.

What a policy watches is how far such a row lies beyond what is tolerated, in standard deviations of chance.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from seatrial.stats.distances import chi_square_tail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Counts = Ints | Floats

FARTHEST = 0.0025
"""The rank, from either end, beyond which all values score the same: one absurd value moves no mean."""
FEWEST_EXPECTED = 5
"""Rows expected of a category below which it is rare (Cochran 1954)."""


def counted(place: Ints, bin_of: Ints, windows: int, bins: int) -> Ints:
    """(windows, bins) rows by window and bin. place, bin_of: (n,)."""
    return np.bincount(place * bins + bin_of, minlength=windows * bins).reshape(windows, bins)


def normal_scores(reference: Ints) -> Floats:
    """(b,) the normal quantile of each bin's middle rank in the reference: van der Waerden's scores (1952).

    For a normal column the mean score of a window is its mean, in standard deviations; for any other it is what that
    would be after the values were stretched to a normal shape, so neither a skew nor an outlier counts for more.
    """
    total = reference.sum()
    middle = (np.cumsum(reference) - reference / 2) / max(total, 1)
    quantile = NormalDist().inv_cdf
    return np.array([quantile(min(max(rank, FARTHEST), 1 - FARTHEST)) for rank in middle.tolist()])


def kolmogorov_smirnov_distances(reference: Ints, counts: Ints) -> Floats:
    """(w,) `distances.kolmogorov_smirnov` of each row; NaN of an empty one."""
    below = np.cumsum(reference) / reference.sum()
    cumulated = np.cumsum(counts, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.abs(cumulated / cumulated[:, -1:] - below).max(axis=1)
    return found


def kolmogorov_smirnov_p_values(distances: Floats, n: float, m: Counts) -> Floats:
    """`distances.kolmogorov_smirnov_p_value` of each; NaN where there is no distance."""
    with np.errstate(invalid="ignore", divide="ignore"):
        root = np.sqrt(n * m / (n + m))
        x = (root + 0.12 + 0.11 / root) * distances
        terms = np.arange(1, 101)[:, None]
        signs = np.where(terms % 2, 1.0, -1.0)
        found = np.clip(2 * (signs * np.exp(-2 * terms**2 * x**2)).sum(axis=0), 0, 1)
    return np.where(np.isnan(distances), np.nan, np.where(x < 0.2, 1.0, found))


def total_variations(reference: Ints, counts: Ints) -> Floats:
    """(w,) `distances.total_variation` of each row; NaN of an empty one."""
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = counts / counts.sum(axis=1, keepdims=True)
    found: Floats = np.abs(shares - reference / reference.sum()).sum(axis=1) / 2
    return found


def chi_squares(reference: Ints, counts: Ints) -> tuple[Floats, Ints]:
    """(w,) Pearson's statistic of each row beside the reference, as a 2 x b table, and (w,) degrees of freedom.

    Rare values count as one, as in `monitoring.looks.drift`; an empty row has the statistic NaN.
    """
    n, m = float(reference.sum()), counts.sum(axis=1, keepdims=True).astype(np.float64)
    together = reference + counts
    rare = together * np.minimum(n, m) < FEWEST_EXPECTED * (n + m)
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = (n * counts - m * reference) ** 2 / (n * m * together)
        kept = np.where(rare | (together == 0), 0.0, apart).sum(axis=1)
        some, others = (np.where(rare, one, 0).sum(axis=1) for one in (counts, reference))
        pooled = (n * some - m[:, 0] * others) ** 2 / (n * m[:, 0] * (some + others))
    degrees = (~rare & (together > 0)).sum(axis=1) + (some + others > 0) - 1
    statistic = kept + np.where(some + others > 0, pooled, 0.0)
    return np.where(m[:, 0] > 0, statistic, np.nan), degrees


def chi_square_p_values(statistics: Floats, degrees: Ints) -> Floats:
    """(w,) upper tails; 1 without a degree of freedom, NaN of NaN."""
    pairs = zip(statistics.tolist(), degrees.tolist(), strict=True)
    return np.array([math.nan if math.isnan(x) else chi_square_tail(x, k) if k > 0 else 1.0 for x, k in pairs])


def chi_square_scores(statistics: Floats, degrees: Ints, beyond: Floats) -> Floats:
    """(w,) each statistic as a standard normal one, when shares really differ by the noncentrality `beyond`.

    Sankaran 1959 (the second of his approximations, as in Johnson, Kotz and Balakrishnan 29.8): a power of the
    statistic is close to normal; without noncentrality it is Wilson and Hilferty's cube root. NaN without a degree of
    freedom.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        k, add = degrees.astype(np.float64), beyond
        power = 1 - 2 * (k + add) * (k + 3 * add) / (3 * (k + 2 * add) ** 2)
        slope = (k + 2 * add) / (k + add) ** 2
        room = (power - 1) * (1 - 3 * power)
        middle = 1 + power * slope * (power - 1 - 0.5 * (2 - power) * room * slope)
        spread = power * np.sqrt(2 * slope) * (1 + 0.5 * room * slope)
        scores: Floats = ((statistics / (k + add)) ** power - middle) / spread
    return np.where(degrees > 0, scores, np.nan)


def share_scores(hits: Counts, rows: Counts, share: float) -> Floats:
    """(w,) `hits` of `rows` as a standard normal number when `share` of them is usual; NaN without rows.

    Freeman and Tukey's deviate (1950), sqrt(x) + sqrt(x + 1) - sqrt(4 n p + 1), over sqrt(1 - p): of few hits it is
    never much above zero by chance alone, as the plain one is.
    """
    if share > 0.5:
        return -share_scores(rows - hits, rows, 1 - share)
    scores: Floats = (np.sqrt(hits) + np.sqrt(hits + 1) - np.sqrt(4 * rows * share + 1)) / math.sqrt(1 - share)
    return np.where(rows > 0, scores, np.nan)


def share_p_values(hits: Counts, rows: Counts, share: float, reference_rows: float) -> Floats:
    """(w,) two-sided p-values that `share`, counted in `reference_rows`, is the share of these rows too.

    The signed root of the deviance with half a hit taken off, as if the share were known, less what the reference's own
    sampling takes from it; 1 where nothing is off, NaN without rows.
    """
    expected = np.asarray(rows * share, dtype=np.float64)
    apart = np.maximum(np.abs(hits - expected) - 0.5, 0.0) * np.sign(hits - expected)
    seen, rest = expected + apart, rows - expected - apart
    with np.errstate(invalid="ignore", divide="ignore"):
        deviance = 2 * (_entropy(seen, expected) + _entropy(rest, rows - expected))
        root = np.sqrt(np.maximum(deviance, 0.0) * reference_rows / (reference_rows + rows))
    tails = np.array([math.erfc(one / math.sqrt(2)) if one == one else math.nan for one in root.tolist()])
    return np.where(rows > 0, tails, np.nan)


def _entropy(seen: Floats, expected: Floats) -> Floats:
    """seen * log(seen / expected), 0 for nothing seen, infinite for what cannot be."""
    return np.where(seen > 0, seen * np.log(np.where(seen > 0, seen, 1.0) / expected), 0.0)
