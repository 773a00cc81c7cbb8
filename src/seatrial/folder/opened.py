"""Which files did definitions open while they were loaded? Their bytes are part of what was defined.

Python tells every opening through an audit hook, which cannot be taken away again: it is there from the first loading,
and outside of one it only looks whether somebody listens.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from seatrial.training.closure import INSTALLED

LARGEST = 1 << 20  # bytes; what is larger is data, which sources are for
CODE = frozenset({".py", ".pyc", ".pyi", ".pth", ".so"})

_listening = threading.local()
_before: dict[Path, Opened] = {}


@dataclass
class Opened:
    """Files that were opened to read. within: those of the folder; not_kept: others, as they are told of."""

    within: set[Path] = field(default_factory=set)
    not_kept: set[str] = field(default_factory=set)


@contextmanager
def opened(folder: Path) -> Iterator[Opened]:
    """What this thread opens. A module that was loaded before opens nothing again: what it opened then counts too."""
    _hook()
    seen: list[str] = []
    outer, _listening.seen = getattr(_listening, "seen", None), seen
    found = Opened()
    try:
        yield found
    finally:
        _listening.seen = outer
        known = _before.setdefault(folder.resolve(), Opened())
        for name in dict.fromkeys(seen):
            _sort(known, folder.resolve(), name)
        found.within |= {path for path in known.within if path.is_file()}
        found.not_kept |= known.not_kept


def _sort(found: Opened, folder: Path, name: str) -> None:
    try:
        path = Path(name).resolve()
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return
    if size is None or path.suffix in CODE or INSTALLED & set(path.parts):
        return
    within = path.is_relative_to(folder)
    parts = path.relative_to(folder).parts if within else path.parts
    if any(part.startswith(".") or part == "__pycache__" for part in parts):
        return
    if within and size <= LARGEST:
        found.within.add(path)
    elif within:
        found.not_kept.add(f"{path.relative_to(folder).as_posix()} is larger than {LARGEST:,} bytes")
    elif not any(path.is_relative_to(place) for place in _of_the_machine()):
        found.not_kept.add(f"{path} lies outside the project's folder")


@cache
def _of_the_machine() -> tuple[Path, ...]:
    python = {Path(place).resolve() for place in (sys.prefix, sys.base_prefix)}
    seatrial = Path(__file__).resolve().parents[1]
    return (*python, seatrial, *map(Path, ("/etc", "/usr", "/proc", "/sys", "/dev", "/lib", "/opt")))


@cache
def _hook() -> None:
    sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open":
        return
    seen = getattr(_listening, "seen", None)
    if seen is None:
        return
    name, mode, flags = arguments
    writes = any(sign in mode for sign in "wax+") if isinstance(mode, str) else _writes(flags)
    if isinstance(name, str | bytes) and not writes:
        seen.append(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - at once, and without opening anything


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and flags & os.O_ACCMODE != os.O_RDONLY
