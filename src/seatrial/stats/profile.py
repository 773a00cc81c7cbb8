"""Profiles: a column of values as a few kilobytes of counts, from which distances can be computed later.

Numbers are counted in bins of equal mass, strings by value. A value that many rows share gets a bin of its own, so
that a change within ties (zeros above all) is not hidden in a bin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.stats.distances import kolmogorov_smirnov, total_variation

FORMAT = 1
MOST_VALUES = 200
QUANTILES = 100
WEEK_US = 7 * 86_400_000_000
FEWEST_WEEKS = 4
FEWEST_IN_WEEK = 200


def numeric_profile(values: NDArray[np.float64]) -> dict[str, Any]:
    """Counts, moments, and the edges of about 100 bins of equal mass with the rows in each.

    values: (n,) with NaN for missing. edges: the distinct quantiles, ascending, and right behind a value that holds
    several of them the next number; counts: rows between neighbours, the last bin closed on both sides.
    """
    present = values[~np.isnan(values)]
    plain: dict[str, Any] = {"type": "numeric", "count": int(values.size), "missing": int(values.size - present.size)}
    if not present.size:
        return plain | {"mean": None, "std": None, "min": None, "max": None, "edges": [], "counts": []}
    edges, often = np.unique(np.quantile(present, np.linspace(0, 1, QUANTILES + 1)), return_counts=True)
    edges = np.unique(np.concatenate([edges, np.nextafter(edges[often > 1], np.inf)]))
    counts = bin_counts(present, edges[1:-1])
    return plain | {
        "mean": float(present.mean()),
        "std": float(present.std()),
        "min": float(present.min()),
        "max": float(present.max()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def category_profile(values: NDArray[Any]) -> dict[str, Any]:
    """The counts of the 200 most frequent values, the rest as one number. values: (n,) str or None."""
    found = Counter(value for value in values if value is not None)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "type": "category",
        "count": int(values.size),
        "missing": int(values.size - found.total()),
        "distinct": len(ranked),
        "values": dict(ranked[:MOST_VALUES]),
        "other": sum(count for _, count in ranked[MOST_VALUES:]),
    }


def weekly_distances(profile: Mapping[str, Any], values: NDArray[Any], at_us: NDArray[np.int64]) -> list[float]:
    """How far each whole week of the rows lies from all of them: what an ordinary week looks like from outside.

    profile: of `values`; at_us: (n,) instants, the weeks begin at the first. Kolmogorov-Smirnov for numbers, total
    variation for categories. Empty with fewer than four weeks of 200 present values each.
    """
    if not values.size:
        return []
    week = (at_us - at_us.min()) // WEEK_US
    present = values != None if values.dtype == object else ~np.isnan(values)  # noqa: E711  elementwise
    distances = []
    for number in range(int((at_us.max() - at_us.min()) // WEEK_US)):
        of_week = values[(week == number) & present]
        if of_week.size < FEWEST_IN_WEEK:
            continue
        if values.dtype == object:
            counts, _ = value_counts(of_week, profile["values"])
            whole = np.array([*profile["values"].values(), profile["other"]])
            distances.append(total_variation(whole, counts))
        else:
            cuts = np.asarray(profile["edges"][1:-1], dtype=np.float64)
            distances.append(kolmogorov_smirnov(np.asarray(profile["counts"]), bin_counts(of_week, cuts)))
    return distances if len(distances) >= FEWEST_WEEKS else []


def bin_counts(values: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.int64]:
    """(k + 1,) rows below the first of k ascending cuts, between them ([a, b)), and from the last on. No NaN."""
    below = np.searchsorted(np.sort(values), cuts, side="left")
    return np.diff(np.concatenate([[0], below, [values.size]])).astype(np.int64)


def value_counts(values: NDArray[Any], known: Mapping[str, int]) -> tuple[NDArray[np.int64], int]:
    """(len(known) + 1,) rows of each known value, in order, and of all others; and how many others there are."""
    found = Counter(values.tolist())
    counts = [found.pop(value, 0) for value in known]
    others = found.total()
    return np.array([*counts, others], dtype=np.int64), others
