"""From which score on is the decision "positive", when mistakes have a price?

The price of each outcome is declared; the threshold is the one that would have cost least on predictions that each
training row got from a fit that had not seen it. The test part has no say, so its cost is an honest estimate.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.features.definitions import BadDefinition

HALF = 0.5
"""The threshold of a model that states no costs."""

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """What each kind of decision costs, in any one unit; a negative cost is a gain.

    A mistake must cost more than the right decision on the same row.
    """

    false_positive: float
    false_negative: float
    true_positive: float = 0.0
    true_negative: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise BadDefinition(f"a {name} costs {value!r}.", expected="A finite number is expected.")
        for wrong, right in (("false_positive", "true_negative"), ("false_negative", "true_positive")):
            if getattr(self, wrong) <= getattr(self, right):
                raise BadDefinition(
                    f"a {wrong} costs {getattr(self, wrong):g}, a {right} {getattr(self, right):g}.",
                    expected="A mistake costs more than the right decision on the same row.",
                )

    @property
    def implied(self) -> float:
        """The best threshold for probabilities that are exactly right (Elkan 2001, equation 2)."""
        alarm = self.false_positive - self.true_negative
        return alarm / (alarm + self.false_negative - self.true_positive)

    def mean(self, labels: Vector, scores: Vector, threshold: float) -> float:
        """The cost of a row on average, when `score >= threshold` decides. labels: (n,) 0 and 1, n >= 1."""
        decided = scores >= threshold
        right, missed = (self.true_positive, self.false_negative), (self.true_negative, self.false_positive)
        of_positive = np.where(decided, *right)
        of_negative = np.where(decided, missed[1], missed[0])
        return float(np.where(labels == 1, of_positive, of_negative).mean())

    def as_plain(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Threshold:
    """The operating threshold, and why.

    costs: None when none were stated; then it is 0.5. rows, cost, cost_at_half: of the predictions it was chosen on.
    """

    value: float = HALF
    costs: Costs | None = None
    rows: int = 0
    cost: float | None = None
    cost_at_half: float | None = None

    def as_plain(self, labels: Vector, scores: Vector) -> dict[str, Any]:
        """For a run's record, with the cost of the test part. labels, scores: of the test part."""
        plain: dict[str, Any] = {"value": self.value, "chosen_on": "nothing: no costs are stated"}
        if self.costs is None:
            return plain
        return plain | {
            "chosen_on": "out-of-fold predictions of the training part",
            "rows": self.rows,
            "costs": self.costs.as_plain(),
            "implied": self.costs.implied,
            "cost": self.cost,
            "cost_at_half": self.cost_at_half,
            "test_cost": self.costs.mean(labels, scores, self.value),
            "test_cost_at_half": self.costs.mean(labels, scores, HALF),
        }


def choose(labels: Vector, scores: Vector, costs: Costs) -> Threshold:
    """The threshold of least mean cost on these rows.

    labels: (n,) 0 and 1. scores: (n,) in [0, 1], from fits that had not seen the row; n >= 1.
    All thresholds between two neighbouring scores decide alike; of the cheapest such gaps the one nearest to
    `costs.implied` is taken, and in it `costs.implied` itself, or else the shortest decimal.
    """
    values, place = np.unique(scores, return_inverse=True)
    positives = np.bincount(place, weights=labels, minlength=values.size)
    negatives = np.bincount(place, weights=1 - labels, minlength=values.size)
    missed = np.concatenate([[0.0], np.cumsum(positives)])  # of gap g: the positives below it
    spared = np.concatenate([[0.0], np.cumsum(negatives)])
    alarms, hits = spared[-1] - spared, missed[-1] - missed
    cost = (
        missed * costs.false_negative
        + hits * costs.true_positive
        + alarms * costs.false_positive
        + spared * costs.true_negative
    )
    lows, highs = np.concatenate([[0.0], values]), np.concatenate([values, [1.0]])
    possible = lows < highs  # above a score of 1 there is no threshold
    possible[0] = True
    cost = np.where(possible, cost, np.inf)
    cheapest = np.flatnonzero(cost == cost.min())
    away = np.maximum(np.maximum(lows[cheapest] - costs.implied, costs.implied - highs[cheapest]), 0.0)
    gap = int(cheapest[np.argmin(away)])
    value = _within(float(lows[gap]), float(highs[gap]), costs.implied)
    return Threshold(
        value, costs, int(labels.size), costs.mean(labels, scores, value), costs.mean(labels, scores, HALF)
    )


def _within(low: float, high: float, wanted: float) -> float:
    """`wanted` when low < wanted <= high, else the decimal of fewest digits there."""
    if low < wanted <= high:
        return wanted
    middle = (low + high) / 2
    for digits in range(1, 17):
        rounded = round(middle, digits)
        if low < rounded <= high:
            return rounded
    return high
