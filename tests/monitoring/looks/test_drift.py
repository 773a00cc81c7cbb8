import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.monitoring.looks.drift import column_drift, drift
from seatrial.monitoring.rows.reference import Reference
from seatrial.stats.distances import kolmogorov_smirnov_exact, total_variation
from tests.monitoring.worlds import watched_memory

RANDOM = np.random.default_rng(11)


def reference(values, **given):
    return Reference.from_table(pa.table({"feature_x": values}), **given)


def moved(before, after, **given):
    """The drift of one column, from the reference's values to those of the window."""
    return column_drift("x", chunked(after), reference(chunked(before)).columns["x"], **given)


def chunked(values):
    return values if isinstance(values, pa.ChunkedArray) else pa.chunked_array([pa.array(values, from_pandas=True)])


def words(counts):
    return chunked([word for word, count in counts.items() for _ in range(count)])


@pytest.mark.parametrize(("shift", "drifted"), [(0.0, False), (0.1, False), (0.2, True), (0.5, True)])
def test_numbers_are_compared_as_the_exact_statistic_does_to_a_bin(shift, drifted):
    """A shift of 0.1 is a distance of 0.04: of so many rows it is sure, and too small to be told."""
    before, after = RANDOM.normal(size=100_000), RANDOM.normal(shift, size=50_000)
    found = moved(before, after)
    exact = kolmogorov_smirnov_exact(before, after)
    assert exact - 0.0101 <= found.value <= exact
    assert found.drifted == drifted
    assert (found.p_value < 1e-6) == (shift > 0)
    assert (found.rows, found.reference_rows, found.distance) == (50_000, 100_000, "ks")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=200, max_size=300), st.lists(st.integers(-2, 6), min_size=200, max_size=300)
)
def test_of_tied_values_the_statistic_is_within_a_bin_of_the_exact_one_also_out_of_range(before, after):
    before, after = np.array(before, dtype=float), np.array(after, dtype=float)
    exact = kolmogorov_smirnov_exact(before, after)
    assert exact - 0.021 <= moved(before, after).value <= exact + 1e-12


def test_a_change_within_zeros_is_seen():
    before = np.where(RANDOM.random(5000) < 0.9, 0.0, RANDOM.exponential(size=5000))
    after = np.where(RANDOM.random(5000) < 0.7, 0.0, RANDOM.exponential(size=5000))
    found = moved(before, after)
    assert found.drifted
    assert found.value == pytest.approx(0.2, abs=0.03)


def test_values_beyond_the_range_of_the_reference_have_moved():
    before = RANDOM.random(5000)
    for after, outside in ((before + 5, 1.0), (before - 5, 1.0)):
        found = moved(before, after)
        assert (found.value, found.unseen, found.drifted) == (1.0, outside, True)
    half = moved(before, np.concatenate([before, np.full(5000, 9.0)]))
    assert (half.unseen, half.value) == (0.5, pytest.approx(0.5))


@pytest.mark.parametrize("other", [-1.0, 4.0, 3.0000001, np.inf])
def test_a_constant_that_becomes_another_has_moved(other):
    same, changed = moved([3.0] * 500, [3.0] * 500), moved([3.0] * 500, [other] * 500)
    assert (same.value, same.drifted, same.note) == (0.0, False, "one and the same value")
    assert (changed.value, changed.drifted, changed.unseen) == (1.0, True, 1.0)


def test_zeros_that_become_a_value_below_the_range_have_moved():
    before = np.concatenate([np.zeros(900), RANDOM.random(100)])
    after = np.where(before == 0, -1.0, before)
    assert moved(before, after).value == pytest.approx(0.9)


def test_infinities_are_values_and_are_told():
    after = np.concatenate([RANDOM.normal(size=1000), [np.inf] * 500, [-np.inf]])
    found = moved(RANDOM.normal(size=5000), after)
    assert found.drifted
    assert found.note == "501 infinite values"
    assert found.mean == pytest.approx(0, abs=0.2)
    assert moved(after, after).value == 0.0


def test_categories_are_compared_by_total_variation():
    before, after = {"a": 500, "b": 300, "c": 200}, {"a": 300, "b": 300, "c": 400}
    found = moved(words(before), words(after))
    assert found.value == total_variation(np.array([*before.values()]), np.array([*after.values()]))
    assert (found.value, found.drifted, found.distance) == (pytest.approx(0.2), True, "tv")


def test_a_category_never_seen_counts_as_moved_rows():
    found = moved(words({"a": 500, "b": 500}), words({"a": 450, "b": 450, "new": 100}))
    assert (found.unseen, found.value) == (0.1, pytest.approx(0.1))
    assert found.drifted


def test_with_more_values_than_are_kept_nobody_can_say_what_is_unseen():
    before = {f"v{number:03}": 400 - number for number in range(300)}
    found = moved(words(before), words(before | {"new": 900}))
    assert found.unseen == 0.0
    assert found.note == "134 values are compared one by one, all others (40.5% of the reference) as one"


