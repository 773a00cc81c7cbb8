"""Environments of their own for programs that files are written for: found, else made once with uv, and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LACKING

PLACE = Path.home() / ".cache" / "seatrial-bench"


def environment(request: pytest.FixtureRequest, name: str, *requirements: str) -> Path:
    """The Python of the environment; where it cannot be made the test is listed as not run, and for want of what."""
    python = PLACE / name / "bin" / "python"
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    ready = python.parent / ".ready"
    if not ready.exists() and uv is not None:
        quiet = {"check": False, "capture_output": True}
        if not python.exists():
            subprocess.run([uv, "venv", "--quiet", "--python", "3.11", str(PLACE / name)], **quiet)
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *requirements]
        if subprocess.run(install, **quiet).returncode == 0:
            ready.touch()
    if not ready.exists():
        request.node.user_properties.append((LACKING, requirements[0]))
        pytest.skip(f"{requirements[0]} cannot be installed")
    return python


def variables(**more: str) -> dict[str, str]:
    """The variables of a process that finds `seatrial` on its path, as it is here."""
    here = str(Path(sys.executable).parent)
    source = str(Path(__file__).parents[2] / "src")
    path = os.pathsep.join([here, os.environ.get("PATH", os.defpath)])
    return {**os.environ, "PATH": path, "PYTHONPATH": source, "SEATRIAL_STORES_MLFLOW": "", **more}
