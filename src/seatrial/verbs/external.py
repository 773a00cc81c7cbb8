"""Bring your own: a model that was trained elsewhere becomes a version, and a release like any other.

Nothing is declared for it: no model, no view, no run. What a release says of it comes from the model itself and from a
sample of rows as it is given them; what neither tells is left empty, and where it came from is written down. The record
is an `adoption`, named by its content: bringing in the same model with the same sample again changes nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.identity import canonical_json, content_id
from seatrial.core.records import Record
from seatrial.core.signature import Class, Signature, Task, columns_of, encode, places
from seatrial.core.types import Dtype, Field
from seatrial.data.sources import Source
from seatrial.features.definitions import check_name
from seatrial.features.plan import FeaturePlan
from seatrial.stats.metrics import MAIN
from seatrial.training.model import Model

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.folder.workspace import Workspace
    from seatrial.releases.build import Made
    from seatrial.releases.foreign import Foreign
    from seatrial.stores.metadata import MetadataStore
    from seatrial.verbs.inputs import Inputs

KIND = "adoption"
MLFLOW = "mlflow:"
FORMAT = 1
METRICS_OF = "the sample, of which the model may have been trained"
AS_GIVEN = 1e-6
MOST = 1e-4
"""How far the answers of an ONNX graph or of XGBoost may lie from the model's own, which takes the sample as it is."""
SEED = 42  # of the draws that intervals are made of
_INDEX = re.compile(r"__index_level_\d+__")


class BadSample(UsageError):
    """The sample does not hold what the model takes, or not in a type that a model can be given."""

    code = "external.bad_sample"


class BadTarget(UsageError):
    """The target is no column of the sample, or holds what the model cannot have answered."""

    code = "external.bad_target"


class NotScored(Failed):
    """The model raises on the rows of the sample."""

    code = "external.not_scored"


class AnswersOtherwise(Failed):
    """The released form, whose inputs are float32, does not answer on the sample like the model itself."""

    code = "external.answers_otherwise"


class TrainedElsewhere(UsageError):
    """The model was trained elsewhere: this project does not know how to train it, or where its rows are."""

    code = "external.trained_elsewhere"


@dataclass(frozen=True)
class Words:
    """What only people know of a model; empty where nobody said it."""

    owner: str = ""
    on_call: str = ""
    runbook: str = ""
    description: str = ""


@dataclass(frozen=True)
class Adopted(Model):
    """A model of which there is a release and no declaration, for the verbs that ask what a model is.

    It has no features, no estimator and no source of labels: it can be watched and labelled, not trained.
    """

    labels: Source = field(default_factory=Source)
    features: Sequence[Any] = ()
    estimator: Any = ""

    def __post_init__(self) -> None:
        """A declaration is checked; this is none."""


def require_name(name: str | None, sample: object) -> None:
    """Raise BadSample when a model is brought in without a name, or without rows."""
    if not name:
        raise _bad_sample("the model has no name.", "seatrial release NAME --from ... --sample ... is expected.")
    check_name("model", name)
    if sample is None:
        raise _bad_sample(
            f"no sample was given for model '{name}'.",
            "A few hundred rows as the model is given them are expected, more is better: from them come the types of "
            "the request, the golden rows, the comparison with what is served, and the reference for drift.",
            next="Give --sample rows.parquet.",
        )


def sample_table(inputs: Inputs, sample: object) -> pa.Table:
    """The sample as a table: a path (.parquet, .csv, .jsonl), a frame, or a list of dicts. The index of a pandas frame,
    which its to_parquet writes as a column, is no input."""
    import pyarrow as pa

    rows = inputs.as_table(sample)
    try:
        table = pa.Table.from_pylist(rows) if isinstance(rows, list) else rows
        return table.drop_columns([one for one in table.column_names if _INDEX.fullmatch(one)])
    except (pa.ArrowException, TypeError) as error:
        raise _bad_sample(f"the sample is no table: {error}.", "Every column holds values of one type.") from None


