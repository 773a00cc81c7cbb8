from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from seatrial.stats.expected import expected_binary, expected_multiclass
from seatrial.stats.metrics import measure

share = st.floats(0, 1).map(lambda value: round(value, 2))
pairs = st.lists(st.tuples(share, st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


@given(pairs, st.sampled_from([0.2, 0.5]))
def test_of_probabilities_that_are_sure_it_is_the_metric_itself(found, threshold):
    scores, labels = (np.array(column) for column in zip(*found, strict=True))
    expected = expected_binary(labels, scores, threshold=threshold)
    real = measure("binary", labels, scores, threshold=threshold)
    assert expected == pytest.approx({name: real[name] for name in expected}, nan_ok=True)


@given(arrays.arrays(np.float64, (12, 3), elements=st.floats(0.01, 1)), st.lists(st.integers(0, 2), min_size=12))
def test_so_it_is_with_several_classes(weights, labels):
    scores = weights / weights.sum(axis=1, keepdims=True)
    places = np.array(labels[:12])
    expected = expected_multiclass(np.eye(3)[places], scores)
    real = measure("multiclass", places.astype(float), scores)
    assert expected == pytest.approx({name: real[name] for name in expected})


def test_it_is_the_mean_of_what_chance_makes_of_the_probabilities():
    random = np.random.default_rng(0)
    scores = random.beta(2, 3, 400)
    probabilities = np.clip(scores * 0.8 + 0.1, 0, 1)
    expected = expected_binary(probabilities, scores, threshold=0.4)
    drawn = [measure("binary", (random.random(400) < probabilities) * 1.0, scores, threshold=0.4) for _ in range(300)]
    for name, value in expected.items():
        assert value == pytest.approx(np.mean([one[name] for one in drawn]), abs=0.01), name


def test_no_row_expects_nothing():
    assert set(expected_binary(np.empty(0), np.empty(0)).values()) == {None}
    assert set(expected_multiclass(np.empty((0, 3)), np.empty((0, 3))).values()) == {None}


def test_weights_are_rows_that_each_stands_for():
    random = np.random.default_rng(1)
    scores, sure = random.random(50), random.random(50)
    often = random.integers(1, 4, 50)
    whole = expected_binary(np.repeat(sure, often), np.repeat(scores, often))
    assert expected_binary(sure, scores, weights=often.astype(float)) == pytest.approx(whole)
