"""Where skl2onnx changes a model's answers, and what is done about it before and after it converts.

Each function mends one thing; whether all of it is enough is judged in `releases.parity`. What is rewritten is a copy
of the model that was loaded for the export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task
from seatrial.releases.onnx_boosters import NARROW, NoGraph, convert_xgboost

if TYPE_CHECKING:
    from onnx import ModelProto

SCALERS = ("StandardScaler", "MinMaxScaler", "MaxAbsScaler", "RobustScaler")
TREES = ("BaseDecisionTree", "BaseForest", "BaseGradientBoosting", "BaseHistGradientBoosting", "LGBMModel", "XGBModel")
FUNCTIONS = {"abs": "Abs", "absolute": "Abs", "sqrt": "Sqrt", "log": "Log", "exp": "Exp", "log1p": "", "expm1": ""}
LOG_LINKS = ("poisson", "gamma")

Conversions = dict[type, Callable[[Any, Any, Any], None]]
Shapes = dict[type, Callable[[Any], None]]


def parts(whole: Any, kind: str) -> Iterator[Any]:
    """Every object inside `whole`, through attributes and containers, of a class named `kind` or below one."""
    seen: set[int] = set()
    open_parts = [whole]
    while open_parts:
        part = open_parts.pop()
        if id(part) in seen or isinstance(part, (str, bytes, int, float, type, type(None))):
            continue
        seen.add(id(part))
        if any(base.__name__ == kind for base in type(part).__mro__):
            yield part
        if isinstance(part, dict):
            open_parts += part.values()
        elif isinstance(part, (list, tuple)):
            open_parts += part
        elif isinstance(part, np.ndarray):
            open_parts += part.ravel().tolist() if part.dtype == object else []
        else:
            open_parts += getattr(part, "__dict__", {}).values()


def floor_float32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """For each value the largest float32 that is not above it.

    >>> floor_float32(np.array([0.1, 0.5])).astype(float).tolist()
    [0.09999999403953552, 0.5]
    """
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > values, below, nearest)


def floored_booster(text: bytes) -> Any:
    """The LightGBM model in `text` with every threshold rounded down to float32."""
    from lightgbm import Booster

    lines = []
    for line in text.decode().splitlines():
        if line.startswith("threshold="):
            numbers = np.array(line.removeprefix("threshold=").split(), dtype=np.float64)
            line = "threshold=" + " ".join(repr(float(number)) for number in floor_float32(numbers))
        if not line.startswith("tree_sizes="):  # lengths of the trees as text, which have just changed
            lines.append(line)
    return Booster(model_str="\n".join(lines) + "\n")


def rewrite(model: Any) -> None:
    """Say in other words, in place, what skl2onnx takes for something else.

    The linear discriminant is a logistic regression with coefficients found otherwise; for two classes its own
    converter is wrong. `flatten_transform` has no part in what a vote predicts, and is not converted.
    """
    from sklearn.linear_model import LogisticRegression

    for part in list(parts(model, "LinearDiscriminantAnalysis")):
        kept = {name: getattr(part, name) for name in ("coef_", "intercept_", "classes_", "n_features_in_")}
        part.__class__ = LogisticRegression
        part.__dict__ = vars(LogisticRegression()) | kept
    for part in list(parts(model, "LGBMModel")):
        if part.__sklearn_is_fitted__():
            part._Booster = floored_booster(part.booster_.model_to_string().encode())
    for part in list(parts(model, "VotingClassifier")):
        part.flatten_transform = False


def conversions(model: Any) -> tuple[Conversions, Shapes]:
    """Converters of our own for what `model` holds, by type, and the shapes of what they give.

    Scalers in front of trees, which must round like scikit-learn's for a row that lies on a split; imputers that
    indicate what was missing; functions of numpy.
    """
    found: dict[type, Callable[[Any, Any, Any], None]] = {}
    if any(next(parts(model, kind), None) is not None for kind in TREES):
        found |= {type(part): _scaler for kind in SCALERS for part in parts(model, kind)}
    imputers = list(parts(model, "SimpleImputer"))
    if any(part.indicator_ is not None for part in imputers if hasattr(part, "indicator_")):
        found |= {type(part): _imputer for part in imputers}
    for part in parts(model, "FunctionTransformer"):
        if isinstance(part.func, np.ufunc) and part.func.__name__ in FUNCTIONS:
            found[type(part)] = _function
    return found, dict.fromkeys(found, _shape)


def know_boosters(model: Any) -> None:
    """Let skl2onnx convert boosters inside of pipelines; it keeps what it was told for the whole process."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    classes: dict[str, Any] = {"zipmap": [True, False, "columns"], "nocl": [True, False]}
    for kind, convert in (("LGBMModel", _lightgbm), ("XGBModel", _xgboost)):
        for booster in parts(model, kind):
            classifies = type(booster).__name__.endswith("Classifier")
            update_registered_converter(
                type(booster),
                f"Seatrial{type(booster).__name__}",
                calculate_linear_classifier_output_shapes if classifies else calculate_linear_regressor_output_shapes,
                convert,
                options=classes if classifies else {},
            )


