"""Detectors: has a series of windows changed, when one looks at every window and at many series?

One window's p-value controls one window. Over a month of hourly windows and fifty features false alarms come from
the number of looks, so the error has to be spread over features (Benjamini-Hochberg) and over time (CUSUM).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def benjamini_hochberg(p_values: NDArray[np.float64], q: float) -> NDArray[np.bool_]:
    """Which hypotheses are rejected so that the expected share of false rejections is at most `q`.

    p_values: (n,) in [0, 1]; a NaN is never rejected, and is not counted. Benjamini and Hochberg 1995.
    """
    known = np.flatnonzero(~np.isnan(p_values))
    rejected = np.zeros(p_values.size, dtype=bool)
    if not known.size:
        return rejected
    order = known[np.argsort(p_values[known], kind="stable")]
    below = p_values[order] <= q * np.arange(1, order.size + 1) / order.size
    if below.any():
        rejected[order[: int(np.flatnonzero(below).max()) + 1]] = True
    return rejected


class Cusum:
    """Page's two-sided cumulative sum over standardised window means, with a tolerance.

    tolerance: shift of the mean, in standard deviations of one row, that counts as nothing; without it a long series
        finds the sampling error of the reference itself. k: allowance, h: decision level, both in standard errors.
    """

    def __init__(self, *, tolerance: float = 0.05, k: float = 0.5, h: float = 12.0) -> None:
        self.tolerance, self.k, self.h = tolerance, k, h
        self.up = self.down = 0.0

    def add(self, shift: float, standard_error: float) -> bool:
        """One window: its mean minus the reference's, and its standard error, in standard deviations of one row.

        Returns whether the sum is beyond `h` after it. A window without rows (NaN) changes nothing.
        """
        if np.isnan(shift) or not standard_error > 0:
            return self.alarmed
        self.up = max(0.0, self.up + (shift - self.tolerance) / standard_error - self.k)
        self.down = max(0.0, self.down + (-shift - self.tolerance) / standard_error - self.k)
        return self.alarmed

    @property
    def alarmed(self) -> bool:
        return max(self.up, self.down) > self.h
