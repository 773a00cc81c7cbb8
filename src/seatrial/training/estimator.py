"""The estimator: how is it found, made repeatable, fitted and asked for scores?

An estimator is anything in scikit-learn's shape: `fit(X, y)`, then `predict_proba(X)` for binary and
multiclass targets or `predict(X)` for regression. It comes as an import path, a class, a function that makes one, or
an unfitted object. The system, not the user, sets seeds and threads. What an estimator raises is told in its own words,
with the columns named.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import os
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.signature import Layout, NamedRows, Rows, missing_in
from seatrial.training.model import Model
from seatrial.training.rows import TrainingRefused

# Threads that wait for each other by spinning come to a crawl when somebody else wants a core too: a fit of 20 seconds
# was seen to take 280. libgomp reads this when it is loaded, which is after this line. A tenth is lost when idle.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

EXTRA = ("sklearn", "lightgbm")
"""Packages of the `train` extra that hold estimators."""

THREAD_PARAMETERS = ("n_jobs", "num_threads", "num_thread", "nthread", "nthreads", "thread_count")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class EstimatorNotFound(UsageError):
    """The estimator's import path leads nowhere."""

    code = "training.estimator_not_found"


class TrainExtraMissing(UsageError):
    """Training needs packages that the base install does not hold."""

    code = "training.extra_missing"


class BadEstimator(UsageError):
    """What was named is no estimator for the task, or does not take its parameters."""

    code = "training.bad_estimator"


class EstimatorFailed(TrainingRefused):
    """The estimator raised, or answered with something that is no score."""

    code = "training.estimator_failed"


class MissingValuesNotTaken(EstimatorFailed):
    """The estimator does not take missing values, and some inputs have them."""

    code = "training.missing_values_not_taken"


def make_estimator(model: Model) -> Any:
    """A fresh, unfitted estimator of the model, its seed and threads set.

    Every `random_state` that is None becomes the model's seed, every thread parameter the model's threads, in
    the estimator and in the steps within it; LightGBM is told to be deterministic.
    Raises EstimatorNotFound or BadEstimator.
    """
    estimator = _make(model)
    for method in ("fit", "predict" if model.task == "regression" else "predict_proba"):
        if not callable(getattr(estimator, method, None)):
            hint = "SVC(probability=True) or CalibratedClassifierCV gives one." if method == "predict_proba" else ""
            raise BadEstimator(
                f"the estimator of model '{model.name}' is {type(estimator).__name__}, which has no {method}().",
                expected=f"A {model.task} model needs fit(X, y) and {method}(X). {hint}".strip(),
                estimator=type(estimator).__name__,
            )
    _check_kind(estimator, model)
    for step in _steps(estimator):
        _settle(step, model)
    return estimator


def layout(model: Model) -> Layout:
    """How the model's inputs reach its estimator: as declared; else by name when a ColumnTransformer in it asks for
    columns by name, or by a function of the frame, or when CatBoost is told which are categorical; else packed."""
    from seatrial.releases.boosters import cat_features

    if model.inputs is not None:
        return model.inputs
    made = _make(model)
    if cat_features(made):
        return "named"
    for step in _steps(made):
        if any(base.__name__ == "ColumnTransformer" for base in type(step).__mro__):
            for _, _, columns in step.transformers:
                names = [columns] if isinstance(columns, str) else columns
                if callable(names) or (isinstance(names, Sequence) and any(isinstance(one, str) for one in names)):
                    return "named"
    return "packed"


def _check_kind(estimator: Any, model: Model) -> None:
    """A classifier has predict(), too, and would learn a regression's values as classes."""
    if not hasattr(estimator, "__sklearn_tags__"):
        return  # it does not say what it is
    base = _of_the_extra("sklearn.base")
    wrong = base.is_classifier(estimator) if model.task == "regression" else base.is_regressor(estimator)
    if wrong:
        raise BadEstimator(
            f"the estimator of model '{model.name}' is {type(estimator).__name__}, which is not for {model.task}.",
            expected="A regressor is expected." if model.task == "regression" else "A classifier is expected.",
            estimator=type(estimator).__name__,
        )