def _lightgbm(scope: Any, operator: Any, container: Any) -> None:
    from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

    container.options[id(operator.raw_operator)] = {"zipmap": False, "split": None}
    convert_lightgbm(scope, operator, container)


def _xgboost(scope: Any, operator: Any, container: Any) -> None:
    """The trees of `onnx_boosters`, their names made unique."""
    from onnx import helper

    from seatrial.releases.boosters import capture_xgboost, load_xgboost

    estimator = operator.raw_operator
    classes = len(getattr(estimator, "classes_", ()))
    task: Task = "regression" if not classes else "binary" if classes == 2 else "multiclass"
    booster = load_xgboost(capture_xgboost(estimator, task))
    made = convert_xgboost(booster, estimator.n_features_in_, "part", task).graph
    answer = made.output[-1].name
    names = {"input": _given(scope, operator, container), answer: operator.outputs[-1].full_name}
    for constant in made.initializer:
        names[constant.name] = scope.get_unique_variable_name(constant.name)
        container.add_initializer(names[constant.name], constant.data_type, constant.dims, list(constant.float_data))
    for node in made.node:
        for output in node.output:
            names.setdefault(output, scope.get_unique_variable_name(output))
        attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        container.add_node(
            node.op_type,
            [names[name] for name in node.input],
            [names[name] for name in node.output],
            op_domain=node.domain,
            name=scope.get_unique_operator_name(NARROW if node.domain else node.op_type),
            **attributes,
        )
    if classes:
        label = scope.get_unique_variable_name("most")
        container.add_node(
            "ArgMax", names[answer], label, axis=1, keepdims=0, name=scope.get_unique_operator_name("Most")
        )
        container.add_node(
            "Identity", label, operator.outputs[0].full_name, name=scope.get_unique_operator_name("Label")
        )


def with_link(model: Any, converted: ModelProto) -> None:
    """Add the exponential that HistGradientBoosting's poisson and gamma losses end with; it is not converted."""
    from onnx import helper

    last = model.steps[-1][1] if hasattr(model, "steps") else model
    if type(last).__name__ != "HistGradientBoostingRegressor" or last.loss not in LOG_LINKS:
        return
    output = converted.graph.output[0]
    converted.graph.node.append(helper.make_node("Exp", [output.name], ["seatrial_exponential"]))
    output.name = "seatrial_exponential"


def _shape(operator: Any) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    columns = sum(variable.get_second_dimension() for variable in operator.inputs)
    indicator = getattr(operator.raw_operator, "indicator_", None)
    more = 0 if indicator is None else len(indicator.features_)
    operator.outputs[0].type = FloatTensorType([None, columns + more])


def _given(scope: Any, operator: Any, container: Any) -> str:
    """The name of all inputs of an operator beside each other, as float32."""
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.operator_converters.common import concatenate_variables

    if not all(isinstance(variable.type, FloatTensorType) for variable in operator.inputs):
        raise NoGraph(f"{type(operator.raw_operator).__name__} is given more than numbers")
    if len(operator.inputs) > 1:
        return str(concatenate_variables(scope, operator.inputs, container))
    return str(operator.inputs[0].full_name)


def _scaler(scope: Any, operator: Any, container: Any) -> None:
    """Each step rounded to float32 as scikit-learn rounds it, which differs by class and version."""
    from onnx import TensorProto

    scaler = operator.raw_operator
    steps = _steps(scaler)
    wide = _computes_wide(scaler, steps)
    name = _given(scope, operator, container)
    kind, dtype = (TensorProto.DOUBLE, np.float64) if wide else (TensorProto.FLOAT, np.float32)
    for op, numbers in steps:
        constant = scope.get_unique_variable_name("scaler_constant")
        container.add_initializer(constant, kind, [len(numbers)], numbers.astype(dtype).tolist())
        if wide:
            name = _node(scope, container, "Cast", [name], to=TensorProto.DOUBLE)
        name = _node(scope, container, op, [name, constant])
        if wide:
            name = _node(scope, container, "Cast", [name], to=TensorProto.FLOAT)
    container.add_node("Identity", name, operator.outputs[0].full_name, name=scope.get_unique_operator_name("Scaled"))


