"""The commands on a real project: what each prints, and with which code it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest

from seatrial import Project
from seatrial.cli import run

ROW = '{"size": 0.25, "weight": 0.5}'
PROJECT = """
    from seatrial import CsvSource, Deployment, Gate, Model, expect

    things = CsvSource("things.csv", event_key=["id"], expectations=[
        expect.unique(["id"]), expect.between("size", 0, 1),
    ])
    Model(
        "heavy", task="binary", target="heavy", labels=things, key=["id"],
        features=["request:size", "request:weight"],
        estimator="lightgbm.LGBMClassifier", params={"n_estimators": 5}, cv_folds=2,
        gates=[Gate.at_least("roc_auc", 0.6)], owner="tests", on_call="tests", runbook="none",
    )
    Deployment("heavy")
"""
BLUE_GREEN = PROJECT.replace("import ", "import BlueGreen, ").replace(
    'Deployment("heavy")', 'Deployment("heavy", strategy=BlueGreen())'
)
"""The same, for tests that are not about a rollout: a new release takes all traffic at once."""


def make(folder, *, weight=lambda i: i / 400, project=PROJECT):
    """A project of 400 rows in `folder`; a thing is heavy when i % 400 is above 200."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.py").write_text(textwrap.dedent(project))
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    rows = [f"{i},{(i * 7 % 400) / 400},{weight(i)},{i > 200}" for i in range(400)]
    (folder / "things.csv").write_text("id,size,weight,heavy\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project whose model is live."""
    made = make(tmp_path_factory.mktemp("cli") / "project")
    for verb in ("train", "release", "deploy"):
        assert run([verb, "--project", str(made)]) == 0
    return made


@pytest.fixture
def told(folder, capsys):
    """Run a command on the live project: its JSON document, after it ended with 0 and said nothing."""

    def tell(*words):
        assert run([*words, "--project", str(folder), "--json"]) == 0
        out = capsys.readouterr()
        assert out.err == ""
        return json.loads(out.out)

    return tell


@pytest.mark.parametrize(
    "words",
    [
        "doctor", "status", "validate", "snapshot", "snapshots list", "snapshots list things",
        "snapshots show snap_", "snapshots diff things things", "features list", "runs list", "runs list heavy",
        "runs show run_", "models list", "releases list", "releases show rel_", "releases verify rel_",
        "deployments list", "deployments show heavy", "audit list", "audit list --limit 2", "audit show 1",
        "audit verify", "lineage rel_", "materialize", "release heavy",
    ],
)  # fmt: skip
def test_every_command_answers_in_text_and_in_one_json_document(told, folder, capsys, words):
    assert told(*words.split()) is not None
    assert run([*words.split(), "--project", str(folder)]) == 0
    out = capsys.readouterr()
    assert out.out.strip() or words == "materialize"
    assert "\x1b" not in out.out
    assert out.err == ""


def test_a_noun_alone_lists(told):
    assert told("releases") == told("releases", "list")
    assert len(told("snapshots")) == 1


@pytest.mark.parametrize("words", ["runs", "releases", "alerts", "reports", "proposals", "proposals refusals"])
def test_a_model_that_is_spelt_wrong_is_no_empty_list(told, folder, capsys, words):
    listing = words.split() if " " in words else [words, "list"]
    told(*listing, "heavy")
    assert run([*listing, "lete", "--project", str(folder)]) == 2
    assert "no model is named 'lete'" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["reports show", "alerts show", "alerts acknowledge", "incident", "proposals show"])
def test_a_model_of_which_nothing_is_kept_is_not_unknown(folder, capsys, words):
    assert run([*words.split(), "heavy", "--project", str(folder)]) == 2
    kind = words.split()[0].removesuffix("s").replace("incident", "alert")
    assert f"model 'heavy' has no {kind}." in capsys.readouterr().err


def test_a_run_and_a_release_are_summed_up_for_people_and_whole_for_programs(told, folder, capsys):
    whole = {noun: told(noun, "show", prefix) for noun, prefix in (("runs", "run_"), ("releases", "rel_"))}
    assert {"plan", "signature", "environment", "training_set", "snapshots"} <= set(whole["runs"])
    assert {"plan", "signature", "files", "example"} <= set(whole["releases"])
    for noun, prefix in (("runs", "run_"), ("releases", "rel_")):
        assert run([noun, "show", prefix, "--project", str(folder)]) == 0
        shown = capsys.readouterr().out
        assert whole[noun]["id"] in shown
        assert "roc_auc at least 0.6" in shown
        assert "--json" in shown
        assert len(shown.splitlines()) < 40


