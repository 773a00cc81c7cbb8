"""The signature of a model: what a request holds, and how it becomes the model's input.

A request is typed fields. Together with looked-up and computed features they are the columns from which
the model's input is taken: one float32 tensor [n, k] in the order of `inputs`, or one column by name for each of
them. The same function, `encode`, makes it in training, in packing and in serving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError
from seatrial.core.personal import Treatment
from seatrial.core.types import EXACT_FLOAT32, Dtype, Field

Task = Literal["binary", "multiclass", "regression"]
Layout = Literal["packed", "named"]
Class = str | int
Columns = Mapping[str, Sequence[Any] | NDArray[Any]]


class InputNotExact(UsageError):
    """An integer beyond 2^24, an infinity, or a value beyond float32 would be changed by the model's input type."""

    code = "signature.input_not_exact"


class Signature(msgspec.Struct, frozen=True):
    """What goes into a model and what comes out.

    request: the fields of a request: entity keys, request features, arguments of request-time functions.
    inputs: names of the model's k inputs, in order: `view__feature`, function names, request fields.
    categories: for each input that is a category, the values seen in training rows, sorted; the code of a
        value is its position. Unseen and null are NaN.
    integers: inputs that are integers, for which values beyond 2^24 are refused rather than rounded.
    classes: of a multiclass model, sorted: what its answers are, and the order of its C probabilities.
    layout: "packed": the model takes one float32 tensor [n, k]. "named": it takes a column for each input, numbers as
        float32, categories as the strings that they are; `categories` then says which were seen in training.
    personal: request fields and inputs that the prediction log keeps as a pseudonym ("hash") or not at all ("drop").
    """

    task: Task
    request: tuple[Field, ...]
    inputs: tuple[str, ...]
    categories: dict[str, tuple[str, ...]] = {}
    integers: tuple[str, ...] = ()
    classes: tuple[Class, ...] = ()
    layout: Layout = "packed"
    personal: dict[str, Treatment] = {}

    @property
    def types(self) -> dict[str, Dtype]:
        """The type of every input and of every request field."""
        found: dict[str, Dtype] = dict.fromkeys(self.inputs, "float")
        found |= dict.fromkeys(self.integers, "int")
        found |= dict.fromkeys(self.categories, "category")
        return found | {field.name: field.dtype for field in self.request}

    @property
    def request_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.request)


@dataclass(frozen=True, eq=False)
class NamedRows:
    """n rows of a model whose inputs are named, in the signature's order.

    columns: for each input (n,) float32 with NaN for missing, or, for a category, (n,) objects: strings, None.
    Indexed by a slice or by positions it gives those rows.
    """

    columns: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def __getitem__(self, rows: slice | NDArray[Any]) -> NamedRows:
        return NamedRows({name: values[rows] for name, values in self.columns.items()})

    def missing(self) -> NDArray[np.bool_]:
        """(n, k): where there is no value."""
        columns = [
            np.array([value is None for value in values]) if values.dtype == object else np.isnan(values)
            for values in self.columns.values()
        ]
        return np.column_stack(columns) if columns else np.zeros((0, 0), dtype=np.bool_)


Rows = NDArray[np.float32] | NamedRows
"""n rows as a model takes them: float32 [n, k], or columns by name."""


def encode(signature: Signature, columns: Columns) -> tuple[Rows, dict[str, int]]:
    """The model's input for n rows, and for each category input how many values were never seen in training.

    columns: for each of `signature.inputs` n values: numbers (NaN or None: missing), bools, or, for
        categories, strings (None: missing).
    Returns a C-contiguous float32 array [n, k] in which missing and unseen are NaN; for named inputs NamedRows, in
    which what was never seen stands as it came: the model says what it makes of it.
    Raises InputNotExact for an infinity, a number that float32 cannot reach, or an integer input beyond 2^24.
    """
    unseen: dict[str, int] = {}
    if signature.layout == "named":
        return NamedRows({name: _named(signature, name, columns[name], unseen) for name in signature.inputs}), unseen
    rows = len(columns[signature.inputs[0]]) if signature.inputs else 0
    tensor = np.empty((rows, len(signature.inputs)), dtype=np.float32)
    for position, name in enumerate(signature.inputs):
        values = columns[name]
        if name in signature.categories:
            codes = {value: float(code) for code, value in enumerate(signature.categories[name])}
            nan = float("nan")
            tensor[:, position] = [codes.get(value, nan) for value in values]
            unseen[name] = sum(value is not None and value not in codes for value in values)
            continue
        tensor[:, position] = _exact(signature, name, values)
    return tensor, unseen


