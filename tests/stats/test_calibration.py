import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from seatrial.stats.calibration import reliability
from seatrial.stats.metrics import expected_calibration_error


def test_bins_are_those_of_scikit_learns_calibration_curve_and_of_the_calibration_error():
    random = np.random.default_rng(3)
    scores = random.random(500) ** 2
    labels = (random.random(500) < scores).astype(float)
    found = reliability(labels, scores)
    observed, predicted = calibration_curve(labels, scores, n_bins=10)
    assert [one["rate"] for one in found] == pytest.approx(observed)
    assert [one["mean_score"] for one in found] == pytest.approx(predicted)
    assert sum(one["rows"] for one in found) == 500
    error = sum(one["rows"] * abs(one["mean_score"] - one["rate"]) for one in found) / 500
    assert error == pytest.approx(expected_calibration_error(labels, scores))


def test_empty_bins_are_left_out_and_borders_belong_to_the_bin_below():
    (one,) = reliability(np.array([0.0, 1.0]), np.array([0.5, 0.45]))
    assert (one["low"], one["high"], one["rows"], one["rate"]) == (pytest.approx(0.4), pytest.approx(0.5), 2, 0.5)
