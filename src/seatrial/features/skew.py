"""Skew: was what a model was given online what the offline join says for the same instant?

Each logged prediction holds its inputs after enrichment and, for each view, the time of the event that they came from.
They are joined again from the sources as they are now, as of the prediction's own instant, by the plan that its release
froze. Both ways run the same code on the same integers, so they are equal bit by bit, or something is wrong:

- `materialized late`: the logged event is older than the one that the join finds, or all of the entity's were too old.
  What was online was behind.
- `missing online`: nothing was logged where the join has a value.
- `different value`: anything else: another unit, another rule for nulls, a source that was changed since.

Distributions cannot see this: features one day stale have the distribution of any other day.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from seatrial.core.clock import iso
from seatrial.core.errors import GateRefused
from seatrial.features.join import as_of
from seatrial.features.lookup import compute, load_functions
from seatrial.features.plan import FeaturePlan
from seatrial.features.training_set import AT

if TYPE_CHECKING:
    import pyarrow as pa

Class = Literal["missing online", "materialized late", "different value"]
CLASSES: tuple[Class, ...] = ("missing online", "materialized late", "different value")
MOST_EXAMPLES = 3


class SkewFound(GateRefused):
    """More predictions than allowed were given features that the offline join does not confirm."""

    code = "features.skew"


class SkewExample(msgspec.Struct, frozen=True):
    """One logged value beside the recomputed one. The events are those of the view's latest row, or empty."""

    prediction_id: str
    at: str
    key: dict[str, Any]
    logged: Any
    recomputed: Any
    kind: str
    logged_event: str = ""
    recomputed_event: str = ""


class FeatureSkew(msgspec.Struct, frozen=True):
    """One feature. rows: compared; classes: how many of each kind; share: of mismatches among the rows."""

    feature: str
    view: str
    rows: int
    mismatches: int
    share: float
    classes: dict[str, int]
    examples: list[SkewExample] = []


class SkewReport(msgspec.Struct, frozen=True):
    """Logged features of a model beside the offline join.

    predictions: in the window; rows: of them compared; mismatched: with at least one feature that differs; share: of
    the worst feature. releases: whose plans were followed. notes: what was left out, and why. batch: predictions of a
    batch in the window, which are none of `predictions`: their features were joined offline in the first place.
    """

    model: str
    window: str
    predictions: int
    rows: int
    mismatched: int
    share: float
    features: list[FeatureSkew]
    releases: list[str] = []
    notes: list[str] = []
    batch: int = 0


class Tally:
    """Counts mismatches over any number of chunks; its size does not depend on them."""

    def __init__(self) -> None:
        self.rows = 0
        self.mismatched = 0
        self._views: dict[str, str] = {}
        self._compared: dict[str, int] = {}
        self._classes: dict[str, dict[str, int]] = {}
        self._examples: dict[str, list[SkewExample]] = {}

    def add(self, logged: pa.Table, recomputed: pa.Table, plan: FeaturePlan) -> None:
        """Compare the features that were logged of n predictions with `recompute`'s answer for them, row by row."""
        any_wrong = np.zeros(logged.num_rows, dtype=bool)
        feeding = _feeding(plan)
        for feature in plan.feature_columns:
            if f"feature_{feature}" not in logged.column_names:
                continue
            views = feeding[feature]
            keys = list(dict.fromkeys(key for view in plan.views if view.name in views for key in view.keys))
            self._views.setdefault(feature, ", ".join(views) if "__" in feature else "")
            wrong = different(logged[f"feature_{feature}"], recomputed[feature])
            any_wrong |= wrong
            self._compared[feature] = self._compared.get(feature, 0) + logged.num_rows
            classes = self._classes.setdefault(feature, dict.fromkeys(CLASSES, 0))
            places = np.flatnonzero(wrong)
            if not len(places):
                continue
            few, again = logged.take(places), recomputed.take(places)
            late = _late(few, again, views)
            absent = few[f"feature_{feature}"].is_null(nan_is_null=True).to_numpy() | _unknown(few, views)
            absent &= again[feature].is_valid().to_numpy()
            kinds = np.where(late, 1, np.where(absent, 0, 2))
            for place, kind in enumerate(CLASSES):
                classes[kind] += int(np.count_nonzero(kinds == place))
            examples = self._examples.setdefault(feature, [])
            for place in range(min(len(places), MOST_EXAMPLES - len(examples))):
                examples.append(_example(few, again, place, feature, views, keys, CLASSES[kinds[place]]))
        self.rows += logged.num_rows
        self.mismatched += int(any_wrong.sum())

    def features(self) -> list[FeatureSkew]:
        """The features, those with most mismatches first, equal ones in the order in which they came."""
        found = []
        for feature, rows in self._compared.items():
            classes = self._classes[feature]
            mismatches = sum(classes.values())
            found.append(
                FeatureSkew(
                    feature,
                    self._views[feature],
                    rows,
                    mismatches,
                    mismatches / rows if rows else 0.0,
                    {kind: count for kind, count in classes.items() if count},
                    self._examples.get(feature, []),
                )
            )
        return sorted(found, key=lambda one: -one.mismatches)


