"""A folder from which an image is built: written whole or not at all, with seatrial as a wheel in it."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import seatrial
from seatrial.core.errors import Failed, UsageError

LIBRARIES = {"lightgbm": "libgomp1"}  # Debian packages that a wheel needs and does not bring along
WHEEL = f"seatrial-{seatrial.__version__}-py3-none-any.whl"
USER = 10001
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


class FolderNotEmpty(UsageError):
    """The folder to export to holds something already."""

    code = "export.folder_not_empty"


class CannotWrite(Failed):
    """The folder to export to cannot be made or written."""

    code = "export.cannot_write"


def write(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write the files, and seatrial's wheel, into a folder; their names, sorted.

    folder: is made; when it exists it must be empty. It appears whole or not at all.
    Raises FolderNotEmpty, CannotWrite.
    """
    _refuse_taken(folder)
    return write_files(folder, {**files, WHEEL: _wheel(Path(seatrial.__file__).parent, seatrial.__version__)})


def write_files(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """The same without the wheel."""
    _refuse_taken(folder)
    with _explaining(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        try:
            for name, data in files.items():
                path = made / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            for path in (made, *made.rglob("*")):  # whatever the umask: the image's user is somebody else
                path.chmod(0o755 if path.is_dir() else 0o644)
            made.replace(folder)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    return sorted(files)


def _refuse_taken(folder: Path) -> None:
    with _explaining(folder):
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if taken:
        raise FolderNotEmpty(
            f"{folder} exists and is not empty.",
            expected="A new or empty folder is expected.",
            next="Name another folder, or remove it first.",
        )


def dockerignore(kept: Iterable[str]) -> str:
    """The text of a .dockerignore that lets nothing but these through to the builder."""
    return "\n".join(["*", *(f"!{name}" for name in kept)]) + "\n"


def system_packages(names: Iterable[str]) -> str:
    """The lines of a Dockerfile that install what the wheels of these packages need of Debian; empty for nothing."""
    libraries = sorted({LIBRARIES[name] for name in names if name in LIBRARIES})
    if not libraries:
        return ""
    return f"""
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends {" ".join(libraries)} \\
    && rm -rf /var/lib/apt/lists/*
"""


def _wheel(package: Path, version: str) -> bytes:
    """The installed package as a wheel (PEP 427), the same bytes every time; its requirements are pinned elsewhere."""
    files = {
        f"{package.name}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    about = f"seatrial-{version}.dist-info"
    files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: seatrial\nVersion: {version}\n".encode()
    files[f"{about}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: seatrial\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{about}/entry_points.txt"] = b"[console_scripts]\nseatrial = seatrial.cli:main\n"
    rows = [f"{name},sha256={_sha256(data)},{len(data)}" for name, data in files.items()]
    files[f"{about}/RECORD"] = "\n".join([*rows, f"{about}/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data)
    return out.getvalue()


def _sha256(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"{folder} cannot be written: {error.strerror or error}.",
            expected="A folder that this user may make, on a disk that has room, is expected.",
            next="Name another folder.",
        ) from None
