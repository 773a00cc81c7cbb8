from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder

from seatrial.stats.domain import auc_error, domain, logistic

EDGES = np.linspace(-2, 2, 19)


def coded(values, edges=EDGES):
    return np.searchsorted(edges, values).astype(np.int32)


def test_samples_of_one_world_cannot_be_told_apart():
    random = np.random.default_rng(0)
    first, second = (coded(random.normal(size=(4000, 5))) for _ in range(2))
    found = domain(first, second, np.full(5, 20))
    assert not found.moved(0.55)
    assert found.auc == pytest.approx(0.5, abs=4 * found.error)
    assert found.weights.mean() == pytest.approx(1)
    assert found.effective > 0.8


def test_weights_are_the_ratio_of_the_densities():
    random = np.random.default_rng(1)
    old, new = random.normal(size=(20_000, 2)), random.normal((0.8, 0), size=(20_000, 2))
    edges = np.linspace(-3, 3.5, 19)
    found = domain(coded(old, edges), coded(new, edges), np.full(2, 20))
    assert found.moved(0.55)
    true = 0.8 * old[:, 0] - 0.32
    assert np.corrcoef(np.log(found.weights), true)[0, 1] > 0.97
    weighted = np.average(old[:, 0], weights=found.weights)
    assert weighted == pytest.approx(0.8, abs=0.05)
    assert found.effective == pytest.approx(np.exp(-0.64), abs=0.06)  # of a normal shifted by 0.8 sd


def test_the_regression_is_scikit_learns():
    random = np.random.default_rng(2)
    codes = random.integers(0, 6, (800, 3))
    target = (random.random(800) < 1 / (1 + np.exp(-(codes[:, 0] - 2.5 + (codes[:, 1] == 3))))).astype(float)
    weights = random.uniform(0.5, 2, 800)
    beta = logistic(codes + np.array([0, 6, 12]), 18, target, weights)
    hot = OneHotEncoder(sparse_output=False, categories=[range(6)] * 3).fit_transform(codes)
    oracle = LogisticRegression(C=1, tol=1e-10, max_iter=5000).fit(hot, target, sample_weight=weights)
    assert beta[:18] == pytest.approx(oracle.coef_[0], abs=1e-3)
    assert beta[18] == pytest.approx(oracle.intercept_[0], abs=2e-3)


def test_the_error_of_an_area_is_that_of_hanley_and_mcneil():
    # their table III: an area of 0.893 with 51 abnormal and 58 normal images has the error 0.0326
    assert auc_error(0.893, 58, 51) == pytest.approx(0.0326, abs=2e-4)


def test_one_kind_of_row_in_each_sample_is_told_apart_and_leaves_nothing():
    first, second = np.zeros((300, 1), np.int32), np.ones((300, 1), np.int32)
    found = domain(first, second, np.array([2]))
    assert (found.auc, found.moved(0.55)) == (1, True)
    assert np.isfinite(found.weights).all()
