"""Batches: a release's answers to the rows of files, in a sink, with one record that says what they were made from."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from seatrial.core.clock import from_us, iso, monotonic
from seatrial.core.errors import UsageError, did_you_mean, listed
from seatrial.core.identity import new_id, value_digest
from seatrial.core.records import Record
from seatrial.core.windows import BadWindow, Window, parse_window
from seatrial.data.reading import DataWarning
from seatrial.folder.workspace import STATE
from seatrial.serving.batch.files import (
    FEW_ROWS,
    Done,
    InputFile,
    Orders,
    PartScorer,
    Stage,
    Task,
    Workers,
    cores,
    input_files,
    journal,
    refuse_changed,
    refused,
    stage_unwritable,
    tasks_of,
    write_journal,
)
from seatrial.serving.batch.rows import RowScorer
from seatrial.serving.batch.sinks import BadSink, Batch, OnlineSink, Sink, only_one, open_sink
from seatrial.verbs.results import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from seatrial.releases.bundle import Bundle
    from seatrial.stores.metadata import MetadataStore
    from seatrial.training.model import Model
    from seatrial.verbs.building import Building
    from seatrial.verbs.inputs import Inputs

ADDED = ("release", "model_version", "predicted_at")
ONLINE = "online"
MOST_NAMED = 100
"""Files that a record names one by one; of more it names the list."""
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
MONDAY_US = 4 * DAY_US  # the first Monday after 1970-01-01
CALENDAR = {"last-hour": (HOUR_US, 0), "last-day": (DAY_US, 0), "last-week": (7 * DAY_US, MONDAY_US)}


class BatchColumnTaken(UsageError):
    """A column that is kept has the name of one that answers have."""

    code = "batch.column_taken"


class BatchColumnUnknown(UsageError):
    """A column is to be kept that the rows do not have, or not all with one type."""

    code = "batch.column_unknown"


class BatchScored(msgspec.Struct, frozen=True):
    """A batch whose answers are in its outputs.

    batch: its record; None when all of it was there already. rows: that have an answer. set_aside: rows that have none,
    by reason. scored: rows that this call scored; the others were scored by a call that did not live to end.
    changed: files that are otherwise than when the batch was begun. features: "joined" as of each row's instant, or
    taken from the "columns" of the rows. row_by_row: whether each row was scored alone, because this model's last bits
    hang on how many are scored at once. logged: rows in the prediction log.
    """

    batch: str | None
    model: str
    release: str
    model_version: str
    input: str
    files: int
    rows: int
    set_aside: dict[str, int]
    to: list[str]
    predicted_at: str
    scored: int
    workers: int
    features: str
    kept: list[str]
    changed: list[str]
    row_by_row: bool
    logged: int
    seconds: float


def window_or_path(text: str, now_us: int) -> Window | Path:
    """What `--batch` names: START/END, one of `last-hour`, `last-day`, `last-week`, or a file or folder.

    The named ones are the last whole hour, day or week from Monday, in UTC, before `now_us`; so the same command gives
    the same window whenever it runs within the next one. Raises BadWindow for what looks like a window and is none.
    """
    if text in CALENDAR:
        length, start = CALENDAR[text]
        end = now_us - (now_us - start) % length
        return Window(end - length, end)
    path = Path(text)
    if path.exists() or text.endswith((".parquet", "/")):
        return path
    if re.fullmatch(r"last-\w+", text):
        raise BadWindow(
            f"the window {text!r} is not known.",
            expected=f"START/END, {listed(sorted(CALENDAR))} is expected. {did_you_mean(text, CALENDAR)}".strip(),
        )
    return parse_window(text)


@dataclass
class _Job:
    """What is to be scored, and how."""

    files: list[InputFile]
    model: str
    bundle: Bundle
    keep: list[str]
    schema: pa.Schema
    tasks: list[Task]
    orders: Orders
    events: dict[str, pa.Table]
    batch: Batch
    sinks: list[Sink]
    set_aside: Path | None
    workers: int
    progress: Progress | None
    scorer: PartScorer | None = None
    bad: dict[str, int] = field(default_factory=dict)
    scored: int = 0
    answered: int = 0

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)


def score_files(
    project: Building,
    inputs: Inputs,
    model: Model,
    release: Record,
    bundle: Bundle,
    given: str | Path,
    *,
    to: Sequence[str | Path],
    keep: Sequence[str] | None,
    set_aside: str | Path | None = None,
    by_day: str = "",
    workers: int | None = None,
    logged: str = "",
    progress: Progress | None = None,
    known_as: str = "",
) -> BatchScored:
    """See `Project.predict_files`. logged: the deployment under which rows are logged; empty: they are not.

    known_as: what the input is called, when the file is only where it lies.
    """
    started = monotonic()
    folder = Path.cwd()
    path = (folder / given).resolve()
    called = known_as or str(path)
    if progress:
        progress("read", 0, 0)
    files = input_files(path)
    scorer = RowScorer(bundle)
    instants = list(dict.fromkeys([one for one in (model.labels.event_timestamp, "at") if one]))
    needed = [scorer.needs(file.schema, instants=instants, where=str(file.path)) for file in files]
    kept = _kept(files, keep, model.key, instants, [str(one) for one in to] == [ONLINE])
    schema = _schema(files[0].schema, kept, scorer, logged=bool(logged))
    sinks: list[Sink] = []
    for one in to:
        if str(one) == ONLINE:
            instant = next((name for name in instants if name in kept), "predicted_at")
            sinks.append(OnlineSink(project.online, bundle.manifest.model, model.key, instant))
        else:
            sinks.append(open_sink(str(one), folder=folder, by_day=by_day))
    _refuse_outputs(path, sinks, folder / set_aside if set_aside is not None else None)
    views = {view.name: view for needs in needed for view in needs.views}
    naive = [
        needs.instant
        for file, needs in zip(files, needed, strict=True)
        if needs.instant and file.schema.field(needs.instant).type.tz is None
    ]
    if naive:
        warnings.warn(f"column '{naive[0]}' of {called} has no zone; it was read as UTC.", DataWarning, stacklevel=3)
    events, snapshots = _events(project, inputs, model, views, progress)
    made_of = {
        "release": release.id,
        "keep": kept,
        "instants": sorted({needs.instant for needs in needed if needs.instant}),
        "snapshots": snapshots,
        "logged": logged,
    }
    identity = value_digest({"model": bundle.manifest.model, "input": called})[:32]
    whole = {**made_of, "files": [(file.name, file.digest) for file in files], "by_day": by_day}
    batch = Batch(identity, value_digest(whole)[:32])
    before = _recorded(project.metadata, bundle.manifest.model, batch)
    if before is not None:
        batch = msgspec.structs.replace(batch, rows=before.body["rows"])
    home = next((home for sink in sinks if (home := sink.home())), None)
    state = project.folder / STATE / "batches"
    stage = Stage(home.with_name(f".{home.name}.batch") if home else state / identity)
    tasks_for = cores() if workers is None else workers
    tasks = [task for file in files for task in tasks_of(file, made_of, workers=tasks_for, files=len(files))]
    with ExitStack() as held:
        held.enter_context(only_one(stage.folder / "lock", sinks[0].shown))
        for sink in sinks:
            name = value_digest(sink.shown)[:32]
            if sink.home() != home or home is None:
                held.enter_context(only_one(state / "locks" / name, sink.shown))
        orders = Orders(
            bundle=str(project.objects.path(release.body["object"])),
            trusted=dict(project.trusted),
            stage=str(stage.folder),
            keep=tuple(kept),
            instants=tuple(instants),
            events=dict.fromkeys(events, ""),
        )
        job = _Job(
            files, bundle.manifest.model, bundle, kept, schema, tasks, orders, events, batch, sinks,
            folder / set_aside if set_aside is not None else None, tasks_for, progress,
        )  # fmt: skip
        there = [sink.check(batch, schema) for sink in sinks]
        shared: dict[str, Any] = {
            "model": job.model,
            "release": release.id,
            "model_version": str(bundle.manifest.version),
            "input": called,
            "files": len(files),
            "to": [sink.shown for sink in sinks],
            "features": "joined" if views else "columns",
            "kept": kept,
            "row_by_row": scorer.alone,
        }
        if before is not None and all(there) and (job.set_aside is None or job.set_aside.exists()):
            shutil.rmtree(stage.folder, ignore_errors=True)
            return BatchScored(
                batch=None,
                rows=before.body["rows"],
                set_aside=before.body["set_aside"],
                predicted_at=before.body["predicted_at"],
                scored=0,
                workers=0,
                changed=[],
                logged=before.body["logged"],
                seconds=round(monotonic() - started, 3),
                **shared,
            )
        known = journal(stage)
        known = known if (known.get("batch"), known.get("release")) == (identity, release.id) else {}
        now = {file.name: file.digest for file in files}
        changed = [name for name, was in known.get("files", {}).items() if now.get(name) != was]
        predicted_us = int(known.get("predicted_us", project.now_us))
        write_journal(stage, {"batch": identity, "release": release.id, "predicted_us": predicted_us, "files": now})
        if logged:
            about = {
                "deployment": logged,
                "caller": project.actor,
                "key": list(model.key),
                "at_us": predicted_us,
                "objects": str(project.objects.root),
                "keys": str(project.keys),
            }
            job.orders = msgspec.structs.replace(job.orders, log=str(project.log.root), logged=about)
        _put(job, stage, predicted_us)
        found = Record(
            new_id("batch"),
            "batch",
            job.model,
            (release.id, *snapshots, *_file_ids(files)),
            {
                "batch": batch.id,
                "digest": batch.digest,
                "input": called,
                "files": [{"file": file.name, "digest": file.digest, "rows": file.rows} for file in files[:MOST_NAMED]],
                "to": shared["to"],
                "rows": job.answered,
                "set_aside": job.bad,
                "predicted_at": iso(from_us(predicted_us)),
                "logged": job.answered if logged else 0,
            },
        )
        with project.metadata.transaction() as transaction:
            transaction.add(found)
            facts = {"model": job.model, "release": release.id, "rows": job.answered, "to": shared["to"]}
            project.event(transaction, "batch.scored", found.id, facts)
        shutil.rmtree(stage.folder, ignore_errors=True)
    return BatchScored(
        batch=found.id,
        rows=job.answered,
        set_aside=job.bad,
        predicted_at=found.body["predicted_at"],
        scored=job.scored,
        workers=job.workers,
        changed=changed,
        logged=found.body["logged"],
        seconds=round(monotonic() - started, 3),
        **shared,
    )


def score_window(
    project: Building,
    inputs: Inputs,
    model: Model,
    release: Record,
    bundle: Bundle,
    rows: pa.Table,
    window: Window,
    *,
    to: Sequence[str | Path],
    keep: Sequence[str] | None,
) -> BatchScored:
    """Put the answers to the label rows of a window, features joined, into outputs; a window is one batch."""
    import pyarrow.parquet as pq

    said = [name for name in rows.column_names if name not in (model.target, "label_known_at")]
    folder = project.folder / STATE / "batches"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"window-{value_digest([model.name, str(window)])[:32]}.parquet"
    hidden = path.with_name(f".{path.name}")
    try:
        pq.write_table(rows.select(said), hidden)
        hidden.rename(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise stage_unwritable(folder, error) from None
    try:
        return score_files(project, inputs, model, release, bundle, path, to=to, keep=keep, known_as=str(window))
    finally:
        path.unlink(missing_ok=True)


# -- what is scored


def _kept(
    files: Sequence[InputFile], keep: Sequence[str] | None, key: Sequence[str], instants: Sequence[str], lean: bool
) -> list[str]:
    """The columns of the rows that stand beside their answers: those named; by default the model's key and instant
    where every file has the key, else every column."""
    first = files[0].schema
    if keep is None or list(keep) == ["all"]:
        every = keep is not None or not key or any(name not in file.schema.names for file in files for name in key)
        known = set(first.names).intersection(*(file.schema.names for file in files))
        names = list(first.names) if every and not lean else [*key, *(one for one in instants if one in known)]
    else:
        names = [] if list(keep) == ["none"] else list(keep)
    for file in files:
        for name in names:
            if name not in file.schema.names:
                raise BatchColumnUnknown(
                    f"column '{name}' is to be kept, and {file.path} has none.",
                    expected=f"It has {listed(file.schema.names, most=20)}. "
                    f"{did_you_mean(name, file.schema.names)}".strip(),
                )
            if file.schema.field(name).type != first.field(name).type:
                raise BatchColumnUnknown(
                    f"column '{name}' is {first.field(name).type} in {files[0].path} and "
                    f"{file.schema.field(name).type} in {file.path}.",
                    expected="A column that is kept needs one type in all files.",
                    next="Leave it out with --keep, or cast it.",
                )
    return list(dict.fromkeys(names))


def _refuse_outputs(given: Path, sinks: Sequence[Sink], set_aside: Path | None) -> None:
    """Raise BadSink for outputs that come into each other's way, or into that of the rows."""
    places = [home.resolve() for sink in sinks if (home := sink.home())]
    places += [set_aside.resolve()] if set_aside is not None else []
    shown = [sink.shown for sink in sinks]
    if len(set(places)) < len(places) or len(set(shown)) < len(shown):
        raise BadSink("two outputs of this batch are the same.", state="Nothing was written.")
    for place in places:
        if given.is_dir() and (given == place or given in place.parents):
            raise BadSink(
                f"the output {place} lies within {given}, whose files are scored.",
                expected="The next batch of that folder would score the answers of this one.",
                next="Name an output elsewhere.",
                state="Nothing was written.",
            )


