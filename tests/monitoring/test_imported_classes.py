"""A log from elsewhere of a model of several classes: a probability for each, or the predicted class alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import sklearn.metrics as oracle

from seatrial.core.clock import to_us
from seatrial.monitoring.imported import monitor_log
from seatrial.monitoring.pages.page import html
from seatrial.monitoring.rows.foreign import LogColumnNotThere, LogColumnWrong
from seatrial.monitoring.rows.mapping import BadMap

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW_US = to_us(START + timedelta(days=8))
CLASSES = ("early", "late", "on time")
SURE = """
model = "trips"
task = "multiclass"
timestamp = "t"
label = "outcome"
features = ["wind"]
"""
EACH = SURE + '[probabilities]\nearly = "p0"\nlate = "p1"\n"on time" = "p2"\n'
CLASS = SURE + 'prediction = "said"\n'


def world(count=1400, seed=1, sure=3.0):
    """(the log, its probabilities, the place of what happened), drawn from the probabilities."""
    random = np.random.default_rng(seed)
    raw = random.random((count, 3)) ** sure
    scores = raw / raw.sum(axis=1, keepdims=True)
    happened = np.array([random.choice(3, p=row) for row in scores])
    names = np.array(CLASSES, dtype=object)
    at = [START + timedelta(days=7 * n / count) for n in range(count)]
    columns = {f"p{place}": scores[:, place] for place in range(3)}
    log = pa.table(
        {
            "t": pa.array(at, pa.timestamp("us", tz="UTC")),
            "said": names[scores.argmax(axis=1)].tolist(),
            "sureness": scores.max(axis=1),
            "outcome": names[happened].tolist(),
            "wind": random.normal(size=count),
            "id": [f"i{n}" for n in range(count)],
            **columns,
        }
    )
    return log, scores, happened


@pytest.fixture
def given(tmp_path):
    def write(toml, log=None):
        pq.write_table(world()[0] if log is None else log, tmp_path / "log.parquet")
        (tmp_path / "map.toml").write_text(toml)
        return tmp_path / "log.parquet", tmp_path / "map.toml"

    return write


def figures(report):
    return report.performance.metrics


@pytest.mark.parametrize("toml", [EACH, EACH.replace("features", 'prediction = "said"\nfeatures')])
def test_with_a_column_for_each_class_the_figures_are_those_of_scikit_learn(given, toml):
    _, scores, happened = world()
    found = monitor_log(*given(toml), as_of_us=NOW_US)
    decided = scores.argmax(axis=1)
    assert found.performance.labelled == 1400
    assert figures(found)["accuracy"] == pytest.approx(oracle.accuracy_score(happened, decided))
    assert figures(found)["f1"] == pytest.approx(oracle.f1_score(happened, decided, average="macro"))
    assert figures(found)["log_loss"] == pytest.approx(oracle.log_loss(happened, scores))
    assert figures(found)["roc_auc"] == pytest.approx(oracle.roc_auc_score(happened, scores, multi_class="ovr"))
    assert found.performance.mean_score == pytest.approx(scores.max(axis=1).mean())
    assert found.verdict == "ok"
    assert "were right" in found.headline


def test_with_the_predicted_class_alone_decisions_are_measured_and_nothing_else_is_claimed(given):
    _, scores, happened = world()
    found = monitor_log(*given(CLASS + '[[alarm]]\nmetric = "accuracy"\nbelow = 0.3\n'), as_of_us=NOW_US)
    decided = scores.argmax(axis=1)
    assert figures(found)["accuracy"] == pytest.approx(oracle.accuracy_score(happened, decided))
    assert figures(found)["precision"] == pytest.approx(oracle.precision_score(happened, decided, average="macro"))
    assert [figures(found)[name] for name in ("roc_auc", "log_loss", "brier")] == [None] * 3
    assert (found.performance.mean_score, found.performance.gap, found.performance.bins) == (None, None, [])
    assert found.verdict == "ok"
    assert f"{figures(found)['accuracy'] * 100:.0f} % were right" in found.headline
    assert any("only decisions are measured" in one for one in found.findings)
    assert all(check.passed for check in found.quality)
    assert "only decisions are measured" in html(found)


def test_without_an_alarm_a_log_of_classes_alone_is_not_called_well(given):
    found = monitor_log(*given(CLASS), as_of_us=NOW_US)
    assert found.verdict == "unknown"
    assert "how sure the model was" in found.headline


def test_the_probability_of_the_predicted_class_tells_of_its_calibration(given):
    _, scores, _ = world()
    found = monitor_log(*given(CLASS + 'score = "sureness"\n'), as_of_us=NOW_US)
    assert found.performance.mean_score == pytest.approx(scores.max(axis=1).mean())
    assert figures(found)["log_loss"] is None
    assert found.verdict == "ok"


def test_a_model_that_is_worse_than_allowed_is_told_by_its_classes(given):
    log, _, _ = world()
    wrong = log.set_column(log.column_names.index("outcome"), "outcome", pa.array(["early"] * log.num_rows))
    alarm = '[[alarm]]\nmetric = "accuracy"\nbelow = 0.5\n'
    found = monitor_log(*given(CLASS + alarm, wrong), as_of_us=NOW_US)
    assert found.verdict == "act"
    assert "accuracy is" in found.headline


def test_labels_of_a_file_find_their_prediction_as_classes(given, tmp_path):
    log, _, happened = world()
    told = log.select(["id", "outcome"])
    told = told.append_column("known_at", pa.array([START + timedelta(days=7, hours=12)] * log.num_rows))
    pq.write_table(told, tmp_path / "labels.parquet")
    where = given(
        EACH.replace('label = "outcome"', 'label = "outcome"\nprediction_id = "id"'), log.drop_columns(["outcome"])
    )
    labels = tmp_path / "labels.parquet"
    found = monitor_log(*where, as_of_us=NOW_US, labels=labels)
    assert found.performance.labelled == happened.size
    before = monitor_log(*where, as_of_us=to_us(START + timedelta(days=7, hours=6)), labels=labels)
    assert before.performance.labelled == 0
    assert figures(found) == figures(monitor_log(*given(EACH), as_of_us=NOW_US))


def test_the_shares_of_the_classes_are_compared_with_those_of_the_reference(given, tmp_path):
    log, scores, _ = world()
    where = given(EACH, log)
    pq.write_table(world(seed=2)[0], tmp_path / "same.parquet")
    same = monitor_log(*where, tmp_path / "same.parquet", as_of_us=NOW_US)
    assert (same.drift.prediction.kind, same.drift.prediction.drifted) == ("category", False)
    moved = log.filter(pa.array(scores.argmax(axis=1) != 0)).drop_columns(["p0", "p1", "p2"])
    pq.write_table(moved, tmp_path / "moved.parquet")
    found = monitor_log(*given(CLASS, log), tmp_path / "moved.parquet", as_of_us=NOW_US)
    assert found.drift.prediction.drifted


def test_classes_that_are_numbers_are_the_same_in_csv_and_as_floats(given, tmp_path):
    log, scores, happened = world(count=700)
    numbers = pa.table(
        {"t": log["t"], "said": scores.argmax(axis=1) + 3.0, "outcome": happened + 3, "wind": log["wind"]}
    )
    found = monitor_log(*given(CLASS, numbers), as_of_us=NOW_US)
    assert figures(found)["accuracy"] == pytest.approx(oracle.accuracy_score(happened, scores.argmax(axis=1)))
    pyarrow.csv.write_csv(numbers, tmp_path / "log.csv")
    assert figures(monitor_log(tmp_path / "log.csv", tmp_path / "map.toml", as_of_us=NOW_US)) == figures(found)


def test_rows_without_an_answer_or_a_label_do_not_count_and_are_told(given):
    log, scores, happened = world()
    holes = np.arange(log.num_rows) % 10
    p1 = pa.array(np.where(holes == 0, np.nan, scores[:, 1]), from_pandas=True)
    outcome = pa.array([None if hole == 1 else CLASSES[place] for hole, place in zip(holes, happened, strict=True)])
    log = log.set_column(log.column_names.index("p1"), "p1", p1)
    log = log.set_column(log.column_names.index("outcome"), "outcome", outcome)
    found = monitor_log(*given(EACH, log), as_of_us=NOW_US)
    counts = holes > 1
    assert found.performance.labelled == counts.sum()
    assert figures(found)["log_loss"] == pytest.approx(oracle.log_loss(happened[counts], scores[counts]))
    assert [check.name for check in found.quality if not check.passed] == ["scores there"]


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        (SURE, "does not say `prediction`"),
        (SURE + 'score = "sureness"\n', "no `prediction`"),
        (EACH.replace("features", 'prediction = "said"\nscore = "sureness"\nfeatures'), "beside"),
        (CLASS + 'positive = "late"\n', "several classes"),
        (SURE + '[probabilities]\nearly = "p0"\n', "Two classes"),
        (SURE + '[probabilities]\nearly = "p0"\nlate = "p0"\n', "column of its own"),
        (EACH.replace('"multiclass"', '"binary"'), "multiclass"),
        (EACH.replace('"p0"', "3"), "A column for each class"),
    ],
)
def test_a_map_that_cannot_be_is_refused(given, toml, words):
    with pytest.raises(BadMap, match=words):
        monitor_log(*given(toml), as_of_us=NOW_US)


def test_a_column_that_is_not_what_the_map_says_is_named(given):
    log, _, _ = world(count=50)
    with pytest.raises(LogColumnNotThere, match=r"'p9' \(probability\)"):
        monitor_log(*given(EACH.replace("p2", "p9"), log), as_of_us=NOW_US)
    with pytest.raises(LogColumnWrong, match="the predicted class"):
        monitor_log(*given(CLASS.replace('"said"', '"sureness"'), log), as_of_us=NOW_US)
    said = log.set_column(log.column_names.index("said"), "said", pa.array(["erly"] * 50))
    with pytest.raises(LogColumnWrong, match="a class without a probability") as told:
        monitor_log(*given(EACH.replace("features", 'prediction = "said"\nfeatures'), said), as_of_us=NOW_US)
    assert "early" in told.value.expected
    with pytest.raises(LogColumnWrong, match="probability of 'early'"):
        monitor_log(*given(EACH.replace("p0", "said"), log), as_of_us=NOW_US)
