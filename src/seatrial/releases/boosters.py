"""XGBoost and CatBoost as bytes: kept in the file format of their own, and loaded again to score.

LightGBM's part is in `releases.native`, which asks this module for the other two. Only what a file can hold is kept:
an objective of the user's own, or a value other than NaN for "missing", would be lost on the way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from seatrial.core.errors import listed
from seatrial.core.signature import NamedRows, Task
from seatrial.releases.native import NativeDamaged, NotCaptured, Scorer, matrix, one_line

# Objectives whose answer is what the task asks for; XGBoost's others answer with a margin, a class or a rank.
XGBOOST_OBJECTIVES: dict[str, tuple[str, ...]] = {
    "binary": ("binary:logistic", "reg:logistic"),
    "multiclass": ("multi:softprob",),
    "regression": (
        "reg:squarederror",
        "reg:squaredlogerror",
        "reg:absoluteerror",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:logistic",
        "reg:gamma",
        "reg:tweedie",
        "count:poisson",
    ),
}
CATBOOST_LOSSES: dict[str, tuple[str, ...]] = {
    "binary": ("Logloss", "CrossEntropy"),
    "multiclass": ("MultiClass",),
    "regression": ("RMSE", "MAE", "Quantile", "Huber", "LogLinQuantile", "MAPE", "Poisson", "Tweedie", "Expectile"),
}
NO_CATEGORY = ""
"""What a model of CatBoost, which takes no missing category, is given in its place."""
VARYING_METADATA = ("train_finish_time", "model_guid")  # differ for every fit of the same model


def capture_xgboost(estimator: Any, task: Task) -> bytes:
    """A fitted XGBClassifier, XGBRegressor or Booster as XGBoost's JSON, columns by position, without names.

    What stopped early is cut behind its best iteration, with which the wrappers predict. Raises NotCaptured.
    """
    from xgboost import Booster, XGBModel

    name = type(estimator).__name__
    if isinstance(estimator, Booster):
        booster = estimator.copy()
    elif isinstance(estimator, XGBModel):
        booster = _wrapped_xgboost(estimator, name)
    else:
        raise NotCaptured(
            f"{name} is no model of XGBoost.", expected="XGBClassifier, XGBRegressor or a Booster is expected."
        )
    objective = str(_learner(booster)["objective"]["name"])
    if callable(getattr(estimator, "objective", None)):
        objective = "of its own"
    if objective not in XGBOOST_OBJECTIVES[task]:
        raise NotCaptured(
            f"{name} was fitted with the objective '{objective}'.",
            expected=f"A {task} model of XGBoost needs one of {listed(XGBOOST_OBJECTIVES[task], most=10)}.",
        )
    categorical = [
        str(feature)
        for feature, kind in zip(booster.feature_names or (), booster.feature_types or (), strict=False)
        if kind == "c"
    ]
    booster.feature_names = None
    if not any(kind == "c" for kind in booster.feature_types or ()):
        booster.feature_types = None
    data = bytes(booster.save_raw("json"))
    if booster.feature_types is not None and _has_categories(data):
        raise NotCaptured(
            f"categorical features of XGBoost are not supported: {name} was fitted on a frame of categories"
            f"{f' ({listed(categorical)})' if categorical else ''}.",
            expected="XGBoost keeps its own codes for them, which rows of a request do not have; numbers are expected.",
            next="Fit it on codes of your own, or bring in a scikit-learn pipeline with the encoder in it.",
        )
    return data


def load_xgboost(data: bytes) -> Any:
    """An xgboost.Booster from its JSON or UBJSON. Raises NativeDamaged."""
    from xgboost import Booster
    from xgboost.core import XGBoostError

    # XGBoost ends the process on what is cut short or no JSON at all, so look before it does.
    try:
        if data[1:2] in b' \t\r\n"':
            json.loads(data)
        elif not (data.startswith(b"{") and data.endswith(b"}")):
            raise ValueError("neither its JSON nor its UBJSON")
        booster = Booster()
        booster.load_model(bytearray(data))
        booster.num_features()
    except (XGBoostError, ValueError) as error:
        raise _damaged(data, "XGBoost", one_line(error)) from error
    booster.feature_names = None
    return booster


def score_xgboost(booster: Any) -> Scorer:
    """Scores of a loaded booster: float64 [n], or [n, C] for several classes."""
    from xgboost import DMatrix

    booster.set_param({"nthread": 1})
    types = booster.feature_types

    def score(rows: Any) -> Any:
        matrix = DMatrix(rows, nthread=1, feature_types=types, enable_categorical=types is not None)
        return np.asarray(booster.predict(matrix), dtype=np.float64)

    return score


def capture_catboost(estimator: Any, task: Task) -> bytes:
    """A fitted model of CatBoost as its own binary file, without the time and the random name of the fit.

    Raises NotCaptured.
    """
    name = type(estimator).__name__
    if not estimator.is_fitted():
        raise NotCaptured(f"{name} is not fitted.", expected="Only a fitted estimator can be kept.")
    loss = str(estimator.get_all_params().get("loss_function", "of its own")).partition(":")[0]
    if loss not in CATBOOST_LOSSES[task]:
        raise NotCaptured(
            f"{name} was fitted with the loss '{loss}'.",
            expected=f"A {task} model of CatBoost needs one of {listed(CATBOOST_LOSSES[task], most=10)}.",
        )
    if task == "binary" and len(estimator.classes_) != 2:
        raise NotCaptured(
            f"{name} was fitted on {len(estimator.classes_)} classes ({listed(map(str, estimator.classes_))}).",
            expected="A binary model needs exactly two.",
        )
    copy = load_catboost(estimator._serialize_model())
    metadata = copy.get_metadata()
    for key in VARYING_METADATA:
        if key in metadata:
            metadata[key] = ""
    return bytes(copy._serialize_model())


def load_catboost(data: bytes) -> Any:
    """A catboost.CatBoost from the bytes of its file. Raises NativeDamaged."""
    from catboost import CatBoost, CatboostError  # type: ignore[import-untyped]

    # "CBM1", the length of its core, the core; CatBoost reads on behind the end of one that was cut short
    if data[:4] != b"CBM1" or len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise _damaged(data, "CatBoost", "it does not begin as one, or was cut short")
    try:
        model = CatBoost()
        model.load_model(blob=bytes(data))
        return model
    except (CatboostError, ValueError, TypeError) as error:
        raise _damaged(data, "CatBoost", one_line(error)) from error


def score_catboost(model: Any, task: Task) -> Scorer:
    """Scores of a loaded model: float64 [n], or [n, C] for several classes."""
    kind = "Probability" if task != "regression" else "Exponent" if is_exponential(model) else "RawFormulaVal"
    categorical = cat_features(model)

    def score(rows: Any) -> Any:
        given = _objects(rows, categorical) if categorical else matrix(rows)
        found = np.asarray(model.predict(given, prediction_type=kind, thread_count=1), dtype=np.float64)
        if task == "regression":
            return found.reshape(-1)
        return found[:, 1] if task == "binary" else found

    return score


def cat_features(model: Any) -> tuple[Any, ...]:
    """The categorical features of a model of CatBoost: places when it is fitted, else as stated, which may be names;
    empty for any other model."""
    if type(model).__module__.partition(".")[0] != "catboost":
        return ()
    if model.is_fitted():
        return tuple(int(place) for place in model.get_cat_feature_indices())
    stated = model.get_params().get("cat_features")
    return () if stated is None else tuple(stated)


def with_categories(frame: Any, categorical: Sequence[int | str]) -> Any:
    """A pandas DataFrame as CatBoost takes it: its categorical columns as text, NO_CATEGORY where there is none.

    A whole number is the text of it, which is what CatBoost makes of integers. Raises ValueError for other numbers.
    """
    for one in categorical:
        name = one if isinstance(one, str) else frame.columns[one]
        if name in frame:  # else CatBoost says what is wrong
            frame[name] = np.array([_category(value, name) for value in frame[name].tolist()], dtype=object)
    return frame


def _objects(rows: NamedRows, categorical: Sequence[int | str]) -> Any:
    """The same of columns by name as objects [n, k]: for one row that takes a fifth of the time."""
    found = np.empty((len(rows), len(rows.columns)), dtype=object)
    for place, (name, values) in enumerate(rows.columns.items()):
        texts = place in categorical
        found[:, place] = [_category(value, name) for value in values.tolist()] if texts else values.astype(np.float64)
    return found


def _category(value: Any, name: str) -> str:
    if value is None or value != value:
        return NO_CATEGORY
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"the categorical feature '{name}' holds {value!r}; text or a whole number is expected")
        return str(int(value))
    return str(value)


def is_exponential(model: Any) -> bool:
    """Whether a regressor answers with the exponential of what its trees add up to, as CatBoost's wrappers do."""
    loss = json.loads(model.get_metadata()["params"])["loss_function"]["type"]
    return loss in ("Poisson", "Tweedie")


