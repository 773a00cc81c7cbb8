"""Is this machine fit? One check per thing that seatrial needs, each with what was found and what would help."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path

import msgspec

from seatrial.core.clock import from_us, iso, machine_us
from seatrial.core.errors import SeatrialError
from seatrial.folder.workspace import Workspace

FREE_BYTES = 1 << 30
START_OF_2024_US = 1_704_067_200_000_000  # seatrial is younger: a clock that says less is not set
OLDEST_PYTHON = (3, 11)
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph"}
TRAIN = ("sklearn", "lightgbm", "onnx", "skl2onnx", "onnxmltools", "skops", "mlflow")


class Check(msgspec.Struct, frozen=True):
    """One check. next: what to do when it did not pass."""

    name: str
    passed: bool
    found: str
    next: str = ""


def checks(workspace: Workspace) -> list[Check]:
    """Every check, for a project. Writes and removes one empty file; what is wrong is in the checks, nothing raises."""
    return [*_machine(workspace.folder), *_state(workspace)]


def _machine(folder: Path) -> Iterator[Check]:
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


def _state(workspace: Workspace) -> Iterator[Check]:
    """What the project keeps: can it be read, is it whole?"""
    yield _store(
        "metadata store",
        lambda: workspace.sqlite_path("metadata"),
        lambda: workspace.metadata.last_event(),
        "Keep the file, and put a backup in its place.",
    )
    yield _online(workspace)
    yield _objects(workspace)
    yield _clock(workspace)
    yield _key(workspace.keys)
    yield _mirror(workspace)


def _mirror(workspace: Workspace) -> Check:
    """What MLflow was not told yet. It may be away for long: nothing waits for it."""
    from seatrial.registry.mlflow import REFUSED, TOPIC

    if not workspace.settings.stores.mlflow:
        return Check("mirror", True, "off")
    try:
        made = workspace.sqlite_path("metadata").exists()
        waiting = len(workspace.metadata.pending(TOPIC)) if made else 0
        refused = workspace.metadata.pending(REFUSED) if made else []
    except SeatrialError as error:
        return Check("mirror", False, error.found, error.next)
    if refused:
        reasons = list(dict.fromkeys(body["reason"] for _, body in refused))
        words = f"{waiting or 'no'} messages wait for MLflow; it refused {len(refused)}: {reasons[0]}"
        return Check("mirror", False, words, 'When that is mended: `Project(".").mirror(again=True)` in Python.')
    next = "They are told at the next train, release or deploy; look at stores.mlflow if they do not get fewer."
    return Check("mirror", not waiting, f"{waiting or 'no'} messages wait for MLflow", next if waiting else "")


def _store(name: str, place: Callable[[], Path], opened: Callable[[], object], next: str) -> Check:
    """A store that is kept in SQLite: it opens, its format is known, and SQLite finds no damage in it."""
    try:
        path = place()
        if not path.exists():
            return Check(name, True, "not made yet")
        opened()
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (format,) = connection.execute("PRAGMA user_version").fetchone()
            damage = [row[0] for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
    except SeatrialError as error:
        return Check(name, False, error.found, error.next or next)
    except sqlite3.OperationalError as error:
        return Check(name, True, f"{path}: opens; SQLite may not look for damage without writing beside it ({error})")
    except (sqlite3.Error, OSError) as error:
        return Check(name, False, f"{path}: {error}", next)
    if damage:
        return Check(name, False, f"{path} is damaged: {'; '.join(damage)}", next)
    return Check(name, True, f"format {format}, {path.stat().st_size / 1e6:,.1f} MB, no damage found")


def _online(workspace: Workspace) -> Check:
    """The online store: a file like the others, or a server that answers and forgets nothing by itself."""
    from seatrial.stores.online_redis import RedisOnlineStore
    from seatrial.stores.online_sqlite import SqliteOnlineStore

    name = "online store"
    try:
        store = workspace.online_to_read()
        if store is None:
            return Check(name, True, "not made yet")
        with closing(store):
            if isinstance(store, RedisOnlineStore):
                return Check(name, *store.fitness())
    except SeatrialError as error:
        return Check(name, False, error.found, error.next)
    return _store(
        name,
        lambda: workspace.sqlite_path("online"),
        lambda: SqliteOnlineStore(workspace.sqlite_path("online"), read_only=True).close(),
        "Move the file away and run `seatrial materialize`; it is rebuilt from the sources.",
    )


def _objects(workspace: Workspace) -> Check:
    try:
        root = workspace.objects.root
        if not root.exists():
            return Check("objects", True, "not made yet")
        if not root.is_dir() or not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            words = "may not be written to by this user" if root.is_dir() else "is no folder"
            return Check("objects", False, f"{root} {words}", "Correct the rights, or stores.objects in seatrial.toml.")
        free = shutil.disk_usage(root).free
    except SeatrialError as error:
        return Check("objects", False, error.found, error.next)
    except OSError as error:
        return Check("objects", False, str(error), "Correct the rights, or stores.objects in seatrial.toml.")
    found = f"{root}, {free / 2**30:.1f} GiB free"
    return Check("objects", free >= FREE_BYTES, found, "Free at least 1 GiB where the objects are.")


def _clock(workspace: Workspace) -> Check:
    """Record times order nothing, but a clock that runs behind makes every age and every audit entry wrong."""
    now = machine_us()
    if now < START_OF_2024_US:
        return Check("clock", False, f"{iso(from_us(now))} is before 2024", "Set the machine's clock.")
    try:
        newest = workspace.metadata.last_event()
    except (SeatrialError, OSError):  # told by the check of the store
        newest = None
    if newest is not None and newest.recorded_at_us > now:
        found = f"{iso(from_us(now))} is before the newest event, number {newest.seq} of "
        found += iso(from_us(newest.recorded_at_us))
        return Check("clock", False, found, "Set the machine's clock; if it is right, it was ahead then.")
    return Check("clock", True, iso(from_us(now)))


def _key(keys: Path) -> Check:
    path = keys / "signing.key"
    if os.environ.get("SEATRIAL_SIGNING_KEY"):
        return Check("signing key", True, "of SEATRIAL_SIGNING_KEY")
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        return Check("signing key", True, "not made yet")
    except OSError as error:
        return Check("signing key", False, f"{path}: {error.strerror}", "Correct the rights of the folder.")
    next = f"Run `chmod 600 {path}`; if others have had access, make a new key."
    return Check("signing key", mode == 0o600, f"{path}, mode {mode:o}", next)


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
