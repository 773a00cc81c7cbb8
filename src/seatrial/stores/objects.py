"""The object store: snapshots, bundles and other files, by key, as they were when they were put there.

A folder. A key is a relative name ("snapshots/snap_0a1b.parquet"); what is kept under it never changes. A reader sees
an object whole or not at all: it is written under `.incoming/`, given to the disk, and then renamed to its place. A
process that dies on the way leaves a file there that no key names.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO

import blake3

from seatrial.core.errors import Conflict, Failed, SeatrialError, Unavailable, UsageError, did_you_mean
from seatrial.core.identity import uuid7

_KEY = re.compile(r"[A-Za-z0-9_=@+-][A-Za-z0-9_=@+.-]{0,199}(/[A-Za-z0-9_=@+-][A-Za-z0-9_=@+.-]{0,199})*")
_LONGEST = 1000
_BLOCK = 2**20


class BadKey(UsageError):
    """A key that is no safe relative name."""

    code = "objects.bad_key"


class ObjectMissing(Failed):
    """Nothing is kept under this key."""

    code = "objects.missing"


class ObjectDiffers(Conflict):
    """Something else is kept under this key."""

    code = "objects.differs"


class ObjectSourceUnreadable(Failed):
    """The file to be kept cannot be read."""

    code = "objects.source_unreadable"


class ObjectsUnwritable(Unavailable):
    """The folder does not take a file: the disk is full or failing, or rights are missing."""

    code = "objects.unwritable"


class ObjectsUnreadable(Unavailable):
    """An object is there, but cannot be read: rights are missing, or the disk is failing."""

    code = "objects.unreadable"


class ObjectRepaired(UserWarning):
    """What was kept under a key was damaged, and is replaced by what belongs there."""


Whole = Callable[[Path], bool]
"""Whether the file under a key is what the key stands for; for keys that are named by their content."""


class ObjectStore:
    """Immutable objects in the folder `root`, which is made when the first is put there.

    Keys are letters, digits and `_ = @ + - .`, in parts separated by `/`; no part starts with a dot. Any number of
    threads and processes may use one folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes, *, whole: Whole | None = None) -> str:
        """Keep bytes under a key; returns their digest (BLAKE3, 64 hex digits). Equal bytes again: nothing happens.

        whole: asked of other bytes that are there; when it says no they are replaced, with an ObjectRepaired warning.
        Raises ObjectDiffers when other bytes are there, BadKey, ObjectsUnwritable.
        """
        hashed = blake3.blake3(data).hexdigest()

        return self._keep(key, partial(_write_bytes, data), hashed, whole)

    def put_file(self, key: str, path: Path, *, whole: Whole | None = None) -> str:
        """Keep a copy of a file under a key; else as `put`. Raises ObjectSourceUnreadable too."""
        place = self._place(key)
        try:
            with path.open("rb") as source:
                if place.is_file() and (whole or place.stat().st_size == os.fstat(source.fileno()).st_size):
                    hashed = _hash(source)
                    source.seek(0)
                    return self._keep(key, lambda file: _copy(source, file), hashed, whole)
                return self._keep(key, lambda file: _copy(source, file), None, whole)
        except OSError as error:
            raise ObjectSourceUnreadable(
                f"the file {path} cannot be read: {error.strerror}.", expected="A readable file is expected."
            ) from None

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Keep several objects, waiting for the disk once; else as `put` for each. After a crash some may be there."""
        places = {key: self._place(key) for key in objects}
        new = {key: data for key, data in objects.items() if not places[key].is_file()}
        for key in objects:
            if key not in new:
                self.put(key, objects[key])
        if not new:
            return
        with self._explaining(", ".join(new), ObjectsUnwritable):
            unfinished = {key: self._unfinished() for key in new}
            try:
                for key, path in unfinished.items():
                    _write(path, partial(_write_bytes, new[key]))
                published = self._publish([(path, places[key]) for key, path in unfinished.items()])
            finally:
                for path in unfinished.values():
                    path.unlink(missing_ok=True)
        for key, is_new in zip(unfinished, published, strict=True):
            if not is_new:
                self.put(key, objects[key])

    def read(self, key: str) -> bytes:
        """The bytes under a key. Raises ObjectMissing, BadKey."""
        with self._explaining(key, ObjectsUnreadable):
            return self.path(key).read_bytes()

    def path(self, key: str) -> Path:
        """The file under a key, to read only. Raises ObjectMissing, BadKey."""
        place = self._place(key)
        if not place.is_file():
            folder, _, _ = key.rpartition("/")
            known = self.keys(f"{folder}/" if folder else "")
            raise ObjectMissing(
                f"nothing is kept under '{key}' in {self.root}.",
                expected=did_you_mean(key, known),
                key=key,
            )
        return place

    def exists(self, key: str) -> bool:
        """Whether something is kept under a key. Raises BadKey."""
        return self._place(key).is_file()

    def remove(self, key: str) -> None:
        """Keep nothing under a key any more; nothing there: nothing happens. Raises BadKey, ObjectsUnwritable.

        For what may not be kept for ever, such as predictions.
        """
        place = self._place(key)
        with self._explaining(key, ObjectsUnwritable):
            if place.is_file():
                place.unlink(missing_ok=True)
                _sync_folder(place.parent)

    def keys(self, prefix: str = "") -> list[str]:
        """Keys that start with `prefix`, sorted. A prefix that no key can have finds none."""
        folder, _, _ = prefix.rpartition("/")
        if folder and not _KEY.fullmatch(folder):
            return []
        top = self.root / folder
        with self._explaining(prefix, ObjectsUnreadable):
            return sorted(key for key in _walk(top, f"{folder}/" if folder else "") if key.startswith(prefix))

    # Writing

    def _keep(self, key: str, write: Callable[[BinaryIO], str], hashed: str | None, whole: Whole | None) -> str:
        place = self._place(key)
        damaged = False
        if hashed is not None and place.is_file():
            try:
                return self._same(key, place, hashed)
            except ObjectDiffers:
                damaged = whole is not None and not whole(place)
                if not damaged:
                    raise
        with self._explaining(key, ObjectsUnwritable):
            unfinished = self._unfinished()
            try:
                written = _write(unfinished, write)
                [new] = self._publish([(unfinished, place)], over=damaged)
            finally:
                unfinished.unlink(missing_ok=True)
        if damaged:
            warnings.warn(f"'{key}' in {self.root} was damaged, and is repaired.", ObjectRepaired, stacklevel=4)
        return written if new else self._same(key, place, written)

    def _unfinished(self) -> Path:
        """A path of its own for bytes that have no key yet."""
        incoming = self.root / ".incoming"
        _make_folder(incoming)
        return incoming / uuid7()

    def _publish(self, files: Sequence[tuple[Path, Path]], *, over: bool = False) -> list[bool]:
        """Give written files to the disk and rename each into its place. False for one where something is there.

        A rename would replace it, so looking needs the lock. over: what is there is to be replaced.
        """
        _sync_files([unfinished for unfinished, _ in files])
        folders = {place.parent for _, place in files}
        for folder in folders:
            _make_folder(folder)
        with (self.root / ".incoming" / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            new = []
            for unfinished, place in files:
                new.append(over or not place.exists())
                if new[-1]:
                    unfinished.rename(place)
            for folder in folders:
                _sync_folder(folder)
        return new

    def _same(self, key: str, place: Path, hashed: str) -> str:
        if place.is_dir():
            raise self._in_the_way(key)
        with self._explaining(key, ObjectsUnreadable), place.open("rb") as file:
            there = _hash(file)
        if there != hashed:
            raise ObjectDiffers(
                f"other bytes are kept under '{key}' in {self.root}: their digest is {there}, not {hashed}.",
                expected="An object never changes; other bytes need another key.",
                key=key,
                there=there,
                given=hashed,
            )
        return hashed

    def _place(self, key: str) -> Path:
        if len(key) > _LONGEST or not _KEY.fullmatch(key):
            raise BadKey(
                f"{key[:100]!r} is no key.",
                expected="Letters, digits and _ = @ + - . are expected, in parts between slashes, none .hidden.",
            )
        place = self.root / key
        if not place.resolve().is_relative_to(self.root.resolve()):
            raise BadKey(f"'{key}' leads out of {self.root} by a symbolic link.", expected="Nothing may point outside.")
        return place

    def _in_the_way(self, key: str) -> ObjectDiffers:
        return ObjectDiffers(
            f"'{key}' cannot be kept in {self.root}: a key may not go on where another one ends.",
            expected="Choose another key.",
            key=key,
        )

    @contextmanager
    def _explaining(self, key: str, kind: type[SeatrialError]) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.EEXIST) and self.root.is_dir():
                raise self._in_the_way(key) from None
            verb = "kept" if kind is ObjectsUnwritable else "read"
            raise kind(
                f"'{key}' cannot be {verb} in {self.root}: {error.strerror}.",
                next="Make room on the disk or correct the rights, then try again.",
            ) from None


def _walk(folder: Path, prefix: str) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


def _hash(file: BinaryIO) -> str:
    hasher = blake3.blake3()
    while block := file.read(_BLOCK):
        hasher.update(block)
    return hasher.hexdigest()


def _write_bytes(data: bytes, target: BinaryIO) -> str:
    target.write(data)
    return blake3.blake3(data).hexdigest()


def _write(path: Path, write: Callable[[BinaryIO], str]) -> str:
    """Write a new file that nobody may write to again; it is not on the disk yet. Returns what `write` says of it."""
    with path.open("xb") as file:
        said = write(file)
        os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode & 0o555)
    return said


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    """Copy and hash in one go, so that the digest is that of what was written."""
    hasher = blake3.blake3()
    while block := source.read(_BLOCK):
        hasher.update(block)
        target.write(block)
    return hasher.hexdigest()


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each known to the disk by name."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    _sync_folder(folder.parent)


def _sync_files(paths: Sequence[Path]) -> None:
    """Wait until the disk has every file: all at once, because a disk takes many together in the time of one."""
    if len(paths) == 1:
        _sync(paths[0], os.O_RDONLY)
        return
    with ThreadPoolExecutor(len(paths) or 1) as pool:
        list(pool.map(lambda path: _sync(path, os.O_RDONLY), paths))


def _sync_folder(folder: Path) -> None:
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
