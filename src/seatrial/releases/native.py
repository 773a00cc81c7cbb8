"""The fitted estimator as bytes: what was trained, in a form that can be kept and scored without pickle.

LightGBM, XGBoost and CatBoost are kept in their own file formats, scikit-learn as skops. All are loaded again to
score: the export to ONNX is judged against this form (`releases.parity`), never against an object that lives in
memory only. This module belongs to training and packing, and to the child process in which a release without an
ONNX form answers; a server does not import it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed, listed
from seatrial.core.signature import NamedRows, Rows, Task

Format = Literal["onnx", "lightgbm", "xgboost", "catboost", "skops"]
Scorer = Callable[[Rows], NDArray[np.float64]]

# What scikit-learn's estimators hold beyond the types that skops trusts by itself. The list is ours and is never
# read from a file. skops checks types, not contents: a forged Tree, TreePredictor, KDTree or BallTree can crash
# the process that scores it, so only files whose signature was verified are loaded, and never in serving.
TRUSTED_TYPES = (
    "catboost.core.CatBoostClassifier",
    "catboost.core.CatBoostRegressor",
    "collections.OrderedDict",
    "functools.partial",  # of what this list trusts, since skops looks at the function of its own
    "lightgbm.basic.Booster",
    "lightgbm.sklearn.LGBMClassifier",
    "lightgbm.sklearn.LGBMRegressor",
    "numpy.dtype",
    "sklearn._loss.loss.HalfTweedieLoss",
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.feature_selection._univariate_selection.chi2",
    "sklearn.feature_selection._univariate_selection.f_classif",
    "sklearn.feature_selection._univariate_selection.f_regression",
    "sklearn.metrics._dist_metrics.EuclideanDistance",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
    "xgboost.core.Booster",
    "xgboost.sklearn.XGBClassifier",
    "xgboost.sklearn.XGBRegressor",
)


class NotCaptured(Failed):
    """A fitted estimator cannot be kept: not fitted, no probability, or a kind that has no safe file format."""

    code = "native.not_captured"


class TypeNotTrusted(Failed):
    """A skops file holds a type that is not on seatrial's own list; it was not loaded."""

    code = "native.type_not_trusted"


class NativeDamaged(Failed):
    """The bytes of a native model cannot be read in the format that they claim."""

    code = "native.damaged"


@dataclass(frozen=True)
class NativeModel:
    """A fitted model as bytes.

    format: "onnx" (a graph from elsewhere, in our shape: `onnx_adopt`),
        "lightgbm" (the booster's text), "xgboost" (its JSON), "catboost" (its cbm) or "skops" (a scikit-learn
        estimator or pipeline).
    task: decides what a score is: P(positive) for binary, C probabilities for multiclass, the value for regression.
    """

    format: Format
    data: bytes = field(repr=False)
    task: Task

    def load(self) -> Any:
        """A fresh booster (lightgbm, xgboost, catboost) or scikit-learn estimator, the caller's own to change.

        Raises TypeNotTrusted for a skops file with a type outside TRUSTED_TYPES, NativeDamaged for broken bytes.
        """
        from seatrial.releases import boosters

        match self.format:
            case "lightgbm":
                return _load_booster(self.data)
            case "xgboost":
                return boosters.load_xgboost(self.data)
            case "catboost":
                return boosters.load_catboost(self.data)
        return _load_skops(self.data)

    def scorer(self) -> Scorer:
        """A function from rows as they are encoded to scores, float64 [n], or [n, C] for multiclass.

        It raises whatever the estimator raises, for instance on NaN that the estimator does not accept.
        """
        if self.format == "onnx":
            from seatrial.releases.runtime import Runtime

            return Runtime(self.data).score
        from seatrial.releases import boosters

        model = self.load()
        if self.format == "xgboost":
            by_place = boosters.score_xgboost(model)
            return lambda rows: by_place(matrix(rows))
        if self.format == "catboost":
            return boosters.score_catboost(model, self.task)
        if self.format == "lightgbm":
            if self.task == "multiclass":
                return lambda rows: np.asarray(model.predict(matrix(rows), num_threads=1), dtype=np.float64)
            return lambda rows: np.asarray(model.predict(matrix(rows), num_threads=1), dtype=np.float64).reshape(-1)
        _use_one_thread(model)
        if self.task == "binary":
            return lambda rows: np.asarray(model.predict_proba(given(rows))[:, 1], dtype=np.float64)
        if self.task == "multiclass":
            return lambda rows: np.asarray(model.predict_proba(given(rows)), dtype=np.float64)
        return lambda rows: np.asarray(model.predict(given(rows)), dtype=np.float64).reshape(-1)


