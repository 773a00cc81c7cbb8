from datetime import UTC, datetime

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.data.profile import MOST_VALUES, Profile, compare, profile


def notes(before, after, **given):
    return [
        (note.severity, note.about, note.column) for note in compare(*(profile(t, **given) for t in (before, after)))
    ]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.none() | st.floats(), st.none() | st.sampled_from("abc")), min_size=1), st.randoms())
def test_order_and_chunks_of_rows_do_not_change_a_profile_and_it_survives_json(rows, random):
    def table(rows):
        return pa.table(
            {"x": pa.array([x for x, _ in rows], pa.float64()), "t": pa.array([t for _, t in rows], pa.string())}
        )

    found = profile(table(rows))
    shuffled = random.sample(rows, len(rows))
    half = len(rows) // 2
    assert profile(pa.concat_tables([table(shuffled[:half]), table(shuffled[half:])])) == found
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(found)), Profile) == found
    values = [x for x, _ in rows if x is not None and x == x and abs(x) != float("inf")]
    assert (found.columns[0].low, found.columns[0].high) == (min(values, default=None), max(values, default=None))
    assert compare(found, found) == []


def test_columns_that_went_came_or_changed_type_are_told():
    before = pa.table({"gone": [1], "a": pa.array([1], pa.int64()), "b": [1]})
    after = pa.table({"a": pa.array([1], pa.int32()), "b": [2], "new": [1]})
    assert notes(before, after) == [("warn", "schema", "gone"), ("warn", "schema", "a"), ("info", "schema", "new")]


@pytest.mark.parametrize(
    ("rows", "told"), [(49, ["warn"]), (50, ["info"]), (89, ["info"]), (90, []), (200, []), (201, ["warn"])]
)
def test_volume_is_told_when_rows_went_missing_or_doubled(rows, told):
    tables = [pa.table({"a": list(range(n))}) for n in (100, rows)]
    assert [severity for severity, *_ in notes(*tables)] == told


@pytest.mark.parametrize(("day", "told"), [(1, ["warn"]), (2, ["info"]), (3, [])])
def test_the_newest_row_is_compared_with_the_last_one(day, told):
    tables = [pa.table({"at": pa.array([datetime(2013, 1, d, tzinfo=UTC)])}) for d in (2, day)]
    assert [severity for severity, *_ in notes(*tables, event_timestamp="at")] == told


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [(0, 1000, ["warn"]), (10, 90, ["warn"]), (10, 45, ["info"]), (10, 15, []), (500, 530, []), (500, 0, ["info"])],
)
def test_missing_values_are_told_when_they_moved_by_more_than_chance(was, now, told):
    tables = [pa.table({"a": pa.array([None] * n + [1] * (1000 - n), pa.int64())}) for n in (was, now)]
    assert [severity for severity, *_ in notes(*tables)] == told


def test_new_and_lost_categories_are_named_with_their_share():
    before = pa.table({"c": ["a"] * 990 + ["b"] * 10})
    found = compare(profile(before), profile(pa.table({"c": ["a"] * 980 + ["n"] * 20})))
    assert [(note.severity, note.words) for note in found] == [
        ("warn", "c has 'n' for the first time, in 2.0% of the rows"),
        ("info", "c no longer has 'b'"),
    ]
    many = pa.table({"c": [str(i) for i in range(MOST_VALUES + 1)] * 20})
    assert compare(profile(before), profile(many))[0].words == "c has more than 50 different values, it had 2"


@pytest.mark.parametrize(
    "column",
    [
        pa.nulls(2),
        pa.array([1.5, None], pa.float16()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([[1], None]),
        pa.array([True, None]),
        pa.array([b"a", None]),
        pa.array([0, 1], pa.timestamp("us")),
        pa.array([1, None], pa.decimal128(5, 2)),
        pa.array(["x" * 1000, "y"]),
        pa.array([2**64 - 1, 0], pa.uint64()),
    ],
    ids=lambda column: str(column.type),
)
def test_every_type_has_a_profile_that_is_plain_json(column):
    found = profile(pa.table({"a": column}))
    assert found.columns[0].nulls == column.null_count
    assert msgspec.json.decode(msgspec.json.encode(found), type=Profile) == found
    assert profile(pa.table({"a": column.slice(0, 0)})).rows == 0
