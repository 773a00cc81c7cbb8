"""The prediction log: what was answered, to whom, from which inputs, by which release?

An answer's rows are appended to the segment of its process by one write, before the answer leaves. A segment
survives the death of its process at any instant; what a power failure can take is set by `fsync`. Another
process turns closed segments into Parquet by model and day (`compact`) and ships them to the object store
(`stores.log_shipping`). Readers see every record once, wherever it lies, also while records move or after
whoever moved them died half-way.

    segments/ID.seg                                       one per process, locked by it while it is open
    segments/ID.BATCH.seg                                 on its way, as this batch, straight to the object store
    compacted/BATCH/batch.json                            its files, and which segments and batches it replaces
    compacted/BATCH/model=M/day=YYYY-MM-DD/SCHEMA.parquet
    shipped/BATCH.json                                    a batch that is in the object store, and no longer here
    store.json                                            where that is, from here
    damaged/ID.seg                                        compacted segments that held unreadable bytes
    failures/ID.jsonl                                     requests without an answer, see `stores.failures`
    unlogged/ID.jsonl                                     answers that were not logged, counted in the same form

and in the object store

    predictions/batches/BATCH.json
    predictions/model=M/day=YYYY-MM-DD/BATCH-SCHEMA.parquet
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from seatrial.core.clock import as_utc, machine_us, monotonic, to_us
from seatrial.core.errors import Failed, Unavailable, UsageError, did_you_mean, listed
from seatrial.core.identity import uuid7
from seatrial.core.windows import Window
from seatrial.stores import log_batches
from seatrial.stores.failures import FailureLog
from seatrial.stores.log_batches import (
    Batch,
    BatchWriter,
    Part,
    key_of,
    locked,
    make_visible,
    read_batch,
    standing,
    sync_folder,
)
from seatrial.stores.log_batches import LogBusy as LogBusy
from seatrial.stores.log_batches import LogDamaged as LogDamaged
from seatrial.stores.log_tables import EVERY_CLASS as EVERY_CLASS
from seatrial.stores.log_tables import OF_CLASS as OF_CLASS
from seatrial.stores.log_tables import SHADOW as SHADOW
from seatrial.stores.log_tables import (
    Choice,
    Copied,
    as_table,
    concatenated,
    day_of,
    read_in_batches,
    read_part,
    warn_unreadable,
    with_ages,
)
from seatrial.stores.objects import ObjectMissing
from seatrial.stores.segments import (
    HEADER_BYTES,
    Damage,
    Scan,
    count_records,
    entries,
    frame,
    header,
    nameless,
)
from seatrial.stores.segments import LoggedField as LoggedField
from seatrial.stores.segments import LoggedPrediction as LoggedPrediction
from seatrial.stores.segments import LogSchema as LogSchema
from seatrial.stores.segments import LogTooNew as LogTooNew
from seatrial.stores.segments import LogWarning as LogWarning
from seatrial.stores.segments import log_schema as log_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.stores.objects import ObjectStore

FILE_FORMAT = {"seatrial.log.format": "1"}
"""What every Parquet file of the log says of itself."""
MANIFESTS = "predictions/batches/"
SHIPPED = "predictions/log.json"
STORE = "store.json"
"""Keys of the object store: of the batches that are there, and of what says that some were ever put there. And the
file of this folder that says where that store is, so that whoever has the folder can read on there."""

Fsync = Literal["never", "group", "always"]
WhenFull = Literal["refuse", "serve_unlogged"]

_GROUP_SECONDS = 0.05
_LOOK_SECONDS = 0.9  # between two looks at the folder, and at counts that wait: the tender comes every second
_MOST_SCHEMAS = 1_000  # remembered by `write`; every set of feature names is one
_BATCH_BYTES = 128 * 2**20  # segments compacted together
_BYTES_OF_VALUE = 16  # of a segment, with what else a record holds
_TOGETHER = 20_000  # records that a compaction has in memory at once
_LOGGER = logging.getLogger("seatrial.serving.log")


class LogUnwritable(Unavailable):
    """The prediction log took no more records: the disk is full or failing."""

    code = "log.unwritable"


class LogElsewhere(Unavailable):
    """Records of the log were shipped to an object store that is not there."""

    code = "log.elsewhere"


class LogColumnMissing(Failed):
    """A column was asked for that no record of the log has."""

    code = "log.column_missing"


class LogValueWrong(UsageError):
    """A prediction was given to the log with a value that it does not take."""

    code = "log.value_wrong"


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

    @property
    def stands(self) -> bool:
        """Whether the file is still found under its name."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self.fd))
        except OSError:
            return False


