"""Young windows: by which predictions is an alarm on performance judged whose labels are not all there yet?

By its own, where the labels that come first are like the others. Where they mislead, or nobody can know, by the newest
window as long whose labels are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import HOUR_US, Window, parse_window
from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.looks.alarms import QUIET_START
from seatrial.monitoring.looks.arrival import APART, MINUTE_US, USUAL
from seatrial.monitoring.report import AlarmResult
from seatrial.stats.metrics import MEAN, quantile_off

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seatrial.monitoring.figures import Arrival
    from seatrial.monitoring.rows.sample import Sample

ERRORS = 2
"""Standard errors within which early and late labels differ by chance."""
UNLIKE = "the labels that come first are unlike the others"
UNKNOWN = "nobody knows whether the labels that come first are like the others"


def of_ripe(
    found: AlarmResult,
    alarm: Alarm,
    sample: Sample,
    as_of_us: int,
    again: Callable[[int], AlarmResult],
    arrived: Callable[[Window], Arrival],
) -> AlarmResult:
    """`found` of the alarm's own window, or what the newest window as long says whose labels are there.

    sample: back to before both windows, with the labels known at `as_of_us`. again: the alarm over the window that ends
    at an instant. arrived: how the labels of a window of `sample` arrive.

    Where predictions do not reach back over such a window, `found` stands; but one that fired on labels of one class,
    or on labels that are shown to mislead, is not judged.
    """
    if not alarm.of_performance or sample.answers is not None or not (sample.label_delays_us() > 0).any():
        return found
    own = parse_window(found.window)
    came = arrived(own)
    if came.ripe:
        return found
    ripe = None if came.usual_hours is None else _ending(as_of_us - came.usual_hours * HOUR_US, alarm.window_us)
    inside = sample if ripe is None else sample.within(ripe)
    if ripe is None or not _whole(sample, ripe) or _of_one_class(inside):
        if found.state == "fired" and (came.biased or _of_one_class(sample.within(own))):
            why = UNLIKE if came.biased else "all labels so far are of one class, and those of another may come later"
            return _unjudged(found, f"{why}; no window of {alarm.window} is old enough to have all its labels")
        return found
    unlike = _unlike(inside, ripe.end_us)
    if unlike is False:
        return found
    why = UNKNOWN if unlike is None else UNLIKE
    judged = again(ripe.end_us)
    since, until = (iso(from_us(one))[:16].replace("T", " ") for one in (ripe.start_us, ripe.end_us))
    if judged.state == "not_enough_data":
        if found.state == "not_enough_data":
            return found
        return _unjudged(found, f"{why}, and of {since} to {until}, whose labels are there, {judged.note}")
    return msgspec.structs.replace(
        judged,
        window=found.window,
        judged=str(ripe),
        evidence=f"{judged.evidence} until {until}, whose labels are there",
        note=f"{why}, so the newest {alarm.window} whose labels are there were judged: {since} to {until}",
    )


def _unjudged(found: AlarmResult, note: str) -> AlarmResult:
    return msgspec.structs.replace(found, state="not_enough_data", value=None, evidence="", action="", note=note)


def _ending(end_us: float, length_us: int) -> Window:
    """The window of this length that ends then, to the minute."""
    whole_us = int(end_us) // MINUTE_US * MINUTE_US
    return Window(whole_us - length_us, whole_us)


def _whole(sample: Sample, window: Window) -> bool:
    """Whether predictions reach back over the window; those of a quiet start may lack."""
    at_us = sample.at_us()
    return bool(at_us.size) and int(at_us[0]) <= window.start_us + (window.end_us - window.start_us) // QUIET_START


def _of_one_class(inside: Sample) -> bool:
    """Whether the labels are all equal, and enough are not there yet to hide another class."""
    if inside.task == "regression":
        return False
    told = np.isfinite(inside.label_values())
    happened = inside.rows["label_class" if inside.task == "multiclass" else "label"].drop_null().unique()
    return len(happened) < 2 and (not told.size or float(told.mean()) < USUAL)


def _unlike(inside: Sample, known_us: int) -> bool | None:
    """Whether the level of the labels known at `known_us` has moved since, by more than `APART` and beyond chance; None
    when none was known by then.

    Of predictions no newer than those whose labels were known: labels told for whole weeks at once do not mislead,
    though the next week may be another.
    """
    import pyarrow as pa

    told_us: NDArray[np.float64] = (
        inside.rows["label_known_at"].cast(pa.int64()).to_numpy(zero_copy_only=False).astype(np.float64)
    )
    off, at_us = _off(inside, inside.label_values()), inside.at_us()
    early = np.isfinite(off) & (told_us <= known_us)
    if not early.any():
        return None
    late = np.isfinite(off) & ~early & (at_us <= at_us[early][-1])
    if not late.any():
        return False
    every = early | late
    unit = float(inside.label_values()[every].std()) if inside.task == "regression" and inside.quantile == MEAN else 1.0
    error = float(off[every].std()) * math.sqrt(1 / np.count_nonzero(early) + 1 / np.count_nonzero(late))
    apart = abs(float(off[early].mean() - off[late].mean()))
    moved = abs(float(off[early].mean() - off[every].mean()))
    return moved > APART * unit and apart > ERRORS * error


def _off(inside: Sample, labels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) by how much each prediction is off; NaN without a label."""
    if inside.decided_only:
        return -labels
    scores = inside.scores()
    if inside.task != "regression" or inside.quantile == MEAN:
        return scores - labels
    found: NDArray[np.float64] = np.full(labels.size, np.nan)
    known = np.isfinite(labels) & np.isfinite(scores)
    found[known] = quantile_off(labels[known], scores[known], inside.quantile)
    return found
