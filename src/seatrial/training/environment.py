"""In which environment was this model trained, and from which code?

Everything that can move a fit and is not data or parameters: interpreter, processor, BLAS build, threads, packages,
commit, uncommitted changes, and the source of the definitions. Facts are plain values; nothing is changed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import os
import platform
import re
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from seatrial.core.errors import Failed
from seatrial.core.identity import digest, value_digest
from seatrial.training.closure import own_files
from seatrial.training.estimator import thread_variables

FORMAT = 1
LOCK = "requirements.lock"
DIFF = ("diff", "--binary", "--no-color", "--no-ext-diff", "--no-textconv")


class DefinitionsDamaged(Failed):
    """The definitions that were kept with a run are not those that it was trained from."""

    code = "training.definitions_damaged"


class DefinitionUnreadable(Failed):
    """A file of the project's definitions could not be read while the run was recorded."""

    code = "training.definition_unreadable"


@dataclass(frozen=True)
class Environment:
    """facts: plain values, see `describe`. patch: the uncommitted changes as git would apply them; may be empty.
    definitions: the sources that the code's digest is of, as `pack_definitions` packs them; empty without any."""

    facts: dict[str, Any]
    patch: bytes
    definitions: bytes = b""


def describe(folder: Path, definition_files: Sequence[Path], threads: int, *, seed: int | None = None) -> Environment:
    """The environment of a run made now, in `folder`.

    definition_files: every file of the project that was read to make the definitions.
    `code.dirty` is True when a tracked file was changed, or a definition file is not tracked; other new files are none
    of the run's.
    The facts hold `python platform cpu blas threads thread_variables hash_seed seed packages lock code`; without
    git, `code.commit` is None and `code.dirty` too. `lock.digest` covers every installed package and version.
    `code.files` has a digest for each definition file and each module beside them that they use.
    Raises DefinitionUnreadable.
    """
    packages = installed()
    lock_file = folder / LOCK
    sources = definition_sources(folder, definition_files)
    code, patch = _code(folder, definition_files, sources)
    facts = {
        "format": FORMAT,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": " ".join(filter(None, (platform.system(), platform.machine(), *platform.libc_ver()))),
        "cpu": _cpu(),
        "blas": _blas(),
        "threads": threads,
        "thread_variables": thread_variables(),
        "hash_seed": os.environ.get("PYTHONHASHSEED"),
        "seed": seed,
        "packages": packages,
        "lock": {
            "digest": value_digest(packages),
            "file": digest(lock_file.read_bytes()) if lock_file.is_file() else None,
        },
        "code": code,
    }
    return Environment(facts, patch, pack_definitions(sources) if sources else b"")


def definitions_digest(folder: Path, files: Sequence[Path]) -> str:
    """Digest of the definitions' sources: each file's place in the folder and its bytes, whatever their order.

    Raises DefinitionUnreadable.
    """
    return sources_digest(definition_sources(folder, files))


def sources_digest(sources: Mapping[str, bytes]) -> str:
    """The digest of sources by their places."""
    return value_digest({place: digest(source) for place, source in sources.items()})


def definition_sources(folder: Path, files: Sequence[Path]) -> dict[str, bytes]:
    """The bytes of the definition files, and of the modules of one's own that they use, by their place in the folder.

    Raises DefinitionUnreadable.
    """
    found = {}
    for file in own_files(folder, files):
        path = folder / file
        try:
            place = path.resolve().relative_to(folder.resolve()).as_posix()
        except ValueError:
            place = path.name
        try:
            found[place] = path.read_bytes()
        except OSError as error:
            raise DefinitionUnreadable(
                f"the definition file '{file}' could not be read: {error.strerror}.",
                expected="Every file that the definitions come from must stay in place while training.",
            ) from error
    return found


def pack_definitions(sources: Mapping[str, bytes]) -> bytes:
    """Sources as a zip file: equal sources give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for place in sorted(sources):
            archive.writestr(zipfile.ZipInfo(place), sources[place], zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def unpack_definitions(data: bytes, expected: str) -> dict[str, bytes]:
    """The sources in what `pack_definitions` made. Raises DefinitionsDamaged when their digest is not `expected`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            sources = {name: archive.read(name) for name in archive.namelist()}
        found = sources_digest(sources)
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError) as error:
        found, why = "", f"cannot be read: {error}"
    else:
        why = f"have the digest {found[:12]}"
    if found != expected or any(".." in Path(place).parts or Path(place).is_absolute() for place in sources):
        raise DefinitionsDamaged(
            f"the definitions that were kept {why}.",
            expected=f"Those that were trained from have {expected[:12]}.",
            next="Put the file back from a backup, or check out the commit that the run names.",
        )
    return sources


