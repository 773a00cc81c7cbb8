"""A log that may not leave its database: the same report, made of aggregates that PostgreSQL computes.

What crosses the wire are counts by bin or category of the reference, by window of the policy, by 6 hours, hundredth of
the score and label, and minima, maxima, sums and quantiles: no row. Quality, drift, metrics, alarms and the policy are
those of the rows themselves (`answers`). What needs rows otherwise (intervals, the calibration curve, change of the
outcome, estimates) looks at rows that stand for the counts, and is right to about 0.005 of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso, to_us
from seatrial.core.errors import did_you_mean, listed
from seatrial.core.signature import Task
from seatrial.core.windows import DAY_US, Window, duration_us
from seatrial.data.postgres import NUMBERS, TEXTS, Asked, Column, asked
from seatrial.data.sources import PostgresSource
from seatrial.monitoring.answers import DatabaseAnswers, array, clipped, place_in
from seatrial.monitoring.definition import Alarm, Monitor
from seatrial.monitoring.imported import default_window, reported
from seatrial.monitoring.monitor import require_an_age
from seatrial.monitoring.report import Report
from seatrial.monitoring.rows.against import chosen
from seatrial.monitoring.rows.foreign import UNITS, Imported, LogColumnNotThere, LogColumnWrong
from seatrial.monitoring.rows.labels import LabelCounts
from seatrial.monitoring.rows.mapping import ColumnMap, read_map
from seatrial.monitoring.rows.reference import Column as Known
from seatrial.monitoring.rows.reference import Numbers, Reference
from seatrial.monitoring.rows.sample import Sample
from seatrial.monitoring.rows.tally import RARE, Tallies, Tally
from seatrial.stats.profile import FORMAT, LARGEST, MOST_VALUES, WEEK_US, counted_profile, edges_of, weeks_of

if TYPE_CHECKING:
    import pyarrow as pa

QUARTER_US = DAY_US // 4
LABELS_US = 35 * DAY_US
"""How far before the window labels are looked for that tell when they come, and how the world answered."""
STEPS = 100
"""Bins of the score in what is measured with labels."""
RESIDUALS = 50
"""Bins of label minus score of a regression, of equal mass; and shares that cut the outer ones again."""
TAILS = (0.0005, 0.001, 0.0025, 0.005, 0.01)
APPROXIMATE = (
    "the rows stayed in their database: what is compared and measured is exact; intervals, the calibration curve, how "
    "labels arrive, change of the outcome and the estimate come from counts by 6 hours and hundredth of the score; "
    "pairs of inputs were not sliced, and what moved the predictions was not looked at"
)
FIRST_US, LAST_US = (to_us(one.replace(tzinfo=UTC)) for one in (datetime.min, datetime.max))
TIMES = frozenset({"timestamptz", "timestamp", "date"})
ZONED = r"[A-Za-z]\s*$|:\d\d(\.\d+)?\s*[+-]\d\d(:?\d\d)?\s*$"
"""Texts that end with their zone, as `data.reading` has it."""


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
    monitor = replace(columns.monitor, alarms=(*columns.monitor.alarms, *alarms))
    with asked(source) as rows:
        view = _View(rows, columns, source.name, as_of_us)
        ends = view.ends_us(as_of_us)
        looked = window or default_window(ends, duration_us(monitor.window), as_of_us)
        require_an_age(looked)
        reach = Reach.of(monitor, looked, as_of_us, against)
        return reported(
            Imported(_sample(view, columns, reach, as_of_us), (*view.left_out, APPROXIMATE)),
            columns,
            monitor,
            looked,
            reference,
            against,
            as_of_us=as_of_us,
            ends=ends,
            of_last=window is None,
        )


# The rows, in SQL


@dataclass
class _View:
    """The log's columns as SQL: `at_us`, `score`, `label`, `known_us` and the inputs `i0`, `i1`, ..."""

    rows: Asked
    map: ColumnMap
    source: str
    as_of_us: int
    left_out: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        there = {column.name: column for column in self.rows.columns}
        named = self.map.named()
        wanted = {role: name for role, name in named.items() if not role.startswith("key ")}
        wanted |= {f"features {name}": name for name in self.map.features or ()}
        lacking = [f"'{name}' ({role.partition(' ')[0]})" for role, name in wanted.items() if name not in there]
        answered = self.map.score or self.map.predicted or self.map.probabilities
        if lacking or not self.map.timestamp or not answered:
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
        label = "NULL::float8"
        if self.map.task == "multiclass":
            label = self._class(there, said.label, "the label")
        elif said.label and said.positive is not None:
            positive = said.positive
            words = str(positive).lower() if isinstance(positive, bool) else str(positive)
            label = f"({_quoted(said.label)}::text = {self.rows.literal(words)})::int::float8"
        elif said.label:
            label = self._numeric(there, said.label, "the label; say `positive` when it is text")
        at = self._instant(there[said.timestamp])
        known = self._instant(there[said.label_known_at]) if said.label_known_at else at
        # a label counts from when it is known, and never before its prediction
        parts = [f"{at} AS at_us", f"{known} AS known_us", f"{label} AS told", f"{_quoted(said.timestamp)} AS said_at"]
        parts.append(f"{_quoted(said.prediction_id)}::text AS id" if said.prediction_id else "NULL::text AS id")
        parts.append(f"{_quoted(said.version)}::text AS version" if said.version else "NULL::text AS version")
        latency = self._numeric(there, said.latency_ms, "a latency")
        parts.append(f"{latency} AS latency")
        for number, (name, column) in enumerate(self.map.probabilities.items()):
            parts.append(f"{self._numeric(there, column, f'the probability of {name!r}')} AS p{number}")
        score = self._numeric(there, said.score, "the score")
        if self.map.task == "multiclass":
            predicted = self._class(there, said.predicted, "the predicted class")
            parts += [f"{score} AS sureness", f"{predicted} AS decided"]
        else:
            parts.append(f"{score} AS score")
        for name, short in self.inputs.items():
            parts.append(
                f"{_quoted(name)}::text AS {short}" if self.kinds[name] else f"{_number(there[name])} AS {short}"
            )
        rows = f"SELECT {', '.join(parts)} FROM ({self.rows.inner}\n) AS r"
        there_now = f"told IS NOT NULL AND known_us <= {self.as_of_us}"
        counts = f"{there_now} AND known_us >= at_us"
        early = f"({there_now} AND known_us < at_us) AS early"
        if self.map.task != "multiclass":
            return f"SELECT *, CASE WHEN {counts} THEN told END AS y, {early} FROM ({rows}) AS s"
        happened = f"CASE WHEN {counts} THEN told END AS happened, {early}"
        classes = f"SELECT *, {self._likeliest()} AS likeliest, {happened} FROM ({rows}) AS s"
        predicted = "decided" if said.predicted else "likeliest"
        answers = f"SELECT *, {predicted} AS predicted FROM ({classes}) AS t"
        score = "sureness"
        if said.probabilities:
            of_class = " ".join(
                f"WHEN {self.rows.literal(name)} THEN p{number}" for number, name in enumerate(said.probabilities)
            )
            score = f"CASE WHEN {self._whole()} THEN CASE predicted {of_class} END END"
        right = "(predicted = happened)::int::float8"
        return f"SELECT *, {score} AS score, {right} AS y FROM ({answers}) AS u"

    def _whole(self) -> str:
        return " AND ".join(f"p{number} IS NOT NULL" for number in range(len(self.map.probabilities))) or "false"

    def _likeliest(self) -> str:
        """The class with the largest probability, of several the one whose column the map names first."""
        if not self.map.probabilities:
            return "NULL::text"
        columns = [f"p{number}" for number in range(len(self.map.probabilities))]
        chosen = " ".join(
            f"WHEN {column} = greatest({', '.join(columns)}) THEN {self.rows.literal(name)}"
            for column, name in zip(columns, self.map.probabilities, strict=True)
        )
        return f"CASE WHEN {self._whole()} THEN CASE {chosen} END END"

    def _class(self, there: Mapping[str, Column], name: str, role: str) -> str:
        """Classes as text; a whole number may have come as a float."""
        if not name:
            return "NULL::text"
        column, quoted = there[name], _quoted(name)
        if column.array or not (column.type in {*TEXTS, *NUMBERS, "numeric"} or column.enum):
            raise LogColumnWrong(
                f"column '{name}' of '{self.source}' is {column.type}, and the map says that it is {role}.",
                expected="Classes are texts or whole numbers.",
            )
        if column.type in {"float4", "float8", "numeric"}:
            return f"nullif({quoted}, 'NaN')::bigint::text"
        return f"{quoted}::text"

    def _numeric(self, there: Mapping[str, Column], name: str, role: str) -> str:
        if not name:
            return "NULL::float8"
        column = there[name]
        if column.array or column.type not in {*NUMBERS, "numeric", "bool"}:
            raise LogColumnWrong(
                f"column '{name}' of '{self.source}' is {column.type}, and the map says that it is {role}.",
                expected="Numbers are expected.",
            )
        return _number(column)

    def _instant(self, column: Column) -> str:
        """Microseconds since 1970."""
        name, said = _quoted(column.name), self.map
        if column.type == "timestamptz":
            return f"(extract(epoch FROM {name}) * 1000000)::bigint"
        if column.type in TIMES or column.type in TEXTS:
            as_time = f"({name}::timestamp AT TIME ZONE {self.rows.literal(said.timezone or 'UTC')})"
            if column.type in TEXTS:
                as_time = f"CASE WHEN {name} ~ '{ZONED}' THEN {name}::timestamptz ELSE {as_time} END"
            return f"(extract(epoch FROM {as_time}) * 1000000)::bigint"
        if said.timestamp_unit and column.type in {*NUMBERS, "numeric"}:
            return f"floor({name} * {UNITS[said.timestamp_unit]})::bigint"
        raise LogColumnWrong(
            f"column '{column.name}' of '{self.source}' is {column.type}, and the map says that it is a time.",
            expected="A timestamp, a date or text is expected; or numbers with `timestamp_unit` in the map.",
        )

    def ends_us(self, as_of_us: int) -> tuple[int, int] | None:
        """Instants of the first and the last prediction; None without any."""
        first, last, empty = self.rows.ask(
            f"SELECT min(at_us), max(at_us), count(*) FILTER (WHERE at_us IS NULL) FROM ({self.sql}) AS q "
            f"WHERE at_us IS NULL OR at_us <= {as_of_us}"
        )[0]
        if empty:
            raise LogColumnWrong(
                f"column '{self.map.timestamp}' of '{self.source}' is empty in {empty:,} rows.",
                expected="Every prediction needs its time.",
            )
        return None if last is None else (int(first), int(last))

    def ask(self, what: str, window: Window, rest: str = "", source: str = "w") -> list[tuple[Any, ...]]:
        """`what` of the rows of the window, called w. rest: what follows the FROM; source: in place of w."""
        rows = f"WITH w AS (SELECT * FROM ({self.sql}) AS q WHERE {self.inside(window)})"
        return self.rows.ask(f"{rows} SELECT {what} FROM {source} {rest}")

    def inside(self, window: Window) -> str:
        """That a row is of the window; by its column itself as well, more widely, so that an index on it is of use."""
        exact = f"at_us >= {window.start_us} AND at_us < {window.end_us}"
        kind = next(column.type for column in self.rows.columns if column.name == self.map.timestamp)
        if kind in TIMES:
            days = (window.start_us - 2 * DAY_US, window.end_us + 2 * DAY_US)  # no zone is two days from another
            first, last = (f"timestamptz '{iso(from_us(min(max(one, FIRST_US), LAST_US)))}'" for one in days)
            if kind != "timestamptz":
                first, last = (f"({one} AT TIME ZONE 'UTC')" for one in (first, last))
        elif kind in {*NUMBERS, "numeric"}:
            unit = UNITS[self.map.timestamp_unit or "us"]
            first, last = str(window.start_us // unit - 1), str(window.end_us // unit + 1)
        else:
            return exact
        return f"{exact} AND said_at >= {first} AND said_at <= {last}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _number(column: Column) -> str:
    """The column as float8, NaN as null."""
    name = _quoted(column.name)
    return f"nullif({name}::int::float8 , 'NaN')" if column.type == "bool" else f"nullif({name}::float8, 'NaN')"


# What make_report looks at


@dataclass(frozen=True)
class Reach:
    """How far back there are rows that stand for others, and at which instants a window begins or ends, so that none of
    these rows strays over one."""

    window: Window
    cuts: tuple[int, ...]

    @classmethod
    def of(cls, monitor: Monitor, window: Window, as_of_us: int, against: str | None) -> Reach:
        """The window, one before it, what is compared with, what alarms look at, and as much as labels may need."""
        until_us = min(as_of_us, window.end_us)
        past = None if against is None else chosen(against, window)
        cuts = {window.start_us, window.end_us, window.start_us - (window.end_us - window.start_us), until_us}
        cuts |= {past.start_us, past.end_us} if isinstance(past, Window) else set()
        cuts |= {until_us - alarm.window_us for alarm in monitor.every_alarm}
        first_us = min(*cuts, window.start_us - LABELS_US)
        return cls(Window(first_us, max(first_us, min(max(cuts), as_of_us + 1))), tuple(sorted(cuts)))

    @property
    def stretch(self) -> str:
        """The stretch of each row, as SQL: 6 hours, or less where a cut lies in them."""
        cut = f"width_bucket(at_us, ARRAY{list(self.cuts)}::bigint[])"
        return f"floor(at_us / {QUARTER_US}.0)::bigint * {len(self.cuts) + 1} + {cut}"


def _sample(view: _View, columns: ColumnMap, reach: Reach, as_of_us: int) -> Sample:
    """The log as far as it can be known from outside: rows that stand for those in the database (see `_cells`), and
    whom to ask for what is exact."""
    every = Window(-(2**61), as_of_us + 1)
    _check_classes(view, columns, every)
    _check_labels(view, columns)
    rows = _stand_ins(*_cells(view, columns.task, reach), several=columns.task == "multiclass")
    answers = DatabaseAnswers(
        view.ask,
        columns.task,
        list(columns.probabilities),
        columns.decided_only,
        {name: (short, view.kinds[name]) for name, short in view.inputs.items()},
        view.rows.literal,
        every,
    )
    return Sample(
        columns.model,
        columns.task,
        rows,
        LabelCounts(matched=len(rows) - rows["label"].null_count, predictions=len(rows)),
        inputs=DatabaseInputs(view, every),
        answers=answers,
        decided_only=columns.decided_only,
    )


def _check_labels(view: _View, columns: ColumnMap) -> None:
    """A positive label that never comes is a mistake of the map, and no model that is always wrong; and so is a binary
    label that is neither 0 nor 1."""
    if not columns.label or columns.task == "multiclass":
        return
    told, positive, strange = view.rows.ask(
        "SELECT count(told), count(*) FILTER (WHERE told = 1), min(told) FILTER (WHERE told NOT IN (0, 1)) "
        f"FROM ({view.sql}) AS q"
    )[0]
    if columns.positive is not None and told and not positive:
        raise LogColumnWrong(
            f"column '{columns.label}' of '{view.source}' is never {columns.positive!r}, which the map says is the "
            "positive label.",
            expected=f"It is something else in {told:,} rows.",
            next="Correct `positive` in the map.",
        )
    if columns.task == "binary" and strange is not None:
        raise LogColumnWrong(
            f"column '{columns.label}' of '{view.source}' holds {strange:g}, and the map says that it is the label.",
            expected="0 and 1 are expected; or say `positive`, the value that counts as 1.",
        )


def _check_classes(view: _View, columns: ColumnMap, until: Window) -> None:
    """A predicted class without a probability is a mistake of the map."""
    if not (columns.probabilities and columns.predicted):
        return
    known = view.rows.literal(list(columns.probabilities))
    strange = view.ask("min(predicted)", until, f"WHERE NOT predicted = ANY({known}::text[])")[0][0]
    if strange is not None:
        names = list(columns.probabilities)
        raise LogColumnWrong(
            f"column '{columns.predicted}' of '{view.source}' holds {strange!r}, a class without a probability.",
            expected=f"The map has {listed(names)} in [probabilities]. {did_you_mean(strange, names)}".strip(),
        )


@dataclass(frozen=True)
class _Cell:
    """label: 0 or 1, or a bin of label minus score; away: the sum of the latter."""

    stretch: int
    place: int | None
    label: float | None
    version: str | None
    predicted: str | None
    happened: str | None
    rows: int
    first_us: int
    last_us: int
    delay_s: float | None
    away: float | None


def _cells(view: _View, task: Task, reach: Reach) -> tuple[list[_Cell], list[float], list[float]]:
    """How many rows there are of each stretch of time, hundredth of the score, label (of a regression a twentieth of
    the scores' range, and a bin of label minus score) and version; and the score and the label that stand for each."""
    regression, window = task == "regression", reach.window
    low, high = _span(view, window) if regression else (0.0, 1.0)
    steps = STEPS // 5 if regression else STEPS
    step = (high - low) / steps or 1.0
    place = f"CASE WHEN score = {high!r} THEN {steps} ELSE width_bucket(score, {low!r}, {high!r}, {steps}) END"
    place = place if high > low else "CASE WHEN score IS NOT NULL THEN 1 END"
    finite = f"abs(score) <= {LARGEST!r} AND abs(y) <= {LARGEST!r}"
    of_label = _residual(view, window, finite) if regression else "y"
    classes = "predicted, happened" if task == "multiclass" else "NULL::text, NULL::text"
    found = view.ask(
        f"{reach.stretch} AS stretch, {place} AS place, "
        f"{of_label} AS label, version, {classes}, count(*), min(at_us), max(at_us), "
        f"avg((known_us - at_us) / 1e6) FILTER (WHERE y IS NOT NULL), sum(y - score) FILTER (WHERE {finite})",
        window,
        "GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6",
    )
    parts = [_Cell(*row) for row in found]
    scores = [_middle(cell, low, step, steps) for cell in parts]
    if not regression:
        return parts, scores, [np.nan if cell.label is None else float(cell.label) for cell in parts]
    away = _residuals(parts)
    labels = [np.nan if cell.label is None else at + away[cell.label] for at, cell in zip(scores, parts, strict=True)]
    return parts, scores, labels


def _residual(view: _View, window: Window, finite: str) -> str:
    """The bin of label minus score, as SQL."""
    ends = np.array(TAILS)
    shares = array(np.concatenate([ends, np.linspace(0, 1, RESIDUALS + 1)[1:-1], 1 - ends[::-1]]))
    cuts = view.ask(f"percentile_cont({shares}) WITHIN GROUP (ORDER BY y - score)", window, f"WHERE {finite}")[0][0]
    cuts = np.unique(np.array([] if cuts is None else cuts, np.float64))
    place = f"width_bucket(y - score, {array(cuts)})" if cuts.size else "0"
    return f"CASE WHEN {finite} THEN {place} END"


def _residuals(parts: Sequence[_Cell]) -> dict[float, float]:
    """By bin of label minus score their mean over all rows."""
    sums: dict[float, tuple[float, int]] = {}
    for cell in parts:
        if cell.label is not None:
            total, rows = sums.get(cell.label, (0.0, 0))
            sums[cell.label] = total + float(cell.away or 0.0), rows + cell.rows
    return {number: total / rows for number, (total, rows) in sums.items()}


def _span(view: _View, window: Window) -> tuple[float, float]:
    low, high = view.ask(f"min(score), max(score) FILTER (WHERE score < {LARGEST!r})", window)[0]
    return (0.0, 1.0) if low is None or high is None else (max(float(low), -LARGEST), float(high))


def _middle(cell: _Cell, low: float, step: float, steps: int) -> float:
    """The score that the rows of a cell stand for: the middle of its bin, and never that of a single row; below 0 and
    above 1 an impossible one."""
    if cell.place is None:
        return float("nan")
    if cell.place in (0, steps + 1):  # of a regression an infinite one
        return -1.0 if cell.place == 0 else 2.0
    return low + (cell.place - 0.5) * step


def _spread(parts: Sequence[_Cell]) -> NDArray[np.int64]:
    """Instants for the rows of each cell: those of a stretch lie evenly from its first row to its last, and those of
    each cell evenly among them."""
    by_stretch: dict[int, list[_Cell]] = {}
    for cell in parts:
        by_stretch.setdefault(cell.stretch, []).append(cell)
    found = []
    for cells in by_stretch.values():  # the cells of one stretch stand together
        rank = np.concatenate([(np.arange(cell.rows) + 0.5) / cell.rows for cell in cells])
        at = np.linspace(min(cell.first_us for cell in cells), max(cell.last_us for cell in cells), rank.size)
        placed = np.empty(rank.size, np.int64)
        placed[np.argsort(rank, kind="stable")] = at.astype(np.int64)
        found.append(placed)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _stand_ins(parts: Sequence[_Cell], scores: Sequence[float], labels: Sequence[float], *, several: bool) -> pa.Table:
    """As many rows as each cell has, spread evenly over its time; see `Sample`. No one of them is a row that there
    is."""
    import pyarrow as pa

    at_us = _spread(parts)
    order = np.argsort(at_us, kind="stable")
    at_us = at_us[order]
    cell = np.repeat(np.arange(len(parts)), np.array([one.rows for one in parts], np.int64))[order]

    def words(values: Sequence[str | None]) -> pa.Array:
        return pa.array(values, pa.string()).take(pa.array(cell))

    known = np.array(labels, np.float64)[cell]
    late = at_us + (np.array([one.delay_s or 0.0 for one in parts], np.float64)[cell] * 1e6).astype(np.int64)
    instant = pa.timestamp("us", tz="UTC")
    nothing = pa.nulls(cell.size, pa.string())
    table = {
        "prediction_id": nothing,
        "request_id": nothing,
        "at": pa.array(at_us, pa.int64()).cast(instant),
        "release": nothing,
        "version": words([one.version for one in parts]),
        "latency_ms": pa.nulls(cell.size, pa.float64()),
        "degraded": pa.nulls(cell.size, pa.bool_()),
        "score": pa.array(np.array(scores, np.float64)[cell], from_pandas=True),
        "label": pa.array(known, from_pandas=True),
        "label_known_at": pa.array(late, pa.int64(), mask=np.isnan(known)).cast(instant),
    }
    if several:
        table["predicted_class"] = words([one.predicted for one in parts])
        table["label_class"] = words([one.happened for one in parts])
    return pa.table(table)


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
        """Without inputs: no row leaves the database; scores and labels are those that stand for them."""
        return replace(sample, inputs=None, answers=None)

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
            inside = f"FROM ({view.sql}) AS q WHERE {view.inside(self.window)}"
            different = view.rows.ask(f"SELECT count(*) FROM (SELECT DISTINCT {listed_columns} {inside}) AS d")[0][0]
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
        place = f"CASE WHEN {column} IS NULL THEN -1 ELSE {place_in(column, known, self.view.rows.literal)} END"
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
        place = place_in(column, known, self.view.rows.literal)
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
        cut = clipped(column)
        shares = array(np.linspace(0, 1, 101))
        finite = f"abs({column}) < {LARGEST!r}"
        total, present, low, high, mean, std = self.view.ask(
            f"count(*), count({column}), min({cut}), max({cut}), avg({column}) FILTER (WHERE {finite}), "
            f"stddev_pop({column}) FILTER (WHERE {finite})",
            self.window,
        )[0]
        plain: dict[str, Any] = {"type": "numeric", "count": int(total), "missing": int(total - present)}
        if not present:
            return plain | {"mean": None, "std": None, "min": None, "max": None, "edges": [], "counts": []}
        # between numbers this far apart nothing can be interpolated
        percentile = "percentile_cont" if np.isfinite(float(high) - float(low)) else "percentile_disc"
        quantiles = self.view.ask(f"{percentile}({shares}) WITHIN GROUP (ORDER BY {cut})", self.window)[0][0]
        edges = edges_of(np.array(quantiles, np.float64))
        cuts = edges[1:-1]
        week = f"(at_us - {first}) / {WEEK_US}"
        place = f"width_bucket({cut}, {array(cuts)})" if cuts.size else "0"
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
