"""Names that cannot collide: content digests, canonical JSON and time-ordered ids.

A content id (`snap_`, `tset_`, `rel_`) is a prefix and the first 32 hex digits of BLAKE3 over canonical
bytes: equal content, equal id, on any machine. Every other id is a prefix and a version-7 UUID (RFC 9562),
which sorts by the time of its making.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import blake3
import msgspec

from seatrial.core.clock import machine_us

DIGEST_ALGORITHM = "blake3"

_lock = threading.Lock()
_last = 0
_POOL_BYTES = 2048
_pool = bytearray()
os.register_at_fork(after_in_child=_pool.clear)  # a child must not make its parent's ids


def digest(data: bytes) -> str:
    """BLAKE3-256 of `data`, 64 hex digits."""
    return blake3.blake3(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys, no spaces and shortest floats: equal values give equal bytes.

    NaN and infinities are written as null by msgspec; do not put them where the difference matters.
    """
    return msgspec.json.encode(value, order="deterministic")


def content_id(prefix: str, data: bytes) -> str:
    """`prefix_` and 32 hex digits (128 bits) of the digest of `data`."""
    return f"{prefix}_{digest(data)[:32]}"


def value_digest(value: Any) -> str:
    """The digest of a plain value through its canonical JSON."""
    return digest(canonical_json(value))


def new_id(prefix: str) -> str:
    """`prefix_` and a fresh version-7 UUID; ids made by one process sort in the order of their making."""
    return f"{prefix}_{uuid7()}"


def uuid7() -> str:
    """A version-7 UUID: 48 bits of milliseconds, 12 bits within the millisecond, 62 random bits.

    Within a process the first 60 bits strictly increase, even when the clock steps back
    (RFC 9562 section 6.2, method 3).
    """
    global _last
    us = machine_us()
    stamp = (us // 1000 << 12) | (us % 1000 * 4096 // 1000)
    with _lock:
        _last = stamp = max(stamp, _last + 1)
        if len(_pool) < 8:
            _pool.extend(os.urandom(_POOL_BYTES))  # one call for many ids: each prediction makes one
        random = int.from_bytes(_pool[-8:], "big") & ((1 << 62) - 1)
        del _pool[-8:]
    value = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | random
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
