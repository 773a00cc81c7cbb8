"""Challenger against champion: a day is one observation, and looking often does not make a winner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.retraining.comparison import DAY_US, compare

START_US = 1_364_774_400_000_000


def world(days: int, gain: float, *, sd: float = 0.05, seed: int = 0, rows: int = 50):
    """(at, labels, champion, challenger): squared errors differ by `gain` a day on average, days differing by `sd`."""
    rng = np.random.default_rng(seed)
    at = START_US + np.repeat(np.arange(days), rows) * DAY_US + np.tile(np.arange(rows), days)
    labels = np.zeros(days * rows)
    of_day = np.repeat(rng.normal(gain, sd, days), rows)
    return at, labels, np.sqrt(1.0 + of_day), np.ones(days * rows)


def judged(data, *, days_known: int, judge_for: int = 60, min_days: int = 7, task="regression"):
    at, labels, champion, challenger = data
    return compare(
        model="late", task=task, champion="rel_a", challenger="rel_b", at_us=at, labels=labels,
        champion_scores=champion, challenger_scores=challenger, start_us=START_US,
        as_of_us=START_US + days_known * DAY_US, min_days=min_days, judge_for_us=judge_for * DAY_US,
    )  # fmt: skip


def test_a_clear_gain_is_better_and_a_clear_loss_is_worse():
    assert judged(world(30, 0.2), days_known=30).verdict == "better"
    assert judged(world(30, -0.2), days_known=30).verdict == "worse"


def test_a_gain_within_the_noise_of_days_is_inconclusive_and_final_at_the_end():
    looked = judged(world(60, 0.002), days_known=59)
    assert (looked.verdict, looked.final) == ("inconclusive", False)
    assert judged(world(60, 0.002), days_known=60).final


def test_there_is_no_verdict_before_enough_whole_days():
    assert judged(world(6, 0.5), days_known=6).verdict == "too early"
    assert judged(world(7, 0.5), days_known=7).verdict == "better"


def test_a_day_that_is_not_over_does_not_count():
    at, *rest = world(10, 0.2)
    looked = compare(
        model="late", task="regression", champion="a", challenger="b", at_us=at, labels=rest[0],
        champion_scores=rest[1], challenger_scores=rest[2], start_us=START_US,
        as_of_us=START_US + 9 * DAY_US + DAY_US // 2, min_days=7, judge_for_us=60 * DAY_US,
    )  # fmt: skip
    assert len(looked.days) == 9


def test_rows_without_label_or_score_do_not_count_and_thin_days_are_left_out():
    at, labels, champion, challenger = world(10, 0.2)
    labels = labels.copy()
    labels[:30] = np.nan  # of the first day's 50 rows
    looked = judged((at, labels, champion, challenger), days_known=10)
    assert len(looked.days) == 9
    assert looked.rows == 470  # they still count in the metrics over all rows


def test_no_row_at_all_is_too_early_and_not_an_error():
    empty = np.array([], dtype=np.int64), np.array([]), np.array([]), np.array([])
    looked = judged(empty, days_known=10)
    assert (looked.verdict, looked.gain, looked.rows) == ("too early", None, 0)


def test_the_gain_is_the_mean_of_daily_log_loss_differences():
    rng = np.random.default_rng(3)
    at, labels, *_ = world(8, 0)
    labels = (rng.random(labels.size) < 0.3).astype(float)
    champion, challenger = rng.uniform(0.05, 0.95, (2, labels.size))
    looked = judged((at, labels, champion, challenger), days_known=8, task="binary")
    loss = [-np.where(labels == 1, np.log(p), np.log(1 - p)) for p in (champion, challenger)]
    by_day = [(loss[0] - loss[1])[day * 50 : (day + 1) * 50].mean() for day in range(8)]
    assert looked.gain == pytest.approx(np.mean(by_day))
    assert [one.gain for one in looked.days] == pytest.approx(by_day)
    assert looked.challenger_metrics["log_loss"] == pytest.approx(loss[1].mean())


def test_looking_every_week_at_equal_models_calls_a_winner_in_at_most_one_of_twenty():
    wrong = 0
    for seed in range(400):
        data = world(60, 0.0, seed=seed, rows=30)
        wrong += any(
            judged(data, days_known=days).verdict in ("better", "worse") for days in (14, 21, 28, 35, 42, 49, 56, 60)
        )
    assert wrong <= 400 * 0.05 + 9  # two standard errors above


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-0.3, 0.3))
def test_swapping_the_models_swaps_the_verdict(seed, gain):
    at, labels, champion, challenger = world(20, gain, seed=seed)
    one = judged((at, labels, champion, challenger), days_known=20)
    other = judged((at, labels, challenger, champion), days_known=20)
    assert one.gain == pytest.approx(-other.gain)
    swapped = {"better": "worse", "worse": "better"}
    assert other.verdict == swapped.get(one.verdict, one.verdict)


def test_several_classes_are_compared_by_the_probability_of_what_happened():
    random = np.random.default_rng(4)
    rows, days = 50, 10
    at = START_US + np.repeat(np.arange(days), rows) * DAY_US + np.tile(np.arange(rows), days)
    labels = random.integers(0, 3, rows * days).astype(float)
    labels[::7] = np.nan
    sure = np.where(np.isnan(labels), 0, labels).astype(int)
    champion = np.full((rows * days, 3), 1 / 3)
    challenger = np.full((rows * days, 3), 0.2)
    challenger[np.arange(rows * days), sure] = 0.6
    found = judged((at, labels, champion, challenger), days_known=days, task="multiclass")
    assert (found.loss, found.verdict) == ("log_loss", "better")
    assert found.days[0].gain == pytest.approx(np.log(0.6) - np.log(1 / 3))
    assert found.rows == int((~np.isnan(labels)).sum())
    assert found.challenger_metrics["accuracy"] == 1.0
