"""Spans of time: how long is "24h", and which instants does "2013-04-01/2013-05-01" hold?

Durations are exact numbers of microseconds: a day is 24 hours, always. A window of instants is
closed at its start and open at its end.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.errors import UsageError

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": HOUR_US // 60, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
LONGEST_US = 10**18  # some 31,000 years: added to any instant of our days it still fits into 64 bits
_DURATION = re.compile(r"([0-9]{1,15})(us|ms|s|m|h|d|w)")


class BadDuration(UsageError):
    """A duration could not be read."""

    code = "usage.bad_duration"


class BadWindow(UsageError):
    """A window of time could not be read, or ends before it starts."""

    code = "usage.bad_window"


def duration_us(text: str) -> int:
    """Microseconds of a duration such as "90s", "24h", "7d" or "1d12h"; exact, > 0, at most LONGEST_US.

    Raises BadDuration for anything else; calendar units (months, years) have no fixed length.

    >>> duration_us("1d12h") == 36 * 3_600_000_000
    True
    """
    if not isinstance(text, str):
        raise BadDuration(
            f"a duration is {text!r}, which is {type(text).__name__}.",
            expected='Text with a unit is expected, for example "24h" or "1d12h".',
        )
    parts = _DURATION.findall(text)
    total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total <= 0:
        raise BadDuration(
            f"the duration {text!r} cannot be read.",
            expected="Whole numbers with us, ms, s, m, h, d or w are expected, for example 24h or 1d12h.",
        )
    if total > LONGEST_US:
        raise BadDuration(
            f"the duration {text!r} is too long.", expected=f"At most {duration_text(LONGEST_US)} is expected."
        )
    return total


def duration_text(us: int) -> str:
    """The shortest text that `duration_us` reads back as `us`.

    >>> duration_text(36 * 3_600_000_000)
    '1d12h'
    """
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        number, us = divmod(us, _UNITS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)


def hours_text(hours: float) -> str:
    """Hours as a duration, up to the next minute.

    >>> hours_text(6.508)
    '6h31m'
    """
    return duration_text(math.ceil(hours * 60) * 60_000_000)


@dataclass(frozen=True)
class Window:
    """The instants `start <= t < end`, in microseconds since 1970 (UTC)."""

    start_us: int
    end_us: int

    def __str__(self) -> str:
        return f"{iso(from_us(self.start_us))}/{iso(from_us(self.end_us))}"

    @property
    def start(self) -> datetime:
        return from_us(self.start_us)

    @property
    def end(self) -> datetime:
        return from_us(self.end_us)


def parse_window(text: str) -> Window:
    """A window "START/END"; a bare date is midnight UTC of that date.

    Raises BadWindow when there are not two times or the end is not after the start.
    """
    start, slash, end = text.partition("/")
    if not slash:
        raise BadWindow(
            f"the window {text!r} has no end.",
            expected="START/END is expected, for example 2013-04-01/2013-05-01.",
        )
    window = Window(*(to_us(parse_time(_midnight(part), name="window")) for part in (start, end)))
    if window.end_us <= window.start_us:
        raise BadWindow(f"the window {text!r} ends before it starts.", expected="START must be before END.")
    return window


def _midnight(text: str) -> str:
    return f"{text}T00:00:00Z" if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text) else text
