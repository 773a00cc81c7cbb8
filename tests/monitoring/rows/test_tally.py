import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.monitoring.looks.drift import drift
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.tally import add_up, tallies, tally

RANDOM = np.random.default_rng(21)
NUMBERS = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True), st.integers(-3, 3).map(float))


def a_table(count=3000, *, shift=0.0):
    gaps = RANDOM.random(count) < 0.1
    return pa.table(
        {
            "feature_size": pa.array(RANDOM.normal(shift, size=count), mask=gaps),
            "feature_weight": pa.array(RANDOM.normal(size=count), mask=gaps),
            "feature_kind": pa.array(["a", "b", "c"] * (count // 3)),
            "score": RANDOM.random(count),
        }
    )


REFERENCE = Reference.from_table(a_table())


@settings(max_examples=80, deadline=None)
@given(st.lists(NUMBERS, max_size=40), st.lists(NUMBERS, max_size=40), st.lists(st.floats(-9, 9), min_size=1))
def test_two_tallies_add_up_to_that_of_both(one, other, before):
    column = Reference.from_table(pa.table({"feature_x": pa.array(before, pa.float64())})).columns["x"]
    parts = [pa.chunked_array([pa.array(values, pa.float64())]) for values in (one, other)]
    whole = tally(pa.chunked_array([chunk for part in parts for chunk in part.chunks], pa.float64()), column)
    found = tally(parts[0], column) + tally(parts[1], column)
    for name in ("total", "missing", "text", "finite", "infinite", "outside"):
        assert getattr(found, name) == getattr(whole, name)
    np.testing.assert_array_equal(found.counts, whole.counts)
    np.testing.assert_equal((found.low, found.high), (whole.low, whole.high))
    for name in ("below", "above"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), rel=1e-9)
    if whole.mean is not None and found.mean is not None and max(-whole.low, whole.high) < 1e290:
        assert found.mean == pytest.approx(whole.mean, rel=1e-6, abs=1e-9 * max(abs(whole.low), abs(whole.high), 1))


def test_rows_in_batches_give_the_drift_of_all_rows_at_once():
    now = a_table(9000, shift=0.3)
    cut = [now.slice(first, size) for first, size in ((0, 10), (10, 0), (10, 5000), (5010, 3990))]
    at_once, in_batches = tallies(now, REFERENCE), add_up(cut, REFERENCE)
    assert in_batches.patterns == at_once.patterns
    one, other = drift(at_once, REFERENCE), drift(in_batches, REFERENCE)
    assert [column.name for column in one.columns if column.drifted] == ["size"]
    for a, b in zip([*one.columns, one.prediction], [*other.columns, other.prediction], strict=True):
        assert (a.name, a.value, a.p_value, a.missing) == (b.name, b.value, b.p_value, b.missing)
        assert b.distances == pytest.approx(a.distances)


def test_a_batch_that_is_counted_in_steps_gives_what_one_step_gives(monkeypatch):
    now = a_table(3000, shift=0.3).append_column(
        "at", pa.array(RANDOM.integers(0, 40, 3000), pa.timestamp("us", "UTC"))
    )
    whole = add_up([now], REFERENCE)
    monkeypatch.setattr("seatrial.monitoring.rows.tally.STEP", 701)
    found = add_up([now], REFERENCE)
    assert found.patterns == whole.patterns != {}
    assert found.repeated == whole.repeated
    for name, column in whole.columns.items():
        np.testing.assert_array_equal(found.columns[name].counts, column.counts)
        assert found.columns[name].missing == column.missing
    np.testing.assert_array_equal(found.scores.counts, whole.scores.counts)


def test_no_row_is_a_tally_of_nothing():
    found = tallies(a_table().slice(0, 0), REFERENCE)
    assert (found.rows, found.columns["size"].total, found.patterns) == (0, 0, {})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 6), st.integers(0, 2**32))
def test_columns_that_go_missing_together_are_counted_as_a_loop_would(count, wide, seed):
    masks = np.random.default_rng(seed).random((wide, count)) < 0.4
    table = pa.table({f"feature_c{n}": pa.array(np.zeros(count), mask=mask) for n, mask in enumerate(masks)})
    expected = {}
    for row in masks.T:
        names = tuple(f"c{n}" for n in np.flatnonzero(row))
        if len(names) > 1:
            expected[names] = expected.get(names, 0) + 1
    assert tallies(table, Reference.from_table(table)).patterns == expected


def test_of_ever_new_patterns_only_the_frequent_ones_are_kept():
    masks = RANDOM.random((20, 60_000)) < 0.5
    masks[:, :20_000] = np.arange(20)[:, None] < 3
    table = pa.table({f"feature_c{n:02}": pa.array(np.zeros(60_000), mask=mask) for n, mask in enumerate(masks)})
    found = tallies(table, Reference.from_table(table)).patterns
    assert list(found) == [("c00", "c01", "c02")]
    assert 20_000 <= next(iter(found.values())) < 20_010


def test_a_dictionary_of_strings_is_counted_by_its_words():
    words = pa.chunked_array([pa.array(["a", None, "new", "b"] * 50), pa.array(["b", "c"] * 50)])
    encoded = pa.chunked_array([chunk.dictionary_encode() for chunk in words.chunks])
    one, other = (tally(values, REFERENCE.columns["kind"]) for values in (words, encoded))
    np.testing.assert_array_equal(one.counts, other.counts)
    assert (one.total, one.missing, one.text) == (other.total, other.missing, other.text) == (300, 50, True)
    dark = pa.chunked_array([pa.array([None, None], pa.string()).dictionary_encode()])
    assert tally(dark, REFERENCE.columns["kind"]).missing == 2
