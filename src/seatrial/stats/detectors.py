"""Detectors: which of many series have changed, when one looks at all of them at once?

One p-value controls one look. Over a month of hourly windows and fifty features false alarms come from the number of
looks, so the error has to be spread over the features.
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