def fetched(
    from_: object, task: Task | None, mlflow_uri: str | None, sample: pa.Table, target: str | None
) -> tuple[Foreign, dict[str, Any]]:
    """The model that is meant, and where it is from: a file, a model in MLflow, or an object in memory."""
    from seatrial.releases.foreign import answers_of, of_object, read_file, read_mlflow

    sample = sample.select([place for place, name in enumerate(sample.column_names) if name != target])
    width = sample.num_columns
    if isinstance(from_, str) and from_.startswith(MLFLOW):
        from seatrial.registry.mlflow import fetch

        with tempfile.TemporaryDirectory(prefix="seatrial-mlflow-") as folder:
            facts = fetch(from_.removeprefix(MLFLOW), mlflow_uri or os.environ.get("MLFLOW_TRACKING_URI"), Path(folder))
            model, more = read_mlflow(Path(folder), task, sample, width)
        return model, facts | more
    if isinstance(from_, str | Path):
        return read_file(Path(from_), task, width, sample), {"from": Path(from_).name}
    model = of_object(from_, task)
    return replace(model, answers=answers_of(from_, sample)), {"from": f"a {model.estimator} in memory"}


def adopt(
    workspace: Workspace,
    name: str,
    model: Foreign,
    sample: pa.Table,
    *,
    origin: Mapping[str, Any],
    target: str | None,
    words: Words,
    classes: Sequence[Class] = (),
) -> Record:
    """The record of a model that is brought in, with its files kept; it is no version yet.

    sample: rows as the model is given them, n >= 1; columns that it does not take are left out.
    target: a column of the sample with what really happened; without it nothing is measured.
    classes: in the order of the model's probabilities, where it does not name them.
    Raises BadSample, BadTarget, NotScored, AnswersOtherwise.
    """
    import pyarrow as pa

    from seatrial.data import snapshot
    from seatrial.releases.native import one_line
    from seatrial.verbs.inputs import columns

    check_name("model", name)
    names = inputs_of(name, model, sample, target)
    signature = signature_of(model, sample, names)
    said, classes = bool(classes), classes_of(model, sample, target, classes)
    signature = msgspec.structs.replace(signature, classes=classes if model.task == "multiclass" else ())
    table = plain(sample, names)
    rows, _ = encode(signature, columns(table, names))
    try:
        scores = model.native.scorer()(rows)
    except Exception as error:  # a native model raises what it likes
        raise NotScored(
            f"{model.estimator or 'the model'} cannot score the sample: {one_line(error)}",
            expected=f"Rows as it is given them, in the columns {listed(names)}, are expected.",
            state="Nothing was released.",
        ) from error
    labels = None if target is None else labels_of(name, model, sample, target, classes)
    given = _as_given(model, table, names, signature, scores)
    _require_as_given(name, model, given)
    facts = {
        "task": model.task,
        "signature": msgspec.to_builtins(signature),
        "definition": {
            "task": model.task,
            "target": target or "",
            "estimator": model.estimator,
            "params": dict(model.parameters),
            "owner": words.owner,
            "on_call": words.on_call,
            "runbook": words.runbook,
            "description": words.description,
        },
        "origin": {"kind": "external", **origin, "digest": model.digest},
        "sample": {"rows": sample.num_rows, "content": snapshot.content(table).id},
        "metrics": _measured(model.task, labels, scores),
        "metrics_of": METRICS_OF if labels is not None else "",
        "as_given": given,
    }
    if model.task == "binary" and classes:
        facts["positive"] = classes[1]
    if model.told:
        facts["told"] = model.told
    if model.task == "multiclass" and not said and not model.classes and classes != tuple(range(len(classes))):
        facts["classes_taken"] = "sorted"
    worse = _worse_than_one_class(facts["metrics"], labels) if model.task == "multiclass" else None
    if worse is not None:
        facts["most_frequent"] = worse
    identity = content_id("adp", canonical_json({"format": FORMAT, "model": name, **facts}))
    folder = f"adoptions/{identity}"
    files = {
        f"native.{model.native.format}": model.native.data,
        "profile.json": canonical_json(profile_of(model.task, table, names, scores, labels, signature)),
    }
    kept = {file: f"{folder}/{file}" for file in (*files, "parity_rows.parquet")}
    for file, data in files.items():
        workspace.objects.put(kept[file], data)
    parity = pa.table(columns_of(signature, rows))
    workspace.keep_table(kept["parity_rows.parquet"], partial(write_table, parity))
    body = {"format": FORMAT, "model": name, **facts, "files": kept}
    if labels is not None:  # follows from the rest, so it is no part of the identity
        known = ~np.isnan(labels)
        body["intervals"] = intervals_of(model.task, labels[known], scores[known])
    return Record(identity, KIND, name, (), body)


