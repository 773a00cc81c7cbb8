"""The point-in-time join: what did each feature say at each row's instant?

Exactly one output row per input row, in input order. A row of a source counts at instant `at` when it was
known by then (`known_at <= at`) and had happened by then.

- Last-value features: among the counting rows of the entity the latest by (event time, known time, event key,
  content) wins as a whole row, if it is no older than the ttl (`at - ttl <= event`, closed at both ends); with a
  window of its own, if `at - window < event`.
- Windowed features: every counting row with `at - window < event <= at`; of rows with one event key (within
  their entity) the newest known counts.

How: an event counts from the moment at which it has happened and is known until it leaves the window or is superseded.
`features.spans` paints it on the rows that ask in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seatrial.core.errors import UsageError
from seatrial.core.windows import duration_text
from seatrial.features import spans
from seatrial.features.definitions import EVENT_TIME, FeatureSelection, FeatureView
from seatrial.features.events import (
    NEVER_US,
    SumTooLarge,
    age,
    as_kept,
    comparable,
    finish,
    from_order,
    superseded_us,
    view_events,
)
from seatrial.features.plan import AggregationPlan, ViewPlan, plan_view
from seatrial.features.request_time import RequestFunction
from seatrial.features.spans import Asked, Int64

if TYPE_CHECKING:
    import pyarrow as pa


class KeyMissing(UsageError):
    """The rows to be joined lack an entity key column, or it has another type than the view's."""

    code = "features.key_missing"


class NameTaken(UsageError):
    """Two columns of a join would have one name."""

    code = "features.name_taken"


def as_of(
    rows: pa.Table,
    views: Mapping[str, FeatureView | ViewPlan],
    events: Mapping[str, pa.Table],
    *,
    at: str = "at",
    threads: int = 1,
    event_times: bool = False,
) -> pa.Table:
    """`rows` with one column `view__feature` appended per feature, as of each row's `at`.

    rows: n rows with the entity keys of every view and `at` (timestamp[us, tz=UTC], not null).
    events: for each view its source's rows (see `data.reading.read`).
    threads: how many views are joined at once; each takes memory.
    event_times: also append `view__event_timestamp`: the time of the latest row that counts, null where none does.
    Feature columns are float64 for windows and ages (null: nothing counted), and for `last` the source's type, but for
        times, which are int64 microseconds here, see `features.times`.
    The result does not depend on the order of `events` or on the number of threads.
    Raises KeyMissing, NameTaken, and what `view_events` raises.
    """
    import pyarrow as pa

    check_names(rows.column_names, list(views.values()), event_times)
    instants = rows[at].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    if instants.null_count:
        raise UsageError(
            f"{instants.null_count} of {len(rows)} rows have no '{at}'.", expected="Every row needs its instant."
        )
    at_us: Int64 = instants.to_numpy()

    def join(view: FeatureView | ViewPlan) -> dict[str, pa.Array]:
        return _View(plan_view(view), rows, at_us, events[view.name]).columns(event_times)

    if threads > 1 and len(views) > 1:
        with ThreadPoolExecutor(min(threads, len(views))) as pool:
            joined = list(pool.map(join, views.values()))
    else:
        joined = [join(view) for view in views.values()]
    for view, columns in zip(views.values(), joined, strict=True):
        for name, column in columns.items():
            rows = rows.append_column(f"{view.name}__{name}", column)
    return rows


