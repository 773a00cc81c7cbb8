"""Young windows: an alarm on performance says what all labels say, not what the first ones do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seatrial.core.windows import Window, parse_window
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.monitor import make_report
from tests.monitoring.worlds import DAY_US, START_US, a_sample

PER_DAY = 200
GAP = replace(Alarm.calibration(gap=0.05, window="14d"), min_labels=50)


class World:
    """Predictions of 80 days, each with what happened and when that is known. off: what is added to the true score."""

    def __init__(self, *, seed=0, off=0.0, known_us=None):
        count, random = 80 * PER_DAY, np.random.default_rng(seed)
        self.at_us = START_US + np.sort(random.integers(0, 80 * DAY_US, count))
        true = random.beta(1.2, 8.8, count)
        self.happened = (random.random(count) < true).astype(float)
        self.scores = np.clip(true + off, 0, 1)
        self.known_us = self.slow() if known_us is None else known_us(self.at_us)

    def slow(self):
        """What happens is known after ten days, what does not after thirty."""
        return self.at_us + np.where(self.happened == 1, 10, 30) * DAY_US

    def seen(self, now_us):
        """What is known at an instant, of predictions until then."""
        past = self.at_us <= now_us
        labels = np.where(self.known_us <= now_us, self.happened, np.nan)
        return a_sample(self.scores[past], labels[past], at_us=self.at_us[past], known_us=self.known_us[past])

    def alarm(self, day, alarm=GAP, **given):
        now_us = int(START_US + day * DAY_US)
        monitor = Monitor("late", alarms=[alarm], calibration=False)
        report = make_report(
            self.seen(now_us), window=Window(now_us - 7 * DAY_US, now_us), as_of_us=now_us, monitor=monitor, **given
        )
        (found,) = report.alarms
        return found, report

    def gap(self, window):
        inside = (self.at_us >= window.start_us) & (self.at_us < window.end_us)
        return abs(self.scores[inside].mean() - self.happened[inside].mean())


@pytest.mark.parametrize("seed", range(3))
def test_a_model_that_is_right_is_never_called_wrong_because_one_outcome_is_known_sooner(seed):
    world = World(seed=seed)
    judged = 0
    for day in [*np.arange(8, 80, 2.3), 30.02, 30.1, 30.5]:
        found, report = world.alarm(day)
        assert found.state != "fired", (day, found.evidence)
        assert report.verdict != "act"
        if day > 45:
            window = parse_window(found.judged)
            assert found.state == "quiet"
            assert window.end_us - window.start_us == 14 * DAY_US
            assert START_US + (day - 30.2) * DAY_US < window.end_us <= START_US + (day - 30) * DAY_US
            assert found.value == pytest.approx(world.gap(window), abs=1e-9)
            until = found.judged.partition("/")[2][:10]
            assert until in found.note
            assert until in found.evidence
            assert until in report.headline or report.verdict == "unknown"
            judged += 1
    assert judged > 10


def test_labels_of_one_class_without_a_window_of_before_are_no_reason_to_fire():
    found, report = World().alarm(25)
    assert found.state == "not_enough_data"
    assert "all labels so far are of one class" in found.note
    assert (found.value, found.action, report.verdict) == (None, "", "unknown")


@pytest.mark.parametrize("off", [0.15, -0.11])
@pytest.mark.parametrize("window", ["7d", "14d"])
def test_a_model_that_is_wrong_is_called_so_though_its_window_has_no_labels_that_tell(off, window):
    world = World(off=off)
    found, report = world.alarm(60, replace(GAP, window=window))
    assert (found.state, report.verdict) == ("fired", "act")
    assert found.value == pytest.approx(world.gap(parse_window(found.judged)), abs=1e-9)
    assert found.window.startswith(parse_window(found.window).start.isoformat()[:10])
    assert parse_window(found.window).end_us == START_US + 60 * DAY_US


@pytest.mark.parametrize(
    ("alarm", "state"),
    [
        (Alarm.below("accuracy", 0.8, window="14d"), "quiet"),
        (Alarm.below("accuracy", 0.95, window="14d"), "fired"),
        (Alarm.drop("accuracy", "5%", window="14d"), "quiet"),
        (Alarm.below("roc_auc", 0.6, window="14d"), "quiet"),
        (Alarm.below("roc_auc", 0.9, window="14d"), "fired"),
    ],
    ids=str,
)
def test_every_metric_is_judged_where_labels_are_there(alarm, state):
    found, _ = World().alarm(60, alarm, training={"accuracy": 0.88})
    assert found.state == state
    assert found.judged


def test_labels_told_for_a_whole_week_are_judged_at_once():
    def weekly(at_us):
        return START_US + ((at_us - START_US) // (7 * DAY_US) + 1) * 7 * DAY_US

    world = World(known_us=weekly)
    world.scores[world.at_us >= START_US + 49.5 * DAY_US] += 0.3
    for day in (56, 57, 58, 60):  # the week from 49 on was told on 56
        found, _ = world.alarm(day, replace(GAP, window="7d"))
        assert (found.state, found.judged) == ("fired", ""), day
    found, _ = world.alarm(55.9, replace(GAP, window="7d"))
    assert found.state != "fired"


def test_labels_that_come_late_whatever_happened_do_not_wait_for_the_last():
    world = World(known_us=lambda at_us: at_us + np.random.default_rng(1).integers(0, 9 * DAY_US, at_us.size))
    world.scores[world.at_us >= START_US + 53 * DAY_US] += 0.3
    found, _ = world.alarm(60, replace(GAP, window="7d"))
    assert (found.state, found.judged) == ("fired", "")


@pytest.mark.parametrize(("day", "due"), [(20, ""), (60, ", which are due until 2013-06-30")])
def test_labels_that_are_not_due_are_waited_for(day, due):
    _, report = World().alarm(day)
    assert report.verdict == "unknown"
    assert report.next.startswith(f"Wait for the labels of these predictions{due}")
