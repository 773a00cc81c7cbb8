"""Which arm does a request go to? The pure split: same key, same salt, same arm, everywhere.

A key falls into one of 10,000 buckets (0.01 % each) by a salted 64-bit BLAKE2b. An arm owns a range. Salting by
deployment makes two experiments independent of each other; growing an arm's share never moves a key that
is already in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

BUCKETS = 10_000


def bucket(salt: str, key: str) -> int:
    """The bucket of `key` in 0..9999.

    The 64-bit hash is scaled down by a multiplication, not a remainder; the bias is below 1e-15.
    """
    hashed = hashlib.blake2b(key.encode(), digest_size=8, key=salt.encode()[:64]).digest()
    return int.from_bytes(hashed, "big") * BUCKETS >> 64


def choose(shares: Sequence[int], position: int) -> int:
    """The index of the arm that owns bucket `position`.

    shares: buckets per arm, summing to 10,000. Arms are laid out in order from bucket 0.
    """
    end = 0
    for index, share in enumerate(shares):
        end += share
        if position < end:
            return index
    raise ValueError(f"shares sum to {end}, not to {BUCKETS}")
