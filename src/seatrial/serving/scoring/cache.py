"""Scores that are kept: the same inputs of the same release are not scored twice.

The cache stands between look-up and model. Its key is what the model is given, bit for bit, after features were looked
up and functions computed, and each release of a deployment has its own: a feature that changed is another key, and so
is a new release. All else happens as without it: a new prediction_id, a row in the log, every count.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import NamedRows
from seatrial.serving.meters.metrics import Number

Scores = NDArray[np.floating[Any]]


class ScoreCache:
    """The scores of one release, called in its place. What was used least recently goes first.

    size: the most scores that are kept. hits, misses: requests of one row; of several rows nothing is kept, since a
    model's last bits may depend on how many it is asked at once. told: counts them also where they outlive this cache.
    """

    def __init__(self, score: Callable[[Any], Scores], size: int, told: tuple[Number, Number] | None = None) -> None:
        self.hits = self.misses = 0
        self._told_hits, self._told_misses = told or (Number(), Number())
        self._score = score
        self._size = size
        self._kept: OrderedDict[Any, Scores] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kept(self) -> int:
        """How many scores are kept now."""
        return len(self._kept)

    def __call__(self, rows: Any) -> Scores:
        if len(rows) != 1:
            return self._score(rows)
        key = _key(rows)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self.hits += 1
                self._told_hits.value += 1
                return found
            self.misses += 1
            self._told_misses.value += 1
        scores = self._score(rows)
        with self._lock:
            self._kept[key] = scores
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return scores


def _key(rows: Any) -> Any:
    if isinstance(rows, NamedRows):
        return tuple([one[0] if one.dtype == object else one.tobytes() for one in rows.columns.values()])
    return rows.tobytes()
