"""Expectations: do the rows of a source hold what they should, and which rows do not?

A source lists expectations, made with `expect.between(...)`, `expect.unique(...)` and so on. `check` tries
all of them and reports; it changes nothing and never stops at the first. A report that did not pass becomes a
`DataRefused`, which names the rows and the `SetAside` rule that would take them out: rows leave a source only
by such a rule, with a reason and a count.

A missing value (null) breaks `not_null` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from seatrial.core.clock import as_utc, iso, parse_time
from seatrial.core.errors import Failed, UsageError, did_you_mean, listed
from seatrial.core.types import Dtype
from seatrial.core.windows import duration_text, duration_us
from seatrial.data.session import ROW, in_one_line, is_one_select, literal, quoted, session, with_row_numbers
from seatrial.data.text import why_text

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.data.reading import Removed
    from seatrial.data.sources import Source

EXAMPLES = 5
MOST_LISTED = 20  # values that a proposed rule spells out
FORMAT = 1

Severity = Literal["error", "warn"]
"""error: rows that break it stop the line, and nothing is written; warn: they are told, and everything goes on."""


class BadExpectation(UsageError):
    """An expectation is declared in a way that cannot work."""

    code = "data.bad_expectation"


class DataRefused(Failed):
    """The rows of a source break an expectation. `facts["report"]` is the report."""

    code = "data.refused"


@dataclass(frozen=True)
class SetAside:
    """A rule that takes rows out of a source when it is read, counted and kept beside it.

    where: SQL condition over the source's columns, with times in UTC; rows for which it is true go.
    reason: why these rows are wrong, for whoever asks later.
    """

    where: str
    reason: str

    def __post_init__(self) -> None:
        for name, value in (("where", self.where), ("reason", self.reason)):
            if not isinstance(value, str) or not value.strip():
                raise BadExpectation(
                    f"a SetAside rule has no {name}.",
                    expected='For example SetAside(where="wind_speed > 150", reason="sensor fault").',
                )


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """Something that must hold for the rows of a source; made by `expect`.

    tolerated: rows that may break it: a count (int), or a share of the rows (float from 0 to 1).
    severity: whether it stops the line or only warns.
    """

    tolerated: int | float = 0
    severity: Severity = "error"

    def __post_init__(self) -> None:
        if self.severity not in get_args(Severity):
            raise BadExpectation(
                f"'{self.text}' has severity={self.severity!r}.",
                expected='"error", which stops the line, or "warn", which only tells, is expected.',
            )
        is_share = isinstance(self.tolerated, float)
        if isinstance(self.tolerated, bool) or self.tolerated < 0 or (is_share and self.tolerated > 1):
            raise BadExpectation(
                f"'{self.text}' tolerates {self.tolerated!r}.",
                expected="at_most= is a number of rows (int) or a share of the rows (float from 0 to 1).",
            )

    @property
    def text(self) -> str:
        """The expectation in words, as it stands in reports."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return ()

    def failing(self, rows: pa.Table, others: Mapping[str, pa.Table], /) -> Sequence[int]:
        """Positions of the rows that break it, ascending. Raises CannotCheck when it cannot be tried."""
        raise NotImplementedError

    def remedy(self, broken: pa.Table, /) -> str:
        """The SQL condition that would take the broken rows out, or an empty string when none can."""
        del broken
        return ""

    def telling(self, broken: pa.Table, /) -> pa.Table:
        """A few of the broken rows, for which `remedy` says the same."""
        return broken.slice(0, 1)


class CannotCheck(Exception):
    """An expectation does not apply to the rows as they are; the words say why. Never leaves `check`."""


@dataclass(frozen=True)
class Known:
    """What is known beside the rows themselves. at: the project's clock; rows_before: of the last snapshot."""

    at: datetime | None = None
    rows_before: int | None = None


