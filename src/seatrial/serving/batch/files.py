"""Batch files: Parquet files of any size, scored in parts by all cores.

The rows of each file are cut into parts, always at the same places. The answers of a part are kept in a file of the
stage, a folder beside the output, which is named by what they are made of: the file's digest, the span of rows, the
release and how it was asked. A part that is there is never scored again, so a batch that was killed goes on where it
was; whatever changed meanwhile has another name, and is scored. A part's file appears by a rename, so it is whole.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import blake3
import msgspec
import numpy as np

from seatrial.core.errors import Conflict, Failed, SeatrialError, Unavailable, UsageError, listed
from seatrial.core.identity import canonical_json, digest
from seatrial.serving.batch.rows import Answers, Needs, Places, RowScorer
from seatrial.stores.prediction_log import LogUnwritable

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
PART_ROWS = 131_072
READ_ROWS = 16_384
HASHED_BYTES = 4 << 20
FEW_ROWS = 20_000
"""Fewer rows than this are scored in this process: starting others takes longer."""
TASKS_PER_WORKER = 4
SUFFIX = ".parquet"
KEPT = "Nothing was written to the output; parts that are scored are kept."
PLACE = ("file", "row")
"""The columns that say where a row that was set aside came from."""

Enrich = Callable[["pa.Table", Needs], "pa.Table"]
"""Rows with the features of the views that are needed."""
Noted = Callable[["Part", "pa.Table", Needs, Answers, Places], "dict[str, pa.Array]"]
"""Takes note of the answers of a part: given the rows that were tried, the answers, and which rows of the part these
are; columns that stand beside the answers come back."""


class BatchInputMissing(UsageError):
    """There is no file to be scored under a path."""

    code = "batch.input_missing"


class BatchInputUnreadable(Failed):
    """A file to be scored is no readable Parquet file."""

    code = "batch.input_unreadable"


class BatchInputChanged(Conflict):
    """A file changed while it was scored."""

    code = "batch.input_changed"


class BatchRowsRefused(Failed):
    """Some rows have no answer, and it was not said where to set them aside."""

    code = "batch.rows_refused"


class BatchWorkerDied(Unavailable):
    """A process that scored parts of a batch ended."""

    code = "batch.worker_died"


class BatchStageUnwritable(Unavailable):
    """The folder in which a batch keeps its parts takes no file: the disk is full or failing, or rights are missing."""

    code = "batch.stage_unwritable"


@dataclass(frozen=True)
class InputFile:
    """One Parquet file. name: relative to what was given; groups: rows of each row group; stamp: to notice a change."""

    path: Path
    name: str
    digest: str
    schema: pa.Schema
    groups: tuple[int, ...]
    stamp: tuple[int, int]

    @property
    def rows(self) -> int:
        return sum(self.groups)


class Part(msgspec.Struct, frozen=True):
    """A span of rows of one file: `rows` of them from `start`. id: names what its answers are made of. same: names the
    rows and the release, whatever else is kept beside the answers."""

    id: str
    same: str
    file: str
    start: int
    rows: int


class Task(msgspec.Struct, frozen=True):
    """Parts of one file that follow each other. groups: the row groups that are read for them; skip: rows of these
    that come before the first part."""

    path: str
    groups: tuple[int, ...]
    skip: int
    parts: tuple[Part, ...]


class Done(msgspec.Struct, frozen=True):
    """A part whose answers are in the stage. bad: how many rows have none, by reason."""

    id: str
    rows: int
    bad: dict[str, int] = {}


def input_files(given: Path) -> list[InputFile]:
    """The Parquet files at a path, a file or a folder with everything below it, in the order of their names.

    What is hidden (`.` or `_` in front) is left out. Raises BatchInputMissing and BatchInputUnreadable.
    """
    if given.is_dir():
        names = sorted(
            path.relative_to(given)
            for path in given.rglob(f"*{SUFFIX}")
            if not any(part.startswith((".", "_")) for part in path.relative_to(given).parts) and path.is_file()
        )
        if not names:
            raise BatchInputMissing(
                f"the folder {given} holds no file *{SUFFIX}.",
                expected="Parquet files are expected in it, or below it.",
            )
        return [_input(given / name, str(name)) for name in names]
    if not given.exists():
        raise BatchInputMissing(
            f"there is no file {given}.", expected="A Parquet file or a folder of them is expected."
        )
    return [_input(given, given.name)]


def _input(path: Path, name: str) -> InputFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        stamp = _stamp(path)
        if not stamp[0]:
            raise _unreadable(path, "it is empty (0 bytes)")
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            groups = tuple(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
        hashed = _hashed(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, " ".join(str(error).split())[:200]) from None
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise _unreadable(path, f"it has two columns '{twice}'")
    return InputFile(path, name, hashed, schema, groups, stamp)


def _hashed(path: Path) -> str:
    """BLAKE3 of a file's bytes. Read, not mapped: mapped pages count as this process's memory."""
    made = blake3.blake3(max_threads=blake3.blake3.AUTO)
    block = bytearray(HASHED_BYTES)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(block):
            made.update(memoryview(block)[:size])
    return made.hexdigest()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _unreadable(path: Path, why: str) -> BatchInputUnreadable:
    return BatchInputUnreadable(
        f"{path} cannot be read as Parquet: {why}.",
        expected="A whole Parquet file is expected; one that is being written has to be finished first.",
    )


def refuse_changed(files: Iterable[InputFile], *, kept: str) -> None:
    """Raise BatchInputChanged when one of the files is not the one that was read."""
    for file in files:
        try:
            same = _stamp(file.path) == file.stamp
        except OSError:
            same = False
        if not same:
            raise BatchInputChanged(
                f"{file.path} was changed while it was scored.",
                state=f"Nothing was written to the output; {kept}",
                next="Run the same command again: parts of files that did not change are not scored again.",
            )


def tasks_of(file: InputFile, made_of: Mapping[str, Any], *, workers: int, files: int) -> list[Task]:
    """The parts of a file, in order, in tasks. made_of: what answers are made of besides the file.

    The cuts hang on the file alone: a new part begins with a row group when the last one has PART_ROWS or more, and
    within a row group after each PART_ROWS. How parts are shared out as tasks hangs on the number of workers.
    """

    def part(start: int, rows: int) -> Part:
        named = {"format": FORMAT, "file": file.digest, "start": start, "rows": rows, **made_of}
        bare = {name: value for name, value in named.items() if name != "keep"}
        id, same = (digest(canonical_json(one))[:32] for one in (named, bare))
        return Part(id, same, file.name, start, rows)

    spans: list[list[int]] = []  # row groups that belong together
    for number, rows in enumerate(file.groups):
        if spans and sum(file.groups[one] for one in spans[-1]) + rows <= PART_ROWS:
            spans[-1].append(number)
        elif rows:
            spans.append([number])
    pieces = max(1, -(-TASKS_PER_WORKER * workers // max(1, len(spans) * files)))
    tasks, start = [], 0
    for groups in spans:
        rows = sum(file.groups[one] for one in groups)
        parts = [part(start + at, min(PART_ROWS, rows - at)) for at in range(0, rows, PART_ROWS)]
        each = -(-len(parts) // min(pieces, len(parts)))
        for first in range(0, len(parts), each):
            tasks.append(Task(str(file.path), tuple(groups), first * PART_ROWS, tuple(parts[first : first + each])))
        start += rows
    return tasks


@dataclass
class Stage:
    """The folder in which the parts of a batch are kept until its output is whole."""

    folder: Path

    def answers(self, part: str) -> Path:
        return self.folder / f"{part}.arrow"

    def aside(self, part: str) -> Path:
        return self.folder / f"{part}.aside.arrow"

    def told(self, part: str) -> Path:
        return self.folder / f"{part}.json"

    def done(self, part: Part) -> Done | None:
        """What is known of a part that is there, whole; None when it is not."""
        import pyarrow as pa

        try:
            done = msgspec.json.decode(self.told(part.id).read_bytes(), type=Done)
            with pa.OSFile(str(self.answers(part.id))) as file, pa.ipc.open_file(file) as reader:
                rows = sum(reader.get_batch(place).num_rows for place in range(reader.num_record_batches))
            with pa.OSFile(str(self.aside(part.id))) as file, pa.ipc.open_file(file) as reader:
                rows += sum(reader.get_batch(place).num_rows for place in range(reader.num_record_batches))
        except (OSError, msgspec.DecodeError, pa.ArrowException):
            return None  # a power failure can leave a file without its content
        return done if rows == part.rows == done.rows else None

    def table(self, path: Path) -> pa.Table:
        import pyarrow as pa

        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            return reader.read_all()

    def clear(self, keep: Iterable[str] = ()) -> None:
        """Remove every file but the parts of these ids."""
        kept = {f"{part}{suffix}" for part in keep for suffix in (".arrow", ".aside.arrow", ".json")}
        for path in self.folder.iterdir():
            if path.name not in kept and path.name not in ("lock", "journal.json") and path.is_file():
                path.unlink(missing_ok=True)


class PartScorer:
    """Scores tasks into a stage.

    keep: the columns of the rows that stand beside their answers. enrich: joins features; needed for releases whose
    views are not columns of the rows. noted: called before a part's answers are kept.
    """

    def __init__(
        self,
        scorer: RowScorer,
        stage: Stage,
        *,
        keep: Sequence[str],
        instants: Sequence[str],
        enrich: Enrich | None = None,
        noted: Noted | None = None,
    ) -> None:
        self._scorer = scorer
        self._stage = stage
        self._keep = list(keep)
        self._instants = list(instants)
        self._enrich = enrich
        self._noted = noted

    def run(self, task: Task) -> Iterator[Done]:
        """Score the parts of a task, one after the other."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(task.path, buffer_size=1 << 20, pre_buffer=False) as file:
                needs = self._scorer.needs(file.schema_arrow, instants=self._instants, where=Path(task.path).name)
                columns = list(dict.fromkeys([*needs.columns, *self._keep]))
                read = _Reader(
                    file.iter_batches(READ_ROWS, row_groups=list(task.groups), columns=columns, use_threads=False),
                    task.skip,
                )
                for part in task.parts:
                    yield self._score(part, needs, read.table(part.rows, columns))
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and str(self._stage.folder) in str(error):
                raise stage_unwritable(self._stage.folder, error) from None
            raise _unreadable(Path(task.path), " ".join(str(error).split())[:200]) from None

    def _score(self, part: Part, needs: Needs, rows: pa.Table) -> Done:
        import pyarrow as pa
        import pyarrow.compute as pc

        whole = rows
        unfit = None
        if needs.views and self._enrich is not None:
            instants = rows[needs.instant]
            if instants.null_count:
                unfit = instants.is_null()
                rows = rows.filter(pc.invert(unfit))
            # nanoseconds are cut toward the past; a time without a zone is in UTC
            instants = rows[needs.instant].cast(pa.timestamp("us", tz="UTC"), safe=False)
            rows = rows.set_column(rows.column_names.index(needs.instant), needs.instant, instants)
            rows = self._enrich(rows, needs)
        answers = self._scorer.answer(rows)
        codes, reasons = answers.bad.codes, answers.bad.reasons
        if unfit is not None:
            every = np.full(len(whole), len(reasons) + 1, dtype=np.int16)
            every[~unfit.to_numpy().astype(bool)] = codes
            codes, reasons = every, [*reasons, ("batch.no_instant", f"'{needs.instant}' is null")]
        good = np.flatnonzero(codes == 0)
        kept = whole.select(self._keep)
        if len(good) < len(whole):
            kept = kept.take(pa.array(good))
        answered = kept
        more = {} if self._noted is None else self._noted(part, rows, needs, answers, good)
        for name, column in {**answers.columns, **more}.items():
            answered = answered.append_column(name, column)
        counts = np.bincount(codes, minlength=len(reasons) + 1)[1:].tolist()
        told = Done(
            part.id,
            part.rows,
            {reason: count for (_, reason), count in zip(reasons, counts, strict=True) if count},
        )
        bad = np.flatnonzero(codes)
        aside = whole.take(pa.array(bad))
        aside = aside.append_column("file", pa.array([part.file] * len(bad), pa.string()))
        aside = aside.append_column("row", pa.array(part.start + bad, pa.int64()))
        aside = aside.append_column("code", pa.array([reasons[code - 1][0] for code in codes[bad]], pa.string()))
        aside = aside.append_column("reason", pa.array([reasons[code - 1][1] for code in codes[bad]], pa.string()))
        try:
            _write(self._stage.aside(part.id), aside)
            _write(self._stage.answers(part.id), answered)
            hidden = self._stage.folder / f".{part.id}.{os.getpid()}"
            hidden.write_bytes(msgspec.json.encode(told))
            hidden.rename(self._stage.told(part.id))
        except OSError as error:
            raise stage_unwritable(self._stage.folder, error) from None
        return told


