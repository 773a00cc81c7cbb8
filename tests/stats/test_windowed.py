from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seatrial.stats import distances, windowed

RANDOM = np.random.default_rng(5)
REFERENCE = RANDOM.multinomial(50_000, np.full(20, 0.05))
COUNTS = np.array([*RANDOM.multinomial(800, np.full(20, 0.05), size=30), np.zeros(20)]).astype(np.int64)


def test_distances_of_many_windows_are_those_of_each():
    ks = windowed.kolmogorov_smirnov_distances(REFERENCE, COUNTS)
    tv = windowed.total_variations(REFERENCE, COUNTS)
    p = windowed.kolmogorov_smirnov_p_values(ks, 50_000, COUNTS.sum(axis=1))
    assert ks[:-1] == pytest.approx([distances.kolmogorov_smirnov(REFERENCE, row) for row in COUNTS[:-1]])
    assert tv[:-1] == pytest.approx([distances.total_variation(REFERENCE, row) for row in COUNTS[:-1]])
    assert p[:-1] == pytest.approx([distances.kolmogorov_smirnov_p_value(d, 50_000, 800) for d in ks[:-1]])
    assert np.isnan([ks[-1], tv[-1], p[-1]]).all()


def test_chi_squared_is_scipys_of_the_contingency_table():
    found, degrees = windowed.chi_squares(REFERENCE, COUNTS)
    p = windowed.chi_square_p_values(found, degrees)
    for row, statistic, tail in zip(COUNTS[:-1], found, p, strict=False):
        expected = stats.chi2_contingency([REFERENCE, row], correction=False)
        assert (statistic, tail) == pytest.approx((expected.statistic, expected.pvalue))
    assert np.isnan(p[-1])


def test_rare_values_count_as_one():
    reference, row = np.array([900, 90, 6, 4]), np.array([[90, 9, 1, 0]])
    found, degrees = windowed.chi_squares(reference, row)
    expected = stats.chi2_contingency([[900, 90, 10], [90, 9, 1]], correction=False)
    assert (found[0], degrees[0]) == (pytest.approx(expected.statistic), 2)


@pytest.mark.parametrize("beyond", [0.0, 2.5, 20.0])
@pytest.mark.parametrize("degrees", [1, 5, 40])
def test_high_scores_of_chi_squared_are_normal_as_scipys_noncentral_distribution_has_it(degrees, beyond):
    shares = np.array([0.5, 0.95, 0.999, 0.99999])
    at = stats.ncx2.ppf(shares, degrees, beyond) if beyond else stats.chi2.ppf(shares, degrees)
    found = windowed.chi_square_scores(at, np.full(4, degrees), np.full(4, beyond))
    expected = stats.norm.ppf(shares)
    assert found[:3] == pytest.approx(expected[:3], abs=0.1)
    assert expected[3] - 0.25 < found[3] < expected[3] + 0.02  # in doubt it is a little less sure


@pytest.mark.parametrize(("rows", "share"), [(1000, 0.02), (200, 0.02), (1000, 0.0005), (1000, 0.3)])
def test_scores_of_shares_are_no_more_than_normal_in_the_mean_and_in_the_tail(rows, share):
    hits = np.random.default_rng(6).binomial(rows, share, 400_000)
    found = windowed.share_scores(hits, np.full(hits.size, rows), share)
    assert abs(found.mean()) < 0.11
    assert found.std() < 1.05
    assert (found > 3).mean() < 2 * stats.norm.sf(3)
    assert windowed.share_scores(rows - hits[:9], np.full(9, rows), 1 - share) == pytest.approx(-found[:9])


@pytest.mark.parametrize(("rows", "share"), [(1000, 0.02), (200, 0.05), (5000, 0.4)])
def test_p_values_of_shares_are_close_to_scipys_exact_ones_and_not_far_below(rows, share):
    hits = np.unique(stats.binom.ppf([1e-6, 1e-4, 0.01, 0.99, 1 - 1e-4, 1 - 1e-6], rows, share)).astype(int)
    found = windowed.share_p_values(hits, np.full(hits.size, rows), share, 1e12)
    for k, p in zip(hits.tolist(), found, strict=True):
        exact = 2 * min(stats.binom.cdf(k, rows, share), stats.binom.sf(k - 1, rows, share))
        assert 0.6 * exact < p < 1.9 * exact


def test_normal_scores_of_a_normal_column_are_its_values():
    values = np.random.default_rng(7).normal(size=200_000)
    edges = np.quantile(values, np.linspace(0, 1, 101)[1:-1])
    reference = np.histogram(values, [-np.inf, *edges, np.inf])[0]
    scores = windowed.normal_scores(reference)
    moved = np.histogram(values[:50_000] + 0.2, [-np.inf, *edges, np.inf])[0]
    assert float(moved @ scores / moved.sum() - reference @ scores / reference.sum()) == pytest.approx(0.2, abs=0.012)
    assert np.abs(scores).max() == pytest.approx(-stats.norm.ppf(0.005), abs=0.01)