_LOGS: weakref.WeakSet[PredictionLog] = weakref.WeakSet()


def _forked() -> None:
    """A child must not write its parent's segments: it opens its own, and tends them itself."""
    for log in list(_LOGS):
        log._forked()


os.register_at_fork(after_in_child=_forked)


class PredictionLog:
    """One log, written by any number of processes, read and compacted by others. A process may be forked at any time.

    fsync: "never" leaves writing to disk to the kernel: a dead process loses nothing, a power failure or a dead
        kernel the last seconds. "group" syncs in the background every 50 ms, "always" before `append` returns.
    segment_bytes, segment_seconds: a segment that is larger or older is closed, and can then be compacted.
    objects: where shipped records are read. ships: whether a keeper ships there what is written here.
    when_full: whether a server answers when this log does not take the answer's rows; what it answered so is counted
        in `unlogged`.
    personal_key: gives the key by which personal columns are hashed, for those who write answers.
    """

    def __init__(
        self,
        root: str | Path,
        fsync: Fsync = "never",
        *,
        segment_bytes: int = 32 * 2**20,
        segment_seconds: float = 60.0,
        objects: ObjectStore | None = None,
        ships: bool = True,
        when_full: WhenFull = "refuse",
        personal_key: Callable[[], bytes | None] | None = None,
    ) -> None:
        self.root = root = Path(root)
        self.objects = objects
        self.ships = ships and objects is not None
        self.when_full = when_full
        self._personal_key = personal_key
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._segment_seconds = segment_seconds
        self._segments = root / "segments"
        self._compacted = root / "compacted"
        self._damaged = root / "damaged"
        self._marks = root / "shipped"
        self._known: dict[str, Batch] = {}
        self._shipped: dict[str, Batch] = {}
        self._counted: dict[str, tuple[int, int]] = {}
        waits = _weakly(self)
        self.failures = FailureLog(root / "failures", waits)
        self.unlogged = FailureLog(root / "unlogged", waits)
        self._encode = msgspec.msgpack.Encoder().encode
        self._lock = threading.Lock()
        self._open: _Open | None = None
        self._tending = threading.Lock()
        self._tender: threading.Thread | None = None
        self._stop = threading.Event()
        self._looked = 0.0
        self._schemas: dict[tuple[Any, ...], LogSchema] = {}
        self._texts: set[tuple[str, str]] = set()  # inputs that were text, by model
        self._closed_bytes = 0
        _LOGS.add(self)

    def _forked(self) -> None:
        segment, self._open = self._open, None
        if segment is not None:
            with suppress(OSError):
                os.close(segment.fd)  # its lock stays with the parent
        self._lock, self._tending = threading.Lock(), threading.Lock()
        self._tender, self._stop = None, threading.Event()
        self._closed_bytes = 0
        self.failures.forked()
        self.unlogged.forked()

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
        framed = frame(self._encode(row))
        with self._lock:
            segment = self._open
            if segment is None or self._is_full(segment) or schema.id not in segment.schemas:
                self._append({schema.id: schema}, [framed])
            else:
                self._write(segment, framed)

    def append_all(self, rows: Sequence[tuple[LogSchema, LoggedPrediction]]) -> None:
        """Append the rows of one or more answers by one write, all of them or none; see `append`."""
        frames = [frame(self._encode(row)) for _, row in rows]
        with self._lock:
            self._append({schema.id: schema for schema, _ in rows}, frames)

    @property
    def personal_key(self) -> bytes | None:
        """The key by which personal columns are hashed; None where none is known."""
        return None if self._personal_key is None else self._personal_key()

    def rotate(self) -> None:
        """Close the segment, so that it can be compacted; the next append opens another.

        Raises LogUnwritable when what was appended could not be brought to the disk.
        """
        with self._lock:
            try:
                self._close_segment()
            except OSError as error:
                raise _unwritable(error) from None

    def check(self) -> None:
        """Raise LogUnwritable when nothing can be appended now, before anybody is answered."""
        try:
            self._segments.mkdir(parents=True, exist_ok=True)
            probe = self._segments / f".new-{uuid7()}"
            try:
                probe.write_bytes(header())
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(error) from None

    def close(self) -> None:
        """Close the segment and stop the background thread. The log can be used again afterwards."""
        with self._tending:
            tender, self._tender = self._tender, None
            self._stop.set()
        if tender is not None:
            tender.join()
        self.failures.close()
        self.unlogged.close()
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
        optional: Sequence[str] = (),
    ) -> pa.Table:
        """Every record once, in the order of its `prediction_id`, filtered by what is given.

        window: of `at`, the instant that the prediction is for. deployment: what a release scored in its shadow has the
        deployment's name with "~shadow" behind it, and is read only when it is asked for by that name.
        columns: only these, "probability_*" standing for every class's; all of them without it. optional: beside them
        those that the log has.

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

        wanted = None if columns is None else [*columns, *optional]
        tables = self._tables(model=model, window=window, deployment=deployment, release=release, columns=wanted)
        # by first record: the order of columns must not depend on where records lie
        tables = sorted(
            (table for table in tables if table.num_rows), key=lambda table: str(pc.min(table["prediction_id"]))
        )
        table = concatenated(tables)
        if columns is not None:
            every = [name for name in table.column_names if name.startswith(OF_CLASS)]
            columns = [one for name in columns for one in (every if name == EVERY_CLASS else [name])]
            unknown = [name for name in columns if name not in table.column_names]
            if unknown and table.num_rows:
                there = concatenated(self._tables(model=model, window=window)).column_names
                raise LogColumnMissing(
                    f"the log has no column '{unknown[0]}'.",
                    expected=f"It has {listed(there, most=20)}. {did_you_mean(unknown[0], there)}".strip(),
                )
            for name in unknown:
                table = table.append_column(name, pa.nulls(0))
            columns = [*columns, *(name for name in optional if name in table.column_names)]
        if not _in_order(table["prediction_id"]):
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
                data = (self._segments / name).read_bytes()
            except FileNotFoundError:
                continue
            scan = Scan()
            records = sum(isinstance(entry, LoggedPrediction) for entry in entries(name, data, scan))
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
        with locked(self.root / "compact.lock"):
            self.clear_leftovers()
            for batch in _in_batches(self.movable(), self._segments):
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
        batch = uuid7()
        aside = self._compacted / f".tmp-{batch}"
        try:
            aside.mkdir()
            parts, damaged, torn = self.as_parquet(names, aside)
            made = Batch(log_batches.FORMAT, batch, tuple(names), parts)
            make_visible(aside, made, self._compacted / batch)  # from here on readers leave its segments
        except OSError:
            shutil.rmtree(aside, ignore_errors=True)  # a full disk has no room for it
            raise
        self.retire(names, damaged)
        return Compaction(len(names), made.records, len(parts), torn, damaged)

    def as_parquet(self, names: Sequence[str], folder: Path) -> tuple[tuple[Part, ...], tuple[Damage, ...], int]:
        """Write what is in closed segments to files below a folder; the files, the damage, and the bytes of torn
        tails."""
        scan = Scan()
        torn = 0
        with BatchWriter(folder, FILE_FORMAT) as writer:
            waiting = _Waiting(writer)
            for name in names:
                for entry in entries(name, (self._segments / name).read_bytes(), scan):
                    waiting.take(entry)
                torn, scan.tail = torn + scan.tail, 0
            waiting.write_all()
            return writer.finish(), tuple(scan.damaged), torn

    def movable(self) -> list[str]:
        """The closed segments that are in no batch, oldest first. What was on its way to an object store that cannot be
        asked now is left out: it may be there."""
        return [
            name
            for name in self._uncompacted()
            if self._is_closed(name) and (not _sent_as(name) or self._is_sent(_sent_as(name)) is False)
        ]

    def on_its_way(self, name: str, batch: str) -> str:
        """Give a closed segment a name that says as which batch it goes to the object store; that name.

        Whoever finds it after a sudden death asks the store for that batch before its records go anywhere else.
        """
        named = f"{name.partition('.')[0]}.{batch}.seg"
        (self._segments / name).rename(self._segments / named)
        return named

    @staticmethod
    def aside_of(objects: ObjectStore, batch: str) -> Path:
        """Where in the object store's folder a segment becomes Parquet on its way there; no key names it.

        Its name is that of the batch, which the segment has in its own: so whoever finds the segment after a sudden
        death finds this too, and nobody takes away what another machine is at.
        """
        return objects.root / f".log-{batch}"

    def _is_sent(self, batch: str) -> bool | None:
        """Whether a batch is in the object store; None when that cannot be asked."""
        objects = self._store()
        if objects is None or not objects.exists(SHIPPED):
            return None
        return objects.exists(f"{MANIFESTS}{batch}.json")

    def _remove_files_of(self, batch: str) -> None:
        """Remove what came into the object store of a batch that did not."""
        objects = self._store()
        for key in objects.keys("predictions/model=") if objects is not None else ():
            if objects is not None and f"/{batch}-" in key:
                objects.remove(key)

    def retire(self, names: Iterable[str], damage: Iterable[Damage]) -> None:
        """Remove segments that are in a batch; those that are damaged are kept elsewhere."""
        self._retire(names, {one.segment for one in damage})

    def _retire(self, names: Iterable[str], damaged: set[str]) -> None:
        for name in names:
            path = self._segments / name
            if name in damaged:
                self._damaged.mkdir(exist_ok=True)
                path.rename(self._damaged / name)
            else:
                path.unlink(missing_ok=True)

    def clear_leftovers(self) -> None:
        """Finish what a dead compaction or a process that died while it opened a segment left behind."""
        for aside in self._compacted.glob(".tmp-*"):
            shutil.rmtree(aside)
        names = self._segment_names()
        retired = standing(self.local_batches().values())[1] & set(names)
        for name in names:
            batch = _sent_as(name)
            objects = self._store() if batch else None
            if objects is not None:
                shutil.rmtree(self.aside_of(objects, batch), ignore_errors=True)
            sent = self._is_sent(batch) if batch else None
            if sent:
                retired.add(name)
            elif sent is False:  # it will go there as another batch
                self._remove_files_of(batch)
        self._retire(retired, {name for name in retired if _is_damaged(self._segments / name)})
        for path in self._segments.glob(".new-*"):
            if _unlocked(path):
                path.unlink(missing_ok=True)

    # -- where records lie

    def unshipped(self, *, closed: bool = False) -> int:
        """How many records the object store does not have yet. closed: without those that somebody still appends to.

        Cheap: what was counted before is not read again, and no record is looked into. For whoever asks often, from one
        thread.
        """
        while True:
            names = self._segment_names()
            try:
                local = self.local_batches()
                there = self.marks()
                batches, replaced = standing(local.values())
                return sum(one.records for one in batches if one.batch not in there) + sum(
                    self._count(name)
                    for name in names
                    if name not in replaced and (not closed or self._is_closed(name))
                )
            except FileNotFoundError:
                continue

    def fresh(self) -> int:
        """How many records are not compacted yet."""
        while True:
            try:
                return sum(self._count(name) for name in self._uncompacted())
            except FileNotFoundError:
                continue

    def _count(self, name: str) -> int:
        found, offset = self._counted.get(name, (0, 0))
        with (self._segments / name).open("rb") as file:
            file.seek(offset)
            data = file.read()
        more, end = count_records(data, 0 if offset else HEADER_BYTES)
        self._counted[name] = found + more, offset + end
        return found + more

    def local_batches(self) -> dict[str, Batch]:
        """The batches in this folder, by their ids. Raises LogTooNew."""
        found = {}
        for name in _steadily(lambda: _names(self._compacted)):
            batch = self._known.get(name)
            if batch is None:
                folder = self._compacted / name
                try:
                    data = (folder / log_batches.BATCH).read_bytes()
                except NotADirectoryError:
                    continue
                except FileNotFoundError:
                    if folder.is_dir():
                        continue  # somebody else's
                    raise
                batch = read_batch(data, folder)
            found[name] = batch
        self._known = found
        return found

    def marks(self) -> set[str]:
        """The ids of the batches that were shipped from here and are still to be found in the object store."""
        return {name.removesuffix(".json") for name in _names(self._marks) if name.endswith(".json")}

    def shipped_batches(self) -> dict[str, Batch]:
        """The batches in the object store, by their ids, whoever shipped them.

        A log that was opened without the object store looks where its keeper shipped to. Raises LogElsewhere when some
        were shipped and that store is not there; what the store raises; and LogTooNew.
        """
        marks = self.marks()
        objects = self._store()
        if objects is None or not objects.exists(SHIPPED):
            if marks:
                place = "an object store" if objects is None else f"the object store {objects.root}"
                raise LogElsewhere(
                    f"{len(marks)} batches of this prediction log were shipped to {place}, and none of them is there.",
                    expected="That store is expected, or another place of it in PredictionLog(..., objects=...).",
                    state="Nothing was read.",
                    next="Bring the object store back: is its disk mounted?",
                )
            return {}
        found = {}
        for key in _steadily(lambda: objects.keys(MANIFESTS)):
            name = key.removeprefix(MANIFESTS).removesuffix(".json")
            batch = self._shipped.get(name)
            if batch is None:
                with suppress(FileNotFoundError, LogDamaged):
                    if name in marks:  # it says the same
                        batch = read_batch((self._marks / f"{name}.json").read_bytes(), name)
            if batch is None:
                try:
                    batch = read_batch(objects.read(key), name)
                except ObjectMissing:
                    raise FileNotFoundError(key) from None  # replaced since it was listed
            found[name] = batch
        self._shipped = found
        return found

    def _store(self) -> ObjectStore | None:
        """The object store that was given, or the one to which was shipped from here."""
        if self.objects is None:
            from seatrial.stores.objects import ObjectStore

            with suppress(FileNotFoundError):
                plain = json.loads((self.root / STORE).read_bytes())
                return ObjectStore(Path(os.path.normpath(self.root / plain["objects"])))
        return self.objects

    def path_of(self, part: Part, batch: str) -> Path:
        """The file of a part, here or in the object store. Raises FileNotFoundError."""
        here = self._compacted / batch / part.file
        objects = self._store()
        if objects is None or here.exists():
            return here
        try:
            return objects.path(part.key or key_of(batch, part.file))
        except ObjectMissing as error:
            raise FileNotFoundError(error.found) from None

    def _segment_names(self) -> list[str]:
        return sorted(path.name for path in self._segments.glob("*.seg"))

    def _uncompacted(self) -> list[str]:
        # segments are listed before batches: one that a compaction takes in between is then found in its batch
        names = self._segment_names()
        replaced = standing(self.local_batches().values())[1]
        return [name for name in names if name not in replaced]

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
        choice = Choice(model, window, deployment, release, wanted, columns)
        missing: set[str] = set()
        while True:
            # records move from segments to batches here, from here to the object store: looked at in this order, none
            # is passed over, and what is seen twice has one id
            names = self._segment_names()
            try:
                here = self.local_batches()
                batches, replaced = standing((self.shipped_batches() | here).values())
                tables = self._of_segments([name for name in names if name not in replaced], choice)
            except FileNotFoundError:
                continue  # compacted, shipped or put together since it was listed
            found, gone = self._of_batches(batches, choice, missing)
            if gone <= missing:
                return [with_ages(table) for table in [*tables, *found]]
            missing |= gone  # looked for once more, and left out with a warning if it is gone for good

    def values(self, *, model: str, window: Window | None = None) -> int:
        """About how many values of inputs lie in the files that may have records of a window; of segments by size."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        choice, found = Choice(model, window), 0
        batches, _ = standing((self.shipped_batches() | self.local_batches()).values())
        for batch in batches:
            for part in filter(choice.may_be_in, batch.parts):
                with suppress(FileNotFoundError, OSError, pa.ArrowException):
                    names = pq.read_schema(self.path_of(part, batch.batch)).names
                    found += part.records * sum(name.startswith("feature_") for name in names)
        for name in self._uncompacted():
            with suppress(FileNotFoundError):
                found += (self._segments / name).stat().st_size // _BYTES_OF_VALUE
        return found

    def apart(
        self, folder: Path, *, model: str, window: Window | None = None, deployment: str | None = None
    ) -> tuple[pa.Table, list[Path]]:
        """`rows` where they are too many to lie in memory: what is no input of the model, with the column `place`, and
        the inputs in files that are written to `folder`, whose rows, one file after the other, are at these places.

        Request ids, keys and instants are in memory then, and of the inputs one batch. Raises OSError.
        """
        choice, missing = Choice(model, window, deployment), set[str]()
        while True:
            copied = Copied(folder)
            names = self._segment_names()
            try:
                here = self.local_batches()
                batches, replaced = standing((self.shipped_batches() | here).values())
                for name in names:  # each holds the schemas of its records
                    for table in self._of_segments([name] if name not in replaced else [], choice):
                        copied.take([table])
            except FileNotFoundError:
                continue
            gone = set[str]()
            for batch in batches:
                for part in filter(choice.may_be_in, batch.parts):
                    try:
                        copied.take(read_in_batches(self.path_of(part, batch.batch), part, choice))
                    except FileNotFoundError:
                        gone.add(name := f"{batch.batch}/{part.file}")
                        if name in missing:
                            warn_unreadable(part)
            if gone <= missing:
                return copied.finish()
            missing |= gone

    def _of_segments(self, names: Iterable[str], choice: Choice) -> list[pa.Table]:
        scan = Scan()
        schemas: dict[int, LogSchema] = {}
        rows: dict[int, list[LoggedPrediction]] = {}
        for name in names:
            for entry in entries(name, (self._segments / name).read_bytes(), scan):
                if isinstance(entry, LogSchema):
                    schemas[entry.id] = entry
                elif choice.takes(entry):
                    rows.setdefault(entry.schema, []).append(entry)
        _warn(scan.damaged)
        tables = []
        for schema_id, records in rows.items():
            schema = schemas.get(schema_id) or nameless(schema_id, records[0])
            if choice.may_hold(schema):
                tables.append(as_table(schema, records))
        return tables

    def _of_batches(
        self, batches: Iterable[Batch], choice: Choice, missing: set[str]
    ) -> tuple[list[pa.Table], set[str]]:
        """The tables of every part, and the parts that are not there. missing: those that were not there before."""
        tables, gone = [], set()
        for batch in batches:
            for part in batch.parts:
                if not choice.may_be_in(part):
                    continue
                name = f"{batch.batch}/{part.file}"
                try:
                    found = read_part(self.path_of(part, batch.batch), part, choice)
                except FileNotFoundError:
                    gone.add(name)
                    if name in missing:
                        warn_unreadable(part)
                    continue
                if found is not None:
                    tables.append(found)
        return tables, gone

    # -- the open segment

    def _append(self, schemas: Mapping[int, LogSchema], frames: Sequence[bytes]) -> None:
        segment = self._open
        if segment is None or self._is_full(segment):
            segment = self._renew()
        new = schemas.keys() - segment.schemas
        # twice: one damaged byte must not take the names of every record
        named = [frame(self._encode(schemas[schema_id])) * 2 for schema_id in new]
        self._write(segment, b"".join([*named, *frames]))
        segment.schemas |= new

    def _is_full(self, segment: _Open) -> bool:
        return segment.size >= self._segment_bytes or monotonic() - segment.opened >= self._segment_seconds

    def _renew(self) -> _Open:
        try:
            self._close_segment()
            segment = self._create()
        except OSError as error:
            raise _unwritable(error) from None
        self._open = segment
        self._begin_to_tend()
        return segment

    def _begin_to_tend(self) -> None:
        """Have a thread come by every second, or as often as is synced."""
        with self._tending:
            if self._tender is None:
                self._stop = threading.Event()
                self._tender = threading.Thread(
                    target=_tend,
                    args=(weakref.ref(self), self._stop, self._tend_seconds()),
                    name="prediction-log",
                    daemon=True,
                )
                self._tender.start()

    def _create(self) -> _Open:
        while True:
            self._segments.mkdir(parents=True, exist_ok=True)
            name = uuid7()
            hidden = self._segments / f".new-{name}"
            path = self._segments / f"{name}.seg"
            fd = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
            try:
                # locked before anybody can see it under its name, so that no compaction takes it for closed
                fcntl.flock(fd, fcntl.LOCK_EX)
                begin = header()
                if os.write(fd, begin) != len(begin):
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
                sync_folder(self._segments)
            return _Open(path, fd, len(begin), monotonic())

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

    def _write_again(self, gone: _Open) -> None:
        """Put what is in a segment that somebody removed, or moved away, into a new one; it is still at hand."""
        self._open = None
        why = "it was moved elsewhere, and its records with it"
        try:
            if os.fstat(gone.fd).st_nlink:
                self._closed_bytes += gone.size
            else:
                data = Path(f"/proc/self/fd/{gone.fd}").read_bytes()[HEADER_BYTES : gone.size]
                self._open = self._create()
                self._write(self._open, data)
                self._open.schemas |= gone.schemas
                why = "it was removed, and its records are in a new one"
        except (OSError, LogUnwritable) as error:
            why = f"it was removed, and its records are lost: {error}"
        finally:
            os.close(gone.fd)
        _LOGGER.warning("%s is not in the prediction log's folder any more: %s", gone.path.name, why)

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

    def _tend_seconds(self) -> float:
        return _GROUP_SECONDS if self._fsync == "group" else max(_GROUP_SECONDS, min(1.0, self._segment_seconds))

    def _tend(self) -> None:
        """Close a segment that nobody appends to any more, and bring to the disk what was appended. Once a second see
        that the segment is still there, and write the counts that wait."""
        if monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = monotonic()
            with self._lock:
                if self._open is not None and not self._open.stands:
                    self._write_again(self._open)
            self.failures.flush()
            self.unlogged.flush()
        with self._lock:
            segment = self._open
            if segment is None:
                return
            if self._is_full(segment):
                with suppress(OSError):
                    self._close_segment()
                return
            if self._fsync != "group" or not segment.unsynced:
                return
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


