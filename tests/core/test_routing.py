"""The split: sticky, even, independent between salts, and monotone as an arm grows."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core.routing import BUCKETS, bucket, choose


@given(st.text(max_size=30), st.text(max_size=30))
def test_a_key_has_one_bucket(salt, key):
    assert bucket(salt, key) == bucket(salt, key)
    assert 0 <= bucket(salt, key) < BUCKETS


def test_a_bucket_is_what_the_documented_hash_says():
    for key in ("UA", "", "ü"):
        hashed = hashlib.blake2b(key.encode(), digest_size=8, key=b"dep_1").digest()
        assert bucket("dep_1", key) == int.from_bytes(hashed, "big") * 10_000 // 2**64


@pytest.mark.parametrize("share", [100, 2500, 5000])
def test_an_arm_gets_its_share(share):
    keys = 20_000
    hits = sum(choose([share, BUCKETS - share], bucket("salt", str(key))) == 0 for key in range(keys))
    expected = keys * share / BUCKETS
    assert abs(hits - expected) < 5 * (expected * (1 - share / BUCKETS)) ** 0.5


def test_two_salts_split_independently():
    keys = 20_000
    both = sum(bucket("a", str(key)) < 5000 and bucket("b", str(key)) < 5000 for key in range(keys))
    assert abs(both - keys / 4) < 5 * (keys * 0.25 * 0.75) ** 0.5


@given(st.integers(0, BUCKETS), st.integers(0, BUCKETS), st.integers(0, BUCKETS - 1))
def test_a_key_in_an_arm_stays_there_while_it_grows(one, other, position):
    small, large = sorted((one, other))
    if choose([small, BUCKETS - small], position) == 0:
        assert choose([large, BUCKETS - large], position) == 0


@given(st.lists(st.integers(0, BUCKETS), max_size=5))
def test_arms_lie_in_order_and_cover_every_bucket(cuts):
    edges = [0, *sorted(cuts), BUCKETS]
    shares = [high - low for low, high in itertools.pairwise(edges)]
    for arm, (low, high) in enumerate(itertools.pairwise(edges)):
        if low < high:
            assert choose(shares, low) == choose(shares, high - 1) == arm


def test_a_bucket_that_no_arm_owns_is_an_error():
    with pytest.raises(ValueError, match="9999"):
        choose([5000, 4999], 9999)
