"""The prediction log: what was answered, to whom, from which inputs, by which release?

An answer's rows are appended to the segment of its process by one write, before the answer leaves. A segment
survives the death of its process at any instant; what a power failure can take is set by `fsync`. Another
process turns closed segments into Parquet by model and day (`compact`). Readers see every record once,
wherever it lies, also while a compaction runs or after one died half-way.

    segments/ID.seg                                       one per process, locked by it while it is open
    compacted/BATCH/batch.json                            which segments this batch replaces
    compacted/BATCH/model=M/day=YYYY-MM-DD/SCHEMA.parquet
    damaged/ID.seg                                        compacted segments that held unreadable bytes
    failures/ID.jsonl                                     requests without an answer, see `stores.failures`

A segment is a header and frames: length, CRC-32 over length and payload, payload (msgpack). A payload is either a
`LogSchema`, which names the columns, or a `LoggedPrediction`, which refers to one.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

import msgspec

from seatrial.core.clock import as_utc, from_us, machine_us, monotonic, to_us
from seatrial.core.errors import Conflict, Failed, Unavailable, UsageError, did_you_mean, listed
from seatrial.core.identity import uuid7, value_digest
from seatrial.core.types import Dtype
from seatrial.core.windows import Window
from seatrial.stores.failures import FailureLog

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
SHADOW = "~shadow"
"""What the name of a deployment ends with in the rows that it scored beside its answers, for nobody to see."""
OF_CLASS = "probability_"
EVERY_CLASS = f"{OF_CLASS}*"

Fsync = Literal["never", "group", "always"]

_MAGIC = b"STPLOG"
_HEADER = struct.Struct("<6sHI")  # magic, format, CRC-32 of both
_FRAME = struct.Struct("<II")  # length of the payload, CRC-32 of the payload seeded with the length
_NAN = struct.pack("<d", float("nan"))
_LARGEST = 16 * 2**20  # no payload is longer; a longer length is damage
_GROUP_SECONDS = 0.05
_MOST_SCHEMAS = 1_000  # remembered by `write`; every set of feature names is one
_BATCH_BYTES = 128 * 2**20  # segments compacted together, so that memory stays bounded


class LogUnwritable(Unavailable):
    """The prediction log took no more records: the disk is full or failing."""

    code = "log.unwritable"


class LogTooNew(Failed):
    """A part of the prediction log was written by a newer version."""

    code = "log.too_new"


class LogBusy(Conflict):
    """Another compaction of this log is running."""

    code = "log.compacting"


class LogColumnMissing(Failed):
    """A column was asked for that no record of the log has."""

    code = "log.column_missing"


class LogValueWrong(UsageError):
    """A prediction was given to the log with a value that it does not take."""

    code = "log.value_wrong"


class LogWarning(UserWarning):
    """Some bytes of the log could not be read; the rest was."""


class LoggedField(msgspec.Struct, frozen=True, array_like=True):
    """A request field and its type."""

    name: str
    dtype: Dtype


class LogSchema(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """What the positions of a record's `inputs`, `fields` and `views` mean.

    id: 60 bits of the digest of the rest; see `log_schema`.
    inputs: the model's inputs, in the order of its signature.
    categories: those inputs that are strings; the others are numbers.
    classes: of a multiclass model, in the order of a record's probabilities; empty for others.
    """

    id: int
    model: str
    version: str
    release: str
    deployment: str
    inputs: tuple[str, ...]
    categories: tuple[str, ...]
    fields: tuple[LoggedField, ...]
    views: tuple[str, ...]
    classes: tuple[str | int, ...] = ()


class LoggedPrediction(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One scored row.

    schema: the id of the LogSchema of `inputs`, `fields` and `views`.
    prediction_id: made by the server, unique. request_id: the caller's, or made for it; a request may have many rows.
    at_us: the instant that the features are as of; recorded_at_us: the machine's time of the write.
    inputs: the model's inputs after enrichment, before encoding; None is missing.
    fields: the request's fields, timestamps as microseconds; None is missing.
    views: for each view (status, event time in microseconds or None).
    prediction: 0 or 1, or the value; of a multiclass model the place of the likeliest class.
    probability: P(positive), or the likeliest class's; None for a regression.
    degraded: what could not be asked while this was answered, empty when all is well.
    probabilities: of every class in order, as the bytes of little-endian float64; empty unless multiclass.
    """

    schema: int
    prediction_id: str
    request_id: str
    row: int
    caller: str
    arm: str
    at_us: int
    recorded_at_us: int
    inputs: tuple[Any, ...]
    fields: tuple[Any, ...]
    views: tuple[tuple[str, int | None], ...]
    prediction: float
    probability: float | None
    latency_ms: float
    degraded: tuple[str, ...] = ()
    probabilities: bytes = b""


