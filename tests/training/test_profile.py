import json

import numpy as np
import pytest

from seatrial.training.profile import reference_profile

RANDOM = np.random.default_rng(5)
LABELS = np.array([0.0, 1.0, 1.0, 0.0])
SCORES = np.array([0.0, 0.3, 1.0, 0.5])


def profiled(values):
    return reference_profile("binary", {"x": values}, SCORES, LABELS)["inputs"]["x"]


def test_every_present_value_is_in_one_bin_and_missing_ones_are_counted():
    values = RANDOM.normal(size=1000)
    values[:30] = np.nan
    told = profiled(values)
    assert (told["count"], told["missing"], sum(told["counts"])) == (1000, 30, 970)
    assert len(told["edges"]) == 101
    assert max(told["counts"]) <= 11
    assert told["mean"] == pytest.approx(np.nanmean(values))
    assert (told["min"], told["max"]) == (np.nanmin(values), np.nanmax(values))


def test_ties_join_bins_instead_of_losing_rows():
    told = profiled(np.array([0.0] * 90 + [1.0] * 10))
    assert sum(told["counts"]) == 100
    assert told["edges"] == sorted(set(told["edges"]))
    assert profiled(np.full(7, 3.0))["counts"] == [7]


def test_a_column_without_values_has_no_bins():
    told = profiled(np.full(5, np.nan))
    assert (told["missing"], told["mean"], told["counts"]) == (5, None, [])


def test_of_many_categories_the_most_frequent_are_kept_and_the_rest_is_one_number():
    values = np.array([f"v{number:03}" for number in range(300)] + ["v299"] * 5 + [None] * 2, dtype=object)
    told = profiled(values)
    assert (told["distinct"], told["missing"], len(told["values"]), told["other"]) == (300, 2, 200, 100)
    assert next(iter(told["values"].items())) == ("v299", 6)
    assert sum(told["values"].values()) + told["other"] + told["missing"] == told["count"] == 307


def test_scores_have_a_histogram_and_labels_a_rate():
    told = reference_profile("binary", {}, SCORES, LABELS)
    assert told["labels"] == {"rate": 0.5}
    assert sum(told["scores"]["histogram"]["counts"]) == 4
    assert told["scores"]["histogram"]["edges"][0] == 0.0
    assert told["scores"]["histogram"]["edges"][-1] == 1.0
    assert told["scores"]["of"] == "test part"
    values = reference_profile("regression", {}, SCORES * 100, LABELS)
    assert values["labels"]["mean"] == 0.5
    assert values["scores"]["histogram"]["edges"][-1] == 100.0


def test_the_profile_is_plain_json_with_a_format_number():
    told = reference_profile("binary", {"x": RANDOM.normal(size=20)}, SCORES, LABELS)
    assert json.loads(json.dumps(told)) == told
    assert told["format"] == 1
