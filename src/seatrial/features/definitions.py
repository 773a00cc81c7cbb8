"""What a feature is: entities, views over a source, aggregations, request-time functions.

A view names an entity, a source and, in its class body, the features to take from the source's rows. Two
kinds of feature exist. *Last-value* features (`agg.last`, `agg.age`) look at the entity's latest row no
older than the view's ttl. *Windowed* features (`agg.mean`, `agg.sum`, `agg.count`, `agg.min`, `agg.max`, `agg.std`,
`agg.count_distinct`) count every row of a trailing window. What they read is a column, or an SQL expression over the
columns of one row. Definitions are plain frozen values; nothing is read when they are made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from seatrial.core.declared import declare
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.identity import value_digest
from seatrial.core.windows import duration_text, duration_us
from seatrial.data.sources import Source

Function = Literal["mean", "sum", "count", "min", "max", "std", "count_distinct", "last", "age"]
WINDOWED: tuple[Function, ...] = ("mean", "sum", "count", "min", "max", "std", "count_distinct")
EVENT_TIME = "event_timestamp"  # the column `view__event_timestamp` of a join holds the time of the latest row
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")


class BadDefinition(UsageError):
    """An entity, view, feature or model is declared in a way that cannot work."""

    code = "definition.bad"


@dataclass(frozen=True)
class Entity:
    """A thing that features describe, and the column or columns that name it.

    keys: the join columns, in order; by default one column named like the entity.
    """

    name: str
    keys: tuple[str, ...] = ()
    description: str = ""

    def __init__(self, name: str, keys: Sequence[str] | str = (), description: str = "") -> None:
        check_name("entity", name)
        columns = (keys,) if isinstance(keys, str) and keys else tuple(keys) if isinstance(keys, Sequence) else None
        if columns is None or not all(isinstance(column, str) and column for column in columns):
            raise BadDefinition(
                f"entity '{name}' has keys={keys!r}.",
                expected='A column or a list is expected: keys=["origin", "dest"].',
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "keys", columns or (name,))
        object.__setattr__(self, "description", description)


@dataclass(frozen=True)
class Expression:
    """An SQL expression over the columns of one row, in DuckDB's dialect."""

    text: str


def sql(expression: str) -> Expression:
    """An expression in the place of a column: `agg.mean(sql("price * quantity"), window="7d")`.

    It is computed for each row of the source by itself: another row, the time of day, or a random number are refused
    when rows are read. A value that it cannot be computed for stops the line; null stays null.
    """
    if not isinstance(expression, str) or not expression.strip():
        raise BadDefinition(
            f"sql() is given {expression!r}.", expected='An SQL expression in text is expected: sql("a / b").'
        )
    return Expression(expression.strip())


@dataclass(frozen=True)
class Aggregation:
    """One feature of a view: a function over one column of the rows that count.

    column: the column read, or the expression when `sql`; None for `count` of rows and for `age`.
    window_us: length of the trailing window in microseconds; None for features that the view's ttl bounds.
    scale: sums are kept as integers of value x scale, so that they do not depend on order; a power of ten.
    unit_us: the unit of `age`, in microseconds.
    """

    function: Function
    column: str | None = None
    window_us: int | None = None
    scale: int = 1
    unit_us: int = 1
    sql: bool = False

    def describe(self) -> str:
        """The aggregation as it was written, for lists and messages."""
        window = f", window={duration_text(self.window_us)}" if self.window_us else ""
        column = f"sql({self.column!r})" if self.sql else self.column or "*"
        return f"{self.function}({column}{window})"

    def as_plain(self) -> dict[str, Any]:
        """As plain values; what is not said is left out where it was not always there to be said."""
        plain = {
            "function": self.function,
            "column": self.column,
            "window_us": self.window_us,
            "scale": self.scale,
            "unit_us": self.unit_us,
        }
        return plain | {"sql": True} if self.sql else plain


