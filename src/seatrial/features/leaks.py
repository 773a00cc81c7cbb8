"""Leaks: does a column of the training set know more than could be known at its row's instant?

The join takes from a view only what was known at a row's instant. It cannot look into the queries below: a mean over
the whole day, taken in the SQL of a label source or of a view's source, reads rows of the same day that happened
later. So some rows are computed again. For a few instants, every source below that says when its rows were known is
cut to those known by then, the queries run on what is left, and each column is compared with the training set.

- `leaks`: the value changes. Such a model promises offline what it cannot keep when it is served.
- `verified`: the value is the same on every row tried.
- `unverifiable`: nothing could be computed again: the column comes ready-made from a file, no source below says when
  its rows were known, or a query combines rows of a table that does not say. This is no verdict that it is clean.

A label query combines rows by any join; a view's, only by one of a table with itself, since its rows carry their own
times, and what is looked up belongs to the row.

A label source itself is not cut by its own times: its row is the one that is asked about. What its query reads is. Rows
of sources without times are left whole, and named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import GateRefused, listed
from seatrial.core.windows import duration_text
from seatrial.data.sources import QuerySource, Source, raw_sources
from seatrial.features.training_set import AT, build

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView
    from seatrial.features.plan import FeaturePlan, ViewPlan

Status = Literal["verified", "leaks", "unverifiable"]
INSTANTS, ROWS_PER_INSTANT, ENOUGH_ROWS = 12, 8, 40
TOLERANCE = 1e-9  # relative; a query may add its floats in another order when there are fewer of them
HORIZONS_US = tuple(hours * 3_600_000_000 for hours in (1, 6, 24, 7 * 24, 31 * 24, 366 * 24))
MODIFIERS = ("DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER")


class LeakFound(GateRefused):
    """A column of the training set changes when it is computed again from what was known at the row's instant."""

    code = "features.leak"


class ColumnCheck(msgspec.Struct, frozen=True):
    """What is known of one column. source: the label source, the view's source, or empty for a function.

    rows: rows compared; changed: those whose value changed. why: of `leaks` and `unverifiable`, in words.
    """

    column: str
    status: Status
    source: str
    rows: int
    changed: int
    why: str = ""


class Leak(msgspec.Struct, frozen=True):
    """One row of a column that leaks.

    trained: the value in the training set. recomputed: the value from what was known at `at`.
    reads: the sources whose later rows it reads. within: how much later these became known at most; empty: unknown.
    """

    column: str
    source: str
    key: dict[str, Any]
    at: str
    trained: Any
    recomputed: Any
    reads: list[str]
    within: str


class LeakReport(msgspec.Struct, frozen=True):
    """The check of one model. instants: at which rows were computed again. rows: how many rows were tried.

    left_whole: the sources below that do not say when their rows were known.
    """

    model: str
    rows: int
    instants: list[str]
    columns: list[ColumnCheck]
    leaks: list[Leak] = []
    left_whole: list[str] = []

    def of(self, status: Status) -> list[ColumnCheck]:
        return [one for one in self.columns if one.status == status]


@dataclass(frozen=True)
class Guarded:
    """What of a model is looked at.

    key: columns that name a label row; target: never compared; request: the label source's columns that a request has.
    rows: uncut rows of any source of the tree. seed: of the choice of rows.
    """

    model: str
    labels: Source
    key: Sequence[str]
    target: str
    request: Sequence[str]
    plan: FeaturePlan
    views: Mapping[str, FeatureView]
    rows: Callable[[Source], pa.Table]
    folder: Path
    seed: int = 42
    threads: int = 1


