"""A target of several classes, from its rows to an answer by class, its labels, and the report on them."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.core.clock import to_us
from seatrial.core.windows import Window, parse_window
from seatrial.testing import FakeClock
from tests.journeys.worlds import served

START = datetime(2024, 1, 1, tzinfo=UTC)
NOW = datetime(2024, 3, 1, tzinfo=UTC)
MARCH = parse_window("2024-03-01T00:00:00Z/2024-03-08T00:00:00Z")
CLASSES = ("early", "late", "on time")
PROJECT = """
from seatrial import Gate, Model, ParquetSource
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

trips = ParquetSource("trips.parquet", event_timestamp="at", label_known_at="known_at")
shared = dict(
    task="multiclass", target="outcome", labels=trips, key=["trip"], cv_folds=2, owner="ops", runbook="https://r",
    features=["request:wind", "request:load", "request:line"], gates=[Gate.at_least("accuracy", 0.6)],
)
trees = Model("trees", estimator="lightgbm.LGBMClassifier", params={"n_estimators": 8, "num_leaves": 7}, **shared)
stars = Model("stars", estimator=make_pipeline(SimpleImputer(), LogisticRegression()), **shared | {"target": "stars"})
"""


def trips(rows: int, start: datetime, seed: int) -> pa.Table:
    """One trip every two hours; its outcome follows wind and load and is known a day later."""
    random = np.random.default_rng(seed)
    wind, load = random.normal(size=rows), random.normal(size=rows)
    noisy = wind + random.normal(size=rows) * 0.3
    outcome = np.where(noisy > 0.5, "late", np.where(load + wind / 2 > 0.6, "early", "on time"))
    at = [start + timedelta(hours=2 * row) for row in range(rows)]
    instant = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "trip": [f"t{seed}-{row}" for row in range(rows)],
            "at": pa.array(at, instant),
            "known_at": pa.array([time + timedelta(days=1) for time in at], instant),
            "wind": pa.array(np.where(random.random(rows) < 0.1, np.nan, wind), from_pandas=True),
            "load": load,
            "line": random.choice(["A", "B", "C"], rows).tolist(),
            "outcome": pa.array(outcome.tolist()),
            "stars": pa.array((np.searchsorted([-0.5, 0.5], noisy) + 3).tolist()),
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The project after two models of it were trained, released and deployed."""
    folder = tmp_path_factory.mktemp("multiclass")
    pq.write_table(trips(700, START, 0), folder / "trips.parquet")
    (folder / "project.py").write_text(PROJECT)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n[policy]\napproval = "none"\n')
    project = Project(folder, clock=FakeClock(NOW))
    runs = {name: project.train(name) for name in ("trees", "stars")}
    released = {name: project.release(name) for name in runs}
    for name in runs:
        project.deploy(name)
    yield project, runs, released
    project.close()


def test_a_model_of_classes_is_measured_and_compared_class_by_class(world):
    _, runs, released = world
    for name in runs:
        assert set(runs[name].metrics) == {"roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1"}
        assert runs[name].metrics["accuracy"] > 0.6
        assert released[name].parity["passed"]
        assert released[name].parity["flipped"] == 0


def test_the_answer_is_the_class_as_it_was_given_with_a_probability_for_each(world):
    project, _, _ = world
    (answer,) = project.predict("trees", [{"wind": 2.0, "load": 0.0, "line": "A"}])
    assert answer["prediction"] == "late"
    assert tuple(answer["probability"]) == CLASSES
    assert sum(answer["probability"].values()) == pytest.approx(1, abs=1e-6)
    assert max(answer["probability"], key=answer["probability"].get) == "late"
    (answer,) = project.predict("stars", [{"wind": 2.0, "load": 0.0, "line": "A"}])
    assert answer["prediction"] == 5
    assert tuple(answer["probability"]) == ("3", "4", "5")


def test_the_service_answers_as_the_project_does_and_says_so_in_its_document(world):
    project, _, _ = world
    row = {"wind": None, "load": 0.3, "line": "B"}
    (here,) = project.predict("trees", [row])
    with served(project.folder) as (_, url):
        asked = urllib.request.Request(
            f"{url}/models/trees/predict", json.dumps({"instances": [row, row]}).encode(), method="POST"
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            there = json.loads(answer.read())["predictions"]
        with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:
            document = json.loads(answer.read())
        with urllib.request.urlopen(f"{url}/docs", timeout=10) as answer:
            assert b"/models/trees/predict" in answer.read()
    assert [one["probability"] for one in there] == [here["probability"]] * 2
    schema = document["components"]["schemas"]["trees_answer"]["properties"]
    assert schema["prediction"] == {"type": "string", "enum": list(CLASSES)}
    assert schema["probability"]["required"] == list(CLASSES)
    stars = document["components"]["schemas"]["stars_answer"]["properties"]
    assert stars["prediction"] == {"type": "integer", "enum": [3, 4, 5]}


def test_the_log_holds_the_probability_of_every_class(world):
    project, _, _ = world
    (answer,) = project.predict("trees", [{"wind": -1.0, "load": 2.0, "line": "A"}])
    (logged,) = project.log.find(answer["prediction_id"])
    assert (logged["prediction"], logged["predicted_class"]) == (None, answer["prediction"])
    assert {name: logged[f"probability_{name}"] for name in CLASSES} == answer["probability"]
    assert logged["probability"] == max(answer["probability"].values())
    explained = project.explain(answer["prediction_id"])
    assert explained.score == logged["probability"]
    assert [replay.same for replay in explained.replays] == [True]


def test_a_batch_its_labels_and_its_report_tell_how_often_the_class_was_right(world):
    project, _, _ = world
    later = trips(84, NOW, 1)
    whole = pa.concat_tables([pq.read_table(project.folder / "trips.parquet"), later])
    pq.write_table(whole, project.folder / "trips.parquet")
    project.clock.advance(timedelta(days=8))
    scored = project.predict_batch("trees", MARCH)
    assert (scored.predictions, scored.labelled) == (84, 84)
    told = project.label("trees")
    assert (told.told, told.matched) == (84, 84)
    assert project.label("trees").told == 0  # nothing is told twice
    report = project.monitor("trees", window=MARCH)
    assert report.performance.labelled == 84
    assert report.performance.metrics == pytest.approx(scored.metrics)
    assert report.performance.observed == pytest.approx(scored.metrics["accuracy"])
    assert report.performance.constant["accuracy"] < report.performance.metrics["accuracy"]
    assert report.drift.prediction.kind == "category"
    assert "right" in report.headline or "labels" in report.headline


def test_labels_are_told_as_the_classes_themselves(world):
    project, _, _ = world
    answers = project.predict("stars", [{"wind": wind, "load": 0.0, "line": "A"} for wind in (2.0, -2.0)])
    rows = [{"prediction_id": one["prediction_id"], "label": label} for one, label in zip(answers, (5, 4), strict=True)]
    assert project.label("stars", rows).matched == 2
    at = project.clock.now()
    report = project.monitor("stars", window=Window(to_us(at) - 1, to_us(at) + 1), keep=False)
    assert report.performance.metrics["accuracy"] == 0.5
    assert project.explain(answers[1]["prediction_id"]).label["label"] == "4"
