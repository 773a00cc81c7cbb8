"""Rebuilt: a clean environment of exactly the packages that a run recorded, to train it again in.

Built by uv where it is installed, else by venv and pip, from the recorded list of names and versions and nothing else.
seatrial itself is the one that runs now, since it is what judges. An environment is kept under .seatrial/environments
by the digest of its list, and used again.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import seatrial
from seatrial.core.errors import Unavailable, UsageError
from seatrial.core.identity import value_digest
from seatrial.verbs.results import Progress

BUILD_SECONDS = 3600
FINISHED = "finished"


class EnvironmentNotBuilt(Unavailable):
    """The packages that a run recorded cannot be installed now."""

    code = "reproduce.environment_not_built"


class OtherPython(UsageError):
    """A run was made with another version of Python than the one that is here."""

    code = "reproduce.other_python"


def python_of(packages: Sequence[str], python: str, state: Path, progress: Progress | None = None) -> tuple[Path, Path]:
    """The interpreter of an environment that has these packages (name==version), and the folder to put on its path.

    python: as a run recorded it ("CPython 3.11.7"). state: the project's folder of state.
    Raises OtherPython, EnvironmentNotBuilt.
    """
    wanted = python.rpartition(" ")[2].rsplit(".", 1)[0]
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if wanted != here:
        raise OtherPython(
            f"the run was made with {python}, and this is Python {here}.",
            state="Nothing was installed or trained.",
            next=f"Start seatrial with Python {wanted}.",
        )
    lock = [line for line in packages if not line.startswith("seatrial==")]
    folder = state / "environments" / value_digest([here, lock])[:16]
    interpreter = folder / "bin" / "python"
    if not (folder / FINISHED).is_file():
        if progress:
            progress(f"install {len(lock)} packages", 0, 1)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        file = folder / "requirements.lock"
        try:
            for command in _commands(folder, interpreter, file):
                file.write_text("".join(f"{line}\n" for line in lock))
                _run(command, len(lock))
            _own(folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        (folder / FINISHED).touch()
    return interpreter, folder / "own"


def _commands(folder: Path, interpreter: Path, lock: Path) -> list[list[str]]:
    uv = shutil.which("uv")
    if uv:
        make = [uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)]
        return [make, [uv, "pip", "install", "--quiet", "--no-deps", "--python", str(interpreter), "-r", str(lock)]]
    install = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    return [[sys.executable, "-m", "venv", str(folder)], [*install, "-r", str(lock)]]


def _own(folder: Path) -> None:
    """A folder that holds seatrial and nothing else, with what says its version."""
    own = folder / "own"
    own.mkdir()
    (own / "seatrial").symlink_to(Path(seatrial.__file__).resolve().parent, target_is_directory=True)
    try:
        place = getattr(importlib.metadata.distribution("seatrial"), "_path", None)
    except importlib.metadata.PackageNotFoundError:
        return
    if isinstance(place, Path) and place.is_dir():
        (own / place.name).symlink_to(place.resolve(), target_is_directory=True)


def _run(command: list[str], count: int) -> None:
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=variables, timeout=BUILD_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _not_built(str(error), count) from None
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise _not_built(" ".join(" ".join(lines[-3:]).split())[:400], count)


def _not_built(why: str, count: int) -> EnvironmentNotBuilt:
    return EnvironmentNotBuilt(
        f"the {count} packages that the run recorded cannot be installed: {why}",
        expected="Their versions must be had from the package index; without a network, or with one that lacks them, "
        "they cannot.",
        state="Nothing was trained.",
        next="Try again with a network, point PIP_INDEX_URL or PIP_FIND_LINKS at a mirror that has them, or leave "
        "--rebuild-env out: packages that differ are then named.",
    )
