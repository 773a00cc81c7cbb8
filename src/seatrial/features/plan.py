"""The feature plan: which look-ups and functions turn a request into a model's columns.

It is the frozen, plain form of the views and request-time functions that a model uses: training computes
it offline, a release carries it, serving follows it without the project's own code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from seatrial.features.definitions import WINDOWED, BadDefinition, FeatureSelection, FeatureView, Function, unknown_view
from seatrial.features.request_time import RequestFunction

SUMMED = ("mean", "sum", "std")  # what is computed from exact sums


class AggregationPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature: see `definitions.Aggregation`."""

    function: Function
    column: str | None = None
    window_us: int | None = None
    scale: int = 1
    unit_us: int = 1
    sql: bool = False

    @property
    def windowed(self) -> bool:
        """Whether it counts every row of a window, and not only the latest."""
        return self.function in WINDOWED

    @property
    def reads(self) -> str:
        """What the value is read from: a column, or an expression, which no column is mistaken for."""
        return f"sql({self.column})" if self.sql else self.column or ""


class TailColumn(NamedTuple):
    """What is kept of one column, or expression, for each event of a window, as a 64-bit integer; null stays null.

    kind: "sum": value x scale; "count": that there is one; "order": the float64, in bits that compare like it;
    "distinct": the value itself, or a hash of text.
    """

    kind: Literal["sum", "count", "order", "distinct"]
    reads: str
    scale: int = 1


class SourcePlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a view's rows come from and what their columns mean: what is needed to keep its online rows up."""

    name: str
    event_timestamp: str
    known_at: str | None = None
    event_key: tuple[str, ...] = ()


class ViewPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One view: whose digest names the rows of the online store, and what is read from them.

    last_columns, tail_columns: what an online row keeps, in the order in which it keeps it: sorted by kind and name, so
    that it does not hang on the order of the features, which JSON does not keep.
    source: None only in releases that were packed before plans held it.
    """

    name: str
    digest: str
    keys: tuple[str, ...]
    ttl_us: int | None
    features: dict[str, AggregationPlan]
    source: SourcePlan | None = None

    @property
    def last_columns(self) -> tuple[str, ...]:
        return tuple(sorted({a.reads for a in self.features.values() if a.function == "last"}))

    @property
    def tail_columns(self) -> tuple[TailColumn, ...]:
        windowed = [a for a in self.features.values() if a.windowed and a.column is not None]
        summed = {a.reads for a in windowed if a.function in SUMMED}
        counted = {a.reads for a in windowed if a.function == "count"} - summed
        added = [
            TailColumn("count", reads)
            if reads in counted
            else TailColumn("sum", reads, max(a.scale for a in windowed if a.reads == reads))
            for reads in sorted(summed | counted)
        ]
        ordered = sorted({a.reads for a in windowed if a.function in ("min", "max")})
        told_apart = sorted({a.reads for a in windowed if a.function == "count_distinct"})
        return (
            *added,
            *(TailColumn("order", reads) for reads in ordered),
            *(TailColumn("distinct", reads) for reads in told_apart),
        )

    def tail_position(self, a: AggregationPlan) -> int:
        """Which of `tail_columns` a windowed feature of a column is computed from."""
        kinds = {"min": ("order",), "max": ("order",), "count_distinct": ("distinct",)}.get(
            a.function, ("sum", "count")
        )
        return next(i for i, tail in enumerate(self.tail_columns) if tail.reads == a.reads and tail.kind in kinds)

    @property
    def expressions(self) -> dict[str, str]:
        """The expressions that features read: the name by which they are read -> SQL."""
        return {a.reads: a.column for a in self.features.values() if a.sql and a.column}

    def columns_read(self, names: Sequence[str]) -> list[str]:
        """The source's columns that a row is made of: keys, times, event key, and what features read.

        names: all of them; where they are not known, expressions name none.
        """
        from seatrial.data.expressions import columns_read

        assert self.source is not None  # only releases that were packed before plans held it have none
        times = [time for time in (self.source.event_timestamp, self.source.known_at) if time]
        plain = [a.column for a in self.features.values() if a.column and not a.sql]
        named = [column for text in self.expressions.values() for column in columns_read(text, names)]
        return list(dict.fromkeys([*self.keys, *times, *self.source.event_key, *plain, *named]))

    @property
    def longest_window_us(self) -> int:
        return max((a.window_us or 0 for a in self.features.values() if a.windowed), default=0)

    @property
    def keeps_last(self) -> bool:
        return any(not a.windowed for a in self.features.values())


class FunctionPlan(msgspec.Struct, frozen=True):
    """One request-time function: see `request_time.RequestFunction`."""

    name: str
    args: tuple[str, ...]
    source: str


class FeaturePlan(msgspec.Struct, frozen=True):
    """Views to look up, then functions to compute, in order."""

    views: tuple[ViewPlan, ...] = ()
    functions: tuple[FunctionPlan, ...] = ()

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """Every column that the plan yields: `view__feature` and function names."""
        looked_up = [f"{view.name}__{feature}" for view in self.views for feature in view.features]
        return (*looked_up, *(function.name for function in self.functions))

    @property
    def request_columns(self) -> tuple[str, ...]:
        """The request fields that the plan needs: entity keys and function arguments, each once, in order."""
        made = set(self.feature_columns)
        needed = [key for view in self.views for key in view.keys]
        needed += [arg for function in self.functions for arg in function.args if arg not in made]
        return tuple(dict.fromkeys(needed))


def plan_view(view: FeatureView | ViewPlan) -> ViewPlan:
    """The plain form of one view; a plan is its own."""
    if isinstance(view, ViewPlan):
        return view
    source = view.source
    return msgspec.convert(
        {
            "name": view.name,
            "digest": view.digest,
            "keys": view.entity.keys,
            "ttl_us": view.ttl_us,
            "features": view.as_plain()["features"],
            "source": {
                "name": source.name,
                "event_timestamp": source.event_timestamp,
                "known_at": source.known_at,
                "event_key": tuple(source.event_key),
            },
        },
        ViewPlan,
    )


def make_plan(
    features: Sequence[FeatureView | FeatureSelection | RequestFunction | str], views: Mapping[str, FeatureView]
) -> FeaturePlan:
    """The plan for a model's features.

    views: every view of the project by name; a function may use a feature of a view that is no input itself.
    Raises BadDefinition for two features with one name, an argument `view__feature` that nobody declares, or a function
    that needs one that comes later, or that needs it.
    """
    for feature in features:
        if isinstance(feature, FeatureSelection):
            feature.check()
    taken = [feature.view if isinstance(feature, FeatureSelection) else feature for feature in features]
    used = {feature.name: feature for feature in taken if isinstance(feature, FeatureView)}
    functions = [feature for feature in features if isinstance(feature, RequestFunction)]
    for function in functions:
        for arg in function.args:
            name, separator, _ = arg.partition("__")
            if not separator or name in used:
                _check_feature(used.get(name), arg, function)
                continue
            if name not in views:
                raise unknown_view(name, list(views))
            used[name] = views[name]
            _check_feature(views[name], arg, function)
    _check_order(functions)
    plan = FeaturePlan(
        tuple(plan_view(view) for view in used.values()),
        tuple(FunctionPlan(function.name, function.args, function.source) for function in functions),
    )
    columns = plan.feature_columns
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise BadDefinition(f"two features are named '{twice[0]}'.", expected="Every feature needs its own name.")
    return plan


def _check_order(functions: Sequence[RequestFunction]) -> None:
    """Raise BadDefinition unless each function needs only earlier ones."""
    needs = {function.name: [arg for arg in function.args if arg != function.name] for function in functions}
    for position, function in enumerate(functions):
        later = {one.name for one in functions[position:]}
        for arg in function.args:
            if arg in later:
                path = _way_back(arg, function.name, needs, ())
                raise BadDefinition(
                    f"request-time functions need each other: {' needs '.join((function.name, *path))}."
                    if path
                    else f"request-time function '{function.name}' needs '{arg}', which the model lists after it.",
                    expected="Functions are computed in the order of the model's features=[...].",
                    next="Take the circle apart." if path else f"List '{arg}' before '{function.name}'.",
                )


def _way_back(name: str, start: str, needs: Mapping[str, Sequence[str]], seen: tuple[str, ...]) -> tuple[str, ...]:
    """The names from `name` to `start`, each of which needs the next; empty when there is no such way."""
    if name == start:
        return (*seen, name)
    if name in seen or name not in needs:
        return ()
    ways = (_way_back(arg, start, needs, (*seen, name)) for arg in needs[name])
    return next((way for way in ways if way), ())


def _check_feature(view: FeatureView | None, arg: str, function: RequestFunction) -> None:
    if view is not None and arg not in view.columns:
        raise BadDefinition(
            f"request-time function '{function.name}' asks for '{arg}', which view '{view.name}' does not have.",
            expected=f"It has {', '.join(view.columns)}.",
        )
