"""The point-in-time join on Spark: the same rows as `join.as_of`, when the events do not fit one machine.

Label rows and events are sent to partitions by a hash of their entity's key, and each partition is joined by `as_of`
itself, so that every rule, rounding and tie is the same code and gives the same bits. Spark spreads the work, moves the
rows and tries again what failed; it never looks into a row, which travels as Arrow bytes.

The driver holds the label rows, the features that come back, and 8 bytes per entity that is asked for. Events of a
`ParquetSource` are read where they are joined, a piece of a file at a time, by the code of `data.reading`; a worker
needs the memory of one partition's events, which is at least that of one entity's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.errors import Failed, SeatrialError, Unavailable, UsageError
from seatrial.data.sources import FrameSource, ParquetSource, Source
from seatrial.features.events import as_kept, view_events
from seatrial.features.join import as_of
from seatrial.features.plan import ViewPlan, plan_view

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.features.definitions import FeatureView

MASTER = "local[*]"
EVENTS_PER_PARTITION = 250_000  # so many take a worker a few hundred MB, as much as clusters grant by default
ROWS_AT_ONCE = 262_144  # rows of a file, or of a data frame, that a worker takes apart at once
ROWS_PER_PIECE = 65_536  # rows that travel as one value; Arrow holds at most 2 GiB of such values at once
ROW = "__row"
PATH, GROUPS = "__path", "__groups"
LABELS, ERROR = -1, -2  # what a piece is; else the number of the source whose rows it holds
WIRE = "part int, what int, data binary"
SHARED = ("name", "event_timestamp", "known_at", "event_key", "label_known_at", "timezone", "set_aside")

UInt64 = NDArray[np.uint64]


class SparkMissing(UsageError):
    """Joining on Spark needs packages that the base install does not hold."""

    code = "features.spark_missing"


class JavaMissing(UsageError):
    """Spark needs Java 17 or later, and finds none."""

    code = "features.java_missing"


class SparkFailed(Unavailable):
    """Spark could not be started, or gave up on a join."""

    code = "features.spark_failed"


def as_of_spark(
    rows: pa.Table,
    views: Mapping[str, FeatureView | ViewPlan],
    events: Mapping[str, Any] | None = None,
    *,
    at: str = "at",
    event_times: bool = False,
    folder: Path | str = ".",
    spark: Any = None,
    master: str | None = None,
    partitions: int | None = None,
) -> pa.Table:
    """What `join.as_of(rows, views, events)` gives, computed by Spark.

    events: for each view its rows: a `Source` (default: the view's own), an Arrow table as `data.reading` gives it, or
        a Spark data frame, whose rows are read as a source's would be. Parquet sources are read by the workers, which
        need to see the files under the same path; other sources are read here and handed over.
    folder: where relative paths of sources start.
    spark: a session; by default the active one, else one is started at `master` (default: SEATRIAL_SPARK_MASTER, else
        all cores of this machine) and stopped at the end.
    partitions: into how many parts the entities are split, for each set of keys; by default one per 250,000 events,
        and at least one for each of Spark's slots.
    Raises what `as_of` and `data.reading.read` raise, and SparkMissing, JavaMissing, SparkFailed.
    """
    sources = _sources(views, events or {}, Path(folder))
    blank = {name: _blank(sources.found[number].schema) for name, number in sources.of_view.items()}
    expected = as_of(rows.slice(0, 1), views, blank, at=at, event_times=event_times)
    if not len(rows) or not views:
        return rows if not views else expected
    if rows[at].null_count:
        return as_of(rows, views, blank, at=at)  # which knows the words
    with session(spark, master) as running, _quiet():
        slots = running.sparkContext.defaultParallelism
        how = _job(rows, views, sources, slots, partitions, at, event_times)
        pieces = [_as_frame(running, _wire(list(how.asked(rows))))]
        for number, source in enumerate(sources.found):
            pieces += source.pieces(running, number, how)
        moved = pieces[0]
        for piece in pieces[1:]:
            moved = moved.unionAll(piece)
        joined = _map(moved.repartitionById(how.parts, "part"), how.join)
        with _explained():
            answers = [(piece.part, piece.what, bytes(piece.data)) for piece in joined.collect()]
    return _in_order(rows, how, answers, expected.schema)


# A session


@contextmanager
def session(spark: Any = None, master: str | None = None) -> Iterator[Any]:
    """The session given, or the active one, or one of our own, which is stopped at the end.

    One of our own keeps UTC, prints errors only, and starts its workers with this Python.
    """
    _require()
    if spark is not None:
        yield spark
        return
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    master = master or os.environ.get("SEATRIAL_SPARK_MASTER") or MASTER
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else workers are whatever python3 is on the path
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    with tempfile.TemporaryDirectory() as place:
        logging = Path(place) / "log4j2.properties"
        logging.write_text(_LOGGING, encoding="utf-8")
        builder = SparkSession.builder.appName("seatrial").master(master)
        for name, value in (
            ("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={logging.as_uri()}"),
            ("spark.driver.maxResultSize", "0"),  # the features that come back are as many as the label rows
            ("spark.log.level", "ERROR"),
            ("spark.sql.session.timeZone", "UTC"),
            ("spark.ui.enabled", "false"),
            ("spark.ui.showConsoleProgress", "false"),
        ):
            builder = builder.config(name, value)
        try:
            with _quiet():
                own = builder.getOrCreate()
        except Exception as error:  # the gateway, the JVM and py4j each have errors of their own
            raise _not_started(error, master) from None
        try:
            yield own
        finally:
            own.stop()


_LOGGING = """
rootLogger.level = error
rootLogger.appenderRef.stderr.ref = stderr
appender.stderr.type = Console
appender.stderr.name = stderr
appender.stderr.target = SYSTEM_ERR
appender.stderr.layout.type = PatternLayout
appender.stderr.layout.pattern = %p %c{1}: %m%n
logger.tasks.name = org.apache.spark.scheduler.TaskSetManager
logger.tasks.level = off
logger.executor.name = org.apache.spark.executor.Executor
logger.executor.level = off
"""


def _require() -> None:
    for name in ("pyspark", "pandas"):  # pyspark takes Arrow functions only where pandas is
        if importlib.util.find_spec(name) is None:
            raise SparkMissing(
                f"joining on Spark needs the package '{name}', which is not installed.",
                next="Install seatrial with its extra: pip install 'seatrial[spark]'.",
            )
    home = os.environ.get("JAVA_HOME", "")
    if shutil.which(str(Path(home) / "bin" / "java") if home else "java") is None:
        where = f"in JAVA_HOME={home}" if home else "on the path"
        raise JavaMissing(
            f"Spark runs on Java, and there is no program 'java' {where}.",
            expected="Java 17 or later is expected.",
            next="Install it (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME.",
        )


def _not_started(error: Exception, master: str) -> SparkFailed:
    return SparkFailed(
        f"Spark could not be started at {master!r}: {_in_short(error)}",
        expected="Java 17 or later, and a master such as local[*] or spark://HOST:7077, are expected.",
        next="Correct SEATRIAL_SPARK_MASTER, or look at what Java printed above.",
    )


@contextmanager
def _explained() -> Iterator[None]:
    """What Spark raises as SparkFailed, with the line that matters."""
    try:
        yield
    except SeatrialError:
        raise
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark", "py4j")):
            raise
        raise SparkFailed(
            f"Spark gave up on the join: {_in_short(error)}",
            next="Where memory ran out, give more partitions= or more memory to the executors; where a worker does not "
            "find 'seatrial', install it there.",
        ) from None


def _in_short(error: Exception) -> str:
    """The last line of a Python worker's traceback, else the first of what the JVM says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (said[-1] if said and "Traceback" in str(error) else next(iter(lines), type(error).__name__))[:300]


@contextmanager
def _quiet() -> Iterator[None]:
    """pyspark warns of pandas 3, which it imports and of which nothing is used here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
        yield


def _map(frame: Any, function: Any) -> Any:
    return frame.mapInArrow(function, WIRE)


def _as_frame(spark: Any, pieces: pa.Table) -> Any:
    return spark.createDataFrame(pieces, WIRE)


# What is joined


@dataclass
class _Input:
    """Where the rows of one or several views come from. rows: how many there are; None: nobody counted."""

    given: Any
    declared: Source
    schema: pa.Schema
    rows: int | None
    splits: Sequence[bytes] = ()

    def pieces(self, spark: Any, number: int, how: Job) -> list[Any]:
        """Data frames of the wire's columns with the rows that anybody asks for."""
        import pyarrow as pa

        if isinstance(self.given, pa.Table):
            found = list(how.handed(number, self.given))
            return [_as_frame(spark, _wire(found))] if found else []
        if self.splits:
            tasks = _as_frame(spark, _wire([(i, number, split) for i, split in enumerate(self.splits)]))
            return [_map(tasks.repartitionById(len(self.splits), "part"), how.read)]
        chosen = self.given.select(*[f"`{name}`" for name in how.columns[number] or self.schema.names])
        return [_map(chosen, _DataFrame(how, number))]


@dataclass
class _Inputs:
    found: list[_Input]
    of_view: dict[str, int]


@dataclass(frozen=True)
class Group:
    """The views that are looked up by the same columns: they share one split of the entities.

    first, parts: their partitions are `first` up to `first + parts`.
    entities: the hashes of the keys that are asked for, ascending.
    sources: view -> number of its source.
    """

    keys: tuple[str, ...]
    views: tuple[ViewPlan, ...]
    sources: Mapping[str, int]
    first: int
    parts: int
    entities: UInt64


def _sources(views: Mapping[str, FeatureView | ViewPlan], events: Mapping[str, Any], folder: Path) -> _Inputs:
    """The inputs, each once however many views look at it."""
    found: list[_Input] = []
    of_view: dict[str, int] = {}
    known: dict[int, int] = {}
    for view in views.values():
        given = events.get(view.name)
        if given is None:
            if isinstance(view, ViewPlan):
                raise UsageError(f"no events are given for view '{view.name}'.", expected="A plan holds no source.")
            given = view.source
        if id(given) not in known:
            known[id(given)] = len(found)
            found.append(_input(given, view, folder))
        of_view[view.name] = known[id(given)]
    return _Inputs(found, of_view)


def _input(given: Any, view: FeatureView | ViewPlan, folder: Path) -> _Input:
    import pyarrow as pa

    from seatrial.data.reading import read

    if isinstance(given, ParquetSource) and not _looks_around(given):
        return _parquet(given, folder)
    if isinstance(given, Source):
        given = read(given, folder=folder).table
    if isinstance(given, pa.Table):
        return _Input(given, _declared(view), given.schema, given.num_rows)
    declared = view.source if isinstance(getattr(view, "source", None), Source) else _declared(view)
    assert isinstance(declared, Source)
    with _quiet():
        from pyspark.sql.pandas.types import to_arrow_schema

        schema = to_arrow_schema(given.schema, timezone="UTC")
    return _Input(given, declared, _read_schema(declared, schema, warn=True), None)


def _declared(view: FeatureView | ViewPlan) -> Source:
    source = plan_view(view).source
    assert source is not None
    return FrameSource(
        None,
        name=source.name,
        event_timestamp=source.event_timestamp,
        known_at=source.known_at,
        event_key=source.event_key,
    )


def _looks_around(source: Source) -> bool:
    """Whether a rule may look at other rows than the one it judges, so that a part of the rows will not do."""
    return any(re.search(r"\bselect\b", rule.where, re.IGNORECASE) for rule in source.set_aside)


def _light(source: Source) -> FrameSource:
    """The source without what it reads: what is needed to give its rows their one form."""
    return FrameSource(None, **{name: getattr(source, name) for name in SHARED})


def _parquet(source: ParquetSource, folder: Path) -> _Input:
    """A file, or several, cut into tasks of whole row groups. Only the files' footers are read here.

    A task is a table of one row: the path, the row groups, and the values of the path's partitions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seatrial.data import reading
    from seatrial.data.hive import partitions, with_partitions

    splits: list[bytes] = []
    total = 0
    paths = reading.matching(source, folder)
    schemas: list[pa.Schema] = []
    hive = partitions(source, paths, folder)
    for position, path in enumerate(paths):
        try:
            with pq.ParquetFile(path) as file:
                schemas.append(file.schema_arrow.remove_metadata())
                counts = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise reading.unreadable(source, f"is not readable as Parquet: {error}", path) from None
        reading._check_names(source, schemas[-1].names)
        difference = reading._schema_difference(schemas[0], schemas[-1])
        if difference:
            raise reading.unreadable(source, f"differs from {paths[0].name}: {difference}", path)
        total += sum(counts)
        for groups in _packed(counts, ROWS_AT_ONCE * 2):
            values = {name: column.slice(position, 1) for name, column in hive.items()}
            splits.append(_bytes(pa.table({PATH: [str(path.resolve())], GROUPS: [groups], **values})))
    if not total:
        raise reading._empty(source, "has no rows")
    first = with_partitions(
        source, schemas[0].empty_table(), {name: column[0] for name, column in hive.items()}, paths[0]
    )
    return _Input(source, source, _read_schema(source, first.schema, warn=True), total, splits)


def _packed(counts: Sequence[int], most: int) -> Iterator[list[int]]:
    """Neighbouring row groups together, until they hold `most` rows."""
    groups: list[int] = []
    rows = 0
    for group, count in enumerate(counts):
        groups.append(group)
        rows += count
        if rows >= most:
            yield groups
            groups, rows = [], 0
    if groups:
        yield groups


def _blank(schema: pa.Schema) -> pa.Table:
    """One row of nulls: it belongs to no entity, but has the columns and their types."""
    import pyarrow as pa

    return pa.table({field.name: pa.nulls(1, field.type) for field in schema})


def _read_schema(source: Source, schema: pa.Schema, *, warn: bool = False) -> pa.Schema:
    """The types that columns have once they are read, and the warning of times without a zone."""
    from seatrial.data.reading import read

    light = FrameSource(_blank(schema), **{name: getattr(source, name) for name in SHARED if name != "set_aside"})
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore")
        found: pa.Schema = read(light, folder=Path()).table.schema
    return found


def _job(
    rows: pa.Table,
    views: Mapping[str, FeatureView | ViewPlan],
    sources: _Inputs,
    slots: int,
    partitions: int | None = None,
    at: str = "at",
    event_times: bool = False,
) -> Job:
    """What is to be done. slots: how many partitions Spark works on at once."""
    import pyarrow as pa

    groups = tuple(_groups(rows, views, sources, slots, partitions))
    instants = rows[at].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    return Job(
        groups=groups,
        sources=tuple(_light(source.declared) for source in sources.found),
        schemas=tuple(source.schema for source in sources.found),
        columns=tuple(_columns_read(source, groups, number) for number, source in enumerate(sources.found)),
        last_us=int(np.max(instants.to_numpy())),
        at=at,
        event_times=event_times,
    )


def _groups(
    rows: pa.Table,
    views: Mapping[str, FeatureView | ViewPlan],
    sources: _Inputs,
    slots: int,
    partitions: int | None,
) -> list[Group]:
    by_keys: dict[tuple[str, ...], list[ViewPlan]] = {}
    for view in views.values():
        plan = plan_view(view)
        by_keys.setdefault(plan.keys, []).append(plan)
    groups: list[Group] = []
    first = 0
    for keys, plans in by_keys.items():
        hashes, valid = key_hashes(rows, keys)
        entities = np.unique(hashes[valid])
        of_view = {plan.name: sources.of_view[plan.name] for plan in plans}
        counted = [sources.found[number].rows for number in set(of_view.values())]
        enough = sum(slots * EVENTS_PER_PARTITION if count is None else count for count in counted)
        parts = partitions or max(slots, -(-enough // EVENTS_PER_PARTITION))
        parts = max(1, min(parts, len(entities)))
        groups.append(Group(keys, tuple(plans), of_view, first, parts, entities))
        first += parts
    return groups


def _columns_read(source: _Input, groups: Sequence[Group], number: int) -> tuple[str, ...] | None:
    """The columns of a source that any view needs; None: all, since SQL may name any."""
    plans = [plan for group in groups for plan in group.views if group.sources[plan.name] == number]
    if source.declared.set_aside or any(plan.expressions for plan in plans):
        return None
    wanted = _needed(plans) | {source.declared.label_known_at, *source.declared.event_key}
    return tuple(name for name in source.schema.names if name in wanted)


def _needed(plans: Iterable[ViewPlan]) -> set[str | None]:
    wanted: set[str | None] = set()
    for plan in plans:
        assert plan.source is not None
        wanted |= {*plan.keys, *plan.source.event_key, plan.source.event_timestamp, plan.source.known_at}
        wanted |= {a.column for a in plan.features.values() if not a.sql}
    return wanted


def key_hashes(rows: pa.Table, keys: Sequence[str]) -> tuple[UInt64, NDArray[np.bool_]]:
    """A hash per row that is equal for equal keys, whatever their type's width; and which rows have every key."""
    hashes = np.zeros(len(rows), dtype=np.uint64)
    valid = np.ones(len(rows), dtype=bool)
    for key in keys:
        column = as_kept(rows[key]).combine_chunks()
        valid &= ~column.is_null().to_numpy(zero_copy_only=False)
        hashes = _mixed(hashes ^ _codes(column))
    return hashes, valid


def _codes(column: pa.Array) -> UInt64:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), dtype=np.uint64)
    if pa.types.is_boolean(kind):
        column = column.cast(pa.uint8())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        whole: UInt64 = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.uint64)
        return whole  # of -1 the same in every width
    if pa.types.is_floating(kind):
        floats = column.cast(pa.float64()).fill_null(0.0).to_numpy(zero_copy_only=False)
        bits: UInt64 = np.ascontiguousarray(floats + 0.0).view(np.uint64)
        return bits  # -0.0 became 0.0
    encoded = column.dictionary_encode()
    words = [0 if word is None else zlib.crc32(str(word).encode()) for word in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    hashed: UInt64 = np.array([*words, 0], dtype=np.uint64)[places]
    return hashed


def _mixed(values: UInt64) -> UInt64:
    """The finalizer of splitmix64 (Steele, Lea and Flood, 2014): neighbours are spread."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


# On the workers

Piece = tuple[int, int, bytes]
"""The partition that it goes to, what it is, and Arrow's bytes (or of an error JSON's)."""


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    sources, schemas, columns: per number of a source, what it declares, its columns when read, and those that are
    read of it (None: all).
    """

    groups: tuple[Group, ...]
    sources: tuple[FrameSource, ...]
    schemas: tuple[pa.Schema, ...]
    columns: tuple[tuple[str, ...] | None, ...]
    last_us: int
    at: str
    event_times: bool

    @property
    def parts(self) -> int:
        """The number of partitions, of all groups."""
        return self.groups[-1].first + self.groups[-1].parts

    def asked(self, rows: pa.Table) -> Iterator[Piece]:
        """The label rows by partition, once for each group."""
        import pyarrow as pa

        numbers = np.arange(len(rows))
        for group in self.groups:
            hashes, valid = key_hashes(rows, group.keys)
            hashes = np.where(valid, hashes, numbers.astype(np.uint64))  # no entity's: anywhere will do
            table = pa.table({self.at: rows[self.at], **{key: rows[key] for key in group.keys}, ROW: numbers})
            part = (hashes % np.uint64(group.parts)).astype(np.int64)
            yield from _cut(table, numbers, part, group.first, LABELS)

    def read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pieces of files -> pieces of their rows."""
        for _, number, task in _unwired(batches):
            try:
                for table in _row_groups(self.sources[number], _table(task), self.columns[number]):
                    for piece in self.split(number, self.in_form(number, table)):
                        yield _wire([piece]).to_batches()[0]
            except SeatrialError as error:
                yield _told(error)

    def in_form(self, number: int, table: pa.Table) -> pa.Table:
        """Rows as `data.reading` gives them: times in UTC, null for NaN, set-aside rows gone."""
        import pyarrow as pa

        from seatrial.data.reading import SourceEmpty, read

        source = self.sources[number]
        rows = FrameSource(table, **{name: getattr(source, name) for name in SHARED})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of times without a zone the driver has warned
            try:
                found = read(rows, folder=Path()).table
            except SourceEmpty:
                found = _blank(self.schemas[number]).slice(0, 0)
        names = self.columns[number] or self.schemas[number].names
        return found.select(list(names)).cast(pa.schema([self.schemas[number].field(name) for name in names]))

    def handed(self, number: int, table: pa.Table) -> Iterator[Piece]:
        """The rows of a table that was read already, by partition."""
        table = table.select(list(self.columns[number] or self.schemas[number].names))
        for start in range(0, len(table), ROWS_AT_ONCE):
            yield from self.split(number, table.slice(start, ROWS_AT_ONCE))

    def split(self, number: int, table: pa.Table) -> Iterator[Piece]:
        """The rows of a source by partition, without those of entities and times that nobody asks for.

        What is left out is looked at all the same, so that a row which cannot be read is found wherever it is.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        for group in self.groups:
            plans = [plan for plan in group.views if group.sources[plan.name] == number]
            if not plans or not len(table):
                continue
            hashes, kept = key_hashes(table, group.keys)
            kept &= _among(hashes, group.entities)
            source = self.sources[number]
            known = table[source.known_at or source.event_timestamp].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            kept &= pc.fill_null(pc.less_equal(known, self.last_us), False).to_numpy()
            if not kept.all():
                rest = table.filter(pa.array(~kept))
                for plan in plans:
                    view_events(plan, rest)
            chosen = np.flatnonzero(kept)
            part = (hashes[chosen] % np.uint64(group.parts)).astype(np.int64)
            names = self.sent(group, number)
            yield from _cut(table.select(names), chosen, part, group.first, number)

    def sent(self, group: Group, number: int) -> list[str]:
        """The columns of a source that a group's partitions get."""
        plans = [plan for plan in group.views if group.sources[plan.name] == number]
        names = list(self.columns[number] or self.schemas[number].names)
        if any(plan.expressions for plan in plans):
            return names
        return [name for name in names if name in _needed(plans)]

    def join(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Pieces of label rows and events -> the label rows' numbers and features."""
        import pyarrow as pa

        labels: dict[int, list[pa.Table]] = {}
        events: dict[tuple[int, int], list[pa.Table]] = {}
        for part, what, data in _unwired(batches):
            if what == ERROR:
                yield _wire([(part, what, data)]).to_batches()[0]
            elif what == LABELS:
                labels.setdefault(part, []).append(_table(data))
            else:
                events.setdefault((part, what), []).append(_table(data))
        for part, asked in sorted(labels.items()):
            group = next(g for g in reversed(self.groups) if g.first <= part)
            tables = {}
            for number in set(group.sources.values()):
                schema = pa.schema([self.schemas[number].field(name) for name in self.sent(group, number)])
                tables[number] = pa.concat_tables([schema.empty_table(), *events.pop((part, number), [])])
            rows = pa.concat_tables(asked)
            views = {plan.name: plan for plan in group.views}
            of_view = {name: tables[number] for name, number in group.sources.items()}
            try:
                joined = as_of(rows, views, of_view, at=self.at, event_times=self.event_times)
            except SeatrialError as error:
                yield _told(error)
                continue
            done = joined.select([ROW, *joined.column_names[rows.num_columns :]])
            for start in range(0, len(done), ROWS_PER_PIECE):
                piece = done.slice(start, ROWS_PER_PIECE)
                yield _wire([(part, LABELS, _bytes(piece))]).to_batches()[0]


@dataclass(frozen=True)
class _DataFrame:
    """Batches of a data frame -> pieces of their rows."""

    how: Job
    number: int

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            for table in _gathered(batches):
                for piece in self.how.split(self.number, self.how.in_form(self.number, table)):
                    yield _wire([piece]).to_batches()[0]
        except SeatrialError as error:
            yield _told(error)


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    import pyarrow as pa

    waiting: list[pa.RecordBatch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= ROWS_AT_ONCE:
            yield pa.Table.from_batches(waiting)
            waiting = []
    if waiting:
        yield pa.Table.from_batches(waiting)


def _row_groups(source: FrameSource, task: pa.Table, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seatrial.data import reading
    from seatrial.data.hive import with_partitions

    path, groups = Path(task[PATH][0].as_py()), task[GROUPS][0].as_py()
    values = {name: task[name][0] for name in task.column_names if name not in (PATH, GROUPS)}
    if columns is not None:
        values = {name: value for name, value in values.items() if name in columns}
    declared = ParquetSource(str(path), name=source.name)
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if columns is not None:
                names = [name for name in names if name in columns] or names[:1]  # of no column Arrow counts no rows
            for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=names, use_threads=False):
                yield with_partitions(declared, pa.table(batch).replace_schema_metadata(None), values, path)
    except (pa.ArrowException, OSError) as error:
        raise reading.unreadable(source, f"is not readable by a worker: {error}", path) from None


def _among(values: UInt64, sorted_: UInt64) -> NDArray[np.bool_]:
    if not len(sorted_):
        return np.zeros(len(values), dtype=bool)
    places = np.minimum(np.searchsorted(sorted_, values), len(sorted_) - 1)
    found: NDArray[np.bool_] = sorted_[places] == values
    return found


def _cut(table: pa.Table, chosen: NDArray[np.int64], part: NDArray[np.int64], first: int, what: int) -> Iterator[Piece]:
    """The chosen rows of a table as pieces of their partitions."""
    import pyarrow as pa

    if not len(chosen):
        return
    order = np.argsort(part, kind="stable")
    ordered = table.take(pa.array(chosen[order]))
    numbers, starts = np.unique(part[order], return_index=True)
    for number, start, end in zip(numbers, starts, [*starts[1:], len(part)], strict=True):
        for begin in range(start, end, ROWS_PER_PIECE):
            piece = ordered.slice(begin, min(ROWS_PER_PIECE, end - begin))
            yield first + int(number), what, _bytes(piece)


def _in_order(
    rows: pa.Table,
    how: Job,
    answers: Sequence[Piece],
    expected: pa.Schema,
) -> pa.Table:
    """The rows with the features that came back, each where its row is. Raises the error that a worker told."""
    import pyarrow as pa

    failed = sorted(data for _, what, data in answers if what == ERROR)
    if failed:
        raise _revived(failed[0])
    by_group: dict[int, list[pa.Table]] = {}
    for part, _, data in answers:
        number = max(i for i, group in enumerate(how.groups) if group.first <= part)
        by_group.setdefault(number, []).append(_table(data))
    found: dict[str, pa.ChunkedArray] = {}
    for number in range(len(how.groups)):
        table = pa.concat_tables(by_group.get(number, []), promote_options="permissive").combine_chunks()
        order = np.argsort(table[ROW].to_numpy(), kind="stable")
        if not np.array_equal(table[ROW].to_numpy()[order], np.arange(len(rows))):
            raise SparkFailed(f"{len(table)} rows came back from Spark for {len(rows)}.", next="Run it again.")
        found |= {name: table[name].take(pa.array(order)) for name in table.column_names if name != ROW}
    for field in list(expected)[rows.num_columns :]:
        rows = rows.append_column(field.name, found[field.name].cast(field.type))
    return rows


# The wire


def _wire(pieces: Sequence[Piece]) -> pa.Table:
    import pyarrow as pa

    parts, whats, data = zip(*pieces, strict=True)
    return pa.table(
        {"part": pa.array(parts, pa.int32()), "what": pa.array(whats, pa.int32()), "data": pa.array(data, pa.binary())}
    )


def _unwired(batches: Iterable[pa.RecordBatch]) -> Iterator[Piece]:
    for batch in batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _bytes(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    found: bytes = sink.getvalue().to_pybytes()
    return found


def _table(data: bytes) -> pa.Table:
    import pyarrow as pa

    with pa.ipc.open_stream(data) as stream:
        return stream.read_all()


def _told(error: SeatrialError) -> pa.RecordBatch:
    """An error as a row: raised in a worker it would be tried again, and come out as a traceback."""
    facts = {name: value for name, value in error.facts.items() if isinstance(value, str | int | float | None)}
    words = {name: getattr(error, name) for name in ("code", "found", "expected", "state", "next")}
    return _wire([(0, ERROR, json.dumps(words | {"facts": facts}).encode())]).to_batches()[0]


def _revived(data: bytes) -> SeatrialError:
    """The error that a worker told, as what it was."""
    words = json.loads(data)
    code, facts = words.pop("code"), words.pop("facts")
    kinds = [SeatrialError]
    for kind in kinds:
        if kind.code == code:
            return kind(**words, **facts)
        kinds += kind.__subclasses__()
    return Failed(**words, **facts)