def _schema(rows: pa.Schema, kept: Sequence[str], scorer: RowScorer, *, logged: bool) -> pa.Schema:
    """The columns of the output."""
    import pyarrow as pa

    def plain(kind: pa.DataType) -> pa.DataType:
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    fields = [pa.field(name, plain(rows.field(name).type)) for name in kept]
    fields += list(scorer.answer_schema())
    if logged:
        fields.append(pa.field("prediction_id", pa.string()))
    fields += [pa.field("release", pa.string()), pa.field("model_version", pa.string())]
    fields.append(pa.field("predicted_at", pa.timestamp("us", tz="UTC")))
    names = [one.name for one in fields]
    for name in names:
        if names.count(name) > 1:
            raise BatchColumnTaken(
                f"the rows have a column '{name}', and so do the answers.",
                next="Rename it, or leave it out with --keep A,B.",
                expected="Columns that are kept need names of their own.",
            )
    return pa.schema(fields)


def _events(
    project: Building, inputs: Inputs, model: Model, views: Mapping[str, Any], progress: Progress | None
) -> tuple[dict[str, pa.Table], list[str]]:
    """The rows of each view's source as they are now, and the snapshots that hold them."""
    if not views:
        return {}, []
    own = {view.source.name: view.source for view in model.views}
    sources = {}
    for name, view in views.items():
        named = view.source.name if view.source else ""
        source = project.definitions.sources.get(named) or own.get(named)
        if source is None:
            raise UsageError(
                f"view '{name}' of this release reads source '{named}', which is no longer declared.",
                expected=f"Declare it, or give the rows {listed([f'{name}__{one}' for one in view.features])}.",
                state="Nothing was written.",
            )
        sources[name] = source
    tables, snapshots = inputs.tables(list(sources.values()), progress)
    return {name: tables[source.name] for name, source in sources.items()}, snapshots


