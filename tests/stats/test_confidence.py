import numpy as np
import pytest

from seatrial.stats.confidence import TooFewObservations, asymptotic_sequence


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
    runs, n, alpha = 400, 4000, 0.05
    looks = np.arange(200, n + 1, 20)
    missed = missed_plain = 0
    for _ in range(runs):
        values = random.exponential(size=n) - 1
        plain = wrong = False
        for look in looks[:: 1 if _ < 60 else 4]:
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
