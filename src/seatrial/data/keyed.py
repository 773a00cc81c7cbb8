"""Differences by key: which rows came, which went, and what changed in those that stayed?

Rows of two tables are the same row when they are equal in the key, wherever they stand. The key must name each row
once; cells are compared by the equality of the content hash (null equals null, NaN equals NaN, -0.0 equals 0.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seatrial.core.errors import Failed, SeatrialError, UsageError, counted, did_you_mean, listed
from seatrial.data.session import ROW, session, with_row_numbers
from seatrial.data.snapshot import BLOCK_ROWS, EXAMPLES, differing, plain
from seatrial.data.text import cell

if TYPE_CHECKING:
    import pyarrow as pa


class KeyUnknown(UsageError):
    """A key names a column that a snapshot does not have, or has with another type."""

    code = "data.key_unknown"


class KeyNotUnique(Failed):
    """A key does not name each row once."""

    code = "data.key_not_unique"


@dataclass(frozen=True)
class KeyedChange:
    """A column whose values differ in rows that both have. examples: (key, before, after) of the first."""

    name: str
    cells: int
    examples: tuple[tuple[Mapping[str, Any], Any, Any], ...] = ()


@dataclass(frozen=True)
class KeyedDiff:
    """Rows compared by `key`. added, removed, changed: how many; unchanged rows have no difference in common columns.

    came, went: the keys of the first rows that were added and removed.
    """

    key: tuple[str, ...]
    added: int
    removed: int
    changed: int
    unchanged: int
    columns: tuple[KeyedChange, ...] = ()
    came: tuple[Mapping[str, Any], ...] = ()
    went: tuple[Mapping[str, Any], ...] = ()

    def lines(self) -> list[str]:
        """The difference in words."""
        lines = [
            f"by {', '.join(self.key)}: {counted(self.added, 'row')} added, {self.removed:,} removed, "
            f"{self.changed:,} changed, {self.unchanged:,} unchanged"
        ]
        for column in self.columns:
            lines.append(f"changed: {column.name}, in {counted(column.cells, 'row')}")
            lines += [f"  {key_text(key)}: {cell(before)} -> {cell(after)}" for key, before, after in column.examples]
        lines += [f"added: {key_text(key)}" for key in self.came]
        return lines + [f"removed: {key_text(key)}" for key in self.went]

    def as_plain(self) -> dict[str, Any]:
        """The difference as plain values for JSON; keys and cells as text."""
        return {
            "key": list(self.key),
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "columns": [
                {
                    "name": column.name,
                    "cells": column.cells,
                    "examples": [
                        {"key": key_text(key), "before": cell(old), "after": cell(new)}
                        for key, old, new in column.examples
                    ],
                }
                for column in self.columns
            ],
            "came": [key_text(key) for key in self.came],
            "went": [key_text(key) for key in self.went],
        }


def key_text(key: Mapping[str, Any]) -> str:
    """The values of a key in one line."""
    return ", ".join(f"{name}={value}" for name, value in key.items())


def by_key(before: pa.Table, after: pa.Table, key: Sequence[str]) -> KeyedDiff:
    """What became of the rows of `before`. Raises KeyUnknown, KeyNotUnique."""
    import numpy as np
    import pyarrow.compute as pc

    key = tuple(dict.fromkeys(key))
    _check(before, after, key)
    names = [f"k{position}" for position in range(len(key))]
    equal = " AND ".join(f"a.{name} = b.{name}" for name in names)
    sides = {side: _numbered(rows, key, names) for side, rows in (("a", before), ("b", after))}
    with session(sides) as connection:
        joined = connection.sql(
            f"SELECT a.{ROW} AS old, b.{ROW} AS new FROM a FULL OUTER JOIN b ON {equal}"
        ).to_arrow_table()
    old, new = joined["old"], joined["new"]
    went = np.sort(old.filter(new.is_null()).to_numpy())
    came = np.sort(new.filter(old.is_null()).to_numpy())
    both = joined.filter(pc.and_(old.is_valid(), new.is_valid())).sort_by("new")
    changed = np.zeros(both.num_rows, dtype=bool)
    columns = []
    for name in before.column_names:
        if name in key or name not in after.column_names or before[name].type != after[name].type:
            continue
        cells = _cells(before[name], after[name], both)
        changed[cells] = True
        if len(cells):
            examples = tuple(
                (
                    _key(after, key, both["new"][at].as_py()),
                    before[name][both["old"][at].as_py()].as_py(),
                    after[name][both["new"][at].as_py()].as_py(),
                )
                for at in cells[:EXAMPLES].tolist()
            )
            columns.append(KeyedChange(name, len(cells), examples))
    return KeyedDiff(
        key,
        added=len(came),
        removed=len(went),
        changed=int(changed.sum()),
        unchanged=int((~changed).sum()),
        columns=tuple(columns),
        came=tuple(_key(after, key, row) for row in came[:EXAMPLES].tolist()),
        went=tuple(_key(before, key, row) for row in went[:EXAMPLES].tolist()),
    )


def by_first_key(before: pa.Table, after: pa.Table, keys: Iterable[Sequence[str]]) -> KeyedDiff | None:
    """What became of the rows by the first of these keys that names each row of both once; None when none does."""
    for key in keys:
        with suppress(SeatrialError):
            return by_key(before, after, key)
    return None


def _check(before: pa.Table, after: pa.Table, key: Sequence[str]) -> None:
    from seatrial.data.expectations import Unique

    for name in key:
        for rows in (before, after):
            if name not in rows.column_names:
                raise KeyUnknown(
                    f"a snapshot has no column '{name}', which is to be the key.",
                    expected=f"It has {listed(rows.column_names)}. {did_you_mean(name, rows.column_names)}".strip(),
                    column=name,
                )
        if before[name].type != after[name].type:
            raise KeyUnknown(
                f"the key '{name}' is {before[name].type} in one snapshot and {after[name].type} in the other.",
                expected="A key of one type in both is expected.",
                column=name,
            )
    for which, rows in (("first", before), ("second", after)):
        nulls = next((name for name in key if rows[name].null_count), "")
        again = [] if nulls else Unique(tuple(key)).failing(rows, {})
        if nulls or again:
            why = (
                f"{nulls} has no value in {rows[nulls].null_count:,} rows"
                if nulls
                else f"{len(again):,} rows repeat it"
            )
            raise KeyNotUnique(
                f"{', '.join(key)} does not name each row of the {which} snapshot once: {why}.",
                expected="A key that is there in every row, and in no two rows the same, is expected.",
                next="Name more columns with --key, or leave it out to compare row by row.",
                key=list(key),
            )


def _numbered(rows: pa.Table, key: Sequence[str], names: Sequence[str]) -> pa.Table:
    return with_row_numbers(rows.select(list(key)).rename_columns(list(names)))


def _cells(before: pa.ChunkedArray, after: pa.ChunkedArray, both: pa.Table) -> Any:
    """Positions in `both` at which the column differs, ascending; int64."""
    import numpy as np

    found = []
    for start in range(0, both.num_rows, BLOCK_ROWS):
        part = both.slice(start, BLOCK_ROWS)
        old, new = plain(before.take(part["old"])), plain(after.take(part["new"]))
        found.append(np.asarray(differing(old, new), dtype=np.int64) + start)
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _key(rows: pa.Table, key: Sequence[str], row: int) -> dict[str, Any]:
    return {name: rows[name][row].as_py() for name in key}