def intervals_of(task: Task, labels: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, Any]:
    """The intervals of a model's metrics on rows that belong to nothing, as runs keep them."""
    from seatrial.stats.bootstrap import intervals, resample

    drawn = resample(labels.size, seed=SEED)
    return drawn.as_plain() | {"of": intervals(task, labels, scores, drawn)}


def made_elsewhere(adoption: Record) -> Made:
    """What the release of an adopted model says of it."""
    from seatrial.releases.build import HALF, Made
    from seatrial.releases.manifest import Lineage

    body = adoption.body
    definition = body["definition"]
    more = {
        name: body[name]
        for name in ("origin", "sample", "as_given", "told", "metrics_of", "positive")
        if body.get(name)
    }
    if definition["target"]:
        more["target"] = definition["target"]
    signature = msgspec.convert(body["signature"], Signature)
    return Made(
        model=adoption.name,
        signature=signature,
        threshold=HALF if signature.task == "binary" else None,
        plan=FeaturePlan(),
        estimator=definition["estimator"],
        parameters=definition["params"],
        metrics=body["metrics"],
        gates=(),
        lineage=Lineage(more=more),
        packages=None,
        owner=definition["owner"],
        on_call=definition["on_call"],
        runbook=definition["runbook"],
        description=definition["description"],
    )


def notes(adoption: Record, left: Sequence[str] = ()) -> list[str]:
    """What whoever brings a model in should know of the release. left: columns of the sample that it does not take."""
    body = adoption.body
    found = [f"inputs {_named(body['signature']['inputs'])}" + (f"; left out: {_named(left)}" if left else "")]
    classes = body["signature"]["classes"] if body["task"] == "multiclass" else ()
    if body.get("classes_taken"):
        found.append(
            f"classes {_named(range(len(classes)))} are taken as {_named(classes)}: sorted, because the file names "
            "none; --classes says it"
        )
    metric = next((name for name in (MAIN[body["task"]], "accuracy") if body["metrics"].get(name) is not None), None)
    if metric is not None:
        found.append(f"{metric} {body['metrics'][metric]:.4g} on the {body['sample']['rows']:,} rows of the sample")
    if "most_frequent" in body:
        found.append(
            f"accuracy {body['metrics']['accuracy']:.4g} is worse than always answering the most frequent class "
            f"({body['most_frequent']:.4g}): are the classes in the order of the model? Say it with --classes"
        )
    given = adoption.body["as_given"]
    if given["flipped"] or given["largest"] > AS_GIVEN:
        found.append(
            f"inputs are float32 in serving: of {given['rows']:,} rows {given['differ']:,} answer otherwise than with "
            f"float64, by up to {given['largest']:.3g}; {given['flipped']} decisions differ"
        )
    if adoption.body.get("told"):
        found.append(adoption.body["told"])
    if not adoption.body["metrics"]:
        found.append("no --target was named, so nothing was measured")
    return found


