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

from seatrial.monitoring.reference import Categories, Column, Numbers, Reference, values_of
from seatrial.monitoring.report import ColumnDrift, Drift
from seatrial.monitoring.sample import FEATURE
from seatrial.stats.detectors import benjamini_hochberg
from seatrial.stats.distances import (
    chi_square_p_value,
    kolmogorov_smirnov,
    kolmogorov_smirnov_p_value,
    total_variation,
)
from seatrial.stats.profile import bin_counts, value_counts

if TYPE_CHECKING:
    import pyarrow as pa

MIN_ROWS = 200
FALSE_DISCOVERIES = 0.001
PREDICTION = "prediction"


def drift(rows: pa.Table, reference: Reference) -> Drift:
    """Every column of the reference that `rows` have, furthest first, and the predictions.

    rows: with `feature_NAME` columns and `score`; no row at all is no error.
    """
    columns = [
        column_drift(name, values_of(rows[f"{FEATURE}{name}"]), column)
        for name, column in reference.columns.items()
        if f"{FEATURE}{name}" in rows.column_names
    ]
    columns = _significant(columns)
    prediction = None
    if reference.scores is not None:
        prediction = _significant([column_drift(PREDICTION, values_of(rows["score"]), reference.scores)])[0]
    absent = [name for name in reference.columns if f"{FEATURE}{name}" not in rows.column_names]
    note = f"not in these rows: {', '.join(absent)}" if absent else ""
    if rows.num_rows < MIN_ROWS:
        note = f"not enough data: {rows.num_rows:,} of {MIN_ROWS} rows{f'; {note}' if note else ''}"
    columns.sort(key=lambda one: (not one.drifted, -(one.value or 0.0), one.name))
    return Drift(reference.name, columns, prediction, note)


def column_drift(name: str, values: NDArray[Any], reference: Column) -> ColumnDrift:
    """One column by itself; `drifted` as if it were the only one.

    values: (n,) float64 with NaN, or objects (str or None), for missing. A column whose type is not that of the
    reference is told in `note`, and so are few rows, an all-missing and a constant one.
    """
    text = values.dtype == object
    present = values[values != None] if text else values[~np.isnan(values)]  # noqa: E711  elementwise
    missing = 1 - present.size / values.size if values.size else 0.0
    facts: dict[str, Any] = {
        "name": name,
        "kind": "category" if isinstance(reference, Categories) else "number",
        "rows": int(present.size),
        "reference_rows": reference.rows,
        "distance": "tv" if isinstance(reference, Categories) else "ks",
        "tolerated": reference.tolerated,
        "missing": float(missing),
        "reference_missing": reference.missing,
    }
    if text != isinstance(reference, Categories) and present.size:
        words = "text where the reference has numbers" if text else "numbers where the reference has text"
        return _unknown(facts, f"{words}: not compared")
    if not reference.rows:
        return _unknown(facts, "the reference has no value of it")
    if present.size < MIN_ROWS:
        all_missing = "every value is missing; " if values.size and not present.size else ""
        return _unknown(facts, f"{all_missing}not enough data: {present.size:,} of {MIN_ROWS} rows")
    if isinstance(reference, Categories):
        return _category(facts, present, reference)
    return _number(facts, present, reference)


def _number(facts: dict[str, Any], present: NDArray[np.float64], reference: Numbers) -> ColumnDrift:
    counts = bin_counts(present, reference.cuts)
    value = kolmogorov_smirnov(reference.counts, counts)
    p_value = kolmogorov_smirnov_p_value(value, reference.rows, present.size)
    outside = float(np.mean((present < reference.low) | (present > reference.high)))
    constant = "one and the same value" if present.min() == present.max() else ""
    return ColumnDrift(
        **facts,
        value=value,
        p_value=p_value,
        drifted=value > reference.tolerated and p_value <= FALSE_DISCOVERIES,
        unseen=outside,
        mean=float(present.mean()),
        reference_mean=reference.mean,
        note=constant,
    )


def _category(facts: dict[str, Any], present: NDArray[Any], reference: Categories) -> ColumnDrift:
    counts, others = value_counts(present, reference.values)
    whole = np.array([*reference.values.values(), reference.other])
    value = total_variation(whole, counts)
    p_value = chi_square_p_value(whole, counts)
    return ColumnDrift(
        **facts,
        value=value,
        p_value=p_value,
        drifted=value > reference.tolerated and p_value <= FALSE_DISCOVERIES,
        unseen=others / present.size if reference.complete else 0.0,
        note="" if reference.complete else "the reference keeps its most frequent values only",
    )


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
