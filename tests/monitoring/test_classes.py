"""Models of several classes in production: labels as classes, and how often the predicted one was right."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as oracle

from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.looks.alarms import evaluate
from seatrial.monitoring.looks.performance import performance
from seatrial.monitoring.monitor import make_report
from seatrial.monitoring.rows.labels import BadLabels, parse
from seatrial.monitoring.rows.reference import Reference
from seatrial.monitoring.rows.sample import from_log
from seatrial.stats.profile import category_profile, numeric_profile
from seatrial.stores.labels import LabelStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.testing.prediction_log_suite import a_row, a_schema
from tests.monitoring.worlds import DAY_US, START_US, week

CLASSES = ("early", "late", "on time")
END_US = START_US + 7 * DAY_US


def probabilities(rows: int, seed: int, sure: float = 3.0):
    """(rows, 3) probabilities, and the class that happened in each row, drawn from them."""
    random = np.random.default_rng(seed)
    raw = random.random((rows, 3)) ** sure
    table = raw / raw.sum(axis=1, keepdims=True)
    happened = [CLASSES[random.choice(3, p=row)] for row in table]
    return table, happened


def told(happened, **changes):
    rows = [{"prediction_id": f"p-{place:05}", "label": label} for place, label in enumerate(happened)]
    given = {"model": "trips", "task": "multiclass", "now_us": END_US, "actor": "tests"}
    return parse(rows, **given | changes)


def a_sample(tmp_path, table, happened=None, classes=CLASSES):
    """Predictions spread over the first week of April 2013, through the log and the label store."""
    log, labels = PredictionLog(tmp_path / "log"), LabelStore(tmp_path / "labels")
    schema = a_schema(model="trips", classes=classes, inputs=(), categories=(), fields=(), views=())
    step = 7 * DAY_US // len(table)
    rows = [
        a_row(
            schema,
            prediction_id=f"p-{place:05}",
            at_us=START_US + place * step,
            inputs=(),
            fields=(),
            views=(),
            prediction=int(row.argmax()),
            probability=float(row.max()),
            probabilities=row.astype("<f8").tobytes(),
        )
        for place, row in enumerate(table)
    ]
    log.append_all([(schema, row) for row in rows])
    log.close()
    if happened is not None:
        labels.append("trips", told(happened))
    read = labels.read("trips")
    return from_log(log.rows(), read, model="trips", task="multiclass", as_of_us=END_US)


def test_the_figures_are_those_of_scikit_learn_on_what_was_logged(tmp_path):
    table, happened = probabilities(400, 1)
    found = performance(a_sample(tmp_path, table, happened), week())
    places = [CLASSES.index(name) for name in happened]
    decided = table.argmax(axis=1)
    assert found.labelled == 400
    assert found.metrics["accuracy"] == pytest.approx(oracle.accuracy_score(places, decided))
    assert found.metrics["f1"] == pytest.approx(oracle.f1_score(places, decided, average="macro"))
    assert found.metrics["log_loss"] == pytest.approx(oracle.log_loss(places, table))
    assert found.metrics["roc_auc"] == pytest.approx(oracle.roc_auc_score(places, table, multi_class="ovr"))
    assert found.observed == pytest.approx(found.metrics["accuracy"])
    assert found.mean_score == pytest.approx(table.max(axis=1).mean())
    assert found.gap == pytest.approx(found.mean_score - found.observed)
    assert sum(one.rows for one in found.bins) == 400
    assert found.constant["accuracy"] == pytest.approx(max(np.bincount(places)) / 400)


def test_a_class_that_the_model_does_not_know_can_only_be_missed(tmp_path):
    table, happened = probabilities(30, 2)
    found = performance(a_sample(tmp_path, table, ["diverted"] * 30), week())
    assert (found.metrics["accuracy"], found.observed) == (0.0, 0.0)
    assert found.metrics["log_loss"] == pytest.approx(36.04, abs=0.01)
    assert happened


def test_predictions_without_labels_and_no_predictions_at_all_are_reported(tmp_path):
    table, _ = probabilities(30, 3)
    found = performance(a_sample(tmp_path, table), week())
    assert (found.rows, found.labelled, found.metrics["accuracy"]) == (30, 0, None)
    empty = from_log(PredictionLog(tmp_path / "none").rows(), None, model="trips", task="multiclass", as_of_us=END_US)
    report = make_report(empty, window=week(), as_of_us=END_US)
    assert (report.rows, report.verdict) == (0, "unknown")


def test_a_correction_counts_as_the_class_that_was_told_last(tmp_path):
    table = np.array([[0.1, 0.2, 0.7]] * 3)
    sample = a_sample(tmp_path, table, ["late"] * 3)
    assert sample.label_values().tolist() == [0.0] * 3
    LabelStore(tmp_path / "labels").append("trips", told(["on time"], now_us=END_US + 1))
    log = PredictionLog(tmp_path / "log")
    labels = LabelStore(tmp_path / "labels").read("trips")
    again = from_log(log.rows(), labels, model="trips", task="multiclass", as_of_us=END_US + 1)
    assert again.rows["label_class"].to_pylist() == ["on time", "late", "late"]
    assert again.label_values().tolist() == [1.0, 0.0, 0.0]
    assert again.labels.contradicting == 1


def test_whole_numbers_are_classes_and_other_numbers_are_not():
    assert [one.of_class for one in told([3, 5])] == ["3", "5"]
    assert [one.of_class for one in told([3.0, 5.0])] == ["3", "5"]
    for wrong in ([1.5, 2.0], [True, False], ["a", None]):
        with pytest.raises(BadLabels):
            told(wrong)


def test_labels_from_before_there_were_classes_are_read(tmp_path):
    store = LabelStore(tmp_path)
    store.append("late", told([1.0], task="binary"))
    (path,) = (tmp_path / "model=late").glob("*.parquet")
    whole = pq.read_table(path)
    pq.write_table(whole.drop_columns(["class"]), path)  # as the version before wrote it
    assert store.read("late")["label"].to_pylist() == [1.0]
    assert store.read("late")["class"].to_pylist() == [None]


def a_reference(counts):
    predicted = category_profile(np.repeat(np.array(CLASSES, dtype=object), counts))
    plain = {"format": 1, "rows": sum(counts), "inputs": {}, "predicted": predicted}
    return Reference.from_profile(plain | {"scores": numeric_profile(np.full(sum(counts), 0.6))})


def test_the_shares_of_predicted_classes_are_compared_with_testing(tmp_path):
    table, happened = probabilities(900, 4)
    sample = a_sample(tmp_path, table, happened)
    counts = np.bincount(table.argmax(axis=1)).tolist()
    same = make_report(sample, window=week(), as_of_us=END_US, reference=a_reference(counts))
    assert (same.drift.prediction.kind, same.drift.prediction.value) == ("category", 0.0)
    moved = make_report(sample, window=week(), as_of_us=END_US, reference=a_reference([800, 50, 50]))
    assert moved.drift.prediction.drifted
    assert "the predictions moved" in " ".join(moved.findings)


def test_the_report_says_how_often_the_class_was_right(tmp_path):
    table, happened = probabilities(600, 5)
    report = make_report(a_sample(tmp_path, table, happened), window=week(), as_of_us=END_US)
    right = report.performance.metrics["accuracy"]
    assert f"{right * 100:.0f} % were right" in report.headline


def test_an_alarm_on_a_metric_of_classes_fires_on_what_was_logged(tmp_path):
    table, happened = probabilities(400, 6)
    sample = a_sample(tmp_path, table, happened)
    alarm = Alarm.below("accuracy", 0.99, window="7d")
    assert evaluate(alarm, sample, END_US).state == "fired"
    assert evaluate(Alarm.below("f1", 0.01, window="7d"), sample, END_US).state == "quiet"


def test_a_model_too_sure_of_itself_is_told_so(tmp_path):
    table, _ = probabilities(800, 7, sure=8.0)
    random = np.random.default_rng(8)
    happened = [CLASSES[place] for place in random.integers(0, 3, 800)]
    report = make_report(a_sample(tmp_path, table, happened), window=week(), as_of_us=END_US)
    assert report.verdict == "act"
    assert "more sure of itself than it is right" in report.headline
