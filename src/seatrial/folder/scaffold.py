"""A new project's files: what `init` writes. An existing file is never overwritten."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

from seatrial.core.errors import Conflict, Failed, UsageError, did_you_mean

TEMPLATES = Path(__file__).parents[1] / "templates"
EXAMPLES = Path(__file__).parents[3] / "examples"  # where the example lies in a checkout of seatrial itself
NAMES = ("empty", "flights")
GET_DATA = "get_data.py"


class FileExists(Conflict):
    """A file that `init` would write is there already."""

    code = "init.file_exists"


class UnknownTemplate(UsageError):
    """No template has this name."""

    code = "init.unknown_template"


class NoData(Failed):
    """The template's data could not be put in place."""

    code = "init.no_data"


class NotWritten(Failed):
    """The files of a new project could not be written."""

    code = "init.not_written"


def init(folder: Path, template: str = "empty") -> list[str]:
    """Write a new project into `folder`; the names of the files written, sorted.

    template: "empty", a commented definition file, or "flights", a whole project with its data.
    Raises FileExists before anything is written, UnknownTemplate, NoData.
    """
    if template not in NAMES:
        near = did_you_mean(template, NAMES)
        raise UnknownTemplate(f"no template is named '{template}'.", expected=f"empty or flights. {near}".strip())
    own = TEMPLATES / template
    parts = [TEMPLATES / "common", own if own.is_dir() else EXAMPLES / template]
    files = {name: part / name for part in parts for name in _names(part)}
    taken = sorted(name for name in files if (folder / name).exists())
    if taken:
        raise FileExists(
            f"{len(taken)} of the files that init writes are in {folder} already: {', '.join(taken[:5])}.",
            expected="A folder without them; nothing is overwritten.",
            next="Choose another folder.",
        )
    try:
        for name, source in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as error:
        raise NotWritten(
            f"the files cannot be written into {folder}: {error.strerror}.",
            state="Some of them may be there already.",
            next="Choose a folder that can be written to.",
        ) from None
    if GET_DATA in files:
        _get_data(folder)
    return sorted(files)


def _names(part: Path) -> list[str]:
    """The template's files below `part`."""
    left_out = {"__pycache__", ".seatrial", "data", "README.md"}
    found = [path.relative_to(part) for path in part.rglob("*") if path.is_file()]
    return [path.as_posix() for path in found if not left_out & set(path.parts)]


def _get_data(folder: Path) -> None:
    try:
        runpy.run_path(str(folder / GET_DATA), run_name="__main__")
    except SystemExit as error:
        if error.code:
            raise NoData(
                str(error.code),
                state=f"The project's files are in {folder}.",
                next=f"Then run python {GET_DATA} there.",
            ) from None
