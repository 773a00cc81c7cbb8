from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.windows import Window
from seatrial.monitoring.looks.performance import MOST_DAYS, performance
from seatrial.stats.metrics import measure
from tests.monitoring.worlds import DAY_US, START_US, a_sample, calibrated, week

share = st.floats(0, 1)
maybe = st.one_of(share, st.just(float("nan")))


def of(sample, window=None, **given):
    return performance(sample, window or week(), **given)


def test_the_figures_are_those_of_the_labelled_rows():
    sample = calibrated(1000)
    labels = sample.label_values().copy()
    labels[::3] = np.nan
    found = of(a_sample(sample.scores(), labels))
    known = np.isfinite(labels)
    assert found.metrics == measure("binary", labels[known], sample.scores()[known])
    assert (found.rows, found.labelled) == (1000, int(known.sum()))
    assert found.gap == pytest.approx(found.mean_score - found.observed)


def test_the_floor_is_the_mean_label_as_every_prediction():
    found = of(calibrated(1000))
    rate = found.observed
    assert found.constant["roc_auc"] == 0.5
    assert found.constant["brier"] == pytest.approx(rate * (1 - rate))


@given(st.lists(st.tuples(maybe, st.sampled_from([0.0, 1.0, float("nan")])), max_size=40))
def test_days_and_bins_account_for_every_row(pairs):
    scores, labels = [one for one, _ in pairs], [label for _, label in pairs]
    found = of(a_sample(scores, labels))
    assert len(found.days) == 7
    assert sum(day.rows for day in found.days) == found.rows == len(pairs)
    assert sum(day.labelled for day in found.days) == sum(one.rows for one in found.bins) == found.labelled
    for one in found.bins:
        assert one.low <= one.mean_score <= one.high + 1e-12


def test_a_day_is_24_hours_from_the_start_of_the_window():
    half = DAY_US // 2
    window = Window(START_US + half, START_US + half + 2 * DAY_US)
    sample = a_sample([0.1, 0.2, 0.3], [0, 1, 1], at_us=[START_US + half, START_US + DAY_US, START_US + half + DAY_US])
    first, second = of(sample, window).days
    assert (first.start, first.rows, first.observed) == ("2013-04-01T12:00:00Z", 2, 0.5)
    assert (second.rows, second.mean_score, second.mean_score_labelled) == (1, 0.3, 0.3)


def test_of_a_window_that_begins_within_an_hour_days_are_cut_at_midnight_and_the_outer_ones_are_part():
    late = START_US + DAY_US * 149 // 1440  # 02:29
    window = Window(late, late + 2 * DAY_US)
    sample = a_sample([0.1, 0.2, 0.3], [0, 1, 1], at_us=[late, START_US + DAY_US, START_US + 2 * DAY_US + 1])
    found = of(sample, window).days
    assert [(one.start, one.end, one.rows, one.partial) for one in found] == [
        ("2013-04-01T02:29:00Z", "2013-04-02T00:00:00Z", 1, True),
        ("2013-04-02T00:00:00Z", "2013-04-03T00:00:00Z", 1, False),
        ("2013-04-03T00:00:00Z", "2013-04-03T02:29:00Z", 1, True),
    ]


def test_a_day_without_rows_is_listed():
    assert [day.rows for day in of(a_sample([0.5], at_us=[START_US + 3 * DAY_US])).days] == [0, 0, 0, 1, 0, 0, 0]


def test_of_a_window_of_a_century_only_days_with_rows_are_listed():
    window = Window(START_US, START_US + 40 * MOST_DAYS * DAY_US)
    found = of(a_sample([0.5, 0.5], at_us=[START_US, START_US + 5 * DAY_US]), window)
    assert [day.rows for day in found.days] == [1, 1]


@pytest.mark.parametrize(
    ("scores", "labels", "note"),
    [
        ([], [], "no predictions in this window"),
        ([0.5], [np.nan], "no label has arrived"),
        ([0.5], [1], "not enough data: 1 of 200 labels"),
        ([np.nan] * 300, [1] * 300, "no label has arrived"),
        ([0.2] * 300, [0] * 300, "all 300 labels are 0"),
        ([1.5] * 300, [0, 1] * 150, "scores reach from 1.5"),
        ([0.5] * 300, [0, 2] * 150, "a label is 2"),
        ([0.5] * 300, [0, 1] * 150, ""),
    ],
)
def test_whatever_the_rows_hold_there_is_a_stated_result(scores, labels, note):
    found = of(a_sample(scores, labels))
    assert note in found.note
    assert bool(found.note) == bool(note)
    if not found.labelled:
        assert set(found.metrics.values()) == {None}
        assert (found.gap, found.bins) == (None, [])


def test_a_regression_has_its_own_metrics_and_bins_of_equal_rows():
    labels = np.arange(400.0)
    found = of(a_sample(labels + 1, labels, task="regression"), training={"mae": 0.5})
    assert found.metrics["mae"] == pytest.approx(1)
    assert found.training == {"mae": 0.5}
    assert {one.rows for one in found.bins} == {40}
    constant = of(a_sample(np.full(300, 2.0), np.full(300, 2.0), task="regression"))
    assert (len(constant.bins), constant.metrics["r2"], constant.metrics["mae"]) == (1, None, 0)


def test_decisions_are_measured_where_the_live_release_makes_them():
    sample = replace(calibrated(1000), threshold=0.2)
    found = of(sample)
    assert found.metrics == measure("binary", sample.label_values(), sample.scores(), threshold=0.2)
    assert found.metrics["recall"] > of(replace(sample, threshold=0.5)).metrics["recall"]
