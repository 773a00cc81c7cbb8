"""The expected loss: how wrong is an answer likely to be, by its score alone?

Scores of labelled predictions of before are calibrated (isotonic regression, as `looks.estimate` does), and a
calibrated score says what loss to expect: many unsure answers are many errors. It rests on the same inputs being
answered as before, so of a world that answers differently it sees nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.rows.baseline import FEWEST, Baseline, labelled
from seatrial.stats.isotonic import Isotonic, isotonic

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExpectedLoss:
    """several: of several classes the share of wrong answers, else Brier's score. usual, spread: mean and standard
    deviation of before."""

    calibrated: Isotonic
    several: bool
    usual: float
    spread: float

    def of(self, scores: Floats) -> Floats:
        """(n,) what to expect of each score; NaN where there is none."""
        right = self.calibrated(scores)
        found: Floats = 1 - right if self.several else right * (1 - scores) ** 2 + (1 - right) * scores**2
        return found


def expected_loss(base: Baseline | None) -> ExpectedLoss | None:
    """What these labelled predictions say; None of a regression, of decisions without a probability, or of too few."""
    if base is None or base.sample.task == "regression" or base.sample.decided_only:
        return None
    before = labelled(base.sample)
    scores, labels = before.scores(), before.label_values()
    known = (scores >= 0) & (scores <= 1)
    if known.sum() < FEWEST or not known.all():
        return None
    found = ExpectedLoss(isotonic(scores, labels), before.task == "multiclass", 0.0, 0.0)
    losses = found.of(scores)
    usual = float(losses.mean())
    return replace(found, usual=usual, spread=float(losses.std())) if usual > 0 else None


def scores_of(sample: Sample) -> Floats:
    """(n,) scores that are probabilities, NaN for all others."""
    scores = sample.scores()
    with np.errstate(invalid="ignore"):
        return np.where((scores >= 0) & (scores <= 1), scores, np.nan)
