"""Answers that others publish in their own tests and manuals, and what these numbers are here.

Only numbers are taken over. Each source is named by its repository and path; where a definition differs, the test
says how, and compares after that is accounted for.
"""

import math

import numpy as np
import pyarrow as pa
import pytest

from seatrial.stats import distances
from seatrial.stats.confidence import Moments, difference_bounds, difference_sequence
from seatrial.stats.expected import expected_binary, expected_multiclass
from seatrial.stats.isotonic import isotonic
from seatrial.stats.metrics import measure
from seatrial.stats.sample_ratio import log_evidence
from tests.stats.nannyml import rows

# scipy/scipy: examples of its manual, and scipy/stats/tests/test_stats.py

HUNDRED = np.linspace(1, 100, 100)
HUNDRED_AND_TEN = np.linspace(1, 100, 110)


@pytest.mark.parametrize(
    ("one", "other", "statistic"),
    [
        # scipy/stats/tests/test_stats.py, TestKSTwoSamples
        ([1.01, 2.01], [1, 2, 3], 1 / 3),
        ([0.99, 1.99], [1, 2, 3, 4], 3 / 4),
        (HUNDRED, HUNDRED + 2.1, 3 / 100),
        (HUNDRED, HUNDRED_AND_TEN + 20.1, 232 / 1100),
        (HUNDRED, HUNDRED_AND_TEN + 19.9, 229 / 1100),
        ([2] * 3 + [3] * 4 + [5] * 5 + [6] * 4, [3] * 3 + [4] * 4 + [6] * 5 + [7] * 4, 5 / 16),
        ([2] * 3 + [3] * 4 + [5] * 10 + [6] * 4, [3] * 10 + [4] * 2 + [6] * 10 + [7] * 4, 190 / 21 / 26),
    ],
)
def test_scipy_the_statistic_of_kolmogorov_and_smirnov(one, other, statistic):
    found = distances.kolmogorov_smirnov_exact(np.asarray(one, dtype=float), np.asarray(other, dtype=float))
    assert found == pytest.approx(statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("statistic", "p_value"), [(232 / 1100, 0.015739183865607353), (229 / 1100, 0.017803803861026313)]
)
def test_scipy_the_p_value_of_kolmogorov_and_smirnov(statistic, p_value):
    """Theirs is exact for samples this small, ours the limit of large ones with Stephens' correction."""
    assert distances.kolmogorov_smirnov_p_value(statistic, 100, 110) == pytest.approx(p_value, rel=0.05)


@pytest.mark.parametrize(
    ("one", "other", "weights", "published"),
    [
        # the manual of scipy.stats.wasserstein_distance
        ([0, 1, 3], [5, 6, 8], None, 5.0),
        ([0, 1], [0, 1], ([3, 1], [2, 2]), 0.25),
        ([3.4, 3.9, 7.5, 7.8], [4.5, 1.4], ([1.4, 0.9, 3.1, 7.2], [3.2, 3.5]), 4.0781331438047861),
        # scipy/stats/tests/test_stats.py, TestWassersteinDistance
        ([4.5, 6.7, 2.1], [4.6, 7, 9.2], ([3, 1, 1], [1, 3, 1]), 2.5),
        ([0, 1, 2], [1, 2, 3], None, 1.0),
    ],
)
def test_scipy_the_distance_of_wasserstein(one, other, weights, published):
    """Ours takes counts over shared bins; a bin for each value, and weights as counts, make them theirs."""
    values = np.unique(np.concatenate([one, other]).astype(float))
    cuts = np.sort(np.concatenate([values, np.nextafter(values, np.inf)]))
    counts = [
        np.histogram(sample, np.concatenate([[-np.inf], cuts, [np.inf]]), weights=weight)[0]
        for sample, weight in zip((one, other), weights or (None, None), strict=True)
    ]
    assert distances.wasserstein(*counts, cuts) == pytest.approx(published, abs=1e-9)
    if weights is None:
        found = distances.wasserstein_exact(np.asarray(one, dtype=float), np.asarray(other, dtype=float))
        assert found == pytest.approx(published)


@pytest.mark.parametrize(
    ("one", "other", "base", "published"),
    [
        # the manual of scipy.spatial.distance.jensenshannon; without a base theirs is to base e
        ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], 2, 1.0),
        ([1.0, 0.0], [0.5, 0.5], math.e, 0.46450140402245893),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], math.e, 0.0),
    ],
)
def test_scipy_the_distance_of_jensen_and_shannon(one, other, base, published):
    """Ours is to base 2, so that it ends at 1: larger by the root of log2(e) than theirs to base e."""
    found = distances.jensen_shannon(np.array(one), np.array(other))
    assert found * math.sqrt(math.log(2) / math.log(base)) == pytest.approx(published, abs=1e-12)


