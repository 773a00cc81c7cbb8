import numpy as np
import pytest
import skops.io
from lightgbm import LGBMClassifier
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline

from seatrial.releases.native import NativeDamaged, NativeModel, NotCaptured, TypeNotTrusted, capture
from tests.releases.factories import CLASSIFIERS, REGRESSORS, classifier, labels, regressor, rows


class Doubled(TransformerMixin, BaseEstimator):
    """A transformer of the user's own."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return np.nan_to_num(X) * 2


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_kept_classifier_scores_the_probability_of_the_positive_class(name):
    estimator, native = classifier(name)
    scores = native.scorer()(rows())
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, estimator.predict_proba(rows())[:, 1], rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_kept_regressor_scores_the_value(name):
    estimator, native = regressor(name)
    np.testing.assert_allclose(native.scorer()(rows()), estimator.predict(rows()), rtol=1e-15)


def test_a_lightgbm_model_that_stopped_early_scores_with_its_best_iteration():
    stopped = LGBMClassifier(n_estimators=60, n_jobs=1, verbose=-1, learning_rate=0.5, early_stopping_round=2)
    stopped.fit(rows()[:1000], labels()[:1000], eval_X=rows()[1000:], eval_y=labels()[1000:])
    assert stopped.best_iteration_ < 60
    expected = stopped.predict_proba(rows())[:, 1]
    np.testing.assert_array_equal(capture(stopped, "binary").scorer()(rows()), expected)


@pytest.mark.parametrize("estimator", [LogisticRegression(), LGBMClassifier(), make_pipeline(LogisticRegression())])
def test_what_is_not_fitted_is_refused(estimator):
    with pytest.raises(NotCaptured, match="not fitted"):
        capture(estimator, "binary")


def test_an_unfitted_regressor_is_refused():
    with pytest.raises(NotCaptured, match="Ridge is not fitted"):
        capture(Ridge(), "regression")


def test_a_classifier_without_a_probability_is_refused():
    fitted = RidgeClassifier().fit(rows(missing=False), labels())
    with pytest.raises(NotCaptured, match="no predict_proba"):
        capture(fitted, "binary")


@pytest.mark.parametrize("make", [LogisticRegression, lambda: LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1)])
def test_three_classes_are_refused_for_a_binary_model(make):
    fitted = make().fit(rows(missing=False)[:90], np.repeat([0, 1, 2], 30))
    with pytest.raises(NotCaptured, match="3 classes"):
        capture(fitted, "binary")


def test_an_objective_of_the_users_own_is_refused():
    def objective(truth, raw):
        p = 1 / (1 + np.exp(-raw))
        return p - truth, p * (1 - p)

    own = LGBMClassifier(n_estimators=2, n_jobs=1, verbose=-1, objective=objective).fit(rows(), labels())
    with pytest.raises(NotCaptured, match="objective"):
        capture(own, "binary")


def test_an_object_that_is_no_estimator_is_refused_by_name():
    with pytest.raises(NotCaptured, match=r"builtins\.object"):
        capture(object(), "regression")


def test_a_class_of_the_users_own_is_refused_by_name_when_it_would_be_kept():
    own = make_pipeline(Doubled(), LogisticRegression()).fit(rows(), labels())
    with pytest.raises(TypeNotTrusted, match=r"test_native\.Doubled"):
        capture(own, "binary")


def test_a_file_with_a_type_outside_of_our_list_is_not_loaded():
    forged = NativeModel("skops", skops.io.dumps(Doubled().fit(rows())), "binary")
    with pytest.raises(TypeNotTrusted) as refused:
        forged.scorer()
    assert refused.value.facts["types"] == ["tests.releases.test_native.Doubled"]


@pytest.mark.parametrize("name", ["lightgbm", "hist"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_model_that_was_cut_short_is_refused(name, share):
    _, native = classifier(name)
    end = len(native.data) if name == "hist" else native.data.index(b"\nend of trees")
    with pytest.raises(NativeDamaged):
        NativeModel(native.format, native.data[: int(end * share)], "binary").load()
