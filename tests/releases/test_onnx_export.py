import subprocess
import sys

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier

from seatrial.core.identity import digest
from seatrial.releases.native import capture
from seatrial.releases.onnx_export import ExportFailed, to_onnx
from seatrial.releases.onnx_sklearn import floor_float32
from tests.releases.factories import CLASSIFIERS, REGRESSORS, classifier, exported, labels, regressor, rows

FINITE_32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLES = st.one_of(st.floats(allow_nan=False, allow_infinity=False), FINITE_32)


@given(DOUBLES, FINITE_32)
def test_rounding_down_changes_no_comparison_of_a_float32(threshold, x):
    floored = floor_float32(np.array([threshold]))[0]
    assert (np.float32(x) <= floored) == (x <= threshold)


@given(FINITE_32, st.integers(-2, 2))
def test_rounding_down_changes_no_comparison_beside_a_float32(x, steps):
    threshold = np.float64(x)
    for _ in range(abs(steps)):
        threshold = np.nextafter(threshold, np.inf * steps)
    assert (np.float32(x) <= floor_float32(np.array([threshold]))[0]) == (np.float64(x) <= threshold)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_exports_to_the_same_bytes_again(name):
    assert to_onnx(classifier(name)[1], 4) == exported(name)


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_exports_to_the_same_bytes_again(name):
    assert to_onnx(regressor(name)[1], 4) == exported(name, "regression")


def test_another_process_exports_to_the_same_bytes(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from seatrial.core.identity import digest\n"
        "from seatrial.releases.native import NativeModel\n"
        "from seatrial.releases.onnx_export import to_onnx\n"
        "for path in sys.argv[1:]:\n"
        "    model = NativeModel(Path(path).suffix[1:], Path(path).read_bytes(), 'binary')\n"
        "    print(digest(to_onnx(model, 4)))\n"
    )
    paths = []
    for name in CLASSIFIERS:
        native = classifier(name)[1]
        paths.append(tmp_path / f"{name}.{native.format}")
        paths[-1].write_bytes(native.data)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.split() == [digest(exported(name)) for name in CLASSIFIERS]


@pytest.mark.parametrize(
    ("task", "name"), [("binary", n) for n in CLASSIFIERS] + [("regression", n) for n in REGRESSORS]
)
def test_a_graph_has_one_input_one_output_and_nothing_that_varies(task, name):
    model = onnx.load_from_string(exported(name, task))
    onnx.checker.check_model(model)
    assert [i.name for i in model.graph.input] == ["input"]
    assert [o.name for o in model.graph.output] == ["score"]
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.graph.name == "seatrial"
    assert (model.producer_name, model.producer_version, model.domain, model.doc_string) == ("", "", "", "")
    assert not any(node.doc_string for node in model.graph.node)
    assert not model.metadata_props
    assert "ZipMap" not in {node.op_type for node in model.graph.node}
    assert len({entry.domain for entry in model.opset_import}) == len(model.opset_import)


def test_an_estimator_that_does_not_convert_is_refused_by_name_in_one_line():
    fixed = FixedThresholdClassifier(LogisticRegression(max_iter=2000))
    native = capture(fixed.fit(rows(missing=False), labels()), "binary")
    with pytest.raises(ExportFailed, match="FixedThresholdClassifier cannot be exported") as refused:
        to_onnx(native, 4)
    assert "\n" not in refused.value.found


@pytest.mark.parametrize("name", ["lightgbm", "logistic"])
def test_a_signature_with_another_number_of_inputs_is_refused(name):
    with pytest.raises(ExportFailed, match="fitted on 4 inputs, the signature has 5"):
        to_onnx(classifier(name)[1], 5)
