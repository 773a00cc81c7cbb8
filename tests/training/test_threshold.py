import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.features.definitions import BadDefinition
from seatrial.training.threshold import Costs, choose


@st.composite
def decided(draw):
    """Labels, scores with ties, and costs in whole numbers."""
    count = draw(st.integers(1, 40))
    labels = np.array(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count)), dtype=float)
    grid = draw(st.sampled_from([1, 4, 10, 1000]))
    scores = np.array(draw(st.lists(st.integers(0, grid), min_size=count, max_size=count))) / grid
    return labels, scores, Costs(false_positive=draw(st.integers(1, 20)), false_negative=draw(st.integers(1, 20)))


@settings(max_examples=200, deadline=None)
@given(decided())
def test_no_other_threshold_would_have_cost_less(drawn):
    labels, scores, costs = drawn
    found = choose(labels, scores, costs)
    tried = [0.0, *scores, *np.nextafter(scores, 2)]
    best = min(costs.mean(labels, scores, threshold) for threshold in tried if threshold <= 1)
    assert costs.mean(labels, scores, found.value) == pytest.approx(best)
    assert found.cost == pytest.approx(best)
    assert 0 <= found.value <= 1
    assert found.rows == labels.size


def test_probabilities_that_are_right_get_the_threshold_that_the_costs_imply():
    """A miss that costs four false alarms is worth one at a probability of one in five (Elkan 2001)."""
    random = np.random.default_rng(0)
    scores = random.random(200_000)
    labels = (random.random(scores.size) < scores).astype(float)
    costs = Costs(false_positive=1, false_negative=4)
    assert costs.implied == 0.2
    assert choose(labels, scores, costs).value == pytest.approx(0.2, abs=0.03)


def test_scores_that_are_all_too_high_get_a_threshold_of_their_own():
    random = np.random.default_rng(0)
    right = random.random(20_000)
    labels = (random.random(right.size) < right).astype(float)
    assert choose(labels, right**0.25, Costs(1, 4)).value == pytest.approx(0.2**0.25, abs=0.03)


def test_a_threshold_is_the_shortest_decimal_that_decides_alike():
    labels, scores = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.6001, 0.7123, 0.9])
    assert choose(labels, scores, Costs(1, 1)).value == 0.7
    assert choose(labels, np.array([0.1, 0.2, 0.7, 0.9]), Costs(1, 1)).value == 0.5  # implied, and within the gap


def test_a_gain_counts_as_a_negative_cost():
    labels, scores = np.array([0.0, 1.0]), np.array([0.4, 0.6])
    costs = Costs(false_positive=2, false_negative=0, true_positive=-10, true_negative=0)
    assert costs.implied == pytest.approx(2 / 12)
    assert choose(labels, scores, costs).cost == -5


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ({"false_positive": 0, "false_negative": 1}, "false_positive costs 0"),
        ({"false_positive": 1, "false_negative": 1, "true_positive": 2}, "true_positive 2"),
        ({"false_positive": float("nan"), "false_negative": 1}, "nan"),
        ({"false_positive": "1", "false_negative": 1}, "'1'"),
    ],
)
def test_costs_that_reward_mistakes_are_refused(costs, words):
    with pytest.raises(BadDefinition, match=words):
        Costs(**costs)
