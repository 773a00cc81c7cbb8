import numpy as np
import scipy.stats as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.stats.detectors import benjamini_hochberg

PUBLISHED = np.array(
    [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719, 0.6528, 0.759, 1.0]
)
"""The fifteen p-values of the example in Benjamini and Hochberg 1995, section 3.2."""


def test_the_published_example_rejects_its_four_smallest():
    assert np.flatnonzero(benjamini_hochberg(PUBLISHED, 0.05)).tolist() == [0, 1, 2, 3]
    mixed = np.random.default_rng(0).permutation(PUBLISHED)
    assert sorted(mixed[benjamini_hochberg(mixed, 0.05)]) == PUBLISHED[:4].tolist()


def test_a_larger_p_value_below_its_line_takes_the_smaller_ones_along():
    # 0.03 is above 0.05 / 2 by itself, but the second, 0.04, is below 0.05
    assert benjamini_hochberg(np.array([0.03, 0.04]), 0.05).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.001, 0.5))
def test_what_is_rejected_is_what_scipy_adjusts_to_q_or_less(found, q):
    p_values = np.array(found)
    adjusted = oracle.false_discovery_control(p_values)
    clear = np.abs(adjusted - q) > 1e-12
    assert (benjamini_hochberg(p_values, q) == (adjusted <= q))[clear].all()


def test_what_is_not_known_is_not_counted():
    known = np.array([0.0004, 0.2])
    with_unknown = np.array([0.0004, np.nan, 0.2, np.nan])
    assert benjamini_hochberg(with_unknown, 0.001).tolist() == [True, False, False, False]
    assert benjamini_hochberg(known, 0.001).tolist() == [True, False]
    assert not benjamini_hochberg(np.array([np.nan]), 0.001).any()
    assert benjamini_hochberg(np.empty(0), 0.001).size == 0


def test_the_share_of_false_rejections_stays_below_q():
    random = np.random.default_rng(4)
    shares = []
    for _ in range(2000):
        p_values = np.concatenate([random.random(40), random.random(10) * 1e-4])
        rejected = benjamini_hochberg(p_values, 0.05)
        shares.append(rejected[:40].sum() / max(1, rejected.sum()))
    assert np.mean(shares) < 0.05