@dataclass(frozen=True)
class Damage:
    """Bytes of a segment that are no record, with good records after them, or a whole record with a wrong checksum."""

    segment: str
    offset: int
    length: int


@dataclass(frozen=True)
class SegmentReport:
    """What is in one segment. torn: bytes of a last write that its process did not live to finish."""

    segment: str
    records: int
    closed: bool
    torn: int
    damaged: tuple[Damage, ...]


@dataclass(frozen=True)
class Compaction:
    """What one call of `compact` did."""

    segments: int = 0
    records: int = 0
    files: int = 0
    torn: int = 0
    damaged: tuple[Damage, ...] = ()


@dataclass
class _Open:
    """The segment that this process writes."""

    path: Path
    fd: int
    size: int
    opened: float
    schemas: set[int] = field(default_factory=set)
    unsynced: bool = False


def log_schema(
    *,
    model: str,
    version: str,
    release: str,
    deployment: str,
    inputs: Sequence[str],
    categories: Iterable[str] = (),
    fields: Iterable[tuple[str, Dtype]] = (),
    views: Sequence[str] = (),
    classes: Sequence[str | int] = (),
) -> LogSchema:
    """A schema with its id."""
    parts: tuple[Any, ...] = (
        model,
        version,
        release,
        deployment,
        tuple(inputs),
        tuple(sorted(categories)),
        tuple(LoggedField(name, dtype) for name, dtype in fields),
        tuple(views),
    )
    if classes:
        parts += (tuple(classes),)
    return LogSchema(int(value_digest(parts)[:15], 16), *parts)