def point_in_time_join(
    rows: Any,
    views: FeatureView | Sequence[FeatureView | FeatureSelection | RequestFunction],
    *,
    at: str = "at",
    folder: str | Path = ".",
    threads: int = 1,
    event_times: bool = False,
) -> Any:
    """`rows` with every feature of `views` as of each row's own instant; needs no project.

    rows: a frame of Arrow, pandas or polars with the views' entity keys and `at`: a time, of any zone; one without a
    zone is read as UTC, with a warning. The answer is of the same kind: the same rows, in the same order.
    views: views, some features of one (`view["last"]`), and request-time functions, whose arguments are columns of
    `rows` or features of views that are asked for. A last value that is a time comes as timestamp[us, tz=UTC].
    folder: where relative paths of the views' sources start. Sources are read one after the other, and of Parquet
    files, Delta tables and PostgreSQL only the columns that are needed; their expectations are not tried.
    threads, event_times: as in `as_of`. Raises KeyMissing, SourceEmpty for no rows, ArgumentMissing, and what reading
    raises.
    """
    from seatrial.data.reading import read
    from seatrial.data.sources import FrameSource
    from seatrial.features.plan import make_plan
    from seatrial.features.times import time_columns, with_times
    from seatrial.features.training_set import with_functions

    asked = [views] if isinstance(views, FeatureView) else list(views)
    for one in asked:
        if not isinstance(one, (FeatureView, FeatureSelection, RequestFunction)):
            raise UsageError(
                f"point_in_time_join is given {one!r} among its views.",
                expected="Views, selections of a view and request-time functions are expected, not their names.",
            )
    viewed = [one.view if isinstance(one, FeatureSelection) else one for one in asked]
    objects = [one for one in viewed if isinstance(one, FeatureView)]
    chosen = {view.name: view for view in objects}
    plan = make_plan(asked, chosen)
    table = read(FrameSource(rows, name="rows", event_timestamp=at), folder=Path(folder)).table
    whole = [one for one in asked if isinstance(one, FeatureView)]
    parts = [view for view in chosen.values() if view not in whole]
    check_names(table.column_names, [*whole, *parts], event_times)
    wanted = [at, *(key for view in plan.views for key in view.keys), *plan.request_columns]
    needed = list(dict.fromkeys(column for column in wanted if column in table.column_names))
    tables = _Read(list(chosen.values()), Path(folder), threads)
    joined = as_of(table.select(needed), chosen, tables, at=at, threads=threads, event_times=event_times)
    joined = with_times(with_functions(joined, plan), time_columns(chosen, tables.schemas))
    made = [column for one in asked for column in ([one.name] if isinstance(one, RequestFunction) else one.columns)]
    if event_times:
        made = [name for name in joined.column_names if name in made or name.endswith(f"__{EVENT_TIME}")]
    for name in dict.fromkeys(made):
        table = table.append_column(name, joined[name])
    return same_kind(rows, table, list(dict.fromkeys(made)))


def same_kind(rows: Any, table: pa.Table, made: Sequence[str]) -> Any:
    """The rows with the columns `made` of `table`, as the kind that they came as: pandas with its own index, polars, or
    a list of dicts; else `table`.
    """
    kind = type(rows).__module__.partition(".")[0]
    if kind == "pandas":
        frame = table.select(list(made)).to_pandas()
        frame.index = rows.index
        return rows.assign(**{name: frame[name] for name in frame.columns})
    if kind == "polars":
        import polars

        columns = polars.DataFrame(table.select(list(made))).get_columns() if made else []
        return rows.drop([name for name in made if name in rows.columns]).hstack(columns)
    if isinstance(rows, list):
        return (
            [{**row, **new} for row, new in zip(rows, table.select(list(made)).to_pylist(), strict=True)]
            if made
            else list(rows)
        )
    return table


