from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.stats.arrival import arrival_curve


def by_hand(delays, waited, age):
    """Product over the delays up to an age of 1 - (came then) / (still waited for then)."""
    left = np.where(np.isnan(delays), waited, delays)
    share = 1.0
    for step in np.unique(delays[~np.isnan(delays)]):
        if step <= age:
            share *= 1 - (delays == step).sum() / (left >= step).sum()
    return 1 - share


rows = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30)


@given(rows, st.integers(0, 13))
def test_the_curve_is_that_of_kaplan_and_meier(found, age):
    due, waited = (np.array(column, dtype=float) for column in zip(*found, strict=True))
    delays = np.where(due <= waited, due, np.nan)
    curve = arrival_curve(delays, waited)
    assert curve.at(np.array([float(age)]))[0] == pytest.approx(by_hand(delays, waited, age))
    assert (np.diff(curve.shares) >= 0).all()


def test_young_predictions_do_not_count_as_labels_that_never_come():
    random = np.random.default_rng(0)
    due = random.exponential(10, 20_000)
    waited = random.uniform(0, 40, 20_000)
    curve = arrival_curve(np.where(due <= waited, due, np.nan), waited)
    ages = np.array([1.0, 5.0, 10.0, 25.0])
    assert curve.at(ages) == pytest.approx(1 - np.exp(-ages / 10), abs=0.015)
    assert curve.age_of(0.5) == pytest.approx(10 * np.log(2), abs=0.4)


def test_without_a_label_there_is_no_age():
    curve = arrival_curve(np.full(5, np.nan), np.ones(5))
    assert (curve.final, curve.age_of(0.95)) == (0, None)
    assert curve.at(np.array([3.0]))[0] == 0
