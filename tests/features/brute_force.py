"""The rules of the point-in-time join, written as loops: what every faster way must agree with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import msgspec

from seatrial.features.definitions import FeatureView
from seatrial.features.plan import plan_view

Row = Mapping[str, Any]


def features(view: FeatureView, rows: Sequence[Row], keys: Mapping[str, Any], at_us: int) -> dict[str, Any]:
    """The view's features for one entity at one instant. rows: `event`, `known` in microseconds, columns, event key."""
    source = view.source
    mine = [row for row in rows if all(row[k] is not None and row[k] == keys[k] for k in view.entity.keys)]
    known = [row for row in mine if row["known"] is not None and row["known"] <= at_us]
    values: dict[str, Any] = {}
    for name, a in view.features.items():
        if a.function in ("last", "age"):
            values[name] = _last(view, a, [row for row in known if row["event"] <= at_us], at_us)
            continue
        newest: dict[Any, Row] = {}
        for position, row in enumerate(sorted(known, key=lambda r: _version(view, r))):
            event_key = tuple(row[k] for k in source.event_key) or position
            newest[event_key] = row
        inside = [row for row in newest.values() if at_us - a.window_us < row["event"] <= at_us]
        values[name] = _windowed(a, inside)
    return values


def latest_event(view: FeatureView, rows: Sequence[Row], keys: Mapping[str, Any], at_us: int) -> int | None:
    """The time of the latest row that counts for any feature of the view."""
    mine = [row for row in rows if all(row[k] is not None and row[k] == keys[k] for k in view.entity.keys)]
    known = [row for row in mine if row["known"] is not None and row["known"] <= at_us]
    times = []
    for a in view.features.values():
        if a.function in ("last", "age"):
            newest = max((row["event"] for row in known if row["event"] <= at_us), default=None)
            oldest = None if a.window_us is None and view.ttl_us is None else at_us - (view.ttl_us or 0)
            oldest = oldest if a.window_us is None else at_us - a.window_us + 1
            times += [newest] if newest is not None and (oldest is None or newest >= oldest) else []
        else:
            versions = {}
            for position, row in enumerate(sorted(known, key=lambda r: _version(view, r))):
                versions[tuple(row[k] for k in view.source.event_key) or position] = row
            times += [row["event"] for row in versions.values() if at_us - a.window_us < row["event"] <= at_us]
    return max(times, default=None)


def _value(a: Any, row: Row) -> Any:
    """What the feature reads of a row; the one expression of the tests is written out."""
    if not a.sql:
        return row[a.column]
    assert a.column == "delay * 2 - flight"
    return None if row["delay"] is None else row["delay"] * 2 - row["flight"]


def _last(view: FeatureView, a: Any, rows: Sequence[Row], at_us: int) -> Any:
    read = {
        (("sql(" + b.column + ")") if b.sql else b.column): b for b in view.features.values() if b.function == "last"
    }

    def order(row: Row) -> tuple[Any, ...]:
        content = [row[k] for k in view.source.event_key] + [_value(read[name], row) for name in sorted(read)]
        content = [msgspec.msgpack.encode(one) if isinstance(one, list) else one for one in content]
        return (row["event"], row["known"], *((value is not None, value) for value in content))

    best = max(rows, key=order, default=None)
    if best is None:
        return None
    old = at_us - best["event"]
    if (a.window_us is None and view.ttl_us is not None and old > view.ttl_us) or (
        a.window_us is not None and old >= a.window_us
    ):
        return None
    return _value(a, best) if a.function == "last" else old / a.unit_us


def _version(view: FeatureView, row: Row) -> tuple[Any, ...]:
    """Which version of an event comes later: by known time, event time, then every integer that is kept, null first."""
    kept = []
    for tail in plan_view(view).tail_columns:
        a = next(one for one in view.features.values() if tail.reads in (one.column, f"sql({one.column})"))
        value = _value(a, row)
        if value is None:
            kept.append((False, 0))
        elif tail.kind == "distinct" and isinstance(value, str):
            kept.append((True, _text_hash(value)))
        else:
            kept.append(
                (
                    True,
                    {"sum": round(value * tail.scale) if tail.kind == "sum" else 0, "count": 0}.get(tail.kind, value),
                )
            )
    return (row["known"], row["event"], *kept)


def _windowed(a: Any, rows: Sequence[Row]) -> Any:
    if a.column is None:
        return float(len(rows))
    values = [value for value in (_value(a, row) for row in rows) if value is not None]
    if a.function == "count":
        return float(len(values))
    if a.function == "count_distinct":
        return float(len(set(values)))
    if a.function in ("min", "max"):
        return float((min if a.function == "min" else max)(values)) if values else None
    fixed = [round(value * a.scale) for value in values]
    if a.function == "std":
        if len(fixed) < 2:
            return None
        mean = Fraction(sum(fixed), len(fixed))
        return math.sqrt(float(sum((Fraction(x) - mean) ** 2 for x in fixed) / (len(fixed) - 1))) / a.scale
    if not fixed:
        return None
    total = sum(fixed)
    value = total / (a.scale if a.function == "sum" else a.scale * len(fixed))
    assert math.isfinite(value)
    return value


def _text_hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return max(int.from_bytes(digest, "little", signed=True), 1 - 2**63)
