"""Training on several classes: what is learned from, what is measured, what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from seatrial.releases.native import capture
from seatrial.stats.metrics import measure
from seatrial.training.model import Split
from seatrial.training.pipeline import ChampionScores
from seatrial.training.rows import BadClasses, BadTarget, training_rows
from seatrial.training.split import ClassNotLearned, folds, split
from tests.training.factories import LIGHTGBM, model, put, run, table

NAMES = ["cancelled", "late", "on time"]


def declared(**changes):
    return model(**{"task": "multiclass", "features": ["request:distance", "request:stops"], "cv_folds": 0} | changes)


def trips(rows=300, *, timed=False, names=NAMES, seed=0):
    given = table(rows, timed=timed, task="regression", seed=seed)
    values = given["late"].to_numpy()
    place = np.digitize(values, np.quantile(values, np.arange(1, len(names)) / len(names)))
    return put(given, "late", [names[one] for one in place])


def test_classes_are_the_sorted_values_and_labels_their_places():
    given = trips()
    rows = training_rows(declared(timed=False), given, cutoff_us=None)
    assert rows.classes == ("cancelled", "late", "on time")
    assert [rows.classes[int(place)] for place in rows.labels] == given["late"].to_pylist()


def test_whole_numbers_are_classes_as_they_are():
    given = put(trips(), "late", np.arange(300) % 4 - 1)
    assert training_rows(declared(timed=False), given, cutoff_us=None).classes == (-1, 0, 1, 2)


def test_rows_without_a_class_are_not_learned_from_and_counted():
    values = trips()["late"].to_pylist()
    values[7:17] = [None] * 10
    rows = training_rows(declared(timed=False), put(trips(), "late", values, pa.string()), cutoff_us=None)
    assert rows.counts["unlabelled"] == 10
    assert rows.size == 290


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ([True, False, None] * 100, BadTarget, "declare the task 'binary'"),
        ([1.5, 2.0, 3.0] * 100, BadTarget, "strings or whole numbers"),
        (["a", "b"] * 150, BadClasses, "has 2 classes"),
        (["a"] * 300, BadClasses, "has 1 classes"),
        ([f"c{row // 2}" for row in range(2998)] + ["x", "y"], BadClasses, "1501 classes"),
        (["a", "b", "c"] * 99 + ["a", "b", "rare"], BadClasses, "one row each: rare"),
        ([None] * 300, BadTarget, "is null"),
    ],
)
def test_a_target_that_is_not_several_classes_is_refused(values, error, words):
    given = trips(len(values))
    with pytest.raises(error, match=words):
        training_rows(declared(timed=False), put(given, "late", values), cutoff_us=None)


def test_a_binary_model_of_three_values_is_told_of_the_task_for_it():
    with pytest.raises(BadTarget, match="multiclass"):
        training_rows(model(timed=False), put(table(timed=False), "late", np.arange(400) % 3), cutoff_us=None)


def test_without_times_each_class_is_split_by_its_share():
    rows = training_rows(declared(timed=False), trips(), cutoff_us=None)
    parts = split(declared(timed=False), rows)
    tested = np.bincount(rows.labels[parts.test].astype(int)) / parts.test.size
    np.testing.assert_allclose(tested, np.bincount(rows.labels.astype(int)) / rows.size, atol=0.01)


def test_a_class_that_only_the_test_part_has_is_refused_by_name():
    given = trips(timed=True)
    values = given["late"].to_pylist()[:290] + ["diverted"] * 10
    with pytest.raises(ClassNotLearned, match="diverted; the test part has 10"):
        run(declared(), put(given, "late", values))
    split_by_class = declared(split=Split("stratified"))
    assert "diverted" in run(split_by_class, put(given, "late", values)).signature.classes


def test_a_fold_that_never_saw_a_class_gives_it_no_probability():
    given = trips(timed=True)
    values = given["late"].to_pylist()
    values[150:230] = ["diverted"] * 80  # the first of the folds learn before that
    asked = declared(cv_folds=3)
    fitted = run(asked, put(given, "late", values))
    rows = training_rows(asked, put(given, "late", values), cutoff_us=None)
    first = folds(asked, rows, split(asked, rows).train)[0]
    assert np.unique(rows.labels[first.train]).size == 3 < len(rows.classes)
    assert fitted.cv.folds[0].metrics["accuracy"] is not None


def test_the_baseline_predicts_the_class_shares_of_the_training_part():
    asked, given = declared(timed=False), trips()
    fitted = run(asked, given)
    rows = training_rows(asked, given, cutoff_us=None)
    parts = split(asked, rows)
    shares = np.bincount(rows.labels[parts.train].astype(int)) / parts.train.size
    wanted = measure("multiclass", rows.labels[parts.test], np.tile(shares, (parts.test.size, 1)))
    assert fitted.baseline == wanted
    assert fitted.metrics["accuracy"] > wanted["accuracy"]


def test_test_scores_tell_the_class_what_was_predicted_and_each_probability():
    found = run(declared(timed=False), trips()).test_scores
    table_of = np.column_stack([found[f"score_{name}"].to_numpy() for name in NAMES])
    assert [NAMES[place] for place in table_of.argmax(axis=1)] == found["predicted"].to_pylist()
    np.testing.assert_allclose(table_of.max(axis=1), found["score"].to_numpy())
    assert set(found["label"].to_pylist()) == set(NAMES)


def test_the_profile_counts_how_often_each_class_was_predicted():
    profile = run(declared(timed=False), trips()).profile
    assert profile["labels"]["values"].keys() == set(NAMES)
    assert sum(profile["predicted"]["values"].values()) == 60


def test_a_champion_of_other_classes_is_compared_by_the_names_of_its_classes():
    from seatrial.training.gates import Gate

    def says(rows):  # it knows a class that is gone, and one of ours it does not
        return np.tile([0.1, 0.7, 0.2], (rows.num_rows, 1))

    champion = ChampionScores("old 1", says, ("gone", "late", "on time"))
    gated = declared(timed=False, gates=[Gate.not_worse_than_champion("accuracy")])
    fitted = run(gated, trips(), champion=champion)
    late = np.mean([label == "late" for label in fitted.test_scores["label"].to_pylist()])
    assert fitted.gates[0].threshold == pytest.approx(late)


def test_lightgbm_learns_classes_and_keeps_them_in_its_own_format():
    fitted = run(declared(timed=False, estimator=LIGHTGBM, params={"n_estimators": 5}), trips())
    assert fitted.native.format == "lightgbm"
    assert fitted.native.scorer()(fitted.parity_rows[:4]).shape == (4, 3)
    assert capture(fitted.native.load(), "multiclass").data


def test_five_hundred_classes_are_trained_and_measured():
    names = [f"class {place:03}" for place in range(500)]
    given = trips(2500, names=names)
    fitted = run(declared(timed=False, estimator="sklearn.naive_bayes.GaussianNB"), given)
    assert len(fitted.signature.classes) == 500
    assert fitted.metrics["roc_auc"] > 0.6
