"""Fits that were made already, and trials of which only numbers are kept: the record of what happened in a notebook.

A run that is logged says what was fitted on which rows and how good it is on others. It says too from which code:
cells that are in no commit cannot be run again by anybody else, so such a run is kept with the cells' sources, marked
as not reproducible, and released only after it was made again from a commit.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from seatrial.core.clock import machine_us
from seatrial.core.errors import Conflict, UsageError, did_you_mean, listed
from seatrial.core.identity import canonical_json, content_id, new_id
from seatrial.core.pages import table_page
from seatrial.core.records import Record
from seatrial.core.signature import Task, columns_of, encode, joined
from seatrial.features.definitions import check_name
from seatrial.features.plan import FeaturePlan
from seatrial.registry.mlflow import TOPIC, record_message

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from seatrial.folder.workspace import Workspace

HALF = 0.5  # the threshold of a fit that tells of none
METRICS_OF = "the fit that was logged, measured on the test rows that were given with it"


class BadFit(UsageError):
    """What was given to log_run does not belong together."""

    code = "tracking.bad_fit"


class NotReproducible(UsageError):
    """The run was made from code that is in no commit, so it is not released."""

    code = "tracking.not_reproducible"


class NestedRun(Conflict):
    """A run is open already in this project."""

    code = "tracking.nested"


class NotOpen(UsageError):
    """The run is not open: it has ended, or was never begun."""

    code = "tracking.not_open"


class Logged(msgspec.Struct, frozen=True):
    """A fit that was logged. reproducible: its code is in a commit; why: if not, what is missing. intervals, slices: of
    the metrics, as a run that was trained has them."""

    run: str
    model: str
    task: str
    metrics: dict[str, float | None]
    rows: dict[str, int]
    reproducible: bool
    why: str
    next: str
    intervals: dict[str, Any] = {}
    slices: dict[str, Any] = {}

    def _repr_html_(self) -> str:
        facts = {"model": self.model, "task": self.task, "rows": self.rows, "reproducible": self.why or "yes"}
        worst = [f"{column} = {one['worst']}" for column, one in self.slices.items() if one["worst"] is not None]
        facts |= {"worst": ", ".join(worst)} if worst else {}
        return table_page(self.run, facts | {"next": self.next}, self.metrics)


@dataclass(frozen=True)
class Origin:
    """From which code something was run.

    kind: "notebook", "script" or "session". place: the file, as far as it is known. commit: that holds exactly this
    code; empty when none does, and then `why` says so. cells: the sources of the cells that ran, oldest first.
    """

    kind: str
    place: str
    commit: str
    why: str
    cells: tuple[str, ...] = ()


def origin_of(caller: Mapping[str, Any], notebook: str | Path | None = None) -> Origin:
    """From which code the caller runs. caller: its module's names. notebook: the file, when a notebook cannot say."""
    shell = _shell()
    if shell is not None:
        cells = tuple(str(cell) for cell in shell.user_ns.get("In", [])[1:] if str(cell).strip())
        told = notebook or shell.user_ns.get("__vsc_ipynb_file__") or os.environ.get("JPY_SESSION_NAME")
        if not told or not Path(told).is_file():
            return Origin("notebook", str(told or ""), "", "where the notebook is saved is not known", cells)
        path = Path(told)
        commit, why = _commit_of(path)
        if commit and not _runs_as_saved(cells, path):
            commit, why = "", f"the cells that ran are not those of {path.name} from the top, in order"
        return Origin("notebook", path.name, commit, why, cells)
    file = caller.get("__file__")
    if not file:
        return Origin("session", "", "", "it was typed into a session")
    commit, why = _commit_of(Path(file))
    return Origin("script", Path(file).name, commit, why)


