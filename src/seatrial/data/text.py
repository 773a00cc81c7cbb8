"""Text where numbers are wanted: which value made a column text, and what to do about it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
