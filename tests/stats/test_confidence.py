import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from seatrial.stats.confidence import (
    Moments,
    TooFewObservations,
    asymptotic_sequence,
    clustered,
    difference_bounds,
    difference_sequence,
    moments,
    t_sequence,
)


def published(mean, std, n, alpha, rho):
    """Equation 9 of Waudby-Smith et al., written down a second time: for a whole path at once."""
    return std * np.sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * np.log(np.sqrt(n * rho**2 + 1) / alpha))


def test_the_interval_is_that_of_equation_nine():
    values = np.random.default_rng(1).normal(3, 2, 400)
    # GrowthBook's tuning at n* = 5000 and alpha 0.05: rho = sqrt((-2 ln a + ln(-2 ln a + 1)) / n*)
    rho = np.sqrt((-2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)) / 5000)
    assert rho == pytest.approx(0.0398401, abs=1e-7)
    half = published(values.mean(), values.std(ddof=1), 400, 0.05, rho)
    low, high = asymptotic_sequence(values, alpha=0.05, tuned_for=5000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half))


def test_it_holds_at_every_look_where_a_plain_interval_does_not():
    random = np.random.default_rng(2)
    runs, n, alpha = 200, 4000, 0.05
    looks = np.arange(200, n + 1, 20)
    missed = missed_plain = 0
    for _ in range(runs):
        values = random.exponential(size=n) - 1
        plain = wrong = False
        for look in looks[::4]:
            low, high = asymptotic_sequence(values[:look], alpha=alpha, tuned_for=1000)
            wrong |= not low <= 0 <= high
            plain |= abs(values[:look].mean()) > 1.96 * values[:look].std(ddof=1) / np.sqrt(look)
        missed += wrong
        missed_plain += plain
    assert missed / runs <= alpha
    assert missed_plain / runs > 3 * alpha


def test_it_is_nearly_tightest_where_it_is_tuned():
    values = np.random.default_rng(3).normal(size=1000)

    def width(tuned_for):
        low, high = asymptotic_sequence(values, alpha=0.05, tuned_for=tuned_for)
        return high - low

    widths = {tuned_for: width(tuned_for) for tuned_for in (10, 100, 300, 1000, 3000, 10_000, 100_000)}
    assert widths[1000] <= min(widths.values()) * 1.01
    plain = 2 * 1.96 * values.std(ddof=1) / np.sqrt(1000)
    assert plain < widths[1000] < 2 * plain


def test_it_narrows_with_observations_and_widens_with_certainty():
    values = np.random.default_rng(4).normal(size=2000)
    few = np.diff(asymptotic_sequence(values[:100], alpha=0.05, tuned_for=500))
    many = np.diff(asymptotic_sequence(values, alpha=0.05, tuned_for=500))
    surer = np.diff(asymptotic_sequence(values, alpha=0.001, tuned_for=500))
    assert many < few
    assert many < surer


def test_equal_observations_leave_no_doubt_and_one_is_too_few():
    assert asymptotic_sequence(np.full(5, 2.0), alpha=0.05, tuned_for=10) == (2.0, 2.0)
    for values in (np.empty(0), np.array([1.0])):
        with pytest.raises(TooFewObservations):
            asymptotic_sequence(values, alpha=0.05, tuned_for=10)


def test_a_difference_of_equal_samples_is_as_wide_as_theirs_together():
    values = np.random.default_rng(6).normal(size=500)
    same = moments(values)
    found = difference_sequence(same, same, alpha=0.05, tuned_for=5000)
    # of 1,000 pseudo-observations whose standard deviation makes the standard error that of the difference
    low, high = asymptotic_sequence(np.tile(values, 2), alpha=0.05, tuned_for=5000)
    assert found.value == 0
    assert found.high - found.low == pytest.approx(2 * (high - low), rel=2e-3)


def proportion(successes, n):
    rate = successes / n
    return Moments(n, rate, rate * (1 - rate) * n / (n - 1))


def rare(random, size):
    return (random.random(size) < 0.005).astype(float)


def skewed(random, size):
    return random.lognormal(sigma=1.5, size=size)


def running(values, looks):
    """The moments of the first values at each of the looks, from running sums."""
    sums, squares = np.cumsum(values)[looks - 1], np.cumsum(values * values)[looks - 1]
    variances = (squares - sums * sums / looks) / (looks - 1)
    return [Moments(*one) for one in zip(looks.tolist(), (sums / looks).tolist(), variances.tolist(), strict=True)]


def test_few_observations_have_the_interval_in_which_a_mixture_of_their_t_likelihoods_is_below_one_in_alpha():
    # the e-value of the mixture at an end of the interval is 1/alpha: over delta = mean/spread ~ N(0, 1/2.5), and the
    # spread with the right Haar measure, whose integral over a scale is done by numbers
    values = np.random.default_rng(3).normal(1, 2, 12)
    low, high = t_sequence(values, alpha=0.05)
    for end in (low, high):
        centred = values - end

        def density(delta, logscale, centred=centred):
            return np.exp(stats.norm.logpdf(centred, delta * np.exp(logscale), np.exp(logscale)).sum())

        def mixed(logscale):
            inner, _ = integrate.quad(lambda d: density(d, logscale) * stats.norm.pdf(d, 0, 2.5**-0.5), -6, 6)
            return inner

        mixture, _ = integrate.quad(mixed, -3, 4)
        null, _ = integrate.quad(lambda logscale: density(0.0, logscale), -3, 4)
        assert mixture / null == pytest.approx(20, rel=1e-3)


