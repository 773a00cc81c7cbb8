"""Triggers: they look, with what was known then, and say why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.windows import Window
from seatrial.retraining.definition import BadRetrain, Retrain, Trigger
from seatrial.retraining.triggers import Labelled, OpenAlert, Seen, gap_of, judged_window, look

DAY_US = 86_400_000_000
NOW_US = 1_367_208_000_000_000
PER_DAY = 100


def predictions(rate_by_day, *, score=0.2, lag_us=3_600_000_000) -> Labelled:
    """The days before now, oldest first, each with 100 rows of a given observed rate."""
    days = len(rate_by_day)
    at = NOW_US - days * DAY_US + (np.arange(days * PER_DAY) * (DAY_US // PER_DAY))
    labels = np.concatenate([(np.arange(PER_DAY) < rate * PER_DAY).astype(float) for rate in rate_by_day])
    return Labelled(at, at + float(lag_us), np.full(at.size, score), labels)


NEVER = Labelled(np.array([], dtype=np.int64), np.array([]), np.array([]), np.array([]))


def one(trigger, rows=NEVER, now_us=NOW_US, alerts=(), since_us=0, cutoff_us=0, known=()):
    seen = Seen(lambda: rows, lambda: alerts, since_us, cutoff_us, lambda: np.array(known, dtype=np.int64))
    return look([trigger], seen, now_us)[0]


def us(text):
    return to_us(parse_time(text))


def test_a_gap_at_two_looks_in_a_row_proposes_and_at_one_does_not():
    trigger = Trigger.calibration(0.05, window="7d", every="7d", looks=2)
    assert one(trigger, predictions([0.2] * 7 + [0.4] * 14)).fired
    assert not one(trigger, predictions([0.2] * 14 + [0.4] * 7)).fired
    assert not one(trigger, predictions([0.4] * 14 + [0.2] * 7)).fired


def test_a_gap_of_either_sign_counts():
    trigger = Trigger.calibration(0.05, window="7d", looks=1)
    assert one(trigger, predictions([0.0] * 8)).fired
    assert one(trigger, predictions([0.4] * 8)).fired


def test_a_look_counts_only_labels_known_by_then():
    rows = predictions([0.2] * 7 + [0.9] * 7, lag_us=7 * DAY_US + 1)
    found = gap_of(rows, Window(NOW_US - 14 * DAY_US, NOW_US), NOW_US)
    assert found.value == pytest.approx(0.0)
    assert found.labelled == 7 * PER_DAY


def late_positives(days, *, share, early, late, seed=0) -> Labelled:
    """A calibrated model: what does not happen is known after `early` days, and what does after `late`."""
    random = np.random.default_rng(seed)
    rows = predictions([0.0] * days, score=share)
    labels = (random.random(rows.at_us.size) < share).astype(float)
    known_us = rows.at_us + np.where(labels == 1, late, early) * DAY_US
    return replace(rows, labels=labels, known_us=known_us, ripe_us=int(max(early, late) * DAY_US))


@pytest.mark.parametrize(("share", "late"), [(0.3, 7), (0.04, 10), (0.1, 30)])
def test_what_comes_late_does_not_look_as_if_it_did_not_happen(share, late):
    rows = late_positives(120, share=share, early=1, late=late)
    trigger = Trigger.calibration(0.03, window="14d", every="7d", looks=2)
    assert one(trigger, replace(rows, ripe_us=0)).fired == (share > 0.04)
    judged = one(trigger, rows)
    assert not judged.fired
    until = iso(from_us(NOW_US - late * DAY_US))
    assert judged.words.endswith(f"; of predictions until {until}, whose labels had the time to come")
    found = gap_of(rows, judged_window(rows, NOW_US, 14 * DAY_US), NOW_US)
    inside = (rows.at_us >= NOW_US - (late + 14) * DAY_US) & (rows.at_us < NOW_US - late * DAY_US)
    assert (found.labelled, found.full) == (inside.sum(), True)
    assert found.value == pytest.approx(share - rows.labels[inside].mean())
    metric = one(Trigger.performance("log_loss", 5.0, window="14d"), rows)
    assert metric.evidence["labelled"] == inside.sum()
    assert metric.words.endswith(f"; of predictions until {until}, whose labels had the time to come")


def test_labels_told_once_a_week_are_waited_for_only_where_nobody_knows_whether_they_mislead():
    rows = predictions([0.3] * 120, score=0.3)
    known_us = NOW_US - (NOW_US - rows.at_us) // (7 * DAY_US) * 7 * DAY_US
    rows = replace(rows, known_us=known_us.astype(float), ripe_us=7 * DAY_US)
    assert judged_window(rows, NOW_US, 14 * DAY_US) == Window(NOW_US - 14 * DAY_US, NOW_US)
    young = rows.at_us >= NOW_US - 15 * DAY_US
    few = Labelled(*(one[young] for one in (rows.at_us, rows.known_us, rows.scores, rows.labels)), ripe_us=rows.ripe_us)
    assert judged_window(few, NOW_US, 14 * DAY_US) == Window(NOW_US - 21 * DAY_US, NOW_US - 7 * DAY_US)
    assert "not enough data" in one(Trigger.calibration(0.05, window="14d", looks=1), few).words


def test_a_window_that_predictions_do_not_fill_is_not_enough_data():
    found = one(Trigger.calibration(0.05, window="14d", looks=1), predictions([0.9] * 10))
    assert not found.fired
    assert "not enough data" in found.words


def test_no_predictions_and_no_labels_are_not_enough_data():
    empty = Labelled(np.array([], dtype=np.int64), np.array([]), np.array([]), np.array([]))
    unlabelled = predictions([0.9] * 20)
    unlabelled = Labelled(unlabelled.at_us, unlabelled.known_us * np.nan, unlabelled.scores, unlabelled.labels * np.nan)
    for rows in (empty, unlabelled):
        found = one(Trigger.calibration(), rows)
        assert not found.fired
        assert "not enough data" in found.words


def minutes(off, *, sd=20.0, days=28, quantile=0.5, seed=3) -> Labelled:
    """Delays in minutes, predicted `off` too low on each day on average; days differ by 2 minutes."""
    random = np.random.default_rng(seed)
    rows = predictions([0.0] * days)
    of_day = np.repeat(random.normal(off, 2.0, days), PER_DAY)
    labels = 30 + of_day + random.normal(0, sd, of_day.size)
    return Labelled(rows.at_us, rows.known_us, np.full(labels.size, 30.0), labels, task="regression", quantile=quantile)


def test_a_gap_of_a_regression_is_measured_by_the_spread_of_its_labels_and_shown_by_days():
    assert not one(Trigger.calibration(), minutes(0.5)).fired  # half a minute of twenty, and of days that differ by two
    clear = one(Trigger.calibration(), minutes(6.0))
    assert (clear.fired, "standard deviations" in clear.words) == (True, True)
    for looked in clear.evidence["looks"]:
        assert looked["low"] < looked["gap"] < looked["high"] < -0.05
    near = one(Trigger.calibration(), minutes(1.2))
    assert any(abs(looked["gap"]) > 0.05 for looked in near.evidence["looks"])
    assert not near.fired


@pytest.mark.parametrize("scale", [0.01, 1.0, 3600.0])
def test_the_default_triggers_say_the_same_of_a_regression_in_any_unit(scale):
    for off in (0.5, 6.0):
        rows = minutes(off)
        other = replace(rows, scores=rows.scores * scale, labels=rows.labels * scale)
        calibration = Retrain("late").triggers[1]
        assert one(calibration, other).fired == one(calibration, rows).fired == (off == 6.0)


def test_a_model_of_a_quantile_is_calibrated_when_that_share_of_labels_lies_below():
    good = minutes(0.0, quantile=0.9)
    good = replace(good, scores=good.scores + 1.28 * 20)
    assert not one(Trigger.calibration(), good).fired  # although all but one in ten are predicted too high
    low = one(Trigger.calibration(), replace(good, scores=good.scores - 20))
    assert low.fired
    assert low.evidence["looks"][-1]["gap"] == pytest.approx(0.6 - 0.9, abs=0.05)


def test_labels_of_a_regression_that_are_all_alike_show_no_gap():
    alike = replace(minutes(0.0), labels=np.full(28 * PER_DAY, 31.0))
    assert "not enough data" in one(Trigger.calibration(), alike).words


RINGING = [
    OpenAlert("alert_1", "calibration gap above 0.1 over 7d", "calibration_gap", "high", "46 % late, 24 % predicted"),
    OpenAlert("alert_2", "ks above 0.3 over 7d", "ks", "medium", "inputs moved"),
]


def test_an_open_alert_of_high_severity_proposes_and_a_lower_one_when_it_is_asked_for():
    assert one(Trigger.alarm(), alerts=RINGING).evidence == {"alerts": ["alert_1"]}
    assert not one(Trigger.alarm(), alerts=RINGING[1:]).fired
    assert one(Trigger.alarm(severity="medium"), alerts=RINGING).evidence == {"alerts": ["alert_1", "alert_2"]}
    assert not one(Trigger.alarm()).fired


def test_an_alarm_is_chosen_by_its_name_or_by_its_metric():
    assert one(Trigger.alarm("ks above 0.3 over 7d", severity="low"), alerts=RINGING).words == "inputs moved"
    assert one(Trigger.alarm(metric="ks", severity="low"), alerts=RINGING).evidence["alerts"] == ["alert_2"]
    assert not one(Trigger.alarm(metric="ks"), alerts=RINGING).fired
    quiet = one(Trigger.alarm(metric="roc_auc"), alerts=RINGING)
    assert (quiet.fired, quiet.words) == (False, "there is not an open alert on roc_auc of high severity")


def test_a_schedule_is_due_once_for_each_instant_and_one_that_was_missed_is_made_up_for():
    trigger = Trigger.schedule("0 3 * * 1")
    monday = us("2024-01-08T03:00:00Z")
    assert one(trigger, now_us=monday, since_us=monday - 1).fired
    assert not one(trigger, now_us=monday + DAY_US, since_us=monday).fired
    missed = one(trigger, now_us=monday + 30 * DAY_US, since_us=monday + 1)
    assert missed.evidence == {"instants": 4, "at": "2024-02-05T03:00:00Z"}
    assert missed.fired
    assert Retrain("late", on=["schedule:0 3 * * 1"]).triggers == (trigger,)


def test_new_labels_are_those_that_became_known_after_the_champions_cut_off_and_by_now():
    known = [NOW_US - 5, NOW_US - 3, NOW_US, NOW_US + 1]
    found = one(Trigger.new_data(2), known=known, cutoff_us=NOW_US - 5)
    assert (found.fired, found.evidence["new"]) == (True, 2)
    assert not one(Trigger.new_data(3), known=known, cutoff_us=NOW_US - 5).fired
    assert "0 of 1" in one(Trigger.new_data(1)).words


def drawn(auc_like, days=30):
    """Predictions that are more (1) or less (0) to do with what happens."""
    random = np.random.default_rng(1)
    rows = predictions([0.3] * days)
    scores = np.clip(0.3 + auc_like * 0.4 * (rows.labels - 0.3) + random.normal(0, 0.1, rows.labels.size), 0.01, 0.99)
    return Labelled(rows.at_us, rows.known_us, scores, rows.labels)


def test_a_performance_that_is_shown_to_be_worse_proposes_and_says_its_interval():
    found = one(Trigger.performance("roc_auc", 0.9, window="30d"), drawn(0.1))
    assert found.fired
    assert found.evidence["low"] < found.evidence["value"] < found.evidence["high"] < 0.9
    assert not one(Trigger.performance("roc_auc", 0.55, window="30d"), drawn(0.9)).fired
    near = one(Trigger.performance("roc_auc", found.evidence["value"] + 0.001, window="30d"), drawn(0.1))
    assert (near.fired, "not shown" in near.words) == (False, True)


def test_a_loss_is_worse_when_it_is_above():
    assert one(Trigger.performance("log_loss", 0.1, window="30d"), drawn(0.1)).fired
    assert not one(Trigger.performance("log_loss", 5.0, window="30d"), drawn(0.1)).fired


def test_few_labels_or_few_days_or_another_tasks_metric_show_nothing():
    trigger = Trigger.performance("roc_auc", 0.99, window="30d")
    assert "not enough data (0 of 200" in one(trigger).words
    assert "not enough data" in one(trigger, drawn(0.1, days=1)).words
    assert "can never fire" in one(Trigger.performance("rmse", 1.0), drawn(0.1)).words


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": "performance"}, {"on": ["sometimes"]}, {"on": [3]}, {"budget": "many"}, {"budget": 2},
        {"cool_down": "3 days"}, {"cool_down": 3}, {"approval": "none"}, {"judge_for": ""}, {"min_days": 1},
        {"model": 5}, {"min_days": True}, {"on": ["schedule:often"]}, {"on": ["schedule:0 3 30 2 *"]},
        {"margins": {"auc": 0.1}}, {"margins": {"roc_auc": 0}}, {"margins": 0.1}, {"warm_start": "yes"},
        {"approval": "auto-if-better"}, {"approval": "auto-if-better", "margins": {"log_loss": 0.1}},
        {"approval": "auto-if-better", "margins": {"positive_rate": 0.1}},
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(wrong):
    with pytest.raises(BadRetrain):
        Retrain(**({"model": "late"} | wrong))


@pytest.mark.parametrize("wrong", [{"gap": 0}, {"gap": "x"}, {"gap": float("nan")}, {"looks": 0}, {"window": "x"}])
def test_a_wrong_trigger_is_refused(wrong):
    with pytest.raises(BadRetrain):
        Trigger.calibration(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Trigger.schedule("0 3 * *"), lambda: Trigger.schedule(""), lambda: Trigger.schedule("61 * * * *"),
        lambda: Trigger.new_data(0), lambda: Trigger.new_data(1.5), lambda: Trigger.performance("auc", 0.5),
        lambda: Trigger.performance("roc_auc", float("nan")), lambda: Trigger.performance("roc_auc", 0.5, window="x"),
        lambda: Trigger.alarm(severity="loud"), lambda: Trigger.alarm(3),
    ],
)  # fmt: skip
def test_a_trigger_that_can_never_work_is_refused(wrong):
    with pytest.raises(BadRetrain):
        wrong()