def keys_as_whole_numbers(plan: ViewPlan, rows: pa.Table, schema: pa.Schema | None) -> pa.Table:
    """`rows` with keys that are floats as integers where the source's are: pandas makes floats of integers with a null.

    schema: of the view's source. Raises KeyMissing for a float that is not whole.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for key in plan.keys:
        if key not in rows.column_names:
            raise KeyMissing(
                f"the rows have no column '{key}', which view '{plan.name}' is looked up by.",
                expected=f"Columns {', '.join(plan.keys)} are needed.",
            )
        if schema is None or key not in schema.names:
            continue
        if not pa.types.is_integer(schema.field(key).type) or not pa.types.is_floating(rows[key].type):
            continue
        column = rows[key].cast(pa.float64())
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, pa.float64()), column)
        try:
            column = column.cast(pa.int64())
        except pa.ArrowInvalid:
            raise KeyMissing(
                f"key '{key}' has fractions in the rows, and is {schema.field(key).type} in the source of view "
                f"'{plan.name}'.",
                expected="A key needs one type on both sides.",
                next=f"Make whole numbers of it; in pandas, with nulls: rows['{key}'].astype(\"Int64\").",
            ) from None
        rows = rows.set_column(rows.column_names.index(key), key, column)
    return rows


class _Read(Mapping[str, "pa.Table"]):
    """The rows of views' sources, read when they are asked for, and not held."""

    def __init__(self, views: Sequence[FeatureView], folder: Path, threads: int) -> None:
        self._views = {view.name: view for view in views}
        self._folder = folder
        self._threads = threads
        self.schemas: dict[str, pa.Schema | None] = {}

    def __getitem__(self, name: str) -> pa.Table:
        from seatrial.data.reading import read

        view = self._views[name]
        plan = plan_view(view)
        columns: list[str] | None = None
        if not plan.expressions:
            columns = [*plan.keys, *(a.column for a in plan.features.values() if a.column)]
            columns = list(dict.fromkeys(columns))
        table = read(view.source, folder=self._folder, threads=self._threads, columns=columns).table
        self.schemas[name] = table.schema
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


