"""A log that may not leave its database: the same report, made of aggregates that PostgreSQL computes.

What crosses the wire are counts by bin or category of the reference, by day and hundredth of the score, and minima,
maxima, sums and quantiles: no row. Quality and drift are those of the rows themselves. What is measured with labels
comes from the counts by day, hundredth of the score and label, so that it is right to about 0.005 of the score; of a
regression only the predictions themselves are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.windows import Window, duration_us
from seatrial.data.postgres import NUMBERS, TEXTS, Asked, Column, asked
from seatrial.data.sources import PostgresSource
from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.imported import LogColumnNotThere, LogColumnWrong, compared_with, told_next
from seatrial.monitoring.monitor import make_report
from seatrial.monitoring.report import Report
from seatrial.monitoring.rows.labels import LabelCounts
from seatrial.monitoring.rows.mapping import ColumnMap, read_map
from seatrial.monitoring.rows.reference import Column as Known
from seatrial.monitoring.rows.reference import Numbers, Reference
from seatrial.monitoring.rows.sample import Sample
from seatrial.monitoring.rows.tally import RARE, Tallies, Tally
from seatrial.stats.profile import FORMAT, LARGEST, MOST_VALUES, WEEK_US, counted_profile, edges_of, weeks_of

if TYPE_CHECKING:
    import pyarrow as pa

DAY_US = 86_400_000_000
STEPS = 100
"""Bins of the score in what is measured with labels."""
OUT = {0: -1.0, STEPS + 1: 2.0}
"""What a score below 0, or above 1, counts as: it is impossible whatever it is."""
TIMES = frozenset({"timestamptz", "timestamp", "date"})
UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}


class NotInDatabase(UsageError):
    """A report that needs the rows themselves was asked of rows that stay in their database."""

    code = "monitor.not_in_database"


class NothingThere(Failed):
    """The table of predictions is empty, or has none of the model's inputs."""

    code = "monitor.nothing_in_database"


