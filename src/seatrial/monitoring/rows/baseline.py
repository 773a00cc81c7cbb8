"""The baseline: labelled predictions of before, with which those of now are compared.

There are three, and a report says which it took: rows that were given (`--reference` with scores and labels), the test
part on which the release was measured, or the labelled predictions of the log from before the window.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seatrial.monitoring.rows.sample import Sample

FEWEST = 500
"""Labelled rows below which nothing is compared with them."""
MOST = 200_000
"""Labelled rows of a baseline that are looked at; of more, as many are drawn."""


@dataclass(frozen=True)
class Baseline:
    """name: in words. sample: labelled predictions, with inputs or without. timed: their instants are known."""

    name: str
    sample: Sample = field(repr=False)
    timed: bool = True

    @property
    def rows(self) -> int:
        return int(self.sample.rows.num_rows)


def baseline(sample: Sample, window: Window, given: Baseline | None = None) -> tuple[Baseline | None, str]:
    """What to compare the window with, or None and why there is none.

    sample: the log back from the window's end. given: rows from elsewhere, which go before. Earlier predictions of the
    log must have been answered by the release that answered most of the window: another one is another model.
    """
    if given is not None and given.rows >= FEWEST:
        return drawn(given), ""
    at_us = sample.at_us()
    if not at_us.size or at_us[0] >= window.start_us:
        earlier = sample.within(Window(window.start_us - 1, window.start_us))
    else:
        earlier = sample.within(Window(int(at_us[0]), window.start_us))
    same = _of(earlier, _release(sample.within(window)))
    known = labelled(same)
    if known.rows.num_rows < FEWEST:
        lacking = f"{known.rows.num_rows:,} of {FEWEST} labelled predictions of the same release from before the window"
        return None, f"not enough data: {lacking}"
    first = iso(from_us(int(known.at_us()[0])))[:10]
    until = iso(from_us(int(known.at_us()[-1])))[:10]
    return drawn(Baseline(f"labelled predictions of {first} to {until}", known)), ""


def labelled(sample: Sample) -> Sample:
    """The rows that have a label and an answer."""
    return chosen(sample, np.isfinite(sample.label_values()) & sample.answered())


def chosen(sample: Sample, which: NDArray[np.bool_]) -> Sample:
    """Those rows."""
    import pyarrow as pa

    if which.all():
        return sample  # no copy of a long log
    return replace(sample, rows=sample.rows.filter(pa.array(which)))


def drawn(one: Baseline) -> Baseline:
    """At most MOST rows, drawn evenly over time."""
    return replace(one, sample=some(one.sample, MOST))


def some(sample: Sample, most: int) -> Sample:
    """At most so many rows, drawn evenly over time."""
    count = sample.rows.num_rows
    if count <= most:
        return sample
    places = np.unique(np.linspace(0, count - 1, most).astype(np.int64))
    return replace(sample, rows=sample.rows.take(places))


def _release(inside: Sample) -> tuple[str | None, str | None]:
    """The release and version that answered most of the rows."""
    import pyarrow.compute as pc

    if not inside.rows.num_rows:
        return None, None
    found = []
    for name in ("release", "version"):
        counted = pc.value_counts(inside.rows[name]).to_pylist()
        found.append(max(counted, key=lambda one: one["counts"])["values"])
    return found[0], found[1]


def _of(sample: Sample, who: tuple[str | None, str | None]) -> Sample:
    import pyarrow as pa
    import pyarrow.compute as pc

    which = np.ones(sample.rows.num_rows, dtype=bool)
    for name, value in zip(("release", "version"), who, strict=True):
        if value is not None:
            same = pc.fill_null(pc.equal(sample.rows[name], pa.scalar(value)), False)
            which &= same.to_numpy(zero_copy_only=False)
    return chosen(sample, which)
