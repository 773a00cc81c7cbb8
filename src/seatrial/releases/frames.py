"""What a server and the child that scores for it say to each other: frames of a kind, a length and a body.

A frame begins with 12 bytes, little-endian: kind (uint32), length of the body (uint64). Bodies are msgpack, or a table:
rows and columns (two uint64), then float32 or float64 values row by row. Columns by name are msgpack: bytes of float32
values, or a list of strings and nulls. Nothing in a frame is ever unpickled.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import NamedRows

VERSION = 1
HELLO, MODEL, READY, ROWS, COLUMNS, SCORES, RAISED = range(1, 8)
LARGEST = 4 << 30

_HEAD = struct.Struct("<IQ")
_SHAPE = struct.Struct("<QQ")
_FLAT = 0  # columns of scores that are one number each

Remaining = Callable[[], float | None]
"""Seconds until the deadline, None for no deadline; it raises TimeoutError when there are none left."""


class Broken(Exception):
    """The other side is gone, or what came is no frame."""


class Hello(msgspec.Struct, frozen=True):
    """What the child is to load; the model follows in a frame of its own."""

    version: int
    format: str
    task: str


class Ready(msgspec.Struct, frozen=True):
    """The child has loaded the model. bytes: memory of its process."""

    version: int
    bytes: int


class Raised(msgspec.Struct, frozen=True):
    """Loading or scoring raised in the child."""

    kind: str
    words: str


def forever() -> float | None:
    """No deadline."""
    return None


def send(link: socket.socket, kind: int, *bodies: bytes | memoryview, remaining: Remaining = forever) -> None:
    """Send one frame. Raises Broken and TimeoutError."""
    size = sum(len(body) for body in bodies)
    try:
        for part in (_HEAD.pack(kind, size), *bodies):
            link.settimeout(remaining())
            link.sendall(part)
    except TimeoutError:
        raise
    except OSError as error:
        raise Broken(str(error)) from None


def receive(link: socket.socket, *, remaining: Remaining = forever) -> tuple[int, bytearray]:
    """The next frame's kind and body. Raises Broken and TimeoutError."""
    kind, size = _HEAD.unpack(_exactly(link, _HEAD.size, remaining))
    if size > LARGEST:
        raise Broken(f"a frame of {size} bytes")
    return kind, _exactly(link, size, remaining)


def told(thing: msgspec.Struct) -> bytes:
    """A body of plain values."""
    return msgspec.msgpack.encode(thing)


def matrix(values: NDArray[Any]) -> tuple[bytes, memoryview]:
    """The body of a table, [n, k] or [n]."""
    columns = values.shape[1] if values.ndim == 2 else _FLAT
    return _SHAPE.pack(len(values), columns), memoryview(np.ascontiguousarray(values).data).cast("B")


def columns(rows: NamedRows) -> bytes:
    """The body of rows whose columns have names."""
    return msgspec.msgpack.encode(
        {
            name: column.tolist() if column.dtype == object else column.astype("<f4").tobytes()
            for name, column in rows.columns.items()
        }
    )


def named(body: bytearray) -> NamedRows:
    """The columns in a body. Raises Broken."""
    try:
        given = msgspec.msgpack.decode(body, type=dict[str, bytes | list[str | None]])
        return NamedRows(
            {
                name: np.frombuffer(column, dtype="<f4")
                if isinstance(column, bytes)
                else np.array(column, dtype=object)
                for name, column in given.items()
            }
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise Broken(str(error)) from None


def values(body: bytearray, kind: Literal["<f4", "<f8"]) -> NDArray[Any]:
    """The table in a body. Raises Broken."""
    if len(body) < _SHAPE.size:
        raise Broken("a table without a shape")
    rows, columns = _SHAPE.unpack_from(body)
    found = np.frombuffer(body, dtype=kind, offset=_SHAPE.size)
    if len(found) != rows * (columns or 1):
        raise Broken(f"a table of {rows} x {columns} with {len(found)} values")
    return found.reshape(rows, columns) if columns != _FLAT else found


def _exactly(link: socket.socket, size: int, remaining: Remaining) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    place = 0
    try:
        while place < size:
            link.settimeout(remaining())
            got = link.recv_into(view[place:])
            if not got:
                raise Broken("the other side is gone")
            place += got
    except TimeoutError:
        raise
    except OSError as error:
        raise Broken(str(error)) from None
    return data