class _View:
    """One view's events, painted on the rows that ask."""

    def __init__(self, plan: ViewPlan, rows: pa.Table, at_us: Int64, source_rows: pa.Table) -> None:
        self._plan = plan
        self._rows = len(rows)
        rows = keys_as_whole_numbers(plan, rows, source_rows.schema)
        _check_keys(plan, rows, source_rows)
        events = view_events(plan, source_rows, plain_last=False)
        label_codes, event_codes, entities = _entities(plan, rows, events)
        self._asked = Asked(label_codes, at_us, entities)
        self._at_us = at_us[self._asked.order]
        event_us: Int64 = events["event_us"].to_numpy()
        known_us: Int64 = events["known_us"].to_numpy()
        self._chosen: Int64 | None = None  # the events' rows in the table; columns are taken only where they are needed
        outside = event_codes < 0
        if 2 * outside.sum() > len(outside):
            self._chosen = np.flatnonzero(~outside)
            event_codes, event_us, known_us = (values[self._chosen] for values in (event_codes, event_us, known_us))
        else:
            event_codes = np.where(outside, entities, event_codes)
        self._events = events
        self._entity, self._event_us, self._known_us = event_codes, event_us, known_us
        self._low = self._asked.low(event_codes, np.maximum(event_us, known_us))

    def columns(self, event_times: bool) -> dict[str, pa.Array]:
        """The view's features in the order of its definition, each with one value a row, in the order of the rows."""
        found: dict[str, pa.Array] = {}
        latest_us = np.full(self._asked.size, spans.LEAST, dtype=np.int64)
        if self._plan.keeps_last:
            columns, latest_us = self._last_values()
            found |= columns
        windowed = {name: a for name, a in self._plan.features.items() if a.windowed}
        if windowed:
            until_us = self._superseded_us()
            for window_us in sorted({a.window_us or 0 for a in windowed.values()}):
                low, high, counting = self._span(window_us, until_us)
                wanted = {name: a for name, a in windowed.items() if a.window_us == window_us}
                found |= self._windows(wanted, low, high, counting)
                if event_times and window_us == self._plan.longest_window_us:
                    newest = spans.greatest(self._asked.size, low, high, self._event_us[counting])
                    latest_us = np.maximum(latest_us, newest)
        ordered = {name: found[name] for name in self._plan.features}
        if event_times:
            ordered[EVENT_TIME] = self._times(latest_us)
        return ordered

    def _last_values(self) -> tuple[dict[str, pa.Array], Int64]:
        import pyarrow as pa
        import pyarrow.compute as pc

        asked, plan = self._asked, self._plan
        winner = spans.latest(asked, self._low, self._entity, self._event_us, self._ranks)
        known = winner >= 0
        event = np.where(known, winner, 0)
        event_us = np.full(asked.size, spans.LEAST, dtype=np.int64)
        event_us[known] = self._event_us[winner[known]]
        in_ttl = known.copy()
        if plan.ttl_us is not None:
            in_ttl &= self._at_us - np.where(known, event_us, 0) <= plan.ttl_us
        fresh = np.zeros(asked.size, dtype=bool)
        found: dict[str, pa.Array] = {}
        picked: dict[tuple[str, int | None], pa.Array] = {}
        for name, a in plan.features.items():
            if a.windowed:
                continue
            within = in_ttl
            if a.window_us is not None:
                within = known & (self._at_us - np.where(known, event_us, 0) < a.window_us)
            fresh |= within
            if a.function == "age":
                ages = np.full(self._rows, np.nan)
                ages[asked.order[within]] = age(self._at_us[within], event_us[within], a.unit_us)
                found[name] = pa.array(ages, mask=np.isnan(ages))
                continue
            if (a.reads, a.window_us) not in picked:
                places = np.zeros(self._rows, dtype=np.int64)
                missing = np.ones(self._rows, dtype=bool)
                places[asked.order[within]] = self._row_of(event[within])
                missing[asked.order[within]] = False
                column = pc.take(self._events[f"last_{a.reads}"], pa.array(places, mask=missing))
                picked[a.reads, a.window_us] = as_kept(column).combine_chunks()
            found[name] = picked[a.reads, a.window_us]
        return found, np.where(fresh, event_us, spans.LEAST)

    def _ranks(self, tied: Int64) -> Int64:
        """The order of rows whose event time decides nothing: known time, event key, content; null first."""
        columns = [self._known_us[tied]]
        names = [name for name in self._events.column_names if name.startswith("id_")]
        names += [f"last_{reads}" for reads in self._plan.last_columns]
        columns += [comparable(as_kept(self._taken(name, tied))) for name in names]
        rank = np.empty(len(tied), dtype=np.int64)
        rank[np.lexsort(columns[::-1])] = np.arange(len(tied))
        return rank

    def _superseded_us(self) -> Int64 | None:
        """For each event when the next version of it became known; None where no event has two versions."""
        ids = [name for name in self._events.column_names if name.startswith("id_")]
        if not ids or not len(self._entity):
            return None
        code = self._entity
        for name in ids:
            part = self._taken(name).combine_chunks().dictionary_encode()
            several = len(part.dictionary) + 1
            if (int(code.max()) + 1) * several >= 2**62:
                code = np.unique(code, return_inverse=True)[1]
            code = code * several + part.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(code, kind="stable")
        same = code[order][1:] == code[order][:-1]
        if not same.any():
            return None
        again = np.concatenate([[False], same]) | np.concatenate([same, [False]])
        versions = order[again]
        tail = [self._tail(position)[versions] for position in range(len(self._plan.tail_columns))]
        until_us = np.full(len(code), NEVER_US, dtype=np.int64)
        until_us[versions] = superseded_us(code[versions], self._known_us[versions], self._event_us[versions], tail)
        return until_us

    def _span(self, window_us: int, until_us: Int64 | None) -> tuple[Int64, Int64, Int64]:
        """The first place that counts each event, the place after the last, and which events any place counts."""
        end_us = self._event_us + window_us
        if until_us is not None:
            end_us = np.minimum(end_us, until_us)
        high = self._asked.low(self._entity, end_us)
        counting = np.flatnonzero(self._low < high)
        return self._low[counting], high[counting], counting

    def _windows(
        self, wanted: Mapping[str, AggregationPlan], low: Int64, high: Int64, counting: Int64
    ) -> dict[str, pa.Array]:
        size = self._asked.size
        found: dict[str, pa.Array] = {}
        summed: dict[str, _Sums] = {}
        for name, a in wanted.items():
            if a.function == "count" and a.column is None:
                found[name] = self._floats(spans.counts(size, low, high).astype(np.float64), empty=0.0)
                continue
            position = self._plan.tail_position(a)
            values = self._tail(position)[counting]
            there = values != spans.LEAST
            ours = (low, high) if there.all() else (low[there], high[there])
            values = values if there.all() else values[there]
            if a.function in ("min", "max"):
                sign = 1 if a.function == "max" else -1
                best = spans.greatest(size, ours[0], ours[1], sign * values)
                result = np.full(size, np.nan)
                result[best != spans.LEAST] = from_order(sign * best[best != spans.LEAST])
                found[name] = self._floats(result)
            elif a.function == "count_distinct":
                entity = self._entity[counting][there]
                found[name] = self._floats(
                    spans.different(size, ours[0], ours[1], entity, values).astype(np.float64), empty=0.0
                )
            elif a.function == "count":
                found[name] = self._floats(spans.counts(size, *ours).astype(np.float64), empty=0.0)
            else:
                if a.reads not in summed:
                    what = f"view '{self._plan.name}' over {duration_text(a.window_us or 0)}"
                    scale = self._plan.tail_columns[position].scale
                    summed[a.reads] = _Sums(what, size, ours[0], ours[1], values, scale)
                found[name] = self._floats(summed[a.reads].finished(a.function))
        return found

    def _tail(self, position: int) -> Int64:
        values: Int64 = self._events[f"tail_{position}"].fill_null(spans.LEAST).to_numpy()
        return values if self._chosen is None else values[self._chosen]

    def _taken(self, name: str, events: Int64 | None = None) -> pa.ChunkedArray:
        """A column of these events, or of all."""
        import pyarrow as pa

        if events is None and self._chosen is None:
            return self._events[name]
        return self._events[name].take(pa.array(self._chosen if events is None else self._row_of(events)))

    def _row_of(self, events: Int64) -> Int64:
        return events if self._chosen is None else self._chosen[events]

    def _floats(self, values: Any, empty: float = np.nan) -> pa.Array:
        """Values by place as a column, null where NaN. empty: what rows say whose entity no event has."""
        import pyarrow as pa

        column = np.full(self._rows, empty)
        column[self._asked.order] = values
        return pa.array(column, mask=np.isnan(column))

    def _times(self, latest_us: Int64) -> pa.Array:
        import pyarrow as pa

        times = np.zeros(self._rows, dtype=np.int64)
        missing = np.ones(self._rows, dtype=bool)
        times[self._asked.order] = latest_us
        missing[self._asked.order] = latest_us == spans.LEAST
        return pa.array(times, mask=missing).cast(pa.timestamp("us", tz="UTC"))


