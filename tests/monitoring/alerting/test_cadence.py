"""Cadence: what stops coming is noticed, and what never was regular raises no alarm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.windows import DAY_US, HOUR_US
from seatrial.monitoring.alerting.cadence import FORGOTTEN_US, WEEK_US, judged, usual, volume

NOW = 20_000 * DAY_US
DAILY = [NOW - back * DAY_US for back in range(1, 15)]


def labels(times, now_us=NOW, **named):
    return judged("late", "labels", times, now_us, **named)


def test_labels_that_came_every_day_and_stay_away_are_missed():
    times = [NOW - back * DAY_US for back in range(4, 20)]
    one = labels(times)
    assert (one.state, one.expected, one.alarm) == ("missed", "1d", "no labels")
    assert one.words == "the labels of 'late' have not come for 4 days; usually every day"


def test_labels_that_came_yesterday_are_on_time():
    one = labels(DAILY)
    assert (one.state, one.words) == ("on time", "the labels of 'late': last 1 day ago, usually every day")


@pytest.mark.parametrize("times", [[], [NOW - DAY_US], DAILY[:4]])
def test_what_came_seldom_or_never_is_not_expected_and_that_is_said(times):
    one = labels(times)
    assert one.state == "not expected"
    assert one.words


def test_an_evening_of_trying_things_out_is_no_habit():
    evening = [NOW - 10 * DAY_US + minute * 60_000_000 for minute in range(0, 110, 5)]
    assert labels(evening).state == "not expected"


def test_weekends_are_no_silence():
    working = [NOW - day * DAY_US for day in range(60) if day % 7 not in (5, 6)]
    monday = [time for time in working if time <= NOW - 3 * DAY_US]
    assert labels(monday).state == "on time"
    assert labels([time for time in working if time <= NOW - 7 * DAY_US]).state == "missed"


def test_one_outage_in_the_past_does_not_hide_the_next():
    times = [NOW - (back if back < 20 else back + 30) * HOUR_US for back in range(5, 60)]
    assert labels(times).state == "missed"


def test_what_is_declared_counts_also_without_a_history():
    assert labels([], declared_us=DAY_US, since_us=NOW - 2 * DAY_US).state == "missed"
    assert labels([], declared_us=DAY_US, since_us=NOW - HOUR_US).state == "on time"
    assert labels([], declared_us=DAY_US).state == "not expected"
    one = labels(DAILY, declared_us=HOUR_US)
    assert (one.state, one.declared) == ("missed", True)
    assert "expected every hour" in one.words


def test_what_was_forgotten_for_two_months_is_expected_only_when_it_is_declared():
    old = [time - FORGOTTEN_US for time in DAILY]
    assert labels(old).state == "not expected"
    assert labels(old, declared_us=DAY_US).state == "missed"


def test_a_clock_that_was_put_back_concludes_nothing():
    one = labels(DAILY, NOW - 100 * DAY_US, declared_us=DAY_US)
    assert one.state == "from the future"
    assert "nothing is concluded" in one.words


def test_times_after_now_are_left_out():
    assert labels([*DAILY, NOW + DAY_US, NOW + 2 * DAY_US]).last_at == labels(DAILY).last_at


@given(st.lists(st.integers(0, 2000), max_size=60), st.integers(0, 3000))
def test_what_comes_in_any_order_is_judged_alike_and_never_fails(hours, now_hour):
    times = [hour * HOUR_US for hour in hours]
    one = labels(times, now_hour * HOUR_US)
    assert one == labels(sorted(times, reverse=True), now_hour * HOUR_US)
    assert one == labels([*times, *times], now_hour * HOUR_US)
    if one.state == "missed":
        assert now_hour - max(hour for hour in hours if hour <= now_hour) > 1


@pytest.mark.parametrize("every_h", [1, 24, 168])
def test_a_regular_thing_raises_no_alarm_and_its_end_one_within_twice_its_gap(every_h):
    random = np.random.default_rng(1)
    times = np.cumsum(random.uniform(0.8, 1.2, 60) * every_h * HOUR_US).astype(int) + NOW
    for place in range(6, 60):
        before = int(times[place]) - 1
        if before - int(times[place - 1]) <= FORGOTTEN_US:
            assert labels(times[:place].tolist(), before).state != "missed"
    assert labels(times.tolist(), int(times[-1]) + int(3 * every_h * HOUR_US)).state == "missed"


def test_usual_is_the_median_gap_and_twice_the_longest():
    assert usual(sorted(DAILY)) == (DAY_US, 2 * DAY_US)
    assert usual(DAILY[:5]) is None


# Predictions


def predictions(last_us, *, same_time=None, days=()):
    return volume("late", last_us, NOW, same_time=same_time or {}, days=days)


def test_predictions_that_fall_to_zero_are_missed_when_the_same_hours_before_had_many():
    one = predictions(NOW - HOUR_US, same_time={"weeks": [400, 380, 420, 0]})
    assert (one.state, one.alarm) == ("missed", "no predictions")
    assert one.words == ("'late' has made no prediction for 1 hour; in the same hours of the weeks before it made 390")


def test_a_quiet_night_is_no_silence():
    nights = [NOW - back * DAY_US for back in range(20)]
    assert predictions(NOW - 8 * HOUR_US, same_time={"weeks": [0, 1, 0, 0]}, days=nights).state == "on time"


def test_a_service_that_is_asked_once_a_day_is_missed_after_some_days():
    days = [NOW - back * DAY_US for back in range(4, 30)]
    assert predictions(NOW - 4 * DAY_US, days=days).state == "missed"
    assert predictions(NOW - DAY_US, days=[NOW - back * DAY_US for back in range(1, 30)]).state == "on time"


def test_a_model_that_never_predicted_is_not_expected_to():
    assert predictions(None).state == "not expected"
    assert predictions(NOW - WEEK_US, days=[NOW - WEEK_US]).state == "not expected"
