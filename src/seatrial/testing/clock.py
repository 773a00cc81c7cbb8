"""A clock that stands where you put it, for tests of anything that takes domain time from a project's clock."""

from __future__ import annotations

from datetime import datetime, timedelta

from seatrial.core.clock import as_utc, parse_time
from seatrial.core.windows import duration_us


class FakeClock:
    """Domain time that moves only when told to.

    at: an aware time, or ISO 8601 text with a zone. Raises NaiveTime and BadTime.

    >>> clock = FakeClock("2013-04-01T00:00:00Z")
    >>> clock.advance("1d12h").isoformat()
    '2013-04-02T12:00:00+00:00'
    """

    def __init__(self, at: datetime | str) -> None:
        self._now = _instant(at)

    def now(self) -> datetime:
        """Where the clock stands: aware, UTC."""
        return self._now

    def set(self, at: datetime | str) -> datetime:
        """Put the clock at `at`, which may be in its past; returns it in UTC."""
        self._now = _instant(at)
        return self._now

    def advance(self, by: timedelta | str) -> datetime:
        """Move the clock by an exact duration ("90s", "7d"), or back by a negative timedelta; returns its new time."""
        self._now += by if isinstance(by, timedelta) else timedelta(microseconds=duration_us(by))
        return self._now


def _instant(at: datetime | str) -> datetime:
    return parse_time(at) if isinstance(at, str) else as_utc(at)
