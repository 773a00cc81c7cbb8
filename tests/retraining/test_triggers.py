"""Triggers: they look, with what was known then, and say why."""

from __future__ import annotations

import numpy as np
import pytest

from seatrial.retraining.definition import BadRetrain, Retrain, Trigger
from seatrial.retraining.triggers import Labelled, look, trailing_gap

DAY_US = 86_400_000_000
NOW_US = 1_367_208_000_000_000
PER_DAY = 100


def predictions(rate_by_day, *, score=0.2, lag_us=3_600_000_000) -> Labelled:
    """The days before now, oldest first, each with 100 rows of a given observed rate."""
    days = len(rate_by_day)
    at = NOW_US - days * DAY_US + (np.arange(days * PER_DAY) * (DAY_US // PER_DAY))
    labels = np.concatenate([(np.arange(PER_DAY) < rate * PER_DAY).astype(float) for rate in rate_by_day])
    return Labelled(at, at + float(lag_us), np.full(at.size, score), labels)


def one(trigger, rows, now_us=NOW_US, alerts=()):
    return look([trigger], lambda: rows, alerts, now_us)[0]


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
    gap, labelled, _ = trailing_gap(rows, NOW_US, 14 * DAY_US)
    assert gap == pytest.approx(0.0)
    assert labelled == 7 * PER_DAY


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


def test_an_open_alert_of_high_severity_proposes():
    assert one(Trigger.alarm(), None, alerts=[("alert_1", "46 % late, 24 % predicted")]).fired
    assert not one(Trigger.alarm(), None).fired


@pytest.mark.parametrize(
    "wrong",
    [
        {"on": "performance"}, {"on": ["sometimes"]}, {"on": [3]}, {"budget": "many"}, {"budget": 2},
        {"cool_down": "3 days"}, {"cool_down": 3}, {"approval": "none"}, {"judge_for": ""}, {"min_days": 1},
        {"model": 5}, {"min_days": True},
    ],
)  # fmt: skip
def test_a_wrong_declaration_is_refused(wrong):
    with pytest.raises(BadRetrain):
        Retrain(**({"model": "late"} | wrong))


@pytest.mark.parametrize("wrong", [{"gap": 0}, {"gap": "x"}, {"gap": float("nan")}, {"looks": 0}, {"window": "x"}])
def test_a_wrong_trigger_is_refused(wrong):
    with pytest.raises(BadRetrain):
        Trigger.calibration(**wrong)