def monitor_database(
    source: PostgresSource,
    mapping: Path,
    reference: Path | None = None,
    *,
    as_of_us: int,
    window: Window | None = None,
    alarms: Sequence[Alarm] = (),
    against: str | None = None,
) -> Report:
    """The report on a table or query of predictions, with what was known at `as_of_us`. Nothing is written.

    As `imported.monitor_log`; `reference` is a local file, or `against` a window of the same table.
    """
    columns = read_map(mapping)
    if columns.task == "multiclass":
        raise NotInDatabase(
            f'the map {mapping} says task = "multiclass".',
            expected="Of rows that stay in their database, models that are binary or a regression are reported on.",
            state="Nothing was read.",
        )
    monitor = replace(columns.monitor, alarms=(*columns.monitor.alarms, *alarms))
    with asked(source) as rows:
        view = _View(rows, columns, source.name)
        last = view.last_us(as_of_us)
        length = duration_us(monitor.window)
        end = as_of_us if last is None else min(as_of_us, (last // DAY_US + 1) * DAY_US)
        window = window or Window(end - length, end)
        sample = _sample(view, columns, window, as_of_us)
        compared, notes = compared_with(reference, against, columns, sample, window)
        report = make_report(
            sample,
            window=window,
            as_of_us=as_of_us,
            monitor=monitor,
            reference=compared,
            training=columns.tested,
            owner=columns.owner,
            on_call=columns.on_call,
            runbook=columns.runbook,
        )
    notes = [*notes, *view.left_out, *_approximate(columns)]
    return msgspec.structs.replace(report, findings=[*report.findings, *notes], next=told_next(report))


def _approximate(columns: ColumnMap) -> list[str]:
    if columns.task == "regression":
        return [
            "the rows stayed in their database, so nothing was measured with labels of this "
            "regression, and the policy was not run over it"
        ]
    return [
        "the rows stayed in their database: quality and drift are exact; what is measured with labels comes from "
        f"counts by day and hundredth of the score, and is right to about {0.5 / STEPS:g} of it; the policy was not run"
    ]


# The rows, in SQL


@dataclass
class _View:
    """The log's columns as SQL: `at_us`, `score`, `label`, `known_us` and the inputs `i0`, `i1`, ..."""

    rows: Asked
    map: ColumnMap
    source: str
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        there = {column.name: column for column in self.rows.columns}
        named = self.map.named()
        wanted = {role: name for role, name in named.items() if not role.startswith("key ")}
        wanted |= {f"features {name}": name for name in self.map.features or ()}
        lacking = [f"'{name}' ({role.partition(' ')[0]})" for role, name in wanted.items() if name not in there]
        if lacking or not self.map.timestamp or not self.map.score:
            hints = [did_you_mean(name, list(there)) for name in wanted.values() if name not in there]
            raise LogColumnNotThere(
                f"the rows of '{self.source}' have no {listed(lacking or ['`timestamp` or `score` in the map'])}.",
                expected=" ".join([f"They have {listed(list(there), most=20)}.", *filter(None, hints)]),
                state="Nothing was reported.",
                next="Correct the map.",
            )
        taken = {*named.values(), *self.map.without}
        names = self.map.features if self.map.features is not None else [one for one in there if one not in taken]
        self.kinds: dict[str, bool] = {}
        self.inputs: dict[str, str] = {}
        for name in names:
            column = there[name]
            if (column.type in TEXTS or column.enum) and not column.array:
                self.kinds[name] = True
            elif column.type in {*NUMBERS, "numeric", "bool"} and not column.array:
                self.kinds[name] = False
            elif self.map.features is None:
                self.left_out.append(f"column '{name}' is {column.type} and no input that can be compared; left out")
                continue
            else:
                raise LogColumnWrong(
                    f"column '{name}' of '{self.source}' is {column.type}, and the map says that it is an input.",
                    expected="Numbers or text are expected.",
                    next="Take it out of `features`.",
                )
            self.inputs[name] = f"i{len(self.inputs)}"
        self.sql = self._selected(there)

    def _selected(self, there: Mapping[str, Column]) -> str:
        said = self.map
        parts = [f"{self._instant(there[said.timestamp])} AS at_us", f"{_number(there[said.score])} AS score"]
        label = "NULL::float8"
        if said.label and said.positive is not None:
            positive = said.positive
            words = str(positive).lower() if isinstance(positive, bool) else str(positive)
            label = f"({_quoted(said.label)}::text = {self.rows.literal(words)})::int::float8"
        elif said.label:
            label = _number(there[said.label])
        known = self._instant(there[said.label_known_at]) if said.label_known_at else parts[0].removesuffix(" AS at_us")
        ids = f"{_quoted(said.prediction_id)}::text" if said.prediction_id else "NULL::text"
        parts += [f"{label} AS label", f"{known} AS known_us", f"{ids} AS id"]
        for name, short in self.inputs.items():
            parts.append(
                f"{_quoted(name)}::text AS {short}" if self.kinds[name] else f"{_number(there[name])} AS {short}"
            )
        return f"SELECT {', '.join(parts)} FROM ({self.rows.inner}\n) AS r"

    def _instant(self, column: Column) -> str:
        """Microseconds since 1970."""
        name, said = _quoted(column.name), self.map
        if column.type == "timestamptz":
            return f"(extract(epoch FROM {name}) * 1000000)::bigint"
        if column.type in TIMES or column.type in TEXTS:
            zone = self.rows.literal(said.timezone or "UTC")
            as_time = name if column.type in TIMES else f"{name}::timestamptz"
            as_time = as_time if column.type in TEXTS else f"({as_time}::timestamp AT TIME ZONE {zone})"
            return f"(extract(epoch FROM {as_time}) * 1000000)::bigint"
        if said.timestamp_unit and column.type in {*NUMBERS, "numeric"}:
            return f"floor({name} * {UNITS[said.timestamp_unit]})::bigint"
        raise LogColumnWrong(
            f"column '{column.name}' of '{self.source}' is {column.type}, and the map says that it is a time.",
            expected="A timestamp, a date or text is expected; or numbers with `timestamp_unit` in the map.",
        )

    def last_us(self, as_of_us: int) -> int | None:
        found = self.rows.ask(
            f"SELECT max(at_us), count(*) FILTER (WHERE at_us IS NULL) FROM ({self.sql}) AS q WHERE at_us IS NULL OR "
            f"at_us <= {as_of_us}"
        )[0]
        if found[1]:
            raise LogColumnWrong(
                f"column '{self.map.timestamp}' of '{self.source}' is empty in {found[1]:,} rows.",
                expected="Every prediction needs its time.",
            )
        return None if found[0] is None else int(found[0])

    def ask(self, what: str, window: Window, rest: str = "") -> list[tuple[Any, ...]]:
        """`what` of the rows of the window, called w. rest: what follows the FROM."""
        inside = f"at_us >= {window.start_us} AND at_us < {window.end_us}"
        return self.rows.ask(f"WITH w AS (SELECT * FROM ({self.sql}) AS q WHERE {inside}) SELECT {what} FROM w {rest}")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _number(column: Column) -> str:
    """The column as float8, NaN as null."""
    name = _quoted(column.name)
    return f"nullif({name}::int::float8 , 'NaN')" if column.type == "bool" else f"nullif({name}::float8, 'NaN')"


# What make_report looks at


def _sample(view: _View, columns: ColumnMap, window: Window, as_of_us: int) -> Sample:
    """Rows that stand for those in the database: as many of each day, hundredth of the score and label, spread evenly
    over the day's own. No one of them is a row that there is."""
    import pyarrow as pa

    until = Window(-(2**61), as_of_us + 1)
    told = f"label IS NOT NULL AND known_us <= {as_of_us} AND known_us >= at_us"
    binary = columns.task == "binary"
    low, high = (0.0, 1.0) if binary else _span(view, until)
    step = (high - low) / STEPS or 1.0
    place = f"CASE WHEN score = {high!r} THEN {STEPS} ELSE width_bucket(score, {low!r}, {high!r}, {STEPS}) END"
    place = place if high > low else "CASE WHEN score IS NOT NULL THEN 1 END"
    label = f"CASE WHEN {told} THEN label END" if binary else "NULL::float8"
    days = view.ask(
        f"floor(({window.end_us} - 1 - at_us) / {DAY_US}.0)::bigint AS day, {place} AS place, {label} AS y, count(*), "
        f"min(at_us), max(at_us), avg(score), avg((known_us - at_us) / 1e6) FILTER (WHERE {told})",
        until,
        "GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3",
    )
    parts = [_Cell(*row) for row in days]
    if binary and (strange := sorted({cell.label for cell in parts if cell.label not in (None, 0.0, 1.0)})):
        raise LogColumnWrong(
            f"column '{columns.label}' of '{view.source}' holds {strange[0]:g}, and the map says that it is the label.",
            expected="0 and 1 are expected; or say `positive`, the value that counts as 1.",
        )
    counts = np.array([cell.rows for cell in parts], np.int64)
    score = np.array([_middle(cell, low, step) for cell in parts], np.float64)
    labels = np.array([np.nan if cell.label is None else cell.label for cell in parts], np.float64)
    delay = np.array([cell.delay_s or 0.0 for cell in parts], np.float64)
    at_us = _spread(parts)
    scores, known = np.repeat(score, counts), np.repeat(labels, counts)
    order = np.argsort(at_us, kind="stable")
    late = at_us + (np.repeat(delay, counts) * 1e6).astype(np.int64)
    count = at_us.size
    instant = pa.timestamp("us", tz="UTC")
    nothing = pa.nulls(count, pa.string())
    table = pa.table(
        {
            "prediction_id": nothing,
            "request_id": nothing,
            "at": pa.array(at_us[order], pa.int64()).cast(instant),
            "release": nothing,
            "version": nothing,
            "latency_ms": pa.nulls(count, pa.float64()),
            "degraded": pa.nulls(count, pa.bool_()),
            "score": pa.array(scores[order], from_pandas=True),
            "label": pa.array(known[order], from_pandas=True),
            "label_known_at": pa.array(late[order], pa.int64(), mask=np.isnan(known[order])).cast(instant),
        }
    )
    matched = int(np.count_nonzero(~np.isnan(known)))
    counted = LabelCounts(matched=matched, predictions=count)
    inputs = DatabaseInputs(view, Window(-(2**61), as_of_us + 1))
    return Sample(columns.model, columns.task, table, counted, inputs=inputs)


@dataclass(frozen=True)
class _Cell:
    day: int
    place: int | None
    label: float | None
    rows: int
    first_us: int
    last_us: int
    mean: float | None
    delay_s: float | None


def _span(view: _View, window: Window) -> tuple[float, float]:
    low, high = view.ask(f"min(score), max(score) FILTER (WHERE score < {LARGEST!r})", window)[0]
    return (0.0, 1.0) if low is None or high is None else (max(float(low), -LARGEST), float(high))


def _middle(cell: _Cell, low: float, step: float) -> float:
    """The score that the rows of a cell stand for: the middle of its bin, and never that of a single row."""
    if cell.place is None:
        return float("nan")
    return OUT.get(cell.place, low + (cell.place - 0.5) * step) if step else low


def _spread(parts: Sequence[_Cell]) -> NDArray[np.int64]:
    """Instants for the rows of each cell, evenly over what its day has: from the first row to the last."""
    spans: dict[int, tuple[int, int]] = {}
    for cell in parts:
        first, last = spans.get(cell.day, (cell.first_us, cell.last_us))
        spans[cell.day] = min(first, cell.first_us), max(last, cell.last_us)
    found = [np.linspace(*spans[cell.day], cell.rows).astype(np.int64) for cell in parts]
    return np.concatenate(found) if found else np.empty(0, np.int64)


@dataclass(frozen=True)
class DatabaseInputs:
    """Implements `sample.Inputs` with questions to the database."""

    view: _View = field(repr=False)
    window: Window

    @property
    def names(self) -> Sequence[str]:
        return list(self.view.inputs)

    def within(self, window: Window) -> DatabaseInputs:
        start_us, end_us = max(window.start_us, self.window.start_us), min(window.end_us, self.window.end_us)
        return replace(self, window=Window(start_us, max(start_us, end_us)))

    def few(self, sample: Sample) -> Sample:
        """Without inputs: no row leaves the database."""
        return replace(sample, inputs=None)

    def with_input(self, rows: pa.Table, name: str) -> pa.Table:
        """No row leaves the database, so none gets an input."""
        del name
        return rows

    def missing(self, name: str) -> float:
        total, present = self.view.ask(f"count(*), count({self.view.inputs[name]})", self.window)[0]
        return float(1 - present / total) if total else 0.0

    def counted(self, reference: Reference) -> Tallies:
        view = self.view
        rows, ids = view.ask("count(*), count(id) - count(DISTINCT id)", self.window)[0]
        columns = {
            name: self._tally(view.inputs[name], view.kinds[name], known)
            for name, known in reference.columns.items()
            if name in view.inputs
        }
        scores = None if reference.scores is None else self._tally("score", False, reference.scores)
        again = None
        if columns:
            listed_columns = ", ".join(["at_us", *(view.inputs[name] for name in columns)])
            inside = f"at_us >= {self.window.start_us} AND at_us < {self.window.end_us}"
            different = view.rows.ask(
                f"SELECT count(*) FROM (SELECT DISTINCT {listed_columns} FROM ({view.sql}) AS q WHERE {inside}) AS d"
            )[0][0]
            again = int(rows) - int(different)
        names = tuple(view.inputs)
        return Tallies(
            int(rows), columns, names, scores, None, self._patterns(list(columns), int(rows)), again, int(ids)
        )

    def _tally(self, column: str, text: bool, known: Known) -> Tally:
        if isinstance(known, Numbers):
            return self._of_text(column) if text else self._of_numbers(column, known)
        if not text:
            total, present = self.view.ask(f"count(*), count({column})", self.window)[0]
            return Tally(int(total), int(total - present), False if present else None)
        values = self.view.rows.literal(list(known.values))
        place = f"CASE WHEN {column} IS NULL THEN -1 ELSE coalesce(array_position({values}::text[], {column}) - 1, "
        place += f"{len(known.values)}) END"
        found = {int(at): int(rows) for at, rows in self.view.ask(f"{place}, count(*)", self.window, "GROUP BY 1")}
        missing, total = found.pop(-1, 0), 0
        counts = np.zeros(len(known.values) + 1, np.int64)
        for at, rows in found.items():
            counts[at] = rows
        total = missing + int(counts.sum())
        return Tally(total, missing, True if total > missing else None, counts)

    def _of_text(self, column: str) -> Tally:
        total, present = self.view.ask(f"count(*), count({column})", self.window)[0]
        return Tally(int(total), int(total - present), True if present else None)

    def _of_numbers(self, column: str, known: Numbers) -> Tally:
        finite = f"abs({column}) < {LARGEST!r}"
        clipped = _clipped(column)
        cuts = _array(known.cuts)
        place = f"width_bucket({clipped}, {cuts})" if known.cuts.size else "0"
        low, high = ("NULL::float8" if np.isnan(one) else repr(float(one)) for one in (known.low, known.high))
        found = self.view.ask(
            f"CASE WHEN {column} IS NOT NULL THEN {place} END, count(*), min({column}), max({column}), "
            f"avg({column}) FILTER (WHERE {finite}), count(*) FILTER (WHERE {finite}), "
            f"count(*) FILTER (WHERE {column} < {low} OR {column} > {high}), "
            f"sum({low} - {column}) FILTER (WHERE {column} < {low} AND {finite}), "
            f"sum({column} - {high}) FILTER (WHERE {column} > {high} AND {finite})",
            self.window,
            "GROUP BY 1",
        )
        missing = sum(int(row[1]) for row in found if row[0] is None)
        present = [row for row in found if row[0] is not None]
        counts = np.zeros(known.cuts.size + 1, np.int64)
        for row in present:
            counts[row[0]] = row[1]
        total = missing + int(counts.sum())
        if not present:
            return Tally(total, missing)
        finite_rows = sum(int(row[5]) for row in present)
        mean = sum(row[4] * row[5] for row in present if row[4] is not None) / finite_rows if finite_rows else None
        return Tally(
            total,
            missing,
            False,
            counts,
            low=min(float(row[2]) for row in present),
            high=max(float(row[3]) for row in present),
            mean=None if mean is None else float(mean),
            finite=finite_rows,
            infinite=total - missing - finite_rows,
            outside=sum(int(row[6]) for row in present),
            below=float(sum(row[7] or 0.0 for row in present)),
            above=float(sum(row[8] or 0.0 for row in present)),
        )

    def _patterns(self, names: Sequence[str], rows: int) -> dict[tuple[str, ...], int]:
        if len(names) < 2:
            return {}
        shorts = [self.view.inputs[name] for name in names]
        bits = " || ".join(f"(CASE WHEN {short} IS NULL THEN '1' ELSE '0' END)" for short in shorts)
        several = " + ".join(f"({short} IS NULL)::int" for short in shorts)
        found = self.view.ask(
            f"{bits}, count(*)", self.window, f"WHERE {several} > 1 GROUP BY 1 HAVING count(*) * {RARE} >= {rows}"
        )
        named = {
            tuple(n for n, bit in zip(names, bits, strict=True) if bit == "1"): int(count) for bits, count in found
        }
        return dict(sorted(named.items(), key=lambda one: (-one[1], one[0])))

    # As a reference

    def reference(self, name: str) -> Reference:
        first, last, rows = self.view.ask("min(at_us), max(at_us), count(*)", self.window)[0]
        profiles = {one: self._profile(short, first, last) for one, short in self.view.inputs.items()}
        plain: dict[str, Any] = {"format": FORMAT, "rows": int(rows), "inputs": profiles}
        plain["scores"] = self._numeric("score", first, last)
        plain["rows_per_day"] = rows / max((int(last) - int(first)) / DAY_US, 1.0) if rows else None
        return Reference.from_profile(plain, name=name)

    def _profile(self, short: str, first: int, last: int) -> dict[str, Any]:
        name = next(one for one, its in self.view.inputs.items() if its == short)
        return self._categories(short, first, last) if self.view.kinds[name] else self._numeric(short, first, last)

    def _numeric(self, column: str, first: int, last: int) -> dict[str, Any]:
        clipped = _clipped(column)
        shares = _array(np.linspace(0, 1, 101))
        finite = f"abs({column}) < {LARGEST!r}"
        total, present, low, high, mean, std = self.view.ask(
            f"count(*), count({column}), min({clipped}), max({clipped}), avg({column}) FILTER (WHERE {finite}), "
            f"stddev_pop({column}) FILTER (WHERE {finite})",
            self.window,
        )[0]
        plain: dict[str, Any] = {"type": "numeric", "count": int(total), "missing": int(total - present)}
        if not present:
            return plain | {"mean": None, "std": None, "min": None, "max": None, "edges": [], "counts": []}
        # between numbers this far apart nothing can be interpolated
        percentile = "percentile_cont" if np.isfinite(float(high) - float(low)) else "percentile_disc"
        quantiles = self.view.ask(f"{percentile}({shares}) WITHIN GROUP (ORDER BY {clipped})", self.window)[0][0]
        edges = edges_of(np.array(quantiles, np.float64))
        cuts = edges[1:-1]
        week = f"(at_us - {first}) / {WEEK_US}"
        place = f"width_bucket({clipped}, {_array(cuts)})" if cuts.size else "0"
        found = self.view.ask(f"{week}, {place}, count(*)", self.window, f"WHERE {column} IS NOT NULL GROUP BY 1, 2")
        by_week: dict[int, NDArray[np.int64]] = {}
        for number, at, rows in found:
            by_week.setdefault(int(number), np.zeros(cuts.size + 1, np.int64))[at] = rows
        counts = np.sum(list(by_week.values()), axis=0)
        found_profile = plain | {
            "mean": mean, "std": std, "min": low, "max": high, "edges": edges.tolist(), "counts": counts.tolist()
        }  # fmt: skip
        return found_profile | {"weeks": weeks_of(found_profile, by_week, (last - first) // WEEK_US)}

    def _categories(self, column: str, first: int, last: int) -> dict[str, Any]:
        total, present, distinct = self.view.ask(f"count(*), count({column}), count(DISTINCT {column})", self.window)[0]
        most = self.view.ask(
            f"{column}, count(*)",
            self.window,
            f'WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, {column} COLLATE "C" LIMIT {MOST_VALUES}',
        )
        found = counted_profile({str(word): int(rows) for word, rows in most}, int(distinct), int(present), int(total))
        values = self.view.rows.literal(list(found["values"]))
        place = f"coalesce(array_position({values}::text[], {column}) - 1, {len(most)})"
        week = f"(at_us - {first}) / {WEEK_US}"
        rows = self.view.ask(f"{week}, {place}, count(*)", self.window, f"WHERE {column} IS NOT NULL GROUP BY 1, 2")
        by_week: dict[int, NDArray[np.int64]] = {}
        for number, at, count in rows:
            by_week.setdefault(int(number), np.zeros(len(most) + 1, np.int64))[at] = count
        return found | {"weeks": weeks_of(found, by_week, (last - first) // WEEK_US) if total else []}


def _clipped(column: str) -> str:
    """With an infinite value as the largest number; least() and greatest() would make a number of null."""
    return f"CASE WHEN {column} IS NOT NULL THEN least(greatest({column}, {-LARGEST!r}), {LARGEST!r}) END"


def _array(values: NDArray[np.float64]) -> str:
    return "ARRAY[" + ", ".join(repr(float(one)) for one in values) + "]::float8[]"
