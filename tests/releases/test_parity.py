import warnings

import msgspec
import numpy as np
import onnx
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import GradientBoostingRegressor, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seatrial.core.types import Field
from seatrial.releases.native import capture
from seatrial.releases.onnx_export import convert_booster, finished, to_onnx
from seatrial.releases.parity import ParityRefused, compare, nullable_inputs, require
from seatrial.releases.runtime import Runtime
from tests.releases.factories import (
    BINARY,
    CLASSIFIERS,
    INPUTS,
    REGRESSION,
    REGRESSORS,
    classifier,
    exported,
    labels,
    regressor,
    rows,
    values,
)


def on_thresholds(splits):
    """Rows whose value of the split's input is the float32 nearest to the split's threshold."""
    made = rows(missing=False)[: len(splits)].copy()
    for row, (feature, threshold) in zip(made, splits, strict=True):
        row[feature] = np.float32(threshold)
    return made


def lightgbm_splits(booster):
    table = booster.trees_to_dataframe()
    table = table[table["threshold"].notna()]
    features = table["split_feature"].str.removeprefix("Column_").astype(int)
    return list(zip(features, table["threshold"].astype(float), strict=True))


def hist_splits(estimator):
    nodes = np.concatenate([tree.nodes for (tree,) in estimator._predictors])
    nodes = nodes[nodes["is_leaf"] == 0]
    return list(zip(nodes["feature_idx"], nodes["num_threshold"], strict=True))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_answers_the_same_after_export(name):
    parity = compare(classifier(name)[1], exported(name), rows(), BINARY)
    require(parity, name)
    assert parity.passed
    assert parity.largest <= 1e-6
    assert (parity.rows, parity.single_rows, parity.missing_rows) == (1500, 100, 5000)
    assert parity.refuses_missing == ()
    assert msgspec.json.decode(msgspec.json.encode(parity), type=type(parity)) == parity


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_answers_the_same_after_export(name):
    parity = compare(regressor(name)[1], exported(name, "regression"), rows(), REGRESSION)
    assert parity.passed, parity
    assert parity.threshold is None


def test_the_leaves_of_many_trees_are_added_up_without_loss():
    many = GradientBoostingRegressor(n_estimators=100, max_depth=2).fit(rows(missing=False), values())
    native = capture(many, "regression")
    wanted = native.scorer()(rows(missing=False))
    got = Runtime(to_onnx(native, 4)).score(rows(missing=False))
    large = np.abs(wanted) >= 64
    assert (np.abs(got - wanted) / np.spacing(np.abs(wanted).astype(np.float32)))[large].max() <= 1


def test_lightgbm_is_exact_on_its_thresholds_only_because_they_are_rounded_down():
    estimator, native = classifier("lightgbm")
    adversarial = on_thresholds(lightgbm_splits(estimator.booster_)[:1000])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        as_converted = finished(convert_booster(native.load(), 4), "binary")
    plain = compare(native, as_converted, adversarial, BINARY)
    assert not plain.passed
    assert plain.largest > 1e-3
    assert compare(native, exported("lightgbm"), adversarial, BINARY).passed


@pytest.mark.parametrize(("find", "task"), [(classifier, "binary"), (regressor, "regression")])
def test_hist_gradient_boosting_is_exact_on_its_thresholds(find, task):
    estimator, native = find("hist")
    adversarial = on_thresholds(hist_splits(estimator)[:800])
    parity = compare(native, exported("hist", task), adversarial, BINARY if task == "binary" else REGRESSION)
    assert parity.passed, parity


def test_a_forest_fitted_without_missing_values_sends_them_where_scikit_learn_does():
    forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(rows(missing=False), labels())
    native = capture(forest, "binary")
    parity = compare(native, to_onnx(native, 4), rows(missing=False), BINARY)
    assert parity.passed, parity
    assert parity.missing_rows == 5000


def test_a_forests_ties_at_the_threshold_are_decided_alike():
    forest = RandomForestClassifier(n_estimators=10, random_state=0).fit(rows(), labels())
    native = capture(forest, "binary")
    assert (native.scorer()(rows()) == 0.5).any()
    assert compare(native, to_onnx(native, 4), rows(), BINARY).flipped == 0


def test_another_model_is_refused_with_its_worst_row():
    native, other = classifier("hist")[1], exported("logistic")
    parity = compare(native, other, rows(), BINARY)
    assert not parity.passed
    with pytest.raises(ParityRefused, match=r"'late' differs by up to .* the worst is row \d+"):
        require(parity, "late")


