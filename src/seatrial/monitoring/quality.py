"""Data quality: hard rules about the rows themselves. What fails here is a fault, not a change of the world.

A column that the model reads is gone, dark or of another type; scores are missing or impossible; a prediction is
there twice; far fewer rows come than in the reference. A season is no fault: values outside the training range and a
few more missing ones stand in the drift part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.monitoring.reference import Categories, Column, Reference, codes, floats, is_text, plain
from seatrial.monitoring.report import Check
from seatrial.monitoring.sample import FEATURE
from seatrial.stats.distances import proportion_p_value

if TYPE_CHECKING:
    from seatrial.monitoring.sample import Sample

DARK = 0.10
"""How much larger than the reference's the share of missing values may be."""
UNSEEN = 0.10
"""Share of values that no category of a complete reference covers."""
VOLUME = 0.10
"""Share of the reference's rows a day below which nearly all traffic is missing."""
SURE = 0.001
MIN_ROWS = 200
DAY_US = 86_400_000_000


def quality(sample: Sample, reference: Reference) -> list[Check]:
    """Every rule that applies, failed or not. No row at all: no rule can be looked at, and none passes silently."""
    rows = sample.rows
    if not rows.num_rows:
        return []
    checks = [_columns(sample, reference), _once(sample), _scored(sample)]
    if sample.task != "regression":
        checks.append(_in_range(sample))
    for name, column in reference.columns.items():
        if f"{FEATURE}{name}" in rows.column_names:
            checks += _column(name, sample, column)
    checks += _volume(sample, reference)
    return checks


def _columns(sample: Sample, reference: Reference) -> Check:
    absent = sorted(set(reference.columns) - set(sample.features))
    found = f"{', '.join(absent)} missing" if absent else f"{len(reference.columns)} columns"
    return Check("columns", "", not absent, found, "every column of the reference")


def _once(sample: Sample) -> Check:
    import pyarrow.compute as pc

    ids = sample.rows["prediction_id"]
    twice = len(ids) - ids.null_count - pc.count_distinct(ids, mode="only_valid").as_py()
    return Check("each prediction once", "", twice == 0, f"{twice:,} of {len(ids):,} again", "no prediction_id twice")


def _scored(sample: Sample) -> Check:
    absent = int((~sample.answered() if sample.decided_only else np.isnan(sample.scores())).sum())
    return Check("scores there", "", absent == 0, f"{absent:,} of {sample.rows.num_rows:,} without", "a score each")


def _in_range(sample: Sample) -> Check:
    scores = sample.scores()
    outside = int(((scores < 0) | (scores > 1)).sum())
    return Check("scores are probabilities", "", outside == 0, f"{outside:,} outside", "within [0, 1]")


def _column(name: str, sample: Sample, reference: Column) -> list[Check]:
    values = plain(sample.rows[f"{FEATURE}{name}"])
    count, text = len(values), is_text(values)
    absent = values.null_count if text else int(np.isnan(floats(values)).sum())
    checks = []
    if text != isinstance(reference, Categories) and absent < count:
        kinds = ("text", "numbers") if text else ("numbers", "text")
        return [Check("type", name, False, kinds[0], kinds[1])]
    share = absent / count
    was = reference.missing
    whole = round(reference.rows / (1 - was)) if was < 1 else 0
    dark = share > was + DARK and count >= MIN_ROWS
    if dark and whole:
        dark = proportion_p_value(absent, count, round(was * whole), whole) < SURE
    found = f"{share:.1%} missing of {count:,}"
    expected = f"at most {min(1.0, was + DARK):.1%} ({was:.1%} before)"
    checks.append(Check("values there", name, not dark, found, expected))
    if isinstance(reference, Categories) and reference.complete and count - absent >= MIN_ROWS:
        unseen = int((codes(values, reference.values) == len(reference.values)).sum()) / (count - absent)
        words = f"{unseen:.1%} of values never seen before"
        checks.append(Check("known categories", name, unseen <= UNSEEN, words, f"at most {UNSEEN:.0%}"))
    return checks


def _volume(sample: Sample, reference: Reference) -> list[Check]:
    """Whole days only: a window that has just begun is not short of rows."""
    at_us = sample.at_us()
    if reference.rows_per_day is None or at_us.size < 2:
        return []
    days = int((at_us.max() - at_us.min()) // DAY_US)
    if days < 1:
        return []
    of_days = int((at_us < at_us.min() + days * DAY_US).sum())
    a_day = of_days / days
    enough = a_day >= VOLUME * reference.rows_per_day
    found = f"{a_day:,.0f} rows a day since {iso(from_us(int(at_us.min())))[:10]}"
    return [Check("volume", "", enough, found, f"about {reference.rows_per_day:,.0f} a day, as in {reference.name}")]
