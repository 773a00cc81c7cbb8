"""Estimates without labels: close where the world answers as before, blind where it does not, and saying so."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from benchmarks.monitoring import estimate as simulation

from seatrial.monitoring.looks.estimate import BLIND, estimate
from seatrial.monitoring.rows.baseline import Baseline
from seatrial.stats.metrics import measure
from tests.monitoring.worlds import a_sample, calibrated, of_classes


@pytest.fixture(scope="module")
def windows():
    found = {}

    def look(case, seed=0):
        if (case, seed) not in found:
            found[case, seed] = simulation.window(case, seed, before=12_000, rows=8_000)
        return found[case, seed]

    return look


COVARIATE = "linear, inputs narrow to half"
OVERFIT = "trees (overfit), inputs narrow to half"
OF_A_WINDOW = 0.006
"""Standard deviation of a window's error, by the 20 of benchmarks/RESULTS.md."""
CONCEPT = "concept, linear: two effects 60 % weaker"


def off(one, name="own"):
    return one[name].metrics["roc_auc"] - one["realised"]["roc_auc"]


def test_it_is_within_a_hundredth_of_the_auc_that_labels_show_when_other_inputs_come():
    """On average of windows: 5,000 labels tell the AUC itself to about a hundredth only."""
    off_by, inside = [], 0
    for seed in range(4):
        one = simulation.window(COVARIATE, seed)
        assert one["realised"]["roc_auc"] < one["before"]["roc_auc"] - 0.08
        assert one["own"].weighted
        low, high = one["own"].intervals["roc_auc"]
        inside += low <= one["realised"]["roc_auc"] <= high
        off_by.append(abs(off(one)))
    assert np.mean(off_by) < 0.01
    assert inside >= 3


@pytest.mark.slow
def test_of_an_overfit_model_it_is_within_the_goal_and_chance_where_without_weights_it_is_not():
    """The mean of four windows; two standard errors of it are chance."""
    found = [simulation.window(OVERFIT, seed) for seed in range(4)]
    bound = simulation.GOAL + 2 * OF_A_WINDOW / len(found) ** 0.5
    assert np.mean([abs(off(one)) for one in found]) < bound
    assert np.mean([abs(off(one, "unweighted")) for one in found]) > bound
    assert all(one["own"].weighted for one in found)


@pytest.mark.parametrize(("off_by", "word"), [(0.0099, "kept"), (0.0105, "MISSED")])
def test_the_benchmark_says_kept_or_missed_with_the_interval_beside_it(off_by, word):
    one = {"errors": {"own": [off_by], "true ratio": [0.009]}, "half": 0.0028}
    one["of the truth"] = {"own": (0.007, 0.002), "labels": (0.006, 0.001)}
    goal, verdict, *_ = simulation.verdict(dict.fromkeys(simulation.COVARIATE, one)).splitlines()
    assert "within 0.01 of the AUC that labels show" in goal
    assert verdict.startswith(f"{word}: the worst is ")
    assert verdict.endswith(f"off by {off_by:.4f}, 95 % interval {off_by - 0.0028:.4f} to {off_by + 0.0028:.4f}")


def test_weights_leave_about_as_many_rows_as_the_true_density_ratio_does(windows):
    one = windows(COVARIATE)
    assert one["own"].weighted
    # six inputs, each narrowed to half: (4 / 7 ** 0.5) ** -6 = 0.084
    assert one["own"].effective == pytest.approx(0.084, abs=0.02)


def test_when_the_world_answers_differently_the_whole_loss_is_missed_and_that_is_said(windows):
    one = windows(CONCEPT)
    loss = one["before"]["roc_auc"] - one["realised"]["roc_auc"]
    assert loss > 0.08
    assert off(one) == pytest.approx(loss, abs=0.02)
    assert one["own"].blind == BLIND
    assert "cannot see that the world answers differently" in BLIND


def test_weights_are_not_used_when_the_inputs_did_not_move(windows):
    one = windows(CONCEPT)["own"]
    assert not one.weighted
    assert one.auc == pytest.approx(0.5, abs=0.03)
    assert one.effective is None


def test_what_was_labelled_before_is_said_and_stands_beside_it(windows):
    one = windows(COVARIATE)
    assert one["own"].calibrated_on == "rows of before (12,000 rows)"
    assert one["own"].tested["roc_auc"] == pytest.approx(one["before"]["roc_auc"])


def test_there_is_none_when_hardly_any_row_of_before_is_like_those_of_now():
    random = np.random.default_rng(0)
    inputs = {"feature_x": pa.array(random.normal(size=3000))}
    before = calibrated(3000, **inputs)
    now = calibrated(3000, seed=1, feature_x=pa.array(random.normal(3.2, 0.2, 3000)))
    found = estimate(now, Baseline("before", before), "")
    assert found.metrics == {}
    assert "no estimate: only" in found.note
    assert found.blind == BLIND


def test_uncalibrated_scores_are_calibrated_first():
    random = np.random.default_rng(3)
    sure = random.beta(2, 2, 8000)
    labels = (random.random(8000) < 0.2 + 0.6 * sure).astype(float)
    found = estimate(a_sample(sure[:4000]), Baseline("before", a_sample(sure[4000:], labels[4000:])), "")
    real = measure("binary", labels[:4000], sure[:4000])
    for name in ("roc_auc", "accuracy", "brier", "log_loss", "f1"):
        assert found.metrics[name] == pytest.approx(real[name], abs=0.03), name
        low, high = found.intervals[name]
        assert low - 0.005 <= real[name] <= high + 0.005, name


def test_of_several_classes_each_is_calibrated():
    before, now = of_classes(2000, seed=0), of_classes(2000, seed=1)
    found = estimate(now, Baseline("before", before), "")
    labels, scores = now.class_scores()
    real = measure("multiclass", labels, scores)
    for name in ("accuracy", "roc_auc", "log_loss", "f1"):
        assert found.metrics[name] == pytest.approx(real[name], abs=0.04), name
        low, high = found.intervals[name]
        assert low < found.metrics[name] < high


@pytest.mark.parametrize(
    ("now", "before", "note"),
    [
        (a_sample([1.0, 2.0], task="regression"), None, "no estimate for a regression"),
        (a_sample([0.5] * 300), None, "nothing to calibrate on: no rows"),
        (a_sample([]), calibrated(), "not enough data: 0 of 200 predictions"),
        (a_sample([0.5]), calibrated(), "not enough data: 1 of 200 predictions"),
        (a_sample([np.nan] * 300), calibrated(), "not enough data: 0 of 200 predictions"),
        (calibrated(), a_sample([0.2] * 300, [0] * 300), "all 300 labels are 0"),
        (calibrated(), a_sample([0.2] * 300), "nothing to calibrate on: 0 of 200 labelled rows"),
    ],
    ids=["regression", "no baseline", "empty", "one row", "NaN scores", "one class", "no labels ever"],
)
def test_where_there_is_none_it_says_why(now, before, note):
    found = estimate(now, None if before is None else Baseline("before", before), "no rows")
    assert (found.metrics, found.blind) == ({}, BLIND)
    assert note in found.note


def test_scores_that_are_all_equal_rank_nothing():
    labels = np.tile([0.0, 1.0], 500)
    found = estimate(a_sample([0.5] * 1000), Baseline("before", a_sample([0.5] * 1000, labels)), "")
    assert found.metrics["roc_auc"] == 0.5
    assert found.metrics["accuracy"] == pytest.approx(0.5)
    assert msgspec.json.encode(found)
