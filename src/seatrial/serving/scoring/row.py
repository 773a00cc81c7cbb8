"""One row as the model's input: `core.signature.encode` for a single row, without arrays in between.

What comes out is the same as `encode` makes, and what `encode` refuses is refused here; a property test compares.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import InputNotExact, NamedRows, Signature
from seatrial.core.types import EXACT_FLOAT32

_NAN = float("nan")
_LARGEST = float(np.finfo(np.float32).max)


class RowEncoder:
    """Encodes rows of one signature.

    unseen: for each category input, how many values since the start were never seen in training.
    """

    def __init__(self, signature: Signature) -> None:
        self.inputs = signature.inputs
        self.unseen = dict.fromkeys(signature.categories, 0)
        self._categories = [
            (position, name, {value: float(code) for code, value in enumerate(signature.categories[name])})
            for position, name in enumerate(signature.inputs)
            if name in signature.categories
        ]
        self._limits = _limits(signature)
        self._pack = struct.Struct(f"{len(signature.inputs)}f").pack

    def pack(self, values: Sequence[Any], *, bounded: bool = False) -> bytes:
        """The row's float32 values in the machine's byte order.

        values: one for each input, as in `encode`. bounded: no number can be beyond its limit, do not look.
        Raises InputNotExact.
        """
        if self._categories:
            coded = list(values)
            for position, name, codes in self._categories:
                value = coded[position]
                code = codes.get(value)
                if code is None:
                    code = _NAN
                    if value is not None:
                        self.unseen[name] += 1
                coded[position] = code
            values = coded
        if not bounded:
            for position, name, limit in self._limits:
                value = values[position]
                if value is not None and (value > limit or value < -limit):
                    raise _not_exact(name, whole=limit == EXACT_FLOAT32)
        try:
            return self._pack(*values)
        except struct.error:
            return self._pack(*(_NAN if value is None else value for value in values))

    def tensor(self, packed: Sequence[bytes]) -> NDArray[np.float32]:
        """Packed rows as float32 [n, k]; read-only."""
        data = packed[0] if len(packed) == 1 else b"".join(packed)
        return np.frombuffer(data, dtype=np.float32).reshape(len(packed), len(self.inputs))


class NamedRowEncoder:
    """Encodes rows of one signature whose inputs are named; `RowEncoder` for them."""

    def __init__(self, signature: Signature) -> None:
        self.inputs = signature.inputs
        self.unseen = dict.fromkeys(signature.categories, 0)
        self._text = [name in signature.categories for name in signature.inputs]
        self._known = [
            (position, name, frozenset(signature.categories[name]))
            for position, name in enumerate(signature.inputs)
            if name in signature.categories
        ]
        self._limits = _limits(signature)

    def pack(self, values: Sequence[Any], *, bounded: bool = False) -> tuple[Any, ...]:
        """The row's values, looked at. Raises InputNotExact."""
        for position, name, known in self._known:
            value = values[position]
            if value is not None and value not in known:
                self.unseen[name] += 1
        if not bounded:
            _check_limits(self._limits, values)
        return tuple(values)

    def tensor(self, packed: Sequence[tuple[Any, ...]]) -> NamedRows:
        """Packed rows as columns by name."""
        columns: dict[str, NDArray[Any]] = {}
        for name, text, values in zip(self.inputs, self._text, zip(*packed, strict=True), strict=True):
            if text:
                columns[name] = np.empty(len(values), dtype=object)
                columns[name][:] = values
            else:
                columns[name] = np.array([_NAN if value is None else value for value in values], dtype=np.float32)
        return NamedRows(columns)


def row_encoder(signature: Signature) -> RowEncoder | NamedRowEncoder:
    """The encoder of a signature's layout."""
    return RowEncoder(signature) if signature.layout == "packed" else NamedRowEncoder(signature)


def _limits(signature: Signature) -> list[tuple[int, str, float]]:
    return [
        (position, name, float(EXACT_FLOAT32) if name in signature.integers else _LARGEST)
        for position, name in enumerate(signature.inputs)
        if name not in signature.categories
    ]


def _check_limits(limits: Sequence[tuple[int, str, float]], values: Sequence[Any]) -> None:
    for position, name, limit in limits:
        value = values[position]
        if value is not None and (value > limit or value < -limit):
            raise _not_exact(name, whole=limit == EXACT_FLOAT32)


def _not_exact(name: str, *, whole: bool) -> InputNotExact:
    what = "an integer beyond 2^24" if whole else "an infinity or a number beyond float32"
    return InputNotExact(
        f"input '{name}' is {what}.",
        expected="The model's input is float32, which would change it.",
        state="Nothing was predicted.",
        input=name,
    )
