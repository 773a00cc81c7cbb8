from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from seatrial.stats.isotonic import isotonic

number = st.floats(-5, 5).map(lambda value: round(value, 1))
rows = st.lists(st.tuples(number, st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 0.5, 1.0, 3.0])), min_size=1)


@given(rows.filter(lambda found: any(weight > 0 for _, _, weight in found)))
def test_it_is_scikit_learns(found):
    scores, labels, weights = (np.array(column) for column in zip(*found, strict=True))
    oracle = IsotonicRegression(out_of_bounds="clip").fit(scores, labels, sample_weight=weights)
    at = np.linspace(-6, 6, 41)
    assert isotonic(scores, labels, weights)(at) == pytest.approx(oracle.predict(at), abs=1e-9)


@given(rows)
def test_it_never_falls_and_keeps_the_mean(found):
    scores, labels, _ = (np.array(column) for column in zip(*found, strict=True))
    fitted = isotonic(scores, labels)
    assert (np.diff(fitted.means) >= 0).all()
    assert fitted(scores).mean() == pytest.approx(labels.mean())
