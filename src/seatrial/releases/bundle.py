"""A release as one file: packed the same every time, and opened only when every byte is as it was packed.

A bundle (`.seatrial`) is an uncompressed zip of `manifest.json`, `signature.json` and the files that the manifest
names, with fixed order, times and permissions. Opening it verifies the signature, every digest, and that packing
again gives the very same bytes; nothing in it is executed or unpickled.
"""

from __future__ import annotations

import io
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.core.errors import Failed, UsageError, listed
from seatrial.core.identity import digest
from seatrial.releases.formats import ONNX, model_file
from seatrial.releases.manifest import (
    PAYLOAD_TYPE,
    Manifest,
    file_entries,
    read_manifest,
    release_id,
    write_manifest,
)
from seatrial.releases.signing import SignatureRefused, SigningKey, TrustedKeys, named_signers, sign, verify

if TYPE_CHECKING:
    from seatrial.releases.runtime import Scoring

SUFFIX = ".seatrial"
MANIFEST, SIGNATURE = "manifest.json", "signature.json"
MODEL, GOLDEN, PROFILE, LOCK = model_file(ONNX), "golden.json", "profile.json", "requirements.lock"

LARGEST_BUNDLE = 2 << 30
LARGEST_MANIFEST = 16 << 20
MOST_FILES = 1000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip can write
_MODE = stat.S_IFREG | 0o644
_UNIX = 3


class BundleDamaged(Failed):
    """A bundle is not as it was packed. `facts["reason"]`: truncated, file_changed, file_missing, file_extra, ..."""

    code = "release.bundle_damaged"


class BundleUnsafe(Failed):
    """A bundle holds what no bundle of seatrial's holds: links, unsafe names, compression, too much of it."""

    code = "release.bundle_unsafe"


class BundleMissing(UsageError):
    """There is no bundle at that path."""

    code = "release.bundle_missing"


class BadFiles(UsageError):
    """The files given to be packed are not those that the manifest names, or have unsafe names."""

    code = "release.bad_files"


@dataclass(frozen=True)
class Bundle:
    """An opened, verified release. id: its release id; keyid: the key that signed it; bytes: the bundle's size."""

    id: str
    manifest: Manifest
    files: Mapping[str, bytes] = field(repr=False)
    keyid: str
    bytes: int

    def runtime(self, threads: int = 1) -> Scoring:
        """The model, loaded to score; see `runtime.open_runtime`. Golden rows are replayed by `golden.replay`."""
        from seatrial.releases.runtime import open_runtime

        return open_runtime(self, threads)


def pack(manifest: Manifest, files: Mapping[str, bytes], key: SigningKey) -> bytes:
    """The bytes of the bundle; the same for the same arguments, on any machine.

    files: name -> content, exactly those of `manifest.files` (`manifest.file_entries` makes them), the model's among
        them (`formats.model_file`).
    Raises BadFiles.
    """
    model = model_file(manifest.model_format)
    if file_entries(files) != manifest.files or model not in files:
        raise BadFiles(
            f"the files {listed(sorted(files))} are not those of the manifest ({listed(sorted(manifest.files))}).",
            expected=f"The manifest names every file by digest, {model} among them.",
        )
    for name in files:
        if not _safe_name(name) or name in (MANIFEST, SIGNATURE):
            raise BadFiles(f"{name!r} is no name for a file of a bundle.", expected="A relative name is expected.")
    described = write_manifest(manifest)
    return _zip({**files, MANIFEST: described, SIGNATURE: sign(described, PAYLOAD_TYPE, key)})


def open_bundle(source: Path | bytes, trusted: TrustedKeys) -> Bundle:
    """Verify a bundle and read it.

    source: its path or its bytes. trusted: the public keys whose signature counts.
    Raises BundleMissing, BundleUnsafe, BundleDamaged, SignatureRefused, ManifestTooNew, ManifestUnreadable; all but
    the first name their reason in `facts["reason"]`.
    """
    data = source if isinstance(source, bytes) else _read(source)
    if len(data) > LARGEST_BUNDLE:
        raise _unsafe("too_large", f"the bundle has {len(data)} bytes.", f"At most {LARGEST_BUNDLE} are expected.")
    members = _members(data)
    if MANIFEST not in members:
        raise _damaged("file_missing", f"the bundle has no {MANIFEST}.")
    if SIGNATURE not in members:
        raise SignatureRefused(
            "the bundle is not signed.",
            expected="A signature by a trusted key is expected.",
            next="Release it again.",
            state="Nothing was loaded.",
            reason="missing",
        )
    described = members.pop(MANIFEST)
    envelope = members.pop(SIGNATURE)
    if len(described) > LARGEST_MANIFEST:
        raise _unsafe("too_large", f"the manifest has {len(described)} bytes.", f"At most {LARGEST_MANIFEST}.")
    manifest = read_manifest(described)
    keyid = verify(envelope, described, PAYLOAD_TYPE, trusted)
    _check_files(manifest, members)
    if _zip({**members, MANIFEST: described, SIGNATURE: envelope}) != data:
        raise _damaged("not_as_packed", "the bundle's container is not as it was packed.")
    return Bundle(release_id(manifest), manifest, members, keyid, len(data))