def test_a_sequence_of_few_normal_observations_holds_from_the_second_look_where_the_asymptotic_one_does_not():
    random = np.random.default_rng(8)
    runs, wrong, wrong_asymptotic = 600, 0, 0
    for _ in range(runs):
        values = random.normal(size=40)
        looks = [values[:n] for n in (*range(2, 15), 20, 30, 40)]
        found = [t_sequence(seen, alpha=0.05) for seen in looks]
        wrong += any(one is not None and not one[0] <= 0 <= one[1] for one in found)
        found = [asymptotic_sequence(seen, alpha=0.05, tuned_for=60) for seen in looks]
        wrong_asymptotic += any(not low <= 0 <= high for low, high in found)
    assert wrong / runs <= 0.05
    assert wrong_asymptotic / runs > 0.1


def test_two_observations_bound_nothing_and_equal_ones_leave_no_doubt():
    assert t_sequence(np.array([1.0, 2.0]), alpha=0.05) is None
    assert t_sequence(np.array([1.0]), alpha=0.05) is None
    assert t_sequence(np.full(9, 2.0), alpha=0.05) == (2.0, 2.0)


def test_running_sums_give_the_moments_of_what_was_seen():
    values = np.random.default_rng(5).lognormal(size=1000)
    for seen, found in zip((2, 400, 1000), running(values, np.array([2, 400, 1000])), strict=True):
        whole = moments(values[:seen])
        assert (found.n, found.mean, found.variance) == pytest.approx((whole.n, whole.mean, whole.variance), rel=1e-12)


def peeked(bound, draw, runs=400, step=500, looks=100):
    """In how many of the runs without a difference does `bound` cross at one of the looks?"""
    random = np.random.default_rng(7)
    at = np.arange(1, looks + 1) * step
    crossed = 0
    for _ in range(runs):
        arms = [running(draw(random, looks * step), at) for _ in range(2)]
        crossed += any(bound(*pair) for pair in zip(*arms, strict=True))
    return crossed / runs


@pytest.mark.parametrize("draw", [rare, skewed])
def test_without_a_difference_a_hundred_looks_raise_at_most_three_in_a_hundred_false_alarms(draw):
    def two_sided(control, treatment):
        found = difference_sequence(control, treatment, alpha=0.05, tuned_for=20_000)
        return not found.low <= 0 <= found.high

    def plain(control, treatment):
        error = np.sqrt(control.variance / control.n + treatment.variance / treatment.n)
        return abs(treatment.mean - control.mean) > 1.96 * error

    assert peeked(two_sided, draw) <= 0.03
    assert peeked(plain, draw, runs=50) > 0.2


def test_a_one_sided_bound_is_nearer_and_holds_too():
    def worse(control, treatment):
        return difference_bounds(control, treatment, alpha=0.05, tuned_for=20_000).low > 0

    assert peeked(worse, rare) <= 0.05
    one, other = proportion(100, 2000), proportion(120, 2000)
    one_sided = difference_bounds(one, other, alpha=0.05, tuned_for=20_000)
    two_sided = difference_sequence(one, other, alpha=0.05, tuned_for=20_000)
    assert two_sided.low < one_sided.low < one_sided.value == two_sided.value


def test_a_harm_is_found_long_before_the_end():
    random = np.random.default_rng(9)
    at = np.arange(1, 101) * 500
    found = []
    for _ in range(20):
        arms = [running((random.random(50_000) < rate).astype(float), at) for rate in (0.05, 0.07)]
        lows = [difference_bounds(*pair, alpha=0.05, tuned_for=20_000).low for pair in zip(*arms, strict=True)]
        found.append(at[int(np.argmax(np.array(lows) > 0))])
        assert max(lows) > 0
    assert 1000 < np.median(found) <= 15_000


def test_a_difference_needs_two_observations_on_each_side():
    with pytest.raises(TooFewObservations):
        difference_sequence(Moments(1, 0.5), Moments(100, 0.5, 0.25), alpha=0.05, tuned_for=5000)


def test_clusters_of_one_value_each_are_independent_values():
    values = np.random.default_rng(1).normal(size=50)
    found, alone = clustered(values, np.arange(50)), moments(values)
    assert (found.n, found.clusters) == (50, pytest.approx(50))
    assert found.mean == pytest.approx(alone.mean)
    assert found.variance == pytest.approx(alone.variance)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_error_of_clusters_is_that_of_a_ratio_of_sums(seed):
    random = np.random.default_rng(seed)
    cluster = random.integers(0, 12, 200)
    values = random.normal(size=12)[cluster] * 3 + random.normal(size=200)
    found = clustered(values, cluster)
    sums, counts = (np.array([f(values[cluster == one]) for one in np.unique(cluster)]) for f in (np.sum, np.size))
    size = counts.size
    wanted = size / (size - 1) * np.sum((sums - values.mean() * counts) ** 2) / values.size**2
    assert found.variance / found.n == pytest.approx(max(wanted, values.var(ddof=1) / values.size))
    assert (found.n, found.clusters) == (size, pytest.approx(200**2 / np.sum(counts**2)))


def test_few_clusters_widen_an_interval_as_students_t_does():
    for clusters in (10, 30, 100):
        few, many = Moments(clusters, 0.0, 1.0, clusters), Moments(clusters, 0.0, 1.0)
        half, normal = (difference_bounds(one, one, alpha=0.05, tuned_for=200).high for one in (few, many))
        error = np.sqrt(2 / clusters)
        exact = stats.t.isf(stats.norm.sf(normal / error), 2 * (clusters - 1)) * error
        assert 0.999 * exact <= half <= 1.25 * exact
    assert clustered(np.empty(0), np.empty(0, int)).n == 0
    assert clustered(np.ones(5), np.zeros(5, int)).clusters == 1