def check(guarded: Guarded, training_set: pa.Table) -> LeakReport:
    """Compute a few rows of a training set again, each as of its own instant, and compare.

    training_set: label rows with `at`, the key, the request's columns and every feature of the plan.
    """
    below = [guarded.labels, *(view.source for view in guarded.views.values())]
    whole = sorted({name for source in below for name in _untimed(source)})
    if AT not in training_set.column_names or not training_set.num_rows:
        why = "the rows have no time, so there is no instant to compute them as of"
        names = [*guarded.request, *guarded.plan.feature_columns]
        columns = [ColumnCheck(name, "unverifiable", guarded.labels.name, 0, 0, why) for name in names]
        return LeakReport(guarded.model, 0, [], columns, left_whole=whole)
    chosen = _chosen(training_set, guarded.seed)
    trials = [_Trial(at_us, training_set.take(rows)) for at_us, rows in chosen.items()]
    columns, leaks = _check_request(guarded, trials)
    status = {one.column: one for one in columns}
    more, found = _check_features(guarded, trials, status)
    return LeakReport(
        guarded.model,
        sum(trial.rows.num_rows for trial in trials),
        [iso(from_us(at_us)) for at_us in chosen],
        [*columns, *more],
        [*leaks, *found],
        whole,
    )


def refusal(report: LeakReport) -> LeakFound:
    """The error for a model with leaks. Its facts: model, columns, and each leak as plain values."""
    leaks, columns = report.leaks, report.of("leaks")
    lines = []
    for one in columns:
        leak = next(leak for leak in leaks if leak.column == one.column)
        key = ", ".join(f"{name} {value}" for name, value in leak.key.items())
        lines.append(
            f"  {one.column} of source '{leak.source}': {one.changed} of {one.rows} rows tried. {key or 'A row'} at "
            f"{leak.at}: {_said(leak.trained)} in the training set, {_said(leak.recomputed)} from what was known "
            f"then; {one.why}."
        )
    first = columns[0]
    names = [f"'{one.column}'" for one in columns]
    return LeakFound(
        f"model '{report.model}' would learn from {listed(names)}, which "
        f"{'changes' if len(columns) == 1 else 'change'} when computed again from what was known at the row's instant.",
        expected="\n".join(
            ["What is known only later is not there when the model is served:", *lines[:5]]
            + ([f"  and {len(lines) - 5} more"] if len(lines) > 5 else [])
        ),
        state="Nothing was trained.",
        next=f"Make '{first.column}' a feature of a view, which is joined as of the row's instant, or let its query "
        f"look back only; `seatrial features leaks {report.model}` shows every column.",
        model=report.model,
        columns=[one.column for one in columns],
        leaks=[msgspec.to_builtins(leak) for leak in leaks],
    )


def note(report: LeakReport) -> str:
    """One sentence on what could not be checked; empty when everything was."""
    unknown = report.of("unverifiable")
    if not unknown:
        return ""
    return (
        f"{len(unknown)} of {len(report.columns)} columns cannot be checked for leaks, because nothing says when what "
        f"they are made from was known ({listed([one.column for one in unknown], most=3)}); "
        f"`seatrial features leaks {report.model}` says why of each"
    )


# Which rows


@dataclass(frozen=True)
class _Trial:
    """Rows of the training set with one instant."""

    at_us: int
    rows: pa.Table


def _chosen(training_set: pa.Table, seed: int) -> dict[int, list[int]]:
    """instant -> rows of it, by the seed: an instant from each of 12 stretches of equal numbers of rows, in any order,
    until there are enough rows."""
    import pyarrow as pa

    at = training_set[AT].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    draw = np.random.default_rng(seed)
    stretches = np.array_split(np.argsort(at, kind="stable"), min(INSTANTS, len(at)))
    chosen: dict[int, list[int]] = {}
    for place in draw.permutation(len(stretches)):
        if sum(map(len, chosen.values())) >= ENOUGH_ROWS:
            break
        at_us = int(at[draw.choice(stretches[place])])
        same = np.flatnonzero(at == at_us)
        taken = draw.choice(same, min(ROWS_PER_INSTANT, len(same)), replace=False)
        chosen.setdefault(at_us, sorted(int(row) for row in taken))
    return dict(sorted(chosen.items()))


# Cutting


Limit = Callable[[Source], "int | None"]
"""Up to which instant the rows of a source are taken; None: all of them."""


