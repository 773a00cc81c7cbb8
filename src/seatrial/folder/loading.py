"""Loading: what does this folder's project file define?

Definitions are Python, `project.py` or every module of `definitions/`, run by path and never imported by name, so
that two projects in one process do not meet. They do no I/O of their own; what they define is collected.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from seatrial.core.declared import collecting
from seatrial.core.errors import Failed, SeatrialError, UsageError, did_you_mean, listed
from seatrial.core.identity import digest
from seatrial.data.sources import FrameSource, QuerySource, Source, raw_sources
from seatrial.deployment.definition import Deployment
from seatrial.features.definitions import BadDefinition, FeatureView
from seatrial.features.request_time import RequestFunction
from seatrial.features.shared import AT, SharedRows, SharedView
from seatrial.folder.opened import opened
from seatrial.monitoring.definition import Monitor
from seatrial.retraining.definition import Retrain
from seatrial.scheduling.definition import Schedule
from seatrial.training.gates import Gate, ProjectGates, check_waives
from seatrial.training.model import Model

Thing = TypeVar("Thing")


class NotAProject(UsageError):
    """The folder holds no project file."""

    code = "project.not_a_project"


class BrokenProject(Failed):
    """The project file cannot be run."""

    code = "project.broken"


class UnknownName(UsageError):
    """No model, view, source or deployment has this name."""

    code = "project.unknown_name"


@dataclass(frozen=True)
class Definitions:
    """Everything that a project file defines, by name.

    own_sources: every source that a model or view reads, and every one bound to a name in the file, raw and derived.
    code_digest: digest of the files' bytes; files: their paths. gates: those that every model must pass.
    functions: request-time functions that a name in the file or a model has. read: files of the folder that they opened
    while they were loaded; not_kept: what else they opened, in words.
    """

    models: dict[str, Model]
    views: dict[str, FeatureView]
    deployments: dict[str, Deployment]
    monitors: dict[str, Monitor]
    retrains: dict[str, Retrain]
    own_sources: dict[str, Source]
    files: tuple[Path, ...] = ()
    code_digest: str = ""
    gates: tuple[Gate, ...] = ()
    functions: dict[str, RequestFunction] = field(default_factory=dict)
    read: tuple[Path, ...] = ()
    not_kept: tuple[str, ...] = ()
    schedules: dict[str, Schedule] = field(default_factory=dict)

    @property
    def told_by(self) -> tuple[Path, ...]:
        """Every file whose bytes make these definitions; modules that they import are found from there."""
        return (*self.files, *self.read)

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Every source: the project's own, then those of shared views, which are looked up for it."""
        found = dict(self.own_sources)
        for view in self.views.values():
            if isinstance(view, SharedView):
                _add_source(found, view.source)
        return found

    def sources_like(self, name: str) -> dict[str, Source]:
        """The sources among which one of this name would be. No other project is asked for one of this project's."""
        return self.sources if AT in name else self.own_sources

    @property
    def raw(self) -> dict[str, Source]:
        """The sources that are read from outside, in the order of the file."""
        return {name: source for name, source in self.sources.items() if not isinstance(source, QuerySource)}

    def model(self, name: str | None) -> Model:
        """The model of that name; without a name, the only one."""
        return pick("model", self.models, name)

    def deployment(self, name: str | None) -> Deployment:
        return pick("deployment", self.deployments, name)


def load_definitions(folder: Path) -> Definitions:
    """Run the folder's project file and collect what it defines.

    Raises NotAProject when there is none, BrokenProject with file, line and reason when it fails.
    """
    return load_files(project_files(folder), folder=folder.resolve())


def load_files(files: Sequence[Path], *, folder: Path) -> Definitions:
    """Run definition files, wherever they lie, and collect what they define for the project in `folder`.

    Raises BrokenProject with file, line and reason when one fails.
    """
    with collecting() as declared, opened(folder) as told:
        for file in files:
            declared += [value for value in vars(_run(file)).values() if isinstance(value, Source | RequestFunction)]
    found = collect(declared, folder=folder, files=files)
    return replace(found, read=tuple(sorted(told.within)), not_kept=tuple(sorted(told.not_kept)))


def collect(declared: Iterable[object], *, folder: Path, files: Sequence[Path] = ()) -> Definitions:
    """Definitions from the objects themselves. folder: the project's, where addresses of shared views start.

    Raises BadDefinition when two things of one kind share a name.
    """
    models: dict[str, Model] = {}
    views: dict[str, FeatureView] = {}
    deployments: dict[str, Deployment] = {}
    monitors: dict[str, Monitor] = {}
    retrains: dict[str, Retrain] = {}
    sources: dict[str, Source] = {}
    gates: list[Gate] = []
    functions: dict[str, RequestFunction] = {}
    schedules: dict[str, Schedule] = {}
    things = list(declared)
    for thing in things:
        if isinstance(thing, FeatureView):
            _add_view(views, sources, thing, folder, files)
        elif isinstance(thing, Model):
            _add("model", models, thing.name, thing)
            _add_source(sources, thing.labels)
            functions |= {function.name: function for function in thing.functions}
            for view in thing.views:
                _add_view(views, sources, view, folder, files)
        elif isinstance(thing, Deployment):
            _add("deployment", deployments, thing.name, thing)
        elif isinstance(thing, Monitor):
            _add("monitor", monitors, thing.model, thing)
        elif isinstance(thing, Retrain):
            _add("retrain", retrains, thing.model, thing)
        elif isinstance(thing, Schedule):
            _add("schedule", schedules, thing.name, thing)
        elif isinstance(thing, ProjectGates):
            gates += [gate for gate in thing.gates if gate not in gates]
        elif isinstance(thing, Source):
            _add_source(sources, thing)
        elif isinstance(thing, RequestFunction):
            functions.setdefault(thing.name, thing)
    for model in models.values():
        check_waives(model.name, model.waives, gates)
    code = b"\0".join(file.name.encode() + b"\0" + file.read_bytes() for file in files)
    return Definitions(
        models,
        views,
        deployments,
        monitors,
        retrains,
        sources,
        tuple(files),
        digest(code),
        tuple(gates),
        functions,
        schedules=schedules,
    )