def signers(path: Path) -> tuple[str, ...]:
    """The ids of the keys that a bundle names as its signers, not verified; empty when it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return named_signers(archive.read(SIGNATURE))
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        return ()


def _check_files(manifest: Manifest, members: Mapping[str, bytes]) -> None:
    missing = sorted(set(manifest.files) - set(members))
    extra = sorted(set(members) - set(manifest.files))
    model = model_file(manifest.model_format)
    if missing or model not in members:
        raise _damaged("file_missing", f"the bundle lacks {listed(missing or [model])}.")
    if extra:
        raise _damaged("file_extra", f"the bundle holds {listed(extra)}, which its manifest does not name.")
    for name, entry in manifest.files.items():
        if len(members[name]) != entry.bytes or digest(members[name]) != entry.digest:
            raise _damaged("file_changed", f"'{name}' is not the file that the manifest names.")


def _members(data: bytes) -> dict[str, bytes]:
    """Every file of the zip, after checking that its entries are plain and its names safe."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(data))
            return {entry.filename: _member(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged("truncated", f"{len(data)} bytes are no whole bundle: {error}.") from None


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MOST_FILES:
        raise _unsafe("too_large", f"the bundle has {len(entries)} files.", f"At most {MOST_FILES} are expected.")
    seen: set[str] = set()
    for entry in entries:
        # orig_filename is the name before zipfile cuts it at a NUL
        name = entry.orig_filename
        mode = entry.external_attr >> 16
        if stat.S_ISLNK(mode):
            raise _unsafe("symlink", f"{name!r} is a link.", "A bundle holds plain files only.")
        if not _safe_name(name):
            raise _unsafe("unsafe_name", f"{name!r} points outside of the bundle or is no plain name.", "")
        if name in seen:
            raise _unsafe("file_twice", f"{name!r} is there twice.", "Each file is there once.")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
            raise _unsafe("compressed", f"{name!r} is compressed or encrypted.", "Files are stored as they are.")
        if entry.file_size > size:
            raise _damaged("truncated", f"{name!r} claims {entry.file_size} bytes in a bundle of {size}.")
        seen.add(name)


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(entry)
    except zipfile.BadZipFile as error:
        raise _damaged("file_changed", f"'{entry.filename}' is damaged: {error}.") from None


def _safe_name(name: str) -> bool:
    """Relative, below the root, of plain characters; no "..", no drive, no backslash."""
    return len(name) <= 200 and _NAME.fullmatch(name) is not None


def _zip(files: Mapping[str, bytes]) -> bytes:
    """A stored zip in which nothing depends on when, where or in which order it was made."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.create_system = _UNIX
            entry.external_attr = _MODE << 16
            archive.writestr(entry, files[name])
    return out.getvalue()


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST_BUNDLE:
            raise _unsafe("too_large", f"{path} has {size} bytes.", f"At most {LARGEST_BUNDLE} are expected.")
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise BundleMissing(
            f"there is no bundle at {path}.",
            expected="A file that ends in .seatrial is expected.",
            next="Run `seatrial releases list` to see what was released.",
            state="Nothing was loaded.",
        ) from None


def _damaged(reason: str, found: str) -> BundleDamaged:
    return BundleDamaged(
        found,
        expected="A bundle exactly as it was packed is expected.",
        next="Copy it again from where it was made, or release again.",
        state="Nothing was loaded.",
        reason=reason,
    )


def _unsafe(reason: str, found: str, expected: str) -> BundleUnsafe:
    return BundleUnsafe(
        found,
        expected=expected or "Names are relative, of letters, digits, '_', '-', '.' and '/'.",
        next="Do not use it; ask where it comes from.",
        state="Nothing was loaded.",
        reason=reason,
    )