@dataclass(frozen=True)
class _Cut:
    """Rows of a tree of sources as they could be known at an instant.

    own: model key values whose rows stay in every source that has the key's columns, whatever their time.
    """

    guarded: Guarded
    limit: Limit
    own: Sequence[Mapping[str, Any]] = ()
    _read: dict[int, pa.Table] = field(default_factory=dict)
    _made: dict[int, pa.Table] = field(default_factory=dict)

    def rows(self, source: Source) -> pa.Table:
        """The rows of a source, its queries run on what is left below, and not cut at its own level."""
        if id(source) not in self._read:
            self._read[id(source)] = self._run(source)
        return self._read[id(source)]

    def _run(self, source: Source) -> pa.Table:
        from seatrial.data.reading import SourceEmpty, read

        if not isinstance(source, QuerySource) or not _timed_below(source):
            return self.guarded.rows(source)
        tables = {one.name: self.cut(one) for one in source.tables.values()}
        try:
            return read(source, folder=self.guarded.folder, tables=tables).table
        except SourceEmpty:
            return self.guarded.rows(source).slice(0, 0)

    def cut(self, source: Source) -> pa.Table:
        """The rows of a source that could be known at its limit."""
        if id(source) not in self._made:
            self._made[id(source)] = self.known(source, self.rows(source))
        return self._made[id(source)]

    def known(self, source: Source, rows: pa.Table) -> pa.Table:
        """Of a source's rows those that could be known at its limit, without labels that were not."""
        import pyarrow as pa
        import pyarrow.compute as pc

        limit, known = self.limit(source), _known_column(source)
        if limit is None or known is None:
            return rows
        until = pa.scalar(limit, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        stays = pc.fill_null(pc.less_equal(rows[known], until), False)
        own = self._own(rows)
        if own is not None:
            stays = pc.or_(stays, own)
        rows = rows.filter(stays)
        if source.label_known_at is None:
            return rows
        own = self._own(rows)
        told = pc.fill_null(pc.less_equal(rows[source.label_known_at], until), False)
        told = told if own is None else pc.or_(told, own)
        for column in {source.label_known_at, self.guarded.target} & set(rows.column_names):
            hidden = pc.if_else(told, rows[column], pa.scalar(None, rows[column].type))
            rows = rows.set_column(rows.column_names.index(column), column, hidden)
        return rows

    def _own(self, rows: pa.Table) -> Any:
        """Which rows carry one of the own keys; None when there are none, or the source does not have them."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.own or not set(self.guarded.key) <= set(rows.column_names):
            return None
        found = pa.array(np.zeros(rows.num_rows, dtype=bool))
        for key in self.own:
            same = pa.array(np.ones(rows.num_rows, dtype=bool))
            for name, value in key.items():
                same = pc.and_(same, pc.fill_null(pc.equal(rows[name], pa.scalar(value, rows[name].type)), False))
            found = pc.or_(found, same)
        return found


def _at(instant_us: int | None) -> Limit:
    return lambda _: instant_us


def _known_column(source: Source) -> str | None:
    return source.known_at or source.event_timestamp


def _timed_below(source: Source) -> list[Source]:
    """The sources strictly below that say when their rows were known."""
    found: list[Source] = []
    for table in source.tables.values() if isinstance(source, QuerySource) else ():
        found += [table] if _known_column(table) else []
        found += _timed_below(table)
    return list({one.name: one for one in found}.values())


def _untimed(source: Source) -> list[str]:
    return [one.name for one in raw_sources(source) if _known_column(one) is None]


def _open(source: Source) -> set[str]:
    """Raw sources without a time that no level from here down is cut by."""
    if _known_column(source):
        return set()
    if not isinstance(source, QuerySource):
        return {source.name}
    return {name for table in source.tables.values() for name in _open(table)}


def _combined(source: Source, *, joins: bool) -> str:
    """Why a source cannot be computed again as of an instant: a query that combines rows that nothing cuts.

    joins: whether any join combines rows, see `combines_rows`.
    """
    if not isinstance(source, QuerySource):
        return ""
    for table in source.tables.values():
        if why := _combined(table, joins=joins):
            return why
    unknown = {name for table in source.tables.values() for name in _open(table)}
    named = tuple((alias.lower(), table.name) for alias, table in source.tables.items())
    if unknown and combines_rows(source.sql, named, joins=joins):
        return (
            f"the query of '{source.name}' combines rows, and nothing says when those of {listed(sorted(unknown))} "
            "were known"
        )
    return ""


@cache
def combines_rows(sql: str, named: tuple[tuple[str, str], ...] = (), *, joins: bool = False) -> bool:
    """Whether a row of the result may depend on several rows of one table: aggregates, windows, subqueries, self-joins.

    named: what the SQL calls a table, in lower case, and the table's name. joins: whether every join counts.
    True also when DuckDB cannot tell how the query is built.
    """
    from seatrial.data.session import session

    with session() as connection:
        (told,) = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0]
    tree = msgspec.json.decode(told)
    if tree.get("error"):
        return True
    tables: list[str] = []
    for node in _nodes(tree):
        kind, type_ = node.get("class"), node.get("type")
        if kind in ("WINDOW", "SUBQUERY") or type_ == "PIVOT" or type_ in MODIFIERS or (joins and type_ == "JOIN"):
            return True
        if kind == "FUNCTION" and node.get("function_name") in _aggregates():
            return True
        if node.get("group_expressions") or (type_ == "SET_OPERATION_NODE" and not node.get("setop_all")):
            return True
        if type_ == "BASE_TABLE":
            name = str(node.get("table_name")).lower()
            tables.append(dict(named).get(name, name))
    return len(tables) != len(set(tables))


@cache
def _aggregates() -> frozenset[str]:
    """The names of DuckDB's aggregates."""
    from seatrial.data.session import session

    with session() as connection:
        rows = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        ).fetchall()
    return frozenset(name for (name,) in rows)