def _add(kind: str, things: dict[str, Thing], name: str, thing: Thing) -> None:
    known = things.get(name)
    if known is not None and known is not thing:
        raise BadDefinition(f"two {kind}s are named '{name}'.", expected="Names are unique within a project.")
    things[name] = thing


def view_lines(files: Iterable[Path], view: str) -> list[str]:
    """Files and lines that declare a view, as "project.py:12", as far as they can be told from the text."""
    pattern = re.compile(rf"""^\s*class\s+{view}\b|\bshared_view\([^)]*["']{view}["']""", re.MULTILINE)
    found = []
    for file in files:
        text = file.read_text(encoding="utf-8", errors="replace")
        lines = [text.count("\n", 0, match.end()) + 1 for match in pattern.finditer(text)]
        found += [f"{file.name}:{line}" for line in lines]
    return found


def _add_view(
    views: dict[str, FeatureView], sources: dict[str, Source], view: FeatureView, folder: Path, files: Sequence[Path]
) -> None:
    if views.setdefault(view.name, view) is not view:
        lines = view_lines(files, view.name)
        where = f": in {' and '.join(lines)}" if len(lines) > 1 else ""
        raise BadDefinition(f"two views are named '{view.name}'{where}.", expected="Names are unique within a project.")
    if isinstance(view, SharedView):
        view.bind(folder)  # its source is looked up when it is needed
    else:
        _add_source(sources, view.source)


def _add_source(sources: dict[str, Source], source: Source) -> None:
    for one in (*raw_sources(source), source):
        known = sources.get(one.name)
        differ = _differences(known, one) if known is not None else []
        if known is not None and differ:
            raise BadDefinition(
                f"two sources are named '{one.name}': {_described(known)} and {_described(one)}, "
                f"which differ in {listed(differ)}.",
                expected="A name stands for one source. Declare it once, or give one of them another name=.",
                source=one.name,
            )
        sources.setdefault(one.name, one)


def _differences(known: Source, other: Source) -> list[str]:
    """What two declarations of one name say differently, also where it does not change the rows."""
    if known is other:
        return []
    first, second = known.as_plain(), other.as_plain()
    found = [what for what in {**first, **second} if first.get(what) != second.get(what)]
    found += [
        what for what in ("expectations", "set_aside") if list(getattr(known, what)) != list(getattr(other, what))
    ]
    if isinstance(known, FrameSource) and isinstance(other, FrameSource) and known.frame is not other.frame:
        shared = isinstance(known.frame, SharedRows) and known.frame == other.frame
        found += [] if shared else ["frame"]
    return list(dict.fromkeys(found))


def _described(source: Source) -> str:
    path = getattr(source, "path", None)
    return f"{type(source).__name__}({path!r})" if path else f"a {type(source).__name__}"


def pick(kind: str, things: dict[str, Thing], name: str | None) -> Thing:
    """The thing of that name; without a name, the only one. Raises UnknownName."""
    if name is None:
        if len(things) == 1:
            return next(iter(things.values()))
        raise UnknownName(
            f"the project has {len(things)} {kind}s, and none was named.",
            expected=f"They are {listed(things)}." if things else f"It needs one: see {kind.capitalize()}(...).",
        )
    if name not in things:
        raise UnknownName(
            f"no {kind} is named '{name}'.",
            expected=f"There is {listed(things)}. {did_you_mean(name, things)}".strip(),
        )
    return things[name]


def project_files(folder: Path) -> list[Path]:
    """The files that define the folder's project. Raises NotAProject when there are none."""
    package = folder / "definitions"
    if (folder / "project.py").is_file():
        return [folder / "project.py"]
    if package.is_dir():
        return sorted(package.glob("*.py"))
    raise NotAProject(
        f"{folder} holds no project.py and no definitions/.",
        expected="A seatrial project has one of them.",
        next="Run `seatrial init`, or name the folder with --project.",
    )


def _run(file: Path) -> object:
    """The module of a project file, run under a name of its own."""
    name = f"seatrial_project_{digest(str(file.resolve()).encode())[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # inspect, which reads a function's source, looks here
    write_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is a verb's answer
            spec.loader.exec_module(module)
    except SeatrialError as error:
        error.found = f"{file.name}:{_line(error, file)}: {error.found}"
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a file raises, it is the file that is broken
        line = error.lineno if isinstance(error, SyntaxError) else _line(error, file)
        raise BrokenProject(
            f"{file.name}:{line}: {type(error).__name__}: {error}",
            expected="The project file must run from top to bottom without an error.",
            next=f"Correct {file.name}, line {line}.",
        ) from error
    finally:
        sys.dont_write_bytecode = write_bytecode
    return module


def _line(error: BaseException, file: Path) -> int:
    """The last line of `file` that the error passed through."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(file)]
    return lines[-1] if lines and lines[-1] is not None else 1