@dataclass(frozen=True, kw_only=True)
class Whole(Expectation):
    """Something that must hold for the source as a whole, not for each of its rows."""

    def found(self, tables: Iterable[pa.Table], known: Known, /) -> str:
        """What was found, in words. Raises CannotCheck, whose words say so, when it does not hold.

        tables: the rows, one table after another, at least one.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Between(Expectation):
    column: str
    low: Any
    high: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = [_bound(bound) for bound in (self.low, self.high) if bound is not None]
        if not bounds or (len(bounds) == 2 and not bounds[0] <= bounds[1]):
            raise BadExpectation(
                f"expect.between({self.column!r}, {self.low!r}, {self.high!r}) holds for no value or for every value.",
                expected="A low bound not above the high bound is expected; one of them may be None.",
            )

    @property
    def text(self) -> str:
        if self.low is None:
            return f"{self.column} at most {_shown(self.high)}"
        if self.high is None:
            return f"{self.column} at least {_shown(self.low)}"
        return f"{self.column} between {_shown(self.low)} and {_shown(self.high)}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        import pyarrow.compute as pc

        below, above = self._sides(rows)
        return _positions(pc.or_(below, above))

    def remedy(self, broken: pa.Table, /) -> str:
        import pyarrow.compute as pc

        below, above = self._sides(broken)
        sides = []
        if pc.any(below).as_py():
            sides.append(f"{quoted(self.column)} < {_sql(_bound(self.low))}")
        if pc.any(above).as_py():
            sides.append(f"{quoted(self.column)} > {_sql(_bound(self.high))}")
        return " OR ".join(sides)

    def telling(self, broken: pa.Table, /) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        sides = [broken.filter(pc.fill_null(side, False)).slice(0, 1) for side in self._sides(broken)]
        return pa.concat_tables(sides)

    def _sides(self, rows: pa.Table) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
        """Whether each value is below the low bound, and above the high one; null where the value is."""
        import pyarrow as pa
        import pyarrow.compute as pc

        values = rows[self.column]
        kind = values.type
        if pa.types.is_decimal(kind):
            values = values.cast(pa.float64())
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_timestamp(kind)):
            why = f"{self.column} is {kind}, and only numbers and times can be compared. {why_text(values)}"
            raise CannotCheck(why.strip())
        never = pc.and_(values.is_valid(), False)
        try:
            below = never if self.low is None else pc.less(values, pa.scalar(_bound(self.low)))
            above = never if self.high is None else pc.greater(values, pa.scalar(_bound(self.high)))
        except (pa.ArrowException, TypeError, OverflowError):
            raise CannotCheck(f"{self.column} is {kind}, which cannot be compared with the bounds") from None
        return below, above


@dataclass(frozen=True)
class NotNull(Expectation):
    column: str

    @property
    def text(self) -> str:
        return f"{self.column} not null"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        import pyarrow.compute as pc

        return _positions(pc.is_null(rows[self.column], nan_is_null=True))

    def remedy(self, _broken: pa.Table, /) -> str:
        return f"{quoted(self.column)} IS NULL"


@dataclass(frozen=True)
class Unique(Expectation):
    keys: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{', '.join(self.keys)} unique"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.keys

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        """Every row whose key stands in an earlier row. Keys with a null are not compared."""
        keys = ", ".join(_always_quoted(key) for key in self.keys)
        full = " AND ".join(f"{_always_quoted(key)} IS NOT NULL" for key in self.keys)
        with session({"rows": with_row_numbers(rows.select(list(dict.fromkeys(self.keys))))}) as connection:
            repeated = connection.sql(
                f"SELECT {ROW} FROM (SELECT {ROW}, min({ROW}) OVER (PARTITION BY {keys}) AS first FROM rows "
                f"WHERE {full}) WHERE {ROW} > first ORDER BY {ROW}"
            ).to_arrow_table()
        return _numbers(repeated[ROW])


@dataclass(frozen=True)
class OneOf(Expectation):
    column: str
    values: tuple[Any, ...]

    @property
    def text(self) -> str:
        return f"{self.column} one of {listed([_shown(value) for value in self.values])}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = rows[self.column]
        try:
            known = pa.array(self.values, type=column.type)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise CannotCheck(f"{self.column} is {column.type}, which the listed values are not") from None
        return _positions(pc.and_(column.is_valid(), pc.invert(pc.is_in(column, value_set=known))))

    def remedy(self, _broken: pa.Table, /) -> str:
        return f"{quoted(self.column)} NOT IN ({', '.join(_sql(value) for value in self.values)})"


@dataclass(frozen=True)
class Rows(Expectation):
    at_least: int | None
    at_most: int | None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.at_least is None and self.at_most is None:
            raise BadExpectation("expect.rows() says nothing.", expected="at_least= or at_most= is expected.")

    @property
    def text(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{words} {bound:,}" for words, bound in bounds if bound is not None) + " rows"

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        count = rows.num_rows
        if count < (self.at_least or 0) or (self.at_most is not None and count > self.at_most):
            raise CannotCheck(f"there are {count:,}")
        return []


@dataclass(frozen=True)
class References(Expectation):
    column: str
    source: Source
    to: str

    @property
    def text(self) -> str:
        return f"{self.column} found in {self.source.name}.{self.to}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def failing(self, rows: pa.Table, others: Mapping[str, pa.Table], /) -> Sequence[int]:
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.source.name not in others:
            raise CannotCheck(f"source '{self.source.name}' was not read")
        other = others[self.source.name]
        if self.to not in other.column_names:
            known = other.column_names
            near = did_you_mean(self.to, known)
            raise CannotCheck(f"source '{self.source.name}' has no column '{self.to}'. {near}".strip())
        column = rows[self.column]
        try:
            known_values = pc.unique(other[self.to]).cast(column.type)
        except pa.ArrowException:
            types = f"{self.column} is {column.type}, {self.source.name}.{self.to} is {other[self.to].type}"
            raise CannotCheck(types) from None
        return _positions(pc.and_(column.is_valid(), pc.invert(pc.is_in(column, value_set=known_values))))

    def remedy(self, broken: pa.Table, /) -> str:
        import pyarrow.compute as pc

        values = pc.unique(broken[self.column]).to_pylist()
        if len(values) > MOST_LISTED:
            return ""
        return f"{quoted(self.column)} IN ({', '.join(_sql(value) for value in sorted(values))})"

    def telling(self, broken: pa.Table, /) -> pa.Table:
        import pyarrow as pa
        import pyarrow.compute as pc

        return pa.table({self.column: pc.unique(broken[self.column]).slice(0, MOST_LISTED + 1)})


@dataclass(frozen=True)
class Sql(Expectation):
    condition: str
    name: str

    @property
    def text(self) -> str:
        return self.name or self.condition

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        import duckdb

        sql = f"SELECT {ROW} FROM rows WHERE NOT (\n{self.condition}\n)"
        try:
            if not is_one_select(sql):
                raise CannotCheck(f"its condition {self.condition!r} is not one condition")
            with session({"rows": with_row_numbers(rows)}) as connection:
                found = _numbers(connection.sql(sql).to_arrow_table()[ROW])
        except duckdb.Error as error:
            raise CannotCheck(f"its condition {self.condition!r} failed: {in_one_line(error)}") from None
        return sorted(found)

    def remedy(self, _broken: pa.Table, /) -> str:
        return f"NOT ({self.condition})"


@dataclass(frozen=True)
class Columns(Expectation):
    types: tuple[tuple[str, Dtype], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, dtype in self.types:
            if dtype not in get_args(Dtype):
                raise BadExpectation(
                    f"expect.columns() gives '{name}' the type {dtype!r}.",
                    expected=f"One of {', '.join(get_args(Dtype))} is expected. "
                    f"{did_you_mean(str(dtype), get_args(Dtype))}".strip(),
                )

    @property
    def text(self) -> str:
        return f"columns {listed([f'{name} {dtype}' for name, dtype in self.types])}"

    def failing(self, rows: pa.Table, _others: Mapping[str, pa.Table], /) -> Sequence[int]:
        wrong = []
        for name, dtype in self.types:
            if name not in rows.column_names:
                wrong.append(f"no column '{name}'. {did_you_mean(name, rows.column_names)}".strip())
            elif not _holds(rows[name].type, dtype):
                wrong.append(f"{name} is {rows[name].type}, not {dtype}")
        if wrong:
            raise CannotCheck("; ".join(wrong))
        return []


@dataclass(frozen=True)
class Fresh(Whole):
    column: str
    within: str

    def __post_init__(self) -> None:
        super().__post_init__()
        duration_us(self.within)  # refuses what is no duration

    @property
    def text(self) -> str:
        return f"{self.column} fresh within {self.within}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def found(self, tables: Iterable[pa.Table], known: Known, /) -> str:
        import pyarrow as pa
        import pyarrow.compute as pc

        newest = None
        for rows in tables:
            if not pa.types.is_timestamp(rows[self.column].type):
                raise CannotCheck(f"{self.column} is {rows[self.column].type}, and only a time can be fresh")
            latest = pc.max(rows[self.column]).as_py()
            newest = latest if newest is None or (latest is not None and latest > newest) else newest
        if newest is None:
            raise CannotCheck(f"{self.column} has no value")
        if known.at is None:
            raise CannotCheck("no clock was given")
        age_us = max(0, (as_utc(known.at) - as_utc(newest)) // timedelta(microseconds=1))
        words = f"newest is {_shown(newest)}, {duration_text(age_us // 1_000_000 * 1_000_000) or '0s'} old"
        if age_us > duration_us(self.within):
            raise CannotCheck(words)
        return words


@dataclass(frozen=True)
class Volume(Whole):
    at_least: float | None
    at_most: float | None

    def __post_init__(self) -> None:
        super().__post_init__()
        _shares("expect.volume()", "rows in the last snapshot", self.at_least, self.at_most, most=None)

    @property
    def text(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return f"{' and '.join(f'{w} {b:.4g} times' for w, b in bounds if b is not None)} the rows of the last snapshot"

    def found(self, tables: Iterable[pa.Table], known: Known, /) -> str:
        before = known.rows_before
        if before is None:
            return "there is no snapshot yet"
        rows = sum(table.num_rows for table in tables)
        words = f"{rows:,} rows, {before:,} before"
        low, high = (before * bound if bound is not None else None for bound in (self.at_least, self.at_most))
        if (low is not None and rows < low) or (high is not None and rows > high):
            raise CannotCheck(words)
        return words


@dataclass(frozen=True)
class LabelRate(Whole):
    column: str
    at_least: float | None
    at_most: float | None
    positive: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        _shares(f"expect.label_rate({self.column!r})", "labelled rows", self.at_least, self.at_most, most=1.0)

    @property
    def text(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        share = " and ".join(f"{words} {bound:.4g}" for words, bound in bounds if bound is not None)
        return f"{self.column} is {_shown(self.positive)} in {share} of the labelled rows"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def found(self, tables: Iterable[pa.Table], _known: Known, /) -> str:
        import pyarrow as pa
        import pyarrow.compute as pc

        labelled = positive = 0
        for rows in tables:
            column = rows[self.column]
            if pa.types.is_boolean(column.type):
                column = column.cast(pa.int8())
            try:
                value = pa.scalar(self.positive).cast(column.type)
            except (pa.ArrowException, TypeError, ValueError):
                kind = rows[self.column].type
                raise CannotCheck(f"{self.column} is {kind}, which {self.positive!r} is not") from None
            labelled += len(column) - column.null_count
            positive += pc.sum(pc.equal(column, value)).as_py() or 0
        if not labelled:
            raise CannotCheck(f"no row has a value in {self.column}")
        rate = positive / labelled
        words = f"{rate:.4g} ({positive:,} of {labelled:,})"
        if (self.at_least is not None and rate < self.at_least) or (self.at_most is not None and rate > self.at_most):
            raise CannotCheck(words)
        return words


def _shares(call: str, of: str, low: Any, high: Any, *, most: float | None) -> None:
    """Raise BadExpectation unless the bounds, one of which may be missing, are shares in order."""
    bounds = [bound for bound in (low, high) if bound is not None]
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in bounds)
    inside = numbers and all(one >= 0 and (most is None or one <= most) for one in bounds)
    if not bounds or not inside or bounds != sorted(bounds):
        raise BadExpectation(
            f"{call} has at_least={low!r} and at_most={high!r}.",
            expected=f"At least one of them, in order, as a share of the {of}"
            + (" from 0 to 1." if most else ", such as at_least=0.5, at_most=2."),
        )


class expect:
    """The expectations. `at_most=` tolerates that many rows (int), or that share of the rows (float).

    severity: "error" stops the line before anything is written; "warn" only tells.
    """

    @staticmethod
    def between(
        column: str, low: Any = None, high: Any = None, *, at_most: int | float = 0, severity: Severity = "error"
    ) -> Expectation:
        """Every value lies from `low` to `high`, both included: numbers, or times with a zone (also as ISO text)."""
        return Between(column, low, high, tolerated=at_most, severity=severity)

    @staticmethod
    def not_null(column: str, *, at_most: int | float = 0, severity: Severity = "error") -> Expectation:
        """Every row has a value (NaN is none)."""
        return NotNull(column, tolerated=at_most, severity=severity)

    @staticmethod
    def unique(columns: str | Iterable[str], *, at_most: int | float = 0, severity: Severity = "error") -> Expectation:
        """No two rows have equal values in all of `columns`; a row counts when an earlier one has its key."""
        keys = (columns,) if isinstance(columns, str) else tuple(columns)
        if not keys:
            raise BadExpectation("expect.unique() names no column.", expected="At least one column is expected.")
        return Unique(keys, tolerated=at_most, severity=severity)

    @staticmethod
    def one_of(
        column: str, values: Iterable[Any], *, at_most: int | float = 0, severity: Severity = "error"
    ) -> Expectation:
        """Every value is among `values`."""
        if isinstance(values, str) or not (known := tuple(values)):
            raise BadExpectation(
                f"expect.one_of({column!r}, {values!r}) lists no values.", expected="A list of values is expected."
            )
        return OneOf(column, known, tolerated=at_most, severity=severity)

    @staticmethod
    def rows(*, at_least: int | None = None, at_most: int | None = None, severity: Severity = "error") -> Expectation:
        """The source has so many rows, after set-aside rules."""
        return Rows(at_least, at_most, severity=severity)

    @staticmethod
    def references(
        column: str, source: Source, to: str, *, at_most: int | float = 0, severity: Severity = "error"
    ) -> Expectation:
        """Every value is a value of column `to` of another source."""
        return References(column, source, to, tolerated=at_most, severity=severity)

    @staticmethod
    def sql(condition: str, name: str = "", *, at_most: int | float = 0, severity: Severity = "error") -> Expectation:
        """The SQL condition is not false for any row; `name` says it in words."""
        if not condition.strip():
            raise BadExpectation("expect.sql() has no condition.", expected="An SQL condition is expected.")
        return Sql(condition, name, tolerated=at_most, severity=severity)

    @staticmethod
    def columns(types: Mapping[str, Dtype], *, severity: Severity = "error") -> Expectation:
        """The source has these columns of these types; other columns may be there. An int is accepted for float."""
        return Columns(tuple(types.items()), severity=severity)

    @staticmethod
    def fresh(column: str, within: str, *, severity: Severity = "error") -> Expectation:
        """The newest time of `column` is at most `within` ("2d", "6h") before the project's clock."""
        return Fresh(column, within, severity=severity)

    @staticmethod
    def volume(
        *, at_least: float | None = None, at_most: float | None = None, severity: Severity = "error"
    ) -> Expectation:
        """The source has so many times the rows of its last snapshot; holds while there is none."""
        return Volume(at_least, at_most, severity=severity)

    @staticmethod
    def label_rate(
        column: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        positive: Any = 1,
        severity: Severity = "error",
    ) -> Expectation:
        """Of the rows that have a label, this share has the value `positive`; 1 stands for true too."""
        return LabelRate(column, at_least, at_most, positive, severity=severity)


