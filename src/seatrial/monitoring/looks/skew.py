"""Skew: was what the model was given online what the offline join says for the same instants?

A sample of the window's predictions is joined again (`features.skew`). No statistic can see this: features that are a
day old have the distribution of any other day. Where views are materialized every so often, a few predictions always
come between an event and its row, so an alarm takes more of them than is tolerated, beyond chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from seatrial.core.clock import from_us, iso
from seatrial.monitoring.figures import Differing, Skew
from seatrial.monitoring.report import AlarmResult
from seatrial.stats.share import share_interval

if TYPE_CHECKING:
    from seatrial.features.skew import SkewReport

NAME = "features are not online what they are offline"
METRIC = "skew"
SAMPLE = 200
TOLERATED = 0.05
SURE = 0.002
MOST = 10


def skew(found: SkewReport, as_of_us: int) -> Skew:
    """What of a replay stands in a report."""
    differ = sorted((one for one in found.features if one.mismatches), key=lambda one: -one.share)
    return Skew(
        as_of=iso(from_us(as_of_us)),
        window=found.window,
        predictions=found.predictions,
        rows=found.rows,
        mismatched=found.mismatched,
        low=share_interval(found.mismatched, found.rows, alpha=SURE)[0] if found.rows else 0.0,
        features=[
            Differing(one.feature, one.share, {kind: count for kind, count in one.classes.items() if count})
            for one in differ[:MOST]
        ],
        note="; ".join(found.notes),
    )


def behind(found: Skew | None) -> set[str]:
    """Features that were late or missing online, more than is tolerated, and not wrong in another way."""
    if found is None or found.low <= TOLERATED:
        return set()
    kinds = {one.feature: max(one.kinds, key=one.kinds.__getitem__) for one in found.features if one.share > TOLERATED}
    return {feature for feature, kind in kinds.items() if kind != "different value"}


def alarm(found: Skew, model: str) -> AlarmResult:
    """The replay as an alarm that opens a ticket."""
    state: Literal["fired", "quiet", "not_enough_data"]
    state = "fired" if found.low > TOLERATED else "quiet" if found.rows else "not_enough_data"
    return AlarmResult(
        name=NAME,
        state=state,
        severity="medium",
        metric=METRIC,
        value=found.mismatched / found.rows if found.rows else None,
        threshold=TOLERATED,
        window=found.window,
        rows=found.rows,
        labelled=0,
        evidence=found.words if found.rows else "",
        action=f"See `seatrial features verify {model}`: which features, since when, and whether their views are late."
        if state == "fired"
        else "",
        note="" if found.rows else found.words,
    )
