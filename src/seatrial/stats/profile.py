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
LARGEST = 1e308
"""What an infinite value counts as: there is a next number, for the edge behind it."""


def numeric_profile(values: NDArray[np.float64]) -> dict[str, Any]:
    """Counts, moments, and the edges of about 100 bins of equal mass with the rows in each.

    values: (n,) with NaN for missing; an infinite one counts as `LARGEST`, and not in the moments.
    edges: the distinct quantiles, ascending, and right behind a value that holds several of them the next number;
    counts: rows between neighbours, the last bin closed on both sides.
    """
    present = np.clip(values[~np.isnan(values)], -LARGEST, LARGEST)
    plain: dict[str, Any] = {"type": "numeric", "count": int(values.size), "missing": int(values.size - present.size)}
    if not present.size:
        return plain | {"mean": None, "std": None, "min": None, "max": None, "edges": [], "counts": []}
    low, high = float(present.min()), float(present.max())
    # between numbers this far apart nothing can be interpolated
    method: Any = "linear" if np.isfinite(high - low) else "inverted_cdf"
    quantiles = np.quantile(present, np.linspace(0, 1, QUANTILES + 1), method=method)
    edges = edges_of(quantiles)
    counts = bin_counts(present, edges[1:-1])
    mean, std = moments(present)
    return plain | {
        "mean": mean,
        "std": std,
        "min": low,
        "max": high,
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def edges_of(quantiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distinct quantiles, ascending, and right behind one that several of them share the next number."""
    edges, often = np.unique(quantiles, return_counts=True)
    return np.unique(np.concatenate([edges, np.nextafter(edges[often > 1], np.inf)]))


def moments(present: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of the finite values; None where there are none, or where they overflow."""
    finite = present[np.abs(present) < LARGEST]  # an infinity may have been cut to the largest number
    if not finite.size:
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
    return (mean if np.isfinite(mean) else None), (std if np.isfinite(std) else None)


def category_profile(values: NDArray[Any]) -> dict[str, Any]:
    """The counts of the 200 most frequent values, the rest as one number. values: (n,) str or None."""
    found = Counter(value for value in values if value is not None)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return counted_profile(dict(ranked[:MOST_VALUES]), len(ranked), found.total(), values.size)


def counted_profile(most: dict[str, int], distinct: int, present: int, count: int) -> dict[str, Any]:
    """The profile of a category of which somebody else has counted the values.

    most: rows of the 200 most frequent, most frequent first, and in the order of their text where they are equal.
    """
    return {
        "type": "category",
        "count": int(count),
        "missing": int(count - present),
        "distinct": distinct,
        "values": most,
        "other": int(present - sum(most.values())),
    }


def weekly_distances(profile: Mapping[str, Any], values: NDArray[Any], at_us: NDArray[np.int64]) -> list[float]:
    """How far each whole week of the rows lies from all of them: what an ordinary week looks like from outside.

    profile: of `values`; of a category these may be codes (see `codes_of`). at_us: (n,) instants, the weeks begin at
    the first. Kolmogorov-Smirnov for numbers, total variation for categories. Empty with fewer than four weeks of
    200 present values each.
    """
    if not values.size:
        return []
    category = profile["type"] == "category"
    if values.dtype == object:
        values = codes_of(values, profile["values"])
    present = values >= 0 if category else ~np.isnan(values)
    first, last = int(at_us.min()), int(at_us.max())
    week = (at_us - first) // WEEK_US
    distances = []
    for number in np.unique(week):
        if number >= (last - first) // WEEK_US:
            break
        of_week = values[(week == number) & present]
        if of_week.size < FEWEST_IN_WEEK:
            continue
        if category:
            whole = np.array([*profile["values"].values(), profile["other"]])
            distances.append(total_variation(whole, value_counts(of_week, profile["values"])))
        else:
            cuts = np.asarray(profile["edges"][1:-1], dtype=np.float64)
            distances.append(kolmogorov_smirnov(np.asarray(profile["counts"]), bin_counts(of_week, cuts)))
    return distances if len(distances) >= FEWEST_WEEKS else []


def weeks_of(profile: Mapping[str, Any], by_week: Mapping[int, NDArray[np.int64]], last: int) -> list[float]:
    """`weekly_distances` where somebody else has counted each week in the profile's bins. last: the week that is not
    whole any more."""
    category = profile["type"] == "category"
    whole = np.array([*profile["values"].values(), profile["other"]]) if category else np.asarray(profile["counts"])
    far = total_variation if category else kolmogorov_smirnov
    weeks = [by_week[number] for number in sorted(by_week) if number < last]
    distances = [far(whole, counts) for counts in weeks if counts.sum() >= FEWEST_IN_WEEK]
    return distances if len(distances) >= FEWEST_WEEKS else []


def bin_counts(values: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.int64]:
    """(k + 1,) rows below the first of k ascending cuts, between them ([a, b)), and from the last on. No NaN."""
    return sorted_bin_counts(np.sort(values), cuts)


def sorted_bin_counts(ascending: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.int64]:
    """`bin_counts` of values that are in ascending order."""
    below = np.searchsorted(ascending, cuts, side="left")
    return np.diff(np.concatenate([[0], below, [ascending.size]])).astype(np.int64)


def codes_of(values: NDArray[Any], known: Mapping[str, int]) -> NDArray[np.int32]:
    """(n,) the place of each value among the known ones, one more than the last for any other, -1 for None."""
    places: dict[Any, int] = {value: place for place, value in enumerate(known)}
    places[None] = -1
    return np.fromiter((places.get(value, len(known)) for value in values), dtype=np.int32, count=values.size)


def value_counts(codes: NDArray[np.int32], known: Mapping[str, int]) -> NDArray[np.int64]:
    """(len(known) + 1,) rows of each known value, in order, and of all others. codes: of `codes_of`."""
    return np.bincount(codes + 1, minlength=len(known) + 2)[1:].astype(np.int64)
