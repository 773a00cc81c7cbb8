"""From raw flights to a served, logged prediction: the ten steps on real data, and the numbers that come out.

The journey is made once; every test looks at one part of what came of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime

import pyarrow as pa
import pytest

from seatrial import SeatrialError
from seatrial.serving.clients.client import Client
from seatrial.verbs.history import business_keys
from seatrial.verbs.inputs import Inputs
from tests.journeys.worlds import APRIL, ENGINEER, MIDNIGHT, REVIEWER, served

pytestmark = pytest.mark.slow

REQUEST = {
    "carrier": "UA", "origin": "EWR", "dest": "IAH", "flight": 1545, "tailnum": "N14228", "sched_hour": 5,
    "sched_minute": 15, "weekday": 1, "distance": 1400, "sched_block_min": 200.0, "sched_next_3h": 60,
}  # fmt: skip


def test_a_new_project_has_tests_a_workflow_and_a_runbook_with_roll_back(journey):
    files = {path.relative_to(journey.folder).as_posix() for path in journey.folder.rglob("*") if path.is_file()}
    assert {
        ".gitignore",
        ".gitattributes",
        "CODEOWNERS",
        "docs/runbook.md",
        "tests/test_data.py",
        "tests/test_inference.py",
        "tests/test_path.py",
        ".github/workflows/seatrial.yml",
    } <= files
    assert "seatrial deploy MODEL --release" in (journey.folder / "docs/runbook.md").read_text()
    assert journey.project.mirror().pending == 0
    of_the_machine = {
        "disk",
        "objects",
        "clock",
        "file system",
    }  # as it is where the tests run, which is no fact of ours
    found = {check.name: check.found for check in journey.project.doctor() if not check.passed}
    assert found.keys() <= of_the_machine, found


def test_the_impossible_wind_is_named_and_stops_the_line(journey):
    words = str(journey.refused)
    assert "wind_speed 1048.36" in words
    assert "EWR" in words
    assert "2013-02-12T08:00Z" in words
    assert 'SetAside(where="wind_speed > 150"' in words
    assert not [name for name in journey.written_before_the_rule if name.endswith(".parquet")]
    (weather,) = (one for one in journey.taken if one.source == "weather")
    assert weather.set_aside == {"wind_speed > 150": 1}
    assert weather.rows == 26_114


def test_the_same_data_is_the_same_snapshot_and_one_cell_is_another(journey, tmp_path):
    assert {one.source: one.rows for one in journey.taken} == {
        "flights": 336_776, "weather": 26_114, "planes": 3_322, "airports": 1_458, "airlines": 16,
    }  # fmt: skip
    assert [one.id for one in journey.taken] == [one.id for one in journey.again]
    assert not any(one.new for one in journey.again)
    data = journey.folder / "data" / "airports.csv"
    text = data.read_text()
    (tmp_path / "airports.csv").write_text(text)
    first = next(one.id for one in journey.taken if one.source == "airports")
    head, line, rest = text.split("\n", 2)
    cells = line.split(",")
    column = head.split(",").index("lat")
    cells[column] = str(float(cells[column]) + 1e-12)
    try:
        data.write_text("\n".join([head, ",".join(cells), rest]))
        (changed,) = journey.project.snapshot("airports")
        assert changed.id != first
        assert changed.changed_columns == ["lat"]
        diff = journey.project.snapshots_diff(first, changed.id)
        assert [(one.name, one.cells) for one in diff.changed] == [("lat", 1)]
    finally:
        data.write_text(text)
    (restored,) = journey.project.snapshot("airports")
    assert restored.id == first


def test_materializing_again_writes_nothing(journey):
    assert sum(one.written for one in journey.materialized) > 0
    assert sum(one.written for one in journey.repeated) == 0


def test_training_takes_what_was_known_and_passes_its_gates(journey):
    split = journey.trained.rows
    assert split["rows"]["used"] == 77_827  # as in the reference study: arrivals before midnight in New York
    assert split["kind"] == "time"
    assert split["purged"] > 0
    assert split["train"]["last_at"] < split["test"]["first_at"]
    assert journey.trained.passed
    assert journey.trained.version == 1
    assert {gate["gate"] for gate in journey.trained.gates} >= {"roc_auc at least 0.7"}
    run = journey.project.run_show(journey.trained.run)
    assert (run["seed"], run["threads"]) == (42, run["environment"]["threads"])
    (version,) = journey.project.models()
    assert version["aliases"] == ["candidate", "champion"]


def test_mlflow_shows_the_run_and_the_version(journey):
    report = journey.project.mirror()
    assert (report.pending, report.problem) == (0, "")
    database = journey.folder / ".seatrial" / "mlflow.db"
    script = (
        "from mlflow.tracking import MlflowClient; import json, sys; c = MlflowClient(sys.argv[1], sys.argv[1]);"
        "v = c.get_model_version_by_alias('late', 'candidate'); r = c.get_run(v.run_id);"
        "print(json.dumps([v.tags['seatrial.version'], r.data.metrics['test_roc_auc']]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{database}"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == ["1", pytest.approx(journey.trained.metrics["roc_auc"])]


def test_the_release_answers_like_the_model_on_every_row_of_april(journey):
    parity = journey.released.parity
    assert parity["rows"] == 77_827 + 28_330
    assert parity["largest"] <= 1e-6
    assert parity["flipped"] == 0
    assert journey.released.semantic_version == "1.0.0"
    assert (journey.repacked.id, journey.repacked.new) == (journey.released.id, False)
    verified = journey.project.release_verify(journey.released.id)
    assert verified.release == journey.released.id
    assert verified.signed_by.startswith("key_")
    assert verified.golden_rows == 200


def test_the_first_release_goes_live_only_when_a_second_person_has_approved_it(journey):
    assert (journey.not_approved.code, journey.not_approved.exit_code) == ("approval.missing", 4)
    assert (journey.own_approval.code, journey.own_approval.exit_code) == ("approval.own_proposal", 4)
    assert "seatrial approve" in str(journey.not_approved)
    approved = journey.approved
    assert (approved.release, approved.actor, approved.generation) == (journey.released.id, REVIEWER, 0)
    assert approved.proposers == [ENGINEER]
    assert approved.asserted
    assert journey.trained.run in approved.evidence
    assert (journey.deployed.generation, journey.deployed.previous) == (1, None)


def test_the_service_says_that_it_is_well_and_what_it_takes(journey):
    assert json.loads(journey.pages["health"])["live"] is True
    assert json.loads(journey.pages["ready"])["ready"] is True
    operations = json.loads(journey.pages["openapi.json"])["paths"]
    assert "/predict" in operations
    assert "sched_block_min" in json.dumps(operations) + journey.pages["openapi.json"]
    assert "cdn" not in journey.pages["docs"].lower()
    metrics = journey.pages["metrics"]
    assert 'model_predictions_total{model_name="late",model_version="1"} 28330.0' in metrics
    assert 'model_prediction_latency_seconds_count{model_name="late"} 28330.0' in metrics


def test_april_comes_out_as_in_the_reference_study(journey):
    assert journey.replayed.predictions == 28_330
    assert journey.replayed.labelled == 27_564
    assert 0.715 <= journey.replayed.metrics["roc_auc"] <= 0.735
    assert 0.525 <= journey.replayed.metrics["log_loss"] <= 0.54


def test_every_answer_is_in_the_log_with_the_features_of_the_offline_join_bit_by_bit(journey):
    model = journey.project.definitions.model("late")
    offline, _, _, _ = Inputs(journey.project).rows(model, window=APRIL)
    offline = offline.append_column("request_id", pa.array(business_keys(offline, model)))
    logged = journey.project.log.rows(model="late", window=APRIL)
    assert logged.num_rows == 28_330
    assert len(set(logged["prediction_id"].to_pylist())) == 28_330
    online, offline = logged.sort_by("request_id"), offline.sort_by("request_id")
    assert online["request_id"].to_pylist() == offline["request_id"].to_pylist()
    inputs = [name.removeprefix("feature_") for name in logged.column_names if name.startswith("feature_")]
    for name in inputs:
        served_values = online[f"feature_{name}"].combine_chunks()
        assert served_values.equals(offline[name].cast(served_values.type).combine_chunks()), name
    assert len(inputs) == 33


def test_a_prediction_leads_back_to_release_run_rows_files_commit_and_lock(journey):
    newest = journey.project.log.rows(columns=["prediction_id"])["prediction_id"][-1].as_py()
    nodes = {node.kind: node for node in journey.project.lineage(newest).nodes}
    assert {"prediction", "release", "version", "run", "training_set", "snapshot"} <= nodes.keys()
    assert nodes["release"].id == journey.released.id
    assert nodes["run"].id == journey.trained.run
    run = journey.project.run_show(journey.trained.run)
    assert run["environment"]["lock"]["digest"] in str(nodes["run"].facts)
    assert "code" in run["environment"]
    snapshot = journey.project.snapshot_show("flights")
    assert snapshot["taken"][0]["files"][0]["path"] == "data/flights.csv"


def test_the_audit_log_is_one_chain_also_against_what_deploy_said(journey):
    assert journey.project.audit_verify([journey.deployed.audit]).intact


def test_a_release_becomes_a_folder_for_docker(journey, tmp_path):
    files = journey.project.export_docker("late", tmp_path / "docker")
    assert {"Dockerfile", "requirements.txt", "release.seatrial"} <= set(files)


def test_status_says_what_is_live_from_what_and_whose_it_is(journey):
    (status,) = journey.project.status()
    assert (status.model, status.live, status.owner) == ("late", "1", "flight-ops")
    assert journey.released.id in status.release
    assert status.parameters["n_estimators"] == "200"
    assert status.performance["roc_auc"] == journey.trained.metrics["roc_auc"]
    assert set(status.snapshots) <= {one.id for one in journey.taken}


def test_killing_the_server_loses_no_answer(journey):
    before = journey.project.log.rows(columns=["prediction_id"]).num_rows
    with served(journey.folder) as (process, url):
        with Client(url) as client:
            answered = [client.predict(REQUEST, model="late")["prediction_id"] for _ in range(200)]
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    logged = journey.project.log.rows(columns=["prediction_id"])["prediction_id"].to_pylist()
    assert len(logged) == before + 200
    assert set(answered) <= set(logged)


def test_an_answer_says_which_views_had_nothing_fresh_to_say(journey):
    (answer,) = journey.project.predict("late", [REQUEST | {"tailnum": "nobody"}], at=APRIL.end)
    assert answer["views"] == {"plane_arrival": "missing"}


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        (lambda p: p.materialize("nothing"), "project.unknown_name"),
        (lambda p: p.train("nothing"), "project.unknown_name"),
        (lambda p: p.train("late", cutoff=datetime(2013, 4, 1)), "usage.naive_time"),
        (lambda p: p.release("late:7"), "registry.unknown_version"),
        (lambda p: p.deploy("late", release="rel_none"), "lineage.unknown_id"),
        (lambda p: p.push("plane_arrival", [{"tailnum": "N1"}]), "data.row_lacks_column"),
        (lambda p: p.push("nothing", []), "project.unknown_name"),
        (lambda p: p.lineage("nothing"), "lineage.unknown_id"),
        (lambda p: p.predict("late", [{"carrier": 7}]), "project.prediction_refused"),
        (lambda p: p.predict("late", [REQUEST], at=MIDNIGHT), "project.prediction_refused"),  # its tails are gone
    ],
)
def test_a_wrong_call_is_answered_by_one_clear_error(journey, verb, code):
    with pytest.raises(SeatrialError) as error:
        verb(journey.project)
    assert error.value.code == code
