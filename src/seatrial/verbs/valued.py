"""Valued: what a metric of the business says of the requests that a rollout's arms answered.

One request (or one key, where that is how the metric names them) is one observation, also when it asked for several
rows. One that both arms answered belongs to neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from seatrial.core.errors import SeatrialError
from seatrial.deployment.analysis import NOTHING, Valued, Values
from seatrial.deployment.definition import Metric
from seatrial.monitoring.rows.numbers import KEY, numbers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.data.sources import Source


def valued(
    metric: Metric,
    read: Callable[[Source], pa.Table],
    answers: pa.Table,
    arms: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    keys: Callable[[], pa.Array],
    key: list[str],
    *,
    now_us: int,
) -> Valued:
    """The metric's value of each request of both arms.

    read: the rows of a source. answers: the log's rows of the step, with at, prediction_id and request_id. arms: (n,)
    which of them the live and the new release gave. keys: (n,) the model's key of each, called when the metric names
    its rows by it. A metric that cannot be read is told of, not raised: guardrails do not wait for it.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        kept = numbers(metric, read(metric.source), key, known_us=now_us)
        if isinstance(kept, str):
            return _nothing(kept)
        asked = keys() if kept.by == KEY else answers[kept.by].combine_chunks()
    except SeatrialError as error:
        return _nothing(error.found)
    of_arms = arms[0] | arms[1]
    codes = pc.dictionary_encode(asked, null_encoding="encode").indices.to_numpy(zero_copy_only=False)
    nameless = asked.is_null().to_numpy(zero_copy_only=False)
    codes = np.where(nameless, codes.max(initial=-1) + 1 + np.arange(codes.size), codes)  # each is one of its own
    of_live, of_new = (np.unique(codes[arm]) for arm in arms)
    both = np.isin(codes, np.intersect1d(of_live, of_new))
    place = pc.index_in(asked, value_set=kept.ids, skip_nulls=True).to_numpy(zero_copy_only=False)
    found = np.isfinite(place)
    of_row = np.full(codes.size, np.nan)
    of_row[found] = kept.values[place[found].astype(np.int64)]
    at_us = answers["at"].cast(pa.int64()).to_numpy()
    sides = []
    for arm in arms:
        counted = arm & ~both & _first_of(codes, arm)
        sides.append(Values(at_us[counted], of_row[counted]))
    used = np.unique(place[found & of_arms])
    return Valued(sides[0], sides[1], mixed=int(np.unique(codes[both & of_arms]).size), stray=len(kept.ids) - used.size)


def _first_of(codes: NDArray[np.int64], arm: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) which rows are the first of their request among those of the arm, and so stand for it."""
    import numpy as np

    rows = np.flatnonzero(arm)
    first = np.zeros(codes.size, dtype=bool)
    first[rows[np.unique(codes[rows], return_index=True)[1]]] = True
    return first


def _nothing(problem: str) -> Valued:
    return Valued(NOTHING, NOTHING, problem=problem)
