"""The two clocks: domain time, which can be replayed, and record time, which cannot.

Domain time (`at`: as-of of features, ttl, windows, cool-downs) comes from a `Clock` that the project
was opened with, or from the request. Record time (audit, `recorded_at`) is the machine's own.
This is the only module that reads the machine's clock; a house test forbids it elsewhere.

All instants are aware and in UTC, with microseconds. Inside, an instant is often an `int`: microseconds
since 1970-01-01T00:00Z.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from seatrial.core.errors import UsageError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class NaiveTime(UsageError):
    """A time argument had no zone."""

    code = "usage.naive_time"


class BadTime(UsageError):
    """A time argument could not be read."""

    code = "usage.bad_time"


class Clock(Protocol):
    """Where domain time comes from."""

    def now(self) -> datetime:
        """The current instant of the domain: aware, UTC."""
        ...


class MachineClock:
    """Domain time is the machine's time: what a live project uses."""

    def now(self) -> datetime:
        return machine_time()


class FixedClock:
    """Domain time stands still at one instant: what `--at` on the command line uses."""

    def __init__(self, at: datetime) -> None:
        self._at = as_utc(at)

    def now(self) -> datetime:
        return self._at


def machine_time() -> datetime:
    """Record time: the machine's clock, aware, UTC."""
    return datetime.now(UTC)


def machine_us() -> int:
    """Record time in microseconds since 1970 (UTC)."""
    return time.time_ns() // 1000


def monotonic() -> float:
    """Seconds of a clock that never goes back, for durations and deadlines."""
    return time.perf_counter()


def as_utc(at: datetime, *, name: str = "at") -> datetime:
    """`at` in UTC.

    Raises NaiveTime when it has no zone: an argument never gets a guessed one. Raises BadTime when it is, in UTC,
    before the year 1 or after 9999.
    """
    if at.tzinfo is None:
        raise NaiveTime(
            f"the time '{name}' is {at.isoformat()}, which has no zone.",
            expected=f"A zone is needed, for example {at.isoformat()}+00:00 or {at.isoformat()}Z.",
        )
    try:
        return at.astimezone(UTC)
    except OverflowError:
        raise BadTime(
            f"the time '{name}' is {at.isoformat()}, which lies outside of the years 1 to 9999 in UTC.",
            expected="An instant between 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z is expected.",
        ) from None


def parse_time(text: str, *, name: str = "at") -> datetime:
    """An ISO 8601 time with a zone, in UTC. Digits beyond microseconds are cut (toward the past).

    Raises BadTime when it cannot be read and NaiveTime when it has no zone.

    >>> parse_time("2013-04-01T02:00:00+02:00").isoformat()
    '2013-04-01T00:00:00+00:00'
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadTime(
            f"the time '{name}' is {text!r}, which cannot be read.",
            expected="ISO 8601 with a zone is expected, for example 2013-04-01T00:00:00Z.",
        ) from None
    return as_utc(at, name=name)


def to_us(at: datetime) -> int:
    """Microseconds since 1970-01-01T00:00Z of an aware time; exact."""
    return (as_utc(at) - EPOCH) // MICROSECOND


def from_us(us: int) -> datetime:
    """The aware UTC time `us` microseconds after 1970-01-01T00:00Z; exact."""
    return EPOCH + timedelta(microseconds=us)


def iso(at: datetime) -> str:
    """ISO 8601 in UTC with a Z, seconds unless there are microseconds."""
    return as_utc(at).isoformat().replace("+00:00", "Z")
