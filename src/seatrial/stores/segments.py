"""Segments: what does a file of the prediction log hold, and which of its bytes are records?

A segment is a header and frames: length, CRC-32 over length and payload, payload (msgpack). A payload is either a
`LogSchema`, which names the columns, or a `LoggedPrediction`, which refers to one. A reader takes every whole frame, a
tail that its process did not live to finish is dropped, and other bytes are named as damage.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from seatrial.core.errors import Failed
from seatrial.core.identity import value_digest
from seatrial.core.types import Dtype

FORMAT = 1

_MAGIC = b"STPLOG"
_HEADER = struct.Struct("<6sHI")  # magic, format, CRC-32 of both
HEADER_BYTES = _HEADER.size
_FRAME = struct.Struct("<II")  # length of the payload, CRC-32 of the payload seeded with the length
_LARGEST = 16 * 2**20  # no payload is longer; a longer length is damage
_MANY = 0xDC  # how MessagePack begins a row of 16 to 65,535 values: a prediction, of which the tag is the first


class LogTooNew(Failed):
    """A part of the prediction log was written by a newer version."""

    code = "log.too_new"


class LogWarning(UserWarning):
    """Some bytes of the log could not be read; the rest was."""


class LoggedField(msgspec.Struct, frozen=True, array_like=True):
    """A request field and its type."""

    name: str
    dtype: Dtype


class LogSchema(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """What the positions of a record's `inputs`, `fields` and `views` mean.

    id: 60 bits of the digest of the rest; see `log_schema`.
    inputs: the model's inputs, in the order of its signature.
    categories: those inputs that are strings; the others are numbers.
    classes: of a multiclass model, in the order of a record's probabilities; empty for others.
    """

    id: int
    model: str
    version: str
    release: str
    deployment: str
    inputs: tuple[str, ...]
    categories: tuple[str, ...]
    fields: tuple[LoggedField, ...]
    views: tuple[str, ...]
    classes: tuple[str | int, ...] = ()


class LoggedPrediction(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """One scored row.

    schema: the id of the LogSchema of `inputs`, `fields` and `views`.
    prediction_id: made by the server, unique. request_id: the caller's, or made for it; a request may have many rows.
    at_us: the instant that the features are as of; recorded_at_us: the machine's time of the write.
    inputs: the model's inputs after enrichment, before encoding; None is missing.
    fields: the request's fields, timestamps as microseconds; None is missing.
    views: for each view (status, event time in microseconds or None).
    prediction: 0 or 1, or the value; of a multiclass model the place of the likeliest class.
    probability: P(positive), or the likeliest class's; None for a regression.
    degraded: what could not be asked while this was answered, empty when all is well.
    probabilities: of every class in order, as the bytes of little-endian float64; empty unless multiclass.
    """

    schema: int
    prediction_id: str
    request_id: str
    row: int
    caller: str
    arm: str
    at_us: int
    recorded_at_us: int
    inputs: tuple[Any, ...]
    fields: tuple[Any, ...]
    views: tuple[tuple[str, int | None], ...]
    prediction: float
    probability: float | None
    latency_ms: float
    degraded: tuple[str, ...] = ()
    probabilities: bytes = b""


@dataclass(frozen=True)
class Damage:
    """Bytes of a segment that are no record, with good records after them, or a whole record with a wrong checksum."""

    segment: str
    offset: int
    length: int


def log_schema(
    *,
    model: str,
    version: str,
    release: str,
    deployment: str,
    inputs: Sequence[str],
    categories: Iterable[str] = (),
    fields: Iterable[tuple[str, Dtype]] = (),
    views: Sequence[str] = (),
    classes: Sequence[str | int] = (),
) -> LogSchema:
    """A schema with its id."""
    parts: tuple[Any, ...] = (
        model,
        version,
        release,
        deployment,
        tuple(inputs),
        tuple(sorted(categories)),
        tuple(LoggedField(name, dtype) for name, dtype in fields),
        tuple(views),
    )
    if classes:
        parts += (tuple(classes),)
    return LogSchema(int(value_digest(parts)[:15], 16), *parts)


@dataclass
class Scan:
    """What was found of one segment besides its records. tail: bytes of a last write that was not finished."""

    damaged: list[Damage] = field(default_factory=list)
    tail: int = 0


def header() -> bytes:
    """What a segment begins with."""
    start = _MAGIC + FORMAT.to_bytes(2, "little")
    return start + zlib.crc32(start).to_bytes(4, "little")


def frame(payload: bytes) -> bytes:
    """An entry as it stands in a segment."""
    length = len(payload)
    return _FRAME.pack(length, zlib.crc32(payload, length)) + payload


def entries(segment: str, data: bytes, scan: Scan) -> Iterator[LogSchema | LoggedPrediction]:
    """Every readable entry of a segment's bytes, in order; `scan` is told what else is there.

    Raises LogTooNew for a format that this version does not know.
    """
    offset = _check_header(segment, data, scan)
    while offset < len(data):
        payload = _payload(data, offset)
        entry = _entry(payload) if payload is not None else None
        if payload is None or entry is None:
            following = _resync(data, offset + 1)
            if following is None and _is_torn(data, offset):
                scan.tail = len(data) - offset
                break
            end = len(data) if following is None else following
            scan.damaged.append(Damage(segment, offset, end - offset))
            offset = end
            continue
        yield entry
        offset += _FRAME.size + len(payload)


def count_records(data: bytes, offset: int) -> tuple[int, int]:
    """How many whole records lie from a frame's offset on, without looking into them, and where the first frame begins
    that is not whole; what is damaged ends the count."""
    end, found = len(data) - _FRAME.size, 0
    unpack = _FRAME.unpack_from
    while offset < end:
        length, _ = unpack(data, offset)
        start = offset + _FRAME.size
        if not 4 <= length <= _LARGEST or start + length > len(data):
            break
        found += data[start] == _MANY and data[start + 3] == 1
        offset = start + length
    return found, offset


_decode = msgspec.msgpack.Decoder(LogSchema | LoggedPrediction).decode


def _check_header(segment: str, data: bytes, scan: Scan) -> int:
    if len(data) < _HEADER.size:
        scan.tail = len(data)
        return len(data)
    magic, number, checksum = _HEADER.unpack_from(data)
    if magic != _MAGIC or checksum != zlib.crc32(data[:8]):
        scan.damaged.append(Damage(segment, 0, _HEADER.size))
    elif number > FORMAT:
        raise LogTooNew(
            f"log segment {segment} has format {number}; this version reads up to {FORMAT}.",
            state="Nothing was changed.",
            next="Update seatrial.",
        )
    return _HEADER.size


def _payload(data: bytes, offset: int) -> bytes | None:
    if offset + _FRAME.size > len(data):
        return None
    length, checksum = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if not 0 < length <= min(_LARGEST, len(data) - start):
        return None
    payload = data[start : start + length]
    return payload if zlib.crc32(payload, length) == checksum else None


def _entry(payload: bytes) -> LogSchema | LoggedPrediction | None:
    try:
        entry: LogSchema | LoggedPrediction = _decode(payload)
        return entry
    except msgspec.MsgspecError:
        return None


def _resync(data: bytes, offset: int) -> int | None:
    """The offset of the next whole, sound frame."""
    for candidate in range(offset, len(data) - _FRAME.size):
        payload = _payload(data, candidate)
        if payload is not None and _entry(payload) is not None:
            return candidate
    return None


def _is_torn(data: bytes, offset: int) -> bool:
    """Is the rest the beginning of a frame, or zeros, rather than a whole frame gone bad?"""
    rest = len(data) - offset
    if rest < _FRAME.size or not any(data[offset:]):
        return True
    length, _ = _FRAME.unpack_from(data, offset)
    return bool(_FRAME.size + length > rest and length <= _LARGEST)


def nameless(schema_id: int, row: LoggedPrediction) -> LogSchema:
    """A schema for records of which both copies of theirs are damaged: they are kept, their columns have no names."""
    inputs = tuple(f"unknown_{position}" for position in range(len(row.inputs)))
    fields = tuple(LoggedField(f"unknown_{position}", "string") for position in range(len(row.fields)))
    views = tuple(f"unknown_{position}" for position in range(len(row.views)))
    return LogSchema(schema_id, "unknown", "", "", "", inputs, inputs, fields, views)