def recompute(logged: pa.Table, plan: FeaturePlan, events: Mapping[str, pa.Table], *, threads: int = 1) -> pa.Table:
    """Every feature of the plan as of each logged prediction's instant, and `VIEW__event_timestamp` per view.

    logged: rows of the prediction log; entity keys and arguments are its `field_NAME`, else its `feature_NAME`.
    events: per view of the plan its source's rows. Raises what the join raises.
    """
    import pyarrow as pa

    columns = {AT: logged["at"]}
    for name in plan.request_columns:
        there = f"field_{name}" if f"field_{name}" in logged.column_names else f"feature_{name}"
        columns[name] = logged[there]
    rows = pa.table(columns)
    if plan.views:
        views = {view.name: view for view in plan.views}
        rows = as_of(rows, views, events, at=AT, threads=threads, event_times=True)
    made: dict[str, Any] = {}
    for name, args, function in load_functions(plan):
        needed = {
            arg: made[arg] if arg in made else rows[arg].cast(pa.float64()).to_numpy(zero_copy_only=False)
            for arg in args
        }
        made |= compute([(name, args, function)], needed)
        rows = rows.append_column(name, pa.array(made[name], from_pandas=True))
    return rows


def missing_fields(logged: pa.Table, plan: FeaturePlan) -> list[str]:
    """The entity keys and arguments that the log does not hold, without which nothing can be joined."""
    return [
        name
        for name in plan.request_columns
        if f"field_{name}" not in logged.column_names and f"feature_{name}" not in logged.column_names
    ]


def different(logged: pa.ChunkedArray, recomputed: pa.ChunkedArray) -> Any:
    """Which values differ (bool, n): exactly, where missing equals missing; in float32 where the log holds float32."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(logged.type) or pa.types.is_string(recomputed.type):
        said, again = (column.cast(pa.string()) for column in (logged, recomputed))
        equal = pc.fill_null(pc.equal(said, again), False).to_numpy()
        return ~(equal | (said.is_null().to_numpy() & again.is_null().to_numpy()))
    said, again = (_numbers(column) for column in (logged, recomputed))
    if pa.types.is_float32(logged.type):
        said, again = said.astype(np.float32), again.astype(np.float32)
    return ~((said == again) | (np.isnan(said) & np.isnan(again)))


def refusal(report: SkewReport, allowed: float) -> SkewFound:
    """The error for more skew than is allowed."""
    worst = report.features[0]
    return SkewFound(
        f"'{worst.feature}' of model '{report.model}' was not online what it is offline in {worst.mismatches:,} of "
        f"{worst.rows:,} predictions ({report.share:.1%}).",
        expected=f"At most {allowed:.1%} is allowed.",
        state="Nothing was changed.",
        next="Bring the online features up to date (`seatrial materialize`), or mend what feeds them, where the value "
        "differs.",
        feature=worst.feature,
        share=report.share,
        classes=dict(worst.classes),
    )


def _numbers(column: pa.ChunkedArray) -> Any:
    import pyarrow as pa

    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _feeding(plan: FeaturePlan) -> dict[str, tuple[str, ...]]:
    """feature -> the views that it is read or computed from."""
    found: dict[str, tuple[str, ...]] = {}
    for view in plan.views:
        found |= {f"{view.name}__{feature}": (view.name,) for feature in view.features}
    for function in plan.functions:
        views = [view for arg in function.args for view in found.get(arg, ())]
        found[function.name] = tuple(dict.fromkeys(views))
    return found


def _late(logged: pa.Table, again: pa.Table, views: Sequence[str]) -> Any:
    """Where any of the views was behind: its logged event is older than the join's, or all it had were too old."""
    import pyarrow as pa
    import pyarrow.compute as pc

    late = np.zeros(logged.num_rows, dtype=bool)
    for view in views:
        if f"view_{view}_event_at" not in logged.column_names:
            continue
        had, has = logged[f"view_{view}_event_at"].cast(pa.int64()), again[f"{view}__event_timestamp"].cast(pa.int64())
        late |= pc.fill_null(pc.less(had, has), False).to_numpy()
        old = pc.fill_null(pc.equal(logged[f"view_{view}_status"], "expired"), False).to_numpy()
        late |= old & had.is_null().to_numpy() & has.is_valid().to_numpy()
    return late


def _unknown(logged: pa.Table, views: Sequence[str]) -> Any:
    """Where any of the views knew nothing of the entity."""
    import pyarrow.compute as pc

    unknown = np.zeros(logged.num_rows, dtype=bool)
    for view in views:
        if f"view_{view}_status" in logged.column_names:
            unknown |= pc.fill_null(pc.equal(logged[f"view_{view}_status"], "missing"), False).to_numpy()
    return unknown


def _example(
    logged: pa.Table,
    again: pa.Table,
    place: int,
    feature: str,
    views: Sequence[str],
    keys: Sequence[str],
    kind: str,
) -> SkewExample:
    def told(table: pa.Table, column: str) -> str:
        value = table[column][place].as_py() if column in table.column_names else None
        return iso(value) if value is not None else ""

    view = views[0] if len(views) == 1 else ""
    return SkewExample(
        prediction_id=logged["prediction_id"][place].as_py(),
        at=iso(logged["at"][place].as_py()),
        key={key: again[key][place].as_py() for key in keys},
        logged=logged[f"feature_{feature}"][place].as_py(),
        recomputed=again[feature][place].as_py(),
        kind=kind,
        logged_event=told(logged, f"view_{view}_event_at") if view else "",
        recomputed_event=told(again, f"{view}__event_timestamp") if view else "",
    )
