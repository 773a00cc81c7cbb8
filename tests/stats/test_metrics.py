import doctest

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.stats import metrics


def test_the_examples_in_the_docstrings_hold():
    failed, tried = doctest.testmod(metrics)
    assert tried > 10
    assert failed == 0


@st.composite
def labelled_scores(draw):
    """Both classes present; scores from a coarse grid, so that ties are the rule."""
    count = draw(st.integers(2, 60))
    labels = draw(
        st.lists(st.integers(0, 1), min_size=count, max_size=count).filter(lambda found: len(set(found)) == 2)
    )
    grid = draw(st.sampled_from([2, 5, 10, 1000]))
    scores = draw(st.lists(st.integers(0, grid), min_size=count, max_size=count))
    return np.array(labels), np.array(scores) / grid


@settings(max_examples=60, deadline=None)
@given(labelled_scores())
def test_ranking_metrics_agree_with_scikit_learn_also_at_ties(drawn):
    labels, scores = drawn
    assert metrics.roc_auc(labels, scores) == pytest.approx(oracle.roc_auc_score(labels, scores), abs=1e-12)
    expected = oracle.average_precision_score(labels, scores)
    assert metrics.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(labelled_scores())
def test_probability_metrics_agree_with_scikit_learn(drawn):
    labels, scores = drawn
    assert metrics.log_loss(labels, scores) == pytest.approx(oracle.log_loss(labels, scores), rel=1e-12)
    assert metrics.brier(labels, scores) == pytest.approx(oracle.brier_score_loss(labels, scores), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(labelled_scores(), st.floats(0.05, 0.95))
def test_decision_metrics_agree_with_scikit_learn_at_any_threshold(drawn, threshold):
    labels, scores = drawn
    decided = (scores >= threshold).astype(int)
    assert metrics.accuracy(labels, scores, threshold=threshold) == oracle.accuracy_score(labels, decided)
    for ours, theirs in ((metrics.precision, oracle.precision_score), (metrics.recall, oracle.recall_score)):
        assert ours(labels, scores, threshold=threshold) == pytest.approx(theirs(labels, decided, zero_division=0))
    expected = oracle.f1_score(labels, decided, zero_division=0)
    assert metrics.f1(labels, scores, threshold=threshold) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=50))
def test_regression_metrics_agree_with_scikit_learn(pairs):
    labels, scores = np.array(pairs).T
    assert metrics.mae(labels, scores) == pytest.approx(oracle.mean_absolute_error(labels, scores), rel=1e-9)
    expected = oracle.root_mean_squared_error(labels, scores)
    assert metrics.rmse(labels, scores) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if np.var(labels) > 1e-9:
        assert metrics.r2(labels, scores) == pytest.approx(oracle.r2_score(labels, scores), rel=1e-6, abs=1e-9)


def test_calibration_error_is_the_weighted_gap_of_scikit_learns_calibration_curve():
    random = np.random.default_rng(3)
    scores = np.concatenate([random.random(500), np.linspace(0, 1, 11)])  # bin edges too
    labels = (random.random(scores.size) < scores**2).astype(int)
    observed, predicted = sklearn.calibration.calibration_curve(labels, scores, n_bins=10)
    rows = np.bincount(np.searchsorted(np.linspace(0, 1, 11)[1:-1], scores), minlength=10)
    expected = np.sum(np.abs(observed - predicted) * rows[rows > 0]) / scores.size
    assert metrics.expected_calibration_error(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_metrics_that_need_two_classes_say_so_when_there_is_one():
    scores = np.array([0.2, 0.7])
    for metric in (metrics.roc_auc, metrics.average_precision, metrics.recall, metrics.f1):
        with pytest.raises(metrics.MetricUndefined, match="all 2 labels are 0"):
            metric(np.zeros(2), scores)
    with pytest.raises(metrics.MetricUndefined, match="all 2 labels are 1"):
        metrics.roc_auc(np.ones(2), scores)
    assert metrics.average_precision(np.ones(2), scores) == 1.0
    with pytest.raises(metrics.MetricUndefined):
        metrics.r2(np.array([3.0, 3.0]), scores)


def test_measuring_gives_none_for_what_the_rows_do_not_define():
    measured = metrics.measure("binary", np.zeros(3), np.array([0.1, 0.2, 0.9]))
    assert measured["roc_auc"] is None
    assert measured["precision"] == 0.0
    assert measured["log_loss"] == pytest.approx(oracle.log_loss([0, 0, 0], [0.1, 0.2, 0.9], labels=[0, 1]))
    assert set(measured) == set(metrics.METRICS["binary"])


def test_a_sure_mistake_costs_much_but_not_infinity():
    assert 36 < metrics.log_loss(np.array([1]), np.array([0.0])) < 37


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 1], [0.1, 0.2, 0.3]),
        ([], []),
        ([0, 1], [0.1, float("nan")]),
        ([0, float("nan")], [0.1, 0.2]),
        ([0, 2], [0.1, 0.2]),
        ([0, 1], [0.1, float("inf")]),
    ],
)
def test_what_cannot_be_measured_is_refused(labels, scores):
    with pytest.raises(metrics.BadScores):
        metrics.roc_auc(np.array(labels, dtype=float), np.array(scores))


