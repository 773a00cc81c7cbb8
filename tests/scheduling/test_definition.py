"""Schedules as they are declared: what is run, under which name, and what is refused."""

from __future__ import annotations

import pytest

from seatrial import Retrain, Schedule, Trigger
from seatrial.retraining.definition import BadRetrain
from seatrial.scheduling.definition import BadSchedule, implied


@pytest.mark.parametrize(
    ("schedule", "name", "words"),
    [
        (Schedule("monitor", "late", every="1h"), "monitor-late", "monitor late"),
        (Schedule("label", model="late", every="1h"), "label-late", "label late"),
        (Schedule("materialize", every="5m"), "materialize", "materialize"),
        (Schedule("materialize", every="5m", args=["carrier_delay"]), "materialize", "materialize carrier_delay"),
        (Schedule("batch", "late", cron="0 1 * * *"), "batch-late", "predict late --batch last-day"),
        (
            Schedule("batch", "late", cron="0 1 * * *", args=["last-week", "--to", "out"], name="scores"),
            "scores",
            "predict late --batch last-week --to out",
        ),
        (Schedule("deployments advance", "late", every="5m"), "deployments-advance-late", "deployments advance late"),
        (Schedule("retrain", "late", every="1h"), "retrain-late", "retrain late advance"),
        (Schedule("retrain", "late", every="1h", args=["propose"]), "retrain-late", "retrain late propose"),
        (Schedule("alerts check", every="5m"), "alerts-check", "alerts check"),
        (Schedule("predictions prune", cron="0 4 * * *"), "predictions-prune", "predictions prune"),
    ],
)
def test_a_schedule_is_a_command_with_a_name(schedule, name, words):
    assert schedule.name == name
    assert " ".join(schedule.words) == words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"verb": "monitr", "model": "late", "every": "1h"}, "Did you mean 'monitor'?"),
        ({"verb": "rm -rf", "every": "1h"}, "no verb is named"),
        ({"verb": "monitor", "every": "1h"}, "The name of a model is expected"),
        ({"verb": "materialize", "model": "late", "every": "1h"}, "of no model"),
        ({"verb": "monitor", "model": "late"}, "Exactly one is expected"),
        ({"verb": "monitor", "model": "late", "every": "0s"}, "every='0s'"),
        ({"verb": "monitor", "model": "late", "cron": "0 0 30 2 *"}, "bad day-of-month"),
        ({"verb": "monitor", "model": "late", "cron": "0 0 * * *", "timezone": "Mars"}, "Mars"),
        ({"verb": "monitor", "model": "late", "every": "1h", "name": "../x"}, "Letters, digits"),
        ({"verb": "monitor", "model": "late", "every": "1h", "timeout": "forever"}, "timeout='forever'"),
        ({"verb": "monitor", "model": "late", "every": "1h", "timeout": "8d"}, "At most 7d"),
        ({"verb": "monitor", "model": "late", "every": "1h", "back_off": "0s"}, "back_off='0s'"),
        ({"verb": "monitor", "model": "late", "every": "1h", "retries": -1}, "retries=-1"),
        ({"verb": "monitor", "model": "late", "every": "1h", "retries": True}, "retries=True"),
        ({"verb": "monitor", "model": "late", "every": "1h", "catch_up": "all"}, "catch_up='all'"),
        ({"verb": "monitor", "model": "late", "every": "1h", "args": "--html x"}, "Words are expected"),
    ],
)
def test_what_cannot_work_is_refused_where_it_is_declared(wrong, words):
    with pytest.raises(BadSchedule) as refused:
        Schedule(**wrong)
    assert words in str(refused.value)


def test_what_is_kept_and_shown_of_a_command_holds_no_password():
    address = "postgresql://ada:s3cret@db/reports?table=late"
    schedule = Schedule("batch", "late", every="1h", args=["last-day", "--to", address])
    assert schedule.words[-1] == address
    assert schedule.told[-1] == "postgresql://ada:***@db/reports?table=late"
    assert schedule.told[:-1] == schedule.words[:-1]


def test_the_pause_before_a_retry_doubles():
    schedule = Schedule("monitor", "late", every="1h", back_off="1m", retries=3)
    assert [schedule.pause_us(attempt) // 60_000_000 for attempt in (1, 2, 3)] == [1, 2, 4]


def test_retraining_by_the_clock_stands_for_a_schedule_of_its_own():
    retrain = Retrain("late", on=["performance", "schedule:0 3 * * 1"])
    (schedule,) = implied([retrain])
    assert (schedule.name, " ".join(schedule.words)) == ("retrain-late-on-schedule", "retrain late advance")
    assert str(schedule.timing) == "0 3 * * 1 UTC"
    both = Retrain("late", on=["schedule:0 3 * * 1", Trigger.schedule("0 3 1 * *", timezone="Europe/Berlin")])
    assert [one.name for one in implied([both])] == ["retrain-late-on-schedule-1", "retrain-late-on-schedule-2"]
    assert implied([Retrain("late")]) == []


@pytest.mark.parametrize("wrong", ["schedule:", "schedule:0 3 * *", "schedule:0 0 30 2 *"])
def test_a_wrong_expression_is_told_where_retraining_is_declared(wrong):
    with pytest.raises(BadRetrain, match="Retrain\\('late'\\) has the trigger"):
        Retrain("late", on=[wrong])
