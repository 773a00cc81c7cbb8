"""Somebody else's ONNX graph in our shape: one input, float32 [n, k], one output, "score".

It may come from PyTorch, Keras, scikit-learn or a booster. What its outputs mean is read from their types and from
what it answers to a few rows: a label is left aside, dictionaries of probabilities (ZipMap) become a table, of two
classes the second one counts. A graph that answers with logits, with a batch size of its own, or otherwise each time it
is asked, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seatrial.core.errors import Failed, listed
from seatrial.core.signature import Task

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

GRAPH, INPUT, OUTPUT = "seatrial", "input", "score"
NEWEST_OPSET = 18  # for graphs that name none of ONNX's own
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
NUMBERS = {"tensor(float)": 1, "tensor(double)": 11, "tensor(float16)": 10, "tensor(int64)": 7, "tensor(int32)": 6}
FLOATS = ("tensor(float)", "tensor(double)", "tensor(float16)")
PROBABLE = ("probabilities", "output_probability", "probability", "probs", "prob")
TOLERANCE = 1e-4  # of a sum of probabilities, or a bound, in float32
_FATAL = 4


class NotAdopted(Failed):
    """An ONNX graph is not one that can be released: damaged, of another shape, or with an answer that is no score."""

    code = "release.not_adopted"


def adopt(model: bytes, task: Task, inputs: int) -> bytes:
    """The graph with one input "input", float32 [n, inputs], and one output "score", float32 [n] or [n, C].

    model: an ONNX file without external data. It takes one tensor [n, inputs] of numbers, or `inputs` tensors [n, 1] in
        the order of the inputs.
    task: binary takes P(positive) from [n], [n, 1] or [n, 2]; multiclass [n, C]; regression [n] or [n, 1].
    The same bytes come out for the same bytes, without the graph's metadata. Raises NotAdopted.
    """
    from onnx.compose import add_prefix

    given = read(model)
    _without_dictionaries(given)
    session = _session(given, "the graph")
    columns = _columns(session, inputs)
    rows = _probe(inputs)
    name, answer = _answer(session, columns, rows, task)
    wrapped = add_prefix(given, prefix="adopted_")
    _wrap(wrapped, [(f"adopted_{one}", kind, flat) for one, kind, flat in columns], f"adopted_{name}", answer, inputs)
    done = bytes(wrapped.SerializeToString(deterministic=True))
    _check(done, answer, rows)
    return done


def answers(model: bytes, task: Task, columns: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """What the graph itself, as it came, answers when it is given its inputs in its own types: float64 (n,) or (n, C).

    columns: of each input the values (n,); whole ones without null where the graph takes integers.
    Raises NotAdopted.
    """
    given = read(model)
    _without_dictionaries(given)
    session = _session(given, "the graph")
    taken = _columns(session, len(columns))
    name, _ = _answer(session, taken, _probe(len(columns)), task)
    if len(taken) == 1:
        feed = {taken[0][0]: np.column_stack([values.astype(_dtype(taken[0][1])) for values in columns])}
    else:
        feed = {
            one: values.astype(_dtype(kind)).reshape(-1 if flat else (-1, 1))
            for (one, kind, flat), values in zip(taken, columns, strict=True)
        }
    (found,) = _run(session, [name], feed, len(columns[0]))
    return _of_task(name, found.astype(np.float64).reshape(len(columns[0]), -1), task)


def read(model: bytes) -> ModelProto:
    """The graph in a file that holds all of its weights and none but onnxruntime's operators. Raises NotAdopted."""
    import onnx

    try:
        given: ModelProto = onnx.load_from_string(model)
        found = bool(given.graph.node)
    except Exception as error:  # protobuf raises what it likes
        raise _refused(f"{len(model)} bytes are no ONNX model", "The bytes of an .onnx file are expected.") from error
    if not found:
        raise _refused(f"{len(model)} bytes hold no graph", "The bytes of an .onnx file are expected.")
    nodes, tensors = _inside(given)
    if any(one.data_location == onnx.TensorProto.EXTERNAL or one.external_data for one in tensors):
        raise _refused("the graph keeps its weights in other files", "Save it with all weights inside of the file.")
    foreign = sorted({node.domain for node in nodes} - set(DOMAINS) - {one.domain for one in given.functions})
    if foreign:
        raise _refused(
            f"the graph uses operators of {listed(foreign)}",
            "onnxruntime's own operators are expected: " + str(DOMAINS),
        )
    return given