def test_log_loss_refuses_scores_that_are_no_probabilities():
    with pytest.raises(metrics.BadScores, match=r"-0.5 to 2"):
        metrics.log_loss(np.array([0, 1]), np.array([-0.5, 2.0]))


@settings(max_examples=40, deadline=None)
@given(labelled_scores(), st.floats(0.05, 0.95))
def test_the_confusion_is_scikit_learns(drawn, threshold):
    labels, scores = drawn
    found = metrics.confusion(labels, scores, threshold=threshold)
    theirs = oracle.confusion_matrix(labels, (scores >= threshold).astype(int), labels=[0, 1]).ravel().tolist()
    assert [found.true_negative, found.false_positive, found.false_negative, found.true_positive] == theirs


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=50), st.floats(0.01, 0.99))
def test_the_quantile_loss_is_scikit_learns_pinball_loss(pairs, quantile):
    labels, scores = np.array(pairs).T
    expected = oracle.mean_pinball_loss(labels, scores, alpha=quantile)
    assert metrics.quantile_loss(labels, scores, quantile=quantile) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_each_rows_loss_of_a_regression_is_squared_and_of_a_quantile_the_terms_of_its_quantile_loss():
    labels, scores = np.array([10.0, 0.0, np.nan]), np.array([0.0, 10.0, 1.0])
    np.testing.assert_array_equal(metrics.losses("regression", labels, scores), [100.0, 100.0, np.nan])
    found = metrics.losses("regression", labels, scores, quantile=0.9)
    np.testing.assert_allclose(found, [9.0, 1.0, np.nan])
    assert found[:2].mean() == metrics.quantile_loss(labels[:2], scores[:2], quantile=0.9)


def test_measuring_decides_at_the_threshold_and_the_quantile_that_are_given():
    labels, scores = np.array([0, 1, 1, 0]), np.array([0.1, 0.3, 0.6, 0.4])
    assert metrics.measure("binary", labels, scores, threshold=0.2)["recall"] == 1.0
    assert metrics.measure("binary", labels, scores)["recall"] == 0.5
    asked = metrics.measure("regression", np.array([10.0, 0.0]), np.array([0.0, 10.0]), quantile=0.9)
    assert asked["quantile_loss"] == 5.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 6))
def test_the_confusion_of_classes_is_scikit_learns(seed, rows, classes):
    random = np.random.default_rng(seed)
    labels, scores = random.integers(0, classes, rows), random.random((rows, classes))
    theirs = oracle.confusion_matrix(labels, scores.argmax(axis=1), labels=list(range(classes)))
    assert (metrics.multiclass_confusion(labels, scores) == theirs).all()


def test_a_metric_that_is_no_finite_number_is_none():
    measured = metrics.measure("regression", np.array([1.0, 2.0, 3.0]), np.array([1e300, 2.0, 3.0]))
    assert measured["rmse"] is None
    assert all(value is None or np.isfinite(value) for value in measured.values())
