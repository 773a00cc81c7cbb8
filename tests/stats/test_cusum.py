from __future__ import annotations

import math

import numpy as np
import pytest

from seatrial.stats.cusum import average_run_length, cusum

MONTGOMERY = {
    4: {0: 168, 0.25: 74.2, 0.5: 26.6, 0.75: 13.3, 1: 8.38, 1.5: 4.75, 2: 3.34, 2.5: 2.62, 3: 2.19},
    5: {0: 465, 0.25: 139, 0.5: 38.0, 0.75: 17.0, 1: 10.4, 1.5: 5.75, 2: 4.01, 2.5: 3.11, 3: 2.57},
}
"""Average run lengths of the tabular CUSUM with k = 1/2, by h and shift: Montgomery, Introduction to Statistical
Quality Control, "ARL Performance of the Tabular CUSUM" """


def run_length(h, shift, k=0.5, states=400):
    """The one-sided average run length by a Markov chain over the sum (Brook and Evans 1972)."""
    width = 2 * h / (2 * states - 1)
    middle = np.arange(states) * width
    below = np.vectorize(lambda x: 0.5 * math.erfc(-x / math.sqrt(2)))
    upper = below(middle[None, :] + width / 2 - middle[:, None] + k - shift)
    lower = below(middle[None, :] - width / 2 - middle[:, None] + k - shift)
    lower[:, 0] = 0
    return np.linalg.solve(np.eye(states) - (upper - lower), np.ones(states))[0]


@pytest.mark.parametrize(("h", "shift"), [(h, shift) for h, row in MONTGOMERY.items() for shift in row])
def test_published_run_lengths_are_those_of_the_chain_that_the_sum_is(h, shift):
    both = 1 / (1 / run_length(h, shift) + 1 / run_length(h, -shift))
    assert both == pytest.approx(MONTGOMERY[h][shift], rel=0.02)


@pytest.mark.parametrize(("h", "shift"), [(4, 0), (4, 0.5), (5, 0), (5, 1), (5, 2)])
def test_siegmunds_approximation_is_within_a_twentieth_of_the_chain(h, shift):
    assert average_run_length(h, shift=shift) == pytest.approx(run_length(h, shift), rel=0.05)


def test_the_sums_run_as_long_as_the_chain_says():
    steps = np.random.default_rng(1).normal(size=(400, 4000)) + 1.0
    found = cusum(steps, np.zeros(4000), allowance=0.5)
    assert np.argmax(found > 5, axis=0).mean() + 1 == pytest.approx(run_length(5, 1), rel=0.03)


def test_the_sums_are_those_of_a_loop_over_one_series():
    random = np.random.default_rng(2)
    steps = random.normal(size=(60, 5))
    steps[random.random(steps.shape) < 0.1] = np.nan
    found = cusum(steps, np.full(5, 2.0), allowance=0.25, most=3.0)
    for column in range(5):
        now = 2.0
        for row in range(60):
            if not np.isnan(steps[row, column]):
                now = min(3.0, max(0.0, now + steps[row, column] - 0.25))
            assert found[row, column] == now


def test_no_drift_and_endless_waits_have_run_lengths():
    assert average_run_length(4, shift=0.5) == pytest.approx((4 + 1.166) ** 2)
    assert average_run_length(2000) == math.inf


def test_each_series_has_its_own_ceiling_and_forgets_when_it_is_told():
    steps = np.full((4, 2), 3.0)
    forget = np.zeros((4, 2), dtype=bool)
    forget[2, 1] = True
    found = cusum(steps, np.zeros(2), allowance=0.5, most=np.array([4.0, 100.0]), forget=forget)
    assert found.T.tolist() == [[2.5, 4.0, 4.0, 4.0], [2.5, 5.0, 2.5, 5.0]]
