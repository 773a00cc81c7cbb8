import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.monitoring.rows.reference import (
    Categories,
    Numbers,
    ProfileTooNew,
    Reference,
    codes,
    profile_of,
    values_of,
)
from seatrial.stats.profile import category_profile, codes_of
from seatrial.training.profile import reference_profile

RANDOM = np.random.default_rng(3)
TIME = pa.timestamp("us", tz="UTC")
texts = st.lists(st.none() | st.sampled_from("abcdeßé☃") | st.text(max_size=2), max_size=60)


def instants(us, kind=TIME):
    return pa.array(us, pa.int64()).cast(TIME).cast(kind)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 60), st.sampled_from(["plain", "large", "dictionary"]))
def test_strings_are_counted_in_arrow_as_they_are_one_by_one(found, cut, form):
    found = [None if text is None else text.encode("utf-8", "ignore").decode() for text in found]
    column = pa.chunked_array([found[:cut], found[cut:]], pa.string())
    column = {"plain": column, "large": column.cast(pa.large_string()), "dictionary": column.dictionary_encode()}[form]
    expected = category_profile(np.array(found, dtype=object))
    assert profile_of(column, None) == expected
    assert list(profile_of(column, None)["values"]) == list(expected["values"])
    if form != "dictionary":
        known = dict.fromkeys(list(expected["values"])[:2], 1)
        assert codes(column, known).tolist() == codes_of(np.array(found, dtype=object), known).tolist()


def test_of_many_values_the_most_frequent_are_kept():
    column = pa.chunked_array([[f"v{place % 300:03}" for place in range(1000)]])
    found = profile_of(column, None)
    assert (len(found["values"]), found["distinct"], found["other"]) == (200, 300, 300)
    assert Reference.from_table(pa.table({"feature_x": column})).columns["x"].complete is False


def test_the_profile_of_a_release_and_its_rows_make_the_same_reference():
    at_us = np.arange(2100) * (5 * 7 * 86_400_000_000 // 2000)
    inputs = {
        "x": np.where(RANDOM.random(2100) < 0.1, np.nan, RANDOM.normal(size=2100)),
        "c": np.array([["a", "b", None][place % 3] for place in range(2100)], dtype=object),
    }
    scores = RANDOM.random(2100)
    profile = reference_profile("binary", inputs, scores, (scores > 0.5).astype(float), at_us)
    stored = Reference.from_profile(json.loads(json.dumps(profile, allow_nan=False)))
    columns = {f"feature_{name}": pa.array(values, from_pandas=True) for name, values in inputs.items()}
    read = Reference.from_table(pa.table({"at": instants(at_us), "score": scores} | columns))
    for one, other in ((stored.columns["x"], read.columns["x"]), (stored.scores, read.scores)):
        assert isinstance(one, Numbers)
        assert one.counts.tolist() == other.counts.tolist()
        assert one.cuts.tolist() == other.cuts.tolist()
        assert (one.low, one.high, one.missing, one.tolerated) == (
            other.low,
            other.high,
            other.missing,
            other.tolerated,
        )
    assert isinstance(stored.columns["c"], Categories)
    assert stored.columns["c"] == read.columns["c"]
    assert stored.rows_per_day == read.rows_per_day == pytest.approx(57.2, rel=0.01)


def test_the_outer_bins_lie_outside_the_range():
    column = Reference.from_table(pa.table({"feature_x": RANDOM.random(1000)})).columns["x"]
    assert column.counts[0] == column.counts[-1] == 0
    assert column.counts.sum() == column.rows == 1000
    assert column.cuts.size == column.counts.size - 1
    assert column.cuts[0] == column.low
    assert column.cuts[-1] == np.nextafter(column.high, np.inf)


def test_a_profile_that_an_older_version_wrote_is_read():
    old = {"type": "numeric", "count": 3, "missing": 0, "mean": 3.0, "std": 0.0, "min": 3.0, "max": 3.0}
    old |= {"edges": [3.0], "counts": [3]}
    found = Reference.from_profile({"format": 1, "rows": 3, "inputs": {"x": old}})
    assert found.columns["x"].counts.tolist() == [0, 3, 0]
    assert (found.columns["x"].tolerated, found.scores, found.rows_per_day) == (0.05, None, None)


def test_a_newer_profile_is_refused_by_name():
    with pytest.raises(ProfileTooNew, match="format 2"):
        Reference.from_profile({"format": 2})


@pytest.mark.parametrize("rows", [0, 1])
def test_a_reference_of_no_row_or_one_is_no_error(rows):
    table = pa.table(
        {
            "feature_x": pa.array([1.0] * rows, pa.float64()),
            "feature_c": pa.array(["a"] * rows, pa.string()),
            "feature_n": pa.nulls(rows),
            "score": pa.array([0.5] * rows, pa.float64()),
            "at": instants([0] * rows),
        }
    )
    found = Reference.from_table(table)
    assert (found.rows, list(found.columns)) == (rows, ["x", "c", "n"])
    assert found.columns["x"].rows == rows
    assert found.columns["n"].missing == rows


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_read_in_any_unit_and_rows_without_one_are_left_out(unit):
    at = instants([0, None, 2 * 86_400_000_000], pa.timestamp(unit, tz="UTC"))
    found = Reference.from_table(pa.table({"feature_x": [1.0, 2.0, 3.0], "at": at}))
    assert (found.rows, found.columns["x"].rows, found.rows_per_day) == (2, 2, 1.0)


def test_columns_may_be_called_as_they_are():
    table = pa.table({"size": [1.0, 2.0], "feature_kind": ["a", "b"], "other": [1, 2]})
    assert list(Reference.from_table(table, ["size", "kind"]).columns) == ["size", "kind"]
    assert list(Reference.from_table(table).columns) == ["kind"]


def test_values_are_numbers_with_nan_or_texts_with_none():
    assert values_of(pa.chunked_array([["a", None]])).tolist() == ["a", None]
    assert values_of(pa.chunked_array([pa.array(["a", None]).dictionary_encode()])).tolist() == ["a", None]
    for column in ([1, None], [True, None], [1.0, None]):
        found = values_of(pa.chunked_array([pa.array(column)]))
        assert (found.dtype, found[0], bool(np.isnan(found[1]))) == (np.float64, 1.0, True)