def log_fit(
    workspace: Workspace,
    model: Any,
    parts: tuple[Any, Any, Any, Any],
    *,
    name: str,
    params: Mapping[str, Any] | None,
    task: Task | None,
    target: str,
    words: Mapping[str, str],
    origin: Origin,
    slices: Sequence[str] = (),
) -> Logged:
    """Record a fit that was made already. parts: X_train, y_train, X_test, y_test. slices: columns of X, for whose
    values the test rows are measured, too. Raises BadFit, and as `adopt`."""
    import pyarrow as pa

    from seatrial.data import snapshot
    from seatrial.releases.foreign import of_object
    from seatrial.stats.metrics import measure
    from seatrial.training.environment import describe
    from seatrial.verbs import external
    from seatrial.verbs.inputs import columns

    check_name("model", name)
    train, test = (_joined(parts[place], parts[place + 1], target) for place in (0, 2))
    if train.column_names != test.column_names:
        raise BadFit(
            "the test rows have other columns than the training rows.",
            expected=f"Both have {', '.join(train.column_names[:10])}.",
            state="Nothing was recorded.",
        )
    for part, rows in (("training", train), ("test", test)):
        if not rows.num_rows:
            raise BadFit(
                f"the {part} part has no rows.",
                expected="Rows that the model was fitted on, and others that it is measured on, are expected.",
                state="Nothing was recorded.",
            )
    found = of_object(model, task)
    names = external.inputs_of(name, found, train, target)
    whole = pa.concat_tables([train, test], promote_options="permissive")
    classes = external.classes_of(found, whole, target)
    signature = external.signature_of(found, whole, names)
    signature = msgspec.structs.replace(signature, classes=classes if found.task == "multiclass" else ())
    encoded = [encode(signature, columns(external.plain(one, names), names))[0] for one in (test, train)]
    scores = found.native.scorer()(encoded[0])
    labels = external.labels_of(name, found, test, target, classes)
    known = ~np.isnan(labels)
    metrics = measure(found.task, labels[known], scores[known])
    more = _measured_further(found.task, (train, test), labels, scores, slices)
    environment = describe(workspace.folder, (), 1)
    code = {**environment.facts["code"], "commit": origin.commit or None, "dirty": not origin.commit, "patch": None}
    run, begun_us = new_id("run"), machine_us()
    content = snapshot.content(whole)
    training_set = content_id("tset", content.id.encode())
    key = f"training_sets/{training_set}.parquet"
    workspace.keep_table(key, lambda path: snapshot.write(content, whole, path), content)
    profile = external.profile_of(found.task, external.plain(train, names), names, scores, labels, signature)
    files = {
        "profile.json": canonical_json(profile),
        f"native.{found.native.format}": found.native.data,
        "cells.json": json.dumps(list(origin.cells), ensure_ascii=False, indent=1).encode(),
    }
    kept = {file: f"runs/{run}/{file}" for file in (*files, "parity_rows.parquet")}
    for file, data in files.items():
        workspace.objects.put(kept[file], data)
    table = pa.table(columns_of(signature, joined(encoded)))
    workspace.keep_table(kept["parity_rows.parquet"], lambda path: external.write_table(table, path))
    body = {
        "format": 1,
        "model": name,
        "task": found.task,
        "metrics": metrics,
        "metrics_of": METRICS_OF,
        **more,
        "baseline": {},
        "cv": None,
        "gates": [],
        "passed": True,
        "state": "finished",
        "split": _split(train.num_rows, test.num_rows, known),
        "importance": {},
        "estimator": {"class": found.estimator, "params": dict(found.parameters)},
        "inputs": list(names),
        "seed": None,
        "threads": None,
        "warnings": [],
        "timings": {},
        "cutoff_us": None,
        "begun_us": begun_us,
        "ended_us": machine_us(),
        "data": {},
        "environment": {**environment.facts, "code": code},
        "signature": msgspec.to_builtins(signature),
        "plan": msgspec.to_builtins(FeaturePlan()),
        "files": kept,
        "definition": {
            "task": found.task,
            "target": target,
            "estimator": found.estimator,
            "params": {**found.parameters, **{key: repr(value) for key, value in (params or {}).items()}},
            **{word: words.get(word, "") for word in ("owner", "on_call", "runbook", "description")},
        },
        "sources": {},
        "logged": {"kind": origin.kind, "place": origin.place, "commit": origin.commit, "why": origin.why},
    }
    with workspace.metadata.transaction() as transaction:
        record = Record(run, "run", name, (training_set,), body)
        transaction.add(Record(training_set, "training_set", "", (), {"content": content.as_plain(), "object": key}))
        transaction.add(record)
        facts = {"model": name, "passed": True, "logged": origin.kind, "reproducible": bool(origin.commit)}
        workspace.event(transaction, "run.recorded", run, facts)
        transaction.move("logged", name, run, expected=None)
        transaction.enqueue(TOPIC, _message(workspace, record))
    return Logged(
        run=run,
        model=name,
        task=found.task,
        metrics=metrics,
        rows={"train": train.num_rows, "test": test.num_rows},
        reproducible=bool(origin.commit),
        why="" if origin.commit else f"no: {origin.why}",
        next=f"seatrial release {run}" if origin.commit else _HOW,
        **more,
    )