@dataclass(frozen=True)
class Example:
    """One row that breaks an expectation. row: its position in the source as read, from 0.

    values: the checked columns. at: the source's event key and event time.
    """

    row: int
    values: Mapping[str, Any]
    at: Mapping[str, Any]

    def __str__(self) -> str:
        values = ", ".join(f"{name} {_shown(value)}" for name, value in self.values.items())
        where = " ".join(_shown(value) for value in self.at.values()) or f"row {self.row}"
        return f"{values} at {where}" if values else f"at {where}"


@dataclass(frozen=True)
class Result:
    """What came of one expectation.

    failing: rows that break it; None when it is not about single rows, or could not be tried (then `detail` says why).
    remedy: SQL condition of a SetAside rule that would take these rows out; empty when passed or when none can.
    """

    expectation: str
    passed: bool
    failing: int | None
    detail: str = ""
    examples: tuple[Example, ...] = ()
    remedy: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        if self.failing is None:
            return f"{self.expectation}: {self.detail}"
        return f"{self.expectation}: {_counted(self.failing, 'row')}"

    def as_plain(self) -> dict[str, Any]:
        return {
            "expectation": self.expectation,
            "passed": self.passed,
            "failing": self.failing,
            "detail": self.detail,
            "examples": [str(example) for example in self.examples],
            "remedy": self.remedy,
            "severity": self.severity,
        }


