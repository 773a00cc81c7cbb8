"""Profiles: what does a table look like, and what is otherwise than last time?

A profile is small and plain: it is kept beside each snapshot, so that the next one is compared with it without
reading a row again. `compare` needs nothing to be declared. It only tells: what must stop the line is an expectation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from seatrial.core.clock import iso, parse_time, to_us
from seatrial.core.windows import duration_text

if TYPE_CHECKING:
    import pyarrow as pa

MOST_VALUES = 50
"""Different values of a column of text up to which all of them are kept."""
LONGEST_VALUE = 200
"""Characters of a text up to which its column can be one of categories."""
HALVED, DOUBLED = 0.5, 2.0
SHRUNK = 0.9
MISSING_SIGMAS, MISSING_LEAST, MISSING_WARN = 4.0, 0.01, 0.05
NEW_WARN = 0.01
SHOWN = 5
BINS = 20


class ColumnProfile(msgspec.Struct, frozen=True):
    """One column. nulls: rows without a value, NaN counted. type: as Arrow writes it.

    low, high: of numbers, and of times as ISO 8601; None where there are none, and of every other type. Infinities are
    left out of them, and counted. values: a column of at most MOST_VALUES different texts or booleans: each, sorted,
    and its rows; else None. bins: rows in each of BINS parts of equal width from low to high; none where these are
    equal, and in profiles of versions that did not count them.
    """

    name: str
    type: str
    nulls: int = 0
    low: int | float | str | None = None
    high: int | float | str | None = None
    infinite: int = 0
    values: dict[str, int] | None = None
    bins: tuple[int, ...] = ()


class Profile(msgspec.Struct, frozen=True):
    """A table. event_timestamp: the column that says when its rows happened."""

    rows: int
    columns: tuple[ColumnProfile, ...] = ()
    event_timestamp: str | None = None
    format: int = 1


class DataNote(msgspec.Struct, frozen=True):
    """Something that is otherwise than in the snapshot before. severity: warn, or info for what is ordinary.

    about: schema, volume, freshness, nulls or categories. column: empty when it is about the table.
    """

    severity: Literal["warn", "info"]
    about: str
    column: str
    words: str


class Tables(Protocol):
    """Gives rows, or some columns of them, one table after another, as often as it is called."""

    def __call__(self, columns: Sequence[str] | None = None, /) -> Iterable[pa.Table]: ...


def profile(table: pa.Table, *, event_timestamp: str | None = None) -> Profile:
    """The profile of `table`. The same rows give the same profile, in any order and in any chunks."""
    return profile_of(lambda columns=None: [table.select(columns) if columns else table], event_timestamp)


def profile_of(tables: Tables, event_timestamp: str | None = None) -> Profile:
    """The profile of rows that come in several tables, at least one. They are read twice: for ends, then for bins."""
    rows = 0
    columns: list[ColumnProfile] = []
    for table in tables():
        rows += table.num_rows
        found = [_column(name, table[name]) for name in table.column_names]
        columns = [_merged(a, b) for a, b in zip(columns, found, strict=True)] if columns else found
    spread = {column.name: ends for column in columns if (ends := _spread(column))}
    counts = {name: [0] * BINS for name in spread}
    for table in tables(list(spread)) if spread else ():
        for name, (low, high) in spread.items():
            counts[name] = [a + b for a, b in zip(counts[name], _bins(table[name], low, high), strict=True)]
    columns = [
        msgspec.structs.replace(column, bins=tuple(counts[column.name])) if column.name in counts else column
        for column in columns
    ]
    return Profile(rows, tuple(columns), event_timestamp)


def _merged(a: ColumnProfile, b: ColumnProfile) -> ColumnProfile:
    """The profile of a column whose rows are those of two parts."""
    values: dict[str, int] | None = None
    if a.values is not None and b.values is not None:
        both = {value: a.values.get(value, 0) + b.values.get(value, 0) for value in sorted({*a.values, *b.values})}
        values = both if len(both) <= MOST_VALUES else None
    lows = [one.low for one in (a, b) if one.low is not None]
    highs = [one.high for one in (a, b) if one.high is not None]
    return ColumnProfile(
        a.name,
        a.type,
        a.nulls + b.nulls,
        min(lows, key=_comparable, default=None),
        max(highs, key=_comparable, default=None),
        a.infinite + b.infinite,
        values,
    )


def _comparable(end: float | str) -> Any:
    return parse_time(end) if isinstance(end, str) else end


def _spread(column: ColumnProfile) -> tuple[float, float] | None:
    """The ends of a column as floats, times in microseconds; None when nothing lies between them."""
    if column.low is None or column.high is None or not _comparable(column.low) < _comparable(column.high):
        return None
    low, high = (to_us(parse_time(one)) if isinstance(one, str) else one for one in (column.low, column.high))
    try:
        low, high = float(low), float(high)
    except OverflowError:
        return None
    return (low, high) if math.isfinite(high - low) and low < high else None


def _bins(column: pa.ChunkedArray, low: float, high: float) -> list[int]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = _plain(column)
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz="UTC"), safe=False).cast(pa.int64())
    values = pc.drop_null(column).to_numpy().astype(np.float64)
    values = values[np.isfinite(values)]
    places = np.minimum(((values - low) / (high - low) * BINS).astype(np.int64), BINS - 1)
    counted: list[int] = np.bincount(places, minlength=BINS).tolist()
    return counted


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without its dictionary, and half floats as floats."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.float32()) if pa.types.is_float16(column.type) else column


def compare(before: Profile, after: Profile) -> list[DataNote]:
    """What is otherwise in `after`, warnings first. Nothing is declared for it, and nothing hangs on it."""
    notes = [*_schema(before, after), *_volume(before, after), *_freshness(before, after)]
    old = {column.name: column for column in before.columns}
    for column in after.columns:
        if column.name in old and old[column.name].type == column.type:
            notes += _nulls(old[column.name], column, before.rows, after.rows)
            notes += _categories(old[column.name], column, after.rows)
    return sorted(notes, key=lambda note: note.severity != "warn")


def _column(name: str, column: pa.ChunkedArray) -> ColumnProfile:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, types = column.type, pa.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    column = _plain(column)
    if types.is_floating(kind):
        present = column.filter(pc.fill_null(pc.invert(pc.is_nan(column)), False))
        finite = present.filter(pc.is_finite(present))
        low, high = _ends(finite)
        return ColumnProfile(name, str(kind), len(column) - len(present), low, high, len(present) - len(finite))
    if types.is_integer(kind):
        return ColumnProfile(name, str(kind), column.null_count, *_ends(column))
    if types.is_timestamp(kind) and kind.tz is not None:
        low, high = _ends(column.cast(pa.timestamp("us", tz="UTC"), safe=False))
        return ColumnProfile(name, str(kind), column.null_count, low and iso(low), high and iso(high))
    if types.is_boolean(kind) or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        column = column.cast(pa.string())
        return ColumnProfile(name, str(kind), column.null_count, values=_values(column))
    return ColumnProfile(name, str(kind), column.null_count)


def _ends(column: pa.ChunkedArray) -> tuple[Any, Any]:
    import pyarrow.compute as pc

    ends = pc.min_max(column).as_py()
    return ends["min"], ends["max"]


def _values(column: pa.ChunkedArray) -> dict[str, int] | None:
    """Each text and its rows, sorted by text; None when there are too many or one is too long for a category."""
    import pyarrow.compute as pc

    first = column.slice(0, 10_000)  # most columns of free text show themselves here
    if pc.count_distinct(first, mode="only_valid").as_py() > MOST_VALUES:
        return None
    counted = pc.value_counts(column.drop_null())
    if len(counted) > MOST_VALUES:
        return None
    found = {one["values"]: one["counts"] for one in counted.to_pylist()}
    if any(len(value) > LONGEST_VALUE for value in found):
        return None
    return dict(sorted(found.items()))


# What is otherwise


def _schema(before: Profile, after: Profile) -> list[DataNote]:
    old = {column.name: column.type for column in before.columns}
    new = {column.name: column.type for column in after.columns}
    notes = [DataNote("warn", "schema", name, f"column {name} is gone") for name in old if name not in new]
    notes += [
        DataNote("warn", "schema", name, f"column {name} is {new[name]}, it was {old[name]}")
        for name in old
        if name in new and old[name] != new[name]
    ]
    return notes + [DataNote("info", "schema", name, f"column {name} is new") for name in new if name not in old]


def _volume(before: Profile, after: Profile) -> list[DataNote]:
    if not before.rows:
        return []
    ratio = after.rows / before.rows
    words = f"{after.rows:,} rows, {before.rows:,} before"
    if ratio < HALVED or ratio > DOUBLED:
        return [DataNote("warn", "volume", "", words)]
    return [DataNote("info", "volume", "", words)] if ratio < SHRUNK else []


def _freshness(before: Profile, after: Profile) -> list[DataNote]:
    name = after.event_timestamp
    if name is None or before.event_timestamp != name:
        return []
    old, new = (next((c.high for c in one.columns if c.name == name), None) for one in (before, after))
    if not isinstance(old, str) or not isinstance(new, str):
        return []
    if parse_time(new) < parse_time(old):
        back = duration_text(max(1, round((parse_time(old) - parse_time(new)).total_seconds())) * 1_000_000)
        return [DataNote("warn", "freshness", name, f"the newest {name} is {new}, {back} before the last one's")]
    if new == old:
        return [DataNote("info", "freshness", name, f"the newest {name} is still {new}")]
    return []


def _nulls(old: ColumnProfile, new: ColumnProfile, rows_old: int, rows_new: int) -> list[DataNote]:
    """A share of missing values that moved by more than chance (two shares, 4 standard errors) and by a per cent."""
    if not rows_old or not rows_new:
        return []
    was, now = old.nulls / rows_old, new.nulls / rows_new
    pooled = (old.nulls + new.nulls) / (rows_old + rows_new)
    error = math.sqrt(pooled * (1 - pooled) * (1 / rows_old + 1 / rows_new))
    if abs(now - was) < max(MISSING_LEAST, MISSING_SIGMAS * error):
        return []
    words = f"{_percent(now)} of {new.name} is missing, it was {_percent(was)}"
    severe = now - was >= MISSING_WARN or now == 1
    return [DataNote("warn" if severe else "info", "nulls", new.name, words)]


def _categories(old: ColumnProfile, new: ColumnProfile, rows: int) -> list[DataNote]:
    if old.values is None or not old.values:
        return []
    if new.values is None:
        words = f"{new.name} has more than {MOST_VALUES} different values, it had {len(old.values)}"
        return [DataNote("warn", "categories", new.name, words)]
    notes = []
    unseen = {value: count for value, count in new.values.items() if value not in old.values}
    if unseen:
        share = sum(unseen.values()) / rows
        words = f"{new.name} has {_some(unseen)} for the first time, in {_percent(share)} of the rows"
        notes.append(DataNote("warn" if share >= NEW_WARN else "info", "categories", new.name, words))
    gone = {value: count for value, count in old.values.items() if value not in new.values}
    if gone and new.values:
        notes.append(DataNote("info", "categories", new.name, f"{new.name} no longer has {_some(gone)}"))
    return notes


def _some(values: dict[str, int]) -> str:
    """The most frequent of them, and how many more."""
    first = sorted(values, key=lambda value: (-values[value], value))[:SHOWN]
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(repr(value) for value in first) + more


def _percent(share: float) -> str:
    if share in (0, 1):
        return f"{share:.0%}"
    return "less than 0.1%" if share < 0.001 else "more than 99.9%" if share > 0.999 else f"{share:.1%}"
