"""Shift: do the inputs of one sample come from where those of another came from, and what weights make them alike?

Numbers are binned at quantiles of both samples, categories keep their most frequent values, missing is a bin of its
own, and the score is an input too.

The density ratio is taken as even within a bin: rows weighted by wide bins stay too much like those of before, by
narrow ones with few rows they are weighted by chance. So the number of bins grows with the rows (Geman and Hwang 1982,
"Nonparametric maximum likelihood estimation by the method of sieves").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.rows.reference import floats, is_text, plain
from seatrial.monitoring.rows.sample import FEATURE
from seatrial.stats.domain import Codes, Domain, domain

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.monitoring.rows.sample import Sample

BINS = (10, 40)
"""The fewest and the most bins of a number; the score has at least twice the fewest."""
ROWS_A_BIN = 125
"""Of the smaller sample. Of the 60 on which each of two fits rests the log odds are known to about 0.13."""
MOST_VALUES = 30
TOLD_APART = 0.55
"""Area under the domain classifier's curve from which on inputs count as shifted; 0.5 is a coin."""
MOST_COLUMNS = 100


def shift(before: Sample, now: Sample, *, seed: int = 0) -> Domain | None:
    """The domain classifier of both samples' inputs and scores; None when they share no input, or one is too small.

    Its weights are those of `before`.
    """
    names = [name for name in before.features if name in now.features][:MOST_COLUMNS]
    if not names or before.rows.num_rows < 2 or now.rows.num_rows < 2:
        return None
    first, second, widths = coded(before, now, names)
    return domain(first, second, widths, seed=seed)


def coded(before: Sample, now: Sample, names: list[str]) -> tuple[Codes, Codes, NDArray[np.int64]]:
    """Both samples' inputs, and their scores, as codes: (n, k + 1), (m, k + 1), and how many codes each column has."""
    firsts, seconds, widths = [], [], []
    for name in names:
        one, other, width = pair(before.rows[FEATURE + name], now.rows[FEATURE + name])
        firsts.append(one)
        seconds.append(other)
        widths.append(width)
    one, other, width = _numbers(before.scores(), now.scores(), 2 * BINS[0])
    return (
        np.column_stack([*firsts, one]),
        np.column_stack([*seconds, other]),
        np.array([*widths, width], dtype=np.int64),
    )


def pair(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[Codes, Codes, int]:
    """One input of both samples as codes; one that is text in one and numbers in the other is text in both."""
    first, second = plain(first), plain(second)
    if is_text(first) or is_text(second):
        return _texts(first, second)
    return _numbers(floats(first), floats(second), BINS[0])


def _numbers(first: NDArray[np.float64], second: NDArray[np.float64], least: int) -> tuple[Codes, Codes, int]:
    bins = min(max(min(first.size, second.size) // ROWS_A_BIN, least), BINS[1])
    present = [values[np.isfinite(values)] for values in (first, second)]
    edges = np.empty(0)
    if sum(values.size for values in present):
        steps = np.linspace(0, 1, bins + 1)[1:-1]
        found = [np.quantile(values, steps) for values in present if values.size]
        edges = np.unique(np.mean(found, axis=0) if len(found) == 2 else found[0])
        whole = np.unique(np.concatenate([values[: 10 * bins] for values in present]))
        if whole.size <= bins:  # few values: each may be one of its own
            several = np.unique(np.concatenate(present))
            edges = several[1:] if several.size <= bins else edges
    width = edges.size + 2
    codes = [
        np.where(np.isnan(values), width - 1, np.searchsorted(edges, values, side="right")).astype(np.int32)
        for values in (first, second)
    ]
    return codes[0], codes[1], width


def _texts(first: pa.ChunkedArray, second: pa.ChunkedArray) -> tuple[Codes, Codes, int]:
    codes, kept = text_codes(first, second, MOST_VALUES)
    return codes[0], codes[1], len(kept) + 2


def text_codes(first: pa.ChunkedArray, second: pa.ChunkedArray, most: int) -> tuple[list[Codes], list[str]]:
    """The place of each value among the `most` most frequent of both columns, then one for all others, then one for
    missing; and these values."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = [column.cast(pa.string()) for column in (first, second)]
    counted: dict[str, int] = {}
    for column in columns:
        for one in pc.value_counts(column).to_pylist():
            if one["values"] is not None:
                counted[one["values"]] = counted.get(one["values"], 0) + one["counts"]
    kept = sorted(counted, key=lambda value: (-counted[value], value))[:most]
    codes = []
    for column in columns:
        place = pc.index_in(column, value_set=pa.array(kept, pa.string()))
        place = pc.if_else(pc.is_null(column), len(kept) + 1, pc.fill_null(place, len(kept)))
        codes.append(place.cast(pa.int32()).to_numpy(zero_copy_only=False))
    return codes, kept
