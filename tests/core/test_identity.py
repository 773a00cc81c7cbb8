"""Ids: equal content gives equal ids, and fresh ones neither collide nor go back."""

from __future__ import annotations

import re
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.core import identity
from seatrial.core.identity import canonical_json, content_id, digest, new_id, uuid7, value_digest

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("abü☃"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
)


@given(st.dictionaries(st.text("abcd", max_size=3), plain, max_size=6), st.randoms())
def test_the_order_of_keys_does_not_change_a_digest(value, random):
    keys = list(value)
    random.shuffle(keys)
    assert value_digest({key: value[key] for key in keys}) == value_digest(value)


@pytest.mark.parametrize(
    ("one", "other"), [(1, 1.0), (1, "1"), (0.1, 0.1 + 1e-16), ([], {}), ([1, 2], [2, 1]), (None, "")]
)
def test_values_that_differ_have_digests_that_differ(one, other):
    assert value_digest(one) != value_digest(other)


def test_canonical_json_is_sorted_and_tight():
    assert canonical_json({"b": 0.1, "a": [1, None, True, "ü"]}) == '{"a":[1,null,true,"ü"],"b":0.1}'.encode()


def test_a_digest_is_blake3():
    # the test vector of an empty input in the specification of BLAKE3
    assert digest(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_content_id_is_a_prefix_and_128_bits_of_content():
    assert content_id("snap", b"") == "snap_af1349b9f5f9a1a6a0404dea36dcc949"
    assert content_id("snap", b"a") != content_id("snap", b"b")


def test_fresh_ids_of_one_process_are_version_7_and_sort_by_their_making():
    made = [uuid7() for _ in range(5000)]
    assert made == sorted(set(made))
    assert {uuid.UUID(one).version for one in made} == {7}
    assert {uuid.UUID(one).variant for one in made} == {uuid.RFC_4122}


def test_fresh_ids_of_many_threads_do_not_collide():
    with ThreadPoolExecutor(8) as pool:
        made = [one for many in pool.map(lambda _: [uuid7() for _ in range(1000)], range(8)) for one in many]
    assert len(set(made)) == 8000


def test_fresh_ids_rise_while_the_clock_goes_back(monkeypatch):
    before = uuid7()
    monkeypatch.setattr(identity, "machine_us", lambda: 0)
    assert before < uuid7() < uuid7()


def test_a_fresh_id_has_the_prefix_of_its_kind():
    assert re.fullmatch(r"run_[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", new_id("run"))
