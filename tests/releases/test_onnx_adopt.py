"""Graphs as PyTorch, Keras and others export them, taken into the shape of a release."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx as sklearn_to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from seatrial.releases.onnx_adopt import NotAdopted
from seatrial.releases.onnx_export import adopt
from seatrial.releases.runtime import ModelUnreadable, Runtime, session
from tests.releases.factories import labels, rows

GIVEN = rows(missing=False)[:200] / np.array([1, 10, 2013, 1], np.float32)


def network(last, outputs, *, width=4, batch="n", kind=TensorProto.FLOAT, opset=17):
    """An MLP: Gemm, Relu, Gemm and what `last` says, from "x" to `outputs`, (name, type, shape)."""
    random = np.random.default_rng(1)
    dtype = np.float64 if kind == TensorProto.DOUBLE else np.float32
    columns = outputs[-1][2][1] if len(outputs[-1][2]) == 2 else 1
    weights = {
        "w1": random.normal(size=(width, 8)),
        "b1": random.normal(size=8),
        "w2": random.normal(size=(8, columns)),
        "b2": random.normal(size=columns),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["score"]),  # a name that we use ourselves
        *last,
    ]
    graph = helper.make_graph(
        nodes,
        "torch_graph",
        [helper.make_tensor_value_info("x", kind, [batch, width])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        [onnx.numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=imports, producer_name="pytorch", ir_version=8)
    model.metadata_props.add(key="made_on", value="a machine")
    return model.SerializeToString(), weights


def logits(weights, given=GIVEN):
    return np.maximum(given @ weights["w1"] + weights["b1"], 0) @ weights["w2"] + weights["b2"]


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


SIGMOID = [helper.make_node("Sigmoid", ["score"], ["y"])]
SOFTMAX = [helper.make_node("Softmax", ["score"], ["y"], axis=1)]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_one_column_of_probabilities_is_the_score(kind):
    model, weights = network(SIGMOID, [("y", kind, ["n", 1])], kind=kind)
    got = Runtime(adopt(model, "binary", 4)).score(GIVEN)
    np.testing.assert_allclose(got, sigmoid(logits(weights))[:, 0], atol=2e-6)


def test_the_second_of_two_columns_is_the_score():
    model, weights = network(SOFTMAX, [("y", TensorProto.FLOAT, ["n", 2])])
    got = Runtime(adopt(model, "binary", 4)).score(GIVEN)
    np.testing.assert_allclose(got, softmax(logits(weights))[:, 1], atol=2e-6)


def test_a_label_beside_a_dictionary_of_probabilities_is_left_aside():
    last = [
        *SOFTMAX,
        helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
        helper.make_node("ZipMap", ["y"], ["probabilities"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]),
    ]
    model, weights = network(last, [("y", TensorProto.FLOAT, ["n", 2])])
    made = onnx.load_from_string(model)
    del made.graph.output[:]
    made.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]))
    keys = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    made.graph.output.append(helper.make_value_info("probabilities", helper.make_sequence_type_proto(keys)))
    got = Runtime(adopt(made.SerializeToString(), "binary", 4)).score(GIVEN)
    np.testing.assert_allclose(got, softmax(logits(weights))[:, 1], atol=2e-6)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_scikit_learns_converter_made_is_taken(zipped):
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows(missing=False), labels())
    options = None if zipped else {id(fitted): {"zipmap": False}}
    model = sklearn_to_onnx(fitted, rows()[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    got = Runtime(adopt(model.SerializeToString(), "binary", 4)).score(rows(missing=False))
    np.testing.assert_allclose(got, fitted.predict_proba(rows(missing=False))[:, 1], atol=1e-6)


def test_a_table_of_probabilities_answers_for_several_classes():
    model, weights = network(SOFTMAX, [("y", TensorProto.FLOAT, ["n", 5])])
    runtime = Runtime(adopt(model, "multiclass", 4))
    np.testing.assert_allclose(runtime.score(GIVEN), softmax(logits(weights)), atol=2e-6)
    assert runtime.score(GIVEN[:1]).shape == (1, 5)


def test_a_value_is_the_score_of_a_regression():
    last = [helper.make_node("Identity", ["score"], ["y"])]
    model, weights = network(last, [("y", TensorProto.FLOAT, ["n", 1])])
    np.testing.assert_allclose(Runtime(adopt(model, "regression", 4)).score(GIVEN), logits(weights)[:, 0], rtol=1e-5)


def test_inputs_that_are_columns_are_taken_in_their_order():
    names = ["a", "b", "c", "d"]
    graph = helper.make_graph(
        [
            helper.make_node("Concat", names, ["x"], axis=1),
            helper.make_node("ReduceSum", ["x", "axis"], ["sum"], keepdims=1),
            helper.make_node("Sub", ["sum", "d"], ["y"]),
        ],
        "keras",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    np.testing.assert_allclose(Runtime(adopt(model, "regression", 4)).score(GIVEN), GIVEN[:, :3].sum(axis=1), atol=1e-5)


def test_the_same_graph_becomes_the_same_bytes_without_a_word_of_where_it_was_made():
    model, _ = network(SIGMOID, [("y", TensorProto.FLOAT, ["n", 1])])
    first = adopt(model, "binary", 4)
    assert first == adopt(model, "binary", 4)
    made = onnx.load_from_string(first)
    onnx.checker.check_model(made)
    assert (made.producer_name, list(made.metadata_props), made.graph.name) == ("", [], "seatrial")


@pytest.mark.parametrize(
    ("make", "task", "words"),
    [
        (lambda: b"no model", "binary", "no ONNX model|no graph"),
        (lambda: b"", "binary", "hold no graph"),
        (lambda: network(SIGMOID, [("y", TensorProto.FLOAT, ["n", 1])], width=7)[0], "binary", r"takes 'x' \['n', 7\]"),
        (
            lambda: network([helper.make_node("Identity", ["score"], ["y"])], [("y", 1, ["n", 1])])[0],
            "binary",
            "no prob",
        ),
        (
            lambda: network([helper.make_node("Identity", ["score"], ["y"])], [("y", 1, ["n", 2])])[0],
            "binary",
            "no prob",
        ),
        (lambda: network(SOFTMAX, [("y", TensorProto.FLOAT, ["n", 3])])[0], "binary", "'y' has 3 columns"),
        (lambda: network(SIGMOID, [("y", TensorProto.FLOAT, ["n", 1])])[0], "multiclass", "one column"),
        (lambda: network(SOFTMAX, [("y", TensorProto.FLOAT, ["n", 3])])[0], "regression", "'y' has 3 columns"),
        (lambda: network(SIGMOID, [("y", 1, [1, 1])], batch=1)[0], "binary", "cannot score 12 rows at once"),
        (lambda: network(SIGMOID, [("y", 1, ["n", 1])], opset=11)[0], "binary", "opset 11"),
        (
            lambda: network(
                [*SIGMOID, helper.make_node("Neg", ["y"], ["z"])], [("z", 1, ["n", 1]), ("y", 1, ["n", 1])]
            )[0],
            "binary",
            "the graph gives 'z'",
        ),
        (
            lambda: network(
                [helper.make_node("RandomUniformLike", ["score"], ["y"])], [("y", TensorProto.FLOAT, ["n", 1])]
            )[0],
            "binary",
            "not the same for the same rows",
        ),
        (
            lambda: network(
                [helper.make_node("Mine", ["score"], ["y"], domain="my.own")], [("y", TensorProto.FLOAT, ["n", 1])]
            )[0],
            "binary",
            "operators of my.own",
        ),
    ],
)
def test_a_graph_that_is_no_score_for_each_row_is_refused_with_the_reason(make, task, words):
    with pytest.raises(NotAdopted, match=words) as refused:
        adopt(make(), task, 4)
    assert refused.value.expected


def elsewhere(name, location="secret.bin", kind=TensorProto.FLOAT, dims=(2, 1)):
    """A tensor whose values are in another file."""
    tensor = TensorProto(name=name, data_type=kind, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def branch(name, weights=(), nodes=()):
    given = nodes or [helper.make_node("Identity", ["weights"], [name])]
    return helper.make_graph(
        given, name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 1])], list(weights)
    )


def with_weights_elsewhere(where):
    """sigmoid(x @ w), w being a file's, hidden in some part of the graph."""
    truth = onnx.numpy_helper.from_array(np.array(True), "truth")
    inits, functions = [truth], []
    hidden = branch("one", [elsewhere("weights")])
    if where == "If":
        first = [helper.make_node("If", ["truth"], ["w"], then_branch=hidden, else_branch=hidden)]
    elif where == "If in If":
        inner = branch("o", nodes=[helper.make_node("If", ["truth"], ["o"], then_branch=hidden, else_branch=hidden)])
        first = [helper.make_node("If", ["truth"], ["w"], then_branch=inner, else_branch=inner)]
    elif where == "Constant":
        first = [helper.make_node("Constant", [], ["w"], value=elsewhere(""))]
    elif where == "sparse":
        values, places = elsewhere("w", dims=(2,)), onnx.numpy_helper.from_array(np.array([0, 1]), "")
        first = []
    else:
        body = [helper.make_node("Constant", [], ["o"], value=elsewhere(""))]
        functions = [helper.make_function("own", "w", [], ["o"], body, [helper.make_opsetid("", 17)])]
        first = [helper.make_node("w", [], ["w"], domain="own")]
    last = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["p"])]
    shapes = [helper.make_tensor_value_info(*one) for one in (("x", 1, ["n", 2]), ("p", 1, ["n", 1]))]
    graph = helper.make_graph([*first, *last], "g", shapes[:1], shapes[1:], inits)
    if where == "sparse":
        graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 1]))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=functions).SerializeToString()


@pytest.mark.parametrize("where", ["If", "If in If", "Constant", "sparse", "function"])
def test_weights_in_another_file_are_refused_wherever_in_the_graph_they_are(where, tmp_path, monkeypatch):
    np.array([3.0, 4.0], np.float32).tofile(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotAdopted, match="keeps its weights in other files"):
        adopt(with_weights_elsewhere(where), "binary", 2)


def test_a_graph_that_got_into_a_bundle_reads_no_other_file(tmp_path, monkeypatch):
    np.array([3.0, 4.0], np.float32).tofile(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    data = with_weights_elsewhere("If")
    assert onnxruntime.InferenceSession(data).run(None, {"x": np.ones((1, 2), np.float32)})  # onnxruntime alone does
    with pytest.raises(ModelUnreadable):
        session(data, 1)
