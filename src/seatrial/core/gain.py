"""A gain as it is told: by how much is one release better or worse than another, and between what bounds?"""

from __future__ import annotations


def by_how_much(gain: float, low: float | None, high: float | None) -> tuple[bool, float, float | None, float | None]:
    """Whether it is a loss, and then how much of one with its own bounds: "higher by 0.04", never "lower by -0.04".

    low, high: bounds of the gain, None where it is not bounded yet.

    >>> by_how_much(-0.04, -0.07, 0.01)
    (True, 0.04, -0.01, 0.07)
    >>> by_how_much(0.04, -0.01, 0.07)
    (False, 0.04, -0.01, 0.07)
    """
    if gain >= 0:
        return False, gain, low, high
    return True, -gain, None if high is None else 0.0 - high, None if low is None else 0.0 - low
