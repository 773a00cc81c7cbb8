import doctest

import numpy as np
import pytest
import scipy.stats as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

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
    distances.jensen_shannon,
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


# Wasserstein


@settings(max_examples=100, deadline=None)
@given(samples, samples)
def test_the_exact_wasserstein_distance_is_scipys_also_with_ties(one, other):
    expected = oracle.wasserstein_distance(one, other)
    assert distances.wasserstein_exact(one, other) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(ties, st.lists(st.integers(-3, 12), min_size=1, max_size=60).map(lambda found: np.array(found, dtype=float)))
def test_with_a_bin_for_each_value_the_binned_wasserstein_distance_is_exact_also_out_of_range(one, other):
    values = np.unique(one)
    cuts = np.sort(np.concatenate([values, np.nextafter(values, np.inf)]))
    inside = np.concatenate([other[(other >= cuts[0]) & (other <= cuts[-1])], []])
    beyond = cuts[0] - other[other < cuts[0]], other[other > cuts[-1]] - cuts[-1]
    counts = [np.histogram(sample, np.concatenate([[-np.inf], cuts, [np.inf]]))[0] for sample in (one, other)]
    found = distances.wasserstein(*counts, cuts, (float(beyond[0].sum()), float(beyond[1].sum())))
    if set(inside) <= set(values):  # a value between those of the reference counts as spread over its gap
        assert found == pytest.approx(oracle.wasserstein_distance(one, other), abs=1e-9)


@pytest.mark.parametrize("shift", [0.05, 0.2, 1.0])
def test_the_binned_wasserstein_distance_is_near_scipys_on_smooth_values(shift):
    random = np.random.default_rng(3)
    one, other = random.normal(size=50_000), random.normal(shift, size=20_000)
    edges = np.quantile(one, np.linspace(0, 1, 101))
    cuts = np.concatenate([edges[:-1], [np.nextafter(edges[-1], np.inf)]])
    counts = [np.histogram(sample, np.concatenate([[-np.inf], cuts, [np.inf]]))[0] for sample in (one, other)]
    beyond = (edges[0] - other[other < edges[0]]).sum(), (other[other > edges[-1]] - edges[-1]).sum()
    expected = oracle.wasserstein_distance(one, other)
    assert distances.wasserstein(*counts, cuts, beyond) == pytest.approx(expected, rel=0.05)


def test_wasserstein_of_zero_inflated_values_is_what_moves_times_how_far():
    one, other = np.zeros(1000), np.zeros(1000)
    one[:100], other[:400] = 2.0, 2.0
    assert distances.wasserstein_exact(one, other) == pytest.approx(0.3 * 2)


# Jensen-Shannon, PSI, chi-square


@settings(max_examples=100, deadline=None)
@given(tables)
def test_jensen_shannon_is_scipys_distance_to_base_two_and_no_divergence(table):
    one, other = table
    expected = float(np.nan_to_num(jensenshannon(one, other, base=2)))  # scipy's is nan where rounding goes below 0
    assert distances.jensen_shannon(one, other) == pytest.approx(expected, abs=1e-6)


def test_the_divergence_would_be_the_square_and_to_base_e_smaller_still():
    one, other = np.array([60, 40]), np.array([20, 80])
    middle = (one + other) / 200
    divergence = sum(oracle.entropy(each / 100, middle) for each in (one, other)) / 2
    found = distances.jensen_shannon(one, other)
    assert found == pytest.approx(np.sqrt(divergence / np.log(2)))
    assert divergence < found**2 < found


def test_jensen_shannon_of_samples_with_nothing_in_common_is_one():
    assert distances.jensen_shannon(np.array([5, 0, 3]), np.array([0, 9, 0])) == 1.0


@settings(max_examples=100, deadline=None)
@given(tables)
def test_the_stability_index_is_its_formula_with_empty_bins_at_the_floor(table):
    one, other = (np.maximum(counts / counts.sum(), 1e-4) for counts in table)
    expected = sum((b - a) * np.log(b / a) for a, b in zip(one, other, strict=True))
    assert distances.population_stability_index(*table) == pytest.approx(expected, abs=1e-12)


def test_an_empty_bin_gives_a_finite_stability_index_that_hangs_on_the_floor():
    one, other = np.array([100, 0]), np.array([90, 10])
    found = distances.population_stability_index(one, other)
    assert found == pytest.approx((0.9 - 1) * np.log(0.9) + (0.1 - 1e-4) * np.log(0.1 / 1e-4))
    assert distances.population_stability_index(one, other, floor=1e-6) > found


@settings(max_examples=100, deadline=None)
@given(tables)
def test_the_chi_square_statistic_and_its_degrees_are_of_the_contingency_table(table):
    both = np.array(table)[:, np.array(table).sum(axis=0) > 0]
    if both.shape[1] < 2:
        assert distances.chi_square(*table) == (0.0, 0)
        return
    expected = oracle.chi2_contingency(both, correction=False)
    assert distances.chi_square(*table) == (pytest.approx(expected.statistic, abs=1e-9), expected.dof)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=120).filter(any), st.integers(0, 2**32))
def test_tenths_keep_every_row_and_no_tenth_is_split(counts, seed):
    whole = np.array([0, *counts, 0])
    now = np.random.default_rng(seed).integers(0, 9, whole.size)
    one, other = distances.in_tenths(whole, now)
    assert (one.sum(), other.sum()) == (whole.sum(), now.sum())
    assert one.size == other.size <= 12
    assert (other[0], other[-1]) == (now[0], now[-1])


def test_a_hundred_bins_of_equal_mass_become_ten():
    whole = np.array([0, *[7] * 100, 0])
    assert distances.in_tenths(whole, whole)[0].tolist() == [0, *[70] * 10, 0]


def test_the_new_distances_refuse_an_empty_sample_too():
    some, nothing = np.array([1, 2]), np.array([0, 0])
    for distance in (distances.jensen_shannon, distances.population_stability_index, distances.chi_square):
        for pair in ((some, nothing), (nothing, some)):
            with pytest.raises(distances.NothingToCompare):
                distance(*pair)
    with pytest.raises(distances.NothingToCompare):
        distances.wasserstein(some, nothing, np.array([0.0]))
    with pytest.raises(distances.NothingToCompare):
        distances.wasserstein_exact(np.empty(0), np.array([1.0]))