def test_scipy_chi_square_of_a_contingency_table():
    """The manual of scipy.stats.chi2_contingency."""
    statistic, degrees = distances.chi_square(np.array([10, 10, 20]), np.array([20, 20, 20]))
    assert (statistic, degrees) == (pytest.approx(2.7777777777777777), 2)
    assert distances.chi_square_tail(statistic, degrees) == pytest.approx(0.24935220877729619)


# evidentlyai/evidently: tests/stattests/test_stattests.py and tests/metrics, tests/multitest

SIX = np.array([16, 18, 16, 14, 12, 12])


@pytest.mark.parametrize("times", [1, 2])
def test_evidently_chi_square_is_one_sample_and_ours_is_when_the_reference_is_endless(times):
    """tests/stattests/test_stattests.py, test_freq_obs_eq_freq_exp and ..._not_eq_...: 0.67309.

    Theirs takes the reference for the truth; ours takes it for the sample that it is, and comes to theirs as the
    reference grows. Of a reference as small as theirs, ours is less surprised.
    """
    current = np.array([16, 16, 16, 16, 16, 8])
    assert distances.chi_square_p_value(SIX * times * 10**8, current) == pytest.approx(0.67309, abs=1e-5)
    assert distances.chi_square_p_value(SIX * times, current) > 0.8


@pytest.mark.parametrize(
    ("current", "published"),
    [
        ([16, 16, 16, 16, 16, 8], 0.928),
        ([10, 10, 24, 24, 10, 10], 0.085),
        ([0, 0, 0, 0, 0, 88], 0.0),
        ([16, 18, 16, 14, 12, 12], 1.0),
        ([10, 24, 12, 16, 8, 16], 0.309),
    ],
)
def test_evidently_total_variation_by_permutation(current, published):
    """tests/stattests/test_stattests.py, test_tvd_stattest.

    Theirs is the share of 1,000 shuffles that are as far apart; ours is the distance alone. The share by our distance
    is theirs within the chance of 1,000 and 4,000 shuffles. Theirs loses some of those exactly as far apart to
    rounding, so its share lies between that of the farther ones and that of those at least as far.
    """
    current = np.array(current)
    whole = SIX + current
    drawn = np.random.default_rng(1).multivariate_hypergeometric(whole, SIX.sum(), size=4000)
    observed = distances.total_variation(SIX, current)
    apart = np.array([distances.total_variation(one, whole - one) for one in drawn])
    chance = 3 * math.sqrt(published * (1 - published) * (1 / 1000 + 1 / 4000)) + 1e-3
    farther, as_far = (apart > observed + 1e-12).mean(), (apart > observed - 1e-12).mean()
    assert farther - chance <= published <= as_far + chance
    assert as_far - farther < 0.1


def test_evidently_the_population_stability_index():
    """tests/multitest/metrics/data_drift.py, column_drift_metric_values: 2.93. The floor of an empty bin is theirs."""
    found = distances.population_stability_index(np.array([0, 2, 1]), np.array([1, 1, 1]))
    assert found == pytest.approx(2.93, abs=0.01)


@pytest.mark.parametrize(
    ("reference", "current", "published"),
    [
        # tests/metrics/data_drift/test_data_drift_table.py, z-tests of two values: 0.66, and 1.0 of the same shares
        ((2, 4), (1, 3), 0.66),
        ((1, 3), (1, 3), 1.0),
        # tests/stattests/test_stattests.py, test_z_stat_test_cat_feature
        ((10, 20), (10, 20), 1.0),
    ],
)
def test_evidently_two_shares(reference, current, published):
    assert distances.proportion_p_value(*reference, *current) == pytest.approx(published, abs=0.01)


# NannyML/nannyml: tests/drift/test_univariate_drift_methods.py


def drawn(reference, current):
    """Their samples: numpy's global generator, seeded with 1, for one after the other."""
    random = np.random.RandomState(1)
    return reference(random), current(random)


@pytest.mark.parametrize(
    ("mean", "spread", "sizes", "digits", "published"),
    [(1, 1, (10_000, 1000), 2, 1.01), (-4, 1, (100_000, 1000), 2, 3.99), (0, 10, (15_000, 1_000_000), 3, 7.180)],
)
def test_nannyml_the_distance_of_wasserstein(mean, spread, sizes, digits, published):
    one, other = drawn(lambda of: of.normal(0, 1, sizes[0]), lambda of: of.normal(mean, spread, sizes[1]))
    # theirs bins a reference above 10,000 values, which shows in no digit that is published
    assert distances.wasserstein_exact(one, other) == pytest.approx(published, abs=0.6 * 10**-digits)


