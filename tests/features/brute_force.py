"""The rules of the point-in-time join, written as loops: what every faster way must agree with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seatrial.features.definitions import FeatureView

Row = Mapping[str, Any]


def features(view: FeatureView, rows: Sequence[Row], keys: Mapping[str, Any], at_us: int) -> dict[str, Any]:
    """The view's features for one entity at one instant. rows: `event`, `known` in microseconds, columns, event key."""
    source = view.source
    mine = [row for row in rows if all(row[k] is not None and row[k] == keys[k] for k in view.entity.keys)]
    known = [row for row in mine if row["known"] is not None and row["known"] <= at_us]
    values: dict[str, Any] = {}
    for name, a in view.features.items():
        if a.window_us is None:
            values[name] = _last(view, a, [row for row in known if row["event"] <= at_us], at_us)
            continue
        newest: dict[Any, Row] = {}
        for position, row in enumerate(sorted(known, key=lambda r: _version(view, r))):
            event_key = tuple(row[k] for k in source.event_key) or position
            newest[event_key] = row
        inside = [row for row in newest.values() if at_us - a.window_us < row["event"] <= at_us]
        values[name] = _windowed(a, inside)
    return values


def _last(view: FeatureView, a: Any, rows: Sequence[Row], at_us: int) -> Any:
    columns = [b.column for b in view.last_value.values() if b.column]

    def order(row: Row) -> tuple[Any, ...]:
        content = [row[k] for k in view.source.event_key] + [row[c] for c in sorted(set(columns))]
        return (row["event"], row["known"], *((value is not None, value) for value in content))

    best = max(rows, key=order, default=None)
    if best is None or (view.ttl_us is not None and at_us - best["event"] > view.ttl_us):
        return None
    return best[a.column] if a.function == "last" else (at_us - best["event"]) / a.unit_us


def _version(view: FeatureView, row: Row) -> tuple[Any, ...]:
    columns = sorted({a.column for a in view.windowed.values() if a.column})
    content = [(row[c] is not None, 0 if row[c] is None else round(row[c] * 10**6)) for c in columns]
    return (row["known"], row["event"], *content)


def _windowed(a: Any, rows: Sequence[Row]) -> Any:
    if a.column is None:
        return float(len(rows))
    fixed = [round(row[a.column] * a.scale) for row in rows if row[a.column] is not None]
    if a.function == "count":
        return float(len(fixed))
    if not fixed:
        return None
    total = sum(fixed)
    value = total / (a.scale if a.function == "sum" else a.scale * len(fixed))
    assert math.isfinite(value)
    return value