class PredictionLog:
    """One log, written by any number of processes, read and compacted by others.

    fsync: "never" leaves writing to disk to the kernel: a dead process loses nothing, a power failure or a dead
        kernel the last seconds. "group" syncs in the background every 50 ms, "always" before `append` returns.
    segment_bytes, segment_seconds: a segment that is larger or older is closed by the next append, and can
        then be compacted.
    """

    def __init__(
        self,
        root: Path,
        fsync: Fsync = "never",
        *,
        segment_bytes: int = 32 * 2**20,
        segment_seconds: float = 60.0,
    ) -> None:
        self.root = root
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._segments = root / "segments"
        self._compacted = root / "compacted"
        self._damaged = root / "damaged"
        self.failures = FailureLog(root / "failures")
        self._encode = msgspec.msgpack.Encoder().encode
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._group: threading.Thread | None = None
        self._stop = threading.Event()
        self._schemas: dict[tuple[Any, ...], LogSchema] = {}
        self._texts: set[tuple[str, str]] = set()  # inputs that were text, by model
        self._closed_bytes = 0

    # -- writing

    @property
    def written(self) -> int:
        """Bytes that were appended through this object."""
        segment = self._open
        return self._closed_bytes + (segment.size if segment is not None else 0)

    def write(
        self,
        *,
        model: str,
        features: Mapping[str, Any],
        prediction: float,
        probability: float | None = None,
        request_id: str | None = None,
        at: datetime | None = None,
        version: str = "",
        latency_ms: float | None = None,
    ) -> str:
        """Append one prediction of a model that is served elsewhere; returns its new prediction_id.

        features: the model's inputs: numbers, text, bools (as 0 and 1) or None for missing; NaN is missing.
        probability: P(positive) of a classifier. request_id: the caller's name for the request, to which labels can be
            told. at: the instant that the prediction is for, aware; now by default.
        When this returns the record survives the death of the process; safe from any thread. Raises LogValueWrong and
        NaiveTime before anything is written, and LogUnwritable.
        """
        texts = {name for name, value in features.items() if isinstance(value, str)}
        self._texts |= {(model, name) for name in texts}
        categories = tuple(sorted(name for name in features if (model, name) in self._texts))
        known = (model, version, tuple(features), categories)
        schema = self._schemas.get(known)
        if schema is None:
            if len(self._schemas) >= _MOST_SCHEMAS:
                self._schemas.clear()
            schema = self._schemas[known] = log_schema(
                model=model, version=version, release="", deployment="", inputs=list(features), categories=categories
            )
        now_us, prediction_id = machine_us(), uuid7()
        row = LoggedPrediction(
            schema=schema.id,
            prediction_id=prediction_id,
            request_id=prediction_id if request_id is None else request_id,
            row=0,
            caller="",
            arm="",
            at_us=now_us if at is None else to_us(as_utc(at)),
            recorded_at_us=now_us,
            inputs=tuple(_input(name, value) for name, value in features.items()),
            fields=(),
            views=(),
            prediction=_number("prediction", prediction),
            probability=None if probability is None else _number("probability", probability),
            latency_ms=float("nan") if latency_ms is None else _number("latency_ms", latency_ms),
        )
        self.append(schema, row)
        return prediction_id

    def append(self, schema: LogSchema, row: LoggedPrediction) -> None:
        """Append an answer of one row. When this returns the record survives the death of the process.

        Raises LogUnwritable, with nothing kept, when it could not be written whole.
        """
        frame = _frame(self._encode(row))
        with self._lock:
            segment = self._open
            if segment is None or self._is_full(segment) or schema.id not in segment.schemas:
                self._append({schema.id: schema}, [frame])
            else:
                self._write(segment, frame)

    def append_all(self, rows: Sequence[tuple[LogSchema, LoggedPrediction]]) -> None:
        """Append the rows of one or more answers by one write, all of them or none; see `append`."""
        frames = [_frame(self._encode(row)) for _, row in rows]
        with self._lock:
            self._append({schema.id: schema for schema, _ in rows}, frames)

    def rotate(self) -> None:
        """Close the segment, so that it can be compacted; the next append opens another.

        Raises LogUnwritable when what was appended could not be brought to the disk.
        """
        with self._lock:
            try:
                self._close_segment()
            except OSError as error:
                raise _unwritable(error) from None

    def close(self) -> None:
        """Close the segment and stop the background sync. The log can be used again afterwards."""
        self._stop.set()
        if self._group is not None:
            self._group.join()
            self._group = None
        self.failures.close()
        self.rotate()

    # -- reading

    def rows(
        self,
        *,
        model: str | None = None,
        window: Window | None = None,
        deployment: str | None = None,
        release: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Every record once, in the order of its `prediction_id`, filtered by what is given.

        window: of `at`, the instant that the prediction is for. deployment: what a release scored in its shadow has the
        deployment's name with "~shadow" behind it, and is read only when it is asked for by that name.
        columns: only these, "probability_*" standing for every class's; all of them without it.

        Columns: prediction_id, request_id, row, caller, model, version, release, deployment, arm, at, recorded_at
        (UTC), prediction, probability (null for regression), latency_ms, degraded (a list); of multiclass models, whose
        `prediction` is null and whose `probability` is that of the likeliest class, `predicted_class` (string) and for
        each class `probability_CLASS`; then for each input
        of the model `feature_NAME` (float64, or string for a category; null is missing), for each field of the
        request `field_NAME` (in its own type), for each view `view_NAME_status` (present, missing, expired),
        `view_NAME_event_at` and `view_NAME_age_s` (seconds from the event to `at`). Columns that a record's release
        does not have are null; a column that is a number in one release and a string in another is a string.
        Unreadable bytes are skipped with a LogWarning that names segment and offset.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        tables = self._tables(model=model, window=window, deployment=deployment, release=release, columns=columns)
        # by first record: the order of columns must not depend on where records lie
        tables = sorted(
            (table for table in tables if table.num_rows), key=lambda table: str(pc.min(table["prediction_id"]))
        )
        table = _concatenated(tables)
        if columns is not None:
            every = [name for name in table.column_names if name.startswith(OF_CLASS)]
            columns = [one for name in columns for one in (every if name == EVERY_CLASS else [name])]
            unknown = [name for name in columns if name not in table.column_names]
            if unknown and table.num_rows:
                there = _concatenated(self._tables(model=model, window=window)).column_names
                raise LogColumnMissing(
                    f"the log has no column '{unknown[0]}'.",
                    expected=f"It has {listed(there, most=20)}. {did_you_mean(unknown[0], there)}".strip(),
                )
            for name in unknown:
                table = table.append_column(name, pa.nulls(0))
        table = table.take(pc.sort_indices(table["prediction_id"]))
        return table if columns is None else table.select(list(columns))

    def prediction_logs(self, model: str | None = None, window: Window | None = None) -> pa.Table:
        """The rows in the form that `seatrial.surface.ModelMonitor` takes: `feature_NAME`, `prediction`, `timestamp`.

        prediction: the probability of class 1 where the model gives one, else its value. timestamp: in UTC, ascending.
        """
        import pyarrow.compute as pc

        rows = self.rows(model=model, window=window)
        rows = rows.sort_by([("at", "ascending"), ("prediction_id", "ascending")])
        found = {name: rows[name] for name in rows.column_names if name.startswith("feature_")}
        found["prediction"] = pc.coalesce(rows["probability"], rows["prediction"])
        found["timestamp"] = rows["at"]
        return type(rows).from_pydict(found)

    def find(self, wanted: str) -> list[dict[str, Any]]:
        """The records whose prediction_id or request_id is `wanted`, as dictionaries by column; empty when none."""
        import pyarrow.compute as pc

        found = []
        for table in self._tables(wanted=wanted):
            hits = table.filter(pc.or_(pc.equal(table["prediction_id"], wanted), pc.equal(table["request_id"], wanted)))
            found += hits.to_pylist()
        return sorted(found, key=lambda row: str(row["prediction_id"]))

    def verify(self) -> list[SegmentReport]:
        """What is in each segment that is not compacted yet: records, a torn tail, damage."""
        reports = []
        for name in self._uncompacted():
            closed = self._is_closed(name)  # asked before reading: a tail is torn only when nobody writes it
            try:
                scan = _scan(name, (self._segments / name).read_bytes())
            except FileNotFoundError:
                continue
            records = sum(len(rows) for rows in scan.rows.values())
            reports.append(SegmentReport(name, records, closed, scan.tail if closed else 0, tuple(scan.damaged)))
        return reports

    # -- compaction

    def compact(self) -> Compaction:
        """Turn every closed segment into Parquet by model and day, and remove it. For a process of its own.

        A crash at any point loses and doubles nothing: a batch is written aside and becomes visible, together
        with the list of segments that it replaces, by one rename. Segments with unreadable bytes are kept in
        `damaged/`. Raises LogBusy when another compaction runs.
        """
        self._segments.mkdir(parents=True, exist_ok=True)
        self._compacted.mkdir(parents=True, exist_ok=True)
        done = Compaction()
        with self._compacting():
            self._clear_leftovers()
            for batch in _batches([name for name in self._uncompacted() if self._is_closed(name)], self._segments):
                one = self._compact(batch)
                done = Compaction(
                    done.segments + one.segments,
                    done.records + one.records,
                    done.files + one.files,
                    done.torn + one.torn,
                    done.damaged + one.damaged,
                )
        return done

    def _compact(self, names: Sequence[str]) -> Compaction:
        import pyarrow.parquet as pq

        scans = [_scan(name, (self._segments / name).read_bytes()) for name in names]
        schemas, rows = _merged(scans)
        batch = uuid7()
        aside = self._compacted / f".tmp-{batch}"
        aside.mkdir()
        files = 0
        for schema_id, records in rows.items():
            schema = schemas[schema_id]
            for day, of_day in _by_day(records).items():
                folder = aside / f"model={quote(schema.model, safe='')}" / f"day={day}"
                folder.mkdir(parents=True, exist_ok=True)
                table = _table(schema, of_day).replace_schema_metadata({"seatrial.log.format": str(FORMAT)})
                with (folder / f"{schema.id:015x}.parquet").open("wb") as file:
                    pq.write_table(table, file, compression="zstd")
                    file.flush()
                    os.fsync(file.fileno())
                _sync_folder(folder)
                files += 1
        with (aside / "batch.json").open("w") as file:
            json.dump({"format": FORMAT, "replaces": list(names)}, file)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(aside)
        aside.rename(self._compacted / batch)  # from here on readers take the batch and leave its segments
        _sync_folder(self._compacted)
        damaged = tuple(damage for scan in scans for damage in scan.damaged)
        self._retire(names, {damage.segment for damage in damaged})
        records_written = sum(len(records) for records in rows.values())
        return Compaction(len(names), records_written, files, sum(scan.tail for scan in scans), damaged)

    def _retire(self, names: Iterable[str], damaged: set[str]) -> None:
        for name in names:
            path = self._segments / name
            if name in damaged:
                self._damaged.mkdir(exist_ok=True)
                path.rename(self._damaged / name)
            else:
                path.unlink(missing_ok=True)

    def _clear_leftovers(self) -> None:
        """Finish what a dead compaction or a process that died while it opened a segment left behind."""
        for aside in self._compacted.glob(".tmp-*"):
            shutil.rmtree(aside)
        retired = self._retired() & set(self._segment_names())
        damaged = {name for name in retired if _scan(name, (self._segments / name).read_bytes()).damaged}
        self._retire(retired, damaged)
        for path in self._segments.glob(".new-*"):
            if _unlocked(path):
                path.unlink(missing_ok=True)

    @contextmanager
    def _compacting(self) -> Iterator[None]:
        with (self.root / "compact.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise LogBusy(
                    "another process compacts this prediction log.",
                    state="Nothing was changed.",
                    next="Wait until it is done.",
                ) from None
            yield

    # -- where records lie

    def _segment_names(self) -> list[str]:
        return sorted(path.name for path in self._segments.glob("*.seg"))

    def _batch_folders(self) -> list[Path]:
        return sorted(path.parent for path in self._compacted.glob("*/batch.json") if path.parent.name[0] != ".")

    def _retired(self) -> set[str]:
        return {name for folder in self._batch_folders() for name in _replaced(folder)}

    def _uncompacted(self) -> list[str]:
        # segments are listed before batches: one that a compaction takes in between is then found in its batch
        names = self._segment_names()
        retired = self._retired()
        return [name for name in names if name not in retired]

    def _is_closed(self, name: str) -> bool:
        return _unlocked(self._segments / name)

    def _tables(
        self,
        *,
        model: str | None = None,
        window: Window | None = None,
        deployment: str | None = None,
        release: str | None = None,
        wanted: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> list[pa.Table]:
        """The matching records as one table per schema and file, each record once.

        columns: those that are needed; of what lies in Parquet no others are read.
        """
        while True:
            names = self._segment_names()
            folders = self._batch_folders()
            retired = {name for folder in folders for name in _replaced(folder)}
            try:
                scans = [_scan(name, (self._segments / name).read_bytes()) for name in names if name not in retired]
                break
            except FileNotFoundError:
                continue  # compacted since it was listed; its batch is there now
        schemas, records = _merged(scans)
        _warn(damage for scan in scans for damage in scan.damaged)
        tables = []
        for schema_id, rows in records.items():
            schema = schemas[schema_id]
            if (
                model not in (None, schema.model)
                or not _of_deployment(schema.deployment, deployment, wanted)
                or release not in (None, schema.release)
            ):
                continue
            if window is not None:
                rows = [row for row in rows if window.start_us <= row.at_us < window.end_us]
            if wanted is not None:
                rows = [row for row in rows if wanted in (row.prediction_id, row.request_id)]
            if rows:
                tables.append(_table(schema, rows))
        for folder in folders:
            tables += _read_batch(folder, model, window, deployment, release, wanted, columns)
        return [_with_ages(table) for table in tables]

    # -- the open segment

    def _append(self, schemas: Mapping[int, LogSchema], frames: Sequence[bytes]) -> None:
        segment = self._open
        if segment is None or self._is_full(segment):
            segment = self._renew()
        new = schemas.keys() - segment.schemas
        # twice: one damaged byte must not take the names of every record
        named = [_frame(self._encode(schemas[schema_id])) * 2 for schema_id in new]
        self._write(segment, b"".join([*named, *frames]))
        segment.schemas |= new

    def _is_full(self, segment: _Open) -> bool:
        return segment.size >= self._segment_bytes or monotonic() - segment.opened >= self._segment_seconds

    def _renew(self) -> _Open:
        try:
            self._close_segment()
            self._segments.mkdir(parents=True, exist_ok=True)
            segment = self._create()
        except OSError as error:
            raise _unwritable(error) from None
        self._open = segment
        if self._fsync == "group" and self._group is None:
            self._stop.clear()
            self._group = threading.Thread(target=self._sync_often, name="prediction-log-sync", daemon=True)
            self._group.start()
        return segment

    def _create(self) -> _Open:
        while True:
            name = uuid7()
            hidden = self._segments / f".new-{name}"
            path = self._segments / f"{name}.seg"
            fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                # locked before anybody can see it under its name, so that no compaction takes it for closed
                fcntl.flock(fd, fcntl.LOCK_EX)
                header = _header()
                if os.write(fd, header) != len(header):
                    raise OSError("the disk is full")
                hidden.rename(path)
            except FileNotFoundError:  # a compaction took it for a leftover
                os.close(fd)
                continue
            except BaseException:
                os.close(fd)
                hidden.unlink(missing_ok=True)
                raise
            if self._fsync != "never":
                _sync_folder(self._segments)
            return _Open(path, fd, len(header), monotonic())

    def _write(self, segment: _Open, data: bytes) -> None:
        try:
            written = os.write(segment.fd, data)
            if written == len(data):
                if self._fsync == "always":
                    os.fdatasync(segment.fd)
                else:
                    segment.unsynced = True
                segment.size += written
                return
            error = OSError("the disk is full")
        except OSError as failure:
            error = failure
        # nothing else writes this file, so what is beyond `size` is the part of these rows that got through
        try:
            os.ftruncate(segment.fd, segment.size)
        except OSError:
            self._close_segment()
        raise _unwritable(error)

    def _close_segment(self) -> None:
        segment, self._open = self._open, None
        if segment is None:
            return
        self._closed_bytes += segment.size
        try:
            if self._fsync != "never":
                os.fdatasync(segment.fd)
        finally:
            os.close(segment.fd)

    def _sync_often(self) -> None:
        while not self._stop.wait(_GROUP_SECONDS):
            with self._lock:
                segment = self._open
                if segment is None or not segment.unsynced:
                    continue
                segment.unsynced = False
                fd = os.dup(segment.fd)  # appends go on while the disk works
            try:
                os.fdatasync(fd)
            except OSError:
                # what the kernel could not write is not retried: the next append begins a new segment
                with suppress(LogUnwritable):
                    self.rotate()
            finally:
                os.close(fd)


# -- values of `write`


def _input(name: str, value: Any) -> float | str | None:
    if value is None or isinstance(value, str):
        return value
    number = _number(name, value)
    return None if number != number else number


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError):
        pass
    raise LogValueWrong(
        f"'{name}' is {type(value).__name__}, which the prediction log does not take.",
        expected="A number is expected, or of a feature also text, a bool or None.",
        state="The prediction is not in the log.",
    )


# -- frames


@dataclass
class _Scan:
    schemas: dict[int, LogSchema] = field(default_factory=dict)
    rows: dict[int, list[LoggedPrediction]] = field(default_factory=dict)
    damaged: list[Damage] = field(default_factory=list)
    tail: int = 0


_decode = msgspec.msgpack.Decoder(LogSchema | LoggedPrediction).decode


def _header() -> bytes:
    start = _MAGIC + FORMAT.to_bytes(2, "little")
    return start + zlib.crc32(start).to_bytes(4, "little")


def _frame(payload: bytes) -> bytes:
    length = len(payload)
    return _FRAME.pack(length, zlib.crc32(payload, length)) + payload


def _scan(segment: str, data: bytes) -> _Scan:
    """Every readable record of a segment's bytes. Raises LogTooNew for a format that this version does not know."""
    scan = _Scan()
    offset = _check_header(segment, data, scan)
    while offset < len(data):
        payload = _payload(data, offset)
        entry = _entry(payload) if payload is not None else None
        if payload is None or entry is None:
            following = _resync(data, offset + 1)
            if following is None and _is_torn(data, offset):
                scan.tail = len(data) - offset
                break
            end = len(data) if following is None else following
            scan.damaged.append(Damage(segment, offset, end - offset))
            offset = end
            continue
        if isinstance(entry, LogSchema):
            scan.schemas[entry.id] = entry
        else:
            scan.rows.setdefault(entry.schema, []).append(entry)
        offset += _FRAME.size + len(payload)
    return scan


def _check_header(segment: str, data: bytes, scan: _Scan) -> int:
    if len(data) < _HEADER.size:
        scan.tail = len(data)
        return len(data)
    magic, number, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC or checksum != zlib.crc32(data[:8]):
        scan.damaged.append(Damage(segment, 0, _HEADER.size))
    elif number > FORMAT:
        raise LogTooNew(
            f"log segment {segment} has format {number}; this version reads up to {FORMAT}.",
            state="Nothing was changed.",
            next="Update seatrial.",
        )
    return _HEADER.size


def _payload(data: bytes, offset: int) -> bytes | None:
    if offset + _FRAME.size > len(data):
        return None
    length, checksum = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if not 0 < length <= min(_LARGEST, len(data) - start):
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload, length) == checksum else None