def _file_ids(files: Sequence[InputFile]) -> list[str]:
    if len(files) > MOST_NAMED:
        return [f"files_{value_digest([file.digest for file in files])[:32]}"]
    return list(dict.fromkeys(f"file_{file.digest[:32]}" for file in files))


def _recorded(metadata: MetadataStore, model: str, batch: Batch) -> Record | None:
    """The record of the last time that this batch was scored, when it was made of the same."""
    known = [one for one in metadata.records("batch", model) if one.body["batch"] == batch.id]
    return known[-1] if known and known[-1].body["digest"] == batch.digest else None


# -- scoring and writing


def _put(job: _Job, stage: Stage, predicted_us: int) -> None:
    """Score what is not scored yet, and write every sink."""
    parts = [part.id for task in job.tasks for part in task.parts]
    stage.clear(parts)
    first, rest = job.sinks[0], job.sinks[1:]
    rows = _answers(job, stage, predicted_us, _in_order(job, stage))
    if not first.live:
        for _ in rows:  # an output that others wait for is not held while rows are scored
            pass
        rows = _answers(job, stage, predicted_us, iter(parts))
    job.answered = first.write(job.batch, job.schema, rows)
    for sink in rest:
        sink.write(job.batch, job.schema, _answers(job, stage, predicted_us, iter(parts)))


