from __future__ import annotations

import numpy as np
import pytest

from seatrial.core.windows import DAY_US
from seatrial.stats.season import MONDAY_US, WEEK_US, learn, left_out, slots

HOUR_US = DAY_US // 24


def starts(hours, first=MONDAY_US):
    return first + np.arange(hours) * HOUR_US


def test_the_week_begins_on_monday_in_utc():
    assert slots(np.array([MONDAY_US, MONDAY_US + DAY_US, MONDAY_US - 1, 0]), DAY_US).tolist() == [0, 1, 6, 3]


def test_a_week_that_repeats_itself_is_learned_exactly():
    week = np.sin(np.arange(168)) + (np.arange(168) // 24 == 5)
    values = np.tile(week, 4)[:, None]
    assert learn(values, starts(672), HOUR_US).usual.ravel() == pytest.approx(week, abs=1e-6)
    assert np.abs(left_out(values, starts(672), HOUR_US)).max() < 1e-6


def test_of_noise_alone_next_to_nothing_of_single_hours_is_believed():
    values = np.random.default_rng(3).normal(size=(672, 40))
    single = np.sqrt((learn(values, starts(672), HOUR_US).usual ** 2).mean())
    assert single < 0.3  # the plain means of four weeks have 0.5


def test_weeks_left_out_lie_as_far_away_as_new_weeks_will():
    random = np.random.default_rng(4)
    hour = np.arange(1344)
    values = np.sin(2 * np.pi * hour / 24)[:, None] + random.normal(size=(1344, 60))
    usual = learn(values[:672], starts(672), HOUR_US)
    new = values[672:] - usual.at(starts(672, MONDAY_US + 4 * WEEK_US))
    old = left_out(values[:672], starts(672), HOUR_US)
    assert old.std() == pytest.approx(new.std(), rel=0.02)


def test_hours_never_seen_are_usual_by_hour_and_day_and_a_series_without_values_stays_unknown():
    hour = np.arange(336)
    values = np.column_stack([hour % 24 + 10.0 * (hour // 24 % 7), np.full(336, np.nan)])
    values[[30, 198], 0] = np.nan  # one hour of the week, both times
    usual = learn(values, starts(336), HOUR_US).usual
    assert usual[30, 0] == pytest.approx(6 + 10, abs=0.01)
    assert np.isnan(usual[:, 1]).all()
