import random
import warnings

import lightgbm
import numpy as np
import pytest
import threadpoolctl
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from seatrial.training import estimator as found
from seatrial.training.estimator import controlled, describe, fit_estimator, importance, make_estimator, score
from tests.training.factories import LIGHTGBM, LOGISTIC, model

X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(float)
NAMES = ["a", "b", "c"]


def build(estimator=LOGISTIC, **changes):
    return make_estimator(model(estimator=estimator, **changes))


def fitted(declared):
    with controlled(declared, []):
        return fit_estimator(declared, X, Y, NAMES)


def forest():
    return RandomForestClassifier(n_estimators=5)


class Fussy:
    """Takes everything, then gives up."""

    def fit(self, inputs, target):
        raise RuntimeError("ran out of ink at tree 12")

    def predict_proba(self, inputs):
        raise AssertionError


class Undecided(Fussy):
    classes_ = (0, 1)

    def fit(self, inputs, target):
        return self

    def predict_proba(self, inputs):
        return np.full((len(inputs), 2), np.nan)


@pytest.mark.parametrize(
    ("spelling", "kind"),
    [
        (LOGISTIC, LogisticRegression),
        (LogisticRegression, LogisticRegression),
        (LogisticRegression(), LogisticRegression),
        (forest, RandomForestClassifier),
        (f"{__name__}.forest", RandomForestClassifier),
    ],
)
def test_an_estimator_is_a_path_a_class_a_function_or_an_object(spelling, kind):
    assert type(build(spelling)) is kind


def test_parameters_reach_every_spelling():
    for spelling in (LOGISTIC, LogisticRegression, LogisticRegression()):
        assert build(spelling, params={"C": 0.25}).C == 0.25


def test_the_users_object_is_never_touched():
    given = LogisticRegression()
    made = fitted(model(estimator=given, params={"C": 0.25}))
    assert made is not given
    assert given.C == 1.0
    assert not hasattr(given, "coef_")


def test_the_system_sets_the_seed_in_every_step_unless_the_user_did():
    assert build(HistGradientBoostingClassifier, seed=7).random_state == 7
    assert build(HistGradientBoostingClassifier, params={"random_state": 3}).random_state == 3
    piped = build(make_pipeline(SimpleImputer(), forest()), seed=9)
    assert piped.steps[-1][1].random_state == 9


def test_lightgbm_is_made_deterministic_quiet_and_gets_the_threads():
    params = build(LIGHTGBM, threads=2).get_params()
    assert (params["deterministic"], params["force_row_wise"], params["n_jobs"]) == (True, True, 2)
    assert (params["random_state"], params["verbosity"]) == (42, -1)
    assert "force_row_wise" not in build(LIGHTGBM, params={"force_col_wise": True}).get_params()


def test_threads_given_as_a_parameter_are_refused_with_the_right_place():
    with pytest.raises(found.BadEstimator) as caught:
        build(LIGHTGBM, params={"n_jobs": 4})
    assert "Model(..., threads=4)" in str(caught.value)


def test_threads_are_limited_and_global_seeds_set_and_put_back():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    drawn = []
    for _ in range(2):
        with controlled(model(), []):
            drawn.append((random.random(), np.random.random()))
            assert {pool["num_threads"] for pool in threadpoolctl.threadpool_info()} == {1}
    assert drawn[0] == drawn[1]
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_warnings_are_heard_once_each_and_not_shown():
    heard = []
    with controlled(model(), heard):
        for _ in range(3):
            warnings.warn("did not converge", stacklevel=1)
    assert heard == ["UserWarning: did not converge"]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("LogisticRegression", "no import path"),
        ("sklearn.linear_model.LogisticRegresion", "Did you mean 'LogisticRegression'?"),
        ("not_installed_at_all.Model", "pip install 'seatrial[train]' not_installed_at_all"),
        ("sklearn.not_there.Model", "no module 'sklearn.not_there'"),
    ],
)
def test_a_path_that_leads_nowhere_says_where_it_ends(path, words):
    with pytest.raises(found.EstimatorNotFound) as caught:
        build(path)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_package_of_the_extra_is_told_by_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "lightgbm", None)  # what an import finds when it is not installed
    with pytest.raises(found.EstimatorNotFound) as caught:
        build(LIGHTGBM)
    assert "Run pip install 'seatrial[train]'." in str(caught.value)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        ("math.pi", "which is float"),
        ("math.sqrt", "does not take|no fit"),
        (dict, "no fit"),
        (LinearSVC, "predict_proba"),
        (LinearRegression, "predict_proba"),
    ],
)
def test_what_is_no_estimator_for_the_task_is_refused(estimator, words):
    with pytest.raises(found.BadEstimator, match=words):
        build(estimator)


