"""Declared: which schedules does the project declare now, while a process runs them for weeks?

A process that runs schedules reads the project again when a file of it has changed. What it cannot read, because
somebody is in the middle of a change or made a mistake, leaves what was declared before in force, and is said once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import invalidate_caches
from pathlib import Path
from sysconfig import get_path

from seatrial.core.errors import SeatrialError
from seatrial.scheduling.definition import Schedule
from seatrial.training.closure import INSTALLED

OTHERS = (Path(__file__).resolve().parents[1], *(Path(get_path(one)).resolve() for one in ("stdlib", "platstdlib")))
"""seatrial itself, and Python's own library."""

Marks = dict[Path, tuple[int, int, int]]
Reading = tuple[list[Schedule], Iterable[Path]]


class Declared:
    """Schedules as they are declared at a time.

    read: reads the project anew: its schedules, and the files that tell of them. files: those that told of the first
    ones. folder: the project's; modules from there are imported anew, and a definition file that is added is seen.
    """

    def __init__(
        self, schedules: Sequence[Schedule], files: Iterable[Path], folder: Path, read: Callable[[], Reading]
    ) -> None:
        self._in_force = list(schedules)
        self._folder, self._read = folder, read
        self._files = list(files)
        self._unread = ""
        self._marks: Marks = {}
        self._marks = self._look()

    @property
    def in_force(self) -> list[Schedule]:
        """The schedules in force."""
        return list(self._in_force)

    def changed(self) -> str:
        """Take up what is declared now; what is different, in words, and nothing when that is nothing.

        Raises what reading the project does, once for each change of its files; then everything stays as it was.
        """
        marks = self._look()
        if marks == self._marks and not self._unread:
            return ""
        said, self._marks = self._unread if marks == self._marks else "", marks
        for name in self._imported():
            del sys.modules[name]
        invalidate_caches()
        try:
            schedules, files = self._read()
        except SeatrialError as error:
            self._unread = str(error)  # what it lacks may come where nobody watches
            if self._unread == said:
                return ""
            raise
        self._unread = ""
        before, self._in_force, self._files = self._in_force, list(schedules), list(files)
        self._marks = self._look()
        return _difference(before, self._in_force)

    def _imported(self) -> dict[str, Path]:
        """The project's own modules, by name; not what is installed in an environment within its folder."""
        files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
        paths = {name: Path(file) for name, file in files.items() if file}
        folder = self._folder.resolve()
        own = {name: path for name, path in paths.items() if path.resolve().is_relative_to(folder)}
        return {name: path for name, path in own.items() if not _installed(path.resolve(), folder)}

    def _look(self) -> Marks:
        """What is watched, and what marks it. A file stays watched when it could not be read any more."""
        found: Marks = {}
        added = (self._folder / "definitions").glob("*.py")
        for path in {*self._files, *self._marks, *self._imported().values(), *added}:
            with suppress(OSError):
                known = path.stat()
                found[path] = (known.st_mtime_ns, known.st_size, known.st_ino)
        return found


def _installed(path: Path, folder: Path) -> bool:
    """Whether a module within the folder is no part of the project: of an environment there, or of Python itself."""
    return bool(INSTALLED & set(path.relative_to(folder).parts)) or any(path.is_relative_to(one) for one in OTHERS)


def _difference(before: Sequence[Schedule], now: Sequence[Schedule]) -> str:
    old, new = ({one.name: one for one in schedules} for schedules in (before, now))
    kinds = {
        "added": [name for name in new if name not in old],
        "changed": [name for name in new if name in old and new[name] != old[name]],
        "gone": [name for name in old if name not in new],
    }
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names)
