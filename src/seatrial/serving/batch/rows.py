"""Batch rows: what one release answers to the rows of a table, and why some rows have no answer.

The answers are those that the service gives to the same rows, one in a request, to the last bit. A row that the service
would refuse has none; of a table each such row is told with its reason, and the others are answered all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed, did_you_mean, listed
from seatrial.core.signature import NamedRows, Signature
from seatrial.core.types import EXACT_FLOAT32, Dtype
from seatrial.features.lookup import compute, load_functions
from seatrial.features.plan import FeaturePlan, ViewPlan
from seatrial.releases.bundle import GOLDEN
from seatrial.releases.formats import ONNX
from seatrial.releases.golden import read_golden
from seatrial.releases.runtime import MissingNotAccepted, ScoreNotFinite, Scoring, open_runtime
from seatrial.stores.prediction_log import OF_CLASS

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.releases.bundle import Bundle

ROWS = 16_384
"""Rows that are scored by one call of the model."""
TRIED = 1_024
"""Rows by which it is found out whether a row is scored alike alone and among others."""
_LARGEST = float(np.finfo(np.float32).max)

Places = NDArray[np.intp]


class BatchColumnMissing(Failed):
    """Rows to be scored lack columns that the release needs."""

    code = "batch.column_missing"


class BatchColumnWrongType(Failed):
    """A column of rows to be scored has a type from which the model's input cannot be made."""

    code = "batch.column_wrong_type"


@dataclass(frozen=True)
class Needs:
    """What a release needs of a table that has certain columns.

    columns: those that are read. views: those whose features are joined, as of each row's `instant`. functions: the
    names of the request-time functions that are computed here.
    """

    columns: tuple[str, ...]
    views: tuple[ViewPlan, ...] = ()
    functions: tuple[str, ...] = ()
    instant: str = ""


@dataclass
class Bad:
    """The rows that have no answer. codes: (n,) 0 for a good row, else 1 + the place of its reason."""

    codes: NDArray[np.int16]
    reasons: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, rows: NDArray[np.bool_] | NDArray[Any], code: str, reason: str) -> None:
        """Give these rows a reason, unless they have one."""
        if rows.any():
            self.reasons.append((code, reason))
            self.codes[rows & (self.codes == 0)] = len(self.reasons)

    def told(self) -> dict[str, int]:
        """How many rows have each reason."""
        counts = np.bincount(self.codes, minlength=len(self.reasons) + 1)[1:]
        return {reason: int(count) for (_, reason), count in zip(self.reasons, counts.tolist(), strict=True) if count}


@dataclass(frozen=True)
class Answers:
    """places: the rows that have an answer, ascending. columns: their answers, by `answer_schema`. inputs: of every
    row, before they were encoded."""

    places: Places
    columns: dict[str, pa.Array]
    bad: Bad
    inputs: dict[str, Any]