def require_extra() -> None:
    """Raise TrainExtraMissing unless what fits and exports models is installed."""
    for name in ("sklearn", "skops", "onnx", "skl2onnx", "onnxmltools"):
        if importlib.util.find_spec(name) is None:
            raise _extra_missing(name)


def describe(estimator: Any) -> dict[str, Any]:
    """The estimator in plain values: its class and its effective parameters (objects as their repr)."""
    kind = type(estimator)
    params = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "params": {name: _plain(value) for name, value in sorted(params.items())},
    }


@contextmanager
def controlled(model: Model, heard: list[str]) -> Iterator[None]:
    """Fit and score inside of this: global seeds set, threads limited, warnings collected into `heard`.

    The global state of `random` and of numpy's old generator is put back afterwards.
    """
    joblib, threadpoolctl = _of_the_extra("joblib"), _of_the_extra("threadpoolctl")
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.callback(random.setstate, python)
        stack.callback(np.random.set_state, numpy)
        stack.enter_context(threadpoolctl.threadpool_limits(limits=model.threads))
        if model.threads > 1:
            stack.enter_context(joblib.parallel_config(n_jobs=model.threads))
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        random.seed(model.seed)
        np.random.seed(model.seed)
        try:
            yield
        finally:
            for warning in caught:
                words = f"{warning.category.__name__}: {warning.message}"
                if words not in heard:
                    heard.append(words)


def fit_estimator(model: Model, inputs: Rows, labels: NDArray[np.float64], names: Sequence[str]) -> Any:
    """An estimator fitted on n rows; labels are given as int64 unless for regression, those of multiclass
    counted from 0 without gaps. Raises EstimatorFailed."""
    estimator = make_estimator(model)
    target = labels if model.task == "regression" else labels.astype(np.int64)
    if model.task == "multiclass":  # XGBoost for one takes no gaps
        target = np.unique(target, return_inverse=True)[1].astype(np.int64)
    try:
        if model.continues is not None:
            return model.continues.fit(estimator, given(inputs, estimator), target, model.name)
        estimator.fit(given(inputs, estimator), target)
    except SeatrialError:
        raise
    except (Exception, SystemExit) as error:  # an estimator raises what it likes
        raise _explain(model, error, inputs, names, "fitted") from error
    return estimator


def score(model: Model, estimator: Any, inputs: Rows, names: Sequence[str]) -> NDArray[np.float64]:
    """P(positive) or the value for each row, float64 (n,); for multiclass float64 (n, C) of the C classes that it was
    fitted on. All finite. Raises EstimatorFailed."""
    expected: tuple[int, ...] = (len(inputs),)
    try:
        if model.task == "binary":
            answer = np.asarray(estimator.predict_proba(given(inputs, estimator)), dtype=np.float64)
            scores = answer[:, list(estimator.classes_).index(1)]
        elif model.task == "multiclass":
            scores = np.asarray(estimator.predict_proba(given(inputs, estimator)), dtype=np.float64)
            expected = (len(inputs), len(estimator.classes_))
        else:
            scores = np.asarray(estimator.predict(given(inputs, estimator)), dtype=np.float64).reshape(-1)
    except (Exception, SystemExit) as error:  # an estimator raises what it likes
        raise _explain(model, error, inputs, names, "asked for scores") from error
    if scores.shape != expected or not np.isfinite(scores).all():
        raise EstimatorFailed(
            f"{type(estimator).__name__} of model '{model.name}' gave {int((~np.isfinite(scores)).sum())} scores of "
            f"{scores.size} that are NaN or infinite, for {len(inputs)} rows.",
            expected="One finite score for each row is expected.",
        )
    return scores


