"""Student's t: how surprising is a mean of few observations, given its own spread?"""

from __future__ import annotations

import math
from statistics import NormalDist

TINY = 1e-300


def t_p_value(t: float, degrees: float) -> float:
    """P(|T| > |t|) of Student's t with `degrees` > 0, which need not be whole, in [0, 1]; NaN stays NaN.

    The regularised incomplete beta function I_x(degrees/2, 1/2) at x = degrees / (degrees + t^2) (Abramowitz and
    Stegun 26.7.1).

    >>> round(t_p_value(2.0, 10), 6)
    0.073388
    """
    if math.isnan(t) or math.isnan(degrees):
        return math.nan
    if math.isinf(t):
        return 0.0
    if math.isinf(degrees):
        return math.erfc(abs(t) / math.sqrt(2))
    if t * t < degrees:  # the other way round nothing is lost near 0
        return 1 - incomplete_beta(0.5, degrees / 2, t * t / (degrees + t * t))
    return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def t_quantile(level: float, degrees: float) -> float:
    """The t that |T| exceeds with probability 1 - `level`, to 12 digits. level: in [0, 1).

    Newton's method from the normal quantile, which lies below; there the tail is convex, so no step goes too far.
    """
    found = NormalDist().inv_cdf((1 + level) / 2)
    for _ in range(200):
        step = (t_p_value(found, degrees) - (1 - level)) / (2 * _density(found, degrees))
        found += step
        if abs(step) <= 1e-13 * found:
            break
    return found


def _density(t: float, degrees: float) -> float:
    if math.isinf(degrees):
        return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    front = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return math.exp(front - (degrees + 1) / 2 * math.log1p(t * t / degrees))


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (Numerical Recipes 6.4)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(
        a * math.log(x) + b * math.log1p(-x) - math.log(a) - math.lgamma(a) - math.lgamma(b) + math.lgamma(a + b)
    )
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or TINY)
    found = d
    for m in range(1, 10_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or TINY)
            c = 1 + term / c or TINY
            found *= c * d
        if abs(c * d - 1) < 1e-16:
            break
    return min(1.0, max(0.0, front * found))