def adopted_models(metadata: MetadataStore) -> dict[str, Record]:
    """The newest adoption of each model that has one, by the model's name."""
    found = {head.name: metadata.record(head.record_id) for head in metadata.heads(KIND)}
    return {name: record for name, record in found.items() if record is not None}


def as_model(adoption: Record) -> Model:
    """An adopted model as the verbs see it that ask what a model is."""
    definition = adoption.body["definition"]
    return Adopted(
        name=adoption.name,
        task=definition["task"],
        target=definition["target"],
        owner=definition["owner"],
        on_call=definition["on_call"],
        runbook=definition["runbook"],
        description=definition["description"],
    )


def refuse(model: Model, what: str) -> None:
    """Raise TrainedElsewhere when a verb asks of an adopted model what only a declaration tells."""
    if isinstance(model, Adopted):
        raise TrainedElsewhere(
            f"model '{model.name}' was trained elsewhere, and nothing here declares {what}.",
            expected="A declared model is expected: Model(...) in project.py.",
            state="Nothing was done.",
            next=f"Declare Model('{model.name}', ...) to train it here; its versions go on from those there are.",
        )


def inputs_of(name: str, model: Foreign, sample: pa.Table, target: str | None) -> tuple[str, ...]:
    """The model's inputs among the sample's columns. Raises BadSample and BadTarget."""
    there = sample.column_names
    twice = sorted({one for one in there if there.count(one) > 1})
    if twice:
        raise _bad_sample(f"the sample has two columns '{twice[0]}'.", "Every column needs a name of its own.")
    if not sample.num_rows:
        raise _bad_sample("the sample has no rows.", "Rows as the model is given them are expected, at least one.")
    if target is not None and target not in there:
        raise BadTarget(
            f"the sample has no column '{target}'.",
            expected=f"It has {listed(there)}. {did_you_mean(target, there)}".strip(),
            state="Nothing was released.",
        )
    if target in model.names:
        raise BadTarget(
            f"'{target}' is an input of the model.",
            expected="What is predicted cannot be what it is predicted from.",
            state="Nothing was released.",
        )
    rest = [one for one in there if one != target]
    if model.names:
        wanted = _spelled(model.names, rest)
        missing = [one for one in wanted if one not in rest]
        if missing:
            raise _bad_sample(
                f"the model '{name}' was fitted on {len(wanted)} columns by name, and the sample lacks "
                f"{len(missing)} of them: {listed(missing)}.",
                f"It has {listed(rest)}. {did_you_mean(missing[0], rest)}".strip(),
                missing=missing,
            )
        return wanted
    if model.inputs is not None and len(rest) != model.inputs:
        raise _bad_sample(
            f"the model '{name}' takes {model.inputs} inputs and does not say which; the sample has {len(rest)} "
            f"columns{f' beside {target!r}' if target else ''}: {listed(rest)}.",
            "Exactly the model's inputs are expected, in its order.",
            next="Leave other columns out of the sample"
            + ("." if target else ", or name the one with the outcome with --target."),
        )
    return tuple(rest)


def _spelled(names: Sequence[str], there: Sequence[str]) -> tuple[str, ...]:
    """The model's names as the sample spells them: LightGBM writes "net worth" as "net_worth"."""
    by_spelling = {one.replace(" ", "_"): one for one in there}
    return tuple(one if one in there else by_spelling.get(one, one) for one in names)


