"""The season of a week: what is usual at this hour of this day, and how far from it do windows lie by themselves?

The mean of each hour of the week is taken from few weeks, so it is drawn towards what hour and day say apart (the
additive fit) by as much as the weeks disagree among themselves. How far windows lie from what is usual is measured on
weeks that were left out, because that is how far new ones will lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from seatrial.core.windows import DAY_US

Floats = NDArray[np.float64]
WEEK_US = 7 * DAY_US
MONDAY_US = 4 * DAY_US
"""The first Monday after 1970-01-01, a Thursday."""


@dataclass(frozen=True)
class Season:
    """usual: (k, s) of the k windows of a week, from Monday 0:00 UTC on, for s series."""

    every_us: int
    usual: Floats

    def at(self, starts: NDArray[np.int64]) -> Floats:
        """(w, s) what is usual in the windows that begin at these instants."""
        found: Floats = self.usual[slots(starts, self.every_us)]
        return found


def slots(starts: NDArray[np.int64], every_us: int) -> NDArray[np.int64]:
    """(w,) which window of its week each one is."""
    found: NDArray[np.int64] = ((starts - MONDAY_US) % WEEK_US) // every_us
    return found


def learn(values: Floats, starts: NDArray[np.int64], every_us: int) -> Season:
    """The season of (w, s) values; NaN is no observation. A window without any, in any week, is usual by the additive
    fit; a series without any is NaN. `every_us` divides a day."""
    a_day = DAY_US // every_us
    slot = slots(starts, every_us)
    hour, day = slot % a_day, slot // a_day
    known = ~np.isnan(values)
    plain = np.where(known, values, 0.0)
    whole = _mean(plain.sum(axis=0), known.sum(axis=0))
    of_hour, of_day = np.zeros((a_day, values.shape[1])), np.zeros((7, values.shape[1]))
    for _ in range(20):  # alternating means: exact at once where every hour of every day is there
        of_hour = np.nan_to_num(_by(values - whole - of_day[day], hour, a_day))
        of_day = np.nan_to_num(_by(values - whole - of_hour[hour], day, 7))
    additive = whole + np.tile(of_hour, (7, 1)) + np.repeat(of_day, a_day, axis=0)
    rest = values - additive[slot]
    count = _count(known, slot, 7 * a_day)
    cells = np.nan_to_num(_by(rest, slot, 7 * a_day))
    within = np.where(known, rest - cells[slot], 0.0)
    free = np.maximum(known.sum(axis=0) - (count > 0).sum(axis=0), 1)
    noise = (within**2).sum(axis=0) / free
    seen = np.maximum((count > 0).sum(axis=0), 1)
    expected = (np.where(count > 0, 1 / np.maximum(count, 1), 0.0)).sum(axis=0) / seen * noise
    true = np.maximum((cells**2).sum(axis=0) / seen - expected, 0.0)
    with np.errstate(invalid="ignore"):
        trust = np.where(true > 0, count * true / (count * true + noise), 0.0)
    return Season(every_us, additive + np.nan_to_num(trust) * cells)


def left_out(values: Floats, starts: NDArray[np.int64], every_us: int) -> Floats:
    """(w, s) how far each window lies from the season that the other weeks show. Needs two weeks or more."""
    week = (starts - starts.min()) // WEEK_US
    found = np.full(values.shape, np.nan)
    for number in np.unique(week):
        others = week != number
        season = learn(values[others], starts[others], every_us)
        found[~others] = values[~others] - season.at(starts[~others])
    return found


def _mean(total: Floats, count: NDArray[np.int64]) -> Floats:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _count(known: NDArray[np.bool_], group: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    found = np.zeros((groups, known.shape[1]), dtype=np.int64)
    np.add.at(found, group, known)
    return found


def _by(values: Floats, group: NDArray[np.int64], groups: int) -> Floats:
    """(groups, s) means of (w, s) values by group."""
    known = ~np.isnan(values)
    total = np.zeros((groups, values.shape[1]))
    np.add.at(total, group, np.where(known, values, 0.0))
    return _mean(total, _count(known, group, groups))
