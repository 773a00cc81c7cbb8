"""Look-up: a request's fields become a model's columns, in one round trip to the online store.

For each view the entity's packed row is read, for all views in one statement; then the request-time functions
are computed. The same `assemble` serves one request and, row by row, many.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.features.packed import Looked, ViewReader
from seatrial.features.plan import FeaturePlan
from seatrial.features.request_time import evaluate, load
from seatrial.stores.online import OnlineStore

Functions = list[tuple[str, tuple[str, ...], Callable[..., Any]]]


@dataclass(frozen=True)
class Assembled:
    """One row of columns, and per view what its look-up found."""

    columns: dict[str, Any]
    views: dict[str, Looked]


def entity_key(values: Sequence[Any]) -> bytes:
    """The canonical bytes of an entity's key values: equal for equal values of one type."""
    return msgspec.msgpack.encode(list(values))


class Lookup:
    """Follows one feature plan against one store. A plan without views needs no store."""

    def __init__(self, plan: FeaturePlan, store: OnlineStore | None) -> None:
        self._views = [
            (view, ViewReader(view), [(feature, f"{view.name}__{feature}") for feature in view.features])
            for view in plan.views
        ]
        self._functions = load_functions(plan)
        self._store = store

    def assemble(self, fields: Mapping[str, Any], at_us: int) -> Assembled:
        """The row's columns: every field, then every feature; null is None.

        fields: the request's fields, already checked against the signature; a null entity key finds nothing.
        """
        columns: dict[str, Any] = dict(fields)
        views: dict[str, Looked] = {}
        if self._views and self._store is not None:
            # a null in a key finds nothing: no event has one
            keys = [(view.digest, entity_key([fields.get(key) for key in view.keys])) for view, _, _ in self._views]
            for (view, reader, named), packed in zip(self._views, self._store.get(keys), strict=True):
                looked = reader.look(packed, at_us)
                views[view.name] = looked
                for feature, column in named:
                    columns[column] = looked.values[feature]
        for name, args, function in self._functions:
            value = float(evaluate(function, [_one(columns.get(arg)) for arg in args])[0])
            columns[name] = None if value != value else value
        return Assembled(columns, views)


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