def _code(folder: Path, files: Sequence[Path], sources: Mapping[str, bytes]) -> tuple[dict[str, Any], bytes]:
    status = _git(folder, "status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", ".")
    lines = (status or b"").decode("utf-8", "replace").splitlines()
    heads = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = heads[0] if heads and heads[0] != "(initial)" else None
    own = [folder / place for place in sources if (folder / place).is_file()]
    new = [] if status is None else _untracked(folder, list(dict.fromkeys([*(folder / file for file in files), *own])))
    changed = any(not line.startswith("# ") for line in lines)
    dirty = None if status is None else commit is None or changed or bool(new)
    patch = b""
    if commit and dirty:
        patch = _git(folder, *DIFF, "--relative", "HEAD", "--", ".") or b""
        patch += b"".join(_as_new(folder, place) for place in new)
    return {
        "definitions": sources_digest(sources),
        "files": {place: digest(source) for place, source in sorted(sources.items())},
        "commit": commit,
        "dirty": dirty,
        "patch": digest(patch) if patch else None,
    }, patch


def _untracked(folder: Path, files: Sequence[Path]) -> list[str]:
    """Those of the definition files that git does not track, by their place; any other new file moves no model."""
    places = [os.path.relpath(file, folder) for file in files]
    if not places:
        return []
    listed = _git(folder, "ls-files", "-z", "--", *places)
    if listed is None:  # one of them lies outside of the repository
        return [place for place in places if _git(folder, "ls-files", "--error-unmatch", "--", place) is None]
    tracked = set(listed.decode("utf-8", "surrogateescape").split("\0"))
    return [place for place in places if place not in tracked]


def _as_new(folder: Path, place: str) -> bytes:
    """The patch that adds a file which git does not track."""
    return _git(folder, *DIFF, "--no-index", "--", "/dev/null", place, codes=(0, 1)) or b""


def _git(folder: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> bytes | None:
    """What git answers, or None when there is no git, no repository or no answer. It takes no lock and runs no hook."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        answer = subprocess.run(
            command,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            capture_output=True,
            check=False,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode in codes else None


def installed() -> list[str]:
    """Installed packages as sorted name==version, each once."""
    found: dict[str, str] = {}
    for distribution, head in _distributions(tuple((place, _changed_ns(place)) for place in sys.path)):
        name, version = _name_version(distribution, head)
        if name:  # a damaged install may have none
            found.setdefault(name, version)
    return sorted(f"{name}=={version}" for name, version in found.items())


@lru_cache(maxsize=4)
def _distributions(
    places: tuple[tuple[str, int], ...],
) -> tuple[tuple[importlib.metadata.Distribution, Path | None], ...]:
    """What is installed in the folders of `sys.path`, looked for again when one of them was changed.

    With the file whose head names it and its version, where it has one.
    """
    del places
    found = []
    for distribution in importlib.metadata.distributions():
        place = getattr(distribution, "_path", None)
        head = place / "METADATA" if isinstance(place, Path) and place.suffix == ".dist-info" else None
        found.append((distribution, head))
    return tuple(found)


def _changed_ns(place: str) -> int:
    try:
        return Path(place or ".").stat().st_mtime_ns
    except OSError:
        return 0


def _name_version(distribution: importlib.metadata.Distribution, file: Path | None) -> tuple[str, str]:
    """Name and version from the head of a distribution's metadata, since parsing the whole of it costs milliseconds."""
    try:
        if file is not None:
            found = _head(file, file.stat().st_mtime_ns)
            if all(found):
                return found
    except OSError:
        pass
    return _normal(distribution.metadata["Name"] or ""), distribution.version or ""


@lru_cache(maxsize=4096)
def _head(file: Path, changed_ns: int) -> tuple[str, str]:
    del changed_ns
    with file.open("rb") as opened:
        head = opened.read(4096).decode("utf-8", "replace").replace("\r\n", "\n").partition("\n\n")[0]
    name, version = (re.search(rf"^{what}:[ \t]*(\S+)", head, re.MULTILINE) for what in ("Name", "Version"))
    return _normal(name.group(1)) if name else "", version.group(1) if version else ""


def _normal(name: str) -> str:
    """One spelling of a package's name, as package indexes have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _blas() -> list[dict[str, Any]]:
    """The BLAS libraries of numpy and scipy: which, version, architecture; empty without the train extra."""
    try:
        importlib.import_module("scipy.linalg")  # the list must not depend on what was loaded before
        importlib.import_module("threadpoolctl")
    except ModuleNotFoundError:
        return []
    return [dict(pool) for pool in _blas_loaded(len(sys.modules))]


@lru_cache(maxsize=2)
def _blas_loaded(modules: int) -> list[dict[str, Any]]:
    """What is loaded now. modules: how many modules are; with none more there is no library more."""
    import threadpoolctl

    del modules
    kept = ("internal_api", "version", "architecture", "threading_layer")
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    found = [{name: pool.get(name) for name in kept} for pool in pools]
    return sorted(found, key=lambda pool: [str(value) for value in pool.values()])
