"""The native model as an ONNX graph that answers the same: one input, one output, the same bytes every time.

The graph takes "input", float32 [n, k] with NaN for missing, and gives "score", float32 [n]: P(positive) or the
value, or float32 [n, C]: the probability of each of C classes.

Converters round split thresholds to the nearest float32, which sends rows that sit exactly on a threshold
down the wrong branch; thresholds are therefore rounded *down* first, which changes no comparison `x <= threshold`
of a float32 x. Whether the graph is right is not judged here but in `releases.parity`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed, listed
from seatrial.core.signature import Signature, Task
from seatrial.releases.boosters import is_exponential
from seatrial.releases.named import MISSING
from seatrial.releases.named_export import convert, declare_inputs
from seatrial.releases.native import NativeModel, one_line
from seatrial.releases.onnx_adopt import adopt as adopt
from seatrial.releases.onnx_boosters import NARROW, NoGraph, convert_catboost, convert_xgboost
from seatrial.releases.onnx_sklearn import (
    conversions,
    floor_float32,
    floored_booster,
    know_boosters,
    parts,
    rewrite,
    with_link,
)

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

INPUT, OUTPUT, GRAPH = "input", "score", "seatrial"
SKLEARN_OPSETS = {"": 18, "ai.onnx.ml": 3}
LIGHTGBM_OPSET = 15  # the newest that onnxmltools writes
IR_VERSION = 8  # the oldest that both opsets allow, so that older runtimes read it too
TREES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
# Rounding down is right for <= ; == compares category codes; < and > are XGBoost's and CatBoost's, in float32 already
SAFE_MODES = {b"LEAF", b"BRANCH_LEQ", b"BRANCH_EQ", b"BRANCH_LT", b"BRANCH_GT"}


class ExportFailed(Failed):
    """The estimator has no ONNX form with the converters in use."""

    code = "release.export_failed"


def to_onnx(native: NativeModel, inputs: int, signature: Signature | None = None) -> bytes:
    """The ONNX form of `native` with `inputs` columns; equal bytes for equal models, in any process.

    signature: needed when its inputs are named; the graph then has an input for each of them.

    Raises ExportFailed, with the estimator's name and the reason in one line, and what `native.load` raises.
    """
    model = native.load()
    name = describe(model)
    known = _inputs(model, native.format, inputs)
    if known != inputs:
        raise _failed(name, f"it was fitted on {known} inputs, the signature has {inputs}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if native.format == "lightgbm":
                graph = convert_booster(floored_booster(native.data), inputs)
            elif native.format == "xgboost":
                graph = convert_xgboost(model, inputs, GRAPH, native.task)
            elif native.format == "catboost":
                graph = convert_catboost(model, exponential=native.task == "regression" and is_exponential(model))
            else:
                floor_thresholds(model)
                rewrite(model)
                named = signature if signature is not None and signature.layout == "named" else None
                graph = _convert_sklearn(model, inputs, native.task, named)
                route_missing(graph.graph, model)
                with_link(model, graph)
            given = named if native.format == "skops" else None
            if given is None and signature is not None and signature.layout == "named":
                raise NoGraph("its inputs are named, and the converter makes one of all of them")
            return finished(graph, native.task, given)
    except ExportFailed:
        raise
    except NoGraph as reason:
        raise _failed(name, str(reason)) from None
    except Exception as error:  # a converter or loader raises what it likes
        raise _failed(name, f"{type(error).__name__}: {one_line(error)}") from error


def describe(model: Any) -> str:
    """The estimator's name for people: "HistGradientBoostingClassifier", "Pipeline(SimpleImputer, Ridge)"."""
    steps = getattr(model, "steps", None)
    if steps:
        return f"Pipeline({', '.join(type(step).__name__ for _, step in steps)})"
    package = type(model).__module__.partition(".")[0]
    return {"lightgbm": "LightGBM", "xgboost": "XGBoost", "catboost": "CatBoost"}.get(package, type(model).__name__)


def _inputs(model: Any, format: str, given: int) -> int:
    """How many inputs the model was fitted on; `given` when it does not tell."""
    match format:
        case "lightgbm":
            return int(model.num_feature())
        case "xgboost":
            return int(model.num_features())
        case "catboost":
            return len(model.feature_names_)
    return int(getattr(model, "n_features_in_", given))