def test_an_unknown_parameter_is_named_with_the_nearest():
    with pytest.raises(found.BadEstimator) as caught:
        build(params={"max_itr": 5})
    assert "Did you mean 'max_iter'?" in str(caught.value)
    with pytest.raises(found.BadEstimator, match="max_itr"):
        build(LogisticRegression(), params={"max_itr": 5})


class Quitter(LogisticRegression):
    def fit(self, X, y):
        raise SystemExit(3)


def test_an_estimator_that_ends_the_process_is_a_failed_fit():
    with pytest.raises(found.EstimatorFailed, match="SystemExit: 3"):
        fitted(model(estimator=Quitter))


def test_an_estimator_that_raises_is_told_in_its_own_words():
    with pytest.raises(found.EstimatorFailed, match="RuntimeError: ran out of ink at tree 12") as caught:
        fitted(model(estimator=Fussy))
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert caught.value.exit_code == 1


def test_scores_that_are_no_numbers_are_refused():
    declared = model(estimator=Undecided)
    with pytest.raises(found.EstimatorFailed, match="80 scores of 80"):
        score(declared, fitted(declared), X, NAMES)


def test_missing_values_are_told_by_column_in_fitting_and_in_scoring():
    holes = X.copy()
    holes[:5, 1] = np.nan
    with pytest.raises(found.MissingValuesNotTaken) as caught:
        fit_estimator(model(), holes, Y, NAMES)
    assert "b (5 of 80 rows)" in str(caught.value)
    assert "make_pipeline(sklearn.impute.SimpleImputer(), ...)" in str(caught.value)
    with pytest.raises(found.MissingValuesNotTaken, match="b "):
        score(model(), fitted(model()), holes, NAMES)
    piped = model(estimator=make_pipeline(SimpleImputer(), LogisticRegression()))
    assert score(piped, fit_estimator(piped, holes, Y, NAMES), holes, NAMES).shape == (80,)


def test_importance_is_sorted_and_comes_from_weights_or_coefficients():
    linear = fitted(model())
    told = importance(linear, NAMES)
    assert set(told) == set(NAMES)
    assert list(told.values()) == sorted(np.abs(linear.coef_[0]), reverse=True)
    trees = importance(fitted(model(estimator=forest)), NAMES)
    assert sum(trees.values()) == pytest.approx(1)
    piped = fitted(model(estimator=make_pipeline(SimpleImputer(), LogisticRegression())))
    assert set(importance(piped, NAMES)) == set(NAMES)
    assert importance(fitted(model(estimator=HistGradientBoostingClassifier)), NAMES) == {}


def test_the_description_is_plain_and_the_same_twice():
    piped = model(estimator=make_pipeline(SimpleImputer(), LogisticRegression(C=0.5)))
    told = describe(make_estimator(piped))
    assert told["class"] == "sklearn.pipeline.Pipeline"
    assert told == describe(make_estimator(piped))
    assert "0x" not in str(told)
    booster = describe(build(LIGHTGBM, params={"n_estimators": 7}))
    assert booster["class"] == f"{lightgbm.LGBMClassifier.__module__}.LGBMClassifier"
    assert booster["params"]["n_estimators"] == 7


def test_a_classifier_is_not_taken_for_a_regression():
    with pytest.raises(found.BadEstimator, match="RandomForestClassifier, which is not for regression"):
        build(estimator="sklearn.ensemble.RandomForestClassifier", task="regression")