def _weakly(log: PredictionLog) -> Callable[[], None]:
    """What sees to it that a log is tended, and does not keep it."""
    known = weakref.ref(log)

    def begin() -> None:
        found = known()
        if found is not None:
            found._begin_to_tend()

    return begin


def _tend(log: weakref.ref[PredictionLog], stop: threading.Event, every: float) -> None:
    """Tend an open segment as long as somebody has the log."""
    while not stop.wait(every):
        kept = log()
        if kept is None:
            return
        kept._tend()
        del kept


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


def _in_order(ids: pa.ChunkedArray) -> bool:
    """Whether they ascend already: one writer's do, and sorting a table copies it."""
    import pyarrow.compute as pc

    whole = ids.combine_chunks()
    return len(whole) < 2 or bool(pc.all(pc.less_equal(whole.slice(0, len(whole) - 1), whole.slice(1))).as_py())


# -- files


class _Waiting:
    """Records on their way from segments to a batch, as few as make a table worth while."""

    def __init__(self, writer: BatchWriter) -> None:
        self._writer = writer
        self._schemas: dict[int, LogSchema] = {}
        self._rows: dict[int, list[LoggedPrediction]] = {}
        self._count = 0

    def take(self, entry: LogSchema | LoggedPrediction) -> None:
        if isinstance(entry, LogSchema):
            self._schemas[entry.id] = entry
            return
        self._rows.setdefault(entry.schema, []).append(entry)
        self._count += 1
        if self._count >= _TOGETHER:
            for schema_id in self._rows.keys() & self._schemas.keys():  # a schema that is damaged may come yet
                self._write(self._schemas[schema_id], self._rows.pop(schema_id))
            self._count = 0

    def write_all(self) -> None:
        for schema_id, rows in self._rows.items():
            self._write(self._schemas.get(schema_id) or nameless(schema_id, rows[0]), rows)
        self._rows = {}

    def _write(self, schema: LogSchema, rows: list[LoggedPrediction]) -> None:
        days: dict[str, list[LoggedPrediction]] = {}
        for row in sorted(rows, key=lambda row: row.prediction_id):
            days.setdefault(day_of(row.at_us), []).append(row)
        for day, of_day in days.items():
            self._writer.write(schema.model, day, f"{schema.id:015x}", as_table(schema, of_day))


def _in_batches(names: Sequence[str], folder: Path) -> list[list[str]]:
    batches: list[list[str]] = [[]]
    size = 0
    for name in names:
        batches[-1].append(name)
        size += (folder / name).stat().st_size
        if size >= _BATCH_BYTES:
            batches.append([])
            size = 0
    return [batch for batch in batches if batch]


def _sent_as(name: str) -> str:
    """The batch as which a segment is on its way; empty for most, which are not."""
    return name.split(".")[1] if name.count(".") == 2 else ""


def _is_damaged(path: Path) -> bool:
    scan = Scan()
    for _ in entries(path.name, path.read_bytes(), scan):
        pass
    return bool(scan.damaged)


def _names(folder: Path) -> list[str]:
    """What is in a folder, without what is hidden; nothing when it is not there."""
    try:
        return sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    except FileNotFoundError:
        return []


def _steadily(names: Callable[[], list[str]]) -> list[str]:
    """A listing during which nothing came or went: else both what is replaced and what replaces it may be missed."""
    before = names()
    while (now := names()) != before:
        before = now
    return now


def _unlocked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except OSError:
        return False


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