def _steps(scaler: Any) -> list[tuple[str, NDArray[np.float64]]]:
    """What a scaler does to its columns, in order."""
    match type(scaler).__name__:
        case "StandardScaler":
            found = [("Sub", scaler.mean_ if scaler.with_mean else None), ("Div", scaler.scale_)]
        case "RobustScaler":
            found = [("Sub", scaler.center_), ("Div", scaler.scale_)]
        case "MaxAbsScaler":
            found = [("Div", scaler.scale_)]
        case _:
            if scaler.clip:
                raise NoGraph("MinMaxScaler(clip=True) is not converted")
            found = [("Mul", scaler.scale_), ("Add", scaler.min_)]
    return [(op, np.asarray(numbers, dtype=np.float64)) for op, numbers in found if numbers is not None]


def _computes_wide(scaler: Any, steps: list[tuple[str, NDArray[np.float64]]]) -> bool:
    """Whether the scaler works in float64 between its roundings to float32; asked of the scaler itself."""
    columns = scaler.n_features_in_
    probe = np.random.default_rng(0).normal(size=(2000, columns)).astype(np.float32)
    numbers = dict(steps)
    probe = (probe * numbers.get("Div", 1) + numbers.get("Sub", 0)).astype(np.float32)
    functions = {"Sub": np.subtract, "Div": np.divide, "Mul": np.multiply, "Add": np.add}
    wanted = scaler.transform(probe)
    for wide in (False, True):
        got = probe
        for op, value in steps:
            operand = value if wide else value.astype(np.float32)
            got = functions[op](got, operand).astype(np.float32)
        if np.array_equal(got, wanted):
            return wide
    raise NoGraph(f"{type(scaler).__name__} rounds in a way that is not known")


def _imputer(scope: Any, operator: Any, container: Any) -> None:
    """The imputed columns, and beside them one for each that may be missing: 1 where it was."""
    from onnx import TensorProto

    imputer = operator.raw_operator
    numbers = np.asarray(imputer.statistics_, dtype=np.float64)
    if np.isnan(numbers).any() or not np.isnan(imputer.missing_values):
        raise NoGraph("SimpleImputer drops columns, or has another mark for missing than NaN")
    given = _given(scope, operator, container)
    filled = scope.get_unique_variable_name("imputed")
    container.add_node(
        "Imputer",
        given,
        filled,
        op_domain="ai.onnx.ml",
        name=scope.get_unique_operator_name("Imputer"),
        imputed_value_floats=numbers.astype(np.float32).tolist(),
        replaced_value_float=float("nan"),
    )
    both = [filled]
    if imputer.indicator_ is not None:
        columns = scope.get_unique_variable_name("indicated_columns")
        container.add_initializer(
            columns, TensorProto.INT64, [len(imputer.indicator_.features_)], imputer.indicator_.features_.tolist()
        )
        missing = _node(scope, container, "IsNaN", [_node(scope, container, "Gather", [given, columns], axis=1)])
        both.append(_node(scope, container, "Cast", [missing], to=TensorProto.FLOAT))
    container.add_node(
        "Concat", both, operator.outputs[0].full_name, axis=1, name=scope.get_unique_operator_name("Indicated")
    )


def _function(scope: Any, operator: Any, container: Any) -> None:
    """A function of numpy, in float64 and then rounded."""
    from onnx import TensorProto

    name = _node(scope, container, "Cast", [_given(scope, operator, container)], to=TensorProto.DOUBLE)
    function = operator.raw_operator.func.__name__
    if function in ("log1p", "expm1"):
        one = scope.get_unique_variable_name("one")
        container.add_initializer(one, TensorProto.DOUBLE, [1], [1.0])
        if function == "log1p":
            name = _node(scope, container, "Log", [_node(scope, container, "Add", [name, one])])
        else:
            name = _node(scope, container, "Sub", [_node(scope, container, "Exp", [name]), one])
    else:
        name = _node(scope, container, FUNCTIONS[function], [name])
    container.add_node(
        "Cast", name, operator.outputs[0].full_name, to=TensorProto.FLOAT, name=scope.get_unique_operator_name("Cast")
    )


def _node(scope: Any, container: Any, op: str, inputs: list[str], **attributes: Any) -> str:
    """Add a node; the name of its output."""
    output: str = scope.get_unique_variable_name(op.lower())
    container.add_node(op, inputs, output, name=scope.get_unique_operator_name(op), **attributes)
    return output
