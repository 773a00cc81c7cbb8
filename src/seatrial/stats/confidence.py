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


@dataclass(frozen=True)
class Moments:
    """What is known of a sample: its size, its mean and its variance (ddof 1)."""

    n: int = 0
    mean: float = 0.0
    variance: float = 0.0


def moments(values: NDArray[np.float64]) -> Moments:
    """The moments of values, (n,), finite. One value has no variance: it is told as 0."""
    if not values.size:
        return Moments()
    return Moments(values.size, float(values.mean()), float(values.var(ddof=1)) if values.size > 1 else 0.0)


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
    half = error * math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
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
    half = error * math.sqrt(2 * (n * rho2 + 1) / (n * rho2) * math.log1p(math.sqrt(n * rho2 + 1) / (2 * alpha)))
    value = treatment.mean - control.mean
    return Difference(value, value - half, value + half)


def _standard_error(control: Moments, treatment: Moments) -> tuple[int, float]:
    for sample in (control, treatment):
        if sample.n < 2:
            raise TooFewObservations(f"{sample.n} observations have no spread.", expected="At least 2 are expected.")
    return control.n + treatment.n, math.sqrt(control.variance / control.n + treatment.variance / treatment.n)


def _rho_squared(alpha: float, tuned_for: int) -> float:
    """The mixture's parameter for which the sequence is (nearly) tightest after `tuned_for` observations."""
    two_logs = -2 * math.log(alpha)
    return (two_logs + math.log(two_logs + 1)) / tuned_for
