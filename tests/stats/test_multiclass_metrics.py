"""Metrics of several classes, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given
from hypothesis import strategies as st

from seatrial.stats import metrics
from seatrial.stats.metrics import BadScores, MetricUndefined, measure


def made(rows: int, classes: int, seed: int, *, every: bool = True):
    """Labels and probabilities; every: each class has a row."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, rows)
    if every:
        labels[:classes] = np.arange(classes)
    raw = random.random((rows, classes)) + 2 * np.eye(classes)[labels] * random.random((rows, 1))
    return labels.astype(float), raw / raw.sum(axis=1, keepdims=True)


def told_by_scikit_learn(labels, scores):
    decided, places = scores.argmax(axis=1), np.arange(scores.shape[1])
    macro = {"average": "macro", "zero_division": 0}
    return {
        "roc_auc": oracle.roc_auc_score(labels, scores, multi_class="ovr", average="macro"),
        "log_loss": oracle.log_loss(labels, scores, labels=places),
        "brier": oracle.brier_score_loss(labels, scores, labels=places),
        "accuracy": oracle.accuracy_score(labels, decided),
        "precision": oracle.precision_score(labels, decided, **macro),
        "recall": oracle.recall_score(labels, decided, **macro),
        "f1": oracle.f1_score(labels, decided, **macro),
    }


@pytest.mark.parametrize(("rows", "classes"), [(60, 3), (200, 7), (1500, 500)])
def test_every_metric_is_what_scikit_learn_says(rows, classes):
    labels, scores = made(rows, classes, rows)
    assert measure("multiclass", labels, scores) == pytest.approx(told_by_scikit_learn(labels, scores), abs=1e-12)


@given(st.integers(0, 10_000))
def test_macro_means_count_the_classes_that_happened_or_were_decided_for(seed):
    labels, scores = made(6, 5, seed, every=False)
    decided = scores.argmax(axis=1)
    macro = {"average": "macro", "zero_division": 0}
    assert metrics.multiclass_f1(labels, scores) == pytest.approx(oracle.f1_score(labels, decided, **macro))
    assert metrics.multiclass_recall(labels, scores) == pytest.approx(oracle.recall_score(labels, decided, **macro))
    assert metrics.multiclass_precision(labels, scores) == pytest.approx(
        oracle.precision_score(labels, decided, **macro)
    )


def test_a_class_without_rows_has_no_curve_and_one_class_alone_has_none_at_all():
    labels, scores = made(40, 3, 1)
    wider = np.column_stack([scores, np.zeros(40)])
    assert metrics.multiclass_roc_auc(labels, wider) == metrics.multiclass_roc_auc(labels, scores)
    with pytest.raises(MetricUndefined):
        metrics.multiclass_roc_auc(np.zeros(40), scores)
    assert measure("multiclass", np.zeros(40), scores)["roc_auc"] is None


def test_a_class_that_was_given_no_probability_costs_36_nats_and_not_infinity():
    assert metrics.multiclass_log_loss(np.array([0.0]), np.array([[0.0, 1.0]])) == pytest.approx(36.04, abs=0.01)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (np.array([0.0, 3.0]), np.full((2, 3), 1 / 3)),
        (np.array([0.0, np.nan]), np.full((2, 3), 1 / 3)),
        (np.array([0.0, 0.5]), np.full((2, 3), 1 / 3)),
        (np.array([0.0]), np.array([0.5])),
        (np.array([0.0]), np.array([[np.inf, 0.0]])),
        (np.array([]), np.empty((0, 3))),
    ],
)
def test_labels_that_are_no_class_and_scores_that_are_no_table_are_refused(labels, scores):
    with pytest.raises(BadScores):
        metrics.multiclass_accuracy(labels, scores)


def test_probabilities_beyond_1_are_refused():
    with pytest.raises(BadScores, match=r"\[0, 1\]"):
        metrics.multiclass_brier(np.array([0.0]), np.array([[1.5, -0.5]]))
