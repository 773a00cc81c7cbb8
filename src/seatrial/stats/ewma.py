"""Exponentially weighted moving averages: the level of a series over its last observations. Roberts 1959."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def weight(span: float) -> float:
    """The weight of the newest observation with which the average is as old as the mean of the last `span` ones.

    >>> weight(24)
    0.08
    """
    return 2 / (span + 1)


def ewma(values: Floats, start: Floats, newest: float, *, forget: NDArray[np.bool_] | None = None) -> Floats:
    """(w, s) averages after each of w observations of s series. newest: in (0, 1], the weight of each observation.

    values: (w, s); NaN is no observation, the average stays. start: (s,) averages before the first. forget: (w, s)
    before which observations the average begins anew, at zero.
    """
    found = np.empty_like(values)
    now = start
    for place, value in enumerate(values):
        now = now if forget is None else np.where(forget[place], 0.0, now)
        now = np.where(np.isnan(value), now, (1 - newest) * now + newest * value)
        found[place] = now
    return found