@dataclass(frozen=True)
class ValidationReport:
    """What came of every expectation of one source. set_aside: what its rules had taken out before."""

    source: str
    rows: int
    results: tuple[Result, ...]
    set_aside: tuple[Removed, ...] = ()
    format: ClassVar[int] = FORMAT

    @property
    def passed(self) -> bool:
        """Whether nothing stops the line; a warning does not."""
        return not self.failures

    @property
    def failures(self) -> tuple[Result, ...]:
        """What stops the line."""
        return tuple(result for result in self.results if not result.passed and result.severity == "error")

    @property
    def warnings(self) -> tuple[Result, ...]:
        """What does not hold and only warns."""
        return tuple(result for result in self.results if not result.passed and result.severity == "warn")

    def require(self) -> None:
        """Raise DataRefused unless the report passed."""
        if not self.passed:
            raise refused(self)

    def as_plain(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return {
            "format": self.format,
            "source": self.source,
            "rows": self.rows,
            "passed": self.passed,
            "results": [result.as_plain() for result in self.results],
            "set_aside": [removed.as_plain() for removed in self.set_aside],
        }


def check(
    source: Source,
    table: pa.Table,
    others: Mapping[str, pa.Table] | None = None,
    *,
    removed: Sequence[Removed] = (),
    known: Known | None = None,
) -> ValidationReport:
    """Try every expectation of `source` on `table`, its rows as read.

    known: the clock that `fresh` and the last snapshot that `volume` compare with.
    others: rows of the sources that `references` name (`referenced(source)`), by name.
    removed: what reading had taken out by set-aside rules, for the report.
    """
    known = known or Known()
    results = tuple(_result(source, one, table, others or {}, known) for one in source.expectations)
    return ValidationReport(source.name, table.num_rows, results, tuple(removed))


def check_rows(source: Source, table: pa.Table) -> ValidationReport:
    """Try on some rows of `source` what must hold for each of them; `unique` is tried among them.

    What is about the source as a whole is left out: its size, its types, other sources, and all that tolerates rows.
    """
    kinds = (Between, NotNull, OneOf, Sql, Unique)
    tried = [e for e in source.expectations if isinstance(e, kinds) and not e.tolerated and e.severity == "error"]
    return ValidationReport(source.name, table.num_rows, tuple(_result(source, e, table, {}, Known()) for e in tried))


def beside_rows(source: Source) -> bool:
    """Whether an expectation of `source` hangs on more than rows: on the clock or on the last snapshot."""
    return any(isinstance(one, Fresh | Volume) for one in source.expectations)


def referenced(source: Source) -> list[Source]:
    """The sources that the expectations of `source` refer to."""
    return [e.source for e in source.expectations if isinstance(e, References)]


def refused(*reports: ValidationReport) -> DataRefused:
    """The error for the reports that did not pass, at least one: what broke, where, and the rules that would help."""
    broken = [report for report in reports if not report.passed]
    failures = [(report, result) for report in broken for result in report.failures]
    lines = []
    for report, result in failures:
        lines.append(f"  {report.source}: {result}" + (f" of {report.rows:,}" if result.failing else ""))
        lines += [f"    {example}" for example in result.examples]
    for report in broken:
        rules = [_rule(result.remedy) for result in report.failures if result.remedy]
        if rules:
            lines.append(f"To set these rows aside, add to set_aside=[...] of source '{report.source}' in project.py:")
            lines += [f"  {rule}," for rule in rules]
    name = broken[0].source if len(broken) == 1 else ""
    tried = sum(len(report.results) for report in broken)
    return DataRefused(
        f"{_counted(len(failures), 'expectation')} of {tried} failed for "
        f"{'source' if name else 'sources'} {', '.join(repr(report.source) for report in broken)}.",
        expected="\n".join(lines),
        next=f"Correct the data or the project, then run `{f'seatrial validate {name}'.strip()}` again.",
        source=broken[0].source,
        report=broken[0],
        reports=tuple(reports),
    )


def _rule(where: str) -> str:
    text = f'"{where}"' if '"' not in where and "\\" not in where else repr(where)
    return f'SetAside(where={text}, reason="why these rows are wrong")'


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _result(
    source: Source, expectation: Expectation, table: pa.Table, others: Mapping[str, pa.Table], known: Known
) -> Result:
    severity = expectation.severity
    try:
        require_known(expectation, table.column_names)
        if isinstance(expectation, Whole):
            detail = expectation.found([table], known)
            return Result(expectation.text, passed=True, failing=None, detail=detail, severity=severity)
        failing = expectation.failing(table, others)
    except CannotCheck as why:
        return Result(expectation.text, passed=False, failing=None, detail=str(why), severity=severity)
    if isinstance(expectation, Rows | Columns):
        return Result(expectation.text, passed=True, failing=None, detail="as expected", severity=severity)
    examples = [example(source, expectation, table, row) for row in failing[:EXAMPLES]]
    return judged(expectation, len(failing), table.num_rows, examples, lambda: table.take(list(failing)))


def require_known(expectation: Expectation, names: Sequence[str]) -> None:
    """Raise CannotCheck for the first column of an expectation that is not among `names`."""
    for column in expectation.columns:
        if column not in names:
            raise CannotCheck(f"no column '{column}'. {did_you_mean(column, names)}".strip())


def judged(
    expectation: Expectation, failing: int, rows: int, examples: Sequence[Example], broken: Callable[[], pa.Table]
) -> Result:
    """The result of an expectation about single rows, of which `failing` break it. broken: gives those."""
    allowed = expectation.tolerated
    if isinstance(allowed, float):
        allowed = allowed * rows
    passed = failing <= allowed
    remedy = "" if passed else expectation.remedy(broken())
    return Result(expectation.text, passed, failing, "", tuple(examples), remedy, expectation.severity)


def example(source: Source, expectation: Expectation, table: pa.Table, row: int, *, first_row: int = 0) -> Example:
    """A row that breaks an expectation. first_row: where `table` begins among the source's rows."""
    where = [*source.event_key, *([source.event_timestamp] if source.event_timestamp else [])]
    at = {name: table[name][row].as_py() for name in dict.fromkeys(where) if name in table.column_names}
    values = {name: table[name][row].as_py() for name in expectation.columns if name not in at}
    return Example(first_row + int(row), values, at)


def _positions(mask: pa.ChunkedArray) -> Sequence[int]:
    """Positions at which a column of booleans is true; null is not."""
    import numpy as np
    import pyarrow.compute as pc

    # not pc.indices_nonzero, which crashes the interpreter on a column without chunks (pyarrow 25)
    positions: Sequence[int] = np.flatnonzero(pc.fill_null(mask, False).to_numpy()).tolist()
    return positions


def _numbers(column: Any) -> Sequence[int]:
    numbers: Sequence[int] = column.to_numpy().tolist()
    return numbers


def _bound(value: Any) -> Any:
    """A bound as it is compared: numbers as they are, times aware and in UTC."""
    if isinstance(value, bool) or not isinstance(value, int | float | datetime | str):
        raise BadExpectation(f"{value!r} is no bound.", expected="A number or a time with a zone is expected.")
    if isinstance(value, str):
        return parse_time(value, name="bound")
    return as_utc(value, name="bound") if isinstance(value, datetime) else value


def _holds(kind: pa.DataType, dtype: Dtype) -> bool:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        kind = kind.value_type
    text = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    match dtype:
        case "float":
            return bool(types.is_floating(kind) or types.is_integer(kind) or types.is_decimal(kind))
        case "int":
            return bool(types.is_integer(kind))
        case "bool":
            return bool(types.is_boolean(kind))
        case "string" | "category":
            return bool(text)
        case "timestamp":
            return bool(types.is_timestamp(kind))


def _sql(value: Any) -> str:
    """A Python value as an SQL literal."""
    if isinstance(value, datetime):
        return f"TIMESTAMPTZ {literal(as_utc(value).isoformat(' '))}"
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return f"'{value}'::DOUBLE"
    return str(value)


def _shown(value: Any) -> str:
    """A value for people: times in UTC to the minute when they have no seconds, text as it is."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        text = iso(value)
        return text.removesuffix(":00Z") + "Z" if text.endswith(":00Z") else text
    if isinstance(value, date):
        return value.isoformat()
    return "null" if value is None else str(value)


def _always_quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
