"""Reproduce: can this model be made again, and is what comes out the same?

The run is trained a second time from what was recorded: the snapshots of its rows, its definitions, parameters, seed,
threads and cut-off. No version is made. What comes out is judged on a ladder, best rung first:

- identical: the canonical ONNX form (fixed names, no producer) has the same digest;
- equivalent: on the rows kept with the run no score differs by more than 1e-6, relatively, and no decision differs;
- statistically same: no metric moved by more than its own spread over the run's folds;
- different: none of these; then the first input that differs is named.

Beside the verdict stand the inputs that differ between the recorded training and this one (packages, processor, BLAS;
all else is as recorded), and how the project as it is now differs from what was recorded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import Failed, SeatrialError, listed
from seatrial.core.identity import digest
from seatrial.core.records import Record
from seatrial.folder.loading import Definitions, UnknownName, load_files
from seatrial.folder.workspace import Workspace
from seatrial.training.closure import import_roots
from seatrial.training.differences import Difference, in_order, of_code, of_data, of_declaration, of_environment
from seatrial.verbs.building import Building, definition_of
from seatrial.verbs.inputs import Inputs, Inspect
from seatrial.verbs.results import Progress
from seatrial.verbs.runs import DEFINITIONS, finished, keys_of, recorded_rows, sources_of, unpack

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.core.signature import Rows, Signature
    from seatrial.data.sources import Source
    from seatrial.releases.native import NativeModel
    from seatrial.training.model import Model
    from seatrial.training.pipeline import Fitted

Verdict = Literal["identical", "equivalent", "statistically same", "different"]
LADDER: tuple[Verdict, ...] = ("identical", "equivalent", "statistically same", "different")
REPRODUCED: tuple[Verdict, ...] = ("identical", "equivalent")
TOLERANCE = 1e-6
THRESHOLD = 0.5
PROBE = "parity_rows.parquet"


class NotReproduced(Failed):
    """A run that was trained again came out otherwise."""

    code = "reproduce.not_reproduced"


class NotReproducible(Failed):
    """What a run was made from is not there any more, or was never recorded."""

    code = "reproduce.not_reproducible"


class Rung(msgspec.Struct, frozen=True):
    """One rung of the ladder. reached: None when it was not looked at, because a better one was reached."""

    rung: Verdict
    reached: bool | None
    words: str


class Moved(msgspec.Struct, frozen=True):
    """A metric of the test part. spread: over the run's folds; None without."""

    metric: str
    recorded: float | None
    again: float | None
    spread: float | None = None


class Reproduced(msgspec.Struct, frozen=True):
    """What came of training a run again.

    reproduced: whether the verdict is identical or equivalent, or one that was allowed.
    trained_from: "what was recorded", or "the project as it is now". inputs: what this training had otherwise than
    the recorded one. project: what the project has otherwise now; empty when it was trained from.
    rungs: the ladder. largest: the largest difference on the probe rows; flipped: decisions that differ there.
    """

    run: str
    model: str
    release: str | None
    verdict: Verdict
    reproduced: bool
    because: str
    trained_from: str
    inputs: list[Difference]
    project: list[Difference]
    rungs: list[Rung]
    recorded_digest: str | None
    digest: str | None
    probe_rows: int
    largest: float | None
    flipped: int | None
    metrics: list[Moved]
    seconds: float
    notes: list[str] = []