def _answers(job: _Job, stage: Stage, predicted_us: int, parts: Iterator[str]) -> Iterator[pa.Table]:
    """The rows of the output, part by part."""
    import pyarrow as pa

    said = {
        "release": pa.scalar(job.bundle.id, pa.string()),
        "model_version": pa.scalar(str(job.bundle.manifest.version), pa.string()),
        "predicted_at": pa.scalar(from_us(predicted_us), pa.timestamp("us", tz="UTC")),
    }
    for part in parts:
        table = stage.table(stage.answers(part))
        for name, value in said.items():
            table = table.append_column(name, pa.repeat(value, len(table)))
        yield table.select(job.schema.names)


def _in_order(job: _Job, stage: Stage) -> Iterator[str]:
    """The ids of the parts, each as soon as it and all before it are in the stage. At the end what was set aside is
    written, and the files are looked at again."""
    waiting: dict[str, Done] = {}
    tasks = []
    for task in job.tasks:
        left = []
        for part in task.parts:
            done = stage.done(part)
            if done is None:
                left.append(part)
            else:
                waiting[part.id] = done
                _count(job, done)
        tasks += _runs(task, left)
    job.scored = sum(part.rows for task in tasks for part in task.parts)
    already = job.rows - job.scored
    finished = _scored(job, stage, tasks)
    done_rows = already
    for part in (part for task in job.tasks for part in task.parts):
        while part.id not in waiting:
            done = next(finished)
            waiting[done.id] = done
            _count(job, done)
            done_rows += done.rows
            if job.progress:
                job.progress("score", done_rows, job.rows)
        yield part.id
    for _ in finished:
        pass  # it ends its processes
    refuse_changed(job.files, kept="parts that are scored are kept.")
    if job.set_aside is not None:
        _write_aside(job, stage, job.set_aside)


