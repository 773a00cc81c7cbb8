"""CUSUM: has the level of a series moved for good, by how little ever?

Each observation adds what it lies beyond an allowance, and the sum never falls below zero: what is small and stays adds
up, what is chance does not. Page 1954.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIEGMUND = 1.166
"""What a discrete walk overshoots a boundary by, on average: Siegmund 1985."""


def cusum(
    steps: Floats,
    start: Floats,
    *,
    allowance: float,
    most: float | Floats = math.inf,
    forget: NDArray[np.bool_] | None = None,
) -> Floats:
    """(w, s) sums `S = min(most, max(0, S + step - allowance))` after each of w observations of s series.

    steps: (w, s) standardised observations, upward being what is looked for; NaN is no observation, the sum stays.
    start: (s,) sums before the first. most: one for all, or (s,); a sum that has reached it grows no further, so that
        it is down again soon after whatever raised it is over.
    forget: (w, s) before which observations the sum begins anew.

    >>> cusum(np.array([[1.0], [2.0], [-1.0]]), np.zeros(1), allowance=0.5).ravel().tolist()
    [0.5, 2.0, 0.5]
    """
    found = np.empty_like(steps)
    now = start
    for place, step in enumerate(steps):
        now = now if forget is None else np.where(forget[place], 0.0, now)
        now = np.where(np.isnan(step), now, np.minimum(most, np.maximum(0.0, now + step - allowance)))
        found[place] = now
    return found


def average_run_length(threshold: float, *, allowance: float = 0.5, shift: float = 0.0) -> float:
    """Observations until a one-sided sum passes `threshold`, on average, of normal observations of variance 1.

    Siegmund's approximation (1985): with b = threshold + 1.166 and d = shift - allowance,
    (exp(-2 d b) + 2 d b - 1) / (2 d^2). Of two sides the rates add up: 1 / ARL = 1 / ARL_up + 1 / ARL_down.
    """
    reach, drift = threshold + SIEGMUND, shift - allowance
    if drift == 0:
        return reach**2
    if -2 * drift * reach > 700:
        return math.inf
    return (math.exp(-2 * drift * reach) + 2 * drift * reach - 1) / (2 * drift**2)
