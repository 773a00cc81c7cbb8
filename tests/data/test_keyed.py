import json
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.data.keyed import KeyNotUnique, KeyUnknown, by_first_key, by_key

ROWS = st.dictionaries(
    st.tuples(st.integers(0, 4), st.sampled_from("ab")), st.none() | st.sampled_from([0.0, -0.0, 1.0, float("nan")])
)


def table(rows):
    keys = list(rows)
    return pa.table(
        {
            "n": pa.array([n for n, _ in keys], pa.int64()),
            "t": pa.array([t for _, t in keys], pa.string()),
            "x": pa.array([rows[key] for key in keys], pa.float64()),
        }
    )


def same(a, b):
    return a == b or (a is not None and b is not None and a != a and b != b)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS)
def test_every_row_is_added_removed_changed_or_unchanged_wherever_it_stands(before, after):
    found = by_key(table(before), table(after), ["n", "t"])
    both = before.keys() & after.keys()
    changed = [key for key in after if key in both and not same(before[key], after[key])]
    assert (found.added, found.removed) == (len(after.keys() - both), len(before.keys() - both))
    assert (found.changed, found.unchanged) == (len(changed), len(both) - len(changed))
    shown = [(key["n"], key["t"]) for column in found.columns for key, _, _ in column.examples]
    assert shown == changed[:5]
    assert [(key["n"], key["t"]) for key in found.came] == [key for key in after if key not in both][:5]
    assert [(key["n"], key["t"]) for key in found.went] == [key for key in before if key not in both][:5]
    json.dumps(found.as_plain())


def test_the_words_name_the_key_and_the_cells():
    before = pa.table({"id": [1, 2, 3], "v": ["a", "b", "c"], "l": [[1], [2], [3]]})
    after = pa.table({"id": [4, 3, 2], "v": ["d", "c", "B"], "l": [[4], [3, 3], [2]]})
    assert by_key(before, after, ["id"]).lines() == [
        "by id: 1 row added, 1 removed, 2 changed, 0 unchanged",
        "changed: v, in 1 row",
        "  id=2: 'b' -> 'B'",
        "changed: l, in 1 row",
        "  id=3: [3] -> [3, 3]",
        "added: id=4",
        "removed: id=1",
    ]


@pytest.mark.parametrize(
    ("before", "after", "error", "words"),
    [
        ({"a": [1]}, {"id": [1]}, KeyUnknown, "no column 'id'"),
        ({"id": [1]}, {"id": ["1"]}, KeyUnknown, "int64 in one snapshot and string in the other"),
        ({"id": [1]}, {"id": [1, 1, 1]}, KeyNotUnique, "second snapshot once: 2 rows repeat it"),
        ({"id": [1, None]}, {"id": [1]}, KeyNotUnique, "first snapshot once: id has no value in 1 rows"),
    ],
)
def test_a_key_that_cannot_tell_rows_apart_is_refused(before, after, error, words):
    with pytest.raises(error, match=words):
        by_key(pa.table(before), pa.table(after), ["id"])


def test_the_first_key_that_names_each_row_is_taken_and_none_when_no_one_does():
    before = pa.table({"id": [1, 1, 2], "at": [1, 2, 1], "v": [1, 2, 3]})
    after = before.slice(1)
    found = by_first_key(before, after, [("gone",), ("id",), ("id", "at")])
    assert (found.key, found.removed, found.changed, found.unchanged) == (("id", "at"), 1, 0, 2)
    assert by_first_key(before, after, [("id",)]) is None


def test_times_are_told_as_times():
    at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2)]
    lines = by_key(pa.table({"id": [1], "at": at[:1]}), pa.table({"id": [1], "at": at[1:]}), ["id"]).lines()
    assert "  id=1: 2024-01-01T00:00:00Z -> 2024-01-02T00:00:00Z" in lines
