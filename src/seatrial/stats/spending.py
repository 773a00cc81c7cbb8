"""Alpha spending: how large must a difference be at each of some planned looks, for the error to stay as stated?

The decision at the last look has nearly the power of a test with one look; early ones ask for overwhelming evidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError

_STEP = 0.05
"""Of the grid on which the density of the running statistic is carried on, of the spread between two looks."""
_REACH = 7.0
_NORMAL = NormalDist()


class BadLooks(UsageError):
    """Planned looks are fractions of the whole, rising to 1."""

    code = "stats.bad_looks"


def spent(alpha: float, fraction: float) -> float:
    """The one-sided error that may be spent by this fraction of the information, O'Brien and Fleming's shape.

    Lan and DeMets, Discrete sequential boundaries for clinical trials, 1983: 2 - 2 Phi(z_{alpha/2} / sqrt(fraction)).
    """
    return 2 * _upper(-_NORMAL.inv_cdf(alpha / 2) / math.sqrt(fraction))


def boundaries(fractions: Sequence[float], *, alpha: float) -> NDArray[np.float64]:
    """The bound of the z statistic at each look: crossing one of them is significant, one-sided, at `alpha`.

    fractions: of the planned information at each look, (k,), rising, the last is 1. For a two-sided test give half of
    its alpha. Armitage, McPherson, Rowe: Repeated significance tests on accumulating data, 1969: the density of the
    statistic among the trials that go on is carried from look to look by numerical integration.
    Raises BadLooks.
    """
    looks = np.asarray(fractions, dtype=np.float64)
    if not looks.size or looks[0] <= 0 or np.any(np.diff(looks) <= 0) or not np.isclose(looks[-1], 1):
        raise BadLooks(
            f"the looks are at {list(fractions)}.", expected="Fractions above 0 that rise to 1 are expected."
        )
    bounds: NDArray[np.float64] = np.empty(looks.size)
    step = _STEP * math.sqrt(min(np.diff(looks, prepend=0.0)))
    grid: NDArray[np.float64] = np.zeros(1)
    mass: NDArray[np.float64] = np.ones(1)  # of the Brownian motion at the look before, which is z * sqrt(fraction)
    seen = already = 0.0
    for index, fraction in enumerate(looks):
        spread, now = math.sqrt(fraction - seen), spent(alpha, fraction)
        end = _crossed_with(now - already, grid, mass, spread)
        bounds[index] = end / math.sqrt(fraction)
        points = math.ceil((end + _REACH * math.sqrt(fraction)) / step)
        new = np.asarray(end - step * np.arange(points)[::-1], dtype=np.float64)
        density = np.exp(-0.5 * ((new[:, None] - grid) / spread) ** 2) @ mass / (spread * math.sqrt(2 * math.pi))
        density[[0, -1]] /= 2
        grid, mass, seen, already = new, np.asarray(density * step, dtype=np.float64), fraction, now
    return bounds


def _crossed_with(error: float, grid: NDArray[np.float64], mass: NDArray[np.float64], spread: float) -> float:
    """Where the next look's bound must lie so that it is crossed with this probability, by bisection."""
    low, high = -_REACH, 3 * _REACH
    while high - low > 1e-10:
        middle = (low + high) / 2
        crossed = mass @ np.array([_upper(z) for z in (middle - grid) / spread])
        low, high = (middle, high) if crossed > error else (low, middle)
    return (low + high) / 2


def _upper(z: float) -> float:
    """The probability that a standard normal lies above z."""
    return math.erfc(z / math.sqrt(2)) / 2