class _Sums:
    """The exact sums of one column over one window's length, by place."""

    def __init__(self, what: str, size: int, low: Int64, high: Int64, values: Int64, scale: int) -> None:
        self._spans = (size, low, high, values)
        self._scale = scale
        self._count = spans.counts(size, low, high)
        self._total = spans.sums(size, low, high, values)
        self._most = int(np.abs(values).max(initial=0)) * int(self._count.max(initial=0))
        if self._most >= 2**63 and (abs(spans.exact_sums(size, low, high, values)) >= 2**63).any():
            raise SumTooLarge(f"a sum of {what} does not fit into 64 bits.", next="Give a coarser resolution=.")

    def finished(self, function: str) -> Any:
        squares = None
        if function == "std":
            if self._most**2 < 2**62:  # then so is every count x sum of squares
                squares = spans.sums(*self._spans[:3], self._spans[3] ** 2)
            else:
                squares = spans.exact_squares(*self._spans)
        return finish(function, self._total, self._count, self._scale, squares)


def check_names(columns: Sequence[str], views: Sequence[FeatureView | ViewPlan], event_times: bool) -> None:
    """Raise NameTaken when the rows have a column that a view makes, or two views make one."""
    taken = set(columns)
    for view in views:
        for name in [*view.features, *([EVENT_TIME] if event_times else [])]:
            column = f"{view.name}__{name}"
            if column in taken:
                raise NameTaken(
                    f"the rows would have two columns '{column}'.",
                    expected=f"View '{view.name}' makes it: the rows have none, and no other view makes it too.",
                    state="Nothing was joined.",
                    next="Rename the rows' column, or leave it or the view out.",
                )
            taken.add(column)