def _inside(model: ModelProto) -> tuple[list[NodeProto], list[TensorProto]]:
    """Every node and every tensor of a model: of its graph, of its functions and of the bodies of If, Loop and Scan."""
    graphs, nodes, tensors = [model.graph], [node for one in model.functions for node in one.node], []
    attributes = [attribute for one in model.functions for attribute in one.attribute_proto]
    graphs += [graph for one in model.training_info for graph in (one.initialization, one.algorithm)]
    sparse = []
    place = 0
    while graphs or place < len(nodes) or attributes:
        for graph in graphs:
            nodes += graph.node
            tensors += graph.initializer
            sparse += graph.sparse_initializer
        attributes += [attribute for node in nodes[place:] for attribute in node.attribute]
        graphs, place = [], len(nodes)
        for attribute in attributes:
            graphs += [attribute.g, *attribute.graphs]
            tensors += [attribute.t, *attribute.tensors]
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
        graphs = [graph for graph in graphs if graph.node or graph.initializer or graph.sparse_initializer]
        attributes = []
    tensors += [part for one in sparse for part in (one.values, one.indices)]
    return nodes, tensors


def _without_dictionaries(model: ModelProto) -> None:
    """Take the tables that ZipMap nodes make dictionaries of as outputs in their place."""
    import onnx

    graph = model.graph
    for node in list(graph.node):
        if node.op_type != "ZipMap":
            continue
        for output in graph.output:
            if output.name == node.output[0]:
                table = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, None)
                output.CopyFrom(table)
        graph.node.remove(node)