def _entry(payload: bytes) -> LogSchema | LoggedPrediction | None:
    try:
        entry: LogSchema | LoggedPrediction = _decode(payload)
        return entry
    except msgspec.MsgspecError:
        return None


def _resync(data: bytes, offset: int) -> int | None:
    """The offset of the next whole, sound frame."""
    for candidate in range(offset, len(data) - _FRAME.size):
        payload = _payload(data, candidate)
        if payload is not None and _entry(payload) is not None:
            return candidate
    return None


def _is_torn(data: bytes, offset: int) -> bool:
    """Is the rest the beginning of a frame, or zeros, rather than a whole frame gone bad?"""
    rest = len(data) - offset
    if rest < _FRAME.size or not any(data[offset:]):
        return True
    length, _ = _FRAME.unpack_from(data, offset)
    return bool(_FRAME.size + length > rest and length <= _LARGEST)


def _merged(scans: Sequence[_Scan]) -> tuple[dict[int, LogSchema], dict[int, list[LoggedPrediction]]]:
    schemas: dict[int, LogSchema] = {}
    rows: dict[int, list[LoggedPrediction]] = {}
    for scan in scans:
        schemas.update(scan.schemas)
        for schema_id, records in scan.rows.items():
            rows.setdefault(schema_id, []).extend(records)
    for schema_id, records in rows.items():
        if schema_id not in schemas:  # both copies are damaged: the records are kept, their columns have no names
            schemas[schema_id] = _nameless(schema_id, records[0])
    return schemas, rows


