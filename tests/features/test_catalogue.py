"""The catalogue: a search ranks where words stand; equal features are equal whatever they are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial import agg, sql
from seatrial.features.catalogue import Entry, first_of, identity, near, search

ENTRIES = [
    Entry("delay__mean", {"name": "delay__mean", "feature": "mean", "view": "delay", "description": "Minutes late."}),
    Entry(
        "taxi__mean", {"name": "taxi__mean", "feature": "mean", "view": "taxi", "description": "The delay on ground."}
    ),
    Entry("share", {"name": "share", "definition": "delay__mean / plan", "tags": "ratio"}),
]


def test_a_name_counts_more_than_a_description_and_every_word_must_be_there():
    assert [hit.name for hit in search("delay", ENTRIES)] == ["delay__mean", "share", "taxi__mean"]
    assert [hit.name for hit in search("Delay GROUND", ENTRIES)] == ["taxi__mean"]
    assert [hit.name for hit in search("taxi__mean", ENTRIES)] == ["taxi__mean"]
    assert search("delay xyz", ENTRIES) == search("", ENTRIES) == search("!", ENTRIES) == []


def test_a_hit_says_where_it_was_found():
    assert search("ratio", ENTRIES)[0].where == ["tags"]
    assert search("delay ground", ENTRIES)[0].where == ["description"]


def test_words_that_nobody_has_are_replaced_by_similar_ones():
    assert near("dealy meen", ENTRIES) == "delay mean"
    assert near("qqqqq", ENTRIES) == ""


@given(st.text(max_size=20))
def test_any_text_can_be_searched_for(text):
    assert {hit.name for hit in search(text, ENTRIES)} <= {entry.name for entry in ENTRIES}
    near(text, ENTRIES)


PAIRS = [
    (agg.mean("a", window="24h"), agg.mean("a", window="1d"), True),
    (agg.mean("a", window="24h"), agg.mean("a", window="23h"), False),
    (agg.mean("a", window="24h"), agg.sum("a", window="24h"), False),
    (agg.mean("a", window="24h"), agg.mean("b", window="24h"), False),
    (agg.mean("a", window="24h"), agg.mean("a", window="24h", resolution=0.01), False),
    (agg.mean(sql("a +  b"), window="1d"), agg.mean(sql("a + b"), window="1d"), True),
    (agg.mean(sql("a"), window="1d"), agg.mean("a", window="1d"), False),
    (agg.last("a"), agg.last("a"), True),
    (agg.last("a"), agg.last("a", window="7d"), False),
    (agg.age(unit="1h"), agg.age(unit="1d"), False),
    (agg.count(window="1d"), agg.count("a", window="1d"), False),
]


@pytest.mark.parametrize(("one", "other", "equal"), PAIRS)
def test_features_are_equal_when_they_are_computed_alike(one, other, equal):
    assert (identity(["k"], "rows", None, one) == identity(["k"], "rows", None, other)) is equal
    assert identity(["k"], "rows", None, one) != identity(["k", "l"], "rows", None, one)
    assert identity(["k"], "rows", None, one) != identity(["k"], "other rows", None, one)


def test_a_ttl_makes_a_difference_only_where_it_bounds_the_feature():
    bounded, windowed = agg.last("a"), agg.mean("a", window="1d")
    assert identity(["k"], "rows", 1, bounded) != identity(["k"], "rows", 2, bounded)
    assert identity(["k"], "rows", 1, windowed) == identity(["k"], "rows", 2, windowed)


def test_the_first_of_equal_ones_is_the_one_to_use():
    assert first_of([("a", {"1"}), ("b", {"2"}), ("c", {"1", "3"}), ("d", {"3"})]) == {"c": "a", "d": "a"}
