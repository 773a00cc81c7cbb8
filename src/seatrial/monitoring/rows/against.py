"""What a report compares with: the training rows of the release, of the champion, or a window of the same log.

training            what the release that answered was trained on; the default
champion            what the release that is live now was trained on
7d                  as long a time right before the report's window
2013-04-01/2013-04-08
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from seatrial.core.errors import Failed, UsageError
from seatrial.core.windows import BadDuration, BadWindow, Window, duration_us, parse_window
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.tally import Tallies

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample

Profile = Literal["training", "champion"]
PROFILES: tuple[Profile, ...] = ("training", "champion")
MIN_ROWS = 200


class BadReference(UsageError):
    """What a report is to be compared with is not one of the words for it."""

    code = "monitor.bad_reference"


class ReferenceTooSmall(Failed):
    """The window to compare with holds too few predictions to say what is usual."""

    code = "monitor.reference_too_small"


def chosen(words: str, window: Window) -> Profile | Window:
    """What `words` say, for a report on `window`. Raises BadReference."""
    for profile in PROFILES:
        if words == profile:
            return profile
    past = None
    try:
        if "/" in words:
            past = parse_window(words)
        else:
            past = Window(window.start_us - duration_us(words), window.start_us)
    except (BadDuration, BadWindow):
        pass
    if past is None or past.start_us < 0:
        raise BadReference(
            f"'{words}' is nothing to compare with.",
            expected="training, champion, a duration such as 7d (right before the window) or START/END is expected.",
            state="Nothing was reported.",
        )
    if past.start_us < window.end_us and past.end_us > window.start_us:
        raise BadReference(
            f"the window {past} to compare with overlaps the report's own, {window}.",
            expected="A window before or after it is expected: the same rows on both sides hide what moved.",
            state="Nothing was reported.",
        )
    return past


def of_window(sample: Sample, past: Window) -> Reference:
    """The reference that the predictions of a past window are. Raises ReferenceTooSmall."""
    before = sample.within(past)
    rows = before.rows.num_rows
    if rows < MIN_ROWS:
        raise ReferenceTooSmall(
            f"the window {past} to compare with holds {rows:,} predictions of '{sample.model}'.",
            expected=f"At least {MIN_ROWS:,} are expected.",
            state="Nothing was reported.",
            next="Choose another window, or compare with the training rows.",
        )
    name = f"the predictions of {past}"
    table = before.rows
    if table["score"].null_count == table.num_rows:
        table = table.drop_columns(["score"])
    reference = Reference.from_table(table, name=name)
    if before.inputs is not None:
        told = before.inputs.reference(name)
        a_day = told.rows_per_day or reference.rows_per_day
        reference = replace(reference, columns=told.columns, scores=told.scores or reference.scores, rows_per_day=a_day)
    return with_usual(reference, before)


def with_usual(reference: Reference, before: Sample) -> Reference:
    """The reference with what its own rows tell beside their values: missing together, ages, delays, classes."""
    import pyarrow.compute as pc

    from seatrial.monitoring.rows.reference import Categories

    usual: dict[str, float] = {}
    for name in before.rows.column_names:
        if name.startswith("view_") and name.endswith("_age_s"):
            ages = before.rows[name].drop_null().to_numpy()
            usual |= {name: float(np.quantile(ages, 0.95))} if ages.size else {}
    if before.answers is not None:
        count, middle, _ = before.answers.label_delays()
        usual |= {"label_delay_us": middle} if count else {}
    elif (delays := before.label_delays_us()).size:
        usual["label_delay_us"] = float(np.median(delays))
    predicted = reference.predicted
    if "predicted_class" in before.rows.column_names:
        counted = pc.value_counts(before.rows["predicted_class"].drop_null()).to_pylist()
        values = {one["values"]: one["counts"] for one in sorted(counted, key=lambda one: -one["counts"])}
        whole = sum(values.values())
        predicted = Categories(values, 0, whole, 1 - whole / before.rows.num_rows) if whole else None
    found = before.counted(reference)
    return replace(reference, together=shares_together(found), usual=usual, predicted=predicted)


def shares_together(found: Tallies) -> dict[tuple[str, ...], float]:
    """The share of rows that lack each set of columns."""
    every: Iterable[tuple[tuple[str, ...], int]] = found.together.items()
    return {tuple(sorted(names)): count / found.rows for names, count in every} if found.rows else {}
