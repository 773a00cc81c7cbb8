"""The outcome: what a report says of how right the model was, and where to look when its own window cannot say."""

from __future__ import annotations

import numpy as np

from seatrial.core.windows import Window, parse_window
from seatrial.monitoring.looks.arrival import arrival
from seatrial.monitoring.looks.outcome import with_outcome
from tests.monitoring.pages.test_page import report
from tests.monitoring.worlds import DAY_US, START_US, a_sample


def of_weeks(weeks: int, *, labels_after_days: float, nothing_for_days: int = 0):
    """100 predictions a day until 02:29 of the last day, each labelled so many days later; and that instant.

    nothing_for_days: for so long nothing happens any more, whatever the score."""
    count, random = weeks * 700, np.random.default_rng(0)
    now_us = START_US + weeks * 7 * DAY_US + 149 * 60_000_000
    at_us = now_us - (count - np.arange(count)) * (DAY_US // 100)
    known_us = at_us + (labels_after_days * random.uniform(0.5, 1.0, count) * DAY_US).astype(np.int64)
    scores = np.clip(random.beta(2, 4, count), 0.01, 0.99)
    happened = (random.random(count) < scores) & (at_us < now_us - nothing_for_days * DAY_US)
    labels = np.where(known_us <= now_us, happened.astype(float), np.nan)
    return a_sample(scores, labels, at_us=at_us, known_us=known_us), now_us


def looked(made, sample, window, now_us):
    return with_outcome(made, sample, window, now_us, arrival(sample, window, now_us))


def test_a_window_too_young_for_its_labels_tells_what_the_newest_one_says_whose_labels_are_there():
    sample, now_us = of_weeks(6, labels_after_days=9)
    found = looked(report(), sample, Window(now_us - 7 * DAY_US, now_us), now_us).concept
    stretch = parse_window(found.window)
    assert stretch.end_us - stretch.start_us == 7 * DAY_US
    assert 8 * DAY_US < now_us - stretch.end_us < 10 * DAY_US
    assert "in the newest window of this length whose labels are there" in found.words
    assert "of this window itself: not enough data" in found.note
    its_own = looked(report(), sample, stretch, now_us).concept
    assert (found.verdict, its_own.verdict, its_own.window) == ("same", "same", "")
    assert found.parts == its_own.parts


def test_a_young_window_is_not_ok_when_the_newest_one_with_labels_shows_another_world():
    sample, now_us = of_weeks(6, labels_after_days=9, nothing_for_days=17)
    made = looked(report(verdict="ok"), sample, Window(now_us - 7 * DAY_US, now_us), now_us)
    assert (made.concept.verdict, made.verdict) == ("changed", "watch")
    assert "whose labels are there" in made.headline


def test_no_other_window_is_looked_at_where_none_could_say_it():
    sample, now_us = of_weeks(2, labels_after_days=9)
    found = looked(report(), sample, Window(now_us - 7 * DAY_US, now_us), now_us).concept
    assert found.verdict == "unknown"
    assert found.window == ""
