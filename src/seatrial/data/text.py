"""Text: which value made a column text where numbers are wanted, and how is a value written for people?"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import iso

if TYPE_CHECKING:
    import pyarrow as pa


def why_text(column: pa.ChunkedArray) -> str:
    """One sentence with the first value that is no number, and its row from 0; empty for a column that is not text."""
    import pyarrow as pa

    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return ""
    for row, value in enumerate(column.to_pylist()):
        if value is not None and not _is_number(value):
            return (
                f"Row {row} (counted from 0) has {value!r}: if it stands for a missing value, list it in nulls= of the "
                "CsvSource."
            )
    return "All of its values are numbers written as text: cast it in a QuerySource."


def cell(value: Any) -> str:
    """A value of a table: times with a zone as ISO 8601 in UTC, text in quotes.

    >>> cell("a"), cell(None), cell(date(2024, 3, 1))
    ("'a'", 'None', '2024-03-01')
    """
    if isinstance(value, datetime) and value.tzinfo is not None:
        return iso(value)
    return str(value) if isinstance(value, date | time | timedelta | Decimal) else repr(value)  # a datetime is a date


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
