"""A model that was trained elsewhere, as it comes: a file of skops, of a booster, or of ONNX, or a fitted object.

What it is, is told by its bytes and not by the file's name. It is read in the formats of `releases.native`, which hold
no code; a pickle is never opened here. What the model itself tells (the names of its inputs, its classes, its
parameters) is taken from it, and what it does not tell stays empty.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError, listed
from seatrial.core.identity import digest
from seatrial.core.signature import Class, Task
from seatrial.releases import boosters
from seatrial.releases.native import NativeModel, NotCaptured, TypeNotTrusted, capture, one_line

if TYPE_CHECKING:
    import pyarrow as pa

FLAVORS = ("onnx", "sklearn", "lightgbm", "xgboost", "catboost")

MOST_PARAMETERS = 200
LONGEST = 200  # characters of a parameter's value
_NO_NAME = re.compile(r"(Column_|f|x|feature_?)?\d+")
"""What boosters call the columns of an array, which has no names."""


class ForeignUnreadable(UsageError):
    """The file is none that a model can be taken from, or it is not whole."""

    code = "external.unreadable"


class PickleRefused(UsageError):
    """The file is a pickle, which runs code when it is opened."""

    code = "external.pickle_refused"


class WrongTask(UsageError):
    """The model does not answer what is said of it, or the task cannot be told from it."""

    code = "external.wrong_task"


@dataclass(frozen=True)
class Foreign:
    """A model from elsewhere.

    native: it, in a form that is kept. estimator: its class by import path; empty when it has none.
    names: of its inputs, in order; empty when it was given an array. inputs: how many it takes; None: it does not say.
    columns_by_name: whether its steps ask for columns by name. complete: places of inputs that it takes no null in.
    categories: for inputs that are text, what it knows.
    classes: of several, in the order of its probabilities, or the two of a binary one; empty when it does not say.
    class_count: of how many classes it gives probabilities; 0 for other tasks.
    answers: what the model itself, before it was written in another form, answered on the sample, when it was asked.
    told: what whoever brings it in should know of how it was read.
    graph: the ONNX file as it came. whole: places of inputs that it takes as integers.
    digest: of the file, or of the form that is kept, BLAKE3-256.
    """

    native: NativeModel
    estimator: str
    digest: str
    names: tuple[str, ...] = ()
    inputs: int | None = None
    columns_by_name: bool = False
    complete: tuple[int, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[Class, ...] = ()
    class_count: int = 0
    answers: NDArray[np.float64] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    told: str = ""
    graph: bytes = field(default=b"", repr=False)
    whole: tuple[int, ...] = ()

    @property
    def task(self) -> Task:
        return self.native.task


def read_file(
    path: Path, task: Task | None = None, width: int | None = None, sample: pa.Table | None = None
) -> Foreign:
    """The model in a file. task: what it answers, where the file does not tell. width: how many columns it is given,
    where an ONNX graph does not say. sample: rows that the library itself is asked on, where it
    reads the file otherwise than we do (XGBoost).

    Raises ForeignUnreadable, PickleRefused, WrongTask, and what keeping it raises (see `native.capture`).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ForeignUnreadable(
            f"{path} cannot be read: {error.strerror or error}.",
            expected=_EXPECTED,
            state="Nothing was released.",
        ) from None
    return read_bytes(data, task, width, sample, name=path.name)


def read_bytes(
    data: bytes,
    task: Task | None = None,
    width: int | None = None,
    sample: pa.Table | None = None,
    *,
    name: str = "the file",
    all_rounds: bool = False,
) -> Foreign:
    """As `read_file`, of bytes. name: of the file, for messages. all_rounds: XGBoost's rounds behind the best one count
    too, as for whoever loads the file as a Booster."""
    match kind_of(data):
        case "onnx":
            found = of_graph(data, task, width)
        case "skops":
            found = of_object(NativeModel("skops", data, task or "regression").load(), task)
        case "lightgbm":
            found = of_object(NativeModel("lightgbm", data, "regression").load(), task)
        case "xgboost":
            found = _of_xgboost(data, task, sample, all_rounds=all_rounds)
        case "catboost":
            found = of_object(boosters.load_catboost(data), task)
        case "pickle":
            raise PickleRefused(
                f"{name} is a pickle, which runs whatever code is in it when it is opened.",
                expected=_EXPECTED,
                next="Where it was trained, write it again: skops.io.dump(model, 'model.skops'), or the booster's "
                "save_model. A model logged in MLflow is converted apart: --from mlflow:models:/NAME/VERSION.",
                state="Nothing was opened.",
            )
        case _:
            raise ForeignUnreadable(
                f"{name} is no model that is known here ({len(data)} bytes, starting with {data[:8]!r}).",
                expected=_EXPECTED,
                state="Nothing was released.",
            )
    return replace(found, digest=digest(data))