def reproduce(
    project: Building,
    inputs: Inputs,
    name: str,
    *,
    current: bool = False,
    allow: Sequence[Verdict] = (),
    progress: Progress | None = None,
) -> Reproduced:
    """Train a run again and judge what comes out. See `Project.reproduce`."""
    from seatrial.training.environment import describe
    from seatrial.training.tuning import as_tuned

    started = monotonic()
    run, release = chosen(project, name)
    if "logged" in run.body:
        raise NotReproducible(
            f"run {run.id} was logged by code of somebody's own, which seatrial did not run.",
            expected="Only what was trained by `seatrial train` can be trained again.",
            next="Run that code again, from the commit that `seatrial runs show` names.",
            state="Nothing was trained.",
        )
    if not finished(run):
        raise NotReproducible(
            f"run {run.id} failed: {run.body['error']['found']}",
            expected="A run that came to an end is made again.",
            state="Nothing was trained.",
        )
    notes: list[str] = []
    now = describe(project.folder, project.definitions.told_by, 1).facts if _has_definitions(project) else None
    if current and now is None:
        project.definitions  # noqa: B018  which says what is wrong
    with recorded_definitions(project, run, notes, current=current) as definitions:
        model = as_tuned(definitions.model(run.name), run.body.get("tuning"))
        if model.tune is not None and "tuning" in run.body:
            notes.append(f"parameters are those that were tuned in run {run.id}; nothing is tuned again")
        tables = Recorded(project, definitions, sources_of(project, run))
        rows, fitted = _train(inputs if current else tables, model, run, progress)
        environment = describe(project.folder, definitions.told_by if current else (), model.threads).facts
    differing = of_environment(run.body["environment"], environment)
    differing += _training_set(project, run, rows)
    changed = _project(project, inputs, run, tables, now, notes)
    if current:
        differing, changed = differing + changed, []
    differing = in_order(differing)
    judged = _Judge(project, run, release, fitted)
    verdict = judged.verdict()
    notes += judged.notes
    done = Reproduced(
        run=run.id,
        model=run.name,
        release=release.id if release else None,
        verdict=verdict,
        reproduced=verdict in (*REPRODUCED, *allow),
        because=_because(verdict, differing),
        trained_from="the project as it is now" if current else "what was recorded",
        inputs=differing,
        project=in_order(changed),
        rungs=judged.rungs,
        recorded_digest=judged.recorded_digest,
        digest=judged.digest,
        probe_rows=judged.probe_rows,
        largest=judged.largest,
        flipped=judged.flipped,
        metrics=judged.metrics,
        seconds=round(monotonic() - started, 3),
        notes=notes,
    )
    with project.metadata.transaction() as transaction:
        facts = {"verdict": done.verdict, "trained_from": done.trained_from, "inputs": len(done.inputs)}
        project.event(transaction, "run.reproduced", run.id, facts)
    return done


def not_reproduced(done: Reproduced) -> NotReproduced:
    """The error for a run that came out otherwise."""
    return NotReproduced(
        f"run {done.run} of model '{done.model}' was trained again and came out {done.verdict}.",
        expected=done.because,
        state="No version was made.",
        next="`--allow statistically-same` accepts it." if done.verdict == "statistically same" else "",
        verdict=done.verdict,
    )


def chosen(project: Building, name: str) -> tuple[Record, Record | None]:
    """The run that a name means, and the release when it named one: a run's or release's id or the start of it, a
    model (its newest version), `model@alias`, `model:3`, or a version's id."""
    from seatrial.governance.lineage import UnknownId, resolve

    try:
        record = resolve(project.metadata, name)
    except UnknownId:
        if name.startswith(("run_", "rel_")):
            raise
        record = project.registry.resolve(name)
    if record.kind == "release":
        origin = record.body["manifest"]["lineage"]
        if not origin["run"]:
            raise NotReproducible(
                f"release {record.id} was not trained here: it is from {origin['more'].get('origin', {}).get('from')}.",
                expected="Only what was trained by `seatrial train` can be trained again.",
                state="Nothing was trained.",
            )
        return project.record(origin["run"]), record
    if record.kind == "version" and not record.body["run"]:
        raise NotReproducible(
            f"version {record.body['version']} of '{record.name}' was not trained here, but brought in from elsewhere.",
            expected="Only what was trained by `seatrial train` can be trained again.",
            state="Nothing was trained.",
        )
    if record.kind == "version":
        return project.record(record.body["run"]), project.release_of(record.id)
    if record.kind != "run":
        raise UnknownName(f"'{record.id}' is a {record.kind}, not a run or a release.", state="Nothing was trained.")
    version = project.registry.version_of(record.id)
    return record, project.release_of(version.id) if version else None


@contextmanager
def recorded_definitions(
    project: Building, run: Record, notes: list[str], *, current: bool = False
) -> Iterator[Definitions]:
    """The definitions that a run was trained from, loaded from what was kept with it.

    current: those of the project as they are now, instead.
    """
    key = run.body.get("files", {}).get(DEFINITIONS)
    if current or key is None:
        if not current:
            _no_sources(project, run, notes)
        yield project.definitions
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own = unpack(project, run, folder)
        roots = [folder / root.relative_to(project.folder.resolve()) for root in import_roots(project.folder)]
        code = [file for file in own if file.suffix == ".py"]
        with _importing(roots, code):
            with _within(folder, project.folder) if code != own else nullcontext():
                definitions = load_files(_definition_files(folder, code), folder=project.folder)
            yield definitions