def floor_thresholds(model: Any) -> None:
    """Round down, in place, the thresholds of every HistGradientBoosting tree anywhere inside `model`.

    The other trees of scikit-learn are rounded down by their converter.
    """
    for predictor in parts(model, "TreePredictor"):
        nodes = predictor.nodes.copy()
        nodes["num_threshold"] = floor_float32(nodes["num_threshold"])
        predictor.nodes = nodes


def route_missing(graph: GraphProto, model: Any) -> None:
    """Send missing values down the side that scikit-learn's trees send them, which their converter drops.

    Even a tree fitted without missing values has a side for them. A tree ensemble of the graph belongs to the
    forest or tree inside `model` with the same splits; one that has no counterpart is left as it is.
    """
    sides = {}
    for forest in parts(model, "BaseEstimator"):
        trees = [tree.tree_ for tree in _trees(forest)]
        if trees:
            sides[_splits_of_trees(trees)] = np.concatenate([_missing_side(tree) for tree in trees])
    for node in graph.node:
        if node.op_type not in TREES:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        found = sides.get(_splits_of_node(attributes))
        if found is not None:
            del attributes["nodes_missing_value_tracks_true"].ints[:]
            attributes["nodes_missing_value_tracks_true"].ints.extend(found.tolist())


def convert_booster(booster: Any, inputs: int) -> ModelProto:
    """The plain conversion of a LightGBM booster, thresholds as they are."""
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    converted: ModelProto = convert_lightgbm(
        booster,
        name=GRAPH,
        initial_types=[(INPUT, FloatTensorType([None, inputs]))],
        target_opset=LIGHTGBM_OPSET,
        zipmap=False,
    )
    return converted


def finished(model: ModelProto, task: Task, named: Signature | None = None) -> bytes:
    """The bytes of a converted graph with the one output "score" and without anything that varies or tells tales.

    model: with one input "input", or the named ones of a signature, and outputs (label, probabilities [n, C]) for
        classes, (value [n, 1]) else.
    """
    import onnx

    graph = model.graph
    _free_name(graph, OUTPUT)
    _add_trees_in_double(graph)
    _single_output(graph, task)
    _drop_unused(graph)
    if named is None:
        _single_input(graph)
    else:
        declare_inputs(graph, named)
    opsets: dict[str, int] = {}
    for entry in model.opset_import:
        opsets[entry.domain] = max(entry.version, opsets.get(entry.domain, 0))
    clean = onnx.ModelProto()
    clean.ir_version = IR_VERSION
    clean.opset_import.extend(onnx.helper.make_opsetid(domain, opsets[domain]) for domain in sorted(opsets))
    clean.graph.CopyFrom(graph)
    clean.graph.name = GRAPH
    clean.graph.doc_string = ""
    del clean.graph.value_info[:]
    for node in clean.graph.node:
        node.doc_string = ""
    if named is not None:
        onnx.helper.set_model_props(clean, {"missing_string": MISSING})
    return bytes(clean.SerializeToString(deterministic=True))


def _convert_sklearn(model: Any, inputs: int, task: Task, named: Signature | None) -> ModelProto:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    know_boosters(model)
    if named is not None:
        return convert(model, named, None if task == "regression" else {id(model): {"zipmap": False}})
    functions, shapes = conversions(model)
    converted: ModelProto = convert_sklearn(
        model,
        name=GRAPH,
        initial_types=[(INPUT, FloatTensorType([None, inputs]))],
        options=None if task == "regression" else {id(model): {"zipmap": False}},
        target_opset=SKLEARN_OPSETS,
        custom_conversion_functions=functions,
        custom_shape_calculators=shapes,
    )
    return converted


def _free_name(graph: GraphProto, name: str) -> None:
    """Call what a converter has called `name` otherwise; an input of that name keeps it."""
    if not any(name in node.output for node in graph.node):
        return
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{one}_inner" if one == name else one for one in names]
    for output in graph.output:
        output.name = f"{name}_inner" if output.name == name else output.name