def signature_of(model: Foreign, sample: pa.Table, names: tuple[str, ...]) -> Signature:
    fields, integers, categories = [], [], {}
    texts = {one.replace(" ", "_"): values for one, values in model.categories.items()}
    for place, name in enumerate(names):
        column = sample[name]
        dtype = _dtype(name, column)
        if place in model.complete and _has_nulls(column):
            raise _bad_sample(
                f"column '{name}' of the sample has nulls, and the model takes "
                + ("whole numbers there." if place in model.whole else "none in a categorical feature of CatBoost's."),
                "The sample is expected as the model is given its rows.",
                next="Put the value in their place that stood there in training.",
                column=name,
            )
        if place in model.whole and dtype == "float":
            _require_whole(name, column)
            dtype = "int"
        if dtype == "category":
            known = texts.get(name.replace(" ", "_"))
            if known is None and not model.columns_by_name:
                raise _bad_sample(
                    f"column '{name}' of the sample is text, and {model.estimator or 'the model'} takes numbers.",
                    "How a text becomes a number is part of a model, and is not in this one.",
                    next="Give the sample as the model is given its rows; or bring in the whole pipeline, with the "
                    "encoder in it.",
                    column=name,
                )
            seen = {value for value in _texts(column) if value is not None}
            categories[name] = tuple(sorted({*(known or ()), *seen})) if model.columns_by_name else tuple(known or ())
        elif dtype == "int":
            integers.append(name)
        fields.append(Field(name, dtype, nullable=_has_nulls(column)))
    return Signature(
        task=model.task,
        request=tuple(fields),
        inputs=names,
        categories=categories,
        integers=tuple(integers),
        layout="named" if model.columns_by_name else "packed",
    )


def _require_whole(name: str, column: pa.ChunkedArray) -> None:
    """Raise BadSample for a fraction where the model takes integers, which would be cut off in silence."""
    values = column.cast("float64").to_numpy()
    broken = values != np.trunc(values)
    if broken.any():
        row = int(broken.argmax())
        raise _bad_sample(
            f"column '{name}' of the sample is {values[row]:g} in row {row} ({int(broken.sum())} such rows), and the "
            "model takes whole numbers there.",
            "Whole numbers are expected.",
            next="Give the sample as the model is given its rows, or export it with inputs of floating point.",
            column=name,
        )


def _dtype(name: str, column: pa.ChunkedArray) -> Dtype:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind):
        return "int"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "float"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "category"
    if pa.types.is_null(kind):
        raise _bad_sample(
            f"column '{name}' of the sample has no value in any row.",
            "At least one is needed to know its type.",
            column=name,
        )
    raise _bad_sample(
        f"column '{name}' of the sample is {kind}, which no request carries to a model.",
        "Numbers, booleans and text are expected; of a time take parts or differences.",
        column=name,
    )


