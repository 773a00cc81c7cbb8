"""Confidence that survives looking: intervals that hold at every look at once, however often one looks.

Nothing here knows of models or days; whoever calls says what one observation is, and observations must be
independent of each other (for traffic that shares a day, one day is one observation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError

_PRECISION = 2.5
"""Of the prior of `t_sequence`: it is nearly tightest from two weeks of days to two months."""


class TooFewObservations(UsageError):
    """A spread needs two observations."""

    code = "stats.too_few_observations"


def asymptotic_sequence(values: NDArray[np.float64], *, alpha: float, tuned_for: int) -> tuple[float, float]:
    """The asymptotic confidence sequence of a mean after these observations: (low, high).

    The probability that any of the intervals, over all numbers of observations, misses the mean tends to at most
    `alpha`. values: (n,), n >= 2, finite. tuned_for: the number of observations at which it is tightest.
    Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas: Time-uniform central limit theory and asymptotic confidence
    sequences, equation 9; rho from its section on tuning, equation 75 of the appendix.
    Raises TooFewObservations for fewer than two.
    """
    n = values.size
    if n < 2:
        raise TooFewObservations(f"{n} observations have no spread.", expected="At least 2 are expected.")
    rho2 = _rho_squared(alpha, tuned_for)
    inner = 2 * (n * rho2 + 1) / (n * n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    half = float(values.std(ddof=1)) * math.sqrt(inner)
    mean = float(values.mean())
    return mean - half, mean + half


def t_sequence(values: NDArray[np.float64], *, alpha: float) -> tuple[float, float] | None:
    """The confidence sequence of a mean of few observations that are about normal, such as means of days: (low, high).

    Of normal observations, whatever their spread, any of the intervals misses the mean with probability `alpha` at
    most, from the second observation on; `asymptotic_sequence` needs dozens before it keeps what it says. It is wide at
    first: None while it is unbounded (up to 5 observations at alpha 0.05), and for fewer than two.
    values: (n,), finite.
    Lai: On confidence sequences, 1976; Wang and Ramdas: Anytime-valid t-tests and confidence sequences for Gaussian
    means with unknown variance, 2024: the mixture over mean/spread of a normal prior with precision `_PRECISION`, and
    of the right Haar measure over the spread, solved for the mean.
    """
    n = values.size
    if n < 2:
        return None
    whole = n + _PRECISION
    bound = (whole / (_PRECISION * alpha * alpha)) ** (1 / n)
    if bound * _PRECISION >= whole:
        return None
    half = float(values.std()) * math.sqrt((bound - 1) * whole / (whole - bound * _PRECISION))
    mean = float(values.mean())
    return mean - half, mean + half


def fewest_bounded(*, alpha: float) -> int:
    """From how many observations on `t_sequence` is bounded.

    >>> fewest_bounded(alpha=0.05)
    6
    """
    n = 2
    while t_sequence(np.zeros(n), alpha=alpha) is None:
        n += 1
    return n


@dataclass(frozen=True)
class Moments:
    """What is known of a sample: its size, its mean and its variance (ddof 1).

    clusters: how many clusters of one size it comes to, where its observations are not independent but those of
    different clusters are; `n` is the number of clusters then, and `variance / n` the squared standard error of the
    mean. None: independent.
    """

    n: int = 0
    mean: float = 0.0
    variance: float = 0.0
    clusters: float | None = None


def moments(values: NDArray[np.float64]) -> Moments:
    """The moments of values, (n,), finite. One value has no variance: it is told as 0."""
    if not values.size:
        return Moments()
    return Moments(values.size, float(values.mean()), float(values.var(ddof=1)) if values.size > 1 else 0.0)


def clustered(values: NDArray[np.float64], cluster: NDArray[np.intp]) -> Moments:
    """The moments of values that come in clusters (all requests of one customer, say), within which they may be alike.

    values: (n,), finite. cluster: (n,) the cluster of each. The mean is over values. The squared standard error is
    that of a ratio of sums over clusters, K/(K - 1) sum((s_k - m n_k)^2) / n^2, with s_k, n_k the sum and the number
    of cluster k (Cochran: Sampling techniques, 1977, 6.4; the cluster-robust variance of a mean), and never less than
    that of independent values: a few clusters may be alike by chance. Clusters of unlike size come to fewer of one
    size: n^2 / sum(n_k^2) (Kish: Survey sampling, 1965).
    """
    if not values.size:
        return Moments(clusters=0)
    _, code = np.unique(cluster, return_inverse=True)
    size = int(code.max()) + 1
    counts = np.bincount(code, minlength=size)
    mean = float(values.mean())
    if size < 2:
        return Moments(size, mean, 0.0, 1)
    apart = np.bincount(code, weights=values, minlength=size) - mean * counts
    squared = size / (size - 1) * float(apart @ apart) / values.size**2
    independent = float(values.var(ddof=1)) / values.size
    return Moments(size, mean, max(squared, independent) * size, values.size**2 / float(counts @ counts))


@dataclass(frozen=True)
class Difference:
    """Treatment minus control, with an interval that holds at every look at once."""

    value: float
    low: float
    high: float


def difference_sequence(control: Moments, treatment: Moments, *, alpha: float, tuned_for: int) -> Difference:
    """The asymptotic confidence sequence of a difference of two means, of independent samples.

    As `asymptotic_sequence`, of all `n` observations of both, whose standard error is that of the difference.
    tuned_for: the number of observations, of both together, at which it is tightest.
    Raises TooFewObservations when a sample has fewer than two.
    """
    n, error = _standard_error(control, treatment)
    rho2 = _rho_squared(alpha, tuned_for)
    times = math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    half = error * _of_few(times, control, treatment)
    value = treatment.mean - control.mean
    return Difference(value, value - half, value + half)


def difference_bounds(control: Moments, treatment: Moments, *, alpha: float, tuned_for: int) -> Difference:
    """As `difference_sequence`, but each bound is one-sided, by itself wrong with probability `alpha` at most.

    For a question that has one direction: is the treatment worse? Narrower than the two-sided interval.
    Waudby-Smith et al. (as above), the one-sided sequence of its appendix:
    sqrt(2 (n rho^2 + 1) / (n^2 rho^2) log(1 + sqrt(n rho^2 + 1) / (2 alpha))).
    """
    n, error = _standard_error(control, treatment)
    rho2 = _rho_squared(2 * alpha, tuned_for)
    times = math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log1p(math.sqrt(n * rho2 + 1) / (2 * alpha)))
    half = error * _of_few(times, control, treatment)
    value = treatment.mean - control.mean
    return Difference(value, value - half, value + half)


def _standard_error(control: Moments, treatment: Moments) -> tuple[int, float]:
    for sample in (control, treatment):
        if sample.n < 2:
            raise TooFewObservations(f"{sample.n} observations have no spread.", expected="At least 2 are expected.")
    return control.n + treatment.n, math.sqrt(control.variance / control.n + treatment.variance / treatment.n)


def _of_few(times: float, control: Moments, treatment: Moments) -> float:
    """How many standard errors stand for `times` of a normal one, where the error itself comes from few clusters.

    The quantile of Student's t whose tail is that of `times`, with the degrees of freedom f of Welch and Satterthwaite,
    by the inverse of Wallace's approximation: z = (8 f + 1)/(8 f + 3) sqrt(f log(1 + t^2/f)).
    Wallace: Bounds on normal approximations to Student's and the chi-square distributions, 1959.
    """
    if control.clusters is None or treatment.clusters is None:
        return times
    both = (control, treatment)
    parts = [(one.variance / one.n, max(one.clusters - 1, 0.5)) for one in both if one.clusters is not None]
    whole = sum(part for part, _ in parts)
    if whole <= 0:
        return times
    free = whole**2 / sum(part**2 / degrees for part, degrees in parts)
    exponent = (times * (8 * free + 3) / (8 * free + 1)) ** 2 / free
    return math.sqrt(free * math.expm1(min(exponent, 700.0)))


def _rho_squared(alpha: float, tuned_for: int) -> float:
    """The mixture's parameter for which the sequence is (nearly) tightest after `tuned_for` observations."""
    two_logs = -2 * math.log(alpha)
    return (two_logs + math.log(two_logs + 1)) / tuned_for
