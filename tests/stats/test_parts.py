from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seatrial.stats.parts import change, means

random = np.random.default_rng(0)


def test_with_a_cluster_for_each_row_it_is_welchs_test():
    old, new = random.normal(0, 1, 300), random.normal(0.1, 2, 200)
    found = change(means(old, np.zeros(300, int), 1, np.arange(300)), means(new, np.zeros(200, int), 1, np.arange(200)))
    oracle = stats.ttest_ind(new, old, equal_var=False)
    assert found.value[0] == pytest.approx(new.mean() - old.mean())
    assert found.p_value[0] == pytest.approx(oracle.pvalue, rel=1e-9)
    assert found.interval(0) == pytest.approx(tuple(oracle.confidence_interval()))


def test_rows_of_one_day_are_not_taken_for_as_many_days():
    days = np.repeat(np.arange(20), 100)
    shared = random.normal(size=20)[days] + 0.01 * random.normal(size=2000)
    alone = means(shared, np.zeros(2000, int), 1, np.arange(2000))
    together = means(shared, np.zeros(2000, int), 1, days)
    assert together.variance[0] > 50 * alone.variance[0]
    assert together.variance[0] == pytest.approx(shared.reshape(20, 100).mean(axis=1).var(ddof=1) / 20)


def test_a_part_without_rows_or_with_one_cluster_has_no_variance():
    found = means(np.ones(4), np.array([0, 0, 2, 2]), 3, np.array([0, 1, 1, 1]))
    assert np.isnan(found.mean[1])
    assert np.isnan(found.variance[1:]).all()
    assert found.variance[0] == 0
    assert np.isnan(change(found, found).p_value[1:]).all()
    assert change(found, found).p_value[0] == 1
    assert change(found, found).interval(2) is None