def _has_nulls(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa
    import pyarrow.compute as pc

    floating = pa.types.is_floating(column.type)
    return bool(column.null_count or (floating and pc.any(pc.is_nan(column)).as_py()))


def plain(sample: pa.Table, names: Sequence[str]) -> pa.Table:
    """The inputs as plain columns: text as strings, all else as it is."""
    import pyarrow as pa

    found = {}
    for name in names:
        column = sample[name]
        text = _dtype(name, column) == "category"
        found[name] = column.cast(pa.string()) if text else column
        if pa.types.is_float16(column.type):
            found[name] = column.cast(pa.float32())
    return pa.table(found)


def _texts(column: pa.ChunkedArray) -> list[Any]:
    import pyarrow as pa

    found: list[Any] = column.cast(pa.string()).to_pylist()
    return found


def classes_of(model: Foreign, sample: pa.Table, target: str | None, said: Sequence[Class] = ()) -> tuple[Class, ...]:
    """The classes in the order of the model's probabilities: what it says, else what is said of it, else those of the
    target when they are as many, sorted, which is how wrappers number them; else 0, 1, 2, ... Raises WrongTask."""
    if said:
        return _said_classes(model, sample, target, said)
    if model.classes or model.task != "multiclass":
        return model.classes
    scores_of = model.class_count
    if target is not None:
        found = sample[target].unique().drop_null().to_pylist()
        if len(found) == scores_of and all(isinstance(one, str | int) for one in found):
            return tuple(sorted(found))
    return tuple(range(scores_of))


def _said_classes(model: Foreign, sample: pa.Table, target: str | None, said: Sequence[Class]) -> tuple[Class, ...]:
    """Classes that somebody names, as texts or as the target has them; as the model has them, where it names them."""
    from seatrial.releases.foreign import WrongTask

    there = [] if target is None else sample[target].unique().drop_null().to_pylist()
    as_text = {str(one): one for one in (*there, *model.classes) if isinstance(one, str | int)}
    found = tuple(as_text.get(str(one), one) for one in said)
    count = 2 if model.task == "binary" else model.class_count
    wrong = ""
    if model.task == "regression":
        wrong = "it answers with a number"
    elif len(found) != count or len(set(found)) != count:
        wrong = f"it gives probabilities of {count} classes"
    elif model.classes and found != model.classes:
        wrong = f"it names them itself: {_named(model.classes)}"
    if wrong:
        raise WrongTask(
            f"the classes of the model are said to be {_named(said)}, and {wrong}.",
            expected="The classes in the order of its probabilities are expected, where it does not name them.",
            state="Nothing was released.",
        )
    return found


def _worse_than_one_class(metrics: Mapping[str, float | None], labels: NDArray[np.float64] | None) -> float | None:
    """The share of the most frequent class, when always answering it is right more often than the model is."""
    accuracy = metrics.get("accuracy")
    if labels is None or accuracy is None:
        return None
    counts = np.unique(labels[~np.isnan(labels)], return_counts=True)[1]
    share = float(counts.max() / counts.sum())
    return share if accuracy < share else None


def _named(names: Iterable[object], most: int = 12) -> str:
    words = [str(name) for name in names]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def labels_of(
    name: str, model: Foreign, sample: pa.Table, target: str, classes: Sequence[Class]
) -> NDArray[np.float64]:
    """(n,) what really happened, NaN where it is not known. Raises BadTarget."""
    values = [None if value is None or value != value else value for value in sample[target].to_pylist()]
    present = [value for value in values if value is not None]
    if not present:
        raise _bad_target(f"the target '{target}' has no value in any row of the sample.", "At least one is expected.")
    if model.task == "regression":
        if not all(isinstance(value, int | float) for value in present):
            raise _bad_target(
                f"the target '{target}' is {sample[target].type}, and '{name}' answers with a number.",
                "A column of numbers is expected.",
            )
        return np.array([np.nan if value is None else float(value) for value in values])
    known = tuple(classes) if classes else (0, 1)
    whole = [
        int(one) if isinstance(one, bool) or (isinstance(one, float) and one.is_integer()) else one for one in values
    ]
    labels = places(whole, known)
    strange = labels == len(known)
    if strange.any():
        row = int(strange.argmax())
        raise _bad_target(
            f"the target '{target}' is {values[row]!r} in row {row} of the sample ({int(strange.sum())} such rows), "
            f"which is no class of '{name}'.",
            f"Its classes are {listed(map(repr, known))}."
            + ("" if classes else " What they stand for is said with --classes, in the order of its probabilities."),
        )
    return labels


def _measured(task: Task, labels: NDArray[np.float64] | None, scores: NDArray[np.float64]) -> dict[str, float | None]:
    from seatrial.stats.metrics import measure

    if labels is None:
        return {}
    known = ~np.isnan(labels)
    return measure(task, labels[known], scores[known])


def _as_given(
    model: Foreign, table: pa.Table, names: Sequence[str], signature: Signature, scores: NDArray[np.float64]
) -> dict[str, Any]:
    """How far the model's answers on the sample as it is lie from those of the form that is kept, on float32, which
    serving works with. They are the model's own where it could be asked, else those of the kept form on float64."""
    from seatrial.core.signature import NamedRows
    from seatrial.verbs.inputs import columns

    rows, _ = encode(signature, columns(table, names))
    if model.graph:
        from seatrial.releases.onnx_adopt import answers

        return _difference(model.task, answers(model.graph, model.task, list(columns(table, names).values())), scores)
    if isinstance(rows, NamedRows):
        given = columns(table, [name for name in names if name not in signature.categories])
        wide: Any = NamedRows({name: given.get(name, values) for name, values in rows.columns.items()})
    else:
        wide = rows.astype(np.float64)
        for place, name in enumerate(names):
            if name not in signature.categories:
                wide[:, place] = columns(table, [name])[name]
    found = model.native.scorer()(wide)
    if model.answers is not None and model.answers.shape == found.shape:
        found = model.answers
    return _difference(model.task, found, scores)


def _difference(task: Task, found: NDArray[np.float64], scores: NDArray[np.float64]) -> dict[str, Any]:
    """How far `scores` lie from `found`, both (n,) or (n, C); where only one of them is a number, by 1."""
    from seatrial.releases.parity import scale

    difference = np.abs(found - scores) / scale(task, found, float(np.nanmedian(np.abs(found))))
    difference[np.isnan(found) & np.isnan(scores)] = 0.0
    difference[np.isnan(difference)] = 1.0
    if scores.ndim == 2:
        flipped = int((found.argmax(axis=1) != scores.argmax(axis=1)).sum())
        difference = difference.max(axis=1)
    else:
        flipped = int(((found >= 0.5) != (scores >= 0.5)).sum()) if task == "binary" else 0
    return {
        "rows": len(scores),
        "differ": int((difference > AS_GIVEN).sum()),
        "largest": float(f"{float(difference.max(initial=0.0)):.2e}"),
        "flipped": flipped,
    }


def _require_as_given(name: str, model: Foreign, given: Mapping[str, Any]) -> None:
    """Raise AnswersOtherwise where a graph or an XGBoost file is not released as what it answers.

    Other models were fitted on float64 and are known to round; of them it is told, not refused.
    """
    if given["largest"] <= MOST or not (model.graph or model.native.format == "xgboost"):
        return
    raise AnswersOtherwise(
        f"of {given['rows']:,} rows of the sample '{name}' answers {given['differ']:,} otherwise than the model itself "
        f"does, by up to {given['largest']:.3g}; {given['flipped']} decisions differ.",
        expected=f"Inputs are float32 in serving; at most {MOST:g} is expected between the two.",
        next="A column whose values float32 cannot tell apart, such as a time in seconds, belongs into the model as a "
        "difference or rescaled.",
        state="Nothing was released.",
        as_given=dict(given),
    )


def profile_of(
    task: Task,
    table: pa.Table,
    names: Sequence[str],
    scores: NDArray[np.float64],
    labels: NDArray[np.float64] | None,
    signature: Signature,
) -> dict[str, Any]:
    """What the inputs and the scores of the sample look like; drift is told from it."""
    from seatrial.training.profile import reference_profile
    from seatrial.verbs.inputs import columns

    inputs = {
        name: np.array(values, dtype=object) if name in signature.categories else np.asarray(values, np.float64)
        for name, values in columns(table, names).items()
    }
    known = np.zeros(0) if labels is None else labels[~np.isnan(labels)]
    told = known if known.size else np.zeros(1)
    profile = reference_profile(task, inputs, scores, told, classes=signature.classes)
    profile["rows"] = table.num_rows
    if not known.size:
        profile.pop("labels")
    for part in ("scores", "predicted"):
        if part in profile:
            profile[part]["of"] = "sample"
    return profile


def write_table(table: pa.Table, path: Path) -> None:
    """Write the rows that a release is compared on."""
    import pyarrow.parquet as pq

    pq.write_table(table, path, compression="zstd")


def _bad_sample(found: str, expected: str, *, next: str = "", **facts: Any) -> BadSample:
    return BadSample(found, expected=expected, next=next, state="Nothing was released.", **facts)


def _bad_target(found: str, expected: str) -> BadTarget:
    return BadTarget(found, expected=expected, state="Nothing was released.")