VIEWS = """
    from seatrial import CsvSource, Entity, agg, feature_view

    events = CsvSource("events.csv", event_timestamp="at", event_key=["id"])

    @feature_view(entity=Entity("carrier"), source=events, owner="ops")
    class lateness:
        \"""How late it was.\"""
        last = agg.last("delay")
        mean = agg.mean("delay", window="24h")
"""


def test_features_show_how_far_each_view_is_online(tmp_path, capsys):
    (tmp_path / "project.py").write_text(textwrap.dedent(VIEWS))
    (tmp_path / "events.csv").write_text("id,carrier,at,delay\n1,AA,2013-01-01T00:00:00Z,3\n")

    def answer(*words):
        assert run([*words, "--project", str(tmp_path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert [(one["online_rows"], one["materialized_through"]) for one in answer("features")] == [(0, None)] * 2
    answer("materialize", "--at", "2013-01-02T00:00:00Z")
    assert {(one["online_rows"], one["materialized_through"]) for one in answer("features")} == {
        (1, "2013-01-02T00:00:00Z")
    }
    view = answer("features", "show", "lateness")
    assert (view["features"], view["description"], view["keys"]) == (
        {"last": "last(delay)", "mean": "mean(delay, window=1d)"}, "How late it was.", ["carrier"],
    )  # fmt: skip
    assert answer("features", "show", "lateness__mean")["definition"] == "mean(delay, window=1d)"
    assert run(["features", "show", "latenes", "--project", str(tmp_path)]) == 2
    assert "Did you mean 'lateness'?" in capsys.readouterr().err
    (tmp_path / ".seatrial" / "online.db").write_bytes(b"not a database" * 1000)
    assert {one["online_rows"] for one in answer("features")} == {None}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("status", "declares no model"), ("features", "declares no feature view"), ("runs", "Next: seatrial train"),
        ("models", "Next: seatrial train"), ("releases", "Next: seatrial release"), ("deployments", "seatrial deploy"),
        ("snapshots", "Next: seatrial snapshot"), ("audit", "Nothing has happened yet."),
        ("validate", "reads no source yet"), ("materialize", "declares no feature view"),
    ],
)  # fmt: skip
def test_an_empty_project_names_the_next_step(tmp_path, capsys, words, said):
    (tmp_path / "project.py").touch()
    assert run([*words.split(), "--project", str(tmp_path)]) == 0
    assert said in capsys.readouterr().out


def test_status_says_what_is_live_and_what_to_do_next(told):
    (card,) = told("status")
    assert (card["model"], card["live"], card["owner"], card["next"]) == ("heavy", "1", "tests", "seatrial serve")


def test_a_second_release_of_the_same_run_is_the_same(told):
    (known,) = told("releases")
    again = told("release")
    assert (again["id"], again["new"]) == (known["release"], False)


def test_deploying_what_is_live_already_changes_nothing_and_says_so(told, folder, capsys):
    (known,) = told("releases")
    before = told("deployments", "show", "heavy")
    events = told("audit", "verify")["events"]
    done = told("deploy", "heavy", "--release", known["release"], "--reason", "again")
    assert (done["changed"], done["generation"]) == (False, before["generation"])
    assert told("deployments", "show", "heavy") == before
    assert told("audit", "verify")["events"] == events
    assert run(["deploy", "--project", str(folder)]) == 0
    assert "is live already" in capsys.readouterr().out


def test_a_deployment_that_is_declared_otherwise_now_is_a_change(tmp_path, capsys):
    folder = make(tmp_path)
    for verb in ("train", "release", "deploy"):
        assert run([verb, "--project", str(folder)]) == 0
    file = folder / "project.py"
    file.write_text(file.read_text().replace('Deployment("heavy")', 'Deployment("heavy", on_store_failure="missing")'))
    capsys.readouterr()
    assert run(["deploy", "--project", str(folder), "--reason", "x", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["changed"], done["generation"], done["previous"]) == (True, 2, done["live"])


def test_one_row_is_predicted_and_can_be_followed_to_its_data(told):
    (answer,) = told("predict", "--request", ROW)
    assert 0 <= answer["probability"] <= 1
    kinds = [node["kind"] for node in told("lineage", answer["prediction_id"])["nodes"]]
    assert kinds[0] == "prediction"
    assert {"release", "run", "training_set", "snapshot"} <= set(kinds)


def test_rows_come_from_a_file_or_from_stdin(told, tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(f"{ROW}\n\n{ROW}\n")
    from_file = told("predict", "heavy", "--file", str(rows))
    with rows.open() as stream:
        monkeypatch.setattr("sys.stdin", stream)
        from_stdin = told("predict", "heavy", "--file", "-")
    assert [one["probability"] for one in from_file] == [one["probability"] for one in from_stdin]
    assert len(from_file) == 2


def test_a_body_as_the_service_takes_it_is_understood(told):
    (plain,) = told("predict", "--request", ROW)
    (pasted,) = told("predict", "--request", f'{{"features": {ROW}, "request_id": "mine"}}')
    assert (pasted["probability"], pasted["request_id"]) == (plain["probability"], "mine")
    (asking,) = told("predict", "--request", f'{{"features": {ROW}, "return_features": true}}')
    assert asking["features"].items() >= json.loads(ROW).items()
    assert "features" not in plain
    many = told("predict", "--request", f'{{"instances": [{ROW}, {ROW}]}}')
    assert [one["probability"] for one in many] == [plain["probability"]] * 2


def test_at_is_the_time_of_the_project(told):
    (answer,) = told("predict", "--request", ROW, "--at", "2013-04-01T02:00:00+02:00")
    assert told("lineage", answer["prediction_id"])["nodes"][0]["facts"]["at"] == "2013-04-01T00:00:00Z"


def test_the_actor_is_kept(told, tmp_path):
    told("export", "docker", "heavy", "--to", str(tmp_path / "image"), "--actor", "ann")
    assert told("audit", "list", "--limit", "1")[0]["actor"] == "ann"


def test_a_row_that_the_model_does_not_take_is_a_usage_error(folder, capsys):
    assert run(["predict", "--project", str(folder), "--request", '{"size": "big", "weight": 1.0}']) == 2
    out = capsys.readouterr()
    assert "big" not in out.err.split("\n")[0]
    assert out.out == ""


def test_kubernetes_export_tells_what_was_written_and_what_to_know(told, tmp_path):
    done = told("export", "kubernetes", "heavy", "--image", "heavy:1.0.0", "--to", str(tmp_path / "k8s"))
    assert "deployment.yaml" in done["files"]
    assert "The tag of heavy:1.0.0 can be moved" in done["notes"][0]
    assert told("audit", "list", "--limit", "1")[0]["kind"] == "release.exported"


def test_docker_export_lists_its_files(told, tmp_path):
    done = told("export", "docker", "heavy", "--to", str(tmp_path / "image"))
    assert "Dockerfile" in done["files"]
    assert (tmp_path / "image" / "Dockerfile").is_file()


@pytest.mark.parametrize("words", ["snapshots show snap_x", "runs show run_x", "lineage x", "audit show 9999"])
def test_an_unknown_id_is_a_usage_error(folder, capsys, words):
    assert run([*words.split(), "--project", str(folder)]) == 2
    assert capsys.readouterr().out == ""


def cut_off(path):
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-7])


def test_an_object_that_was_cut_off_is_repaired_by_the_verb_that_made_it(told, folder, capsys):
    known = told("release")
    (snapshot,) = (folder / ".seatrial" / "objects" / "snapshots").iterdir()
    for verb, path in (("release", Path(known["path"])), ("snapshot", snapshot)):
        whole = path.read_bytes()
        cut_off(path)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert run([verb, "--project", str(folder)]) == 0
        assert "was damaged, and is repaired" in capsys.readouterr().err
        assert path.read_bytes() == whole
        told(verb)


def test_two_processes_that_release_one_version_get_the_same_release(tmp_path, capsys, monkeypatch):
    folder = make(tmp_path)
    assert run(["train", "--project", str(folder)]) == 0
    with Project(folder) as project:
        first = project.release()
        monkeypatch.setattr(project, "release_of", lambda version: None)  # as the other saw it before the first ended
        second = project.release()
        assert (first.new, second.new, first.id) == (True, False, second.id)
        assert len(project.releases()) == 1
    (rows,) = (folder / ".seatrial" / "objects" / "runs").rglob("parity_rows.parquet")
    cut_off(rows)
    capsys.readouterr()
    assert run(["release", "--project", str(folder), "--json"]) == 1
    problem = json.loads(capsys.readouterr().err)
    assert problem["code"] == "project.run_file_damaged"
    assert "seatrial train heavy" in problem["next"]


def test_a_name_that_no_file_can_have_is_an_unknown_release(folder, capsys):
    assert run(["releases", "verify", "x" * 5000, "--project", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("NoRelease [project.no_release]: 'xxx")


def test_data_that_breaks_an_expectation_ends_with_1_and_shows_the_rows(tmp_path, capsys):
    folder = make(tmp_path)
    things = folder / "things.csv"
    things.write_text(things.read_text() + "400,1048,0.5,True\n")
    assert run(["validate", "--project", str(folder), "--json"]) == 1
    out = capsys.readouterr()
    (report,) = json.loads(out.out)
    assert [result["failing"] for result in report["results"]] == [0, 1]
    assert json.loads(out.err)["code"] == "data.refused"
    assert run(["validate", "--project", str(folder)]) == 1
    out = capsys.readouterr()
    assert "size 1048" in out.out
    assert out.err.startswith("DataRefused [data.refused]: ")
    assert run(["snapshot", "--project", str(folder)]) == 1
    assert not list((folder / ".seatrial" / "objects").rglob("*.parquet"))


def test_a_gate_that_says_no_ends_with_3_and_keeps_the_run(tmp_path, capsys):
    folder = make(tmp_path, weight=lambda i: 1, project=PROJECT.replace('"roc_auc", 0.6', '"roc_auc", 0.99'))
    assert run(["train", "--project", str(folder), "--json"]) == 3
    out = capsys.readouterr()
    assert json.loads(out.out)["version"] is None
    assert json.loads(out.err)["code"] == "gate.not_passed"
    assert run(["runs", "--project", str(folder)]) == 0
    assert run(["models", "--project", str(folder)]) == 0
    assert capsys.readouterr().out.endswith("None yet.\nNext: seatrial train\n")
    assert run(["status", "--project", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "was refused: roc_auc of the test part is" in out
    assert "Next: seatrial runs show run_" in out
    assert run(["runs", "show", "run_", "--project", str(folder)]) == 0
    assert "was refused by a gate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "code", "exit_code"),
    [
        (None, "project.not_a_project", 2),
        ("from seatrial import Nothing", "project.broken", 1),
        ("def", "project.broken", 1),
        ("raise SystemExit(0)", "project.broken", 1),
        ("from seatrial import Entity\nEntity('two words')", "definition.bad", 2),
    ],
)
def test_a_folder_without_a_sound_project_file_says_so(tmp_path, capsys, text, code, exit_code):
    if text is not None:
        (tmp_path / "project.py").write_text(text)
    assert run(["status", "--project", str(tmp_path), "--json"]) == exit_code
    out = capsys.readouterr()
    assert json.loads(out.err)["code"] == code
    assert out.out == ""
    assert not (tmp_path / ".seatrial").exists()


def test_an_environment_that_does_not_exist_is_a_usage_error(folder, capsys):
    assert run(["status", "--project", str(folder), "--env", "produktion", "--json"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "settings.bad"


def wait_until_ready(url, seconds=20):
    for _ in range(seconds * 20):
        try:
            with urllib.request.urlopen(f"{url}/ready"):
                return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError(f"{url} did not become ready")


@pytest.mark.parametrize(("bundled", "workers"), [(False, "1"), (True, "1"), (False, "2"), (True, "2")])
def test_a_served_model_answers_and_stops_on_sigterm(folder, told, tmp_path, bundled, workers):
    words = ["serve", "--port", "0", "--json", "--workers", workers]
    if bundled:
        words += ["--bundle", told("releases", "show", "rel_")["path"]]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    code = "from seatrial.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, *words, "--project", str(folder)], stdout=subprocess.PIPE, env=env, text=True
    ) as service:
        assert service.stdout is not None
        try:
            url = json.loads("".join(iter(service.stdout.readline, "}\n")) + "}")["url"]
            wait_until_ready(url)
            (answer,) = told("predict", "--request", ROW, "--url", url)
            (alone,) = told("predict", "--request", ROW)
        finally:
            service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    assert answer["probability"] == alone["probability"]
    assert told("lineage", answer["prediction_id"])["nodes"][0]["kind"] == "prediction"
