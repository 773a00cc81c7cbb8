"""Look-up: a request's fields become a model's columns, in one round trip to the online store.

For each view the entity's packed row is read, for all views in one statement; then the request-time functions
are computed. An entity of very many events has most of them in tiles, which are rows of their own: those in which a
window begins are read in the same statement, unless the entity is seen for the first time or they just changed. The
same `assemble` serves one request and, row by row, many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Unavailable
from seatrial.features.packed import Looked, ViewReader
from seatrial.features.plan import FeaturePlan
from seatrial.features.request_time import evaluate, load
from seatrial.features.tiles import tile_key
from seatrial.stores.online import Key

MOST_READS = 5  # of one look-up: the first, one for tiles it did not expect, and a few when writers come between

Functions = list[tuple[str, tuple[str, ...], Callable[..., Any]]]


class RowsKeptMoving(Unavailable):
    """An entity's online rows changed again and again while they were read."""

    code = "online.rows_kept_moving"


class Assembled(msgspec.Struct, frozen=True):
    """One row of columns, and per view what its look-up found."""

    columns: dict[str, Any]
    views: dict[str, Looked]


def entity_key(values: Sequence[Any]) -> bytes:
    """The canonical bytes of an entity's key values: equal for equal values of one type."""
    return msgspec.msgpack.encode([value + 0.0 if type(value) is float else value for value in values])  # no -0.0


class Readable(Protocol):
    """What a look-up wants of an online store, see `stores.online.OnlineStore`."""

    def get(self, keys: Sequence[Key]) -> list[bytes | None]: ...


class Lookup:
    """Follows one feature plan against one store. A plan without views needs no store."""

    def __init__(self, plan: FeaturePlan, store: Readable | None) -> None:
        self._views = [
            (view, ViewReader(view), [f"{view.name}__{feature}" for feature in view.features]) for view in plan.views
        ]
        self._readers = [reader for _, reader, _ in self._views]
        self._functions = load_functions(plan)
        self._store = store

    def assemble(self, fields: Mapping[str, Any], at_us: int) -> Assembled:
        """The row's columns: every field, then every feature; null is None.

        fields: the request's fields, already checked against the signature; a null entity key finds nothing.
        """
        return self.assemble_many([fields], at_us)[0]

    def assemble_many(self, rows: Sequence[Mapping[str, Any]], at_us: int) -> list[Assembled]:
        """The columns of several rows of one instant, all of them looked up in one round trip."""
        found: Iterator[Looked] = iter(())
        if self._views and self._store is not None:
            found = iter(self._look(self._store, self._readers * len(rows), self.keys(rows), at_us))
        return [self._assembled(fields, found) for fields in rows]

    def keys(self, rows: Sequence[Mapping[str, Any]]) -> list[Key]:
        """What each view is asked for of each row. A null in a key finds nothing: no event has one."""
        return [
            (view.digest, entity_key([fields.get(key) for key in view.keys]))
            for fields in rows
            for view, _, _ in self._views
        ]

    def _assembled(self, fields: Mapping[str, Any], found: Iterator[Looked]) -> Assembled:
        columns: dict[str, Any] = dict(fields)
        views: dict[str, Looked] = {}
        for (view, _, named), looked in zip(self._views, found, strict=False):
            views[view.name] = looked
            columns.update(zip(named, looked.values.values(), strict=True))  # both in the plan's order
        for name, args, function in self._functions:
            value = float(evaluate(function, [_one(columns.get(arg)) for arg in args])[0])
            columns[name] = None if value != value else value
        return Assembled(columns, views)

    def _look(self, store: Readable, readers: Sequence[ViewReader], main: Sequence[Key], at_us: int) -> list[Looked]:
        """What each view says of its entity. A row and its tiles are read in one statement, so that they fit."""
        entities = [entity for _, entity in main]
        asked = [reader.likely_tiles(entity, at_us) for reader, entity in zip(readers, entities, strict=True)]
        if not any(asked):  # as nearly always
            looks, asked = [], []
            for reader, entity, packed_row in zip(readers, entities, store.get(main), strict=True):
                row, needed = reader.read(entity, packed_row, at_us)
                asked.append(needed)
                if not needed:
                    looks.append(reader.look(row, at_us))
            if len(looks) == len(main):
                return looks
        for _ in range(MOST_READS):
            keys = [tile_key(key, number) for key, numbers in zip(main, asked, strict=True) for number in numbers]
            packed = store.get([*main, *keys])
            found = [one.read(key, row, at_us) for one, key, row in zip(readers, entities, packed, strict=False)]
            if all(set(needed) <= set(numbers) for (_, needed), numbers in zip(found, asked, strict=True)):
                rest = iter(packed[len(main) :])
                tiles = [{number: next(rest) for number in numbers} for numbers in asked]
                return [
                    reader.look(row, at_us, mine) for reader, (row, _), mine in zip(readers, found, tiles, strict=True)
                ]
            asked = [needed for _, needed in found]
        raise RowsKeptMoving(
            f"the online rows were written anew between each of {MOST_READS} reads.",
            state="Nothing was predicted.",
            next="Try again; if it stays so, push in larger batches.",
        )


def load_functions(plan: FeaturePlan) -> Functions:
    """The plan's request-time functions, checked and ready: (name, arguments, function), in order."""
    return [(function.name, function.args, load(function.name, function.source)) for function in plan.functions]


def compute(functions: Functions, columns: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The functions' columns for n rows at once. columns: every argument as float64 [n], null as NaN."""
    made: dict[str, NDArray[np.float64]] = {}
    for name, args, function in functions:
        made[name] = evaluate(function, [made[arg] if arg in made else columns[arg] for arg in args])
    return made


def _one(value: Any) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value], dtype=np.float64)