class RowScorer:
    """Answers for one release. alone: each row is scored by itself, because among others it is scored otherwise."""

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.signature: Signature = manifest.signature
        self.plan: FeaturePlan = manifest.plan
        self.threshold = 0.5 if manifest.threshold is None else manifest.threshold
        self._functions = {name: (name, args, made) for name, args, made in load_functions(self.plan)}
        self._runtime: Scoring = open_runtime(bundle, threads, checked=False)
        self._no_missing = manifest.no_missing
        self._no_unseen = frozenset(manifest.parity.refuses_unseen)
        self._nullable = {field.name: field.nullable or field.optional for field in self.signature.request}
        self._dtypes: dict[str, Dtype] = {field.name: field.dtype for field in self.signature.request}
        self.alone = scored_alone(bundle, self._runtime)

    # -- what is needed

    def needs(self, schema: pa.Schema, *, instants: Sequence[str] = ("at",), where: str = "the rows") -> Needs:
        """What is to be read of rows with this schema, and what is to be joined to them.

        A column that the rows have is taken as it is. instants: names of the column of the instants, the
        first choice first. Raises BatchColumnMissing and BatchColumnWrongType.
        """
        names = set(schema.names)
        missing: dict[str, str] = {}
        wanted: dict[str, None] = {}
        functions: list[str] = []
        joined: dict[str, ViewPlan] = {}
        of_view = {f"{view.name}__{feature}": view for view in self.plan.views for feature in view.features}

        def want(name: str, by: str) -> None:
            if name in names:
                wanted[name] = None
            elif name in self._functions:
                for arg in self._functions[name][1]:
                    want(arg, f"function '{name}'")
                if name not in functions:
                    functions.append(name)
            elif name in of_view:
                joined[of_view[name].name] = of_view[name]
            else:
                missing.setdefault(name, by)

        for name in self.signature.inputs:
            want(name, "the model")
        instant = ""
        for view in joined.values():
            taken = [name for name in of_view if of_view[name] is view and name in names]
            if taken:
                lacking = [name for name in of_view if of_view[name] is view and name not in names]
                missing.setdefault(lacking[0], f"view '{view.name}', of which the rows have {taken[0]}")
            for key in view.keys:
                want(key, f"view '{view.name}'")
        if joined:
            instant = next((name for name in instants if name in names), "")
            if instant:
                wanted[instant] = None
            else:
                missing.setdefault(instants[0], "the join of features, which are as of each row's instant")
        if missing:
            name, by = next(iter(missing.items()))
            raise BatchColumnMissing(
                f"{where} lack {listed(missing)}.",
                expected=f"'{name}' is needed by {by}. They have {listed(schema.names, most=20)}. "
                f"{did_you_mean(name, schema.names)}".strip(),
                state="Nothing was written.",
                columns=sorted(missing),
            )
        self._check_types(schema, wanted, instant, where)
        return Needs(tuple(wanted), tuple(joined.values()), tuple(functions), instant)

    def _check_types(self, schema: pa.Schema, wanted: Iterable[str], instant: str, where: str) -> None:
        import pyarrow as pa

        keys = {key for view in self.plan.views for key in view.keys}
        numbers = {*self.signature.inputs, *(arg for _, args, _ in self._functions.values() for arg in args)}
        for name in wanted:
            kind = schema.field(name).type
            if pa.types.is_dictionary(kind):
                kind = kind.value_type
            if pa.types.is_null(kind):
                continue
            if name == instant:
                fits, expected = pa.types.is_timestamp(kind), "a timestamp"
            elif name in self.signature.categories or self._dtypes.get(name) in ("string", "category"):
                fits, expected = _is_text(kind), "text"
            elif name in numbers:
                fits, expected = _is_number(kind, self._dtypes.get(name)), "a number"
                if self._dtypes.get(name) == "bool":
                    fits, expected = pa.types.is_boolean(kind), "true or false"
            else:
                fits, expected = name in keys, "another type"
            if not fits:
                raise BatchColumnWrongType(
                    f"column '{name}' of {where} is {kind}.",
                    expected=f"The release takes {expected} there.",
                    state="Nothing was written.",
                    next="Cast the column.",
                    column=name,
                )

    # -- what comes out

    def answer_schema(self) -> pa.Schema:
        """The columns of an answer: prediction, probability, and of several classes the probability of each."""
        import pyarrow as pa

        signature = self.signature
        if signature.task == "multiclass":
            whole = all(isinstance(one, int) for one in signature.classes)
            fields = [("prediction", pa.int64() if whole else pa.string()), ("probability", pa.float64())]
            return pa.schema([*fields, *((f"{OF_CLASS}{one}", pa.float64()) for one in signature.classes)])
        prediction = pa.int64() if signature.task == "binary" else pa.float64()
        return pa.schema([("prediction", prediction), ("probability", pa.float64())])

    def answer(self, rows: pa.Table) -> Answers:
        """The answers to rows that have every column of `needs`, features joined."""
        bad = Bad(np.zeros(len(rows), dtype=np.int16))
        for name, nullable in self._nullable.items():
            if not nullable and name in rows.column_names and rows[name].null_count:
                bad.tell(rows[name].is_null().to_numpy().astype(bool), "batch.null", f"'{name}' is null")
        columns = self._computed(rows)
        inputs = self._named(rows, columns, bad) if self.signature.layout == "named" else self._packed(columns, bad)
        places: Places = np.flatnonzero(bad.codes == 0)
        if len(places) < len(rows):
            inputs = inputs[places]
        scores = self._scores(inputs, places, bad)
        if len(scores) < len(places):
            places = np.flatnonzero(bad.codes == 0)
        return Answers(places, self._answered(scores), bad, {name: columns[name] for name in self.signature.inputs})

    def _answered(self, scores: NDArray[np.float64]) -> dict[str, pa.Array]:
        import pyarrow as pa

        signature, schema = self.signature, self.answer_schema()
        if signature.task == "multiclass":
            likeliest = scores.argmax(axis=1)
            classes = pa.array(list(signature.classes), schema.field("prediction").type)
            made = {
                "prediction": classes.take(pa.array(likeliest)),
                "probability": pa.array(scores[np.arange(len(scores)), likeliest]),
            }
            return made | {
                f"{OF_CLASS}{one}": pa.array(np.ascontiguousarray(scores[:, place]))
                for place, one in enumerate(signature.classes)
            }
        if signature.task == "binary":
            return {
                "prediction": pa.array((scores >= self.threshold).astype(np.int64)),
                "probability": pa.array(scores),
            }
        return {"prediction": pa.array(scores), "probability": pa.nulls(len(scores), pa.float64())}

    # -- from columns to inputs

    def _computed(self, rows: pa.Table) -> Mapping[str, Any]:
        """The columns of the rows, and those of the request-time functions that they lack."""
        wanted = [one for name, one in self._functions.items() if name not in rows.column_names]
        columns: dict[str, Any] = {name: rows[name] for name in rows.column_names}
        names = {name for name, _, _ in wanted}
        if not names:
            return columns
        args = {arg for _, args, _ in wanted for arg in args} - names
        if not args <= columns.keys():  # of a function that no input is made of
            wanted = [one for one in wanted if {*one[1]} <= columns.keys() | names]
            args = {arg for _, args, _ in wanted for arg in args} - names
        with np.errstate(all="ignore"):
            return columns | compute(wanted, {arg: _floats(columns[arg]) for arg in args})

    def _packed(self, columns: Mapping[str, Any], bad: Bad) -> NDArray[np.float32]:
        signature = self.signature
        tensor = np.empty((len(bad.codes), len(signature.inputs)), dtype=np.float32)
        for place, name in enumerate(signature.inputs):
            if name in signature.categories:
                tensor[:, place] = _codes(columns[name], signature.categories[name])
            else:
                with np.errstate(over="ignore", invalid="ignore"):
                    tensor[:, place] = self._exact(name, columns[name], bad)
        for place in self._no_missing:
            bad.tell(np.isnan(tensor[:, place]), MissingNotAccepted.code, _missing(signature.inputs[place]))
        return tensor

    def _named(self, rows: pa.Table, columns: Mapping[str, Any], bad: Bad) -> NamedRows:
        signature = self.signature
        made: dict[str, NDArray[Any]] = {}
        for place, name in enumerate(signature.inputs):
            if name not in signature.categories:
                with np.errstate(over="ignore", invalid="ignore"):
                    made[name] = self._exact(name, columns[name], bad).astype(np.float32)
                missing = np.isnan(made[name])
            else:
                texts = np.empty(len(rows), dtype=object)
                texts[:] = columns[name].to_pylist()
                made[name] = texts
                missing = np.array([text is None for text in texts], dtype=bool)
                if name in self._no_unseen:
                    known = frozenset(signature.categories[name])
                    unseen = np.array([text is not None and text not in known for text in texts], dtype=bool)
                    bad.tell(unseen, "runtime.unseen_not_accepted", f"'{name}' was never seen in training")
            if place in self._no_missing:
                bad.tell(missing, MissingNotAccepted.code, _missing(name))
        return NamedRows(made)

    def _exact(self, name: str, column: Any, bad: Bad) -> NDArray[Any]:
        """The numbers of an input; those that float32 would change are told."""
        numbers = column if isinstance(column, np.ndarray) else _numbers(column)
        whole = name in self.signature.integers
        limit = float(EXACT_FLOAT32) if whole else _LARGEST
        if numbers.dtype.kind == "f" or whole:
            beyond = np.abs(numbers) > limit
            what = "an integer beyond 2^24" if whole else "an infinity or a number beyond float32"
            bad.tell(beyond, "signature.input_not_exact", f"'{name}' is {what}")
        if self._dtypes.get(name) == "int" and numbers.dtype.kind == "f":
            bad.tell(
                np.isfinite(numbers) & (numbers != np.floor(numbers)), "batch.not_whole", f"'{name}' is no whole number"
            )
        return numbers

    # -- scores

    def _scores(self, inputs: Any, places: Places, bad: Bad) -> NDArray[np.float64]:
        """The scores of those of the inputs that have one; the others are told."""
        found = []
        for start in range(0, len(places), ROWS):
            some = inputs[start : start + ROWS]
            try:
                found.append(one_by_one(self._runtime, some) if self.alone else self._runtime.score(some))
            except ScoreNotFinite:
                alone = [self._or_none(some[place : place + 1]) for place in range(len(some))]
                without = np.zeros(len(bad.codes), dtype=bool)
                without[places[start : start + ROWS][[one is None for one in alone]]] = True
                bad.tell(without, ScoreNotFinite.code, "the model has no finite answer")
                found += [one for one in alone if one is not None]
        return np.concatenate(found) if found else self._runtime.score(inputs[:0])

    def _or_none(self, row: Any) -> NDArray[np.float64] | None:
        try:
            return self._runtime.score(row)
        except ScoreNotFinite:
            return None


