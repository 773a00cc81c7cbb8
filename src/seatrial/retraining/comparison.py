"""Is the challenger better than the champion, on rows that neither was trained on?

Both score every row (predictions do not change what happens, so nobody needs to be split off). Rows of one day
share their weather and their staffing: on real flights the variance of a day's mean is 25 times what independent
rows would have, and a sequence that looks row by row calls a winner nearly always. So one day is one observation,
and the verdict is an anytime-valid confidence sequence of the daily mean gain: looking every week costs nothing.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.signature import Task
from seatrial.stats.confidence import asymptotic_sequence
from seatrial.stats.metrics import losses, measure

DAY_US = 86_400_000_000
ALPHA = 0.05
TUNED_FOR = 60
"""The number of days at which the confidence sequence is tightest."""
MIN_ROWS = 30
"""Labelled rows without which a day does not count."""

Verdict = Literal["better", "worse", "inconclusive", "too early"]


class DayGain(msgspec.Struct, frozen=True):
    """One day (24 hours from the comparison's start). gain: champion's mean loss minus challenger's."""

    start: str
    rows: int
    gain: float


class Comparison(msgspec.Struct, frozen=True):
    """Challenger against champion up to `as_of`.

    loss: "log_loss" for binary, "squared_error" for regression. champion_metrics, challenger_metrics: over all rows.
    gain, low, high: the mean over days, and its 95 % confidence sequence; None with fewer than two days.
    final: the time to judge is over; an inconclusive verdict then stays.
    """

    model: str
    champion: str
    challenger: str
    start: str
    as_of: str
    rows: int
    loss: str
    days: list[DayGain]
    better_days: int
    gain: float | None
    low: float | None
    high: float | None
    champion_metrics: dict[str, float | None]
    challenger_metrics: dict[str, float | None]
    verdict: Verdict
    final: bool

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        if self.gain is None or self.low is None or self.high is None:
            return f"{self.verdict}: whole days with labels so far: {len(self.days)}"
        return (
            f"{self.verdict}: {self.loss} lower by {self.gain:.4f} a day on average "
            f"(95 % between {self.low:.4f} and {self.high:.4f}), better on {self.better_days} of {len(self.days)} days"
        )


def compare(
    *,
    model: str,
    task: Task,
    champion: str,
    challenger: str,
    at_us: NDArray[np.int64],
    labels: NDArray[np.float64],
    champion_scores: NDArray[np.float64],
    challenger_scores: NDArray[np.float64],
    start_us: int,
    as_of_us: int,
    min_days: int,
    judge_for_us: int,
) -> Comparison:
    """Judge the rows of [start, as_of).

    at_us: (n,) instants of the predictions. labels: (n,), NaN where not known at `as_of`.
    champion_scores, challenger_scores: (n,), or (n, C) of the same classes, for the same rows; rows that either could
        not score do not count.
    Only whole days before `as_of` count, and of those the ones with 30 labelled rows or more.
    """
    until = min(as_of_us, start_us + judge_for_us)
    usable = ~np.isnan(labels)
    for scores in (champion_scores, challenger_scores):
        usable &= ~np.isnan(scores if scores.ndim == 1 else scores.sum(axis=1))
    usable &= (at_us >= start_us) & (at_us < until)
    day = (at_us - start_us) // DAY_US
    whole = (until - start_us) // DAY_US
    usable &= day < whole
    gains = losses(task, labels, champion_scores) - losses(task, labels, challenger_scores)
    days = []
    for number in range(int(whole)):
        of_day = usable & (day == number)
        if of_day.sum() >= MIN_ROWS:
            start = iso(from_us(start_us + number * DAY_US))
            days.append(DayGain(start, int(of_day.sum()), float(gains[of_day].mean())))
    values = np.array([one.gain for one in days])
    gain = low = high = None
    if values.size >= 2:
        gain = float(values.mean())
        low, high = asymptotic_sequence(values, alpha=ALPHA, tuned_for=TUNED_FOR)
    return Comparison(
        model=model,
        champion=champion,
        challenger=challenger,
        start=iso(from_us(start_us)),
        as_of=iso(from_us(as_of_us)),
        rows=int(usable.sum()),
        loss="squared_error" if task == "regression" else "log_loss",
        days=days,
        better_days=int((values > 0).sum()),
        gain=gain,
        low=low,
        high=high,
        champion_metrics=measure(task, labels[usable], champion_scores[usable]) if usable.any() else {},
        challenger_metrics=measure(task, labels[usable], challenger_scores[usable]) if usable.any() else {},
        verdict=_verdict(len(days), low, high, min_days),
        final=as_of_us >= start_us + judge_for_us,
    )


def _verdict(days: int, low: float | None, high: float | None, min_days: int) -> Verdict:
    if days < min_days or low is None or high is None:
        return "too early"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "inconclusive"