def matrix(rows: Rows) -> Any:
    """Rows as a booster's file takes them, by place: float32 [n, k]; its columns must be numbers."""
    return np.column_stack(list(rows.columns.values())) if isinstance(rows, NamedRows) else rows


def given(rows: Rows) -> Any:
    """Rows as an estimator is given them: float32 [n, k], or, by name, a pandas DataFrame.

    Its numbers are float64 with the values that they have as float32, which is what serving sees; its categories are
    objects: strings, and NaN where there is none, which is what scikit-learn's imputers and encoders call missing.
    """
    if not isinstance(rows, NamedRows):
        return rows
    import pandas as pd

    return pd.DataFrame({name: _column(values) for name, values in rows.columns.items()})


def capture(estimator: Any, task: Task) -> NativeModel:
    """Keep a fitted estimator: a wrapper or booster of LightGBM, XGBoost or CatBoost, or one of scikit-learn's.

    Training goes on to use the returned model, so what cannot be kept is refused here, before it is evaluated.
    Raises NotCaptured (not fitted, another number of classes than the task's, no predict_proba, own objective, no file
    format) and TypeNotTrusted (a part of it is of a type that seatrial does not load).
    """
    from seatrial.releases import boosters

    match type(estimator).__module__.partition(".")[0]:
        case "lightgbm":
            return _capture_lightgbm(estimator, task)
        case "xgboost":
            return NativeModel("xgboost", boosters.capture_xgboost(estimator, task), task)
        case "catboost":
            return NativeModel("catboost", boosters.capture_catboost(estimator, task), task)
    if task != "regression":
        _check_classes(estimator, task)
        if not hasattr(estimator, "predict_proba"):
            raise NotCaptured(
                f"{_name(estimator)} has no predict_proba, so it has no probability to answer with.",
                expected=f"A {task} model needs an estimator with predict_proba; "
                "CalibratedClassifierCV around it gives one.",
            )
    native = NativeModel("skops", _dump_skops(estimator), task)
    native.load()
    return native


def _capture_lightgbm(estimator: Any, task: Task) -> NativeModel:
    from lightgbm.basic import Booster

    if isinstance(estimator, Booster):
        booster = estimator
    else:
        if not hasattr(estimator, "n_features_in_") or not estimator.__sklearn_is_fitted__():
            raise _not_fitted(estimator)
        if task != "regression":
            _check_classes(estimator, task)
        booster = estimator.booster_
    text: str = booster.model_to_string()
    objective = _objective(text)
    if task == "binary" and objective not in ("binary", "cross_entropy"):
        raise NotCaptured(
            f"{_name(estimator)} was fitted with the objective '{objective or 'of its own'}'.",
            expected="A binary model needs the objective 'binary' or 'cross_entropy', whose score is a probability.",
        )
    if task == "multiclass" and objective != "multiclass":
        raise NotCaptured(
            f"{_name(estimator)} was fitted with the objective '{objective or 'of its own'}'.",
            expected="A multiclass model needs the objective 'multiclass', whose probabilities add up to 1.",
        )
    if task == "regression" and not objective:
        raise NotCaptured(
            f"{_name(estimator)} was fitted with an objective of its own, which its file format does not hold.",
            expected="One of LightGBM's named objectives is expected.",
        )
    return NativeModel("lightgbm", text.encode(), task)


def _objective(text: str) -> str:
    """The name in the line "objective=binary sigmoid:1"; empty for a function of the user's."""
    for line in text.splitlines():
        if line.startswith("Tree="):
            break
        if line.startswith("objective="):
            name = line.removeprefix("objective=").split(" ")[0]
            return "" if name == "custom" else name
    return ""


def _column(values: NDArray[Any]) -> Any:
    import pandas as pd

    if values.dtype != object:
        return pd.Series(values.astype(np.float64))
    strings = values.copy()
    strings[[value is None for value in values]] = np.nan
    return pd.Series(strings, dtype=object)