def _nameless(schema_id: int, row: LoggedPrediction) -> LogSchema:
    inputs = tuple(f"unknown_{position}" for position in range(len(row.inputs)))
    fields = tuple(LoggedField(f"unknown_{position}", "string") for position in range(len(row.fields)))
    views = tuple(f"unknown_{position}" for position in range(len(row.views)))
    return LogSchema(schema_id, "unknown", "", "", "", inputs, inputs, fields, views)


def _unlocked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unwritable(error: OSError) -> LogUnwritable:
    return LogUnwritable(
        f"the prediction log could not be written: {error.strerror or error}.",
        expected="An answer leaves only when it is logged.",
        state="The prediction was not answered and is not in the log.",
        next="Free space on the log's disk, then try again.",
    )


def _warn(damaged: Iterable[Damage]) -> None:
    for damage in damaged:
        warnings.warn(
            f"log segment {damage.segment}: {damage.length} bytes at offset {damage.offset} cannot be read "
            "and are left out; every other record was read.",
            LogWarning,
            stacklevel=4,
        )


# -- batches and tables


def _batches(names: Sequence[str], folder: Path) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for name in names:
        size += (folder / name).stat().st_size
        batch.append(name)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _by_day(rows: Sequence[LoggedPrediction]) -> dict[str, list[LoggedPrediction]]:
    days: dict[str, list[LoggedPrediction]] = {}
    for row in sorted(rows, key=lambda row: row.prediction_id):
        days.setdefault(_day(row.at_us), []).append(row)
    return days


