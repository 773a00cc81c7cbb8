"""What converters change without a word: each is mended in the export, or found by parity and released otherwise."""

import numpy as np
import pytest
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)
from xgboost import XGBClassifier

from seatrial.releases.ladder import choose
from seatrial.releases.native import capture
from seatrial.releases.onnx_export import ExportFailed, to_onnx
from seatrial.releases.parity import compare, difference
from seatrial.releases.runtime import Runtime
from tests.releases.factories import BINARY, REGRESSION, labels, rows, values


def forest(**params):
    return RandomForestClassifier(n_estimators=10, random_state=0, **params)


def hist(**params):
    return HistGradientBoostingClassifier(max_iter=10, **params)


def lgbm():
    return LGBMClassifier(n_estimators=15, n_jobs=1, verbose=-1)


def logistic():
    return LogisticRegression(max_iter=2000)


def years():
    """Rows whose third input is one of 15 codes."""
    made = rows(missing=False).copy()
    made[:, 2] = np.clip(np.round(made[:, 2] - 2005), 0, 14)
    return made


MENDED = {
    "an imputer's indicator": lambda: make_pipeline(SimpleImputer(add_indicator=True), StandardScaler(), logistic()),
    "an imputer's indicator before trees": lambda: make_pipeline(SimpleImputer(add_indicator=True), forest()),
    "a forest with missing values": forest,
    "extra trees with missing values": lambda: ExtraTreesClassifier(n_estimators=10, random_state=0),
    "imputer and scaler before boosted trees": lambda: make_pipeline(SimpleImputer(), StandardScaler(), hist()),
    "imputer and scaler before a forest": lambda: make_pipeline(
        SimpleImputer(strategy="median"), RobustScaler(), forest()
    ),
    "MinMaxScaler before trees": lambda: make_pipeline(SimpleImputer(), MinMaxScaler(), hist()),
    "MaxAbsScaler before trees": lambda: make_pipeline(MaxAbsScaler(), SimpleImputer(), hist()),
    "boosted trees alone": hist,
    "LightGBM in a pipeline": lambda: make_pipeline(SimpleImputer(), StandardScaler(), lgbm()),
    "XGBoost in a pipeline": lambda: make_pipeline(
        SimpleImputer(), StandardScaler(), XGBClassifier(n_estimators=30, n_jobs=1)
    ),
}
MENDED_COMPLETE = {
    "a discriminant of two classes": LinearDiscriminantAnalysis,
    "a discriminant in a pipeline": lambda: make_pipeline(StandardScaler(), LinearDiscriminantAnalysis()),
    "a soft vote": lambda: VotingClassifier(
        [("a", forest()), ("b", make_pipeline(StandardScaler(), logistic()))], voting="soft"
    ),
    "a stack with a forest": lambda: StackingClassifier(
        [("a", forest()), ("b", GradientBoostingClassifier(n_estimators=10))], final_estimator=logistic(), cv=2
    ),
    "a forest behind a scaler": lambda: make_pipeline(StandardScaler(), forest()),
    "a function of numpy": lambda: make_pipeline(
        FunctionTransformer(np.abs), FunctionTransformer(np.log1p), logistic()
    ),
    "a name that is taken": lambda: make_pipeline(StandardScaler(), SGDClassifier(loss="log_loss", random_state=0)),
}
VALUES = {
    "a poisson loss": lambda: HistGradientBoostingRegressor(loss="poisson", max_iter=20),
    "a gamma loss": lambda: HistGradientBoostingRegressor(loss="gamma", max_iter=20),
    "a ridge": Ridge,
    "a mean of regressors": lambda: VotingRegressor(
        [("a", RandomForestRegressor(10, random_state=0)), ("b", make_pipeline(StandardScaler(), Ridge()))]
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_is_mended_answers_the_same_also_where_values_are_missing(name):
    native = capture(MENDED[name]().fit(rows(), labels()), "binary")
    parity = compare(native, to_onnx(native, 4), rows(), BINARY)
    assert parity.passed, parity
    assert parity.missing_rows == 5000


@pytest.mark.parametrize("name", MENDED_COMPLETE)
def test_what_is_mended_answers_the_same(name):
    native = capture(MENDED_COMPLETE[name]().fit(rows(missing=False), labels()), "binary")
    parity = compare(native, to_onnx(native, 4), rows(missing=False), BINARY)
    assert parity.passed, parity


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_mended_is_the_same(name):
    native = capture(VALUES[name]().fit(rows(missing=False), np.abs(values()) + 1), "regression")
    parity = compare(native, to_onnx(native, 4), rows(missing=False), REGRESSION)
    assert parity.passed, parity


def test_a_discriminant_of_three_classes_is_converted_alike():
    native = capture(LinearDiscriminantAnalysis().fit(rows(missing=False), np.arange(1500) % 3), "multiclass")
    got = Runtime(to_onnx(native, 4)).score(rows(missing=False))
    np.testing.assert_allclose(got, native.scorer()(rows(missing=False)), atol=1e-6)


@pytest.mark.parametrize("name", ["an imputer's indicator", "LightGBM in a pipeline", "XGBoost in a pipeline"])
def test_what_is_mended_exports_to_the_same_bytes_again(name):
    native = capture(MENDED[name]().fit(rows(), labels()), "binary")
    assert to_onnx(native, 4) == to_onnx(native, 4)


CAUGHT = {
    "splits on sets of categories": (lambda: hist(categorical_features=[2]), years, "skops", "differs by up to 0."),
    "steps of an isotonic calibration": (
        lambda: CalibratedClassifierCV(forest(max_depth=5), method="isotonic", cv=2),
        lambda: rows(missing=False),
        "skops",
        "differs by up to",
    ),
    "LightGBM calibrated": (
        lambda: CalibratedClassifierCV(lgbm(), cv=2),
        rows,
        "skops",
        "differs by up to",
    ),
    "a power of the inputs": (
        lambda: make_pipeline(PowerTransformer(), logistic()),
        lambda: rows(missing=False),
        "skops",
        "differs by up to",
    ),
    "a mean of LightGBM's trees": (
        lambda: LGBMClassifier(
            boosting_type="rf", bagging_freq=1, bagging_fraction=0.7, n_estimators=10, n_jobs=1, verbose=-1
        ),
        rows,
        "lightgbm",
        "differs by up to",
    ),
    "XGBoost's linear booster": (
        lambda: XGBClassifier(booster="gblinear", updater="coord_descent", n_estimators=5, n_jobs=1),
        lambda: rows(missing=False),
        "xgboost",
        "it is linear",
    ),
    "CatBoost's deep trees": (
        lambda: CatBoostClassifier(
            grow_policy="Depthwise", iterations=10, allow_writing_files=False, verbose=False, thread_count=1
        ),
        rows,
        "catboost",
        "non symmetric trees",
    ),
    "CatBoost in a pipeline": (
        lambda: make_pipeline(
            SimpleImputer(), CatBoostClassifier(iterations=10, allow_writing_files=False, verbose=False, thread_count=1)
        ),
        rows,
        "skops",
        "cannot be exported",
    ),
}


@pytest.mark.parametrize("name", CAUGHT)
def test_what_is_not_mended_is_found(name):
    make, given, format, reason = CAUGHT[name]
    native = capture(make().fit(given(), labels()), "binary")
    assert native.format == format
    try:
        parity = compare(native, to_onnx(native, 4), given(), BINARY)
        assert not parity.passed
        found = difference(parity)
    except ExportFailed as refused:
        found = refused.found
    assert reason in found


@pytest.mark.parametrize("name", ["splits on sets of categories", "a mean of LightGBM's trees"])
def test_what_was_found_is_released_in_its_own_format(name):
    make, given, format, reason = CAUGHT[name]
    native = capture(make().fit(given(), labels()), "binary")
    form = choose(native, given(), BINARY, "late", threshold=0.5)
    assert (form.format, form.data) == (format, native.data)
    assert form.parity.passed
    assert form.parity.largest < 1e-7
    assert reason in form.parity.refused
    assert form.cost is not None
    np.testing.assert_allclose(form.runtime.score(given()[:50]), native.scorer()(given()[:50]), rtol=0, atol=1e-7)