def _measured_further(
    task: Task,
    parts: tuple[pa.Table, pa.Table],
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    columns: Sequence[str],
) -> dict[str, Any]:
    """Intervals of the metrics, and the metrics by slice, as training has them.

    parts: the training and the test rows. labels, scores: of the test rows; rows without a label do not count.
    """
    import pyarrow as pa

    from seatrial.stats.metrics import measure
    from seatrial.training.slices import check_columns, slices_of
    from seatrial.verbs.external import intervals_of

    train, test = parts
    for name in columns:
        if name not in test.column_names:
            raise BadFit(
                f"the rows have no column '{name}' to slice by.",
                expected=f"They have {listed(test.column_names)}. {did_you_mean(name, test.column_names)}".strip(),
                state="Nothing was recorded.",
            )
    known = ~np.isnan(labels)
    told, answers = labels[known], scores[known]
    found: dict[str, Any] = {"intervals": intervals_of(task, told, answers), "slices": {}}
    if columns:
        tested = test.filter(pa.array(known))
        whole = pa.concat_tables([train.select(columns), tested.select(columns)], promote_options="permissive")
        check_columns("the fit", whole, columns)
        places = np.arange(train.num_rows), np.arange(train.num_rows, whole.num_rows)
        of_all = np.concatenate([np.full(train.num_rows, np.nan), told])
        made = slices_of(task, whole, of_all, columns, places, lambda y, s: measure(task, y, s), answers, HALF)
        found["slices"] = {name: one.as_plain() for name, one in made.items()}
    return found


def refuse_unreleasable(run: Record) -> None:
    """Raise NotReproducible for a logged run whose code is in no commit, and for one that logged no model."""
    logged = run.body["logged"]
    if "signature" not in run.body:
        raise UsageError(
            f"run '{run.id}' tracked numbers only; there is no model in it.",
            state="No release was written.",
            next="Log the fitted model: seatrial.log_run(model, X_train, y_train, X_test, y_test, name=...).",
        )
    if not logged["commit"]:
        raise NotReproducible(
            f"run '{run.id}' was made from code that is in no commit: {logged['why']}.",
            expected="What is released can be made again by somebody else.",
            next=f"{_HOW} Or bring the model in as one of unknown origin: "
            f"project.release('{run.name}', from_=model, sample=X_test).",
            state="No release was written; the run and the sources of its cells are kept.",
        )


def _nothing() -> None:
    pass