def _count(job: _Job, done: Done) -> None:
    for reason, rows in done.bad.items():
        job.bad[reason] = job.bad.get(reason, 0) + rows
    if job.bad and job.set_aside is None:
        raise refused(job.bad, job.rows)


def _runs(task: Task, left: Sequence[Any]) -> list[Task]:
    """Those parts of a task that are left, as tasks of parts that follow each other."""
    found: list[Task] = []
    place = task.skip
    follows = False
    for part in task.parts:
        if part not in left:
            follows = False
        elif follows:
            found[-1] = msgspec.structs.replace(found[-1], parts=(*found[-1].parts, part))
        else:
            found.append(Task(task.path, task.groups, place, (part,)))
            follows = True
        place += part.rows
    return found


def _scored(job: _Job, stage: Stage, tasks: Sequence[Task]) -> Iterator[Done]:
    """Score tasks, by other processes when it is worth it; each part when it is done."""
    from seatrial.verbs import batch_worker

    rows = sum(part.rows for task in tasks for part in task.parts)
    job.workers = min(job.workers, len(tasks))
    if job.workers <= 1 or rows <= FEW_ROWS:
        job.workers = min(1, len(tasks))
        if tasks:
            scorer = batch_worker.scorer(job.orders, job.events)
            for task in tasks:
                yield from scorer.run(task)
        return
    orders = msgspec.structs.replace(job.orders, events=_kept_events(stage, job.events))
    workers = Workers(batch_worker.__name__, orders, job.workers)
    try:
        yield from workers.run(tasks)
    finally:
        workers.close()


def _kept_events(stage: Stage, events: Mapping[str, pa.Table]) -> dict[str, str]:
    """Each view's rows in a file that all workers read; where they are."""
    import pyarrow as pa

    found = {}
    folder = stage.folder / "events"
    try:
        folder.mkdir(exist_ok=True)
        for name, table in events.items():
            path = folder / f"{name}.arrow"
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            found[name] = str(path)
    except OSError as error:
        raise stage_unwritable(stage.folder, error) from None
    return found


def _write_aside(job: _Job, stage: Stage, path: Path) -> None:
    """The rows without an answer, with their reasons, in one Parquet file; empty when there are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from seatrial.serving.batch.sinks import SinkUnwritable

    parts = [part for task in job.tasks for part in task.parts]
    schemas: list[pa.Schema] = []
    for part in parts:
        with pa.OSFile(str(stage.aside(part.id))) as file, pa.ipc.open_file(file) as reader:
            if not any(reader.schema.equals(one) for one in schemas):
                schemas.append(reader.schema)
    whole = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
    hidden = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(hidden, whole) as writer:
            for part in parts:
                table = stage.table(stage.aside(part.id))
                if table.num_rows:
                    missing = [name for name in whole.names if name not in table.column_names]
                    for name in missing:
                        table = table.append_column(name, pa.nulls(len(table), whole.field(name).type))
                    writer.write_table(table.select(whole.names).cast(whole))
        hidden.rename(path)
    except OSError as error:
        hidden.unlink(missing_ok=True)
        raise SinkUnwritable(
            f"{path} cannot be written: {error.strerror or error}.",
            state="Nothing was written; parts that are scored are kept.",
            next="Make room, or mend its rights, and run the same command again.",
        ) from None