@pytest.mark.parametrize(("values", "rows", "window"), [(201, 2000, 1000), (300, 2000, 5000), (1000, 10000, 1000)])
def test_more_values_than_are_kept_used_alike_are_not_taken_for_drift(values, rows, window):
    """Those kept are the luckiest ones of the reference: compared one by one they would always seem to have fallen."""
    random = np.random.default_rng(values)
    for _ in range(10):
        before, after = (
            pa.chunked_array([[f"v{n}" for n in random.integers(values, size=size)]]) for size in (rows, window)
        )
        found = moved(before, after)
        assert not found.drifted
        assert found.value is None or found.value < 0.1


def test_values_that_nothing_tells_apart_are_said_not_to_be_compared():
    found = moved(words({f"v{n}": 10 for n in range(300)}), words({"v7": 500}))
    assert (found.value, found.drifted, found.distances) == (None, False, {})
    assert found.note == "more than 200 values, used too evenly to be told apart: not compared"


def test_a_frequent_value_among_very_many_is_still_compared():
    rare = {f"v{n}": 3 for n in range(1000)}
    found = moved(words(rare | {"big": 3000}), words(rare | {"big": 1000}))
    assert found.drifted
    assert found.value == pytest.approx(0.25)


def test_rare_values_of_a_small_window_raise_no_false_alarm():
    shares = 1 / np.arange(1, 202)
    shares /= shares.sum()
    whole = RANDOM.multinomial(100_000, shares)
    column = reference(words({f"v{place:03}": int(count) for place, count in enumerate(whole)})).columns["x"]
    names = pa.array([f"v{place:03}" for place in range(201)])
    alarms = 0
    for _ in range(400):
        drawn = names.take(pa.array(RANDOM.choice(201, 200, p=shares)))
        alarms += column_drift("x", chunked(drawn), column).drifted
    assert alarms <= 3  # 0.4 expected; 7 and more when every rare value counts by itself


def test_dictionaries_integers_and_booleans_are_compared_like_what_they_hold():
    text = words({"a": 300, "b": 300})
    encoded = pa.chunked_array([text.combine_chunks().dictionary_encode(), pa.array(["b"]).dictionary_encode()])
    assert moved(text, encoded).value == pytest.approx(0.5 / 601, abs=1e-9)
    assert moved(encoded, text.cast(pa.large_string())).value == pytest.approx(0.5 / 601, abs=1e-9)
    assert moved([1, 2, 3] * 100, [1.0, 2.0, 3.0] * 100).value == 0.0
    flags = moved([True, False] * 200, [True, True, True, False] * 100)
    assert (flags.kind, flags.value) == ("number", pytest.approx(0.25))
    big = moved([2**60 + 1, None] * 300, [2**60 + 1, None] * 300)
    assert (big.value, big.missing) == (0.0, 0.5)


def test_text_where_the_reference_has_numbers_is_told_and_not_compared():
    for before, after, note in (
        (RANDOM.random(300), words({"a": 300}), "text where the reference has numbers: not compared"),
        (words({"a": 300}), RANDOM.random(300), "numbers where the reference has text: not compared"),
    ):
        found = moved(before, after)
        assert (found.value, found.p_value, found.drifted, found.note) == (None, None, False, note)


def test_a_column_without_a_value_is_told_in_every_type():
    for empty in ([None] * 300, chunked(pa.nulls(300)), chunked(pa.nulls(300, pa.string())), [np.nan] * 300):
        for before in (RANDOM.random(300), words({"a": 300})):
            found = moved(before, empty)
            assert (found.value, found.missing, found.drifted) == (None, 1.0, False)
            assert found.note == "every value is missing; not enough data: 0 of 200 rows"
    assert moved([np.nan] * 300, RANDOM.random(300)).note == "the reference has no value of it"


@pytest.mark.parametrize("rows", [0, 1, 199])
def test_few_rows_say_nothing(rows):
    table = pa.table({"feature_x": RANDOM.random(rows), "score": RANDOM.random(rows)})
    whole = pa.table({"feature_x": RANDOM.random(1000), "feature_y": RANDOM.random(1000), "score": RANDOM.random(1000)})
    found = drift(table, Reference.from_table(whole))
    assert found.note == f"not enough data: {rows} of 200 rows; not in these rows: y"
    assert [(one.value, one.drifted) for one in found.columns] == [(None, False)]
    assert found.prediction.value is None


def test_the_furthest_column_comes_first_and_noise_among_many_is_no_drift():
    columns = {f"feature_{place:02}": RANDOM.normal(size=5000) for place in range(40)}
    whole = Reference.from_table(pa.table(columns))
    now = {name: RANDOM.normal(size=1000) for name in columns} | {"feature_07": RANDOM.normal(0.5, size=1000)}
    found = drift(pa.table(now), whole)
    assert [one.name for one in found.columns if one.drifted] == ["07"]
    assert found.columns[0].name == "07"
    assert found.prediction is None


