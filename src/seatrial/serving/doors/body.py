"""The body of a request at the doors beside the native one: unpacked, and read as strict JSON.

A packed body is unpacked no further than to the size that the server takes, so that a small body cannot fill its
memory. JSON is read as `serving.scoring.requests` reads it: no key twice, no NaN where the door does not say so, no
number that takes long to read, no depth that a stack does not hold.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from typing import Any

from seatrial.core.errors import UsageError
from seatrial.serving.doors.http import BodyEncoded, body_too_large
from seatrial.serving.scoring.requests import DuplicateKey, NotJson, NumberOutOfRange

_NOTHING = "Nothing was predicted."
_GZIP = 16 + zlib.MAX_WBITS
_MOST_PARTS = 16
_LONGEST_WHOLE = 40
"""Digits of a whole number that are read; the value of a longer one does not matter, and reading it takes long."""


class NotUnpacked(UsageError):
    """A body is not packed as its Content-Encoding says."""

    code = "http.body_not_unpacked"


_MAY_BE_TOO_LARGE = re.compile(rb"\d[eE]|\d{309}").search


def unpacked(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body as it was before it was packed.

    encoding: the header Content-Encoding; empty: it was not packed. limit: bytes, of the result.
    Raises BodyEncoded for another encoding than gzip and deflate, NotUnpacked, BodyTooLarge.
    """
    match encoding.strip().lower():
        case b"" | b"identity":
            return body
        case b"gzip" | b"x-gzip":
            windows = [_GZIP]
        case b"deflate":  # in zlib's frame, as the standard says, or bare, as some senders do
            windows = [zlib.MAX_WBITS, -zlib.MAX_WBITS]
        case _:
            raise BodyEncoded(
                "the body is packed in a way that is not known.", expected="gzip and deflate are.", state=_NOTHING
            )
    for window in windows:
        try:
            return _unpacked(body, window, limit)
        except zlib.error:
            continue
    raise NotUnpacked("the body is not packed as its Content-Encoding says, or not whole.", state=_NOTHING)


def packed(body: bytes, accepted: bytes) -> tuple[bytes, bytes]:
    """An answer as its caller would have it, and the Content-Encoding of that; empty: as it is.

    accepted: the header Accept-Encoding.
    """
    named = {}
    for part in accepted.lower().split(b","):
        name, _, weight = part.partition(b";")
        named[name.strip()] = not weight.replace(b" ", b"").strip(b"0.").endswith(b"q=")
    if named.get(b"gzip"):
        return gzip.compress(body, 1, mtime=0), b"gzip"
    if named.get(b"deflate"):
        return zlib.compress(body, 1), b"deflate"
    return body, b""


def strict_json(body: bytes, *, nan: bool = False) -> Any:
    """The document of a body; an integer beyond 40 digits is 10^40.

    nan: NaN, which pandas writes for what is missing, is read as null.
    Raises NotJson, DuplicateKey, or NumberOutOfRange for a number that is beyond what a float holds.
    """
    try:
        found = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_missing if nan else _refuse,
            parse_int=_whole,
            parse_float=_finite if _MAY_BE_TOO_LARGE(body) else None,
        )
    except RecursionError:
        raise NotJson("the body is nested too deeply.", state=_NOTHING) from None
    except ValueError:
        raise _not_json() from None
    if b"\\u" in body and not _encodable(found):
        raise _not_json()
    return found


def _unpacked(body: bytes, window: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size, rest = 0, body
    while rest:  # a gzip file may be several, one behind the other
        if len(parts) == _MOST_PARTS:  # each costs a copy of what follows
            raise zlib.error("too many")
        reader = zlib.decompressobj(window)
        parts.append(reader.decompress(rest, limit + 1 - size))
        size += len(parts[-1])
        if size > limit:
            raise body_too_large(limit)
        if not reader.eof:
            raise zlib.error("not whole")
        rest = reader.unused_data
    if not parts:
        raise zlib.error("empty")
    return b"".join(parts)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DuplicateKey(
            "an object of the body holds a key more than once.",
            expected="Which one is meant cannot be known.",
            state=_NOTHING,
        )
    return found


def _missing(name: str) -> None:
    if name != "NaN":
        raise ValueError


def _refuse(_name: str) -> None:
    raise ValueError


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise NumberOutOfRange("the body holds what is no finite number of 64 bits.", state=_NOTHING)
    return number


def _whole(digits: str) -> int:
    if len(digits) <= _LONGEST_WHOLE:
        return int(digits)
    huge: int = 10**_LONGEST_WHOLE
    return -huge if digits[0] == "-" else huge


def _encodable(found: Any) -> bool:
    """Whether no string holds half of a surrogate pair, which UTF-8 does not know."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _not_json() -> NotJson:
    return NotJson("the body is not JSON.", expected="JSON in UTF-8 is expected.", state=_NOTHING)
