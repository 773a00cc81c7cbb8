"""A tuned model of three classes goes all the way round: served, labelled, watched, retrained, compared, live again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.core.clock import to_us
from seatrial.core.windows import Window, parse_window
from seatrial.retraining.backtest import backtest, classes_of
from seatrial.testing import FakeClock
from seatrial.verbs.inputs import columns
from tests.journeys.worlds import served

START = datetime(2024, 1, 18, tzinfo=UTC)
TRAINED = datetime(2024, 2, 1, tzinfo=UTC)
TURN = datetime(2024, 2, 3, tzinfo=UTC)
END = datetime(2024, 3, 20, tzinfo=UTC)
PROJECT = """
from seatrial import Alarm, BlueGreen, Deployment, Gate, Model, Monitor, ParquetSource, Retrain, Trigger, Tune

trips = ParquetSource("trips.parquet", event_timestamp="at", label_known_at="known_at")
Deployment("trips", strategy=BlueGreen())
Model("trips", task="multiclass", target="outcome", labels=trips, key=["trip"], cv_folds=2, owner="ops",
      runbook="https://r", features=["request:wind", "request:load", "request:line"],
      estimator="lightgbm.LGBMClassifier", params={"n_estimators": 8},
      tune=Tune({"num_leaves": Tune.integer(4, 15), "learning_rate": Tune.number(0.05, 0.5, log=True)}, trials=3),
      gates=[Gate.at_least("accuracy", 0.4)])
Monitor("trips", alarms=[Alarm.below("accuracy", 0.6)])
Retrain("trips", on=["performance", Trigger.calibration(0.1, window="7d", every="7d", looks=1)], min_days=3,
        cool_down="1d")
"""


def trips() -> pa.Table:
    """One trip every twenty minutes, whose outcome is known a day later. From 3 February on wind does the contrary."""
    random = np.random.default_rng(0)
    at = [START + timedelta(minutes=20 * row) for row in range(int((END - START) / timedelta(minutes=20)))]
    wind, load = random.normal(size=len(at)), random.normal(size=len(at))
    turned = np.array([one >= TURN for one in at])
    felt = np.where(turned, -wind, wind) + random.normal(size=len(at)) * 0.3
    outcome = np.where(felt > 0.5, "late", np.where(load + felt / 2 > 0.6, "early", "on time"))
    instant = pa.timestamp("us", tz="UTC")
    return pa.table(
        {
            "trip": [f"t{row}" for row in range(len(at))],
            "at": pa.array(at, instant),
            "known_at": pa.array([time + timedelta(days=1) for time in at], instant),
            "wind": pa.array(np.where(random.random(len(at)) < 0.1, np.nan, wind), from_pandas=True),
            "load": load,
            "line": random.choice(["A", "B", "C"], len(at)).tolist(),
            "outcome": pa.array(outcome.tolist()),
        }
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A project whose first version was trained in January and is live."""
    folder = tmp_path_factory.mktemp("loop")
    pq.write_table(trips(), folder / "trips.parquet")
    (folder / "project.py").write_text(PROJECT)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n[policy]\napproval = "none"\n')
    with Project(folder, clock=FakeClock(TRAINED), actor="ada") as project:
        trained = project.train("trips")
        project.release("trips")
        project.deploy("trips")
        yield project, trained


def test_the_loop_closes_with_classes(world):
    project, trained = world
    tuned = project.run_show(trained.run)["tuning"]
    assert tuned["best"]["params"]["num_leaves"] >= 4

    # two quiet days and a week after the wind turned, replayed through a real service
    window = parse_window("2024-02-01T00:00:00Z/2024-02-10T00:00:00Z")
    with served(project.folder, "--replay") as (_, url):
        replayed = project.replay("trips", window, url=url)
    assert replayed.labelled == replayed.predictions == 9 * 72
    project.clock.advance(timedelta(days=10))
    assert project.label("trips").matched == 9 * 72
    report = project.monitor("trips", window=window)
    assert report.performance.metrics == pytest.approx(replayed.metrics)
    assert report.verdict == "act"
    assert {one.name for one in report.alarms if one.state == "fired"}
    assert project.alerts("trips")
    logged = project.log.rows(model="trips", columns=["prediction_id"])["prediction_id"].to_pylist()
    explained = project.explain(logged[-1])
    assert explained.label["label"] in ("early", "late", "on time")
    assert [replay.same for replay in explained.replays] == [True]

    # the alarm proposes; the challenger has the champion's parameters
    proposed = project.retrain("trips").proposal
    assert proposed.state == "open"
    project.clock.advance(timedelta(days=15))
    challenger = project.retrain("trips", "train").proposal
    body = project.run_show(challenger.run)
    assert body["tuning"] == {**tuned, "chosen_by": trained.run}
    chosen = tuned["best"]["params"]
    assert {name: body["estimator"]["params"][name] for name in chosen} == chosen
    assert project.record(challenger.challenger).body["semantic_version"] == "1.0.1"
    assert project.reproduce(challenger.run).verdict == "identical"

    # compared on days that neither was trained on, better, and live
    project.clock.advance(timedelta(days=12))
    compared = project.retrain("trips", "compare").proposal
    assert compared.state == "better"
    assert compared.comparison.loss == "log_loss"
    assert compared.comparison.challenger_metrics["accuracy"] > compared.comparison.champion_metrics["accuracy"]
    assert project.promote("trips").version == "2"
    (answer,) = project.predict("trips", [{"wind": -2.0, "load": 0.0, "line": "A"}])
    assert answer["prediction"] == "late"

    # a challenger after that goes on with the same choice, told by the run that made it
    third = project.train("trips", tune="champion")
    assert project.run_show(third.run)["tuning"]["chosen_by"] == trained.run


def test_a_backtest_of_classes_takes_the_parameters_of_the_champion(world):
    project, trained = world
    model = project.definitions.model("trips")
    rows, _, request, _ = project._inputs.rows(model, window=Window(0, to_us(datetime(2024, 2, 20, tzinfo=UTC))))
    instants = [to_us(datetime(2024, 1, 25, tzinfo=UTC)), to_us(TRAINED)]
    tuning = project.run_show(trained.run)["tuning"]
    scores = backtest(model, rows, request, instants, columns, tuning=tuning)
    assert classes_of(model, rows) == ("early", "late", "on time")
    known = ~np.isnan(scores).any(axis=1)
    assert scores[known].sum(axis=1) == pytest.approx(1)
    assert 0 < known.sum() < rows.num_rows


def test_a_search_that_was_changed_is_made_again(world):
    project, trained = world
    file = project.folder / "project.py"
    file.write_text(file.read_text().replace("integer(4, 15)", "integer(4, 7)"))
    with Project(project.folder, clock=FakeClock(project.clock.now()), actor="ada") as again:
        found = again.run_show(again.train("trips", tune="champion").run)["tuning"]
    assert "chosen_by" not in found
    assert found["best"]["params"]["num_leaves"] <= 7
    assert trained.run
