"""Feature rows: rows of one's own with features beside them, as they were known then or as they are online now.

Rows come as a path (.parquet, .csv, .jsonl), a frame of Arrow, pandas or polars, or a list of dicts, and go back as
the kind that they came as; those of a path as an Arrow table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatrial.core.clock import as_utc, from_us, iso, parse_time, to_us
from seatrial.core.errors import UsageError
from seatrial.core.settings import Engine
from seatrial.features.definitions import FeatureSelection, FeatureView
from seatrial.features.events import as_kept
from seatrial.features.join import NameTaken, check_key, check_names, keys_as_whole_numbers, same_kind
from seatrial.features.lookup import Lookup
from seatrial.features.plan import FeaturePlan, ViewPlan, make_plan, plan_view
from seatrial.features.request_time import RequestFunction
from seatrial.features.times import time_columns, time_features, time_text, with_times
from seatrial.features.training_set import as_numbers, with_functions
from seatrial.verbs.inputs import Inputs
from seatrial.verbs.results import LookedUp, Progress

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from seatrial.stores.online import OnlineStore
    from seatrial.training.model import Model

MOST_AT_ONCE = 5_000  # rows that are looked up in one statement

Asked = FeatureView | FeatureSelection | RequestFunction | str
Views = Asked | Sequence[Asked]


class CannotBeWritten(UsageError):
    """A file cannot be written, or cannot hold these rows."""

    code = "features.cannot_be_written"


class Features:
    """What is asked for: views, request-time functions, and the columns of them that go back."""

    def __init__(self, inputs: Inputs, views: Views, model: Model | None) -> None:
        given = [views] if isinstance(views, Asked) else list(views)
        declared = inputs.workspace.definitions.views
        found = [self._one(inputs, one) for one in given]
        if model is not None:
            found += [one for one in model.features if not isinstance(one, str) and one not in found]
        elif not given:
            found = list(declared.values())
        objects = [one.view if isinstance(one, FeatureSelection) else one for one in found]
        views_only = list(dict.fromkeys(one for one in objects if isinstance(one, FeatureView)))
        check_names((), views_only, event_times=False)
        self.views = {one.name: one for one in views_only}
        self.plan: FeaturePlan = make_plan(found, declared)
        self.views |= {one.name: declared[one.name] for one in self.plan.views if one.name not in self.views}
        self.columns = list(dict.fromkeys(column for one in found for column in _columns(one)))

    def refuse_taken(self, columns: Sequence[str], more: Sequence[str] = ()) -> None:
        """Raise NameTaken when rows of these columns have one that is made here. more: what is made beside features."""
        check_names(columns, list(self.views.values()), event_times=False)
        for name in (*self.columns, *more):
            if name in columns:
                raise NameTaken(
                    f"the rows would have two columns '{name}'.", next="Rename the rows' column, or leave it out."
                )

    def _one(self, inputs: Inputs, asked: Asked) -> FeatureView | FeatureSelection | RequestFunction:
        if not isinstance(asked, str):
            return asked
        functions = inputs.workspace.definitions.functions
        return functions[asked] if asked in functions else inputs.view(asked)


def _columns(one: FeatureView | FeatureSelection | RequestFunction) -> Sequence[str]:
    return [one.name] if isinstance(one, RequestFunction) else one.columns


def join(
    inputs: Inputs,
    rows: object,
    views: Views,
    model: Model | None,
    *,
    at: str,
    engine: Engine | None,
    out: str | Path | None,
    progress: Progress | None,
) -> Any:
    """See `Project.feature_join`."""
    from seatrial.data.reading import ColumnWrongType, read
    from seatrial.data.sources import FrameSource, require_columns

    if out is not None:
        _check_ending(Path(out))
    features = Features(inputs, views, model)
    table = _table(inputs, rows, at)
    features.refuse_taken(table.column_names)
    source = FrameSource(table, name="rows", event_timestamp=at if at in table.column_names else None)
    if source.event_timestamp is None:
        require_columns(source, table, [at])
    try:
        table = read(source, folder=inputs.workspace.folder).table
    except ColumnWrongType as error:
        error.next = f"Make times of it: {_time_advice(rows, at)}"
        raise
    schemas = _schemas(inputs, features)
    for name, view in features.views.items():
        table = keys_as_whole_numbers(plan_view(view), table, schemas[name])
    joined = inputs.joined(table, features.views, at=at, engine=engine, progress=progress) if features.views else table
    joined = with_functions(joined, features.plan)
    joined = with_times(joined, time_columns(features.views, schemas))
    joined = joined.select([*table.column_names, *features.columns])
    if out is not None:
        write(joined, Path(out))
    return same_kind(rows, joined, features.columns)


def lookup(inputs: Inputs, store: OnlineStore, rows: object, views: Views, model: Model | None, *, at_us: int) -> Any:
    """See `Project.feature_lookup`."""
    import pyarrow as pa

    features = Features(inputs, views, model)
    schemas = _schemas(inputs, features)
    table = _table(inputs, rows, None)
    features.refuse_taken(table.column_names, [f"{name}__status" for name in features.views])
    fields: dict[str, list[Any]] = {}
    for name, view in features.views.items():
        plan = plan_view(view)
        table = keys_as_whole_numbers(plan, table, schemas[name])
        fields |= {key: _key_values(plan, key, schemas[name], table[key]) for key in plan.keys}
    for function in features.plan.functions:
        for arg in function.args:
            if arg not in features.plan.feature_columns and arg not in fields:
                fields[arg] = as_numbers(table, arg, function.name).tolist()
    asked = [dict(zip(fields, values, strict=True)) for values in zip(*fields.values(), strict=True)]
    asked = asked or [{} for _ in range(table.num_rows)]
    following = Lookup(features.plan, store)
    found = []
    for first in range(0, len(asked), MOST_AT_ONCE):
        found += following.assemble_many(asked[first : first + MOST_AT_ONCE], at_us)
    texts = {column for view in features.views.values() for column in _not_numbers(plan_view(view))}
    made = {}
    for column in features.columns:
        values = [one.columns.get(column) for one in found]
        made[column] = pa.array(values) if column in texts else pa.array(values, pa.float64())
    for name in features.views:
        made[f"{name}__status"] = pa.array([one.views[name].status for one in found], pa.string())
    for column, array in made.items():
        table = table.append_column(column, array)
    table = with_times(table, time_columns(features.views, schemas))
    return same_kind(rows, table, list(made))


def get(
    inputs: Inputs, store: OnlineStore, views: Sequence[FeatureView], keys: Mapping[str, Any], at_us: int
) -> list[LookedUp]:
    """What the online store says of one entity, of each view, in one round trip."""
    nobodys = {key: keys[key] for key in keys if not any(key in view.entity.keys for view in views)}
    entities = [
        inputs.entity(view, nobodys | {key: value for key, value in keys.items() if key in view.entity.keys})
        for view in views
    ]  # which refuses those that are nobody's
    fields = {key: value for entity in entities for key, value in entity.items()}
    assembled = Lookup(FeaturePlan(views=tuple(plan_view(view) for view in views)), store).assemble(fields, at_us)
    found = []
    for view, entity in zip(views, entities, strict=True):
        looked = assembled.views[view.name]
        times = time_features(view, inputs.schema(view.source))
        found.append(
            LookedUp(
                view=view.name,
                entity=entity,
                at=iso(from_us(at_us)),
                status=looked.status,
                event_timestamp=None if looked.event_us is None else iso(from_us(looked.event_us)),
                age_seconds=None if looked.event_us is None else (at_us - looked.event_us) / 1e6,
                features={name: time_text(value) if name in times else value for name, value in looked.values.items()},
            )
        )
    return found


def instant_us(at: datetime | str | None, now_us: int) -> int:
    """The instant that is asked about: text of ISO 8601 with a zone, or an aware datetime; None is now."""
    if at is None:
        return now_us
    return to_us(parse_time(at) if isinstance(at, str) else as_utc(at))


def write(table: pa.Table, path: Path) -> None:
    """Rows as CSV or Parquet, as the ending says. Raises CannotBeWritten."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    _check_ending(path)
    if path.suffix == ".csv":
        for field in table.schema:
            if pa.types.is_nested(field.type):
                raise CannotBeWritten(
                    f"column '{field.name}' holds {field.type}, for which CSV has no form.",
                    expected="A .parquet file takes it.",
                    state="Nothing was written.",
                )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".csv":
            pyarrow.csv.write_csv(table, path)
        else:
            pq.write_table(table, path)
    except OSError as error:
        raise CannotBeWritten(f"{path} cannot be written: {error.strerror or error}.") from None


