"""Confidence that survives looking: intervals that hold at every look at once, however often one looks.

Nothing here knows of models or days; whoever calls says what one observation is, and observations must be
independent of each other (for traffic that shares a day, one day is one observation).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError


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


def _rho_squared(alpha: float, tuned_for: int) -> float:
    """The mixture's parameter for which the sequence is (nearly) tightest after `tuned_for` observations."""
    two_logs = -2 * math.log(alpha)
    return (two_logs + math.log(two_logs + 1)) / tuned_for
