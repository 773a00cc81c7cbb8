"""The outcome: what a report says of how right the model was, and where to look when its own window cannot say."""

from __future__ import annotations

import numpy as np

from seatrial.core.windows import Window, parse_window
from seatrial.monitoring.looks.outcome import with_outcome
from tests.monitoring.pages.test_page import report
from tests.monitoring.worlds import DAY_US, START_US, a_sample


def of_weeks(weeks: int, *, labels_after_days: float):
    """100 predictions a day until 02:29 of the last day, each labelled so many days later; and that instant."""
    count, random = weeks * 700, np.random.default_rng(0)
    now_us = START_US + weeks * 7 * DAY_US + 149 * 60_000_000
    at_us = now_us - (count - np.arange(count)) * (DAY_US // 100)
    known_us = at_us + (labels_after_days * random.uniform(0.5, 1.0, count) * DAY_US).astype(np.int64)
    scores = np.clip(random.beta(2, 4, count), 0.01, 0.99)
    labels = np.where(known_us <= now_us, (random.random(count) < scores).astype(float), np.nan)
    return a_sample(scores, labels, at_us=at_us, known_us=known_us), now_us


def test_a_window_too_young_for_its_labels_names_the_newest_one_that_can_say_whether_the_world_changed():
    sample, now_us = of_weeks(6, labels_after_days=9)
    found = with_outcome(report(), sample, Window(now_us - 7 * DAY_US, now_us), now_us).concept
    assert found.verdict == "unknown"
    words, window = found.note.split("--window ")
    assert "the newest window of this length whose labels are there can say it" in words
    stretch = parse_window(window)
    assert stretch.end_us - stretch.start_us == 7 * DAY_US
    assert 8 * DAY_US < now_us - stretch.end_us < 10 * DAY_US
    assert with_outcome(report(), sample, stretch, now_us).concept.verdict == "same"


def test_no_window_is_named_where_none_could_say_it():
    sample, now_us = of_weeks(2, labels_after_days=9)
    found = with_outcome(report(), sample, Window(now_us - 7 * DAY_US, now_us), now_us).concept
    assert found.verdict == "unknown"
    assert "--window" not in found.note