def _check_keys(plan: ViewPlan, rows: pa.Table, source_rows: pa.Table) -> None:
    for key in plan.keys:
        if key not in source_rows.column_names:
            continue  # `view_events` says so
        if len(source_rows) and len(rows):
            check_key(plan, key, rows[key].type, source_rows[key].type)


def check_key(plan: ViewPlan, key: str, asked: pa.DataType, there: pa.DataType) -> None:
    """Raise KeyMissing when a key of these types can never be one entity. asked: of the rows; there: of the source."""
    ours, theirs = _family(asked), _family(there)
    if ours != theirs and "null" not in (ours, theirs):
        source = plan.source.name if plan.source else ""
        whole = (ours, theirs) == ("float", "integer")
        raise KeyMissing(
            f"key '{key}' is {ours} in the rows and {theirs} in source '{source}' of view '{plan.name}'.",
            expected="A key needs one type on both sides.",
            next=f"In pandas: rows['{key}'].astype(\"Int64\")." if whole else "",
        )


def _entities(plan: ViewPlan, rows: pa.Table, events: pa.Table) -> tuple[Int64, Int64, int]:
    """For each row and each event the number of its entity among those of the rows, -1 for none; how many there are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    asking, happened = np.zeros(len(rows), dtype=np.int64), np.zeros(len(events), dtype=np.int64)
    number = 1
    for i, key in enumerate(plan.keys):
        ours, theirs = _of_one_type(as_kept(rows[key]), events[f"key_{i}"])
        encoded = ours.combine_chunks().dictionary_encode()
        ours_code = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        theirs_code = pc.index_in(theirs, value_set=encoded.dictionary).cast(pa.int64()).fill_null(-1).to_numpy()
        if i == 0:
            asking, happened, number = ours_code, theirs_code, max(len(encoded.dictionary), 1)
            continue
        several = max(len(encoded.dictionary), 1)
        asking = np.where((asking < 0) | (ours_code < 0), -1, asking * several + ours_code)
        happened = np.where((happened < 0) | (theirs_code < 0), -1, happened * several + theirs_code)
        together = np.unique(asking[asking >= 0])
        number = max(len(together), 1)
        asking = np.where(asking < 0, -1, np.searchsorted(together, asking))
        place = np.searchsorted(together, happened)
        there = np.append(together, -2)[place] == happened
        happened = np.where(there, place, -1)
    return asking, happened, number


def _of_one_type(ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Two columns of keys of one family, made comparable."""
    import pyarrow as pa

    if pa.types.is_null(ours.type) or pa.types.is_null(theirs.type):
        return (ours.cast(theirs.type), theirs) if pa.types.is_null(ours.type) else (ours, theirs.cast(ours.type))
    kind = pa.int64() if pa.types.is_integer(ours.type) else pa.string() if _family(ours.type) == "string" else None
    if kind is None:
        return ours, theirs.cast(ours.type)
    try:
        return ours.cast(kind), theirs.cast(kind)
    except pa.ArrowInvalid:  # beyond 2**63
        return ours.cast(pa.string()), theirs.cast(pa.string())


def _family(kind: pa.DataType) -> str:
    """The kind of key that values of this Arrow type are: integers of any width are one kind."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind):
        return "float"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return "string"
    return str(kind)
