"""The repository as the house rules see it: its files, its modules and its error classes."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
from pathlib import Path

import seatrial
from seatrial.core.errors import SeatrialError

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "seatrial"


def source_files() -> list[Path]:
    """Every Python file of the package, without the templates, which are files of other projects."""
    return sorted(file for file in SOURCE.rglob("*.py") if "templates" not in file.relative_to(SOURCE).parts)


def tracked_files() -> list[Path]:
    """Every file that belongs to the repository, whether committed yet or not."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listed.returncode:  # a source archive has no git
        return sorted(file for file in ROOT.rglob("*") if file.is_file() and ".venv" not in file.parts)
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def error_classes() -> list[type[SeatrialError]]:
    """Every error class of the package, in the order of its code."""
    for module in pkgutil.walk_packages(seatrial.__path__, "seatrial."):
        if ".templates" not in module.name:
            importlib.import_module(module.name)
    found: list[type[SeatrialError]] = [SeatrialError]
    for known in found:
        found += [kind for kind in known.__subclasses__() if kind.__module__.startswith("seatrial.")]
    return sorted(dict.fromkeys(found), key=lambda kind: (kind.code, kind.__name__))
