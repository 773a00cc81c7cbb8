import doctest

import numpy as np
import pytest
import scipy.stats as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.stats import distances

ties = st.lists(st.integers(0, 8), min_size=1, max_size=60).map(lambda found: np.array(found, dtype=np.float64))
values = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60).map(np.array)
samples = st.one_of(ties, values)
tables = st.integers(2, 12).flatmap(
    lambda bins: st.tuples(
        *[st.lists(st.integers(0, 500), min_size=bins, max_size=bins).filter(any).map(np.array) for _ in range(2)]
    )
)
DISTANCES = [
    distances.kolmogorov_smirnov,
    distances.total_variation,
]


def test_the_examples_in_the_docstrings_hold():
    failed, tried = doctest.testmod(distances)
    assert tried >= 2
    assert failed == 0


@settings(max_examples=100, deadline=None)
@given(samples, samples)
def test_the_exact_statistic_is_scipys_also_with_ties(one, other):
    with np.errstate(divide="ignore"):  # scipy's p-value of samples of one
        expected = oracle.ks_2samp(one, other, method="asymp").statistic
    assert distances.kolmogorov_smirnov_exact(one, other) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(ties, ties)
def test_with_a_bin_for_each_value_the_binned_statistic_is_exact(one, other):
    counts = [np.bincount(sample.astype(int), minlength=9) for sample in (one, other)]
    assert distances.kolmogorov_smirnov(*counts) == pytest.approx(distances.kolmogorov_smirnov_exact(one, other))


def test_zero_inflated_columns_differ_by_their_share_of_zeros():
    one, other = np.zeros(1000), np.zeros(1000)
    one[:100], other[:400] = 1.0, 1.0
    assert distances.kolmogorov_smirnov_exact(one, other) == pytest.approx(0.3)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("count", [200, 5000])
def test_the_p_value_is_near_scipys(count, shift):
    random = np.random.default_rng(1)
    one, other = random.normal(size=20_000), random.normal(shift, size=count)
    expected = oracle.ks_2samp(one, other, method="asymp")
    found = distances.kolmogorov_smirnov_p_value(expected.statistic, one.size, other.size)
    assert found == pytest.approx(expected.pvalue, rel=0.35, abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_p_value_is_a_share_and_falls_with_the_distance(statistic, n, m):
    near = distances.kolmogorov_smirnov_p_value(statistic, n, m)
    far = distances.kolmogorov_smirnov_p_value(min(1.0, statistic + 0.1), n, m)
    assert 0 <= far <= near + 1e-12 <= 1 + 1e-12


def test_under_no_change_the_p_value_is_below_five_percent_at_most_that_often():
    random = np.random.default_rng(2)
    below = 0
    for _ in range(2000):
        one, other = random.random(400), random.random(300)
        statistic = distances.kolmogorov_smirnov_exact(one, other)
        below += distances.kolmogorov_smirnov_p_value(statistic, 400, 300) < 0.05
    assert 0.03 < below / 2000 < 0.065


@settings(max_examples=100, deadline=None)
@given(tables)
def test_the_chi_square_p_value_is_of_the_contingency_table(table):
    one, other = table
    both = np.array(table)[:, np.array(table).sum(axis=0) > 0]
    if both.shape[1] < 2:
        assert distances.chi_square_p_value(one, other) == 1.0
        return
    expected = oracle.chi2_contingency(both, correction=False).pvalue
    assert distances.chi_square_p_value(one, other) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_the_reference_counts_as_a_sample_and_not_as_the_truth():
    reference, current = np.array([50, 50]), np.array([60, 40])
    contingency = oracle.chi2_contingency([reference, current], correction=False).pvalue
    one_sample = oracle.chisquare(current, reference).pvalue
    assert one_sample < 0.05 < contingency  # the trap: half the spread is forgotten
    assert distances.chi_square_p_value(reference, current) == pytest.approx(contingency)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 2000), st.integers(1, 400))
def test_the_tail_of_chi_square_is_scipys(statistic, degrees):
    expected = oracle.chi2.sf(statistic, degrees)
    assert distances.chi_square_tail(statistic, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-14)


def test_known_quantiles_of_chi_square():
    for statistic, degrees in ((3.841459, 1), (5.991465, 2), (18.307038, 10), (124.342113, 100)):
        assert distances.chi_square_tail(statistic, degrees) == pytest.approx(0.05, abs=1e-7)
    assert distances.chi_square_tail(1e9, 3) == 0.0


@settings(max_examples=60, deadline=None)
@given(tables)
def test_every_distance_is_symmetric_and_zero_of_a_sample_with_itself(table):
    one, other = table
    for distance in DISTANCES:
        assert distance(one, one * 3) == pytest.approx(0.0, abs=1e-7)
        assert distance(one, other) == pytest.approx(distance(other, one), abs=1e-9)
        assert distance(one, other) >= 0
    assert max(distance(one, other) for distance in DISTANCES) <= 1 + 1e-12


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1), st.floats(0, 1))
def test_two_shares_are_compared_as_a_table_of_two_by_two(n, m, share, other_share):
    hits, others = round(share * n), round(other_share * m)
    found = distances.proportion_p_value(hits, n, others, m)
    if not 0 < hits + others < n + m:
        assert found == 1.0
        return
    expected = oracle.chi2_contingency([[hits, n - hits], [others, m - others]], correction=False).pvalue
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_an_empty_sample_is_refused():
    none, some = np.empty(0), np.array([1.0])
    for pair in ((none, some), (some, none)):
        with pytest.raises(distances.NothingToCompare):
            distances.kolmogorov_smirnov_exact(*pair)
    for distance in [*DISTANCES, distances.chi_square_p_value]:
        with pytest.raises(distances.NothingToCompare):
            distance(np.array([1, 2]), np.array([0, 0]))
    with pytest.raises(distances.NothingToCompare):
        distances.kolmogorov_smirnov_p_value(0.1, 0, 5)
    with pytest.raises(distances.NothingToCompare):
        distances.proportion_p_value(0, 0, 1, 5)
