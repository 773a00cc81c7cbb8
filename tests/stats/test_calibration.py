import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from seatrial.stats.calibration import realigned, recalibrated, reliability
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


def test_the_line_is_that_of_a_logistic_regression_on_the_logits():
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    scores = random.beta(2, 3, 3000)
    logits = np.log(scores / (1 - scores))
    labels = (random.random(3000) < 1 / (1 + np.exp(-(0.3 + 0.7 * logits)))).astype(float)
    found = recalibrated(labels, scores)
    oracle = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], labels)
    assert found.slope == pytest.approx(oracle.coef_[0, 0], abs=1e-4)
    assert found.intercept == pytest.approx(oracle.intercept_[0], abs=1e-4)
    assert abs(found.slope - 0.7) < 4 * found.slope_error < 0.3
    assert 0.2 < found.level < 0.5


def test_the_line_of_numbers_is_least_squares_with_robust_errors():
    random = np.random.default_rng(1)
    scores = random.normal(50, 10, 2000)
    labels = 5 + 0.9 * scores + random.normal(0, 3, 2000)
    found = realigned(labels, scores)
    slope, intercept = np.polyfit(scores, labels, 1)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert found.slope_error == pytest.approx(3 / 10 / np.sqrt(2000), rel=0.1)
    days = np.repeat(np.arange(20), 100)
    assert realigned(labels + random.normal(0, 3, 20)[days], scores, days).intercept_error > 3 * 0.067


@pytest.mark.parametrize(
    ("labels", "scores"),
    [([1, 1, 1], [0.2, 0.5, 0.7]), ([0, 1, 1], [0.5, 0.5, 0.5]), ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]), ([], [])],
    ids=["one class", "equal scores", "parted without a mistake", "nothing"],
)
def test_where_no_line_is_defined_there_is_none(labels, scores):
    assert recalibrated(np.array(labels, float), np.array(scores, float)) is None


def test_equal_numbers_have_no_line():
    assert realigned(np.arange(5.0), np.full(5, 2.0)) is None