class Tracked:
    """A run of which only numbers, words and files are kept; for `with project.run("x") as r:`.

    The block's exception is recorded as the state "failed", and goes on.
    """

    def __init__(self, workspace: Workspace, name: str, origin: Origin, kept: Callable[[], None] = _nothing) -> None:
        """kept: called when the run is on record."""
        check_name("run", name)
        self.id = new_id("run")
        self.name = name
        self.state = "not begun"
        self.metrics: dict[str, list[list[float | str]]] = {}
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self._workspace = workspace
        self._origin = origin
        self._kept = kept

    def __enter__(self) -> Tracked:
        other = self._workspace.__dict__.get("_tracked")
        if other is not None:
            raise NestedRun(
                f"run '{other.name}' ({other.id}) is open already.",
                expected="One run is open at a time.",
                state="Nothing was recorded.",
                next="End it first, or log into it.",
            )
        self._workspace.__dict__["_tracked"] = self
        self.state = "open"
        self._begun_us = machine_us()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._workspace.__dict__.pop("_tracked", None)
        self.state = "finished" if error is None else "failed"
        self._keep("" if error is None else f"{type(error).__name__}: {error}"[:500])

    def log(self, *, step: int | None = None, **metrics: float) -> None:
        """Log metrics, by name. step: of a series; by default the next one of each metric.

        A value that is not finite is kept as the text "nan", "inf" or "-inf": a loss that diverged is what happened.
        """
        self._require_open()
        if step is not None and (isinstance(step, bool) or not isinstance(step, int | np.integer)):
            raise UsageError(
                f"the step is {step!r}.", expected="A whole number is expected.", state="Nothing was logged."
            )
        for name, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise UsageError(
                    f"metric '{name}' is {value!r}.",
                    expected="A number is expected.",
                    state="It was not logged.",
                )
        for name, value in metrics.items():
            series = self.metrics.setdefault(name, [])
            series.append([float(len(series) if step is None else step), _value(float(value))])

    def log_params(self, **params: object) -> None:
        """Log parameters, by name; as text."""
        self._require_open()
        self.params |= {name: repr(value) if not isinstance(value, str) else value for name, value in params.items()}

    def tag(self, **tags: str) -> None:
        """Log words, by name."""
        self._require_open()
        self.tags |= {name: str(value) for name, value in tags.items()}

    def artifact(self, file: str | Path, name: str | None = None) -> None:
        """Keep a copy of a file. name: under which; by default its own."""
        self._require_open()
        path = Path(file)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}.", state="It was not kept.") from None
        chosen = name or path.name
        self.files[chosen] = f"runs/{self.id}/{chosen}"
        self._workspace.objects.put(self.files[chosen], data)

    def _require_open(self) -> None:
        if self.state != "open":
            raise NotOpen(
                f"run '{self.name}' is {self.state}.", expected='Log inside `with project.run("...") as r:`.', state=""
            )

    def _keep(self, failure: str) -> None:
        workspace, origin = self._workspace, self._origin
        from seatrial.training.environment import describe

        environment = describe(workspace.folder, (), 1).facts
        code = {**environment["code"], "commit": origin.commit or None, "dirty": not origin.commit, "patch": None}
        body = {
            "format": 1,
            "model": self.name,
            "state": self.state,
            "failure": failure,
            **({"error": _told(failure)} if failure else {}),
            "passed": not failure,
            "metrics": {name: series[-1][1] for name, series in self.metrics.items()},
            "series": self.metrics,
            **_NOTHING_FITTED,
            "definition": {"params": self.params, "estimator": "", "owner": ""},
            "tags": self.tags,
            "files": self.files,
            "gates": [],
            "cutoff_us": None,
            "begun_us": self._begun_us,
            "ended_us": machine_us(),
            "environment": {**environment, "code": code},
            "logged": {"kind": origin.kind, "place": origin.place, "commit": origin.commit, "why": origin.why},
        }
        record = Record(self.id, "run", self.name, (), body)
        with workspace.metadata.transaction() as transaction:
            transaction.add(record)
            facts = {"model": self.name, "passed": not failure, "state": self.state}
            workspace.event(transaction, "run.recorded", self.id, facts)
            transaction.move("logged", self.name, self.id, expected=None)
            transaction.enqueue(TOPIC, _message(workspace, record))
        self._kept()

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={series[-1][1]}" for name, series in self.metrics.items())
        return f"<run {self.name} ({self.id}), {self.state}{': ' if last else ''}{last}>"

    def _repr_html_(self) -> str:
        last = {name: series[-1][1] for name, series in self.metrics.items()}
        return table_page(self.id, {"name": self.name, "state": self.state, **self.params, **self.tags}, last)