def _add_trees_in_double(graph: GraphProto) -> None:
    """Let every tree ensemble but XGBoost's take float64, so that its leaves are added up in float64.

    In float32 a few hundred trees on a base value of 100 lose five digits; comparisons are not changed.
    """
    from onnx import TensorProto, helper

    for position, node in reversed(list(enumerate(graph.node))):
        if node.op_type not in TREES or node.name.startswith(NARROW):
            continue
        for attribute in node.attribute:
            unknown = set(attribute.strings) - SAFE_MODES if attribute.name == "nodes_modes" else ()
            if unknown:
                modes = listed(sorted(mode.decode() for mode in unknown))
                raise ExportFailed(f"a tree splits with {modes}, which cannot be rounded safely.")
        wide = f"{node.input[0]}_float64_{position}"
        graph.node.insert(position, helper.make_node("Cast", [node.input[0]], [wide], to=TensorProto.DOUBLE))
        graph.node[position + 1].input[0] = wide


def _single_output(graph: GraphProto, task: Task) -> None:
    """Replace the outputs by "score": column 1 of the probabilities, all of them, or the value, as float32."""
    import onnx
    from onnx import TensorProto, helper

    shape: list[str | int] = ["n"]
    if task == "multiclass":
        pick = helper.make_tensor("seatrial_every", TensorProto.INT64, [2], [0, -1])
        nodes = [helper.make_node("Reshape", [graph.output[1].name, pick.name], ["seatrial_picked"])]
        shape.append(graph.output[1].type.tensor_type.shape.dim[1].dim_value or "classes")
    elif task == "binary":
        pick = helper.make_tensor("seatrial_positive", TensorProto.INT64, [], [1])
        nodes = [helper.make_node("Gather", [graph.output[1].name, pick.name], ["seatrial_picked"], axis=1)]
    else:
        pick = helper.make_tensor("seatrial_flat", TensorProto.INT64, [1], [-1])
        nodes = [helper.make_node("Reshape", [graph.output[0].name, pick.name], ["seatrial_picked"])]
    nodes.append(helper.make_node("Cast", ["seatrial_picked"], [OUTPUT], to=TensorProto.FLOAT))
    graph.initializer.append(pick)
    graph.node.extend(nodes)
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape))


def _single_input(graph: GraphProto) -> None:
    from onnx import TensorProto, helper

    columns = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", columns]))


def _drop_unused(graph: GraphProto) -> None:
    """Drop nodes and constants that "score" does not need: the label and what makes it."""
    needed = {OUTPUT}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    nodes = list(reversed(kept))
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _trees(forest: Any) -> list[Any]:
    """The fitted trees of a forest, or the tree itself; empty for other estimators."""
    if hasattr(forest, "tree_"):
        return [forest]
    grown = getattr(forest, "estimators_", [])
    grown = grown.ravel().tolist() if isinstance(grown, np.ndarray) else grown
    return [tree for tree in grown if hasattr(tree, "tree_")]


def _missing_side(tree: Any) -> NDArray[np.int64]:
    """For each node whether missing values go to the left child; 0 for leaves."""
    return np.where(tree.children_left > 0, tree.missing_go_to_left, 0).astype(np.int64)


def _splits_of_trees(trees: Sequence[Any]) -> tuple[bytes, bytes, bytes]:
    """What tells tree ensembles apart: feature, threshold and left child of every node; zeros for leaves."""
    branch = np.concatenate([tree.children_left for tree in trees]) > 0
    feature, left, threshold = (
        np.where(branch, np.concatenate([getattr(tree, name) for tree in trees]), 0)
        for name in ("feature", "children_left", "threshold")
    )
    return feature.astype(np.int64).tobytes(), left.astype(np.int64).tobytes(), floor_float32(threshold).tobytes()


def _splits_of_node(attributes: Mapping[str, Any]) -> tuple[bytes, bytes, bytes]:
    ints = (np.array(attributes[name].ints, dtype=np.int64) for name in ("nodes_featureids", "nodes_truenodeids"))
    feature, left = (numbers.tobytes() for numbers in ints)
    return feature, left, np.array(attributes["nodes_values"].floats, dtype=np.float32).tobytes()


def _failed(name: str, reason: str) -> ExportFailed:
    return ExportFailed(
        f"{name} cannot be exported to ONNX: {reason}.",
        expected="Estimators that export are listed in docs/releases.md.",
        next="Choose one of them, or move the step that fails into a request-time function.",
        state="No release was written.",
        estimator=name,
    )