class agg:
    """The aggregations. Windows hold `at - window < event time <= at`; rows known later than `at` do not count.

    `column` is a column of the source, or `sql("...")`. Numbers and booleans can be added up and compared; anything
    that can be a key can be counted. NaN counts as null.
    """

    @staticmethod
    def mean(column: str | Expression, *, window: str, resolution: float = 1e-6) -> Aggregation:
        """Mean of the non-null values of `column` in the window; null when there are none.

        resolution: values are rounded to it (a power of ten, at most 1) before they are added, exactly. Where several
        features of a view read one column, the finest counts for all.
        """
        return _windowed("mean", column, window, _scale(resolution))

    @staticmethod
    def sum(column: str | Expression, *, window: str, resolution: float = 1e-6) -> Aggregation:
        """Sum of the non-null values of `column` in the window; null when there are none. resolution: as in `mean`."""
        return _windowed("sum", column, window, _scale(resolution))

    @staticmethod
    def std(column: str | Expression, *, window: str, resolution: float = 1e-6) -> Aggregation:
        """Standard deviation of the non-null values in the window, of a sample (divided by n - 1).

        Null when there are fewer than two. resolution: as in `mean`; sums of squares are exact too.
        """
        return _windowed("std", column, window, _scale(resolution))

    @staticmethod
    def min(column: str | Expression, *, window: str) -> Aggregation:
        """Least of the non-null values of `column` in the window, as it is; null when there are none."""
        return _windowed("min", column, window)

    @staticmethod
    def max(column: str | Expression, *, window: str) -> Aggregation:
        """Greatest of the non-null values of `column` in the window, as it is; null when there are none."""
        return _windowed("max", column, window)

    @staticmethod
    def count(column: str | Expression | None = None, *, window: str) -> Aggregation:
        """Number of rows in the window, or of the non-null values of `column`; 0 when there are none."""
        return (
            Aggregation("count", window_us=duration_us(window))
            if column is None
            else _windowed("count", column, window)
        )

    @staticmethod
    def count_distinct(column: str | Expression, *, window: str) -> Aggregation:
        """Number of different non-null values of `column` in the window; 0 when there are none.

        Values are numbers, booleans, times or text; texts are told apart by a hash of 64 bits.
        """
        return _windowed("count_distinct", column, window)

    @staticmethod
    def last(column: str | Expression, *, window: str | None = None) -> Aggregation:
        """Value of `column` in the entity's latest row within the view's ttl; null stays null.

        window: the row must lie in the window, `at - window < event time`, instead of within the ttl.
        """
        text, is_sql = _column("last", column)
        return Aggregation("last", text, None if window is None else duration_us(window), sql=is_sql)

    @staticmethod
    def age(*, unit: str = "1h") -> Aggregation:
        """Time from the event of the entity's latest row to `at`, in `unit`s (hours); null without a row in ttl."""
        return Aggregation("age", unit_us=duration_us(unit))

    def __class_getitem__(cls, name: str) -> Any:
        raise TypeError("agg is a namespace of functions: agg.mean(...), not agg[...]")


def _windowed(function: Function, column: str | Expression, window: str, scale: int = 1) -> Aggregation:
    text, is_sql = _column(function, column)
    return Aggregation(function, text, duration_us(window), scale, sql=is_sql)


def _column(function: str, column: object) -> tuple[str, bool]:
    if isinstance(column, Expression):
        return column.text, True
    if not isinstance(column, str) or not column:
        raise BadDefinition(
            f"agg.{function} is given {column!r} as its column.",
            expected=f"The name of a column in text, or sql('...'), is expected: agg.{function}('amount'"
            + (")." if function == "last" else ", window='24h')."),
        )
    return column, False


