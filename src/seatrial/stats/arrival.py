"""Arrival: what share of labels is known so long after the prediction, when some predictions are younger than that?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST_OF_OUTCOME = 30


@dataclass(frozen=True)
class ArrivalCurve:
    """A share that rises in steps. ages: ascending, in the unit of what was given; shares: known at that age; (k,)."""

    ages: NDArray[np.float64]
    shares: NDArray[np.float64]

    @property
    def final(self) -> float:
        """The share that comes at all, as far as anybody waited."""
        return float(self.shares[-1]) if self.shares.size else 0.0

    def at(self, ages: NDArray[np.float64]) -> NDArray[np.float64]:
        """The share known at each age; 0 before the first step."""
        place = np.searchsorted(self.ages, ages, side="right")
        return np.concatenate([[0.0], self.shares])[place]

    def age_of(self, share: float) -> float | None:
        """The age by which this share of all that ever come is there; None when none comes."""
        if not self.shares.size or self.final <= 0:
            return None
        return float(self.ages[int(np.searchsorted(self.shares, share * self.final - 1e-12))])


def arrival_curve(delays: NDArray[np.float64], waited: NDArray[np.float64]) -> ArrivalCurve:
    """One minus the product-limit estimate (Kaplan and Meier 1958): a prediction without a label says that none came
    for as long as it was waited for, and no more.

    delays: (n,) from prediction to label; NaN where there is none yet. waited: (n,) age of each prediction, >= its
    delay.
    """
    known = ~np.isnan(delays)
    ages, counts = np.unique(delays[known], return_counts=True)
    left = np.sort(np.where(known, delays, waited))
    at_risk = left.size - np.searchsorted(left, ages, side="left")
    shares = (1 - np.cumprod(1 - counts / at_risk)).astype(np.float64)
    return ArrivalCurve(ages, shares)


def slowest_age(
    curve: ArrivalCurve, delays: NDArray[np.float64], outcome: NDArray[np.int64] | None, share: float
) -> float | None:
    """The age by which this share of the labels that ever come is there, also of each outcome by itself: the rarest
    may be the slowest. None when none comes.

    curve: of all delays. outcome: (n,) of classes, which one each label says; None of numbers. One of fewer than
    `FEWEST_OF_OUTCOME` labels says nothing of its delay.
    """
    whole = curve.age_of(share)
    if whole is None or outcome is None:
        return whole
    ages = [whole]
    told = ~np.isnan(delays)
    for one in np.unique(outcome[told]):
        of_one = delays[told & (outcome == one)]
        if of_one.size >= FEWEST_OF_OUTCOME:
            ages.append(float(np.quantile(of_one, share, method="higher")))
    return max(ages)
