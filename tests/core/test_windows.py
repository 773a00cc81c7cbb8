"""Durations and windows: exact, and read back as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.errors import UsageError
from seatrial.core.windows import BadDuration, Window, duration_text, duration_us, parse_window

YEAR_2200 = 7_258_118_400_000_000


@given(st.integers(1, 10**18))
def test_a_duration_is_read_back_as_it_was_written(us):
    assert duration_us(duration_text(us)) == us


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("24h", 86_400), ("1d", 86_400), ("2w", 1_209_600), ("1d12h", 129_600), ("5m", 300)],
)
def test_a_day_is_24_hours(text, seconds):
    assert duration_us(text) == seconds * 1_000_000


@pytest.mark.parametrize(
    "text",
    ["", "0s", "1", "h", "1.5h", "-1h", "1 h", "1h ", "1mo", "1y", "1H", "1d,2h", "١h", "9" * 5000 + "h"],
    ids=lambda text: ascii(text)[:20],
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(BadDuration):
        duration_us(text)


@given(st.integers(-(10**15), YEAR_2200), st.integers(1, 10**15))
def test_a_window_is_read_back_as_it_was_written(start, length):
    window = Window(start, start + length)
    assert parse_window(str(window)) == window


def test_a_bare_date_is_midnight_utc():
    assert str(parse_window("2013-04-01/2013-05-01T02:00:00+02:00")) == "2013-04-01T00:00:00Z/2013-05-01T00:00:00Z"


@pytest.mark.parametrize(
    "text", ["2013-04-01", "2013-04-01/2013-04-01", "2013-05-01/2013-04-01", "/", "2013-04-01/2013-05-01/2013-06-01"]
)
def test_a_window_without_a_later_end_is_refused(text):
    with pytest.raises(UsageError):
        parse_window(text)
