"""Drift: which columns have moved further from the reference than its own weeks do, and is that more than chance?

One distance per type of column: Kolmogorov-Smirnov for numbers, total variation for categories. A column has drifted
when its distance is beyond what is tolerated, and significant across all columns together (Benjamini-Hochberg at
0.001), on 200 values or more. An effect size without a test alarms on few rows, a test without one on many.

Every other usual distance is told beside it, from the same counts; none of them decides, unless an alarm names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.report import ColumnDrift, Drift
from seatrial.monitoring.rows.reference import Categories, Column, Numbers, Reference
from seatrial.monitoring.rows.sample import Sample
from seatrial.monitoring.rows.tally import PLAIN, Tallies, Tally, tallies, tally
from seatrial.stats import distances
from seatrial.stats.detectors import benjamini_hochberg

if TYPE_CHECKING:
    import pyarrow as pa

MIN_ROWS = 200
FALSE_DISCOVERIES = 0.001
FEWEST_EXPECTED = 5
"""Rows expected of a category below which it is rare (Cochran 1954)."""
PREDICTION = "prediction"


def drift(rows: pa.Table | Sample | Tallies, reference: Reference) -> Drift:
    """Every column of the reference that `rows` have, furthest first, and the predictions: their scores, or, of a
    multiclass model, how often each class was predicted.

    rows: with `feature_NAME` columns and `score`; no row at all is no error. Or what was counted of them already.
    """
    if isinstance(rows, Sample):
        rows = rows.counted(reference)
    found = rows if isinstance(rows, Tallies) else tallies(rows, reference)
    columns = [of_tally(name, found.columns[name], reference.columns[name]) for name in found.columns]
    columns = _significant(columns)
    prediction = None
    if reference.predicted is not None and found.predicted is not None:
        prediction = _significant([of_tally(PREDICTION, found.predicted, reference.predicted)])[0]
    elif reference.scores is not None and found.scores is not None:
        prediction = _significant([of_tally(PREDICTION, found.scores, reference.scores)])[0]
    absent = [name for name in reference.columns if name not in found.columns]
    note = f"not in these rows: {', '.join(absent)}" if absent else ""
    if found.rows < MIN_ROWS:
        note = f"not enough data: {found.rows:,} of {MIN_ROWS} rows{f'; {note}' if note else ''}"
    columns.sort(key=lambda one: (not one.drifted, -(one.value or 0.0), one.name))
    return Drift(reference.name, columns, prediction, note)


def column_drift(name: str, values: pa.ChunkedArray, reference: Column) -> ColumnDrift:
    """One column by itself; `drifted` as if it were the only one."""
    return of_tally(name, tally(values, reference), reference)


def of_tally(name: str, found: Tally, reference: Column) -> ColumnDrift:
    """One column by itself, counted; `drifted` as if it were the only one.

    A column whose type is not that of the reference is told in `note`, and so are few rows, an all-missing and a
    constant one.
    """
    of_words = isinstance(reference, Categories)
    facts: dict[str, Any] = {
        "name": name,
        "kind": "category" if of_words else "number",
        "rows": found.present,
        "reference_rows": reference.rows,
        "distance": "tv" if of_words else "ks",
        "tolerated": reference.tolerated,
        "missing": found.missing / found.total if found.total else 0.0,
        "reference_missing": reference.missing,
    }
    if found.present and (found.text != of_words or not found.counts.size):
        words = "text where the reference has numbers" if found.text else "numbers where the reference has text"
        return _unknown(facts, f"{words}: not compared")
    if not reference.rows:
        return _unknown(facts, "the reference has no value of it")
    if found.present < MIN_ROWS:
        all_missing = "every value is missing; " if found.total and not found.present else ""
        return _unknown(facts, f"{all_missing}not enough data: {found.present:,} of {MIN_ROWS} rows")
    if isinstance(reference, Categories):
        return _category(facts, found, reference)
    return _number(facts, found, reference)


def distances_of(found: Tally, reference: Column) -> dict[str, float]:
    """Every distance that is defined for the column, by its name in `stats.distances.NAMES`, and chi2_p_value.

    Of numbers tv, js and chi2 look at ten bins of equal mass of the reference and one on either side of its range; psi,
    as is usual, puts what lies outside into the outer of the ten. wasserstein is in the reference's sd,
    and left out where that has none, or holds infinite values. Of categories the values that the reference is sure of
    (`Categories.alone`), and all others as one; chi2 puts the rare ones together. Nothing without a value on either
    side, or with nothing but others.
    """
    if not found.present or not reference.rows or not found.counts.size:
        return {}
    if isinstance(reference, Categories):
        whole, counts = reference.compared(found.counts)
        if whole.size < 2:
            return {}
        rough = whole, counts
        pooled = _pooled(whole, counts)
        told: dict[str, float] = {}
    else:
        whole, counts = distances.in_tenths(reference.counts, found.counts)
        rough = _folded(whole), _folded(counts)
        pooled = whole, counts
        told = {"ks": distances.kolmogorov_smirnov(reference.counts, found.counts)}
        if reference.std and max(-reference.low, reference.high) < PLAIN:
            beyond = found.below, found.above
            moved = distances.wasserstein(reference.counts, found.counts, reference.cuts, beyond) / reference.std
            told |= {"wasserstein": moved} if np.isfinite(moved) else {}
    statistic, degrees = distances.chi_square(*pooled)
    return told | {
        "js": distances.jensen_shannon(whole, counts),
        "psi": distances.population_stability_index(*rough),
        "tv": distances.total_variation(whole, counts),
        "chi2": statistic,
        "chi2_p_value": distances.chi_square_tail(statistic, degrees) if degrees else 1.0,
    }


def _number(facts: dict[str, Any], found: Tally, reference: Numbers) -> ColumnDrift:
    every = distances_of(found, reference)
    value = every["ks"]
    p_value = distances.kolmogorov_smirnov_p_value(value, reference.rows, found.present)
    notes = ["one and the same value"] if found.low == found.high else []
    notes += [f"{found.infinite:,} infinite values"] if found.infinite else []
    return ColumnDrift(
        **facts,
        value=value,
        p_value=p_value,
        drifted=value > reference.tolerated and p_value <= FALSE_DISCOVERIES,
        unseen=found.outside / found.present,
        mean=found.mean,
        reference_mean=reference.mean,
        note=", ".join(notes),
        distances=every,
    )


def _category(facts: dict[str, Any], found: Tally, reference: Categories) -> ColumnDrift:
    every = distances_of(found, reference)
    if not every:
        return _unknown(facts, f"{_pooled_words(reference)}: not compared")
    value, p_value = every["tv"], every["chi2_p_value"]
    return ColumnDrift(
        **facts,
        value=value,
        p_value=p_value,
        drifted=value > reference.tolerated and p_value <= FALSE_DISCOVERIES,
        unseen=float(found.counts[-1] / found.present) if reference.complete else 0.0,
        note=_pooled_words(reference),
        distances=every,
    )


def _pooled_words(reference: Categories) -> str:
    """What is not compared one by one; empty when all is."""
    if reference.complete:
        return ""
    alone, kept = reference.alone, np.array([*reference.values.values()])
    if not alone.any():
        return f"more than {kept.size:,} values, used too evenly to be told apart"
    rest = 1 - kept[alone].sum() / reference.rows
    return f"{alone.sum():,} values are compared one by one, all others ({rest:.1%} of the reference) as one"


def _folded(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """With what lies outside the reference's range in the outer of the bins inside it."""
    inside = np.array(counts[1:-1])
    if not inside.size:
        return counts
    inside[0] += counts[0]
    inside[-1] += counts[-1]
    return inside


def _pooled(whole: NDArray[np.int64], counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Both with the rare values as one: with few rows expected of a value the test finds what is not there."""
    together = whole + counts
    rare = together * min(whole.sum(), counts.sum()) < FEWEST_EXPECTED * together.sum()
    one, other = (np.append(found[~rare], found[rare].sum()) for found in (whole, counts))
    return one, other


def _unknown(facts: dict[str, Any], note: str) -> ColumnDrift:
    return ColumnDrift(**facts, value=None, p_value=None, drifted=False, unseen=0.0, note=note)


def _significant(columns: list[ColumnDrift]) -> list[ColumnDrift]:
    """The columns with `drifted` as it stands when all of them are looked at together."""
    p_values = np.array([np.nan if one.p_value is None else one.p_value for one in columns], dtype=np.float64)
    rejected = benjamini_hochberg(p_values, FALSE_DISCOVERIES)
    return [
        msgspec.structs.replace(one, drifted=bool(sure) and one.value is not None and one.value > one.tolerated)
        for one, sure in zip(columns, rejected, strict=True)
    ]
