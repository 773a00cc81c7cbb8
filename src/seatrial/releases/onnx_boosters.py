"""XGBoost and CatBoost as ONNX graphs, before `onnx_export.finished` gives them their one shape.

XGBoost's trees are written here from its own JSON: general converters want columns named f0, f1, ..., read
thresholds from printed text, and do not know every objective. XGBoost splits with `x < threshold`, both float32, so
no threshold needs rounding; it adds up leaves in float32, beginning with the base score, and so does the graph, since
another order or width would differ in the sixth digit of a value. CatBoost writes ONNX itself; only its ZipMap, which
makes dictionaries, is taken away.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.core.signature import Task

if TYPE_CHECKING:
    from onnx import ModelProto

LOGISTIC = ("binary:logistic", "reg:logistic")
EXPONENTIAL = ("reg:gamma", "reg:tweedie", "count:poisson")
NARROW = "SeatrialFloat32"
"""How the name of a tree ensemble begins whose leaves are added up in float32."""
OPSETS = {"": 18, "ai.onnx.ml": 3}


class NoGraph(Exception):
    """A booster holds what these graphs cannot say; its text is the reason, in one line."""


def convert_xgboost(booster: Any, inputs: int, name: str, task: Task) -> ModelProto:
    """The graph of a loaded booster: "input" to outputs (label, probabilities) for classes, (value) else.

    The label is a stand-in, for what comes after takes the probabilities. Raises NoGraph.
    """
    from onnx import TensorProto, helper

    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    objective = learner["objective"]["name"]
    bases = json.loads(learner["learner_model_param"]["base_score"])
    bases = bases if isinstance(bases, list) else [bases]
    classes = max(1, int(learner["learner_model_param"]["num_class"]))
    if int(learner["learner_model_param"].get("num_target", 1)) > 1:
        raise NoGraph("it answers with several values at once")
    margins = [_margin(objective, float(base)) for base in bases]
    margins = margins * classes if len(margins) == 1 else margins
    trees = helper.make_node(
        "TreeEnsembleRegressor",
        ["input"],
        ["margin"],
        name=NARROW,
        domain="ai.onnx.ml",
        n_targets=classes,
        **_trees(learner["gradient_booster"], margins),
    )
    nodes = [trees]
    if classes > 1:
        nodes.append(helper.make_node("Softmax", ["margin"], ["answer"], axis=1))
    elif objective in LOGISTIC:
        nodes.append(helper.make_node("Sigmoid", ["margin"], ["answer"]))
    elif objective in EXPONENTIAL:
        nodes.append(helper.make_node("Exp", ["margin"], ["answer"]))
    else:
        nodes.append(helper.make_node("Identity", ["margin"], ["answer"]))
    constants = []
    answer = "answer"
    if task == "binary":
        one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
        constants.append(one)
        nodes.append(helper.make_node("Sub", ["one", "answer"], ["other"]))
        nodes.append(helper.make_node("Concat", ["other", "answer"], ["both"], axis=1))
        answer = "both"
    outputs = [answer] if task == "regression" else [answer, answer]
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", inputs])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", max(classes, 2)]) for output in outputs],
        constants,
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
    )


def convert_catboost(model: Any, *, exponential: bool) -> ModelProto:
    """The graph that CatBoost writes, its input named "input" and its probabilities a tensor.

    exponential: the model answers with the exponential of what its trees add up to, which CatBoost leaves out.
    Raises what CatBoost raises on what its ONNX cannot hold, such as categorical features.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        model.save_model(str(path), format="onnx")
        converted: ModelProto = onnx.load_from_string(path.read_bytes())
    graph = converted.graph
    given = graph.input[0].name
    plain = {}
    for node in list(graph.node):
        node.input[:] = ["input" if name == given else name for name in node.input]
        if node.op_type == "ZipMap":
            plain[node.output[0]] = node.input[0]
            graph.node.remove(node)
    graph.input[0].name = "input"
    if not any(entry.domain == "" for entry in converted.opset_import):
        converted.opset_import.append(onnx.helper.make_opsetid("", OPSETS[""]))
    if exponential:
        summed = graph.output[0].name
        graph.node.append(onnx.helper.make_node("Exp", [summed], ["exponential"]))
        graph.output[0].name = "exponential"
    for output in graph.output:
        if output.name in plain:  # a list of dictionaries becomes a table
            columns = len(model.classes_)
            table = onnx.helper.make_tensor_value_info(plain[output.name], onnx.TensorProto.FLOAT, ["n", columns])
            output.CopyFrom(table)
    return converted


def _margin(objective: str, base: float) -> float:
    """What the trees are added to: base_score is kept as an answer, not as a margin."""
    if objective in LOGISTIC:
        return math.log(base / (1 - base))
    return math.log(base) if objective in EXPONENTIAL else base


def _trees(booster: dict[str, Any], margins: list[float]) -> dict[str, Any]:
    """The attributes of a TreeEnsembleRegressor for the trees of XGBoost's JSON.

    margins: what each class begins with, as trees of one leaf, so that it is added first and not last.
    """
    kind = booster["name"]
    if kind == "gblinear":
        raise NoGraph("it is linear (booster='gblinear'), not made of trees")
    weights = booster.get("weight_drop")
    model = (booster["gbtree"] if kind == "dart" else booster)["model"]
    if not model["trees"]:
        raise NoGraph("it has no trees")
    nodes: dict[str, list[Any]] = {
        name: []
        for name in "treeids nodeids featureids modes values truenodeids falsenodeids missing_value_tracks_true".split()
    }
    leaves: dict[str, list[Any]] = {name: [] for name in "treeids nodeids ids weights".split()}
    bases = [_stump(margin) for margin in margins]
    kinds = [*range(len(margins)), *model["tree_info"]]
    drops = [1.0] * len(margins) + list(weights or [1.0] * len(model["trees"]))
    for place, tree in enumerate([*bases, *model["trees"]]):
        if any(tree["split_type"]):
            raise NoGraph("it splits on sets of categories (enable_categorical)")
        if int(tree["tree_param"].get("size_leaf_vector", 1)) > 1:
            raise NoGraph("its leaves hold several values")
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        values = np.array(tree["split_conditions"], dtype=np.float32)
        is_leaf = left < 0
        numbers = np.arange(len(left))
        nodes["treeids"] += [place] * len(left)
        nodes["nodeids"] += numbers.tolist()
        nodes["featureids"] += np.where(is_leaf, 0, tree["split_indices"]).tolist()
        nodes["modes"] += np.where(is_leaf, "LEAF", "BRANCH_LT").tolist()
        nodes["values"] += np.where(is_leaf, 0, values).tolist()
        nodes["truenodeids"] += np.where(is_leaf, 0, left).tolist()
        nodes["falsenodeids"] += np.where(is_leaf, 0, right).tolist()
        nodes["missing_value_tracks_true"] += np.where(is_leaf, 0, tree["default_left"]).tolist()
        found = values[is_leaf] * np.float32(drops[place])
        leaves["treeids"] += [place] * len(found)
        leaves["nodeids"] += numbers[is_leaf].tolist()
        leaves["ids"] += [kinds[place]] * len(found)
        leaves["weights"] += found.tolist()
    return {f"nodes_{name}": values for name, values in nodes.items()} | {
        f"target_{name}": values for name, values in leaves.items()
    }


def _stump(value: float) -> dict[str, Any]:
    """A tree of one leaf, as XGBoost writes it."""
    return {
        "split_type": [0],
        "tree_param": {},
        "left_children": [-1],
        "right_children": [-1],
        "split_conditions": [value],
        "split_indices": [0],
        "default_left": [0],
    }