def _session(model: ModelProto | bytes, what: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises what it likes
        words = " ".join(str(error).split())[:200]
        raise _refused(f"onnxruntime {onnxruntime.__version__} cannot load {what}: {words}", "") from error


def _columns(session: Any, inputs: int) -> list[tuple[str, str, bool]]:
    """(name, type, whether it is [n] and not [n, 1]) of each input that the graph takes."""
    given = session.get_inputs()
    odd = [f"'{one.name}' of {one.type}" for one in given if one.type not in NUMBERS]
    if odd:
        raise _refused(f"the graph takes {listed(odd)}", "Inputs that are numbers are expected.")
    widths = [one.shape[1] if len(one.shape) == 2 else 1 if len(one.shape) == 1 else None for one in given]
    one_table = (
        len(given) == 1 and len(given[0].shape) == 2 and not (isinstance(widths[0], int) and widths[0] != inputs)
    )
    by_column = len(given) == inputs and all(width == 1 or isinstance(width, str) for width in widths)
    if not (one_table or by_column):
        told = [f"'{one.name}' {one.shape}" for one in given]
        raise _refused(
            f"the graph takes {listed(told)}",
            f"One input [n, {inputs}], or {inputs} inputs [n, 1], are expected: the rows have {inputs} columns.",
        )
    return [(one.name, one.type, len(one.shape) == 1) for one in given]


def _probe(inputs: int) -> NDArray[np.float32]:
    """Rows to find out with what a graph answers: nothing but their number of columns is known of them."""
    random = np.random.default_rng(0)
    return np.concatenate([random.normal(size=(6, inputs)), random.normal(size=(6, inputs)) * 50]).astype(np.float32)


def _feed(columns: list[tuple[str, str, bool]], rows: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    parts = [rows] if len(columns) == 1 else [rows[:, place : place + 1] for place in range(rows.shape[1])]
    return {
        name: (part.reshape(-1) if flat else part).astype(_dtype(kind))
        for (name, kind, flat), part in zip(columns, parts, strict=True)
    }


def _dtype(kind: str) -> str:
    """ONNX's name of a type of numbers as numpy's."""
    kinds = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2", "tensor(int64)": "i8"}
    return kinds.get(kind, "i4")


def _run(session: Any, names: list[str], feed: dict[str, NDArray[Any]], rows: int) -> list[NDArray[Any]]:
    try:
        return [np.asarray(one) for one in session.run(names, feed)]
    except Exception as error:  # onnxruntime raises what it likes
        words = " ".join(str(error).split())[:200]
        raise _refused(
            f"the graph cannot score {rows} rows at once: {words}",
            "A graph for any number of rows is expected: export it with a batch size that is free "
            "(torch.onnx.export(..., dynamic_axes={'input': {0: 'n'}})).",
        ) from error


def _answer(
    session: Any, columns: list[tuple[str, str, bool]], rows: NDArray[np.float32], task: Task
) -> tuple[str, NDArray[np.float64]]:
    """Which output is the score, and what it gave for `rows`, [n] or [n, C]; for binary the positive class's."""
    outputs = session.get_outputs()
    likely = [one.name for one in outputs if one.type in FLOATS]
    if len(likely) > 1:
        likely = [name for name in likely if name.lower() in PROBABLE] or likely
    if len(likely) != 1:
        told = [f"'{one.name}' {one.type} {one.shape}" for one in outputs]
        raise _refused(
            f"the graph gives {listed(told)}",
            "One output of floating-point numbers, beside a label or not, is expected.",
        )
    name = likely[0]
    (many,) = _run(session, [name], _feed(columns, rows), len(rows))
    (again,) = _run(session, [name], _feed(columns, rows), len(rows))
    (alone,) = _run(session, [name], _feed(columns, rows[:1]), 1)
    if not np.array_equal(many, again, equal_nan=True):
        raise _refused(f"'{name}' is not the same for the same rows", "Export it for inference, without dropout.")
    if many.shape[:1] != (len(rows),) or many.ndim > 2 or alone.shape[:1] != (1,):
        raise _refused(f"'{name}' is {list(many.shape)} for {len(rows)} rows", "A score for each row is expected.")
    scores = many.astype(np.float64).reshape(len(rows), -1)
    return name, _of_task(name, scores, task)


def _of_task(name: str, scores: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    width = scores.shape[1]
    if task == "regression":
        if width != 1:
            raise _refused(f"'{name}' has {width} columns", "A regression has one value for each row.")
        return scores[:, 0]
    if task == "binary" and width > 2:
        raise _refused(f"'{name}' has {width} columns", "A binary model has one or two; is the task multiclass?")
    if task == "multiclass" and width < 2:
        raise _refused(f"'{name}' has one column", "A multiclass model has one for each class; is the task binary?")
    told = scores[np.isfinite(scores).all(axis=1)]
    sums = told.sum(axis=1)
    outside = bool(((told < -TOLERANCE) | (told > 1 + TOLERANCE)).any())
    if outside or (width > 1 and bool((np.abs(sums - 1) > TOLERANCE).any())):
        raise _refused(
            f"'{name}' gives numbers that are no probabilities, such as {told[0].round(3).tolist()}",
            "Probabilities are expected: end the graph with a Sigmoid or a Softmax; these may be logits.",
        )
    if task == "multiclass":
        return scores
    return scores[:, -1]


def _wrap(
    model: ModelProto, columns: list[tuple[str, str, bool]], name: str, answer: NDArray[np.float64], inputs: int
) -> None:
    """Put nodes in front of and behind the graph, in place, and take away what tells of where it was made."""
    import onnx
    from onnx import TensorProto, helper

    graph = model.graph
    before: list[NodeProto] = []
    if len(columns) == 1:
        before.append(helper.make_node("Cast", [INPUT], [columns[0][0]], to=NUMBERS[columns[0][1]]))
    else:
        for place, (column, kind, flat) in enumerate(columns):
            at = helper.make_tensor(f"column_{place}", TensorProto.INT64, [] if flat else [1], [place])
            graph.initializer.append(at)
            before.append(helper.make_node("Gather", [INPUT, at.name], [f"part_{place}"], axis=1))
            before.append(helper.make_node("Cast", [f"part_{place}"], [column], to=NUMBERS[kind]))
    shape: list[str | int] = ["n"]
    after: list[NodeProto] = []
    last = helper.make_tensor("seatrial_last", TensorProto.INT64, [1], [-1])
    if answer.ndim == 2:
        shape.append(answer.shape[1])
        after.append(helper.make_node("Identity", [name], ["picked"]))
    else:
        graph.initializer.append(last)
        after.append(helper.make_node("Unsqueeze", [name, last.name], ["deeper"]))
        after.append(helper.make_node("Flatten", ["deeper"], ["table"], axis=1))
        after.append(helper.make_node("Gather", ["table", last.name], ["column"], axis=1))
        after.append(helper.make_node("Reshape", ["column", last.name], ["picked"]))
    after.append(helper.make_node("Cast", ["picked"], [OUTPUT], to=TensorProto.FLOAT))
    kept = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", inputs]))
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape))
    graph.name, graph.doc_string = GRAPH, ""
    for node in graph.node:
        node.doc_string = ""
    own = [one for one in model.opset_import if one.domain in ("", "ai.onnx")]
    if not own:
        model.opset_import.append(onnx.helper.make_opsetid("", NEWEST_OPSET))
    elif own[0].version < 13:
        raise _refused(
            f"the graph is of opset {own[0].version}", "Opset 13 (of 2021) or newer is expected: export it again."
        )
    del model.metadata_props[:]
    model.producer_name = model.producer_version = model.domain = model.doc_string = ""
    model.model_version = 0


def _check(done: bytes, answer: NDArray[np.float64], rows: NDArray[np.float32]) -> None:
    """What was wrapped answers like what was given, for one row and for many."""
    session = _session(done, "the wrapped graph")
    (many,) = _run(session, [OUTPUT], {INPUT: rows}, len(rows))
    (alone,) = _run(session, [OUTPUT], {INPUT: rows[:1]}, 1)
    same = many.shape == answer.shape and np.allclose(many, answer, rtol=1e-6, atol=1e-6, equal_nan=True)
    if not same or not np.allclose(alone[0], answer[0], rtol=1e-4, atol=1e-5, equal_nan=True):
        raise _refused(
            "the graph answers otherwise for one row than for several", "An answer that is a row's own is expected."
        )


def _refused(found: str, expected: str) -> NotAdopted:
    return NotAdopted(f"{found}.", expected=expected, state="No release was written.")