def _day(us: int) -> str:
    return from_us(us).date().isoformat()


def _replaced(folder: Path) -> list[str]:
    batch = json.loads((folder / "batch.json").read_bytes())
    if batch["format"] > FORMAT:
        raise LogTooNew(
            f"log batch {folder.name} has format {batch['format']}; this version reads up to {FORMAT}.",
            state="Nothing was changed.",
            next="Update seatrial.",
        )
    return list(batch["replaces"])


def _of_deployment(named: str, deployment: str | None, wanted: str | None) -> bool:
    """Whether rows of the deployment `named` are asked for. Without any, shadows count as what nobody was answered."""
    if deployment is not None:
        return named == deployment
    return wanted is not None or not named.endswith(SHADOW)


def _read_batch(
    folder: Path,
    model: str | None,
    window: Window | None,
    deployment: str | None,
    release: str | None,
    wanted: str | None,
    columns: Sequence[str] | None,
) -> list[pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    needed = None
    if columns is not None:
        events = [f"{name.removesuffix('_age_s')}_event_at" for name in columns if name.endswith("_age_s")]
        needed = {"prediction_id", "at", *columns, *events}

    condition = None
    if window is not None:
        start, end = (pa.scalar(us, pa.timestamp("us", "UTC")) for us in (window.start_us, window.end_us))
        condition = (pc.field("at") >= start) & (pc.field("at") < end)
    for name, value in (("deployment", deployment), ("release", release)):
        if value is not None:
            equal = pc.field(name) == value
            condition = equal if condition is None else condition & equal
    if deployment is None and wanted is None:
        answered = ~pc.ends_with(pc.field("deployment"), SHADOW)
        condition = answered if condition is None else condition & answered
    if wanted is not None:
        condition = (pc.field("prediction_id") == wanted) | (pc.field("request_id") == wanted)
    pattern = "*" if model is None else f"model={quote(model, safe='')}"
    tables = []
    for path in sorted(folder.glob(f"{pattern}/*/*.parquet")):
        day = path.parent.name.removeprefix("day=")
        if window is not None and not _day(window.start_us) <= day <= _day(window.end_us - 1):
            continue
        try:
            names = None
            if needed is not None:
                every = EVERY_CLASS in needed
                names = [
                    name
                    for name in pq.read_schema(path).names
                    if name in needed or (every and name.startswith(OF_CLASS))
                ]
            tables.append(pq.read_table(path, columns=names, filters=condition, partitioning=None))
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError):  # what cannot be unpacked is an OSError too
            warnings.warn(
                f"the log file {path.relative_to(folder.parent)} cannot be read and is left out, with every prediction "
                f"of '{unquote(path.parent.parent.name.removeprefix('model='))}' on {day} in it; bring it back from a "
                "backup.",
                LogWarning,
                stacklevel=5,
            )
    return tables


