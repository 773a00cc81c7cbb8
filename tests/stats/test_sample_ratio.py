import math

import numpy as np
import pytest
from scipy import integrate, stats

from seatrial.stats.sample_ratio import CONCENTRATION, BadRatio, log_evidence


def test_the_evidence_is_a_bayes_factor_against_a_mixture_of_splits():
    def likelihood(split):
        return stats.binom.pmf(70, 100, split) * stats.beta.pdf(split, CONCENTRATION / 2, CONCENTRATION / 2)

    mixture, _ = integrate.quad(likelihood, 0, 1, points=[0.5, 0.6])
    assert log_evidence([70, 30], [0.5, 0.5]) == pytest.approx(math.log(mixture / stats.binom.pmf(70, 100, 0.5)))


def test_nothing_seen_is_no_evidence():
    assert log_evidence([0, 0], [0.95, 0.05]) == pytest.approx(0, abs=1e-9)


def looks(split, wanted, runs, seed):
    """Evidence at each of 100 looks at 1,000 new rows, (runs, 100)."""
    counts = np.random.default_rng(seed).binomial(1000, split, size=(runs, 100)).cumsum(axis=1)
    other = np.arange(1, 101) * 1000 - counts
    return np.vectorize(lambda one, two: log_evidence((one, two), wanted))(counts, other)


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_sound_split_is_flagged_in_less_than_one_of_a_thousand_trials_of_a_hundred_looks(share):
    flagged = (looks(share, (share, 1 - share), 2000, seed=1) > math.log(1000)).any(axis=1)
    assert flagged.mean() <= 0.001


def test_a_split_that_is_off_by_one_point_is_found():
    evidence = looks(0.51, (0.5, 0.5), 200, seed=2) > math.log(1000)
    found = np.where(evidence.any(axis=1), evidence.argmax(axis=1) + 1, 10**6)
    assert np.median(found) * 1000 <= 50_000


def test_three_arms_are_judged_together():
    assert log_evidence([500, 250, 250], [0.5, 0.25, 0.25]) < 0
    assert log_evidence([500, 350, 150], [0.5, 0.25, 0.25]) > math.log(1000)


@pytest.mark.parametrize(
    ("counts", "shares"),
    [([1], [0.5, 0.5]), ([1, -1], [0.5, 0.5]), ([1, 1], [1.0, 0.0]), ([1, 1], [0.5, 0.4]), ([], [])],
)
def test_counts_and_shares_that_do_not_belong_together_are_refused(counts, shares):
    with pytest.raises(BadRatio):
        log_evidence(counts, shares)
