"""The feature plan: which look-ups and functions turn a request into a model's columns.

It is the frozen, plain form of the views and request-time functions that a model uses: training computes
it offline, a release carries it, serving follows it without the project's own code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from seatrial.features.definitions import WINDOWED, BadDefinition, FeatureView, Function, unknown_view
from seatrial.features.request_time import RequestFunction


class AggregationPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One feature: see `definitions.Aggregation`."""

    function: Function
    column: str | None = None
    window_us: int | None = None
    scale: int = 1
    unit_us: int = 1

    @property
    def windowed(self) -> bool:
        return self.function in WINDOWED


class SourcePlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a view's rows come from and what their columns mean: what is needed to keep its online rows up."""

    name: str
    event_timestamp: str
    known_at: str | None = None
    event_key: tuple[str, ...] = ()


class ViewPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """One view: whose digest names the rows of the online store, and what is read from them.

    last_columns, sum_columns: the columns kept in an online row, in the order in which it keeps them: sorted by name,
    so that it does not hang on the order of the features, which JSON does not keep.
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
        return _columns(self, "last")

    @property
    def sum_columns(self) -> tuple[str, ...]:
        return _columns(self, *WINDOWED)

    @property
    def scales(self) -> tuple[int, ...]:
        """For each of `sum_columns`, the finest scale that any feature asks for."""
        return tuple(
            max(a.scale for a in self.features.values() if a.windowed and a.column == column)
            for column in self.sum_columns
        )

    @property
    def longest_window_us(self) -> int:
        return max((a.window_us or 0 for a in self.features.values()), default=0)

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


def make_plan(features: Sequence[FeatureView | RequestFunction | str], views: Mapping[str, FeatureView]) -> FeaturePlan:
    """The plan for a model's features.

    views: every view of the project by name; a function may use a feature of a view that is no input itself.
    Raises BadDefinition for two features with one name, or an argument `view__feature` that nobody declares.
    """
    used = {feature.name: feature for feature in features if isinstance(feature, FeatureView)}
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
    plan = FeaturePlan(
        tuple(plan_view(view) for view in used.values()),
        tuple(FunctionPlan(function.name, function.args, function.source) for function in functions),
    )
    columns = plan.feature_columns
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise BadDefinition(f"two features are named '{twice[0]}'.", expected="Every feature needs its own name.")
    return plan


def _check_feature(view: FeatureView | None, arg: str, function: RequestFunction) -> None:
    if view is not None and arg not in view.columns:
        raise BadDefinition(
            f"request-time function '{function.name}' asks for '{arg}', which view '{view.name}' does not have.",
            expected=f"It has {', '.join(view.columns)}.",
        )


def _columns(view: ViewPlan, *functions: str) -> tuple[str, ...]:
    columns = [a.column for a in view.features.values() if a.function in functions and a.column is not None]
    return tuple(sorted(set(columns)))