def _table(schema: LogSchema, rows: Sequence[LoggedPrediction]) -> pa.Table:
    """Records of one schema as the columns of `PredictionLog.rows`, without ages."""
    import pyarrow as pa

    instant = pa.timestamp("us", "UTC")
    types = {
        "float": pa.float64(),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "string": pa.string(),
        "category": pa.string(),
        "timestamp": instant,
    }
    # Parquet names the values of a list "element"; what comes from a segment must be of the very same type
    strings = pa.list_(pa.field("element", pa.string()))
    n = len(rows)

    def constant(value: str) -> pa.Array:
        return pa.repeat(pa.scalar(value, pa.string()), n)

    columns = {
        "prediction_id": pa.array([row.prediction_id for row in rows], pa.string()),
        "request_id": pa.array([row.request_id for row in rows], pa.string()),
        "row": pa.array([row.row for row in rows], pa.int32()),
        "caller": pa.array([row.caller for row in rows], pa.string()),
        "model": constant(schema.model),
        "version": constant(schema.version),
        "release": constant(schema.release),
        "deployment": constant(schema.deployment),
        "arm": pa.array([row.arm for row in rows], pa.string()),
        "at": pa.array([row.at_us for row in rows], instant),
        "recorded_at": pa.array([row.recorded_at_us for row in rows], instant),
        "prediction": pa.array([None if schema.classes else float(row.prediction) for row in rows], pa.float64()),
        "probability": pa.array([row.probability for row in rows], pa.float64()),
        "latency_ms": pa.array([row.latency_ms for row in rows], pa.float64()),
        "degraded": pa.array([list(row.degraded) for row in rows], strings),
    }
    if schema.classes:
        columns |= _of_classes(schema, rows)
    for name, inputs in zip(schema.inputs, zip(*(row.inputs for row in rows), strict=True), strict=True):
        if name in schema.categories:
            columns[f"feature_{name}"] = pa.array([None if v is None else str(v) for v in inputs], pa.string())
        else:
            columns[f"feature_{name}"] = pa.array([None if v is None else float(v) for v in inputs], pa.float64())
    for named, values in zip(schema.fields, zip(*(row.fields for row in rows), strict=True), strict=True):
        columns[f"field_{named.name}"] = pa.array(list(values), types[named.dtype])
    for view, looked in zip(schema.views, zip(*(row.views for row in rows), strict=True), strict=True):
        columns[f"view_{view}_status"] = pa.array([status for status, _ in looked], pa.string())
        columns[f"view_{view}_event_at"] = pa.array([event_us for _, event_us in looked], instant)
    return pa.table(columns)