def importance(estimator: Any, names: Sequence[str]) -> dict[str, float]:
    """Inputs by weight, heaviest first: `feature_importances_`, else absolute `coef_`; of a pipeline its last step.

    Empty when the estimator tells none, or tells them for other columns than its inputs.
    """
    last = estimator.steps[-1][1] if hasattr(estimator, "steps") else estimator
    weights = getattr(last, "feature_importances_", None)
    if weights is None and hasattr(last, "coef_"):
        weights = np.abs(last.coef_)
    if weights is None:
        return {}
    flat = np.asarray(weights, dtype=np.float64).reshape(-1)
    if flat.size != len(names):
        return {}
    return dict(sorted(zip(names, flat.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0])))


def given(inputs: Rows, estimator: Any) -> Any:
    """The rows as an estimator takes them: float32 (n, k), or a pandas DataFrame; see `releases.native.given` and, for
    CatBoost's categorical features, `releases.boosters.with_categories`."""
    if not isinstance(inputs, NamedRows):
        return inputs
    from seatrial.releases import boosters, native

    return boosters.with_categories(native.given(inputs), boosters.cat_features(estimator))


def thread_variables() -> dict[str, str | None]:
    """The environment variables that limit threads, as they are set; None: not set."""
    return {name: os.environ.get(name) for name in THREAD_VARIABLES}


def _make(model: Model) -> Any:
    maker = _find(model.estimator, model.name) if isinstance(model.estimator, str) else model.estimator
    if not callable(maker):
        return _copy(maker, model)
    stated = [name for name in THREAD_PARAMETERS if name in model.params]
    if stated:
        raise BadEstimator(
            f"model '{model.name}' gives its estimator {stated[0]}={model.params[stated[0]]!r}.",
            expected="Threads are part of what makes a run repeatable and are the system's to set.",
            next=f"Write Model(..., threads={model.params[stated[0]]!r}) instead.",
        )
    try:
        return maker(**model.params)
    except TypeError as error:
        raise _bad_params(model, maker, error) from error
    except (Exception, SystemExit) as error:  # an estimator raises what it likes
        raise EstimatorFailed(
            f"{_name(maker)} of model '{model.name}' could not be made: {type(error).__name__}: {error}",
            expected=f"It was called with {dict(model.params)!r}.",
        ) from error


def _copy(estimator: object, model: Model) -> Any:
    """An unfitted copy of an object that the user made, with the model's params set on it."""
    fresh = copy.deepcopy(estimator)
    if hasattr(estimator, "get_params"):
        from sklearn.base import clone

        fresh = clone(estimator)
    if model.params:
        try:
            fresh.set_params(**model.params)  # type: ignore[attr-defined]
        except (AttributeError, TypeError, ValueError) as error:
            raise _bad_params(model, type(estimator), error) from error
    return fresh


