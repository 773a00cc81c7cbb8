"""Drift: which columns have moved further from the reference than its own weeks do, and is that more than chance?

One distance per type of column: Kolmogorov-Smirnov for numbers, total variation for categories. A column has drifted
when its distance is beyond what is tolerated, and significant across all columns together (Benjamini-Hochberg at
0.001), on 200 values or more. An effect size without a test alarms on few rows, a test without one on many.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.reference import Categories, Column, Numbers, Reference, codes, floats, is_text, plain
from seatrial.monitoring.report import ColumnDrift, Drift
from seatrial.monitoring.sample import FEATURE
from seatrial.stats.detectors import benjamini_hochberg
from seatrial.stats.distances import (
    chi_square_p_value,
    kolmogorov_smirnov,
    kolmogorov_smirnov_p_value,
    total_variation,
)
from seatrial.stats.profile import LARGEST, bin_counts, moments, value_counts

if TYPE_CHECKING:
    import pyarrow as pa

MIN_ROWS = 200
FALSE_DISCOVERIES = 0.001
PLAIN = 1e290
"""Numbers below it can be added up without a thought of overflow."""
FEWEST_EXPECTED = 5
"""Rows expected of a category below which it is rare (Cochran 1954)."""
PREDICTION = "prediction"


def drift(rows: pa.Table, reference: Reference) -> Drift:
    """Every column of the reference that `rows` have, furthest first, and the predictions: their scores, or, of a
    multiclass model, how often each class was predicted.

    rows: with `feature_NAME` columns and `score`; no row at all is no error.
    """
    columns = [
        column_drift(name, rows[f"{FEATURE}{name}"], column)
        for name, column in reference.columns.items()
        if f"{FEATURE}{name}" in rows.column_names
    ]
    columns = _significant(columns)
    prediction = None
    if reference.predicted is not None and "predicted_class" in rows.column_names:
        prediction = _significant([column_drift(PREDICTION, rows["predicted_class"], reference.predicted)])[0]
    elif reference.scores is not None:
        prediction = _significant([column_drift(PREDICTION, rows["score"], reference.scores)])[0]
    absent = [name for name in reference.columns if f"{FEATURE}{name}" not in rows.column_names]
    note = f"not in these rows: {', '.join(absent)}" if absent else ""
    if rows.num_rows < MIN_ROWS:
        note = f"not enough data: {rows.num_rows:,} of {MIN_ROWS} rows{f'; {note}' if note else ''}"
    columns.sort(key=lambda one: (not one.drifted, -(one.value or 0.0), one.name))
    return Drift(reference.name, columns, prediction, note)


def column_drift(name: str, values: pa.ChunkedArray, reference: Column) -> ColumnDrift:
    """One column by itself; `drifted` as if it were the only one.

    A column whose type is not that of the reference is told in `note`, and so are few rows, an all-missing and a
    constant one. Nothing is made for each string, so that a long window costs little memory.
    """
    values = plain(values)
    text = is_text(values)
    numbers = np.empty(0) if text else floats(values)
    numbers = numbers[~np.isnan(numbers)]
    present = len(values) - values.null_count if text else numbers.size
    missing = 1 - present / len(values) if len(values) else 0.0
    facts: dict[str, Any] = {
        "name": name,
        "kind": "category" if isinstance(reference, Categories) else "number",
        "rows": present,
        "reference_rows": reference.rows,
        "distance": "tv" if isinstance(reference, Categories) else "ks",
        "tolerated": reference.tolerated,
        "missing": float(missing),
        "reference_missing": reference.missing,
    }
    if text != isinstance(reference, Categories) and present:
        words = "text where the reference has numbers" if text else "numbers where the reference has text"
        return _unknown(facts, f"{words}: not compared")
    if not reference.rows:
        return _unknown(facts, "the reference has no value of it")
    if present < MIN_ROWS:
        all_missing = "every value is missing; " if len(values) and not present else ""
        return _unknown(facts, f"{all_missing}not enough data: {present:,} of {MIN_ROWS} rows")
    if isinstance(reference, Categories):
        return _category(facts, codes(values, reference.values), reference)
    return _number(facts, numbers, reference)


def _number(facts: dict[str, Any], present: NDArray[np.float64], reference: Numbers) -> ColumnDrift:
    low, high, infinite = float(present.min()), float(present.max()), 0
    if max(-low, high) < PLAIN:
        mean: float | None = float(present.mean())
    else:
        mean, _ = moments(present)
        infinite = int(np.isinf(present).sum())
        present = np.clip(present, -LARGEST, LARGEST)
    counts = bin_counts(present, reference.cuts)
    value = kolmogorov_smirnov(reference.counts, counts)
    p_value = kolmogorov_smirnov_p_value(value, reference.rows, present.size)
    outside = 0.0
    if low < reference.low or high > reference.high:
        outside = float(np.mean((present < reference.low) | (present > reference.high)))
    notes = ["one and the same value"] if low == high else []
    notes += [f"{infinite:,} infinite values"] if infinite else []
    return ColumnDrift(
        **facts,
        value=value,
        p_value=p_value,
        drifted=value > reference.tolerated and p_value <= FALSE_DISCOVERIES,
        unseen=outside,
        mean=mean,
        reference_mean=reference.mean,
        note=", ".join(notes),
    )


def _category(facts: dict[str, Any], places: NDArray[np.int32], reference: Categories) -> ColumnDrift:
    counts = value_counts(places, reference.values)
    whole = np.array([*reference.values.values(), reference.other])
    value = total_variation(whole, counts)
    p_value = chi_square_p_value(*_pooled(whole, counts))
    return ColumnDrift(
        **facts,
        value=value,
        p_value=p_value,
        drifted=value > reference.tolerated and p_value <= FALSE_DISCOVERIES,
        unseen=float(counts[-1] / counts.sum()) if reference.complete else 0.0,
        note="" if reference.complete else "the reference keeps its most frequent values only",
    )


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
