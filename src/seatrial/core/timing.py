"""Timings: at which instants is something due that runs every hour, or by a cron expression in a zone?

An interval counts from 1970-01-01T00:00Z, so "1h" is every full hour in UTC, on every machine and after every restart.
A cron expression has the five fields of cron(5), with names, steps, lists, `L` and `#` (read by the library cronsim),
and holds in its zone. When clocks change it does as Debian's cron does:

- a time that does not exist (02:30 when 02:00 becomes 03:00) comes at the first instant that does, 03:00;
- a time that occurs twice comes at its first occurrence, once;
- an expression whose minute or hour starts with `*` follows elapsed time: `*/30 * * * *` comes in both of the two
  hours, and not at all in the one that is left out.

Two times that fall on one instant are one. All instants are microseconds since 1970 (UTC).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from zoneinfo import ZoneInfo

from seatrial.core.clock import from_us, to_us
from seatrial.core.errors import UsageError
from seatrial.core.windows import BadDuration, duration_us

UTC_NAME = "UTC"
SHORTEST_US = 1_000_000
MOST_COUNTED = 1_000
_HOUR_US = 3_600_000_000
_BACK = tuple(hours * _HOUR_US for hours in (1, 25, 32 * 24, 367 * 24, 9 * 366 * 24))
"""How far back a last instant is looked for, one after the other: 29 February may be eight years ago."""


class BadTiming(UsageError):
    """An interval, a cron expression or a zone cannot be read, or never comes."""

    code = "usage.bad_timing"


@dataclass(frozen=True)
class Timing:
    """When something is due: `every` (a duration, from one second up) or `cron` in the zone `timezone`; exactly one.

    Raises BadTiming.
    """

    every: str = ""
    cron: str = ""
    timezone: str = UTC_NAME

    def __post_init__(self) -> None:
        if bool(self.every) == bool(self.cron):
            raise BadTiming(
                f"it has every={self.every!r} and cron={self.cron!r}.",
                expected='Exactly one is expected: every="1h", or cron="0 3 * * 1".',
            )
        self._zone  # noqa: B018 - checked when declared, not when it is due
        if self.every:
            if self.timezone != UTC_NAME:
                raise BadTiming(
                    f"it has every={self.every!r} and timezone={self.timezone!r}.",
                    expected="An interval has no zone; a cron expression has.",
                )
            try:
                length = duration_us(self.every)
            except BadDuration as error:
                raise BadTiming(f"it has every={self.every!r}: {error.found}", expected=error.expected) from None
            if length < SHORTEST_US:
                raise BadTiming(f"it has every={self.every!r}.", expected="At least 1s is expected.")
            return
        self._check_cron()

    def __str__(self) -> str:
        return f"every {self.every}" if self.every else f"{self.cron} {self.timezone}"

    @property
    def zone(self) -> ZoneInfo:
        return self._zone

    def after(self, us: int) -> int:
        """The first instant later than `us`."""
        if self.every:
            length = duration_us(self.every)
            return (us // length + 1) * length
        return next(self._later(us))

    def latest(self, us: int) -> int | None:
        """The last instant that is not later than `us`; None when there was none in the nine years before."""
        if self.every:
            length = duration_us(self.every)
            return us // length * length
        for back in _BACK:
            last = None
            for found in self._later(us - back - 1):
                if found > us:
                    break
                last = found
            if last is not None:
                return last
        return None

    def between(self, after: int, until: int) -> tuple[int, int | None]:
        """How many instants lie in (after, until], counted up to MOST_COUNTED, and the last of them."""
        if until <= after:
            return 0, None
        if self.every:
            length = duration_us(self.every)
            count = until // length - after // length
            return min(count, MOST_COUNTED), (until // length * length if count else None)
        count = 0
        for found in self._later(after):
            if found > until:
                break
            count += 1
            if count == MOST_COUNTED:
                break
        latest = self.latest(until) if count else None
        return count, latest

    def local(self, us: int) -> datetime:
        """An instant as clocks of the zone show it."""
        return from_us(us).astimezone(self._zone)

    @cached_property
    def _zone(self) -> ZoneInfo:
        try:
            return ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError, TypeError):
            raise BadTiming(
                f"it has timezone={self.timezone!r}, which no zone is named.",
                expected='A name of the IANA list is expected, such as "Europe/Berlin" or "UTC".',
            ) from None

    def _later(self, us: int) -> _Instants:
        return _Instants(self.cron, self._zone, us)

    def _check_cron(self) -> None:
        from cronsim import CronSimError

        if not isinstance(self.cron, str) or len(self.cron.split()) != 5:
            raise BadTiming(
                f"it has cron={self.cron!r}.",
                expected='Five fields are expected: minute, hour, day, month, weekday, such as "0 3 * * 1".',
            )
        try:
            self.after(to_us(datetime(2024, 1, 1, tzinfo=self._zone)))
        except CronSimError as error:
            raise BadTiming(
                f"it has cron={self.cron!r}: {str(error).lower()}.",
                expected='Five fields of cron are expected, such as "0 3 * * 1" or "*/15 8-18 * * MON-FRI".',
            ) from None
        except StopIteration:
            raise BadTiming(
                f"it has cron={self.cron!r}, which no day fits.", expected="A time that comes is expected."
            ) from None


class _Instants:
    """The instants of a cron expression after one, in order, each once."""

    def __init__(self, cron: str, zone: ZoneInfo, after: int) -> None:
        from datetime import UTC

        from cronsim import CronSim

        self._last = after
        start = from_us(after)
        self._found = CronSim(cron, start if zone.key == UTC_NAME else start.astimezone(zone))
        self._utc = UTC

    def __iter__(self) -> _Instants:
        return self

    def __next__(self) -> int:
        while True:
            found = to_us(next(self._found).astimezone(self._utc))
            if found > self._last:  # the second of two equal hours begins before its first
                self._last = found
                return found