def test_nannyml_the_distance_of_jensen_and_shannon_of_numbers():
    """Theirs has as many bins as Doane's rule gives the reference; ours has bins of equal mass."""
    one, other = drawn(lambda of: of.normal(0, 1, 10_000), lambda of: of.normal(0, 1, 1000))
    edges = np.histogram_bin_edges(one, bins="doane")
    counts = [np.histogram(np.clip(sample, edges[0], edges[-1]), edges)[0] for sample in (one, other)]
    assert distances.jensen_shannon(*counts) == pytest.approx(0.05, abs=0.005)


def test_nannyml_the_distance_of_jensen_and_shannon_of_few_numbers_and_of_categories():
    one, other = drawn(lambda of: of.choice(np.linspace(0, 2, 6), 10_000), lambda of: of.choice([0.0, 1.0, 2.0], 1000))
    assert counted(one, other, distances.jensen_shannon) == pytest.approx(0.73, abs=0.005)
    one, other = drawn(lambda of: of.choice(list("abcd"), 10_000), lambda of: of.choice(list("abce"), 1000))
    assert counted(one, other, distances.jensen_shannon) == pytest.approx(0.5, abs=0.005)


def counted(one, other, distance):
    values = np.unique(np.concatenate([one, other]))
    return distance(*(np.bincount(np.searchsorted(values, sample), minlength=values.size) for sample in (one, other)))


# NannyML/nannyml: tests/performance_estimation and tests/performance_calculation, of the rows in tests/stats/nannyml


def floats(table, name):
    return table[name].cast(pa.float64()).to_numpy()


def test_nannyml_estimated_performance_of_two_classes():
    """tests/performance_estimation/CBPE/test_cbpe_metrics.py, chunks of 20,000 and 30,000.

    Theirs decides by the column y_pred, made before the scores were rounded to two digits: at 0.5 it says both.
    """
    before = rows("binary", "reference")
    right = isotonic(floats(before, "y_pred_proba"), floats(before, "work_home_actual"))
    published = {
        "roc_auc": (0.9711057564966745, 0.9636286015592977),
        "accuracy": (0.9478536003143163, 0.9245926106862006),
        "f1": (0.9479079222515973, 0.9278089207836576),
        "precision": (0.9436121782324026, 0.9197836255005452),
        "recall": (0.9522429574319092, 0.9359754933378336),
    }
    for place, starts in enumerate((range(0, 20_000, 5000), range(20_000, 50_000, 5000))):
        now = pa.concat_tables(rows("binary", str(start)) for start in starts)
        scores, yes = floats(now, "y_pred_proba"), floats(now, "y_pred") == 1
        decided = np.where(yes, np.maximum(scores, 0.5), np.minimum(scores, np.nextafter(0.5, 0)))
        found = expected_binary(right(scores), decided)
        assert found == pytest.approx({**found, **{name: of[place] for name, of in published.items()}}, abs=1e-5)


def test_nannyml_realised_performance_of_two_classes():
    """tests/performance_calculation/metrics/test_binary_classification.py: the first three chunks of 5,000."""
    published = {
        "roc_auc": (0.97096, 0.97025, 0.97628),
        "average_precision": (0.96362, 0.96053, 0.96629),
        "f1": (0.92186, 0.92124, 0.92678),
        "precision": (0.96729, 0.96607, 0.96858),
        "accuracy": (0.9228, 0.926, 0.9318),
    }
    for place in range(3):
        now = rows("binary", str(5000 * place))
        found = measure("binary", floats(now, "work_home_actual"), floats(now, "y_pred_proba"), threshold=0.8)
        assert found == pytest.approx({**found, **{name: of[place] for name, of in published.items()}}, abs=6e-6)


def test_nannyml_estimated_performance_of_several_classes():
    """tests/performance_estimation/CBPE/test_cbpe_metrics.py, chunks of a year.

    Theirs decides by the column y_pred, made before the scores were rounded; ours by the rounded ones, with ties.
    """
    before = rows("multiclass", "reference")
    names = ["highstreet_card", "prepaid_card", "upmarket_card"]
    old, labels = scored(before, names), np.array([names.index(name) for name in before["y_true"].to_pylist()])
    right = [isotonic(old[:, one], (labels == one).astype(float)) for one in range(len(names))]
    published = {
        "2020": {"roc_auc": 0.8697900039493401, "f1": 0.6959459683194374, "accuracy": 0.6967957612985849},
        "2021": {"roc_auc": 0.8160313122805869, "f1": 0.6271637037915178, "accuracy": 0.6305270354546132},
    }
    for year, of in published.items():
        scores = scored(rows("multiclass", year), names)
        sure = np.column_stack([one(scores[:, place]) for place, one in enumerate(right)])
        found = expected_multiclass(sure / sure.sum(axis=1, keepdims=True), scores)
        assert found["roc_auc"] == pytest.approx(of["roc_auc"], abs=2e-6)
        assert found == pytest.approx({**found, **of}, abs=2e-4)