@contextmanager
def _within(folder: Path, project: Path) -> Iterator[None]:
    """Relative paths of definitions that were loaded in the project's folder lead to what was kept of it."""
    before = Path.cwd()
    if before.is_relative_to(project):
        os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _definition_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Of the files those that declare: project.py, or those in definitions/."""
    if folder / "project.py" in files:
        return [folder / "project.py"]
    return sorted(file for file in files if file.parent == folder / "definitions" and file.suffix == ".py")


@contextmanager
def _importing(roots: Sequence[Path], files: Sequence[Path]) -> Iterator[None]:
    """Within it, modules that were kept are imported from where they were unpacked, not from the project."""
    from seatrial.training.closure import module_names

    names = module_names(files, [root.resolve() for root in roots])
    tops = {name.partition(".")[0] for name in names}
    set_aside = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in tops}
    for name in set_aside:
        del sys.modules[name]
    before = list(sys.path)
    sys.path[:0] = [str(root) for root in roots]
    try:
        yield
    finally:
        sys.path[:] = before
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]
        sys.modules.update(set_aside)


def _no_sources(project: Building, run: Record, notes: list[str]) -> None:
    """A run without kept sources goes by the project's, when they are the same or were given in memory."""
    from seatrial.training.environment import definitions_digest

    files = project.definitions.told_by
    recorded = run.body["environment"]["code"]["definitions"]
    if files and definitions_digest(project.folder, files) != recorded:
        commit = run.body["environment"]["code"]["commit"]
        raise NotReproducible(
            f"the definitions of run {run.id} were not kept, and the project's are others now.",
            expected=f"Those with the digest {recorded[:12]} are expected.",
            state="Nothing was trained.",
            next=f"Check out commit {commit[:12]} and try again, or see what `--current` gives."
            if commit
            else "See what `--current` gives.",
        )
    if not files:
        notes.append("the definitions were given in memory and are taken as they are; their sources are not known")


def _has_definitions(project: Building) -> bool:
    try:
        return bool(project.definitions.files) or project.definitions is not None
    except SeatrialError:
        return False  # the project's files are gone or broken; what was recorded is enough


class _RecordedWorkspace(Workspace):
    """A project as it was when a run was trained: its definitions of then, and its stores."""

    def __init__(self, project: Building, definitions: Definitions) -> None:
        super().__init__(project.folder, clock=project.clock, env=project.env, actor=project.actor)
        self.settings = project.settings
        self._recorded = definitions

    @cached_property
    def definitions(self) -> Definitions:
        return self._recorded


class Recorded(Inputs):
    """Reads the snapshots that a run recorded instead of the sources."""

    def __init__(self, project: Building, definitions: Definitions, snapshots: Mapping[str, str]) -> None:
        super().__init__(_RecordedWorkspace(project, definitions))
        self._project = project
        self._snapshots = snapshots
        self._read: dict[str, tuple[Any, pa.Table]] = {}

    def snapshot(self, source: str) -> tuple[Any, pa.Table]:
        """The content and the rows that were recorded of a raw source. Raises SnapshotMissing, SnapshotDamaged."""
        if source not in self._read:
            self._read[source] = recorded_rows(self._project, self._snapshots, source)
        return self._read[source]

    def tables(
        self, sources: Sequence[Source], progress: Progress | None, inspect: Inspect | None = None
    ) -> tuple[dict[str, pa.Table], list[str]]:
        """As `Inputs.tables`, from the recorded snapshots; nothing is checked or kept again."""
        from seatrial.data.reading import read
        from seatrial.data.sources import raw_sources

        del inspect  # what was recorded was looked at then
        raw = list(dict.fromkeys(one.name for source in sources for one in raw_sources(source)))
        tables = {}
        for done, name in enumerate(raw):
            if progress:
                progress(f"read {name}", done, len(raw))
            tables[name] = self.snapshot(name)[1]
        for source in sources:
            if source.name not in tables:
                tables[source.name] = read(source, folder=self.workspace.folder, tables=tables).table
        return tables, [self._snapshots[name] for name in raw]


