"""The signature of a model: what a request holds, and how it becomes the model's input.

A request is typed fields. Together with looked-up and computed features they are the columns from which
the model's input is taken: one float32 tensor [n, k] in the order of `inputs`. The same function, `encode`,
makes that tensor in training, in packing and in serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import UsageError
from seatrial.core.types import EXACT_FLOAT32, Field

Task = Literal["binary", "regression"]
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
    """

    task: Task
    request: tuple[Field, ...]
    inputs: tuple[str, ...]
    categories: dict[str, tuple[str, ...]] = {}
    integers: tuple[str, ...] = ()

    @property
    def request_names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.request)


def encode(signature: Signature, columns: Columns) -> tuple[NDArray[np.float32], dict[str, int]]:
    """The model's input for n rows, and for each category input how many values were never seen in training.

    columns: for each of `signature.inputs` n values: numbers (NaN or None: missing), bools, or, for
        categories, strings (None: missing).
    Returns a C-contiguous float32 array [n, k]; missing and unseen are NaN.
    Raises InputNotExact for an infinity, a number that float32 cannot reach, or an integer input beyond 2^24.
    """
    rows = len(columns[signature.inputs[0]]) if signature.inputs else 0
    tensor = np.empty((rows, len(signature.inputs)), dtype=np.float32)
    unseen: dict[str, int] = {}
    for position, name in enumerate(signature.inputs):
        values = columns[name]
        if name in signature.categories:
            codes = {value: float(code) for code, value in enumerate(signature.categories[name])}
            nan = float("nan")
            tensor[:, position] = [codes.get(value, nan) for value in values]
            unseen[name] = sum(value is not None and value not in codes for value in values)
            continue
        numbers = as_floats(values)
        refuse_inexact(name, numbers, integer=name in signature.integers)
        tensor[:, position] = numbers
    return tensor, unseen


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