def scored_alone(bundle: Bundle, runtime: Scoring) -> bool:
    """Whether the last bits of a row's score hang on how many rows are scored at once.

    They do where sums are made by other code for one row than for many (matrix products), and not for trees. Found out
    by rows that are mixed from the golden ones, the same for the same release. A release that another process scores is
    not asked: one row at a time would take it a thousand times as long.
    """
    manifest = bundle.manifest
    if manifest.model_format != ONNX:
        return False
    golden = read_golden(bundle.files[GOLDEN]).given()
    random = np.random.default_rng(0)
    picked = [random.integers(0, len(golden), TRIED) for _ in manifest.signature.inputs]
    tried: Any
    if isinstance(golden, NamedRows):
        columns = zip(golden.columns.items(), picked, strict=True)
        tried = NamedRows({name: values[places] for (name, values), places in columns})
    else:
        tried = np.column_stack([golden[places, one] for one, places in enumerate(picked)]).astype(np.float32)
    try:
        return bool((one_by_one(runtime, tried) != runtime.score(tried)).any())
    except ScoreNotFinite:
        return True


def one_by_one(runtime: Scoring, inputs: Any) -> NDArray[np.float64]:
    """The scores of rows, each scored alone."""
    scores = [runtime.score(inputs[place : place + 1]) for place in range(len(inputs))]
    return np.concatenate(scores) if scores else runtime.score(inputs)


def _missing(name: str) -> str:
    return f"'{name}' is missing, or never seen, and the model takes no missing value there"


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType, dtype: Dtype | None) -> bool:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return dtype in (None, "bool")
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _numbers(column: Any) -> NDArray[Any]:
    """A column's numbers: float32 stays that, all else is float64, or an integer without nulls; null is NaN."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_float32(kind) or pa.types.is_float64(kind) or (pa.types.is_integer(kind) and not column.null_count):
        numbers: NDArray[Any] = column.to_numpy()
        return numbers
    return _floats(column)


def _floats(column: Any) -> NDArray[np.float64]:
    """A column as float64, null as NaN."""
    import pyarrow as pa

    if isinstance(column, np.ndarray):
        return column.astype(np.float64, copy=False)
    numbers: NDArray[np.float64] = column.cast(pa.float64(), safe=False).to_numpy()
    return numbers


def _codes(column: Any, categories: Sequence[str]) -> NDArray[np.float64]:
    """The place of each text among the categories, NaN for null and for what was never seen."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    texts = column.cast(pa.string())
    return _floats(pc.index_in(texts, value_set=pa.array(list(categories), pa.string())))