def _train(inputs: Inputs, model: Model, run: Record, progress: Progress | None) -> tuple[pa.Table, Fitted]:
    """The training set and the fit, up to the same cut-off; gates are left out, since they only decide on a version."""
    import dataclasses

    from seatrial.training.pipeline import fit
    from seatrial.training.sample import Sample

    cutoff_us = run.body["cutoff_us"]
    size = run.body.get("sample", {}).get("size")
    sample = None if size is None else Sample(size, model.seed)
    rows, plan, request, _ = inputs.rows(model, known_by_us=cutoff_us, progress=progress, sample=sample)
    if run.body.get("continued"):
        from seatrial.verbs.continuing import started_from

        model, rows = started_from(inputs.workspace, model, rows, run.body["continued"]["release"])
    bare = dataclasses.replace(model, gates=())
    return rows, fit(bare, rows, plan, request, cutoff_us=cutoff_us, progress=progress)


def _training_set(project: Building, run: Record, rows: pa.Table) -> list[Difference]:
    """Whether the joined rows are those that were learned from."""
    from seatrial.data.snapshot import Content, content, load

    record = project.record(run.inputs[0])
    recorded, again = Content.from_plain(record.body["content"]), content(rows)
    if recorded.id == again.id:
        return []
    try:
        kept = load(project.objects.path(record.body["object"]))[1]
    except (SeatrialError, OSError):
        kept = None
    found = of_data("joined rows", recorded, again, (kept, rows) if kept is not None else None, kind="training set")
    return [found] if found else []


def _project(
    project: Building, inputs: Inputs, run: Record, tables: Recorded, now: Mapping[str, Any] | None, notes: list[str]
) -> list[Difference]:
    """How the project as it is now differs from what the run recorded: data, code, declaration."""
    from seatrial.training.tuning import as_tuned

    if now is None:
        notes.append("the project's definitions cannot be loaded now, so they are not compared with the recorded ones")
        return []
    found = of_code(run.body["environment"]["code"], now["code"])
    if run.body["environment"]["code"]["commit"] and now["code"]["commit"] is None:
        found = [one for one in found if one.kind != "commit"]
        notes.append("there is no git repository here, so the commit is not compared")
    model = project.definitions.models.get(run.name)
    if model is None:
        notes.append(f"the project declares no model '{run.name}' any more")
    else:
        found += of_declaration(run.body["definition"], definition_of(as_tuned(model, run.body.get("tuning"))))
    for source in sources_of(project, run):
        declared = project.definitions.sources_like(source).get(source)
        if declared is None:
            found.append(Difference("data", source, "declared", "not declared any more"))
            continue
        try:
            table = inputs.read_raw({source: declared})[source].table
        except SeatrialError as error:
            found.append(Difference("data", source, "readable", error.found))
            continue
        found += _source(project, source, run, tables, table)
    return found


def _source(project: Building, source: str, run: Record, tables: Recorded, table: pa.Table) -> list[Difference]:
    from seatrial.data.snapshot import Content, content

    record = project.record(sources_of(project, run)[source])
    before, after = Content.from_plain(record.body["content"]), content(table)
    if before.id == after.id:
        return []
    try:
        both = (tables.snapshot(source)[1], table)
    except SeatrialError:
        both = None
    found = of_data(source, before, after, both, keys=keys_of(project, [source]))
    return [found] if found else []