@dataclass(frozen=True)
class FeatureView:
    """Features of one entity from one source.

    ttl_us: how old the latest row may be for last-value features; None: any age. Windows have their own length.
    features: name -> aggregation, in the order of the class body.
    every_us: within which time it is to be materialized again; None: nobody said. Not part of the digest.
    """

    name: str
    entity: Entity
    source: Source
    features: dict[str, Aggregation]
    ttl_us: int | None = None
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    every_us: int | None = None
    _digest: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_digest", value_digest(self.as_plain()))
        declare(self)

    def __hash__(self) -> int:
        return hash(self._digest)

    @property
    def digest(self) -> str:
        """Digest of what determines the values: entity keys, source, ttl and features; not owner or words."""
        return self._digest

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature columns `view__feature`, in order."""
        return tuple(f"{self.name}__{feature}" for feature in self.features)

    def __getitem__(self, features: str | tuple[str, ...]) -> FeatureSelection:
        """Some of the view's features, as a model's inputs: `view["last"]`, `view["last", "mean_24h"]`."""
        return FeatureSelection(self, (features,) if isinstance(features, str) else tuple(features))

    @property
    def windowed(self) -> dict[str, Aggregation]:
        return {name: a for name, a in self.features.items() if a.function in WINDOWED}

    @property
    def last_value(self) -> dict[str, Aggregation]:
        return {name: a for name, a in self.features.items() if a.function not in WINDOWED}

    @property
    def longest_window_us(self) -> int:
        return max((a.window_us or 0 for a in self.windowed.values()), default=0)

    def as_plain(self) -> dict[str, Any]:
        """The definition as plain values, as it is frozen in releases."""
        return {
            "name": self.name,
            "keys": list(self.entity.keys),
            "source": self.source.as_plain(),
            "ttl_us": self.ttl_us,
            "features": {name: a.as_plain() for name, a in self.features.items()},
        }


@dataclass(frozen=True)
class FeatureSelection:
    """Some features of a view, which a model takes as inputs; the view is looked up as a whole all the same."""

    view: FeatureView
    features: tuple[str, ...]

    def __post_init__(self) -> None:
        if type(self.view) is FeatureView:  # one of another project is looked up when it is used
            self.check()
        if not self.features or len(set(self.features)) < len(self.features):
            raise BadDefinition(
                f"{listed(self.features) or 'nothing'} of view '{self.view.name}' is asked for.",
                expected="Each feature is named once, and at least one is.",
            )

    def check(self) -> None:
        """Raise BadDefinition for a feature that the view does not have."""
        known = list(self.view.features)
        for name in self.features:
            if name not in known:
                raise BadDefinition(
                    f"view '{self.view.name}' has no feature {name!r}.",
                    expected=f"It has {listed(known)}. {did_you_mean(str(name), known)}".strip(),
                )

    @property
    def columns(self) -> tuple[str, ...]:
        """The feature columns `view__feature`, in the order asked for."""
        return tuple(f"{self.view.name}__{feature}" for feature in self.features)


def feature_view(
    *,
    entity: Entity,
    source: Source,
    ttl: str | None = None,
    owner: str = "",
    tags: Sequence[str] = (),
    every: str | None = None,
) -> Callable[[type], FeatureView]:
    """Make the decorated class body a `FeatureView`: its name, its docstring, its aggregations.

    every: how often it is materialized, such as "1h"; a time that is missed opens an alert.
    Raises BadDefinition when the body holds anything but aggregations, or none, or the source lacks a time.
    """

    def make(body: type) -> FeatureView:
        name = body.__name__
        check_name("view", name)
        for what, value, kind in (("entity", entity, Entity), ("source", source, Source)):
            if not isinstance(value, kind):
                raise BadDefinition(
                    f"view '{name}' is given {value!r} as its {what}.",
                    expected=f"{'An Entity' if kind is Entity else 'A source such as ParquetSource'} is expected.",
                )
        features = {}
        for feature, value in vars(body).items():
            if feature.startswith("__"):
                continue
            if not isinstance(value, Aggregation):
                raise BadDefinition(
                    f"'{feature}' of view '{name}' is {type(value).__name__}, not an aggregation.",
                    expected="A feature is written as agg.mean('column', window='24h'), agg.last('column'), ...",
                )
            check_name("feature", feature)
            if feature == EVENT_TIME:
                raise BadDefinition(
                    f"view '{name}' has a feature named '{EVENT_TIME}'.",
                    expected=f"The column {name}__{EVENT_TIME} is the time of the view's latest row.",
                )
            features[feature] = value
        if not features:
            raise BadDefinition(
                f"view '{name}' has no feature.",
                expected="At least one line such as mean_24h = agg.mean('column', window='24h') is expected.",
            )
        if source.event_timestamp is None:
            raise BadDefinition(
                f"view '{name}' reads source '{source.name}', which names no event_timestamp.",
                expected="A view needs to know when each row happened.",
                next=f"Give event_timestamp= to the source '{source.name}'.",
            )
        return FeatureView(
            name=name,
            entity=entity,
            source=source,
            features=features,
            ttl_us=None if ttl is None else duration_us(ttl),
            owner=owner,
            description=(body.__doc__ or "").strip(),
            tags=tuple(tags),
            every_us=None if every is None else duration_us(every),
        )

    return make


def check_name(what: str, name: str) -> None:
    """Names are letters, digits and single underscores: `view__feature` must split one way."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadDefinition(
            f"{name!r} is not a name for {'an' if what[0] in 'aeiou' else 'a'} {what}.",
            expected="Letters, digits and single underscores are expected, starting with a letter.",
        )


def unknown_view(name: str, known: Sequence[str]) -> BadDefinition:
    """The error for a view that nobody declared."""
    return BadDefinition(
        f"no view is named '{name}'.",
        expected=f"Declared are {listed(known)}. {did_you_mean(name, known)}".strip(),
    )


def _scale(resolution: float) -> int:
    for digits in range(13):
        if resolution == float(f"1e-{digits}"):
            return int(10**digits)
    raise BadDefinition(
        f"the resolution {resolution!r} is not a power of ten from 1 down to 1e-12.",
        expected="For example 1, 0.01 or 1e-6.",
    )
