"""Is this machine fit? One check per thing that seatrial needs, each with what was found and what would help."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import msgspec

FREE_BYTES = 1 << 30
OLDEST_PYTHON = (3, 11)
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"}
TRAIN = ("sklearn", "lightgbm", "onnx", "skl2onnx", "onnxmltools", "skops", "mlflow")


class Check(msgspec.Struct, frozen=True):
    """One check. next: what to do when it did not pass."""

    name: str
    passed: bool
    found: str
    next: str = ""


def checks(folder: Path) -> list[Check]:
    """Every check, for a project in `folder`. Writes and removes one empty file."""
    return list(_checks(folder))


def _checks(folder: Path) -> Iterator[Check]:
    version = platform.python_version()
    yield Check("python", sys.version_info >= OLDEST_PYTHON, version, "Use Python 3.11 or newer.")
    yield _writable(folder)
    free = shutil.disk_usage(folder).free
    yield Check("disk", free >= FREE_BYTES, f"{free / 2**30:.1f} GiB free", "Free at least 1 GiB.")
    kind = filesystem(folder)
    yield Check(
        "file system",
        kind not in NETWORK,
        kind or "unknown",
        "SQLite's write-ahead log does not work over a network; keep .seatrial/ on a local disk.",
    )
    sqlite = sqlite3.sqlite_version_info >= (3, 35)
    yield Check("sqlite", sqlite, sqlite3.sqlite_version, "SQLite 3.35 or newer is needed.")
    missing = [name for name in ("duckdb", "pyarrow", "onnxruntime", "uvicorn") if find_spec(name) is None]
    found = f"missing: {', '.join(missing)}" if missing else "installed"
    yield Check("base packages", not missing, found, "Install seatrial again.")
    yield _train()
    yield _zones()


def filesystem(folder: Path) -> str:
    """The type of the file system that `folder` lies on; empty where the system does not tell."""
    try:
        lines = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines if len(line.split()) >= 3]
    place = folder.resolve()
    fitting = [(point, kind) for point, kind in mounts if place.is_relative_to(point)]
    return max(fitting, key=lambda mount: len(mount[0]), default=("", ""))[1]


def _writable(folder: Path) -> Check:
    probe = folder / ".seatrial-doctor"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return Check("folder", False, f"{folder}: {error.strerror}", "Choose a folder that you may write to.")
    return Check("folder", True, f"{folder} is writable")


def _train() -> Check:
    """Training needs the extra; a machine that only serves does not. LightGBM also needs a system library."""
    missing = [name for name in TRAIN if find_spec(name) is None]
    if missing:
        return Check("train extra", True, f"not installed ({', '.join(missing)}); serving does not need it")
    if sys.platform == "linux" and find_library("gomp") is None:
        return Check("train extra", False, "libgomp is missing", "Install it, for example: apt install libgomp1")
    return Check("train extra", True, "installed")


def _zones() -> Check:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo("America/New_York")
    except ZoneInfoNotFoundError:
        return Check("time zones", False, "no zone data", "Install the package tzdata.")
    return Check("time zones", True, "zone data found")