class _Reader:
    """Batches as tables of given lengths, in order. skip: rows to leave out first."""

    def __init__(self, batches: Iterator[pa.RecordBatch], skip: int) -> None:
        self._batches = batches
        self._skip = skip
        self._rest: pa.RecordBatch | None = None

    def table(self, rows: int, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        found: list[pa.RecordBatch] = []
        while rows:
            batch = self._rest if self._rest is not None else next(self._batches)
            self._rest = None
            if self._skip:
                skipped = min(self._skip, batch.num_rows)
                self._skip -= skipped
                batch = batch.slice(skipped)
            if batch.num_rows > rows:
                self._rest, batch = batch.slice(rows), batch.slice(0, rows)
            rows -= batch.num_rows
            found.append(batch)
        return without_dictionaries(pa.Table.from_batches(found).select(columns))


def without_dictionaries(table: pa.Table) -> pa.Table:
    """The table with plain values where it has codes of them: each batch may come with codes of its own."""
    import pyarrow as pa

    for place, one in enumerate(table.schema):
        if pa.types.is_dictionary(one.type):
            table = table.set_column(place, one.name, table[one.name].cast(one.type.value_type))
    return table


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow as pa

    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    with pa.OSFile(str(hidden), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    hidden.rename(path)


def stage_unwritable(folder: Path, error: OSError) -> BatchStageUnwritable:
    """The error for a stage that takes no file."""
    return BatchStageUnwritable(
        f"the folder {folder} takes no file: {error.strerror or error}.",
        state=KEPT,
        next="Make room, or mend its rights, and run the same command again: it goes on where it was.",
    )


# -- several processes


class Orders(msgspec.Struct, frozen=True):
    """What a worker is told when it starts. trusted: public keys by id. events: where each view's rows are, as Arrow.

    log: the folder of the prediction log when rows are logged, with `logged` about them.
    """

    bundle: str
    trusted: dict[str, bytes]
    stage: str
    keep: tuple[str, ...]
    instants: tuple[str, ...]
    events: dict[str, str] = {}
    log: str = ""
    logged: dict[str, Any] = {}


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says: that it did a part, or a task, or what went wrong."""

    done: Done | None = None
    task: bool = False
    error: dict[str, str] | None = None


def work(make: Callable[[Orders], PartScorer]) -> None:
    """Be a worker: orders, then tasks, come on stdin, a line of JSON each; what was done goes to stdout.

    The process ends at once when stdin does: whoever asked is gone.
    """
    lines: queue.Queue[bytes | None] = queue.Queue()
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints is no answer

    def listen() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    try:
        scorer = make(msgspec.json.decode(cast("bytes", lines.get()), type=Orders))
        while True:
            task = msgspec.json.decode(cast("bytes", lines.get()), type=Task)
            for done in scorer.run(task):
                answers.write(msgspec.json.encode(Said(done=done)) + b"\n")
            answers.write(msgspec.json.encode(Said(task=True)) + b"\n")
    except SeatrialError as error:
        told = {"kind": type(error).__name__, "code": error.code, "found": error.found, "expected": error.expected}
        told |= {"state": error.state, "next": error.next}
        answers.write(msgspec.json.encode(Said(error=told)) + b"\n")
    except Exception as error:  # its words may hold what is in the rows
        told = {"kind": type(error).__name__, "code": PartFailed.code, "expected": "", "next": ""}
        told |= {"found": f"a part could not be scored: {type(error).__name__}.", "state": KEPT}
        answers.write(msgspec.json.encode(Said(error=told)) + b"\n")


class PartFailed(Failed):
    """A part could not be scored; the reason is that of the process that tried."""

    code = "batch.part_failed"


_KNOWN: dict[str, type[SeatrialError]] = {
    one.code: one for one in (BatchStageUnwritable, BatchInputUnreadable, LogUnwritable)
}
"""What keeps its own kind, and so its exit code, on the way from a worker."""


class Workers:
    """Processes that score tasks into a stage. module: what they run; it calls `work`."""

    def __init__(self, module: str, orders: Orders, number: int) -> None:
        self._said: queue.Queue[tuple[int, Said | None]] = queue.Queue()
        self._processes = []
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_NUM_THREADS"), "1")
        path = os.pathsep.join(one for one in sys.path if one)
        environment = {**os.environ, **one_thread, "PYTHONPATH": path}
        for place in range(number):
            process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the process that asked
            )
            self._processes.append(process)
            threading.Thread(target=self._listen, args=(place, process), daemon=True).start()
            self._tell(process, orders)

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def run(self, tasks: Sequence[Task]) -> Iterator[Done]:
        """Score every task; yields each part when it is done, in any order."""
        waiting = list(reversed(tasks))
        for process in self._processes:
            if waiting:
                self._tell(process, waiting.pop())
        left = len(tasks)
        while left:
            place, said = self._said.get()
            process = self._processes[place]
            if said is None:
                raise BatchWorkerDied(
                    f"a process that scored parts of this batch ended with {process.wait()}.",
                    expected="It may have been killed, for memory for example.",
                    state=KEPT,
                    next="Run the same command again: it goes on where it was. Fewer --workers need less memory.",
                )
            if said.error is not None:
                error = said.error
                raise _KNOWN.get(error["code"], PartFailed)(
                    error["found"],
                    expected=error["expected"],
                    state=error["state"],
                    next=error["next"],
                    reason=error["code"],
                )
            if said.done is not None:
                yield said.done
            if said.task:
                left -= 1
                if waiting:
                    self._tell(process, waiting.pop())

    def close(self) -> None:
        """End every process."""
        for process in self._processes:
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

    def _listen(self, place: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with suppress(ValueError, OSError):  # it is closed
            for line in process.stdout:
                self._said.put((place, msgspec.json.decode(line, type=Said)))
        self._said.put((place, None))

    def _tell(self, process: subprocess.Popen[bytes], what: Orders | Task) -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # that it is gone is heard
            process.stdin.write(msgspec.json.encode(what) + b"\n")
            process.stdin.flush()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0))


def refused(told: Mapping[str, int], rows: int) -> BatchRowsRefused:
    """The error for rows that have no answer."""
    most = sorted(told.items(), key=lambda one: (-one[1], one[0]))
    return BatchRowsRefused(
        f"{sum(told.values()):,} of the {rows:,} rows that were looked at have no answer: "
        f"{listed([f'{reason} ({count:,})' for reason, count in most])}.",
        expected="Every row is expected to be one that the service would answer.",
        state=KEPT,
        next="Correct them, or name a file for such rows with --set-aside FILE, and run the command again.",
        reasons=dict(told),
    )


def journal(stage: Stage) -> dict[str, Any]:
    """What is known of the batch whose stage this is; empty when nothing is."""
    try:
        found = json.loads((stage.folder / "journal.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}


def write_journal(stage: Stage, known: Mapping[str, Any]) -> None:
    """Keep what is known of the batch. Raises BatchStageUnwritable."""
    hidden = stage.folder / ".journal.json"
    try:
        hidden.write_bytes(canonical_json({"format": FORMAT, **known}))
        hidden.rename(stage.folder / "journal.json")
    except OSError as error:
        raise stage_unwritable(stage.folder, error) from None