def _of_the_extra(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise _extra_missing(name) from error


def _extra_missing(name: str) -> TrainExtraMissing:
    return TrainExtraMissing(
        f"training and releasing need the package '{name}', which is not installed.",
        next="Install seatrial with its extra: pip install 'seatrial[train]'.",
    )


def _find(path: str, model: str) -> Any:
    """What the import path names. Raises EstimatorNotFound."""
    module_name, _, attribute = path.rpartition(".")
    if not module_name:
        raise EstimatorNotFound(
            f"the estimator of model '{model}' is {path!r}, which is no import path.",
            expected="A module and a name are expected, for example 'lightgbm.LGBMClassifier'.",
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        root = module_name.partition(".")[0]
        here = error.name == root
        install = f"Run pip install 'seatrial[train]'{'' if root in EXTRA else f' {root}'}." if here else ""
        raise EstimatorNotFound(
            f"the estimator of model '{model}' is {path!r}, but there is no module '{error.name}'.",
            expected="A module that can be imported is expected.",
            next=install,
            module=error.name,
        ) from error
    except (Exception, SystemExit) as error:  # an estimator raises what it likes
        raise EstimatorNotFound(
            f"the estimator of model '{model}' is {path!r}, but importing '{module_name}' failed: "
            f"{type(error).__name__}: {error}",
        ) from error
    if not hasattr(module, attribute):
        raise EstimatorNotFound(
            f"the estimator of model '{model}' is {path!r}, but '{module_name}' has no '{attribute}'.",
            expected=did_you_mean(attribute, [name for name in dir(module) if not name.startswith("_")]),
        )
    found = getattr(module, attribute)
    if not callable(found) and not hasattr(found, "fit"):
        raise BadEstimator(
            f"the estimator of model '{model}' is {path!r}, which is {type(found).__name__}.",
            expected="A class with fit(X, y), or a function that makes an object with it, is expected.",
        )
    return found


def _bad_params(model: Model, maker: Any, error: Exception) -> BadEstimator:
    try:
        known = [name for name in inspect.signature(maker).parameters if name not in ("self", "args", "kwargs")]
    except (TypeError, ValueError):
        known = []
    unknown = [name for name in model.params if name not in known]
    hint = did_you_mean(unknown[0], known) if unknown else ""
    return BadEstimator(
        f"{_name(maker)} of model '{model.name}' does not take {dict(model.params)!r}: {error}",
        expected=f"It takes {listed(known)}. {hint}".strip(),
    )


def _steps(estimator: Any) -> Iterator[Any]:
    """The estimator and every estimator among its parameters, however deep."""
    yield estimator
    if hasattr(estimator, "get_params"):
        for value in estimator.get_params(deep=True).values():
            if hasattr(value, "get_params") and not isinstance(value, type):
                yield value


def _settle(step: Any, model: Model) -> None:
    """Set seed and threads of one estimator."""
    if not hasattr(step, "get_params"):
        return
    params = step.get_params(deep=False)
    changes: dict[str, Any] = {}
    for name in ("random_state", "seed"):
        if name in params and params[name] is None:
            changes[name] = model.seed
    sklearn = type(step).__module__.startswith("sklearn.")
    for name in THREAD_PARAMETERS:
        # For scikit-learn None means what `controlled` says; LogisticRegression even warns when it is set.
        if name in params and not (sklearn and params[name] is None):
            changes[name] = model.threads
    if type(step).__module__.startswith("lightgbm."):
        changes["deterministic"] = True
        if not params.get("force_col_wise"):
            changes["force_row_wise"] = True
        if not {"verbose", "verbosity"} & set(params):
            changes["verbosity"] = -1  # LightGBM talks on stdout, which is for data
    if type(step).__module__.startswith("catboost."):  # it names only what was stated
        changes |= {"thread_count": model.threads, "allow_writing_files": False}
        if not {"random_state", "random_seed"} & set(params):
            changes["random_seed"] = model.seed
        if not {"verbose", "verbose_eval", "logging_level", "silent"} & set(params):
            changes["verbose"] = False  # it talks on stdout as well
    if changes:
        step.set_params(**changes)


def _explain(model: Model, error: BaseException, inputs: Rows, names: Sequence[str], doing: str) -> EstimatorFailed:
    missing = {name: int(count) for name, count in zip(names, missing_in(inputs).sum(axis=0), strict=True) if count}
    words = f"{type(error).__name__}: {error}"
    if missing and "nan" in str(error).lower():
        return MissingValuesNotTaken(
            f"the estimator of model '{model.name}' takes no missing values, but {len(missing)} of {len(names)} inputs "
            f"have them (nulls, or categories never seen in training): "
            f"{listed(f'{name} ({count} of {len(inputs)} rows)' for name, count in missing.items())}.",
            expected="Give it a step that fills them: estimator=sklearn.pipeline.make_pipeline("
            "sklearn.impute.SimpleImputer(), ...), or take an estimator that knows missing values.",
            missing=missing,
        )
    return EstimatorFailed(
        f"the estimator of model '{model.name}' raised while it was {doing} ({len(inputs)} rows): {words}",
        expected="The words above are the estimator's own.",
        next="Correct the model's estimator, params or features.",
    )


def _name(maker: Any) -> str:
    return getattr(maker, "__qualname__", type(maker).__qualname__)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else repr(value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
