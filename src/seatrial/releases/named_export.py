"""A scikit-learn pipeline over named columns as an ONNX graph with one input for each column.

The general converters lie about categories: they know no missing string, give an unknown one the code -1 whatever the
encoder says, and take no several classes in a target encoder. An encoder is a function of one value at a time, so here
it is asked: for every value that it knows, for a missing one and for one that it has never seen. The answers are what
the graph holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Signature
from seatrial.releases.named import MISSING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

GRAPH, OUTPUT = "seatrial", "score"
OPSETS = {"": 18, "ai.onnx.ml": 3}
_UNSEEN = "\ufdd1"  # a noncharacter: no text holds it
_UNSEEN_NUMBER = 3.0e38


class NotTold(Exception):
    """An encoder holds what cannot be asked for value by value; the text says what, in one line."""


def convert(model: Any, signature: Signature, options: Any) -> ModelProto:
    """The graph of a fitted pipeline, as converters leave it: an input for each of the signature's, in order.

    model: the caller's own to change. options: of skl2onnx. Raises NotTold and what converters raise.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, TargetEncoder

    name_missing(model)
    kinds = {True: StringTensorType([None, 1]), False: FloatTensorType([None, 1])}
    encoders = (OneHotEncoder, OrdinalEncoder, TargetEncoder)
    converted: ModelProto = convert_sklearn(
        model,
        name=GRAPH,
        initial_types=[(name, kinds[name in signature.categories]) for name in signature.inputs],
        options=options,
        target_opset=OPSETS,
        custom_conversion_functions=dict.fromkeys(encoders, _convert_encoder),
        custom_shape_calculators=dict.fromkeys(encoders, _shape_of_encoder),
    )
    return converted


def declare_inputs(graph: GraphProto, signature: Signature) -> None:
    """Give the graph exactly the signature's inputs, in order, also those that no step reads."""
    from onnx import TensorProto, helper

    names = []
    for name in signature.inputs:
        own = name
        while own == OUTPUT or own.startswith(f"{GRAPH}_"):  # the graph's own words
            own = f"column_{own}"
        if own != name:
            for node in graph.node:
                node.input[:] = [own if given == name else given for given in node.input]
        names.append(own)
    del graph.input[:]
    for name, own in zip(signature.inputs, names, strict=True):
        kind = TensorProto.STRING if name in signature.categories else TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(own, kind, ["n", 1]))


def name_missing(model: Any) -> None:
    """Let every imputer of strings inside `model` look for the string that stands for a missing one."""
    from seatrial.releases.onnx_sklearn import parts

    for imputer in parts(model, "SimpleImputer"):
        if (
            getattr(imputer, "statistics_", np.empty(0)).dtype == object
        ):  # what a ColumnTransformer copied is not fitted
            if imputer.add_indicator:
                raise NotTold("SimpleImputer(add_indicator=True) over strings has no ONNX form")
            if not _is_missing(imputer.missing_values):
                raise NotTold(f"SimpleImputer fills {imputer.missing_values!r}, not missing values")
            imputer.missing_values = MISSING
            imputer.statistics_ = np.array([str(value) for value in imputer.statistics_], dtype=object)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


# -- the encoders


