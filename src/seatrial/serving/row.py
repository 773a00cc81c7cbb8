"""One row as the model's input: `core.signature.encode` for a single row, without arrays in between.

The bytes are the same as `encode` makes, and what `encode` refuses is refused here; a property test compares.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import InputNotExact, Signature
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
        self._limits = [
            (position, name, float(EXACT_FLOAT32) if name in signature.integers else _LARGEST)
            for position, name in enumerate(signature.inputs)
            if name not in signature.categories
        ]
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


def _not_exact(name: str, *, whole: bool) -> InputNotExact:
    what = "an integer beyond 2^24" if whole else "an infinity or a number beyond float32"
    return InputNotExact(
        f"input '{name}' is {what}.",
        expected="The model's input is float32, which would change it.",
        state="Nothing was predicted.",
        input=name,
    )
