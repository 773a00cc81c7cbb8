"""Spans: which of the rows that ask can see an event?

The rows that ask are put in the order of (entity, instant). An event is seen from the first row at or after the moment
from which it counts to the last row before it stops counting, which is one span `[low, high)` of places in that
order. Whatever a feature says of the events that a row sees is then painted, span by span, on the places:

- a count or a sum adds at `low` and takes away at `high`, and one running sum gives every row's;
- the latest row is a running maximum, for it is never seen again by the rows after it that see a later one;
- the greatest value paints each span as two overlapping ones of a power of two, and pushes them down level by level
  (the sparse table of range-minimum queries, Bender and Farach-Colton 2000, turned around);
- different values are counted on the union of the spans of equal ones.

So nothing is compared pair by pair, and a row that becomes known late costs the same as one that does not. Everything
is integers: no order of the events and no number of threads can change a result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

LEAST = -(2**63)
_BATCH = 2**18
_HALF = 24  # bits: squares of values are summed in three parts, each of which fits


class Asked:
    """The rows that ask, in the order of (entity, instant): the places that events are painted on.

    entity: int64 [n], from 0 to entities - 1; -1 for a row whose entity no event can have.
    at_us: int64 [n].
    order: int64 [places]: the row at each place; rows without an entity have no place.
    """

    def __init__(self, entity: Int64, at_us: Int64, entities: int) -> None:
        rows = np.flatnonzero(entity >= 0)
        self._entities = entities
        at = at_us[rows]
        self.size = len(rows)
        self.first_us = int(at.min()) if len(at) else 0
        self.last_us = int(at.max()) if len(at) else 0
        self._moments: Int64 | None = None
        self._span = self.last_us - self.first_us + 2
        if entities * self._span >= 2**62:  # so few entities and so short a time that both fit into one integer: no
            self._moments = np.unique(at)
            self._span = len(self._moments) + 1
        places = self._place(entity[rows], at)
        order = np.argsort(places, kind="stable")
        self.order: Int64 = rows[order]
        self._places: Int64 = places[order]
        self.entity: Int64 = entity[self.order]

    def low(self, entity: Int64, from_us: Int64) -> Int64:
        """For each event the first place of its entity at or after a moment; the entity's end when there is none.

        entity: int64 [m]; `entities` for an event of none of them, which no place sees.
        """
        wanted = self._place(entity, from_us)
        found = np.empty(len(wanted), dtype=np.int64)
        for first in range(0, len(wanted), _BATCH):  # searched in order, for the sake of the processor's caches
            part = wanted[first : first + _BATCH]
            order = np.argsort(part)
            found[first + order] = np.searchsorted(self._places, part[order], "left")
        return found

    def _place(self, entity: Int64, us: Int64) -> Int64:
        if self._moments is not None:
            offset = np.searchsorted(self._moments, us, "left").astype(np.int64, copy=False)
        else:
            offset = np.clip(us, self.first_us, self.last_us + 1) - self.first_us
        return entity * self._span + offset


def latest(asked: Asked, low: Int64, entity: Int64, event_us: Int64, tied: Callable[[Int64], Int64]) -> Int64:
    """For each place the event that counts and comes last, by event time and then as `tied` says; -1 where none is.

    low: int64 [m], the first place that sees each event, see `Asked.low`. event_us: int64 [m].
    tied: called with the places in the m events of those whose event time decides nothing, gives an order of them:
    an array of their ranks, equal only for rows that say the same.
    """
    found = np.full(asked.size, -1, dtype=np.int64)
    if not len(low):
        return found
    times, span = event_us - event_us.min(), int(event_us.max() - event_us.min()) + 1
    if (int(entity.max()) + 1) * span >= 2**62:
        moments = np.unique(event_us)
        times, span = np.searchsorted(moments, event_us), len(moments)
    order = entity * span + times
    # an event that no place of its entity sees is painted behind them, where the next entity begins
    best = np.full(asked.size + 1, -1, dtype=np.int64)
    np.maximum.at(best, low, order)
    np.maximum.accumulate(best, out=best)
    mine = best[:-1] >= asked.entity * span  # else it is of an entity before this one
    candidates = np.flatnonzero(order == best[low])
    # places with one `best` see the same candidates, of which a tie leaves more than one
    step = np.concatenate([[0], np.cumsum(best[1:] != best[:-1])])
    group = step[low[candidates]]
    size = np.bincount(group, minlength=int(step[-1]) + 1)
    rank = (np.cumsum(size) - size)[group]
    several = np.flatnonzero(size[group] > 1)
    if len(several):
        ranks = tied(candidates[several])
        sequence = np.lexsort((ranks, group[several]))
        first = np.searchsorted(group[several][sequence], group[several], "left")
        position = np.empty(len(several), dtype=np.int64)
        position[sequence] = np.arange(len(several))
        rank[several] += position - first
    event = np.empty(len(candidates), dtype=np.int64)
    event[rank] = candidates
    winner = np.full(asked.size + 1, -1, dtype=np.int64)
    np.maximum.at(winner, low[candidates], rank)
    np.maximum.accumulate(winner, out=winner)
    found[mine] = event[winner[:-1][mine]]
    return found


def counts(size: int, low: Int64, high: Int64) -> Int64:
    """How many spans each place lies in."""
    change = np.bincount(low, minlength=size + 1) - np.bincount(high, minlength=size + 1)
    total: Int64 = np.cumsum(change)[:size]
    return total


def sums(size: int, low: Int64, high: Int64, values: Int64) -> Int64:
    """The sum, modulo 2**64, of the values of the spans that each place lies in: exact where it fits into 64 bits."""
    change = np.zeros(size + 1, dtype=np.int64)
    np.add.at(change, low, values)
    np.subtract.at(change, high, values)
    total: Int64 = np.cumsum(change)[:size]
    return total


def exact_sums(size: int, low: Int64, high: Int64, values: Int64) -> NDArray[Any]:
    """The sum as Python integers of any size, for values below 2**48 of at most 2**31 spans."""
    high_part = sums(size, low, high, values >> _HALF).astype(object)
    total: NDArray[Any] = (high_part << _HALF) + sums(size, low, high, values & (2**_HALF - 1)).astype(object)
    return total


def exact_squares(size: int, low: Int64, high: Int64, values: Int64) -> NDArray[Any]:
    """The sum of the squares as Python integers, for values below 2**48 in size."""
    upper, lower = values >> _HALF, values & (2**_HALF - 1)
    parts = (upper * upper, upper * lower, lower * lower)
    first, middle, last = (sums(size, low, high, part).astype(object) for part in parts)
    total: NDArray[Any] = (first << 2 * _HALF) + (middle << _HALF + 1) + last
    return total


def greatest(size: int, low: Int64, high: Int64, values: Int64) -> Int64:
    """The greatest value of the spans that each place lies in; LEAST where it lies in none. Spans are not empty."""
    painted = np.full(size, LEAST, dtype=np.int64)
    if not len(low):
        return painted
    level = np.frexp((high - low).astype(np.float64))[1] - 1  # the greatest power of two that fits: 2**level
    by_level = np.argsort(level, kind="stable")
    edges = np.searchsorted(level[by_level], np.arange(int(level.max()) + 2))
    for power in range(int(level.max()), -1, -1):
        length = 2**power
        mine = by_level[edges[power] : edges[power + 1]]
        np.maximum.at(painted, low[mine], values[mine])
        np.maximum.at(painted, high[mine] - length, values[mine])
        if power:
            half = length // 2
            pushed = painted.copy()
            np.maximum(pushed[half:], painted[: size - half], out=pushed[half:])
            painted = pushed
    return painted


def different(size: int, low: Int64, high: Int64, entity: Int64, values: Int64) -> Int64:
    """How many different values the spans have that each place lies in. Spans are not empty."""
    if not len(low):
        return np.zeros(size, dtype=np.int64)
    order = np.lexsort((low, values, entity))
    low, high, entity, values = low[order], high[order], entity[order], values[order]
    new = np.concatenate([[True], (entity[1:] != entity[:-1]) | (values[1:] != values[:-1])])
    group = np.cumsum(new) * (size + 1)
    reach = np.maximum.accumulate(group + high) - group  # how far the spans of this value so far reach
    opens = new.copy()
    opens[1:] |= low[1:] > reach[:-1]
    closes = np.concatenate([opens[1:], [True]])
    return counts(size, low[opens], reach[closes])
