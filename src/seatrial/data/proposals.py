"""Proposals: which expectations would fit these rows? As code, for people to read, cut and correct.

What is proposed holds for the very rows that it was made from, and the same rows give the same code. Bounds of numbers
leave a tenth of their span on both sides; what was seen stands beside each line, because a profile knows what is, not
what should be.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from seatrial.data.profile import ColumnProfile, profile

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.sources import Source

MOST_ONE_OF = 20
MARGIN = 0.1
SEEN_OFTEN = 5  # a column is one of categories when each is seen so often on average
SMALLEST, LARGEST = -(2**63), 2**63 - 1  # bounds that can be compared
INDENT = "        "


class Proposed(msgspec.Struct, frozen=True):
    """Expectations for one source, as Python that goes into its declaration. rows: that it was made from."""

    source: str
    rows: int
    code: str


def propose(source: Source, table: pa.Table) -> Proposed:
    """Expectations that hold for `table`, the rows of `source` as read."""
    seen = profile(table, event_timestamp=source.event_timestamp)
    lines = [(f"expect.rows(at_least={table.num_rows // 2})", f"{table.num_rows:,} rows were seen")]
    lines.append(("expect.volume(at_least=0.5, at_most=2)", "against the last snapshot"))
    typed = {column.name: dtype for column in seen.columns if (dtype := _dtype(table[column.name].type))}
    if typed:
        words = ", ".join(f"{_text(name)}: {_text(dtype)}" for name, dtype in typed.items())
        lines.append((f"expect.columns({{{words}}})", f"{len(typed)} of {len(seen.columns)} columns"))
    key = _key(source, table)
    if key:
        lines.append((f"expect.unique([{', '.join(_text(name) for name in key)}])", "no two rows were equal in it"))
    for column in seen.columns:
        grows = column.name in key and isinstance(column.low, int)  # a number that tells rows apart has no bounds
        lines += [line for line in _of_column(column, table) if not (grows and "between" in line[0])]
    code = [f"    expectations=[  # of source {_one_line(source.name)}, proposed from {table.num_rows:,} rows"]
    code += [f"{INDENT}{line},  # {_one_line(words)}" for line, words in lines]
    time = next((c for c in seen.columns if c.name == source.event_timestamp and c.high), None)
    if time is not None:
        code.append(f'{INDENT}# expect.fresh({_text(time.name)}, "7d"),  # the newest was {time.high}')
    return Proposed(source.name, table.num_rows, "\n".join([*code, "    ],"]) + "\n")


def _of_column(column: ColumnProfile, table: pa.Table) -> list[tuple[str, str]]:
    import pyarrow.compute as pc

    name, rows = _text(column.name), table.num_rows
    lines = []
    if column.nulls == rows:
        return [(f"# expect.not_null({name})", "no row has a value")]
    if not column.nulls:
        lines.append((f"expect.not_null({name})", "none was missing"))
    else:
        share = column.nulls / rows
        allowed = min(1.0, math.ceil((share * 1.5 + 0.005) * 100) / 100)
        lines.append((f"expect.not_null({name}, at_most={allowed})", f"{column.nulls:,} were missing, {share:.2%}"))
    if column.infinite:
        lines.append((f"# expect.between({name}, ...)", f"{column.infinite:,} values are infinite"))
    elif isinstance(column.high, int) and column.high > LARGEST:
        lines.append(
            (f"# expect.between({name}, ...)", f"seen: {column.low!r} to {column.high!r}, too large for bounds")
        )
    elif isinstance(column.low, int | float) and isinstance(column.high, int | float):
        distinct = pc.count_distinct(table[column.name], mode="only_valid").as_py()
        if column.low == 0 and column.high == 1 and distinct == 2:
            lines.append((f"expect.one_of({name}, [0, 1])", "both were seen"))
        else:
            low, high = _around(column.low, column.high)
            lines.append((f"expect.between({name}, {low!r}, {high!r})", f"seen: {column.low!r} to {column.high!r}"))
    if column.values and column.type != "bool":
        present = rows - column.nulls
        if len(column.values) <= MOST_ONE_OF and present >= SEEN_OFTEN * len(column.values):
            words = ", ".join(_text(value) for value in column.values)
            most = max(column.values, key=lambda value: column.values[value])  # type: ignore[index]
            seen = f"most often {_text(most)}, {column.values[most] / present:.1%}"
            lines.append((f"expect.one_of({name}, [{words}])", seen))
    return lines


def _around(low: float, high: float) -> tuple[float, float]:
    """Bounds a tenth of the span further out, in one digit of it; what is never negative stays so."""
    if isinstance(low, int) and isinstance(high, int):
        return _around_whole(low, high)
    span = high - low
    margin = span * MARGIN if span else max(abs(high) * MARGIN, 1e-9)
    step = 10.0 ** math.floor(math.log10(margin)) if math.isfinite(margin) and margin else 0.0
    if not step or not math.isfinite((abs(low) + abs(high) + 2 * margin) / step):
        return low, high
    digits = max(0, -math.floor(math.log10(step)))
    below = round(math.floor((low - margin) / step) * step, digits)
    above = round(math.ceil((high + margin) / step) * step, digits)
    if low >= 0 > below:
        below = 0.0
    outside = math.isfinite(below) and math.isfinite(above) and below <= low and above >= high
    return (below, above) if outside else (low, high)


def _around_whole(low: int, high: int) -> tuple[int, int]:
    margin = -(-(high - low) // 10) or max(1, abs(high) // 10)
    step = 10 ** max(0, len(str(margin)) - 1)
    below, above = (low - margin) // step * step, -(-(high + margin) // step) * step
    return 0 if low >= 0 > below else max(below, SMALLEST), min(above, LARGEST)


def _key(source: Source, table: pa.Table) -> Sequence[str]:
    """The event key where it names each row once, else the first column that does; empty when none does."""
    from seatrial.data.expectations import Unique

    if source.event_key and not Unique(tuple(source.event_key)).failing(table, {}):
        return list(source.event_key)
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in table.column_names:
        kind = table[name].type
        plain = pa.types.is_integer(kind) or pa.types.is_string(kind)
        whole = plain and table.num_rows > 1 and not table[name].null_count
        if whole and pc.count_distinct(table[name]).as_py() == table.num_rows:
            return [name]
    return []


def _dtype(kind: pa.DataType) -> str:
    """The type's word in `expect.columns`; empty when there is none."""
    import pyarrow as pa

    types = pa.types
    if types.is_boolean(kind):
        return "bool"
    if types.is_integer(kind):
        return "int"
    if types.is_floating(kind) or types.is_decimal(kind):
        return "float"
    if types.is_timestamp(kind):
        return "timestamp"
    return "string" if types.is_string(kind) or types.is_large_string(kind) else ""


def _text(text: str) -> str:
    """A Python literal in double quotes, on one line."""
    shown = json.dumps(text, ensure_ascii=not text.isprintable())
    return shown if "\\u" not in shown else repr(text)


def _one_line(words: str) -> str:
    """Words that end no comment."""
    return re.sub(r"[^\x20-\x7e\xa0-\uffff]|[\u2028\u2029\x85]", "?", words)