def test_what_the_weeks_of_the_reference_do_themselves_is_tolerated():
    at = pa.array(np.arange(6 * 500) * (7 * 86_400_000_000 // 500), pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    level = np.repeat([0, 0.6, 0, -0.6, 0, 0.6], 500)
    table = pa.table({"at": at, "feature_x": level + RANDOM.normal(size=3000)})
    column = Reference.from_table(table).columns["x"]
    assert column.tolerated > 0.2
    after = chunked(0.4 + RANDOM.normal(size=5000))
    assert not column_drift("x", after, column).drifted
    assert column_drift("x", after, Reference.from_table(table.drop_columns("at")).columns["x"]).drifted


def test_a_million_rows_are_compared_in_the_memory_of_a_few_of_their_columns():
    count = 1_000_000
    table = pa.table(
        {f"feature_n{place}": RANDOM.normal(size=count) for place in range(3)}
        | {"feature_text": pa.array([f"value {place}" for place in range(50)]).take(RANDOM.integers(0, 50, count))}
    )
    whole = Reference.from_table(table.slice(0, 20_000))
    drift(table.slice(0, 1000), whole)  # imports
    with watched_memory() as taken:
        found = drift(table, whole)
    assert len(found.columns) == 4
    assert taken.numpy < 50e6
    assert taken.arrow < 50e6
    assert taken.arrow_after == 0


# Every other distance


def test_every_distance_that_a_type_has_is_told_beside_the_one_that_decides():
    numbers = moved(RANDOM.normal(size=5000), RANDOM.normal(0.5, size=3000))
    assert set(numbers.distances) == {"ks", "wasserstein", "js", "psi", "tv", "chi2", "chi2_p_value"}
    assert numbers.distances["ks"] == numbers.value
    assert numbers.distances["wasserstein"] == pytest.approx(0.5, abs=0.06)
    assert numbers.distances["psi"] > 0.1
    assert numbers.distances["chi2_p_value"] < 1e-20
    text = moved(words({"a": 500, "b": 500}), words({"a": 700, "b": 300}))
    assert set(text.distances) == {"js", "psi", "tv", "chi2", "chi2_p_value"}
    assert text.far("tv") == text.far("ks") == text.value == pytest.approx(0.2)
    assert text.far("wasserstein") is None


def test_of_the_same_rows_every_distance_is_nought():
    for values in (RANDOM.normal(size=1000), [3.0] * 500, [0.0] * 400 + [1.0] * 100, words({"a": 300, "b": 1})):
        found = moved(values, values)
        assert {name: value for name, value in found.distances.items() if name != "chi2_p_value"} == {
            name: pytest.approx(0.0, abs=1e-9) for name in found.distances if name != "chi2_p_value"
        }
        assert found.distances["chi2_p_value"] == pytest.approx(1.0)


def test_the_stability_index_is_of_ten_bins_and_counts_what_lies_outside_in_the_outer_ones():
    before, after = RANDOM.random(10_000), RANDOM.random(4000) * 1.3
    edges = np.quantile(before, np.linspace(0, 1, 11))
    edges[0], edges[-1] = -np.inf, np.inf
    shares = [np.maximum(np.histogram(values, edges)[0] / values.size, 1e-4) for values in (before, after)]
    expected = ((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum()
    assert moved(before, after).distances["psi"] == pytest.approx(expected, rel=0.02)


def test_what_lies_outside_the_range_is_not_dropped_from_any_distance():
    before = RANDOM.random(5000)
    found = moved(before, before + 5).distances
    assert (found["ks"], found["js"], found["tv"]) == (1.0, 1.0, 1.0)
    assert found["wasserstein"] == pytest.approx(5 / before.std(), rel=0.01)
    assert found["psi"] > 5


def test_a_constant_reference_has_no_unit_for_wasserstein_and_all_other_distances():
    found = moved([3.0] * 500, [4.0] * 500).distances
    assert "wasserstein" not in found
    assert (found["js"], found["tv"]) == (1.0, 1.0)


def test_an_unseen_category_gives_finite_distances():
    found = moved(words({"a": 500, "b": 500}), words({"new": 600})).distances
    assert (found["js"], found["tv"]) == (1.0, 1.0)
    assert np.isfinite(found["psi"])


def test_an_all_missing_column_has_no_distance_and_says_so():
    found = moved(RANDOM.random(500), [None] * 500)
    assert (found.distances, found.value) == ({}, None)
    assert "every value is missing" in found.note


def test_infinite_values_leave_every_distance_a_number():
    after = np.concatenate([RANDOM.normal(size=1000), [np.inf] * 500, [-np.inf]])
    found = moved(RANDOM.normal(size=5000), after).distances
    assert all(np.isfinite(value) for value in found.values())
