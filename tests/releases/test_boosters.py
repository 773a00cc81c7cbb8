import json

import numpy as np
import pandas as pd
import pytest
import xgboost
from catboost import CatBoostClassifier, CatBoostRegressor
from xgboost import XGBClassifier, XGBRegressor

from seatrial.releases.native import NativeDamaged, NativeModel, NotCaptured, capture
from tests.releases.factories import INPUTS, labels, rows, values

QUIET = {"iterations": 15, "allow_writing_files": False, "verbose": False, "thread_count": 1}
NAMED = pd.DataFrame(rows(), columns=list(INPUTS))


def xgb(make=XGBClassifier, **params):
    return make(**{"n_estimators": 15, "n_jobs": 1} | params)


@pytest.mark.parametrize("make", [xgb, lambda: CatBoostClassifier(**QUIET)])
@pytest.mark.parametrize("given", [rows(), NAMED], ids=["positions", "names"])
def test_a_kept_classifier_scores_the_probability_of_the_positive_class_by_position(make, given):
    estimator = make().fit(given, labels())
    scores = capture(estimator, "binary").scorer()(rows())
    assert (scores.dtype, scores.shape) == (np.float64, (1500,))
    np.testing.assert_array_equal(scores, estimator.predict_proba(given)[:, 1].astype(np.float64))


@pytest.mark.parametrize(
    "make",
    [
        lambda: xgb(XGBRegressor),
        lambda: xgb(XGBRegressor, objective="count:poisson"),
        lambda: CatBoostRegressor(**QUIET),
        lambda: CatBoostRegressor(loss_function="Poisson", **QUIET),
    ],
)
def test_a_kept_regressor_scores_the_value(make):
    estimator = make().fit(rows(), np.abs(values()) + 1)
    np.testing.assert_array_equal(capture(estimator, "regression").scorer()(rows()), estimator.predict(rows()))


def test_a_bare_booster_with_named_columns_is_kept_by_position():
    data = xgboost.DMatrix(NAMED, labels(), nthread=1)
    booster = xgboost.train({"objective": "binary:logistic", "nthread": 1}, data, 10)
    native = capture(booster, "binary")
    np.testing.assert_array_equal(native.scorer()(rows()), booster.predict(data).astype(np.float64))
    assert booster.feature_names == list(INPUTS), "the caller's own is left as it was"


def test_xgboost_that_stopped_early_scores_with_its_best_iteration():
    stopped = xgb(n_estimators=80, learning_rate=0.8, early_stopping_rounds=2)
    stopped.fit(rows()[:1000], labels()[:1000], eval_set=[(rows()[1000:], labels()[1000:])], verbose=False)
    assert stopped.best_iteration < 70
    native = capture(stopped, "binary")
    assert native.load().num_boosted_rounds() == stopped.best_iteration + 1
    np.testing.assert_array_equal(native.scorer()(rows()), stopped.predict_proba(rows())[:, 1].astype(np.float64))


@pytest.mark.parametrize("make", [xgb, lambda: CatBoostClassifier(**QUIET)])
def test_the_same_fit_is_kept_as_the_same_bytes(make):
    first, second = (capture(make().fit(rows(), labels()), "binary").data for _ in range(2))
    assert first == second


@pytest.mark.parametrize("estimator", [XGBClassifier(), XGBRegressor(), CatBoostClassifier(), CatBoostRegressor()])
def test_what_is_not_fitted_is_refused(estimator):
    with pytest.raises(NotCaptured, match="not fitted"):
        capture(estimator, "binary")


def own_objective(truth, raw):
    p = 1 / (1 + np.exp(-raw))
    return p - truth, p * (1 - p)


@pytest.mark.parametrize(
    ("make", "task"),
    [
        (lambda: xgb(objective="binary:hinge"), "binary"),
        (lambda: xgb(objective=own_objective), "binary"),
        (lambda: xgb(), "regression"),
        (lambda: CatBoostRegressor(loss_function="RMSEWithUncertainty", **QUIET), "regression"),
        (lambda: CatBoostRegressor(**QUIET), "binary"),
    ],
)
def test_an_objective_whose_answer_is_no_score_of_the_task_is_refused(make, task):
    with pytest.raises(NotCaptured, match="was fitted with the"):
        capture(make().fit(rows(), labels()), task)


def test_another_mark_for_missing_than_nan_is_refused():
    with pytest.raises(NotCaptured, match="missing=-1"):
        capture(xgb(missing=-1.0).fit(rows(missing=False), labels()), "binary")


def test_three_classes_are_refused_for_a_binary_model():
    target = np.repeat([0, 1, 2], 500)
    for make in (xgb, lambda: CatBoostClassifier(**QUIET)):
        with pytest.raises(NotCaptured):
            capture(make().fit(rows(), target), "binary")


@pytest.mark.parametrize("format", ["xgboost", "catboost"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_model_that_was_cut_short_is_refused(format, share):
    make = xgb if format == "xgboost" else lambda: CatBoostClassifier(**QUIET)
    data = capture(make().fit(rows(), labels()), "binary").data
    with pytest.raises(NativeDamaged):
        NativeModel(format, data[: int(len(data) * share)], "binary").load()


def test_xgboost_is_kept_as_json_that_others_can_read():
    native = capture(xgb().fit(rows(), labels()), "binary")
    assert native.format == "xgboost"
    assert len(json.loads(native.data)["learner"]["gradient_booster"]["model"]["trees"]) == 15
