"""Cadence: how often should something come, and has it stopped?

Silence is not health: a model without predictions, labels that stay away, a report that nobody makes and a view that
nobody materializes look like a quiet night. What is expected is declared, or known from how it came before. What came
seldom, or never, is not expected, and that is said too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

import msgspec

from seatrial.core.clock import from_us, iso
from seatrial.core.windows import DAY_US, HOUR_US, duration_text

WEEK_US = 7 * DAY_US
FEWEST = 6
"""Times that are needed to say how often something comes."""
OUTLIER = 20
"""One gap in so many may be longer without counting."""
SLACK = 2
"""So many times the longest usual gap is a silence."""
FORGOTTEN_US = 60 * DAY_US
"""What has not come for so long, and is not declared, is expected no more."""
QUIET_US = HOUR_US // 4
"""The shortest silence of predictions that is looked at."""
CLEARLY = 20.0
"""Predictions that should have been made: with so many expected, none has a chance of one in 10^8."""

State = Literal["on time", "missed", "not expected", "from the future"]
NAMES = {"predictions": "no predictions", "labels": "no labels", "report": "no report"}


class Cadence(msgspec.Struct, frozen=True):
    """How one thing of a model keeps coming.

    what: "predictions", "labels", "report" or "view NAME". expected: how often, such as "1d"; empty when nothing is
    known. declared: a person said so. last_at, due_at: ISO 8601 in UTC, empty when not known. state: "from the future":
    all that came lies after now, so the clock was put back, or it is a replay; nothing is concluded.
    """

    model: str
    what: str
    state: State
    words: str
    expected: str = ""
    declared: bool = False
    last_at: str = ""
    due_at: str = ""

    @property
    def alarm(self) -> str:
        """The name of the alert that its silence opens."""
        return NAMES.get(self.what, f"{self.what} not materialized")


def judged(
    model: str,
    what: str,
    times_us: Sequence[int],
    now_us: int,
    *,
    declared_us: int | None = None,
    since_us: int | None = None,
) -> Cadence:
    """Whether something that comes now and then is overdue.

    times_us: when it came, in any order, domain time. declared_us: within which time the next is expected; without it
    the times say. since_us: from when on it is expected, for what never came.
    """
    came = sorted({time for time in times_us if time <= now_us})
    if not came and times_us:
        words = f"{_subject(model, what)}: all times lie after {iso(from_us(now_us))}; nothing is concluded"
        return Cadence(model, what, "from the future", words)
    last_us = came[-1] if came else since_us
    if declared_us is not None:
        allowed, usually = declared_us, f"expected {_every(declared_us)}"
    else:
        found = usual(came)
        if found is None or last_us is None or now_us - last_us > FORGOTTEN_US:
            words = f"{_subject(model, what)}: {_unknown(came, found is not None)}"
            return Cadence(model, what, "not expected", words, last_at=_at(last_us))
        typical, allowed = found
        usually = f"usually {_every(typical)}"
    if last_us is None:
        words = f"{_subject(model, what)}: none yet, {usually}"
        return Cadence(model, what, "not expected", words, duration_text(allowed), declared_us is not None)
    due_us = last_us + allowed
    missed = now_us > due_us
    gone = _span(now_us - last_us)
    words = f"{_subject(model, what)} {_came(what)} for {gone}; {usually}"
    if not missed:
        words = f"{_subject(model, what)}: last {gone} ago, {usually}"
    return Cadence(
        model,
        what,
        "missed" if missed else "on time",
        words,
        duration_text(declared_us if declared_us is not None else typical),
        declared_us is not None,
        _at(last_us),
        _at(due_us),
    )


def usual(times_us: Sequence[int]) -> tuple[int, int] | None:
    """The typical gap between times and the longest that is no silence, in microseconds; None: too few to say.

    times_us: sorted. Times within one hour count as one, so that an evening of trying things out is no habit.
    """
    hours = sorted({time // HOUR_US for time in times_us})
    if len(hours) < FEWEST:
        return None
    gaps = sorted((after - before) * HOUR_US for before, after in pairwise(hours))
    longest = gaps[len(gaps) - 1 - len(gaps) // OUTLIER]
    return int(median(gaps)), SLACK * longest


def volume(
    model: str,
    last_us: int | None,
    now_us: int,
    *,
    same_time: Mapping[str, Sequence[int]],
    days: Sequence[int],
) -> Cadence:
    """Whether predictions have stopped.

    last_us: the newest prediction. same_time: how many there were in the hours that are silent now, by the words for
    when ("weeks" before, newest first). days: the starts of days with predictions, in microseconds.
    They have stopped when the same hours of weeks before (or, of a young model, of days before) had 20 or more, in the
    median; or when no day was silent for half as long.
    """
    if last_us is None:
        return Cadence(model, "predictions", "not expected", f"{_subject(model, 'predictions')}: none in two months")
    gone = now_us - last_us
    at = _at(last_us)
    for when, counts in same_time.items():
        if counts and median(counts) >= CLEARLY:
            words = (
                f"'{model}' has made no prediction for {_span(gone)}; in the same hours of the {when} before it made "
                f"{median(counts):,.0f}"
            )
            return Cadence(model, "predictions", "missed", words, last_at=at)
    by_day = judged(model, "predictions", [*days, last_us], now_us)
    if by_day.state == "missed":
        return msgspec.structs.replace(by_day, last_at=at)
    words = f"{_subject(model, 'predictions')}: last {_span(gone)} ago"
    state: State = "on time" if by_day.expected else "not expected"
    return Cadence(model, "predictions", state, words, by_day.expected, last_at=at)


def _subject(model: str, what: str) -> str:
    if what == "predictions":
        return f"predictions of '{model}'"
    if what == "labels":
        return f"the labels of '{model}'"
    return f"the reports on '{model}'" if what == "report" else f"the view '{what.removeprefix('view ')}' of '{model}'"


def _came(what: str) -> str:
    return "has not been materialized" if what.startswith("view ") else "have not come"


def _unknown(came: Sequence[int], had: bool) -> str:
    if not came:
        return "none ever, and none is declared to be expected"
    return "none for two months, so none is expected any more" if had else f"{len(came)} so far, too few for a habit"


def _span(us: int) -> str:
    """A length of time as a person says it."""
    for unit, word in ((DAY_US, "day"), (HOUR_US, "hour"), (60_000_000, "minute"), (1_000_000, "second")):
        if us >= unit:
            number = us / unit
            told = f"{number:.1f}".removesuffix(".0") if number < 10 else f"{number:.0f}"
            return f"{told} {word}{'' if told == '1' else 's'}"
    return "a moment"


def _every(us: int) -> str:
    return f"every {_span(us).removeprefix('1 ')}"


def _at(us: int | None) -> str:
    return "" if us is None else iso(from_us(us))