def _message(workspace: Workspace, run: Record) -> dict[str, Any]:
    """What MLflow is told of a run that was logged."""
    now = machine_us()
    return record_message(run, experiment=workspace.name, started_us=now, ended_us=now, path=workspace.objects.path)


def _joined(rows: Any, outcome: Any, target: str) -> pa.Table:
    """X and y as one table. Raises BadFit when they are not as long."""
    import pyarrow as pa

    from seatrial.data.reading import frame_table
    from seatrial.data.sources import FrameSource

    if isinstance(rows, np.ndarray):
        names = [f"x{place}" for place in range(rows.shape[1])] if rows.ndim == 2 else []
        table = pa.table({name: rows[:, place] for place, name in enumerate(names)})
    else:
        if hasattr(rows, "reset_index"):
            rows = rows.reset_index(drop=True)
        table = frame_table(FrameSource(rows, name="rows"))
    values = pa.array(np.asarray(outcome).reshape(-1), from_pandas=True)
    if len(values) != table.num_rows:
        raise BadFit(
            f"there are {table.num_rows} rows and {len(values)} outcomes.",
            expected="One outcome for each row is expected.",
            state="Nothing was recorded.",
        )
    if target in table.column_names:
        raise BadFit(
            f"the rows have a column '{target}', which is what the outcome is called.",
            expected="The outcome is given apart from the rows.",
            next="Leave it out of the rows, or call the outcome otherwise: target=...",
            state="Nothing was recorded.",
        )
    return table.append_column(target, values)


def _split(train: int, test: int, known: NDArray[np.bool_]) -> dict[str, Any]:
    """A split that was made elsewhere, as runs tell of theirs. known: (m,) which test rows have an outcome."""
    missing = int((~known).sum())
    counts = {"given": train + test, "unlabelled": missing, "label_not_known": 0, "used": train + test - missing}
    parts = {"train": {"rows": train}, "test": {"rows": test - missing}}
    return {"kind": "given", "rows": counts, **parts, "purged": 0, "unseen": {}, "refit_rows": 0}


def _value(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _told(failure: str) -> dict[str, str]:
    """What a block raised, as failed trainings tell it."""
    return {"code": "", "stage": "the block", "found": failure, "expected": "", "next": ""}


def _shell() -> Any:
    """IPython's shell, when the code runs in one."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None


def _commit_of(path: Path) -> tuple[str, str]:
    """The commit that holds a file as it is; or why there is none."""
    folder = path.resolve().parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
        return "", f"{path.name} is in no git repository with a commit"
    if not git("ls-files", "--", path.name):
        return "", f"{path.name} is not committed"
    if git("status", "--porcelain", "--", path.name):
        return "", f"{path.name} was changed since its commit"
    return commit, ""


def _runs_as_saved(cells: tuple[str, ...], path: Path) -> bool:
    """Whether what ran is the notebook's code cells from the first on, in order."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))["cells"]
        saved = ["".join(cell["source"]).strip() for cell in told if cell["cell_type"] == "code"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    saved = [cell for cell in saved if cell]
    return [cell.strip() for cell in cells] == saved[: len(cells)]


_NOTHING_FITTED: dict[str, Any] = {
    "task": "",
    "split": _split(0, 0, np.zeros(0, dtype=np.bool_)),
    "estimator": {"class": "", "params": {}},
    "baseline": {},
    "cv": None,
    "importance": {},
    "inputs": [],
    "seed": None,
    "threads": None,
    "warnings": [],
    "timings": {},
    "data": {},
    "sources": {},
}
"""What readers of runs look for in a run that only tracks."""

_HOW = "Save the notebook or the script, commit it, and run it again from the top; then release that run."