def kind_of(data: bytes) -> str:
    """What kind of file this is, by its first bytes: a format of `NativeModel`, "onnx", "pickle", or empty.

    >>> kind_of(b"tree\\nversion=v4\\n")
    'lightgbm'
    """
    if data.startswith(b"PK\x03\x04"):
        return "skops"
    if data.startswith(b"tree\n"):
        return "lightgbm"
    if data.startswith(b"CBM1"):
        return "catboost"
    if data.startswith(b"{"):
        return "xgboost"
    if data[:1] == b"\x80" and data[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    if data[:2] in (b"\x1f\x8b", b"x\x9c") or data.startswith(b"BZh"):
        return "pickle"  # as joblib compresses it
    if data[:1] == b"\x08" and len(data) > 2:
        return "onnx"  # ModelProto begins with its ir_version
    return ""


def of_graph(data: bytes, task: Task | None, width: int | None = None) -> Foreign:
    """A model as an ONNX graph, of PyTorch, Keras or anything. Raises WrongTask, NotAdopted."""
    from seatrial.releases.onnx_adopt import FLOATS, adopt, read
    from seatrial.releases.runtime import Runtime, session

    if task is None:
        raise WrongTask(
            "what an ONNX graph answers cannot be told from it: a number may be a probability or a price.",
            expected="binary, multiclass or regression is expected.",
            next="Say it with --task.",
            state="Nothing was released.",
        )
    read(data)
    given = session(data, 1).get_inputs()
    names = tuple(one.name for one in given) if len(given) > 1 else ()
    shape = given[0].shape
    fixed = shape[1] if len(given) == 1 and len(shape) == 2 and isinstance(shape[1], int) else None
    inputs = len(names) or fixed or width or 1
    native = NativeModel("onnx", adopt(data, task, inputs), task)
    classes = 0
    if task == "multiclass":
        classes = Runtime(native.data).score(np.zeros((1, inputs), np.float32)).shape[1]
    kinds = [one.type for one in given] * (inputs if len(given) == 1 else 1)
    whole = tuple(place for place, kind in enumerate(kinds) if kind not in FLOATS)
    return Foreign(
        native,
        "",
        digest(data),
        names=names,
        inputs=inputs,
        complete=whole,
        class_count=classes,
        graph=data,
        whole=whole,
    )


def of_object(model: Any, task: Task | None = None) -> Foreign:
    """A fitted model in memory: of scikit-learn, LightGBM, XGBoost or CatBoost.

    Raises WrongTask, NotCaptured and TypeNotTrusted. The object itself is not changed.
    """
    _require_fitted(model)
    known = task_of(model)
    if task is not None and known is not None and task != known:
        raise WrongTask(
            f"{type(model).__name__} answers a {known} task, and {task} was asked for.",
            expected="The task of the model, or none, is expected.",
            next=f"Leave --task out, or give --task {known}.",
            state="Nothing was released.",
        )
    chosen = task or known
    if chosen is None:
        raise WrongTask(
            f"what {type(model).__module__}.{type(model).__name__} answers cannot be told from it.",
            expected="binary, multiclass or regression is expected.",
            next="Say it with --task.",
            state="Nothing was released.",
        )
    native = capture(model, chosen)
    names = input_names(model)
    complete = boosters.cat_features(model)
    by_name = bool(complete)
    if native.format == "skops":
        fresh = native.load()
        by_name = asks_by_name(fresh)
        if not by_name and names and _forget_names(fresh):
            native = capture(fresh, chosen)
        native = NativeModel("skops", settled(native.data), chosen)
    return Foreign(
        native=native,
        estimator=class_of(model),
        digest=digest(native.data),
        names=names,
        inputs=_inputs(model),
        columns_by_name=by_name,
        complete=complete,
        categories=_categories(model, native, names),
        classes=_classes(model, chosen),
        class_count=_class_count(native),
        parameters=parameters_of(model),
    )


def _require_fitted(model: Any) -> None:
    """Raise NotCaptured for an estimator of scikit-learn that was never fitted; the boosters say it themselves."""
    if not type(model).__module__.startswith("sklearn."):
        return
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    try:
        check_is_fitted(model)
    except NotFittedError:
        raise NotCaptured(
            f"{type(model).__name__} is not fitted.",
            expected="Only a fitted estimator can be kept.",
            next="Call fit first.",
            state="Nothing was released.",
        ) from None
    except TypeError:  # it has no fit; what keeps it says so
        return


def answers_of(model: Any, sample: pa.Table, task: Task | None = None) -> NDArray[np.float64] | None:
    """What a model with scikit-learn's methods answers on the sample, as it is given it there: a frame of its columns.

    task: what it answers, where it does not tell. float64 (n,), or (n, C) for several classes; None when it does not
    take these rows.
    """
    names = input_names(model)
    if not hasattr(model, "predict") or type(model).__name__ == "Booster":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not names and sample.num_columns != _inputs(model):
                return None
            frame = sample.select(names).to_pandas() if names else sample.to_pandas().to_numpy()
            if (task or task_of(model)) == "regression":
                return np.asarray(model.predict(frame), dtype=np.float64).reshape(-1)
            found = np.asarray(model.predict_proba(frame), dtype=np.float64)
            return found[:, 1] if found.shape[1] == 2 else found
    except Exception:  # a model raises what it likes
        return None


def read_mlflow(
    folder: Path, task: Task | None, sample: pa.Table, width: int | None = None
) -> tuple[Foreign, dict[str, Any]]:
    """The model in a folder as MLflow keeps it, and what that says of it.

    ONNX, skops and the boosters' own files are read as they are. What is pickled is opened apart
    (`releases.throwaway`). Raises ForeignUnreadable, and as `read_file` and `open_pickle` do.
    """
    import yaml  # type: ignore[import-untyped]

    described = folder / "MLmodel"
    try:
        told = yaml.safe_load(described.read_text(encoding="utf-8"))
        flavors = dict(told["flavors"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        raise ForeignUnreadable(
            "there is no MLmodel among the artifacts that MLflow gave.",
            expected="A model that was logged with mlflow.<library>.log_model is expected.",
            state="Nothing was released.",
        ) from None
    flavor = next((one for one in FLAVORS if one in flavors), None)
    if flavor is None:
        raise ForeignUnreadable(
            f"the model in MLflow has the flavor {listed(flavors)}.",
            expected=f"One of {listed(FLAVORS)} is expected.",
            next="Log the fitted model itself, or bring it in as a file.",
            state="Nothing was released.",
        )
    about = flavors[flavor]
    file = folder / str(about.get("data") or about.get("pickled_model") or "")
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise ForeignUnreadable(
            f"the artifacts lack '{file.name}', which MLmodel names.",
            expected="The model's own file is expected among them.",
            state="Nothing was released.",
        )
    needs = folder / "requirements.txt"
    facts: dict[str, Any] = {"flavor": flavor, "mlflow_version": str(told.get("mlflow_version", ""))}
    if needs.is_file():
        lines = needs.read_text(encoding="utf-8", errors="replace").splitlines()
        facts["requirements"] = [line for line in lines if line.strip()][:MOST_PARAMETERS]
    data = _whole_graph(file) if flavor == "onnx" else file.read_bytes()
    kept_as = str(about.get("save_format") or "cbm")
    if flavor == "catboost" and kept_as != "cbm":
        raise ForeignUnreadable(
            f"the model in MLflow is CatBoost's, written as '{kept_as}'.",
            expected="CatBoost's own form (cbm) is expected, which log_model writes unless told otherwise.",
            next="Log it again without format=.",
            state="Nothing was released.",
        )
    # the class that mlflow.xgboost loads it as
    all_rounds = str(about.get("model_class", "xgboost.core.Booster")).endswith(".Booster")
    try:
        return read_bytes(data, task, width, sample, name=file.name, all_rounds=all_rounds), facts
    except (PickleRefused, TypeNotTrusted):
        return _taken_over(data, task, sample), facts | {"opened": "apart"}


def _whole_graph(file: Path) -> bytes:
    """An ONNX graph with the weights in it that lie in files beside it, which is how MLflow writes large ones."""
    import onnx

    try:
        return bytes(onnx.load(str(file)).SerializeToString())
    except Exception as error:  # protobuf, or a file of weights that is not there or lies elsewhere
        raise ForeignUnreadable(
            f"the graph {file.name} that MLflow gave cannot be read: {one_line(error)}",
            expected="The graph is expected, with its files of weights beside it.",
            state="Nothing was released.",
        ) from None


def _taken_over(data: bytes, task: Task | None, sample: pa.Table) -> Foreign:
    from seatrial.releases.throwaway import open_pickle

    opened = open_pickle(data, sample)
    found = read_bytes(opened.data, task, all_rounds=opened.estimator.endswith(".Booster"))
    return replace(
        found,
        digest=digest(data),
        estimator=opened.estimator or found.estimator,
        classes=found.classes or _plain_classes(opened.estimator, opened.classes, found.task),
        parameters=opened.parameters or found.parameters,
        answers=opened.answers,
    )


def task_of(model: Any) -> Task | None:
    """What a model answers, from its kind or its objective; None when that does not tell."""
    package = type(model).__module__.partition(".")[0]
    if package == "lightgbm" and type(model).__name__ == "Booster":
        return _objective_task(boosters_objective(model))
    if package == "xgboost" and type(model).__name__ == "Booster":
        objective = json.loads(model.save_config())["learner"]["objective"]["name"]
        return _first_task(boosters.XGBOOST_OBJECTIVES, objective)
    if package == "catboost" and type(model).__name__ == "CatBoost":
        loss = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
        return _first_task(boosters.CATBOOST_LOSSES, loss)
    from sklearn.base import is_classifier, is_regressor

    try:
        if is_classifier(model):
            classes = getattr(model, "classes_", ())
            return "binary" if len(classes) == 2 else "multiclass" if len(classes) > 2 else None
        return "regression" if is_regressor(model) else None
    except (AttributeError, TypeError):
        return None


def boosters_objective(booster: Any) -> str:
    """The name of a LightGBM booster's objective; empty for one of the user's own."""
    from seatrial.releases.native import _objective

    return _objective(booster.model_to_string(num_iteration=1))


def input_names(model: Any) -> tuple[str, ...]:
    """The names of the columns that a model was fitted on, in order; empty when it was given an array."""
    names: Sequence[Any] = ()
    package, kind = type(model).__module__.partition(".")[0], type(model).__name__
    if package == "lightgbm":
        booster = model if kind == "Booster" else model.booster_
        names = booster.feature_name()
    elif package == "xgboost":
        booster = model if kind == "Booster" else model.get_booster()
        names = booster.feature_names or ()
    elif package == "catboost":
        names = model.feature_names_ or ()
    else:
        names = getattr(model, "feature_names_in_", ())
    names = [str(name) for name in names]
    return () if all(_NO_NAME.fullmatch(name) for name in names) else tuple(names)


def asks_by_name(model: Any) -> bool:
    """Whether a ColumnTransformer anywhere inside a fitted model picks its columns by name."""
    from seatrial.releases.onnx_sklearn import parts

    for transformer in parts(model, "ColumnTransformer"):
        for _, _, columns in transformer.transformers_:
            named = [columns] if isinstance(columns, str) else columns
            if isinstance(named, Sequence | np.ndarray) and any(isinstance(one, str) for one in named):
                return True
    return False


def _forget_names(model: Any) -> bool:
    """Take the columns' names out of every part of a model that goes by position; whether there were any."""
    from seatrial.releases.onnx_sklearn import parts

    found = [part for part in parts(model, "BaseEstimator") if "feature_names_in_" in vars(part)]
    for part in found:
        del part.feature_names_in_
    return bool(found)


def _categories(model: Any, native: NativeModel, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """For inputs that are text, the values that the model knows: of LightGBM in the order of its codes."""
    if native.format == "lightgbm":
        return _pandas_categories(native.data, names)
    if native.format != "skops":
        return {}
    from seatrial.releases.onnx_sklearn import parts

    found: dict[str, tuple[str, ...]] = {}
    for transformer in parts(model, "ColumnTransformer"):
        for _, step, columns in transformer.transformers_:
            picked = [columns] if isinstance(columns, str) else list(columns)
            for encoder in parts(step, "BaseEstimator"):
                known = getattr(encoder, "categories_", None)
                if isinstance(known, list) and len(known) == len(picked):
                    for name, values in zip(picked, known, strict=True):
                        texts = [value for value in values if isinstance(value, str)]
                        if isinstance(name, str) and texts:
                            found[name] = tuple(sorted({*found.get(name, ()), *texts}))
    return found


def _pandas_categories(text: bytes, names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """What LightGBM was told of the categories of a pandas frame: one list for each categorical column, in order."""
    lines = text.decode().splitlines()
    kept = next((line for line in reversed(lines) if line.startswith("pandas_categorical:")), "")
    try:
        lists = json.loads(kept.removeprefix("pandas_categorical:") or "null") or []
    except ValueError:
        return {}
    told = next((line for line in lines if line.startswith("feature_infos=")), "")
    infos = told.removeprefix("feature_infos=").split(" ")
    # a categorical column's range is "0:1:2", a number's "[low:high]"; one that no split uses says "none"
    columns = [name for name, info in zip(names, infos, strict=False) if info and not info.startswith(("[", "none"))]
    if len(columns) != len(lists) or not all(isinstance(one, str) for values in lists for one in values):
        return {}
    return {name: tuple(values) for name, values in zip(columns, lists, strict=True)}


def _classes(model: Any, task: Task) -> tuple[Class, ...]:
    """The classes that a classifier was fitted on, as plain values; empty when it does not say."""
    if task == "regression":
        return ()
    known = getattr(model, "classes_", None)
    if known is None or isinstance(known, str):
        return ()
    return _plain_classes(type(model).__name__, known, task)


def _plain_classes(name: str, known: Sequence[Any], task: Task) -> tuple[Class, ...]:
    if task == "regression":
        return ()
    plain = [value.item() if isinstance(value, np.generic) else value for value in known]
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in plain]
    if not all(isinstance(value, str | int) for value in whole):
        raise WrongTask(
            f"{name} has the classes {listed(map(repr, whole))}.",
            expected="Classes are whole numbers or text.",
            state="Nothing was released.",
        )
    return tuple(int(value) if isinstance(value, bool) else value for value in whole)


def _class_count(native: NativeModel) -> int:
    """Of how many classes a model of several gives probabilities; 0 for other tasks."""
    if native.task != "multiclass":
        return 0
    model = native.load()
    match native.format:
        case "lightgbm":
            return int(model.num_model_per_iteration())
        case "xgboost":
            return int(json.loads(model.save_config())["learner"]["learner_model_param"]["num_class"])
    return len(model.classes_)


def _inputs(model: Any) -> int | None:
    package, kind = type(model).__module__.partition(".")[0], type(model).__name__
    if kind == "Booster":
        return int(model.num_feature() if package == "lightgbm" else model.num_features())
    if package == "catboost":
        return len(model.feature_names_)
    found = getattr(model, "n_features_in_", None)
    return None if found is None else int(found)


def class_of(model: Any) -> str:
    """The import path of a model's class, the short one where the package offers it at its root or one below."""
    kind = type(model)
    parts = [part for part in kind.__module__.split(".") if not part.startswith("_")]
    if parts[0] in ("lightgbm", "xgboost", "catboost"):
        parts = parts[:1]
    return ".".join([*parts, kind.__qualname__])


def parameters_of(model: Any) -> dict[str, Any]:
    """The parameters that the model tells of, as text; those that stand for whole objects are left out."""
    try:
        if type(model).__name__ == "Booster":
            told: Mapping[str, Any] = getattr(model, "params", None) or {}
        elif type(model).__module__.startswith("catboost"):
            told = model.get_params() or model.get_all_params()
        else:
            told = model.get_params(deep=True)
    except Exception as error:  # a model raises what it likes
        return {"": one_line(error)}
    plain = {
        str(name): repr(value)[:LONGEST]
        for name, value in told.items()
        if value is None or isinstance(value, str | int | float | bool | tuple | list | dict)
    }
    return dict(sorted(plain.items())[:MOST_PARAMETERS])


def _of_xgboost(data: bytes, task: Task | None, sample: pa.Table | None, *, all_rounds: bool) -> Foreign:
    """An XGBoost file as XGBClassifier().load_model reads it: what stopped early ends with its best round.

    The booster keeps the columns' names, which `boosters.load_xgboost` takes away.
    """
    boosters.load_xgboost(data)  # looks before XGBoost, which would end the process
    from xgboost import Booster, XGBClassifier, XGBRegressor

    booster = Booster()
    booster.load_model(bytearray(data))
    rounds = booster.num_boosted_rounds()
    cut = booster if all_rounds else boosters.until_best(booster)
    found = of_object(cut, task)
    answers = None
    if sample is not None and not all_rounds:
        wrapper = (XGBRegressor if found.task == "regression" else XGBClassifier)()
        wrapper.load_model(bytearray(data))
        answers = answers_of(wrapper, sample, found.task)
    kept = cut.num_boosted_rounds()
    told = (
        "" if kept == rounds else f"training stopped early: the best {kept} of the file's {rounds} rounds are released"
    )
    return replace(found, answers=answers, told=told)


def _objective_task(objective: str) -> Task | None:
    match objective:
        case "binary" | "cross_entropy":
            return "binary"
        case "multiclass":
            return "multiclass"
        case "" | "lambdarank" | "rank_xendcg" | "multiclassova" | "cross_entropy_lambda":
            return None
    return "regression"


def _first_task(objectives: Mapping[str, Sequence[str]], name: str) -> Task | None:
    """The only task with this objective; None when several have it, or none."""
    found = [task for task in ("binary", "multiclass", "regression") if name in objectives[task]]
    return found[0] if len(found) == 1 else None  # type: ignore[return-value]


def settled(data: bytes) -> bytes:
    """A skops file with the same content and nothing that differs from one writing to the next: addresses of memory,
    which stand for identity and name the arrays' files, are numbered in order, and the times are fixed."""
    numbers: dict[Any, int] = {}
    files: dict[str, str] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        schema = json.loads(archive.read("schema.json"))
        _number(schema, numbers, files)
        parts = {files[name]: archive.read(name) for name in files}
    parts["schema.json"] = json.dumps(schema, indent=2).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()


def _number(node: Any, numbers: dict[Any, int], files: dict[str, str]) -> None:
    if isinstance(node, list):
        for part in node:
            _number(part, numbers, files)
    if not isinstance(node, dict):
        return
    if "__id__" in node:
        # plain values are shared or not as the interpreter pleases, and nobody can tell
        known: Any = node["__id__"] if node.get("__loader__") != "JsonNode" else ("plain", len(numbers))
        node["__id__"] = numbers.setdefault(known, len(numbers) + 1)
    if isinstance(node.get("file"), str) and "__loader__" in node:
        ending = node["file"].partition(".")[2]
        node["file"] = files.setdefault(node["file"], f"{len(files) + 1}.{ending}")
    for part in node.values():
        _number(part, numbers, files)


_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can write
_EXPECTED = (
    "A file of skops (.skops), LightGBM (.txt), XGBoost (.json, .ubj), CatBoost (.cbm) or ONNX (.onnx) is expected."
)
