"""Timings: which instants an interval and a cron expression have, also where clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.timing import MOST_COUNTED, BadTiming, Timing

BERLIN = "Europe/Berlin"
HOUR = 3_600_000_000


def us(text):
    return to_us(parse_time(text))


def next_of(timing, start, count):
    found, at = [], us(start)
    for _ in range(count):
        at = timing.after(at)
        found.append(iso(from_us(at)))
    return found


def test_an_interval_is_every_multiple_since_1970():
    assert next_of(Timing(every="1h"), "2024-03-01T10:20:30Z", 2) == ["2024-03-01T11:00:00Z", "2024-03-01T12:00:00Z"]
    assert next_of(Timing(every="7d"), "1970-01-01T00:00:00Z", 1) == ["1970-01-08T00:00:00Z"]
    assert Timing(every="90s").latest(us("1970-01-01T00:02:59Z")) == 90_000_000


def test_an_instant_is_not_after_itself_and_is_the_latest_at_itself():
    for timing in (Timing(every="1h"), Timing(cron="0 * * * *"), Timing(cron="0 * * * *", timezone=BERLIN)):
        at = us("2024-03-01T10:00:00Z")
        assert timing.latest(at) == at
        assert timing.latest(at - 1) == at - HOUR
        assert timing.after(at) == at + HOUR
        assert timing.after(at - 1) == at


def test_a_time_that_does_not_exist_comes_when_clocks_have_gone_forward():
    timing = Timing(cron="30 2 * * *", timezone=BERLIN)  # 29 March 2026: 02:00 is 03:00
    assert next_of(timing, "2026-03-27T12:00:00Z", 3) == [
        "2026-03-28T01:30:00Z",
        "2026-03-29T01:00:00Z",  # 03:00 in Berlin
        "2026-03-30T00:30:00Z",
    ]


def test_two_times_that_do_not_exist_come_as_one():
    timing = Timing(cron="10,50 2 * * *", timezone=BERLIN)
    assert next_of(timing, "2026-03-28T12:00:00Z", 2) == ["2026-03-29T01:00:00Z", "2026-03-30T00:10:00Z"]


def test_a_time_that_occurs_twice_comes_at_the_first():
    timing = Timing(cron="30 2 * * *", timezone=BERLIN)  # 25 October 2026: 03:00 is 02:00
    assert next_of(timing, "2026-10-24T12:00:00Z", 2) == ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
    assert next_of(timing, "2026-10-25T01:10:00Z", 1) == ["2026-10-26T01:30:00Z"]  # asked in the second hour


def test_what_follows_the_clock_comes_in_both_of_two_equal_hours_and_not_in_the_one_left_out():
    timing = Timing(cron="*/30 * * * *", timezone=BERLIN)
    both = next_of(timing, "2026-10-24T23:59:00Z", 5)
    assert both == [f"2026-10-25T{time}:00Z" for time in ("00:00", "00:30", "01:00", "01:30", "02:00")]
    assert next_of(timing, "2026-03-29T00:20:00Z", 3) == [
        f"2026-03-29T{time}:00Z" for time in ("00:30", "01:00", "01:30")
    ]


@given(
    at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    cron=st.sampled_from(["30 2 * * *", "0 3 * * 1", "*/15 * * * *", "15 1-3 * * *", "0 0 1 * *", "5 2 L * *"]),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
)
def test_latest_and_after_enclose_any_instant(at, cron, zone):
    timing = Timing(cron=cron, timezone=zone)
    now = to_us(at)
    latest, after = timing.latest(now), timing.after(now)
    assert latest is not None
    assert latest <= now < after
    assert timing.after(latest) == after  # nothing lies between
    assert timing.latest(after) == after
    assert timing.between(latest - 1, after) == (2, after)


@given(at=st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)))
def test_a_daily_time_comes_once_on_each_day_of_the_zone(at):
    zone = ZoneInfo(BERLIN)
    start = datetime(at.year, at.month, at.day, tzinfo=zone)
    end = (start + timedelta(days=2)).astimezone(UTC)
    count, _ = Timing(cron="30 2 * * *", timezone=BERLIN).between(to_us(start) - 1, to_us(end) - 1)
    assert count == 2


def test_many_instants_are_counted_up_to_a_limit_and_the_last_is_exact():
    end = us("2024-03-01T00:00:30Z")
    minute = Timing(cron="* * * * *", timezone=BERLIN)
    assert minute.between(end - 24 * 366 * HOUR, end) == (MOST_COUNTED, us("2024-03-01T00:00:00Z"))
    assert minute.between(end, end - HOUR) == (0, None)  # the clock went back
    assert Timing(every="1s").between(0, 10**15) == (MOST_COUNTED, 10**15)


def test_the_leap_day_is_found_eight_years_back():
    assert Timing(cron="0 0 29 2 *").latest(us("1903-06-01T00:00:00Z")) == us("1896-02-29T00:00:00Z")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({}, "every=''"),
        ({"every": "1h", "cron": "0 * * * *"}, "Exactly one"),
        ({"every": "0h"}, "0h"),
        ({"every": "soon"}, "soon"),
        ({"every": "10ms"}, "At least 1s"),
        ({"every": "1h", "timezone": BERLIN}, "no zone"),
        ({"cron": "61 * * * *"}, "bad minute"),
        ({"cron": "* * * *"}, "Five fields"),
        ({"cron": "* * * * * *"}, "Five fields"),
        ({"cron": "@daily"}, "Five fields"),
        ({"cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"cron": "0 0 31 4,6,9,11 *"}, "bad day-of-month"),
        ({"cron": "0 0 * * MOON"}, "bad day-of-week"),
        ({"cron": 5}, "Five fields"),
        ({"cron": "0 3 * * *", "timezone": "Europe/Berln"}, "Europe/Berln"),
        ({"cron": "0 3 * * *", "timezone": "../../etc/passwd"}, "no zone"),
        ({"cron": "0 3 * * *", "timezone": ""}, "no zone"),
    ],
)
def test_what_never_comes_or_cannot_be_read_is_refused(wrong, words):
    with pytest.raises(BadTiming) as refused:
        Timing(**wrong)
    assert words in str(refused.value)
