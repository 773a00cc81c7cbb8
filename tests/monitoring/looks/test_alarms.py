from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.looks.alarms import calibration_gap, evaluate
from seatrial.monitoring.monitor import make_report
from tests.monitoring.worlds import DAY_US, START_US, a_sample, calibrated, week

GAP = Alarm.calibration()


def off_by(gap, count=2100, **given):
    """Scores of 0.3, of which 0.3 + gap come true."""
    positives = round(count * (0.3 + gap))
    labels = np.zeros(count)
    labels[np.linspace(0, count - 1, positives).astype(int)] = 1
    return a_sample(np.full(count, 0.3), labels, **given)


def at_end(alarm, sample, **given):
    return evaluate(alarm, sample, week().end_us, **given)


@pytest.mark.parametrize(("gap", "state"), [(0.11, "fired"), (-0.11, "fired"), (0.09, "quiet"), (0, "quiet")])
def test_the_calibration_alarm_fires_when_the_level_is_off_either_way(gap, state):
    result = at_end(GAP, off_by(gap))
    assert result.state == state
    assert result.value == pytest.approx(abs(gap), abs=1e-6)
    assert result.means == pytest.approx((0.3, 0.3 + gap), abs=1e-3)


def test_the_calibration_gap_of_a_regression_is_in_standard_deviations_of_the_label():
    random = np.random.default_rng(1)
    labels = random.normal(500, 40, 3000)
    sample = a_sample(labels + 6, labels, task="regression")
    assert at_end(GAP, sample).value == pytest.approx(6 / labels.std())
    assert at_end(Alarm.calibration(0.2), sample).state == "quiet"
    constant = a_sample(np.full(300, 3.0), np.full(300, 2.0), task="regression")
    assert at_end(GAP, constant).state == "not_enough_data"


def test_an_alarm_needs_its_whole_window():
    young = off_by(0.3, at_us=START_US + 4 * DAY_US + np.arange(2100) * 60_000_000)
    result = at_end(GAP, young)
    assert (result.state, result.note) == ("not_enough_data", "not enough data: 3 of 7 days")
    assert (result.value, result.action) == (None, "")


def test_a_window_is_whole_when_the_model_is_known_to_be_older_than_the_rows():
    young = off_by(0.3, at_us=START_US + 4 * DAY_US + np.arange(2100) * 60_000_000)
    assert at_end(GAP, young, since_us=START_US - 1).state == "fired"


def test_a_log_that_begins_on_a_morning_has_that_day():
    for hours, whole in ((0, True), (7, True), (12, True), (13, False), (24, False)):
        at = START_US + hours * DAY_US // 24 + np.arange(2100) * (6 * DAY_US // 2100)
        assert (at_end(GAP, off_by(0.3, at_us=at)).state == "fired") is whole, hours


def test_an_alarm_of_performance_needs_its_labels():
    few = off_by(0.3)
    labels = few.label_values().copy()
    labels[12:] = np.nan
    result = at_end(GAP, a_sample(few.scores(), labels))
    assert (result.state, result.note) == ("not_enough_data", "not enough data: 12 of 200 labels")
    assert at_end(Alarm.calibration(min_labels=12), a_sample(few.scores(), labels)).state != "not_enough_data"