def _wrapped_xgboost(estimator: Any, name: str) -> Any:
    from sklearn.exceptions import NotFittedError

    try:
        booster = estimator.get_booster()
    except NotFittedError:
        raise NotCaptured(f"{name} is not fitted.", expected="Only a fitted estimator can be kept.") from None
    missing = estimator.missing
    if missing is not None and not np.isnan(missing):
        raise NotCaptured(
            f"{name} was fitted with missing={missing!r}.",
            expected="Missing values reach a model as NaN, which is XGBoost's own default.",
        )
    return until_best(booster)


def until_best(booster: Any) -> Any:
    """A copy that ends with the best iteration of a training that stopped early, with which XGBoost's wrappers predict;
    a linear booster has no iterations to leave out, and theirs predict with all of it."""
    best = booster.attr("best_iteration")
    linear = _learner(booster)["gradient_booster"]["name"] == "gblinear"
    return booster.copy() if best is None or linear else booster[: int(best) + 1]


def _has_categories(data: bytes) -> bool:
    """Whether XGBoost wrote down the categories of a frame. data: the booster as JSON."""
    kept = json.loads(data)["learner"]["gradient_booster"]
    model = kept.get("model") or (kept.get("gbtree") or {}).get("model") or {}
    return bool((model.get("cats") or {}).get("enc"))


def _learner(booster: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(booster.save_config())["learner"]
    return found


def _damaged(data: bytes, kind: str, reason: str) -> NativeDamaged:
    return NativeDamaged(
        f"{len(data)} bytes cannot be read as a {kind} model: {reason}",
        expected="The file that training kept is expected.",
        state="Nothing was loaded.",
    )
