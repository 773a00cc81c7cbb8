"""Challenger against champion: a day is one observation, and looking often does not make a winner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from seatrial.core.windows import DAY_US, HOUR_US
from seatrial.retraining.comparison import DayGain, compare, ripe_after

START_US = 1_364_774_400_000_000


def world(days: int, gain: float, *, sd: float = 0.05, seed: int = 0, rows: int = 50):
    """(at, labels, champion, challenger): squared errors differ by `gain` a day on average, days differing by `sd`."""
    rng = np.random.default_rng(seed)
    at = START_US + np.repeat(np.arange(days), rows) * DAY_US + np.tile(np.arange(rows), days)
    labels = np.zeros(days * rows)
    of_day = np.repeat(rng.normal(gain, sd, days), rows)
    return at, labels, np.sqrt(1.0 + of_day), np.ones(days * rows)


def judged(data, *, days_known: int, judge_for: int = 60, min_days: int = 7, task="regression", **how):
    at, labels, champion, challenger = data
    return compare(
        model="late", task=task, champion="rel_a", challenger="rel_b", at_us=at, labels=labels,
        champion_scores=champion, challenger_scores=challenger, start_us=START_US,
        as_of_us=START_US + days_known * DAY_US, min_days=min_days, judge_for_us=judge_for * DAY_US, **how,
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


def test_too_early_says_how_many_days_the_verdict_itself_needs_and_when_they_will_be_there():
    looked = judged(world(4, 0.5), days_known=4, min_days=3)
    assert (looked.needed, looked.expected_on) == (6, "2013-04-07")
    assert looked.words == "too early: 4 of 6 whole days with labels, all of them about 2013-04-07"
    assert judged(world(6, 0.5), days_known=6, min_days=3).verdict == "better"


def test_days_that_come_late_or_are_thin_move_the_date():
    assert judged(world(4, 0.5), days_known=7).expected_on == "2013-04-11"  # labels take three days
    at, labels, champion, challenger = world(4, 0.5)
    labels = labels.copy()
    labels[:100] = np.nan  # two of four days are thin, so will be two of the next
    assert judged((at, labels, champion, challenger), days_known=4, min_days=3).expected_on == "2013-04-13"


def test_no_date_is_told_where_no_day_counts_yet_or_the_time_to_judge_ends_before():
    assert judged(world(4, 0.5), days_known=0).words == "too early: 0 of 7 whole days with labels"
    assert judged(world(4, 0.5), days_known=4, judge_for=5, min_days=3).expected_on == ""


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


def parcels(days=60, rows=400, seed=9):
    """(at, known, lost): a parcel that arrives is known to after two days, one that is lost after fourteen."""
    random = np.random.default_rng(seed)
    at = START_US + np.repeat(np.arange(days), rows) * DAY_US + np.tile(np.arange(rows) * (DAY_US // rows), days)
    lost = (random.random(at.size) < 0.1).astype(float)
    return at, at + np.where(lost == 1, 14, 2) * float(DAY_US), lost


def looked_at(days, *, wait=True, earlier=None):
    """A challenger that says too little of what is lost, seen after so many days."""
    at, known, lost = parcels()
    as_of = START_US + days * DAY_US
    labels = np.where(known <= as_of, lost, np.nan)
    data = at, labels, np.full(at.size, 0.1), np.full(at.size, 0.03)
    ripe = ripe_after(at, np.where(known <= as_of, known, np.nan), as_of, lost.astype(np.int64)) if wait else 0
    return judged(data, days_known=days, task="binary", ripe_after_us=ripe, earlier=earlier)


def test_labels_that_come_first_make_no_winner_of_whom_they_favour():
    assert looked_at(15, wait=False).verdict == "better"  # of most days only what arrived is known
    looked = [looked_at(days) for days in (16, 20, 24, 40)]
    assert [one.verdict for one in looked] == ["too early", "too early", "worse", "worse"]
    assert [len(one.days) for one in looked] == [2, 6, 10, 26]
    assert {one.ripening for one in looked} == {14}


def test_a_day_waits_for_the_rarest_outcome_and_not_for_labels_that_never_come():
    at, known, lost = parcels()
    as_of = int(at[-1])
    assert ripe_after(at, known, as_of, lost.astype(np.int64)) == 14 * DAY_US
    rare = np.where(np.cumsum(lost) % 4 == 0, lost, 0.0)  # one in forty
    known = at + np.where(rare == 1, 14, 2) * float(DAY_US)
    assert ripe_after(at, known, as_of) == 2 * DAY_US
    assert ripe_after(at, known, as_of, rare.astype(np.int64)) == 14 * DAY_US
    known[::3] = np.nan
    assert ripe_after(at, known, as_of, rare.astype(np.int64)) == 14 * DAY_US
    assert ripe_after(at, np.full(at.size, np.nan), as_of) == 0
    assert ripe_after(at[:0], known[:0], as_of) == 0


def test_what_became_known_later_than_now_says_nothing_of_how_late_labels_are():
    at, known, _ = parcels()
    assert ripe_after(at, known, START_US + 10 * DAY_US) == 2 * DAY_US


def test_a_day_keeps_the_value_with_which_it_was_counted():
    at, labels, champion, challenger = world(20, 0.2)
    first = judged((at, labels, champion, challenger), days_known=12, ripe_after_us=2 * DAY_US)
    assert len(first.days) == 10
    other = labels + 0.5 * ((at - START_US) // DAY_US == 3)  # the fourth day's were corrected
    anew = judged((at, other, champion, challenger), days_known=20, ripe_after_us=2 * DAY_US)
    then = judged((at, other, champion, challenger), days_known=20, ripe_after_us=2 * DAY_US, earlier=first)
    assert anew.days[3] != first.days[3]
    assert then.days[:10] == first.days
    assert then.days[10:] == anew.days[10:]
    slower = judged((at, labels, champion, challenger), days_known=13, ripe_after_us=8 * DAY_US, earlier=first)
    assert (slower.days, slower.ripening) == (first.days, 3)


def test_a_look_at_other_releases_or_from_before_days_had_to_be_ripe_holds_nothing_back():
    data = world(20, 0.2)
    first = judged(data, days_known=12)
    odd = [DayGain(one.start, one.rows, 9.0) for one in first.days]
    for changed in (
        {"challenger": "rel_c"},
        {"ripe_hours": None},
        {"shadow": "live"},
        {"start": "2013-04-01T00:00:01Z"},
    ):
        earlier = replace(first, days=odd, **changed)
        assert judged(data, days_known=12, earlier=earlier) == first


def test_the_end_waits_until_the_last_day_is_ripe():
    data = world(60, 0.002)
    looked = judged(data, days_known=60, ripe_after_us=6 * HOUR_US)
    assert (len(looked.days), looked.ripening, looked.final) == (59, 1, False)
    assert looked.words.endswith("; days that still ripen: 1 (6h until their labels are there)")
    after = judged(data, days_known=61, ripe_after_us=6 * HOUR_US, earlier=looked)
    assert (len(after.days), after.ripening, after.final) == (60, 0, True)


def test_a_loss_that_went_up_is_told_as_higher_with_the_interval_of_what_the_words_name():
    looked = replace(judged(world(10, 0.0), days_known=10), gain=-0.0406, low=-0.07, high=0.0, verdict="inconclusive")
    assert "squared_error higher by 0.0406 a day on average (95 % between 0.0000 and 0.0700)" in looked.words
    looked = replace(looked, gain=0.0406, low=-0.01, high=0.07)
    assert "squared_error lower by 0.0406 a day on average (95 % between -0.0100 and 0.0700)" in looked.words


def test_when_the_verdict_is_due_is_told_before_the_first_day_is_ripe():
    looked = judged(world(4, 0.5), days_known=4, min_days=3, ripe_after_us=5 * DAY_US)
    assert looked.words == (
        "too early: 0 of 6 whole days with labels, all of them about 2013-04-12; days that still ripen: 4 "
        "(5d until their labels are there)"
    )


def test_a_challenger_of_a_quantile_is_judged_by_the_loss_of_that_quantile():
    at, *_ = world(20, 0.0)
    labels = 10 + 3 * np.random.default_rng(8).normal(size=at.size)  # the spread grew, from 1 to 3
    champion, challenger = np.full(at.size, 10 + 1.28), np.full(at.size, 10 + 3 * 1.28)
    found = judged((at, labels, champion, challenger), days_known=20, quantile=0.9)
    assert (found.loss, found.verdict) == ("quantile_loss", "better")
    metrics = found.champion_metrics["quantile_loss"], found.challenger_metrics["quantile_loss"]
    assert found.gain == pytest.approx(metrics[0] - metrics[1])
    assert judged((at, labels, champion, challenger), days_known=20).verdict == "worse"  # of a mean it is


@pytest.mark.slow
def test_looking_every_day_at_equal_models_calls_a_winner_in_at_most_three_of_a_hundred():
    wrong = 0
    for seed in range(400):
        data = world(30, 0.0, seed=seed, rows=30)
        wrong += any(judged(data, days_known=days).verdict in ("better", "worse") for days in range(7, 31))
    assert wrong <= 400 * 0.03


@pytest.mark.slow
def test_labels_that_come_first_call_a_winner_of_equals_in_at_most_three_of_a_hundred():
    """Of one parcel in ten that is lost .06 says as much too little as .1526 says too much."""
    wrong = {0: 0, 14 * DAY_US: 0}
    for seed in range(100):
        at, known, lost = parcels(days=30, rows=60, seed=seed)
        scores = np.full(at.size, 0.06), np.full(at.size, 0.1526)
        for ripe in wrong:
            looked, verdicts = None, []
            for days in range(15, 45):
                labels = np.where(known <= START_US + days * DAY_US, lost, np.nan)
                looked = judged(
                    (at, labels, *scores), days_known=days, judge_for=30, task="binary", ripe_after_us=ripe,
                    earlier=looked if ripe else None,
                )  # fmt: skip
                verdicts.append(looked.verdict)
            wrong[ripe] += bool({"better", "worse"} & {*verdicts})
    assert wrong[0] > 90
    assert wrong[14 * DAY_US] <= 3


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


def sliced(days=10, rows=200, harm=0.0, seed=5):
    """Labels of two places, and scores of a champion and of a challenger that is better, but not in the south."""
    random = np.random.default_rng(seed)
    n = days * rows
    at = START_US + np.repeat(np.arange(days), rows) * DAY_US + np.tile(np.arange(rows), days)
    truth = random.uniform(0.05, 0.95, n)
    labels = (random.random(n) < truth).astype(float)
    where = np.where(np.arange(n) % 4 == 0, "south", "north")
    challenger = np.where(where == "south", np.clip(truth * (1 - harm) + harm * 0.5, 0.01, 0.99), truth)
    return (at, labels, np.clip(0.4 * truth + 0.3, 0, 1), challenger), {"where": where}


def test_a_challenger_that_is_better_and_keeps_every_margin_changes_nothing_significant():
    data, slices = sliced()
    looked = judged(
        data, days_known=10, task="binary", slices=slices, margins={"log_loss": 0.02, "positive_rate": 0.05}
    )
    assert (looked.verdict, looked.significant) == ("better", [])
    assert [(one.what, one.where) for one in looked.changes] == [
        ("log_loss", "all rows"), ("positive_rate", "all rows"), ("log_loss", "where=north"),
        ("positive_rate", "where=north"), ("log_loss", "where=south"), ("positive_rate", "where=south"),
    ]  # fmt: skip


def test_a_slice_that_got_worse_is_significant_also_when_the_whole_is_better():
    data, slices = sliced(days=20, harm=0.9)
    looked = judged(data, days_known=20, task="binary", slices=slices, margins={"log_loss": 0.02, "roc_auc": 0.5})
    assert looked.verdict == "better"
    (change,) = looked.significant
    assert (change.what, change.where, change.rows) == ("log_loss", "where=south", 1000)
    south = slices["where"] == "south"
    _, labels, champion, challenger = data
    loss = [-np.mean(np.where(labels == 1, np.log(p), np.log(1 - p))[south]) for p in (champion, challenger)]
    assert change.worse == pytest.approx(loss[1] - loss[0])
    assert "needs a person" in looked.words


def test_a_share_of_decisions_that_moves_either_way_is_significant():
    data, _ = sliced()
    one = judged(data, days_known=10, task="binary", margins={"positive_rate": 0.05}, thresholds=(0.5, 0.3))
    other = judged(data, days_known=10, task="binary", margins={"positive_rate": 0.05}, thresholds=(0.3, 0.5))
    for looked in (one, other):
        (change,) = looked.significant
        assert abs(change.challenger - change.champion) == pytest.approx(change.worse)


def test_a_slice_of_few_rows_is_told_and_not_judged():
    data, slices = sliced(days=7, rows=40, harm=0.9)
    looked = judged(data, days_known=7, task="binary", slices=slices, margins={"log_loss": 0.001})
    assert {one.where: one.state for one in looked.changes}["where=south"] == "too few"


def test_margins_of_a_regression_and_of_several_classes_look_at_what_these_have():
    looked = judged(world(10, 0.2), days_known=10, margins={"mean_prediction": 0.1, "rmse": 1.0, "roc_auc": 0.1})
    assert [(one.what, one.state) for one in looked.changes] == [("mean_prediction", "within"), ("rmse", "within")]
    random = np.random.default_rng(4)
    at, *_ = world(10, 0.0)
    champion, challenger = random.dirichlet([1, 1, 1], 500), random.dirichlet([5, 1, 1], 500)
    looked = judged(
        (at, random.integers(0, 3, 500).astype(float), champion, challenger), days_known=10, task="multiclass",
        margins={"positive_rate": 0.1},
    )  # fmt: skip
    (change,) = looked.significant
    assert change.challenger - change.champion > 0.3