def test_only_predictions_of_the_alarms_own_window_count():
    both = off_by(0.3, at_us=START_US + np.arange(2100) * (14 * DAY_US // 2100))
    labels = np.where(both.at_us() < week(1).start_us, both.label_values(), 0)
    scores = np.where(both.at_us() < week(1).start_us, 0.3, 0.01)
    sample = a_sample(scores, labels, at_us=both.at_us())
    assert evaluate(GAP, sample, week(0).end_us).state == "fired"
    assert evaluate(GAP, sample, week(1).end_us).state == "quiet"


def test_nothing_at_all_is_not_quiet():
    result = at_end(GAP, a_sample([]))
    assert result.state == "not_enough_data"
    assert "no predictions" in result.note


def test_above_and_below_compare_a_metric_with_a_number():
    sample = calibrated()
    value = at_end(Alarm.below("roc_auc", 0), sample).value
    assert at_end(Alarm.below("roc_auc", value + 0.01), sample).state == "fired"
    assert at_end(Alarm.below("roc_auc", value), sample).state == "quiet"
    assert at_end(Alarm.above("roc_auc", value - 0.01), sample).state == "fired"


@pytest.mark.parametrize(
    ("metric", "tested", "state"),
    [("accuracy", 0.99, "fired"), ("accuracy", 0.75, "quiet"), ("log_loss", 0.1, "fired"), ("log_loss", 0.6, "quiet")],
)
def test_a_drop_is_measured_from_the_test_part_in_the_direction_that_is_worse(metric, tested, state):
    result = at_end(Alarm.drop(metric, "20%"), calibrated(), training={metric: tested})
    assert result.state == state
    assert result.threshold == pytest.approx(tested * (0.8 if metric == "accuracy" else 1.2))


def test_a_drop_without_a_figure_of_the_test_part_says_so():
    for training in (None, {}, {"accuracy": None}):
        result = at_end(Alarm.drop("accuracy", 0.2), calibrated(), training=training)
        assert result.state == "not_enough_data"
        assert "test part" in result.note


def test_a_metric_that_the_rows_do_not_define_is_not_quiet():
    one_class = a_sample(np.full(300, 0.2), np.zeros(300))
    result = at_end(Alarm.below("roc_auc", 0.7), one_class)
    assert (result.state, result.value) == ("not_enough_data", None)
    assert "all 300 labels are 0" in result.note


def test_a_metric_of_another_task_is_said_to_be_none():
    result = at_end(Alarm.below("r2", 0.7), calibrated())
    assert result.note == "r2 is no metric of a binary model"


def test_missing_inputs_latency_degraded_answers_and_label_share_are_metrics_too():
    values = pa.array([None] * 150 + [1.0] * 150)
    slow = pa.array([100.0] * 300)
    sample = a_sample(np.full(300, 0.2), [1] * 60 + [np.nan] * 240, feature_fuel=values)
    rows = sample.rows.set_column(sample.rows.column_names.index("latency_ms"), "latency_ms", slow)
    rows = rows.set_column(rows.column_names.index("degraded"), "degraded", pa.array([True] * 30 + [False] * 270))
    sample = type(sample)(sample.model, sample.task, rows, sample.labels)
    found = {
        metric: at_end(Alarm.above(metric, 0.05), sample).value
        for metric in ("missing:fuel", "p99_ms", "degraded", "label_share")
    }
    assert found == pytest.approx({"missing:fuel": 0.5, "p99_ms": 100, "degraded": 0.1, "label_share": 0.2})
    assert "no input 'fule'" in at_end(Alarm.above("missing:fule", 0.1), sample).note


def test_drift_without_a_reference_is_not_quiet():
    for metric in ("ks", "ks:fuel", "prediction_ks"):
        result = at_end(Alarm.above(metric, 0.15), calibrated())
        assert (result.state, result.note) == ("not_enough_data", "no reference to compare with")


def test_few_rows_judge_nothing():
    result = at_end(Alarm.above("p99_ms", 1), a_sample(np.full(12, 0.2)))
    assert result.note == "not enough data: 12 of 200 rows"


def test_rows_without_a_score_are_left_out():
    sample = off_by(0.0)
    scores = sample.scores().copy()
    scores[::2] = np.nan
    result = at_end(GAP, a_sample(scores, sample.label_values()))
    assert (result.rows, result.labelled) == (2100, 1050)


def test_the_gap_is_signed_and_undefined_without_rows():
    assert calibration_gap("binary", np.array([1.0, 0.0]), np.array([0.2, 0.2])) == pytest.approx(-0.3)
    assert calibration_gap("binary", np.array([]), np.array([])) is None


@pytest.mark.parametrize("quantile", [0.75, 0.8, 0.9])
def test_a_right_quantile_of_counts_is_quiet_though_many_labels_equal_it(quantile):
    labels = np.random.default_rng(0).poisson(0.35, 4_000).astype(float)
    scores = np.full(4_000, np.quantile(labels, quantile, method="inverted_cdf"))
    assert calibration_gap("regression", labels, scores, quantile) == pytest.approx(0, abs=1e-9)
    assert calibration_gap("regression", labels, scores - 9, quantile) == pytest.approx(-quantile)
    assert calibration_gap("regression", labels, scores + 9, quantile) == pytest.approx(1 - quantile)


def test_labels_that_come_first_and_are_unlike_the_others_fire_no_alarm_on_the_level():
    """What does not happen is known after an hour, what does after four days."""
    count, random = 28 * 200, np.random.default_rng(1)
    at_us = START_US + np.arange(count) * (DAY_US // 200)
    now_us = START_US + 28 * DAY_US
    happened = random.random(count) < 0.3
    known_us = at_us + np.where(happened, 4 * DAY_US, DAY_US // 24)
    labels = np.where(known_us <= now_us, happened.astype(float), np.nan)
    sample = a_sample(np.full(count, 0.3), labels, at_us=at_us, known_us=known_us)
    made = make_report(sample, window=week(3), as_of_us=now_us)
    (found,) = [one for one in made.alarms if one.metric == "calibration_gap"]
    assert made.performance.observed < 0.2  # of what is known by now
    assert found.state == "quiet"
    assert "the labels that come first are unlike the others" in found.note
    assert made.verdict != "act"
    assert "the level is off" not in made.headline
    worse = a_sample(np.full(count, 0.6), labels, at_us=at_us, known_us=known_us)
    (again,) = [one for one in make_report(worse, window=week(3), as_of_us=now_us).alarms if one.metric == found.metric]
    assert again.state == "fired"


@pytest.mark.parametrize(
    ("quantile", "predicted", "state"), [(0.9, 0.9, "quiet"), (0.9, 0.5, "fired"), (0.1, 0.1, "quiet")]
)
def test_the_level_of_a_quantile_is_the_share_of_labels_below_it(quantile, predicted, state):
    random = np.random.default_rng(0)
    labels = random.exponential(10, 4_000)
    scores = np.full(4_000, np.quantile(labels, predicted))  # far from the mean in any case
    sample = replace(a_sample(scores, labels, task="regression"), quantile=quantile)
    made = make_report(sample, window=week(0), as_of_us=week(0).end_us)
    (found,) = [one for one in made.alarms if one.metric == "calibration_gap"]
    assert (found.state, found.value) == (state, pytest.approx(abs(predicted - quantile), abs=0.001))
    if state == "fired":
        assert "50.0% of the labels lie at or below their prediction, where 90.0% are meant" in found.evidence
        assert made.headline.startswith("The model 'late' is off its level: 50.0% of the labels")
    assert made.calibration.gap == pytest.approx(predicted - quantile, abs=0.001)