class _Judge:
    """Climbs down the ladder."""

    def __init__(self, project: Building, run: Record, release: Record | None, fitted: Fitted) -> None:
        self._project, self._run, self._release, self._fitted = project, run, release, fitted
        self.rungs: list[Rung] = []
        self.notes: list[str] = []
        self.recorded_digest: str | None = None
        self.digest: str | None = None
        self.probe_rows = 0
        self.largest: float | None = None
        self.flipped: int | None = None
        self.metrics = self._metrics()

    def verdict(self) -> Verdict:
        verdict: Verdict = "different"
        for rung, look in (
            ("identical", self._identical),
            ("equivalent", self._equivalent),
            ("statistically same", self._statistically_same),
        ):
            reached, words = look()
            self.rungs.append(Rung(rung, reached, words))  # type: ignore[arg-type]
            if reached:
                verdict = rung  # type: ignore[assignment]
                break
        self.rungs += [Rung(rung, None, "") for rung in LADDER[len(self.rungs) : -1]]
        return verdict

    def _identical(self) -> tuple[bool, str]:
        recorded, again = self._recorded_native(), self._fitted.native
        if recorded is None or again is None:
            return False, "the run kept no model, because a gate refused it; its test scores are compared instead"
        forms = [self._canonical(one) for one in (recorded, again)]
        if forms[0] is None or forms[1] is None:
            same = recorded.data == again.data
            self.recorded_digest, self.digest = digest(recorded.data), digest(again.data)
            return same, f"it has no ONNX form; its own file is {'the same, byte by byte' if same else 'another'}"
        self.recorded_digest, self.digest = digest(forms[0]), digest(forms[1])
        if self.recorded_digest == self.digest:
            return True, f"the canonical ONNX form has the digest {self.digest[:16]} both times"
        return False, f"the canonical ONNX form has the digest {self.recorded_digest[:12]}, now {self.digest[:12]}"

    def _equivalent(self) -> tuple[bool, str]:
        import numpy as np

        from seatrial.releases.parity import scale

        scores = self._scores()
        if scores is None:
            return False, "the scores cannot be compared: the model takes other inputs now"
        recorded, again = scores
        self.probe_rows = len(recorded)
        task = self._fitted.task
        usual = float(np.median(np.abs(recorded))) if recorded.size else 0.0
        difference = np.abs(again - recorded) / scale(task, recorded, usual)
        self.largest = float(f"{difference.max(initial=0.0):.3e}")
        words = f"on {len(recorded):,} rows the largest difference is {self.largest:.2g}"
        if task == "regression":
            self.flipped = 0
        else:
            self.flipped = int((_decided(again, self._threshold) != _decided(recorded, self._threshold)).sum())
            words += f", and {self.flipped:,} decisions differ"
        return self.largest <= TOLERANCE and not self.flipped, words

    def _statistically_same(self) -> tuple[bool, str]:
        judged = [one for one in self.metrics if one.spread is not None and one.recorded is not None]
        if not judged:
            return False, "the run has no cross-validation, so it has no spread to compare with"
        moved = [
            one for one in judged if one.again is None or abs(one.again - (one.recorded or 0.0)) > (one.spread or 0.0)
        ]
        if not moved:
            return True, f"all of {len(judged)} metrics moved by less than their spread over the run's folds"
        names = listed([one.metric for one in moved])
        return False, f"{len(moved)} of {len(judged)} metrics moved by more than their spread over the folds: {names}"

    def _metrics(self) -> list[Moved]:
        recorded, cv = self._run.body["metrics"], self._run.body.get("cv") or {}
        spread = cv.get("std", {})
        return [
            Moved(name, value, self._fitted.metrics.get(name), spread.get(name))
            for name, value in recorded.items()
            if value is None or isinstance(value, int | float)
        ]

    @cached_property
    def _signature(self) -> Signature:
        """The run's."""
        from seatrial.core.signature import Signature

        return msgspec.convert(self._run.body["signature"], Signature)

    @property
    def _threshold(self) -> float:
        """The operating threshold of the run."""
        if self._release is not None and self._release.body["manifest"].get("threshold") is not None:
            return float(self._release.body["manifest"]["threshold"])
        stated = self._run.body.get("threshold")
        value = stated.get("value", stated.get("threshold")) if isinstance(stated, Mapping) else stated
        return float(value) if isinstance(value, int | float) else THRESHOLD

    def _recorded_native(self) -> NativeModel | None:
        from seatrial.releases.native import NativeModel

        files = self._run.body["files"]
        for name, key in files.items():
            if name.startswith("native."):
                kind: Any = name.removeprefix("native.")
                return NativeModel(kind, self._project.objects.read(key), self._run.body["task"])
        return None

    def _canonical(self, native: NativeModel) -> bytes | None:
        from seatrial.releases.onnx_export import ExportFailed, to_onnx

        try:
            return to_onnx(native, len(self._signature.inputs), self._signature)
        except ExportFailed as error:
            if error.found not in self.notes:
                self.notes.append(error.found)
            return None

    def _scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """What both models say of the rows that were kept with the run; of a refused run, of its test rows."""
        from seatrial.releases.named import open_graph

        recorded, again = self._recorded_native(), self._fitted.native
        if recorded is None or again is None:
            return self._test_scores()
        if self._run.body["inputs"] != list(self._fitted.signature.inputs):
            return None
        rows, forms = self._probe(), [self._canonical(recorded), self._canonical(again)]
        if None not in forms:
            try:
                first, second = (open_graph(form, self._signature).score(rows) for form in forms if form is not None)
            except SeatrialError as error:  # a graph that does not load, or answers with NaN: the models themselves do
                self.notes.append(error.found)
            else:
                return first, second
        return recorded.scorer()(rows), again.scorer()(rows)

    def _probe(self) -> Rows:
        from seatrial.core.signature import rows_of

        table = self._kept_table(PROBE)
        return rows_of(self._signature, {name: table[name].to_numpy() for name in table.column_names})

    def _kept_table(self, name: str) -> pa.Table:
        """A table that the run kept. Raises NotReproducible when it is damaged."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        key = self._run.body["files"][name]
        try:
            return pq.read_table(self._project.objects.path(key))
        except (pa.ArrowException, OSError) as error:
            raise NotReproducible(
                f"'{key}' in {self._project.objects.root} is damaged: {' '.join(str(error).split())}",
                expected="The rows on which the two models are compared are kept there.",
                state="The run was trained again, and not judged.",
                next="Put the file back from a backup.",
            ) from None

    def _test_scores(self) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        import numpy as np

        table = self._kept_table("test_scores.parquet")
        again = self._fitted.test_scores
        if table.num_rows != again.num_rows or "score" not in table.column_names:
            return None
        first, second = (np.asarray(one["score"].to_pylist(), dtype=np.float64) for one in (table, again))
        return first, second


def _decided(scores: NDArray[np.float64], threshold: float) -> NDArray[Any]:
    """The decision on each row: of several classes the likeliest."""
    decided: NDArray[Any] = scores.argmax(axis=1) if scores.ndim > 1 else scores >= threshold
    return decided


def _because(verdict: Verdict, inputs: Sequence[Difference]) -> str:
    if verdict == "identical":
        return ""
    moving = [one for one in inputs if one.moves]
    if moving:
        more = f" ({len(moving) - 1} more differ)" if len(moving) > 1 else ""
        return f"The first input that differs: {moving[0]}{more}."
    return (
        "No recorded input differs, so the estimator does not repeat itself: does it ignore its seed, or read a clock, "
        "a file or a generator of its own?"
    )


def in_rebuilt_environment(
    project: Building, name: str, *, allow: Sequence[Verdict] = (), progress: Progress | None = None
) -> Reproduced:
    """As `reproduce`, in a process of its own whose packages are exactly those that the run recorded.

    Raises EnvironmentNotBuilt and OtherPython, and what the process said when it could not judge.
    """
    from seatrial.folder.workspace import STATE
    from seatrial.verbs.rebuilt import python_of

    run, release = chosen(project, name)
    facts = run.body["environment"]
    python, own = python_of(facts["packages"], facts["python"], project.folder / STATE, progress)
    if progress:
        progress("train in it", 0, 1)
    command = [str(python), "-m", "seatrial", "--project", str(project.folder), "--env", project.env]
    command += ["--actor", project.actor, "--json", "reproduce", release.id if release else run.id]
    roots = [str(own), *(str(root) for root in import_roots(project.folder))]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(roots)}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    try:
        found = msgspec.json.decode(done.stdout, type=Reproduced)
    except msgspec.DecodeError:
        said = " ".join(done.stderr.split())[-600:] or f"it ended with {done.returncode}"
        raise NotReproducible(
            f"the process in the rebuilt environment could not judge: {said}",
            state="No version was made.",
        ) from None
    note = f"trained in an environment of its own with the {len(facts['packages'])} packages of the run"
    return msgspec.structs.replace(found, notes=[*found.notes, note], reproduced=found.verdict in (*REPRODUCED, *allow))
