"""Slots: where several processes keep the numbers that they count, so that any of them can tell the sum.

A worker has a place among the workers, its slot, and each slot one file of a fixed size. A worker that is started again
takes its slot's file up and goes on adding, so that what is counted never falls. Only the process that holds the file's
lock writes to it; others read it while it does. A number is eight aligned bytes, written and read whole; a name comes
with a checksum and is found only when it is complete.

    header   64 bytes: magic, format, size of the names, number of cells
    names    records: length, CRC-32, payload (msgpack: family, labels, first cell, number of cells)
    cells    float64 in the machine's byte order
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from seatrial.core.clock import monotonic
from seatrial.core.errors import Conflict, Unavailable

FORMAT = 1
NAMES_BYTES = 256 * 2**10 - 64
CELLS = 48 * 2**10
TAKE_SECONDS = 2.0

_MAGIC = b"STCOUNTS"
_HEADER = struct.Struct("<8sIII")
_HEADER_BYTES = 64
_RECORD = struct.Struct("<II")
_CELLS_AT = _HEADER_BYTES + NAMES_BYTES
SIZE = _CELLS_AT + 8 * CELLS
_HEAD = _HEADER.pack(_MAGIC, FORMAT, NAMES_BYTES, CELLS)

Name = tuple[str, tuple[str, ...]]
"""A family and the values of its labels."""


class SlotTaken(Conflict):
    """Another process that runs counts in this slot."""

    code = "metrics.slot_taken"


class SlotUnwritable(Unavailable):
    """The file of a slot cannot be made or written: the disk is full or failing, or the folder may not be written."""

    code = "metrics.slot_unwritable"


class _Record(msgspec.Struct, frozen=True, array_like=True):
    family: str
    labels: tuple[str, ...]
    first: int
    count: int


@dataclass(frozen=True)
class Found:
    """What a slot's file holds. alive: whether a process has it in use now."""

    slot: int
    alive: bool
    series: Mapping[Name, Sequence[float]] = field(default_factory=dict)


def path_of(folder: Path, slot: int) -> Path:
    return folder / f"slot-{slot:04d}.counts"


class Slot:
    """The file of one slot, written by this process until it ends or `close`.

    before: what processes before this one left there. Raises SlotTaken, SlotUnwritable.
    """

    def __init__(self, folder: Path, slot: int) -> None:
        self.path = path_of(folder, slot)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self._take(slot)
            whole = os.fstat(self._file).st_size >= SIZE
            os.posix_fallocate(self._file, 0, SIZE)  # room now, or no file: a page without room kills who writes to it
            self._map = mmap.mmap(self._file, SIZE)
        except OSError as error:
            os.close(self._file)
            raise self._unwritable(error) from None
        except BaseException:
            os.close(self._file)
            raise
        self._bytes = memoryview(self._map)
        self._cells = self._bytes[_CELLS_AT:].cast("d")
        if not whole or self._bytes[: len(_HEAD)] != _HEAD:  # new, cut short or of another format: begun anew
            self._bytes[:8] = bytes(8)
            self._bytes[8:] = bytes(SIZE - 8)
            self._bytes[8 : len(_HEAD)] = _HEAD[8:]
            self._bytes[:8] = _HEAD[:8]
        records, self._end = _records(self._bytes)
        self._used = max((record.first + record.count for record in records), default=0)
        self._places = {(record.family, record.labels): (record.first, record.count) for record in records}
        self.before = {name: list(self._cells[first : first + count]) for name, (first, count) in self._places.items()}

    def place(self, family: str, labels: tuple[str, ...], count: int) -> int | None:
        """The first of the cells of a series of this process or of one before it; None when the file is full."""
        known = self._places.get((family, labels))
        if known is not None and known[1] == count:
            return known[0]
        payload = msgspec.msgpack.encode(_Record(family, labels, self._used, count))
        end = self._end + _RECORD.size + len(payload)
        if self._used + count > CELLS or end + _RECORD.size > _CELLS_AT:
            return None
        first = self._used
        self.write(first, [0.0] * count)
        self._bytes[self._end + _RECORD.size : end] = payload
        self._bytes[self._end : self._end + _RECORD.size] = _RECORD.pack(len(payload), zlib.crc32(payload))
        self._end, self._used = end, first + count
        self._places[family, labels] = (first, count)
        return first

    def write(self, first: int, values: Sequence[float]) -> None:
        """Set cells; each of them is either the old number or the new one to whoever reads."""
        cells = self._cells
        for at, value in enumerate(values, first):
            cells[at] = value

    def close(self) -> None:
        """Give the slot up; its numbers stay."""
        self._cells.release()
        self._bytes.release()
        self._map.close()
        os.close(self._file)

    def _take(self, slot: int) -> None:
        """Lock the file; a reader that looks whether it is in use holds it for an instant."""
        end = monotonic() + TAKE_SECONDS
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if monotonic() > end:
                    raise SlotTaken(
                        f"slot {slot} of the metrics in {self.path.parent} is in use by another process.",
                        expected="Each worker has a slot of its own.",
                        state="Nothing was counted.",
                        next="Stop the other server, or give this one another folder for its metrics.",
                    ) from None
                time.sleep(0.01)

    def _unwritable(self, error: OSError) -> SlotUnwritable:
        return SlotUnwritable(
            f"{self.path} cannot be written: {error.strerror or error}.",
            expected=f"Each worker keeps its numbers in a file of {SIZE // 1024} KiB.",
            state="Nothing was counted.",
            next="Make room or give the rights to write.",
        )


def read_slots(folder: Path) -> tuple[list[Found], int]:
    """What every slot's file of a folder holds, by slot, and how many files could not be read.

    Of another format, cut short or damaged at its head is what could not be read; it changes nothing of the others.
    """
    found, unreadable = [], 0
    for path in sorted(folder.glob("slot-*.counts")):
        one = _read(path)
        if one is None:
            unreadable += 1
        else:
            found.append(one)
    return found, unreadable


def _read(path: Path) -> Found | None:
    try:
        slot = int(path.stem.removeprefix("slot-"))
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (ValueError, OSError):
        return None
    try:
        if os.fstat(file).st_size < SIZE:
            return None
        alive = _in_use(file)
        with mmap.mmap(file, SIZE, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as data:
            if data[: len(_HEAD)] != _HEAD:
                return None
            with data[_CELLS_AT:] as raw, raw.cast("d") as cells:
                return Found(
                    slot,
                    alive,
                    {
                        (record.family, record.labels): list(cells[record.first : record.first + record.count])
                        for record in _records(data)[0]
                    },
                )
    except OSError:
        return None
    finally:
        os.close(file)


def _in_use(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _records(data: memoryview) -> tuple[list[_Record], int]:
    """The names that are complete, and where they end."""
    found: list[_Record] = []
    at = _HEADER_BYTES
    while at + _RECORD.size <= _CELLS_AT:
        length, checksum = _RECORD.unpack_from(data, at)
        end = at + _RECORD.size + length
        if not length or end > _CELLS_AT:
            break
        payload = bytes(data[at + _RECORD.size : end])
        if zlib.crc32(payload) != checksum:
            break
        try:
            record = msgspec.msgpack.decode(payload, type=_Record)
        except msgspec.DecodeError:
            break
        if record.first < 0 or record.count < 1 or record.first + record.count > CELLS:
            break
        found.append(record)
        at = end
    return found, at