def _of_classes(schema: LogSchema, rows: Sequence[LoggedPrediction]) -> dict[str, pa.Array]:
    """What a multiclass model answered: the likeliest class, and the probability of each."""
    import numpy as np
    import pyarrow as pa

    names = [str(name) for name in schema.classes]
    length = 8 * len(names)  # of what is damaged nothing is told
    told = b"".join(row.probabilities if len(row.probabilities) == length else _NAN * len(names) for row in rows)
    table = np.frombuffer(told, dtype="<f8").reshape(len(rows), len(names))
    columns = {"predicted_class": pa.array([names[int(row.prediction)] for row in rows], pa.string())}
    return columns | {
        f"{OF_CLASS}{name}": pa.array(np.ascontiguousarray(of), from_pandas=True)
        for name, of in zip(names, table.T, strict=True)
    }


def _with_ages(table: pa.Table) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    at = table["at"].cast(pa.int64())
    for name in table.column_names:
        if name.startswith("view_") and name.endswith("_event_at"):
            age_us = pc.subtract(at, table[name].cast(pa.int64()))  # beyond 2**53, 285 years, it is rounded
            age = pc.divide(age_us.cast(pa.float64(), safe=False), 1e6)
            table = table.append_column(f"{name.removesuffix('_event_at')}_age_s", age)
    return table


def _concatenated(tables: Sequence[pa.Table]) -> pa.Table:
    import pyarrow as pa

    if not tables:
        return _table(log_schema(model="", version="", release="", deployment="", inputs=()), [])
    kinds: dict[str, set[pa.DataType]] = {}
    for table in tables:
        for column in table.schema:
            kinds.setdefault(column.name, set()).add(column.type)
    mixed = {name for name, types in kinds.items() if len(types) > 1}
    alike = []
    for table in tables:
        for name in mixed & set(table.column_names):
            position = table.column_names.index(name)
            table = table.set_column(position, name, table[name].cast(pa.string()))
        alike.append(table.replace_schema_metadata(None))
    table = pa.concat_tables(alike, promote_options="default")
    groups = ("feature_", "field_", "view_")
    rest = [[name for name in table.column_names if name.startswith(group)] for group in groups]
    base = [name for name in table.column_names if not name.startswith(groups)]
    return table.select([*base, *(name for names in rest for name in names)])