def _nodes(tree: Any) -> Iterable[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for part in tree:
            yield from _nodes(part)


# Columns of the request


def _check_request(guarded: Guarded, trials: Sequence[_Trial]) -> tuple[list[ColumnCheck], list[Leak]]:
    """The label source's columns, computed again."""
    labels = guarded.labels
    names = [name for name in guarded.request if name != guarded.target]

    def all_unverifiable(why: str) -> tuple[list[ColumnCheck], list[Leak]]:
        return [ColumnCheck(name, "unverifiable", labels.name, 0, 0, why) for name in names], []

    if not names:
        return [], []
    if not isinstance(labels, QuerySource):
        return all_unverifiable("ready-made: it is a column of the label source, which no query computes")
    timed = _timed_below(labels)
    if not timed:
        return all_unverifiable(f"no source below '{labels.name}' says when its rows were known")
    if not guarded.key:
        return all_unverifiable("the model names no key=, by which its rows could be found again")
    compared = [_Compared(trial, _found_again(guarded, trial, _at(trial.at_us))) for trial in trials]
    own = not any(row is not None for one in compared for row in one.again)
    if own:  # the query takes only rows with an outcome, which is known later: leave the rows' own
        compared = [_Compared(trial, _found_again(guarded, trial, _at(trial.at_us), own=True)) for trial in trials]
    if not any(row is not None for one in compared for row in one.again):
        return all_unverifiable(f"the query of '{labels.name}' gives none of the rows tried without what came later")
    suspects = [name for name in names if any(one.changed(name) for one in compared)]
    unstable: set[str] = set()
    if suspects:
        control = [_Compared(trial, _found_again(guarded, trial, _at(None))) for trial in trials]
        unstable = {name for name in suspects if any(one.changed(name) for one in control)}
    combined = _combined(labels, joins=True)
    columns, leaks = [], []
    for name in names:
        rows, changed = sum(one.count for one in compared), sum(len(one.changed(name)) for one in compared)
        status: Status = "verified"
        why = ""
        if name in unstable:
            status, why = "unverifiable", "its query gives other values each time that it runs"
        elif changed:
            status = "leaks"
            leaks.append(_traced(guarded, next(one for one in compared if one.changed(name)), name, timed, own=own))
            why = _why(leaks[-1])
        elif combined:
            status, why = "unverifiable", combined
        elif own:
            status = "unverifiable"
            why = "its rows are there only with their outcome, which it may read; a LEFT JOIN to the outcome tells"
        columns.append(ColumnCheck(name, status, labels.name, rows, changed, why))
    return columns, leaks


@dataclass(frozen=True)
class _Compared:
    """Rows of a trial beside themselves, computed again; None for one that was not found again, or not only once."""

    trial: _Trial
    again: list[dict[str, Any] | None]

    @property
    def count(self) -> int:
        return sum(row is not None for row in self.again)

    def changed(self, name: str) -> list[int]:
        """The rows whose value is another."""
        values = self.trial.rows[name].to_pylist()
        return [
            position
            for position, row in enumerate(self.again)
            if row is not None and not _equal(values[position], row[name])
        ]


def _found_again(guarded: Guarded, trial: _Trial, limit: Limit, *, own: bool = False) -> list[dict[str, Any] | None]:
    """The trial's rows as the label query gives them from what is left, found by instant and key."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = trial.rows.select(list(guarded.key)).to_pylist()
    cut = _Cut(guarded, limit, own=keys if own else ())
    again = cut.rows(guarded.labels)
    instant = pa.scalar(trial.at_us, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    same = pc.fill_null(pc.equal(again[guarded.labels.event_timestamp], instant), False)
    wanted = dict.fromkeys([*guarded.key, *guarded.request])
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in again.select(list(wanted)).filter(same).to_pylist():
        found.setdefault(tuple(row[name] for name in guarded.key), []).append(row)
    matches = [found.get(tuple(key.values()), []) for key in keys]
    return [one[0] if len(one) == 1 else None for one in matches]


def _traced(guarded: Guarded, compared: _Compared, name: str, timed: Sequence[Source], *, own: bool) -> Leak:
    """One changed row, the sources whose later rows change it, and how much later these were known."""
    position = compared.changed(name)[0]
    trial = _Trial(compared.trial.at_us, compared.trial.rows.slice(position, 1))
    had, again = trial.rows[name][0].as_py(), compared.again[position]
    assert again is not None

    def still(limit: Limit) -> bool:
        row = _found_again(guarded, trial, limit, own=own)[0]
        return row is None or not _equal(had, row[name])

    def only(source: Source) -> Limit:
        return lambda one: trial.at_us if one.name == source.name else None

    return Leak(
        column=name,
        source=guarded.labels.name,
        key={key: _plain(trial.rows[key][0].as_py()) for key in guarded.key},
        at=iso(from_us(trial.at_us)),
        trained=_plain(had),
        recomputed=_plain(again[name]),
        reads=[source.name for source in timed if still(only(source))] or [source.name for source in timed],
        within=next((duration_text(later) for later in HORIZONS_US if not still(_at(trial.at_us + later))), ""),
    )


# Features of views


def _check_features(
    guarded: Guarded, trials: Sequence[_Trial], request: Mapping[str, ColumnCheck]
) -> tuple[list[ColumnCheck], list[Leak]]:
    """The features of views, joined again from cut sources, and the functions over them."""
    plan = guarded.plan
    if not plan.feature_columns:
        return [], []
    compared = [_Compared(trial, _joined_again(guarded, trial, _at(trial.at_us))) for trial in trials]
    suspects = [name for name in plan.feature_columns if any(one.changed(name) for one in compared)]
    unstable: set[str] = set()
    if suspects:
        control = [_Compared(trial, _joined_again(guarded, trial, _at(None))) for trial in trials]
        unstable = {name for name in suspects if any(one.changed(name) for one in control)}
    columns: dict[str, ColumnCheck] = {}
    leaks = []
    view_of = {f"{view.name}__{feature}": view for view in plan.views for feature in view.features}
    combined = {view.name: _combined(guarded.views[view.name].source, joins=False) for view in plan.views}
    args = {function.name: function.args for function in plan.functions}
    for name in plan.feature_columns:
        rows, changed = sum(one.count for one in compared), sum(len(one.changed(name)) for one in compared)
        view = view_of.get(name)
        source = guarded.views[view.name].source if view else None
        status: Status = "verified"
        why = ""
        if name in unstable:
            status, why = "unverifiable", "its query gives other values each time that it runs"
        elif changed:
            status = "leaks"
            leaks.append(_traced_join(guarded, next(one for one in compared if one.changed(name)), name, source))
            why = _why(leaks[-1])
        elif view and combined[view.name]:
            status, why = "unverifiable", combined[view.name]
        elif not view:
            made_of = {**request, **columns}
            unknown = [arg for arg in args[name] if arg in made_of and made_of[arg].status != "verified"]
            if unknown:
                status, why = "unverifiable", f"it is computed from {listed(unknown)}"
        columns[name] = ColumnCheck(name, status, source.name if source else "", rows, changed, why)
    return list(columns.values()), leaks


def _joined_again(guarded: Guarded, trial: _Trial, limit: Limit) -> list[dict[str, Any] | None]:
    """The trial's rows with every feature joined from what is left of the views' sources."""
    made = set(guarded.plan.feature_columns)
    rows = trial.rows.select([name for name in trial.rows.column_names if name not in made])
    cut = _Cut(guarded, limit)
    events = {
        view.name: cut.known(source, _narrowed(cut.rows(source), view, rows, trial.at_us))
        for view, source in ((view, guarded.views[view.name].source) for view in guarded.plan.views)
    }
    joined = build(rows, guarded.plan, guarded.views, events, threads=guarded.threads)
    return list(joined.select(list(guarded.plan.feature_columns)).to_pylist())


def _narrowed(events: pa.Table, view: ViewPlan, rows: pa.Table, at_us: int) -> pa.Table:
    """The events without those that cannot count for these rows: of other entities, or older than any window and ttl.

    Where rows are restated later than they happened, none is left out for its age.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    aggregations = view.features.values()
    reach = [view.ttl_us if one.window_us is None else one.window_us for one in aggregations]
    if view.source is not None and view.source.known_at is None and None not in reach:
        oldest = pa.scalar(at_us - max(one for one in reach if one is not None) - 1, pa.int64())
        young = pc.greater_equal(events[view.source.event_timestamp], oldest.cast(pa.timestamp("us", tz="UTC")))
        events = events.filter(pc.fill_null(young, True))
    for key in view.keys:
        if key in rows.column_names and rows[key].type == events[key].type:
            events = events.filter(pc.is_in(events[key], value_set=rows[key].combine_chunks().drop_null()))
    return events


def _traced_join(guarded: Guarded, compared: _Compared, name: str, source: Source | None) -> Leak:
    position = compared.changed(name)[0]
    trial = _Trial(compared.trial.at_us, compared.trial.rows.slice(position, 1))
    had, again = trial.rows[name][0].as_py(), compared.again[position]
    assert again is not None
    timed = _timed_below(source) if source else []

    def still(limit: Limit) -> bool:
        row = _joined_again(guarded, trial, limit)[0]
        return row is None or not _equal(had, row[name])

    def only(cut: Source) -> Limit:
        return lambda one: trial.at_us if one.name == cut.name else None

    return Leak(
        column=name,
        source=source.name if source else "",
        key={key: _plain(trial.rows[key][0].as_py()) for key in guarded.key},
        at=iso(from_us(trial.at_us)),
        trained=_plain(had),
        recomputed=_plain(again[name]),
        reads=[one.name for one in timed if still(only(one))] or [one.name for one in timed],
        within=next((duration_text(later) for later in HORIZONS_US if not still(_at(trial.at_us + later))), ""),
    )


def _why(leak: Leak) -> str:
    names = [f"'{name}'" for name in leak.reads]
    reads = listed(names) if names else "a source"
    later = f" up to {leak.within} later" if leak.within else " later"
    return f"it reads rows of {reads} that became known{later}"


def _equal(a: Any, b: Any) -> bool:
    missing = [value is None or value != value for value in (a, b)]
    if any(missing):
        return all(missing)
    if isinstance(a, float) or isinstance(b, float):
        return math.isclose(float(a), float(b), rel_tol=TOLERANCE, abs_tol=0.0)
    return bool(a == b)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _said(value: Any) -> str:
    return "nothing" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
