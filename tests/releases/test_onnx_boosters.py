import msgspec
import numpy as np
import onnx
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor
from xgboost import XGBClassifier, XGBRegressor, XGBRFClassifier

from seatrial.releases.native import capture
from seatrial.releases.onnx_export import ExportFailed, to_onnx
from seatrial.releases.parity import compare
from seatrial.releases.runtime import Runtime
from tests.releases.factories import BINARY, REGRESSION, labels, rows, values

QUIET = {"iterations": 30, "allow_writing_files": False, "verbose": False, "thread_count": 1}
CLASSIFIERS = {
    "trees": lambda: XGBClassifier(n_estimators=60, n_jobs=1),
    "weighted": lambda: XGBClassifier(n_estimators=10, n_jobs=1, scale_pos_weight=7, base_score=0.2),
    "dart": lambda: XGBClassifier(n_estimators=10, n_jobs=1, booster="dart", rate_drop=0.3),
    "forest": lambda: XGBRFClassifier(n_estimators=10, n_jobs=1),
    "catboost": lambda: CatBoostClassifier(**QUIET),
}
REGRESSORS = {
    name: lambda name=name: XGBRegressor(n_estimators=60, n_jobs=1, objective=name)
    for name in (
        "reg:squarederror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:squaredlogerror",
        "reg:gamma",
        "reg:tweedie",
        "count:poisson",
    )
} | {
    "catboost": lambda: CatBoostRegressor(**QUIET),
    "catboost poisson": lambda: CatBoostRegressor(loss_function="Poisson", **QUIET),
}


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_answers_the_same_after_export_also_with_values_missing(name, missing):
    native = capture(CLASSIFIERS[name]().fit(rows(missing=missing), labels()), "binary")
    parity = compare(native, to_onnx(native, 4), rows(), BINARY)
    assert parity.passed, parity
    assert parity.missing_rows == 5000


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_answers_the_same_after_export(name):
    native = capture(REGRESSORS[name]().fit(rows(), np.abs(values()) + 1), "regression")
    parity = compare(native, to_onnx(native, 4), rows(), REGRESSION)
    assert parity.passed, parity


def test_xgboosts_sums_are_equal_to_the_last_bit():
    """500 trees on a base of 100, added up in float32: any other order differs in the sixth digit."""
    native = capture(XGBRegressor(n_estimators=500, n_jobs=1).fit(rows(), values()), "regression")
    np.testing.assert_array_equal(Runtime(to_onnx(native, 4)).score(rows()), native.scorer()(rows()))


def test_xgboost_is_exact_on_its_thresholds():
    native = capture(XGBClassifier(n_estimators=40, n_jobs=1).fit(rows(), labels()), "binary")
    table = native.load().trees_to_dataframe()
    table = table[table["Feature"] != "Leaf"][:800]
    adversarial = rows(missing=False)[: len(table)].copy()
    positions = table["Feature"].str.removeprefix("f").astype(int)
    for row, position, threshold in zip(adversarial, positions, table["Split"], strict=True):
        row[position] = np.float32(threshold)
    parity = compare(native, to_onnx(native, 4), adversarial, BINARY)
    assert parity.passed, parity


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_same_bytes_come_out_again_and_nothing_tells_of_the_fit(name):
    native = capture(CLASSIFIERS[name]().fit(rows(), labels()), "binary")
    first, second = to_onnx(native, 4), to_onnx(native, 4)
    assert first == second
    model = onnx.load_from_string(first)
    onnx.checker.check_model(model)
    assert not model.metadata_props
    assert (model.producer_name, model.producer_version) == ("", "")
    assert "ZipMap" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: XGBClassifier(n_estimators=5, n_jobs=1, booster="gblinear", updater="coord_descent"), "linear"),
        (
            lambda: XGBClassifier(
                n_estimators=5,
                n_jobs=1,
                enable_categorical=True,
                feature_types=["q", "q", "c", "q"],
                max_cat_to_onehot=1,
            ),
            "sets of categories",
        ),
        (lambda: CatBoostClassifier(grow_policy="Depthwise", **QUIET), "non symmetric"),
    ],
)
def test_what_the_graph_cannot_say_is_refused_with_the_reason(make, reason):
    given = rows(missing=False).copy()
    given[:, 2] = np.round(given[:, 2] - given[:, 2].min())
    native = capture(make().fit(given, labels()), "binary")
    with pytest.raises(ExportFailed, match=reason) as refused:
        to_onnx(native, 4)
    assert "\n" not in refused.value.found
    np.testing.assert_array_equal(native.scorer()(given)[:3], native.scorer()(given[:3]))


def test_a_signature_with_another_number_of_inputs_is_refused():
    for make in (CLASSIFIERS["trees"], CLASSIFIERS["catboost"]):
        with pytest.raises(ExportFailed, match="fitted on 4 inputs, the signature has 5"):
            to_onnx(capture(make().fit(rows(), labels()), "binary"), 5)


@pytest.mark.parametrize(
    "make", [lambda: XGBClassifier(n_estimators=20, n_jobs=1), lambda: CatBoostClassifier(**QUIET)], ids=["xgb", "cat"]
)
def test_several_classes_answer_the_same_after_export(make):
    native = capture(make().fit(rows(), np.arange(1500) % 3 * labels()), "multiclass")
    signature = msgspec.structs.replace(BINARY, task="multiclass", classes=(0, 1, 2))
    assert native.scorer()(rows()).shape == (1500, 3)
    parity = compare(native, to_onnx(native, 4), rows(), signature)
    assert parity.passed, parity