def missing_in(rows: Rows) -> NDArray[np.bool_]:
    """(n, k): where there is no value."""
    return rows.missing() if isinstance(rows, NamedRows) else np.isnan(rows)


def columns_of(signature: Signature, rows: Rows) -> dict[str, NDArray[Any]]:
    """`rows` by input, to be kept: `rows_of` makes them again."""
    if isinstance(rows, NamedRows):
        return rows.columns
    return {name: np.ascontiguousarray(rows[:, place]) for place, name in enumerate(signature.inputs)}


def rows_of(signature: Signature, columns: Mapping[str, NDArray[Any]]) -> Rows:
    """Rows that were kept by input; a model whose inputs are packed takes them as float32 [n, k]."""
    if signature.layout == "packed":
        return np.column_stack([columns[name] for name in signature.inputs]).astype(np.float32)
    numbers = {name for name in signature.inputs if name not in signature.categories}
    return NamedRows(
        {name: np.asarray(columns[name]).astype(np.float32 if name in numbers else object) for name in signature.inputs}
    )


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, in order; at least one part, all of one signature."""
    first = parts[0]
    if isinstance(first, NamedRows):
        named = [part for part in parts if isinstance(part, NamedRows)]
        return NamedRows({name: np.concatenate([part.columns[name] for part in named]) for name in first.columns})
    return np.concatenate([part for part in parts if not isinstance(part, NamedRows)])


def places(values: Iterable[Any], classes: Sequence[Class]) -> NDArray[np.float64]:
    """(n,) the place of each value among the classes, NaN for None, the number of classes for any other value."""
    known: dict[Any, float] = {value: float(place) for place, value in enumerate(classes)}
    known[None] = float("nan")
    return np.array([known.get(value, len(classes)) for value in values], dtype=np.float64)


def aligned(scores: NDArray[np.float64], classes: Sequence[Class], wanted: Sequence[Class]) -> NDArray[np.float64]:
    """(n, C) scores of `classes` as scores of `wanted`: 0 for those that it does not have; others are left out."""
    found = np.zeros((len(scores), len(wanted) + 1))
    found[:, places(classes, wanted).astype(np.intp)] = scores
    return found[:, :-1]


def _named(signature: Signature, name: str, values: Sequence[Any] | NDArray[Any], unseen: dict[str, int]) -> Any:
    if name not in signature.categories:
        return _exact(signature, name, values).astype(np.float32)
    known = set(signature.categories[name])
    unseen[name] = sum(value is not None and value not in known for value in values)
    strings = np.empty(len(values), dtype=object)
    strings[:] = values
    return strings


def _exact(signature: Signature, name: str, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    numbers = as_floats(values)
    refuse_inexact(name, numbers, integer=name in signature.integers)
    return numbers


def as_floats(values: Sequence[Any] | NDArray[Any]) -> NDArray[np.float64]:
    """Values as float64, None as NaN, bools as 0 and 1."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.astype(np.float64, copy=False)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def refuse_inexact(name: str, numbers: NDArray[np.float64], *, integer: bool) -> None:
    """Raise InputNotExact when `numbers` cannot be given to a float32 model as they are meant."""
    limit = EXACT_FLOAT32 if integer else float(np.finfo(np.float32).max)
    bad = np.abs(numbers) > limit
    if bad.any():
        what = "an integer beyond 2^24" if integer else "an infinity or a number beyond float32"
        raise InputNotExact(
            f"input '{name}' holds {what} in row {int(np.argmax(bad))} ({int(bad.sum())} such rows).",
            expected="The model's input is float32; rescale the column, or declare it as a category.",
            input=name,
        )
