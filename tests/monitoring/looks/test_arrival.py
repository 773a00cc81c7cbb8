"""How labels arrive: what is usual at an age, when a window is ripe, and whether early labels are like the rest."""

from __future__ import annotations

import numpy as np
import pytest

from seatrial.core.windows import HOUR_US
from seatrial.monitoring.looks.arrival import arrival, ripe_rows
from tests.monitoring.worlds import DAY_US, START_US, a_sample, week

MINUTE_US = 60_000_000


def a_month(*, delay_hours, labels=None, count=4000, weeks=4, as_of_us=None, seed=0):
    """Predictions of some weeks, the labels of which come after exponential delays; those not due are not there."""
    random = np.random.default_rng(seed)
    as_of_us = week(weeks - 1).end_us if as_of_us is None else as_of_us
    at_us = START_US + np.arange(count) * (weeks * 7 * DAY_US // count)
    labels = (random.random(count) < 0.3).astype(float) if labels is None else labels
    hours = delay_hours(labels) if callable(delay_hours) else delay_hours
    delays = random.exponential(1, count) * hours
    known_us = at_us + (delays * HOUR_US).astype(np.int64)
    seen = np.where(known_us <= as_of_us, labels, np.nan)
    return a_sample(np.full(count, 0.3), seen, at_us=at_us, known_us=known_us), as_of_us


def test_the_usual_share_at_an_age_comes_from_history():
    sample, as_of_us = a_month(delay_hours=24.0)
    found = arrival(sample, week(3), as_of_us)
    ages = np.arange(0, 7 * 24, 0.1)
    assert found.expected == pytest.approx((1 - np.exp(-ages / 24)).mean(), abs=0.02)
    assert found.known == pytest.approx(found.expected, abs=0.03)
    assert found.usual_hours == pytest.approx(24 * np.log(20), rel=0.1)
    assert found.final == pytest.approx(1, abs=0.01)
    assert [point.share for point in found.curve] == sorted(point.share for point in found.curve)
    assert len(found.curve) <= 60


def test_a_window_is_ripe_when_its_last_prediction_is_old_enough():
    sample, as_of_us = a_month(delay_hours=2.0)
    young = arrival(sample, week(3), as_of_us)
    assert young.ripe is False
    last = int(sample.at_us()[-1])
    assert young.ripe_at is not None
    assert young.ripe_at.endswith(":00Z")
    again, later_us = a_month(delay_hours=2.0, as_of_us=as_of_us + 2 * DAY_US)
    ripe = arrival(again, week(3), later_us)
    assert ripe.ripe is True
    assert (ripe.same_age, ripe.biased) == ({}, False)
    rows = sample.within(week(3))
    old = ripe_rows(rows, as_of_us, young)
    assert 0 < (~old).sum() < 0.1 * old.size
    assert (rows.at_us()[old] + young.usual_hours * HOUR_US <= as_of_us).all()
    assert ripe_rows(rows, as_of_us, ripe).all()
    assert last < as_of_us


def test_a_young_window_stands_beside_the_one_before_at_the_same_age():
    sample, as_of_us = a_month(delay_hours=48.0)
    found = arrival(sample, week(3), as_of_us)
    assert found.same_age["labelled"] < found.later["labelled"] <= 1000
    assert found.same_age["labelled"] == pytest.approx(1000 * found.known, rel=0.1)
    assert not found.biased


def test_early_labels_that_are_unlike_the_others_are_told():
    def sooner(labels):
        return np.where(labels == 1, 6.0, 48.0)

    sample, as_of_us = a_month(delay_hours=sooner)
    found = arrival(sample, week(3), as_of_us)
    assert found.biased
    assert found.same_age["observed"] > found.later["observed"] + 0.05


def test_labels_that_never_come_are_a_share():
    random = np.random.default_rng(4)
    labels = np.where(random.random(4000) < 0.25, np.nan, 1.0)
    sample, as_of_us = a_month(delay_hours=1.0, labels=labels)
    assert arrival(sample, week(2), as_of_us).final == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("sample", "note"),
    [
        (a_sample([]), "no predictions in this window"),
        (a_sample([0.3] * 500), "no label was ever told"),
        (a_sample([0.3], [1]), "1 of 200 came so far"),
        (a_sample([0.3] * 300, [1] * 300, known_us=START_US + np.arange(300) * (7 * DAY_US // 300)), "does not say"),
    ],
    ids=["empty", "no labels ever", "one row", "no time of labels"],
)
def test_where_history_says_nothing_it_is_said(sample, note):
    found = arrival(sample, week(), week().end_us)
    assert note in found.note
    assert found.ripe is None
    assert ripe_rows(sample, week().end_us, found).all()


def test_predictions_of_the_future_wait_for_nothing():
    sample = a_sample([0.3] * 400, [1] * 200 + [np.nan] * 200)
    found = arrival(sample, week(), START_US + 4 * DAY_US)
    assert found.known == 0.5
    assert found.ripe is False
