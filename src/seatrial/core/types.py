"""The value types of the path, and what a model's input is made of.

float, int, bool, string, category, timestamp. JSON: a bool is no number, an int is accepted for float,
numeric strings are refused, |int| > 2^53 is refused, null only where the field is nullable.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Dtype = Literal["float", "int", "bool", "string", "category", "timestamp"]

EXACT_FLOAT32 = 2**24  # the integers that float32 holds exactly reach to here
EXACT_FLOAT64 = 2**53


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """One named, typed value of a request or of a feature.

    nullable: null is allowed; it becomes NaN, never 0.
    optional: may be absent, which then means null.
    description: for people.
    """

    name: str
    dtype: Dtype
    nullable: bool = True
    optional: bool = False
    description: str = ""