def scored(table, names):
    return np.column_stack([floats(table, f"y_pred_proba_{name}") for name in names])


def test_nannyml_realised_performance_of_a_regression():
    """tests/performance_calculation/metrics/test_regression.py: the first three chunks, tenths of the rows."""
    published = {"mae": (853.39967, 853.13667, 846.304), "rmse": (1069.17225, 1067.64585, 1062.41273)}
    for place in range(3):
        now = rows("regression", str(6000 * place))
        found = measure("regression", floats(now, "y_true"), floats(now, "y_pred"))
        assert found == pytest.approx({**found, **{name: of[place] for name, of in published.items()}}, abs=6e-6)


# growthbook/growthbook: packages/stats/tests/frequentist/test_tests.py and packages/back-end/test/stats.test.ts

CONTROL = Moments(3000, 1396.87 / 3000, (52377.9767 - 1396.87**2 / 3000) / 2999)
TREATMENT = Moments(3461, 2422.7 / 3461, (134698.29 - 2422.7**2 / 3461) / 3460)


def proportion(successes, n):
    rate = successes / n
    return Moments(n, rate, rate * (1 - rate) * n / (n - 1))


def relative(control, treatment):
    """Theirs is of the relative difference, whose variance the delta method gives."""
    one, other = control.mean, treatment.mean
    return (
        Moments(control.n, 1.0, control.variance * other**2 / one**4),
        Moments(treatment.n, other / one, treatment.variance / one**2),
    )


@pytest.mark.parametrize(
    ("control", "treatment", "tuned_for", "published"),
    [  # TestSequentialTTest
        (proportion(1396, 3000), proportion(2422, 3461), 5000, (0.50386, 0.40098, 0.60675)),
        (CONTROL, TREATMENT, 1000, (0.50336, -0.55844, 1.56516)),
    ],
)
def test_growthbook_the_sequential_interval_of_a_relative_difference(control, treatment, tuned_for, published):
    found = difference_sequence(*relative(control, treatment), alpha=0.05, tuned_for=tuned_for)
    assert (found.value, found.low, found.high) == pytest.approx(published, abs=2e-5)


@pytest.mark.parametrize(
    ("control", "treatment", "published"),
    [  # TestSequentialOneSidedGreaterTTest and TestSequentialOneSidedLesserTTest: relative, then absolute
        (*relative(CONTROL, TREATMENT), (0.5033610858562358, -0.42356454602790883, 1.4302867177403806)),
        (CONTROL, TREATMENT, (0.23437666666666668, -0.12656844172804982, 0.5953217750613832)),
    ],
)
def test_growthbook_one_sided_sequential_bounds(control, treatment, published):
    found = difference_bounds(control, treatment, alpha=0.05, tuned_for=5000)
    assert (found.value, found.low, found.high) == pytest.approx(published, abs=2e-5)


@pytest.mark.parametrize(
    ("counts", "shares", "published"),
    [
        ([1000, 1200], [0.5, 0.5], 0.000020079),
        ([135, 115], [0.5, 0.5], 0.205903211),
        ([310, 98], [0.75, 0.25], 0.647434186),
        ([0, 10, 10], [0.34, 0.33, 0.33], 0.005790624),
        ([500, 500, 600], [0.34, 0.33, 0.33], 0.000592638),
    ],
)
def test_growthbook_a_split_looked_at_once(counts, shares, published):
    """packages/back-end/test/stats.test.ts: Pearson's test of one look.

    Ours of a split (`sample_ratio.log_evidence`) may be looked at at any time, so it is no p-value. The tail that
    theirs is made of is tested, and that there is evidence in ours where, at p < 0.001, there is in theirs.
    """
    wanted = sum(counts) * np.array(shares)
    statistic = float(((np.array(counts) - wanted) ** 2 / wanted).sum())
    assert distances.chi_square_tail(statistic, len(counts) - 1) == pytest.approx(published, abs=1e-9)
    assert (log_evidence(counts, shares) > math.log(20)) == (published < 1e-3)
