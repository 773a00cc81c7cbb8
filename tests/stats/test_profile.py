import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.stats.distances import kolmogorov_smirnov_exact
from seatrial.stats.profile import (
    WEEK_US,
    bin_counts,
    category_profile,
    codes_of,
    moments,
    numeric_profile,
    value_counts,
    weekly_distances,
)

anything = st.lists(st.one_of(st.floats(), st.integers(-3, 3).map(float)), min_size=1, max_size=80).map(np.array)


@settings(max_examples=200, deadline=None)
@given(anything)
def test_every_value_that_is_there_is_in_one_bin_whatever_it_is(values):
    told = numeric_profile(values)
    assert told["count"] == values.size
    assert sum(told["counts"]) == values.size - told["missing"] == np.count_nonzero(~np.isnan(values))
    assert told["edges"] == sorted(set(told["edges"]))
    assert len(told["edges"]) == len(told["counts"]) + bool(told["counts"])
    json.dumps(told, allow_nan=False)


def test_a_value_that_many_rows_share_has_a_bin_of_its_own():
    values = np.concatenate([np.zeros(900), np.random.default_rng(0).exponential(size=100)])
    told = numeric_profile(values)
    assert told["counts"][0] == 900
    assert told["edges"][1] == np.nextafter(0, 1)


def test_infinities_count_as_the_largest_numbers_and_not_in_the_mean():
    told = numeric_profile(np.array([np.inf, -np.inf, 1.0, 3.0, np.nan]))
    assert (told["missing"], sum(told["counts"]), told["mean"], told["std"]) == (1, 4, 2.0, 1.0)
    assert (told["min"], told["max"]) == (-1e308, 1e308)
    assert moments(np.array([np.inf])) == (None, None)


def test_categories_are_ranked_by_rows_and_then_by_text():
    told = category_profile(np.array(["b", "a", "c", "c", None], dtype=object))
    assert list(told["values"].items()) == [("c", 2), ("a", 1), ("b", 1)]
    assert (told["count"], told["missing"], told["distinct"], told["other"]) == (5, 1, 3, 0)


def test_codes_name_known_values_others_and_missing_ones():
    known = {"a": 5, "b": 3}
    codes = codes_of(np.array(["b", None, "z", "a", "b"], dtype=object), known)
    assert codes.tolist() == [1, -1, 2, 0, 1]
    assert value_counts(codes, known).tolist() == [1, 2, 1]
    assert value_counts(codes[:0], known).tolist() == [0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-5, 5), max_size=50), st.lists(st.integers(-5, 5), min_size=1, unique=True, max_size=6))
def test_bins_are_those_of_a_plain_count(found, cuts):
    values, edges = np.array(found, dtype=np.float64), np.array(sorted(cuts), dtype=np.float64)
    expected = [
        int(((values >= a) & (values < b)).sum()) for a, b in zip([-np.inf, *edges], [*edges, np.inf], strict=True)
    ]
    assert bin_counts(values, edges).tolist() == expected


def weeks(count, rows):
    return np.repeat(np.arange(count + 1) * WEEK_US, rows)[: count * rows + 1]


def test_the_distance_of_each_whole_week_from_all_of_them():
    random = np.random.default_rng(1)
    values = random.normal(size=5 * 1000 + 1)
    values[2000:3000] += 1.0
    at_us = weeks(5, 1000)
    found = weekly_distances(numeric_profile(values), values, at_us)
    assert len(found) == 5
    assert int(np.argmax(found)) == 2
    exact = kolmogorov_smirnov_exact(values, values[2000:3000])
    assert exact - 0.011 <= found[2] <= exact


def test_weeks_of_categories_are_compared_by_total_variation():
    values = np.array((["a"] * 150 + ["b"] * 150) * 3 + ["a"] * 300 + ["a", "b"] * 150 + ["a"], dtype=object)
    found = weekly_distances(category_profile(values), values, weeks(5, 300))
    assert found == pytest.approx([0.1, 0.1, 0.1, 0.4, 0.1], abs=0.001)


@pytest.mark.parametrize(("count", "rows"), [(3, 500), (8, 199), (1, 5000)])
def test_few_weeks_or_few_rows_say_nothing(count, rows):
    at_us = weeks(count, rows)
    values = np.random.default_rng(2).normal(size=at_us.size)
    assert weekly_distances(numeric_profile(values), values, at_us) == []


def test_years_between_two_rows_cost_nothing_and_no_rows_say_nothing():
    far = np.array([0, 3000 * WEEK_US])
    assert weekly_distances(numeric_profile(np.ones(2)), np.ones(2), far) == []
    assert weekly_distances(numeric_profile(np.empty(0)), np.empty(0), np.empty(0, dtype=np.int64)) == []