def _check_ending(path: Path) -> None:
    if path.suffix not in (".parquet", ".csv"):
        raise CannotBeWritten(
            f"the file '{path}' ends in '{path.suffix}', which is no form of rows."
            if path.suffix
            else f"the file '{path}' has no ending that says its form.",
            expected=".parquet or .csv is expected.",
            state="Nothing was written.",
        )


def _table(inputs: Inputs, rows: object, at: str | None) -> pa.Table:
    """Rows as an Arrow table; of dicts `at` may be text, and what a row lacks is null."""
    import re

    import pyarrow as pa

    from seatrial.data.given import table_of
    from seatrial.data.reading import frame_table
    from seatrial.data.sources import FrameSource

    given = inputs.as_table(rows)
    if isinstance(given, list):
        given = table_of(given, FrameSource(pa.table({}), name="rows", event_timestamp=at), None)
    table = frame_table(FrameSource(given, name="rows"))
    return table.select([name for name in table.column_names if not re.fullmatch(r"__index_level_\d+__", name)])


def _schemas(inputs: Inputs, features: Features) -> dict[str, pa.Schema | None]:
    return {name: inputs.schema(view.source) for name, view in features.views.items()}


def _key_values(plan: ViewPlan, key: str, schema: pa.Schema | None, column: pa.ChunkedArray) -> list[Any]:
    """A key's values as they name entities online. Raises KeyMissing for those of another type than the source's."""
    import pyarrow as pa

    if schema is not None and len(column) and not pa.types.is_null(column.type):
        target = schema.field(key).type
        check_key(plan, key, column.type, target)
        column = column.cast(target, safe=False) if pa.types.is_floating(target) else column
    found: list[Any] = as_kept(column).to_pylist()
    return found


def _not_numbers(plan: ViewPlan) -> Iterable[str]:
    return (f"{plan.name}__{name}" for name, a in plan.features.items() if a.function == "last")


def _time_advice(rows: object, at: str) -> str:
    kind = type(rows).__module__.partition(".")[0]
    if kind == "pandas":
        return f"rows['{at}'] = pd.to_datetime(rows['{at}'], utc=True)."
    if kind == "polars":
        return f"rows.with_columns(pl.col('{at}').str.to_datetime(time_zone='UTC'))."
    if isinstance(rows, (str, Path)):
        return "in Parquet as a timestamp column; .csv and .jsonl may hold ISO 8601 text."
    return f"rows['{at}'].cast(pa.timestamp('us', tz='UTC'))."