def _check_classes(estimator: Any, task: Task) -> None:
    """Refuse what is not fitted, or, for binary, not on two classes of which the second is the positive one."""
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        if _is_classifier(estimator):
            raise _not_fitted(estimator)
        raise NotCaptured(
            f"{_name(estimator)} is not a classifier.",
            expected=f"A {task} model needs a classifier with predict_proba.",
        )
    if task == "binary" and len(classes) != 2:
        raise NotCaptured(
            f"{_name(estimator)} was fitted on {len(classes)} classes ({listed(map(str, classes))}).",
            expected="A binary model needs exactly two.",
        )


def _is_classifier(estimator: Any) -> bool:
    from sklearn.base import is_classifier

    try:
        return bool(is_classifier(estimator))
    except (AttributeError, TypeError):
        return False


def _not_fitted(estimator: Any) -> NotCaptured:
    return NotCaptured(f"{_name(estimator)} is not fitted.", expected="Only a fitted estimator can be kept.")


def _dump_skops(estimator: Any) -> bytes:
    import skops.io
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        raise NotCaptured(
            f"{type(estimator).__module__}.{_name(estimator)} is no estimator that seatrial can keep.",
            expected="A model of LightGBM, XGBoost, CatBoost or scikit-learn, or a pipeline of these, is expected.",
        )
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise _not_fitted(estimator) from None
    _name_columns(estimator)
    try:
        return bytes(skops.io.dumps(estimator, compression=zipfile.ZIP_DEFLATED))
    except Exception as error:  # a converter or loader raises what it likes
        raise NotCaptured(
            f"{_name(estimator)} cannot be written as skops: {one_line(error)}",
            expected="Lambdas, local functions and open handles cannot be kept; use scikit-learn's own transformers.",
        ) from error


def _name_columns(estimator: Any) -> None:
    """Put the columns that a fitted ColumnTransformer chose in place of the function that chose them, which no file
    can hold."""
    from sklearn.compose import ColumnTransformer

    parameters = estimator.get_params(deep=True).values()
    for part in (estimator, *parameters):
        if isinstance(part, ColumnTransformer) and hasattr(part, "_columns"):
            part.transformers = [
                (name, step, chosen if callable(columns) else columns)
                for (name, step, columns), chosen in zip(part.transformers, part._columns, strict=True)
            ]


def _load_skops(data: bytes) -> Any:
    import skops.io

    try:
        unknown = [name for name in skops.io.get_untrusted_types(data=data) if name not in TRUSTED_TYPES]
        if not unknown:
            return skops.io.loads(data, trusted=list(TRUSTED_TYPES))
    except Exception as error:  # a converter or loader raises what it likes
        raise NativeDamaged(
            f"{len(data)} bytes cannot be read as a skops file: {one_line(error)}",
            expected="The bytes that training kept are expected.",
            state="Nothing was loaded.",
        ) from error
    raise TypeNotTrusted(
        f"the model holds {listed(unknown)}, which seatrial does not load from a file.",
        expected="Estimators and transformers of scikit-learn are loaded; "
        "a class or function of one's own belongs into a request-time function or a feature view.",
        state="Nothing was loaded.",
        types=unknown,
    )


def _use_one_thread(model: Any) -> None:
    """Forests add up their trees in racing order on several threads; one gives the same last bits every time."""
    jobs = [name for name in model.get_params() if name == "n_jobs" or name.endswith("__n_jobs")]
    model.set_params(**dict.fromkeys(jobs, 1))


def _load_booster(data: bytes) -> Any:
    from lightgbm import Booster
    from lightgbm.basic import LightGBMError

    # LightGBM ends the process on some texts that are cut in the middle of a tree, so look before it does.
    if b"\nend of trees" not in data:
        raise _booster_damaged(data, "the end of the trees is missing")
    try:
        return Booster(model_str=data.decode())
    except (LightGBMError, UnicodeDecodeError, ValueError) as error:
        raise _booster_damaged(data, one_line(error)) from error


def _booster_damaged(data: bytes, reason: str) -> NativeDamaged:
    return NativeDamaged(
        f"{len(data)} bytes cannot be read as a LightGBM model: {reason}",
        expected="The text that training kept is expected.",
        state="Nothing was loaded.",
    )


def _name(estimator: Any) -> str:
    return type(estimator).__name__


def one_line(error: BaseException, *, most: int = 200) -> str:
    """The first words of another library's message, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[:most]}..."
