"""Concept drift: other inputs alone raise nothing, other answers to the same inputs do."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from benchmarks.monitoring import concept as simulation

from seatrial.monitoring.looks.concept import concept
from seatrial.monitoring.rows.baseline import Baseline
from tests.monitoring.worlds import START_US, a_sample, calibrated


def compared(now, before, **given):
    ripe = given.pop("ripe", np.ones(now.rows.num_rows, dtype=bool))
    return concept(now, None if before is None else Baseline("before", before), "no rows", ripe)


@cache
def look(case, seed):
    return simulation.look(case, seed)


@pytest.mark.parametrize("case", ["two inputs shift by 1 sd", "inputs narrow to 0.7"])
def test_other_inputs_alone_are_no_other_answer(case):
    found = [look(case, seed) for seed in range(3)]
    assert sum(one["flagged"] for one in found) == 0
    assert {one["words"] for one in found} == {"the inputs moved, the answer to them did not"}


def test_without_weights_other_inputs_would_be_taken_for_other_answers():
    assert any(look("two inputs shift by 1 sd", seed)["unweighted"] for seed in range(3))


@pytest.mark.parametrize("case", ["level rises by 0.4 logits", "an effect vanishes"])
def test_the_same_inputs_answered_differently_are_found(case):
    found = [look(case, seed) for seed in range(2)]
    assert all(one["flagged"] for one in found)
    assert all(one["words"].startswith("the same inputs are answered differently now (") for one in found)


@pytest.mark.parametrize(("hours", "words"), [(240, "10 days"), (24, "24 blocks of an hour")])
def test_blocks_of_time_are_named_as_everywhere_in_the_report(hours, words):
    now = calibrated(2100, at_us=START_US + np.arange(2100) * (hours * 3_600_000_000 // 2100))
    assert compared(now, calibrated(2100, seed=1)).unit == words


def test_both_at_once_are_both_said():
    found = look("inputs shift and level rises by 0.4", 0)
    assert found["words"].startswith("the inputs moved, and the same inputs are answered differently now too (+0.1")


def test_a_change_in_one_slice_is_named():
    random = np.random.default_rng(0)
    before = simulation.rows(random, 28)
    now = simulation.rows(random, 7, start=28)
    inputs, labels = now.rows["feature_x5"].to_numpy(), now.label_values().copy()
    labels[inputs > 0.7] = 1
    place = now.rows.column_names.index("label")
    import pyarrow as pa

    changed = type(now)(now.model, now.task, now.rows.set_column(place, "label", pa.array(labels)))
    found = compared(changed, before)
    assert found.verdict == "changed"
    assert found.slices[0].part.startswith("x5 ")
    assert found.slices[0].change > 0.3


def test_a_regression_is_compared_in_its_own_unit():
    random = np.random.default_rng(1)
    scores = random.normal(500, 40, 4000)
    labels = scores + random.normal(0, 20, 4000)
    before, same = (
        a_sample(scores[:2000], labels[:2000], task="regression"),
        a_sample(scores[2000:], labels[2000:], task="regression"),
    )
    assert compared(same, before).verdict == "same"
    other = compared(a_sample(scores[2000:], labels[2000:] + 10, task="regression"), before)
    assert other.verdict == "changed"
    assert other.parts[0].change == pytest.approx(10, abs=2)


def test_too_few_days_of_weather_cannot_say_that_nothing_changed():
    random = np.random.default_rng(2)
    before = simulation.rows(random, 28, weather=0.8)
    found = compared(simulation.rows(random, 7, start=28, weather=0.8), before)
    assert found.verdict == "unknown"
    assert "cannot say whether the answers changed" in found.words


def test_predictions_too_young_for_their_labels_are_left_out():
    now = calibrated(2000, seed=1)
    ripe = np.arange(2000) < 1500
    found = compared(now, calibrated(2000), ripe=ripe)
    assert found.rows == 1500
    assert "500 predictions are too young" in found.note
    assert "are compared at equal scores only" in found.note


@pytest.mark.parametrize(
    ("now", "before", "words"),
    [
        (calibrated(), None, "nothing to compare with: no rows"),
        (a_sample([]), calibrated(), "0 of 200 labels of now"),
        (a_sample([0.5], [1]), calibrated(), "1 of 200 labels of now"),
        (a_sample([0.3] * 900), calibrated(), "0 of 200 labels of now"),
        (a_sample([np.nan] * 900, [1] * 900), calibrated(), "0 of 200 labels of now"),
        (calibrated(), a_sample([0.3] * 300), "0 of 200 labels of before"),
    ],
    ids=["no baseline", "empty", "one row", "no labels", "NaN scores", "no labels before"],
)
def test_where_nothing_can_be_compared_it_says_why(now, before, words):
    found = compared(now, before)
    assert found.verdict == "unknown"
    assert words in found.words


def test_equal_scores_and_one_class_are_compared_all_the_same():
    before = a_sample([0.2] * 1000, [0] * 1000)
    assert compared(a_sample([0.2] * 1000, [0] * 1000), before).verdict == "same"
    found = compared(a_sample([0.2] * 1000, [1] * 1000), before)
    assert found.verdict == "changed"
    assert found.parts[0].change == pytest.approx(1)