def _shape_of_encoder(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    width = len(operator.raw_operator.get_feature_names_out())
    operator.outputs[0].type = FloatTensorType([operator.inputs[0].get_first_dimension(), width])


def _convert_encoder(scope: Any, operator: Any, container: Any) -> None:
    """One or more look-ups for each column of the encoder, side by side."""
    from skl2onnx.common.data_types import StringTensorType

    encoder = operator.raw_operator
    columns = list(_columns(scope, operator, container))
    if len(columns) != len(encoder.categories_):
        raise NotTold(f"{type(encoder).__name__} was fitted on {len(encoder.categories_)} columns, not {len(columns)}")
    together: list[str] = []
    width = 0
    for place, (column, kind) in enumerate(columns):
        text = isinstance(kind, StringTensorType)
        known = [value for value in encoder.categories_[place] if not _is_missing(value)]
        if any(isinstance(value, str) != text for value in known):
            raise NotTold(f"{type(encoder).__name__} has categories that are no {'strings' if text else 'numbers'}")
        answers = _answers(encoder, place, known, text=text)
        width += answers.shape[1]
        places = _places(answers)
        if places is not None:
            told = _look_up(scope, container, column, known, places, text=text)
            together.append(_one_hot(scope, container, told, answers.shape[1]))
        else:
            of_outputs = answers.toarray().T
            together += [_look_up(scope, container, column, known, told, text=text) for told in of_outputs]
    if width != operator.outputs[0].type.shape[1]:
        raise NotTold(f"{type(encoder).__name__} mixes its columns")
    container.add_node(
        "Concat", together, operator.outputs[0].full_name, axis=1, name=scope.get_unique_operator_name("Concat")
    )


def _columns(scope: Any, operator: Any, container: Any) -> Iterator[tuple[str, Any]]:
    """The encoder's columns, each (n, 1), and their types."""
    from onnx import TensorProto

    for given in operator.inputs:
        width = given.get_second_dimension()
        if width == 1:
            yield given.full_name, given.type
            continue
        for place in range(width):
            index = scope.get_unique_variable_name("place")
            container.add_initializer(index, TensorProto.INT64, [1], [place])
            column = scope.get_unique_variable_name("column")
            container.add_node(
                "Gather", [given.full_name, index], column, axis=1, name=scope.get_unique_operator_name("Gather")
            )
            yield column, given.type


def _answers(encoder: Any, place: int, known: list[Any], *, text: bool) -> Any:
    """What the encoder makes of one column: a sparse matrix (values, outputs).

    The values are every known category, a missing one and one never seen; where it refuses such a value, what it makes
    of the first stands there.
    """
    from scipy.sparse import csr_array, vstack  # type: ignore[import-untyped]

    nothing = float("nan")
    usual = [next((value for value in values if not _is_missing(value)), nothing) for values in encoder.categories_]

    def asked(values: list[Any]) -> Any:
        columns = [values if number == place else [value] * len(values) for number, value in enumerate(usual)]
        return csr_array(encoder.transform(_as_fitted(encoder, columns)))

    table = asked(known) if known else csr_array((0, len(encoder.get_feature_names_out())))
    for other in (nothing, _UNSEEN if text else _UNSEEN_NUMBER):
        try:
            row = asked([other])
        except ValueError:  # it refuses such a value, and so does the runtime
            row = table[:1]
        table = vstack([table, row], format="csr")
    widths = _widths(encoder)
    start = sum(widths[:place])  # the outputs of the columns before come first
    return table[:, start : start + widths[place]]


def _as_fitted(encoder: Any, columns: list[list[Any]]) -> Any:
    """Columns as the encoder was given them when it was fitted: with names, or without."""
    import pandas as pd

    typed = [
        np.array(column, dtype=object if values.dtype.kind in "OU" else np.float64)
        for column, values in zip(columns, encoder.categories_, strict=True)
    ]
    names = getattr(encoder, "feature_names_in_", None)
    if names is not None:
        return pd.DataFrame(
            {name: pd.Series(column, dtype=column.dtype) for name, column in zip(names, typed, strict=True)}
        )
    return np.column_stack([column.astype(object) for column in typed]) if _mixed(typed) else np.column_stack(typed)


def _mixed(columns: list[NDArray[Any]]) -> bool:
    return len({column.dtype for column in columns}) > 1


def _widths(encoder: Any) -> list[int]:
    match type(encoder).__name__:
        case "OrdinalEncoder":
            return [1] * len(encoder.categories_)
        case "TargetEncoder":
            classes = len(encoder.encodings_) // len(encoder.categories_)
            return [classes] * len(encoder.categories_)
    return [len(encoder._compute_transformed_categories(place)) for place in range(len(encoder.categories_))]


def _places(answers: Any) -> NDArray[np.float64] | None:
    """Where each value sets one of many outputs to 1, -1 where it sets none; None when the outputs say more."""
    answers.eliminate_zeros()
    set_outputs = np.diff(answers.indptr)
    if answers.shape[1] < 3 or (answers.data != 1).any() or (set_outputs > 1).any():
        return None
    places = np.full(answers.shape[0], -1.0)
    places[set_outputs == 1] = answers.indices
    return places


def _one_hot(scope: Any, container: Any, place: str, width: int) -> str:
    """(n, width) float32 of which the one at `place` is 1, or none."""
    from onnx import TensorProto

    whole, spread, flat = (scope.get_unique_variable_name(name) for name in ("whole", "spread", "flat"))
    container.add_node("Cast", [place], whole, to=TensorProto.INT64, name=scope.get_unique_operator_name("Cast"))
    container.add_node(
        "OneHotEncoder",
        [whole],
        spread,
        op_domain="ai.onnx.ml",
        name=scope.get_unique_operator_name("OneHotEncoder"),
        cats_int64s=list(range(width)),
        zeros=1,
    )
    shape = scope.get_unique_variable_name("shape")
    container.add_initializer(shape, TensorProto.INT64, [2], [-1, width])
    container.add_node("Reshape", [spread, shape], flat, name=scope.get_unique_operator_name("Reshape"))
    return str(flat)


def _look_up(
    scope: Any, container: Any, column: str, known: list[Any], told: NDArray[np.float64], *, text: bool
) -> str:
    """(n, 1) float32: the value of each category; `told` ends with that of a missing and that of an unseen one."""
    from onnx import TensorProto

    *values, of_missing, of_unseen = told.astype(np.float32).tolist()
    keys = [*known, MISSING] if text else known
    values = [*values, of_missing] if text else values
    if not keys:
        keys, values = ([""] if text else [0.0]), [of_unseen]
    out = scope.get_unique_variable_name("known")
    container.add_node(
        "LabelEncoder",
        [column],
        out,
        op_domain="ai.onnx.ml",
        op_version=2,
        name=scope.get_unique_operator_name("LabelEncoder"),
        default_float=of_unseen,
        values_floats=values,
        **({"keys_strings": keys} if text else {"keys_floats": [float(key) for key in keys]}),
    )
    if text or of_missing == of_unseen:
        return str(out)
    fill, empty, filled = (scope.get_unique_variable_name(name) for name in ("missing", "empty", "filled"))
    container.add_initializer(fill, TensorProto.FLOAT, [1], [of_missing])
    container.add_node("IsNaN", [column], empty, name=scope.get_unique_operator_name("IsNaN"))
    container.add_node("Where", [empty, fill, out], filled, name=scope.get_unique_operator_name("Where"))
    return str(filled)
