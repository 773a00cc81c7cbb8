from __future__ import annotations

import pytest

from seatrial.core.declared import collecting
from seatrial.features.definitions import BadDefinition
from seatrial.monitoring.definition import Alarm, Monitor


def test_a_monitor_announces_itself_to_the_project_file():
    with collecting() as declared:
        monitor = Monitor("late", alarms=[Alarm.below("f1", 0.75)])
    assert declared == [monitor]


def test_the_alarm_on_calibration_is_on_unless_turned_off_or_declared_otherwise():
    assert [alarm.name for alarm in Monitor("late").every_alarm] == ["calibration gap above 0.1 over 7d"]
    assert Monitor("late", calibration=False).every_alarm == ()
    own = Alarm.calibration(gap=0.05, window="14d")
    assert Monitor("late", alarms=[own]).every_alarm == (own,)


def test_a_drop_is_a_share_in_either_spelling():
    assert Alarm.drop("accuracy", "20%") == Alarm.drop("accuracy", 0.2)


def test_alarms_that_differ_have_different_names():
    alarms = [
        Alarm.above("log_loss", 0.5),
        Alarm.below("log_loss", 0.5),
        Alarm.above("log_loss", 0.6),
        Alarm.above("log_loss", 0.5, window="1d"),
        Alarm.drop("log_loss", 0.5),
        Alarm.above("ks:a", 0.5),
        Alarm.above("ks:b", 0.5),
    ]
    assert len({alarm.name for alarm in alarms}) == len(alarms)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Alarm.below("roc_ac", 0.7), "Did you mean 'roc_auc'"),
        (lambda: Alarm.below("ks:", 0.7), "ks:COLUMN"),
        (lambda: Alarm.below("other:column", 0.7), "ks:COLUMN"),
        (lambda: Alarm.below(3, 0.7), "Known are"),
        (lambda: Alarm.below("f1", float("nan")), "finite"),
        (lambda: Alarm.below("f1", "0.7"), "finite"),
        (lambda: Alarm.below("f1", True), "finite"),
        (lambda: Alarm.below("f1", 0.7, window="soon"), "7d"),
        (lambda: Alarm.below("f1", 0.7, window=7), "7d"),
        (lambda: Alarm.below("f1", 0.7, severity="worst"), "severity"),
        (lambda: Alarm.below("f1", 0.7, min_labels=0), "at least 1"),
        (lambda: Alarm.drop("accuracy", "much"), "20%"),
        (lambda: Alarm.drop("accuracy", 1.5), "share"),
        (lambda: Alarm.drop("ks", 0.2), "test part"),
        (lambda: Alarm.drop("calibration_gap", 0.2), "test part"),
        (lambda: Monitor(""), "name of a model"),
        (lambda: Monitor("late", alarms=Alarm.calibration()), "list of alarms"),
        (lambda: Monitor("late", alarms=["f1"]), "list of alarms"),
        (lambda: Monitor("late", alarms=[Alarm.below("f1", 0.7)] * 2), "twice"),
        (lambda: Monitor("late", window="0d"), "window"),
        (lambda: Monitor("late", false_alarms_per_month=0), "above 0"),
        (lambda: Monitor("late", calibration="yes"), "True or False"),
        (lambda: Monitor("late", outcome=1), "A word for sentences"),
    ],
)
def test_what_cannot_work_is_refused_with_what_is_expected(make, words):
    with pytest.raises(BadDefinition) as caught:
        make()
    assert words in str(caught.value)
