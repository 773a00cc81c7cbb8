"""Times: what is read, what is refused, and that nothing is lost on the way to microseconds and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.clock import (
    BadTime,
    FixedClock,
    MachineClock,
    NaiveTime,
    as_utc,
    from_us,
    iso,
    machine_time,
    machine_us,
    monotonic,
    parse_time,
    to_us,
)
from seatrial.testing import FakeClock

zones = st.sampled_from([UTC, ZoneInfo("America/New_York"), ZoneInfo("Asia/Kathmandu"), timezone(timedelta(hours=-11))])
instants = st.datetimes(datetime(1901, 1, 1), datetime(2200, 1, 1), timezones=zones)


@given(instants)
def test_an_instant_survives_microseconds_text_and_zones(at):
    assert from_us(to_us(at)) == as_utc(at)
    assert parse_time(iso(at)) == as_utc(at)
    assert as_utc(at).tzinfo is UTC
    assert iso(at).endswith("Z")


@given(instants, instants)
def test_microseconds_order_as_the_instants_do(one, other):
    # in UTC: Python compares two times of one zone by their wall clocks, also where that clock went back
    assert (to_us(one) < to_us(other)) == (one.astimezone(UTC) < other.astimezone(UTC))


def test_the_repeated_hour_of_autumn_is_two_hours():
    new_york = ZoneInfo("America/New_York")
    first, second = (datetime(2013, 11, 3, 1, 30, tzinfo=new_york, fold=fold) for fold in (0, 1))
    assert to_us(second) - to_us(first) == 3_600_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2013-04-01T02:00:00+02:00", "2013-04-01T00:00:00Z"),
        ("2013-04-01T00:00:00Z", "2013-04-01T00:00:00Z"),
        ("2013-04-01T00:00:00.123456789Z", "2013-04-01T00:00:00.123456Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times_with_a_zone_are_read_as_utc_with_microseconds(text, expected):
    assert iso(parse_time(text)) == expected


@pytest.mark.parametrize("text", ["2013-04-01", "2013-04-01T00:00:00", "20130401T00"])
def test_a_time_without_zone_is_refused(text):
    with pytest.raises(NaiveTime, match="cutoff"):
        parse_time(text, name="cutoff")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2013-02-29T00:00:00Z",
        "2013-04-01T25:00:00Z",
        "1364774400",
        "9999-12-31T23:00:00-05:00",
        "0001-01-01T00:00:00+05:00",
    ],
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(BadTime):
        parse_time(text)


def test_a_naive_datetime_is_refused_everywhere():
    naive = datetime(2013, 4, 1)
    for take in (as_utc, to_us, iso, FixedClock, FakeClock):
        with pytest.raises(NaiveTime):
            take(naive)


def test_a_fixed_clock_stands_still():
    clock = FixedClock(datetime(2013, 4, 1, 2, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == clock.now() == datetime(2013, 4, 1, tzinfo=UTC)


def test_a_fake_clock_moves_only_when_told_to():
    clock = FakeClock("2013-04-01T02:00:00+02:00")
    assert clock.now() == clock.now() == datetime(2013, 4, 1, tzinfo=UTC)
    assert clock.advance("1d12h") == clock.now() == datetime(2013, 4, 2, 12, tzinfo=UTC)
    assert clock.advance(timedelta(hours=-12)) == datetime(2013, 4, 2, tzinfo=UTC)
    assert clock.set("2013-01-01T00:00:00Z") == clock.now() == datetime(2013, 1, 1, tzinfo=UTC)


def test_the_machine_has_one_time():
    before, us, clock, after = machine_time(), machine_us(), MachineClock().now(), machine_time()
    assert to_us(before) <= us + 1000
    assert before <= clock <= after + timedelta(seconds=1)
    assert monotonic() <= monotonic()