def test_what_converts_without_a_word_into_other_numbers_is_refused():
    sets = HistGradientBoostingClassifier(categorical_features=[2], max_iter=10)
    years = rows(missing=False).copy()
    years[:, 2] = np.clip(np.round(years[:, 2] - 2005), 0, 14)
    native = capture(sets.fit(years, labels()), "binary")
    parity = compare(native, to_onnx(native, 4), years, BINARY)
    assert not parity.passed
    assert parity.largest > 1e-3


def test_an_estimator_that_refuses_missing_values_is_recorded_as_such():
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows(missing=False), labels())
    native = capture(plain, "binary")
    parity = compare(native, to_onnx(native, 4), rows(missing=False), BINARY)
    assert parity.passed
    assert parity.refuses_missing == INPUTS
    assert parity.missing_rows == 0


def test_only_inputs_with_an_imputer_accept_missing_values():
    first_two = make_column_transformer((SimpleImputer(), [0, 1]), remainder="passthrough")
    mixed = make_pipeline(first_two, LogisticRegression(max_iter=3000))
    native = capture(mixed.fit(rows(missing=False), labels()), "binary")
    parity = compare(native, to_onnx(native, 4), rows(missing=False), BINARY)
    assert parity.refuses_missing == ("year", "share")


def test_a_decision_that_flips_is_refused_however_small_the_difference():
    native = classifier("logistic")[1]
    scores = native.scorer()(rows())
    model = onnx.load_from_string(exported("logistic"))
    nudge = onnx.helper.make_tensor("nudge", onnx.TensorProto.FLOAT, [], [3e-7])
    model.graph.node[-1].output[0] = "unnudged"
    model.graph.initializer.append(nudge)
    model.graph.node.append(onnx.helper.make_node("Add", ["unnudged", "nudge"], ["score"]))
    just_above = float(scores[0]) + 1e-7
    parity = compare(native, model.SerializeToString(), rows()[:1], BINARY, threshold=just_above)
    assert parity.flipped > 0
    assert parity.largest < 1e-6
    assert not parity.passed


def test_a_row_alone_is_compared_too():
    """A graph that answers by the number of rows is right for many and wrong for one."""
    native = classifier("logistic")[1]
    model = onnx.load_from_string(exported("logistic"))
    helper, kinds = onnx.helper, onnx.TensorProto
    model.graph.node[-1].output[0] = "right"
    model.graph.initializer.append(helper.make_tensor("many", kinds.FLOAT, [], [2.0]))
    model.graph.node.extend(
        [
            helper.make_node("Size", ["right"], ["size"]),
            helper.make_node("Cast", ["size"], ["rows"], to=kinds.FLOAT),
            helper.make_node("Div", ["rows", "many"], ["half"]),
            helper.make_node("Clip", ["half", "", "one"], ["factor"]),
            helper.make_node("Mul", ["right", "factor"], ["score"]),
        ]
    )
    model.graph.initializer.append(helper.make_tensor("one", kinds.FLOAT, [], [1.0]))
    parity = compare(native, model.SerializeToString(), rows(), BINARY)
    assert not parity.passed
    assert "alone" in parity.worst


def test_a_score_that_is_no_number_is_counted_and_refused():
    native = classifier("hist")[1]
    plain = capture(LogisticRegression(max_iter=3000).fit(rows(missing=False), labels()), "binary")
    parity = compare(native, to_onnx(plain, 4), rows(), BINARY)
    assert parity.not_finite > 0
    with pytest.raises(ParityRefused, match="no finite number"):
        require(parity, "late")


def test_every_input_can_be_missing_but_request_fields_declared_otherwise():
    signature = msgspec.structs.replace(
        BINARY,
        request=(
            Field("age", "float", nullable=False),
            Field("dose", "float"),
            Field("year", "category", nullable=False),
            Field("share", "float", nullable=False, optional=True),
        ),
        categories={"year": ("2012", "2013")},
    )
    assert [signature.inputs[position] for position in nullable_inputs(signature)] == ["dose", "year", "share"]


def test_rows_that_the_native_model_cannot_score_are_refused():
    plain = LogisticRegression(max_iter=3000).fit(rows(missing=False), labels())
    native = capture(plain, "binary")
    with pytest.raises(ParityRefused, match="cannot score the rows"):
        compare(native, to_onnx(native, 4), rows(), BINARY)


def test_no_rows_prove_nothing():
    with pytest.raises(ParityRefused, match="no row"):
        compare(classifier("logistic")[1], exported("logistic"), rows()[:0], BINARY)
