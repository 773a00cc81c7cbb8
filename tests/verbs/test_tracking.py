"""Fits that were made already, and runs that only track: what is recorded, and what may be released."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score

import seatrial
from seatrial import Project
from seatrial.cli import run as run_command
from seatrial.core.errors import UsageError
from seatrial.verbs.tracking import BadFit, NestedRun, NotOpen, NotReproducible, Origin, log_fit, origin_of

MADE = np.random.default_rng(3)
X = pd.DataFrame({"age": MADE.integers(18, 80, 300), "income": MADE.normal(50, 15, 300)})
Y = (X.age + MADE.normal(0, 10, 300) > 50).astype(int)
PARTS = (X[:200], Y[:200], X[200:], Y[200:])
MODEL = LogisticRegression().fit(X[:200], Y[:200])


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path, actor="ada") as opened:
        yield opened


def committed(commit: str = "a" * 40) -> Origin:
    return Origin("script", "train.py", commit, "" if commit else "train.py is not committed")


def logged(project, origin, model=MODEL, parts=PARTS, target="target", **more):
    return log_fit(
        project.found() or project,
        model,
        parts,
        name="churn",
        params={"C": 1},
        task=None,
        target=target,
        words={"owner": "crm", "runbook": "r.md"},
        origin=origin,
        **more,
    )


def test_a_logged_fit_has_the_metrics_of_its_test_rows(project):
    run = logged(project, committed())
    assert run.metrics["roc_auc"] == pytest.approx(roc_auc_score(Y[200:], MODEL.predict_proba(X[200:])[:, 1]), abs=1e-9)
    assert run.rows == {"train": 200, "test": 100}
    (listed,) = project.runs()
    assert (listed["run"], listed["passed"]) == (run.run, True)
    logged(project, committed(""))
    assert [one["commit"] for one in project.runs()] == ["a" * 8, ""]  # no "+" where there is no commit
    shown = project.run_show(run.run)
    assert shown["definition"]["params"]["C"] == "1"
    assert shown["training_set"].startswith("tset_")


def test_a_logged_fit_has_intervals_and_the_slices_that_were_asked_for(project):
    towns = X.assign(town=np.where(X.age % 2 == 0, "Ulm", "Kiel"))
    y = Y.where(towns.town == "Kiel", 1 - Y)  # in Ulm it is the other way round
    run = logged(project, committed(), parts=(towns[:60], Y[:60], towns[60:], y[60:]), slices=["town"])
    low, high = run.intervals["of"]["roc_auc"]
    assert low < run.metrics["roc_auc"] < high
    body = project.run_show(run.run)
    assert body["intervals"]["level"] == 0.95
    slices = {one["value"]: one for one in body["slices"]["town"]["slices"]}
    ulm = (towns.town == "Ulm").to_numpy()[60:]
    scores = MODEL.predict_proba(X[60:])[:, 1]
    assert slices["Kiel"]["metrics"]["roc_auc"] == pytest.approx(roc_auc_score(y[60:][~ulm], scores[~ulm]), abs=1e-6)
    assert slices["Ulm"]["rows"] == ulm.sum()
    assert slices["Ulm"]["metrics"]["roc_auc"] < 0.5
    card = project.release_card(project.release(run.run).id).text
    assert f"{low:.4g} to {high:.4g}" in card
    assert f"The worst slice is `town` = `Ulm`: roc_auc {slices['Ulm']['metrics']['roc_auc']:.4g} on" in card
    with pytest.raises(BadFit, match="no column 'twon'"):
        logged(project, committed(), parts=(towns[:60], Y[:60], towns[60:], y[60:]), slices=["twon"])


@pytest.mark.parametrize("task", ["multiclass", "regression", "one test row", "one class"])
def test_any_logged_fit_has_the_intervals_that_its_test_rows_allow(project, task):
    outcome = {"multiclass": X.age // 25, "regression": X.age * 1.5}.get(task, Y)
    model = LinearRegression() if task == "regression" else LogisticRegression(max_iter=1000)
    last = 201 if task == "one test row" else 300
    tested = outcome[200:last] * (0 if task == "one class" else 1)
    parts = (X[:200], outcome[:200], X[200:last], tested)
    run = logged(project, committed(), model=model.fit(X[:200], outcome[:200]), parts=parts, slices=["age"])
    of = run.intervals["of"]
    assert set(of) == set(run.metrics)
    for name, value in run.metrics.items():
        assert of[name] is None or value is None or of[name][0] - 1e-9 <= value <= of[name][1] + 1e-9
    if task in ("multiclass", "regression"):
        assert all(of.values())
    assert project.run_show(run.run)["slices"]["age"]["slices"]


def test_a_fit_of_committed_code_is_released_deployed_and_answers(project):
    run = logged(project, committed())
    done = project.release(run.run)
    assert project.release_show(done.id)["lineage"]["run"] == run.run
    assert project.release_show(done.id)["lineage"]["commit"] == "a" * 40
    assert project.release(run.run).id == done.id
    project.deploy("churn")
    answer = project.predict("churn", [{"age": 70, "income": 40.0}])[0]
    assert answer["probability"] == pytest.approx(
        MODEL.predict_proba(pd.DataFrame({"age": [70], "income": [40.0]}))[0, 1]
    )
    assert project.status()[0].live == "1"


def test_a_fit_of_code_in_no_commit_is_kept_and_not_released(project):
    run = logged(project, committed(""))
    assert not run.reproducible
    with pytest.raises(NotReproducible, match=r"train\.py is not committed") as refused:
        project.release(run.run)
    assert "commit it, and run it again from the top" in refused.value.next
    assert project.models() == []


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((X[:200], Y[:199], X[200:], Y[200:]), "200 rows and 199 outcomes"),
        ((X[:200], Y[:200], X[["age"]][200:], Y[200:]), "other columns"),
        ((X.assign(target=1)[:200], Y[:200], X[200:], Y[200:]), "have a column 'target'"),
        ((X[:200], Y[:200], X[:0], Y[:0]), "the test part has no rows"),
        ((X[:0], Y[:0], X[200:], Y[200:]), "the training part has no rows"),
    ],
)
def test_what_does_not_belong_together_is_refused(project, parts, words):
    with pytest.raises(BadFit, match=words):
        logged(project, committed(), parts=parts)
    assert project.metadata.records("run") == []


def test_arrays_without_names_are_logged_too(project):
    values = X.to_numpy(float)
    model = LinearRegression().fit(values[:200], values[:200, 0])
    run = logged(project, committed(), model, (values[:200], values[:200, 0], values[200:], values[200:, 0]))
    assert run.task == "regression"
    assert project.run_show(run.run)["inputs"] == ["x0", "x1"]


def test_a_script_is_known_by_its_commit_and_only_as_it_was_committed(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("print(1)\n")
    where = {"__file__": str(script)}
    assert origin_of(where).why == "train.py is in no git repository with a commit"
    words = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "-C", str(tmp_path), "init", "-q"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *words, "commit", "-q", "--allow-empty", "-m", "begin"], check=True)
    assert origin_of(where).why == "train.py is not committed"
    for command in (["add", "train.py"], [*words, "commit", "-qm", "train"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    assert len(origin_of(where).commit) == 40
    script.write_text("print(2)\n")
    assert origin_of(where).why == "train.py was changed since its commit"
    assert origin_of({}).why == "it was typed into a session"


def test_a_tracked_run_keeps_series_words_and_files(project, tmp_path):
    (tmp_path / "curve.txt").write_text("up")
    with project.run("trial") as run:
        for loss in (0.9, 0.5):
            run.log(loss=loss)
        run.log(step=10, loss=0.4, auc=0.8)
        run.log_params(depth=3)
        run.tag(idea="wider")
        run.artifact(tmp_path / "curve.txt")
    shown = project.run_show(run.id)
    assert shown["series"]["loss"] == [[0, 0.9], [1, 0.5], [10, 0.4]]
    assert shown["metrics"] == {"loss": 0.4, "auc": 0.8}
    assert (shown["definition"]["params"], shown["tags"]) == ({"depth": "3"}, {"idea": "wider"})
    assert project.objects.read(shown["files"]["curve.txt"]) == b"up"
    assert [one["state"] for one in project.runs()] == ["finished"]
    with pytest.raises(UsageError, match="tracked numbers only"):
        project.release(run.id)


def failed(project):
    """A run whose block logged a loss and then raised, which comes out of it."""
    run = project.run("trial")

    def block() -> None:
        with run:
            run.log(loss=0.9)
            raise ZeroDivisionError("no rows")

    with pytest.raises(ZeroDivisionError):
        block()
    return run


def test_a_block_that_raises_is_a_failed_run_and_raises_on(project):
    run = failed(project)
    shown = project.run_show(run.id)
    assert (shown["state"], shown["failure"]) == ("failed", "ZeroDivisionError: no rows")
    assert shown["metrics"] == {"loss": 0.9}


def test_a_run_in_a_run_is_refused_and_the_outer_one_goes_on(project):
    with project.run("outer") as outer:
        with pytest.raises(NestedRun, match="'outer'"), project.run("inner"):
            pass
        outer.log(loss=1.0)
    with project.run("next"):
        pass
    assert [one["model"] for one in project.runs()] == ["outer", "next"]


@pytest.mark.parametrize("value", ["much", None, True])
def test_a_metric_is_a_number(project, value):
    with project.run("trial") as run, pytest.raises(UsageError, match="A number is expected"):
        run.log(loss=value)


@pytest.mark.parametrize("step", [1.5, "1", True])
def test_a_step_is_a_whole_number(project, step):
    with project.run("trial") as run:
        with pytest.raises(UsageError, match="A whole number is expected"):
            run.log(step=step, loss=1.0)
        run.log(step=np.int64(3), loss=1.0)
    assert run.metrics == {"loss": [[3.0, 1.0]]}


def test_a_loss_that_diverges_is_kept_as_what_it_is_and_fails_no_block(project, capsys):
    with project.run("trial") as run:
        for loss in (0.9, float("inf"), float("nan")):
            run.log(loss=loss)
    found = project.run_show(run.id)
    assert (found["state"], found["metrics"]) == ("finished", {"loss": "nan"})
    assert [value for _, value in found["series"]["loss"]] == [0.9, "inf", "nan"]
    assert run_command(["runs", "show", run.id, "--project", str(project.folder)]) == 0
    assert "nan" in capsys.readouterr().out
    assert "<td" in project.run_page(run.id)


def test_the_page_of_a_run_of_numbers_has_a_line_for_each_series(project):
    with project.run("trial") as run:
        for loss, auc in ((0.9, 0.5), (0.5, 0.6), (0.4, 0.7)):
            run.log(loss=loss, auc=auc)
        run.log(best=0.7)
        run.log_params(depth=3)
        run.tag(idea="<wider>")
    page = project.run_page(run.id)
    assert page.count("<polyline") == 2
    assert "&lt;wider&gt;" in page
    assert "there is no model in it" in page
    assert "seatrial reproduce" not in page


def test_the_page_of_a_failed_block_shows_what_was_logged_before(project):
    page = project.run_page(failed(project).id)
    assert "no rows" in page
    assert "0.9" in page


@pytest.mark.parametrize(("commit", "words"), [("a" * 40, "logged from commit aaaaaaaaaaaa"), ("", "is not committed")])
def test_the_page_of_a_logged_fit_shows_what_is_known_of_it(project, commit, words):
    run = logged(project, committed(commit))
    page = project.run_page(run.run)
    assert words in page
    assert "ROC AUC" in page
    assert "Rings" not in page  # there are no folds and no constant guess
    assert "Upright stroke" not in page
    for wrong in ("seed and threads", "None, None", "seatrial reproduce", "It has no gates", "All 0 in effect"):
        assert wrong not in page
    assert (f"seatrial release {run.run}" in page) == bool(commit)


def test_nothing_is_logged_outside_of_the_block(project):
    with project.run("trial") as run:
        pass
    with pytest.raises(NotOpen, match="finished"):
        run.log(loss=1.0)


def test_tables_for_notebooks_are_escaped_and_take_the_pages_colours(project):
    with project.run("trial") as run:
        run.log(loss=0.25)
        run.tag(idea="<script>alert(1)</script>")
    page = run._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "0.25" in page
    assert "color:inherit" in page
    assert "background:#" not in page
    assert logged(project, committed())._repr_html_().startswith("<table")


def test_the_root_offers_log_run():
    assert seatrial.log_run.__module__ == "seatrial.notebook"
    assert Path(seatrial.__file__).parent.name == "seatrial"


def test_logged_and_tracked_runs_are_shown_and_compared_on_the_command_line(project, capsys):
    first, second = logged(project, committed()), logged(project, committed(""))
    with project.run("trial") as trial:
        trial.log(loss=0.25)
    at = ["--project", str(project.folder)]
    assert run_command(["runs", "show", first.run, *at]) == 0
    assert run_command(["runs", "show", second.run, *at]) == 0
    assert run_command(["runs", "show", trial.id, *at]) == 0
    assert run_command(["runs", "compare", first.run, second.run, *at]) == 0
    shown = capsys.readouterr().out
    assert "is not reproducible: train.py is not committed" in shown
    assert "it tracks numbers only" in shown
    assert run_command(["reproduce", first.run, *at]) != 0
    assert "was logged by code of somebody's own" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["churn", None])
def test_a_model_whose_fits_were_only_logged_is_released_by_its_run_which_is_named(project, name):
    run = logged(project, committed())
    with pytest.raises(UsageError, match=run.run) as refused:
        project.release(name)
    assert refused.value.next == f"Run `seatrial release {run.run}`."


@pytest.mark.slow
def test_a_run_that_ends_while_the_mirror_is_on_its_way_out_is_told_before_the_project_closes(tmp_path, monkeypatch):
    monkeypatch.delenv("SEATRIAL_STORES_MLFLOW")
    with Project(tmp_path, actor="ada") as project:
        with project.run("first") as run:
            run.log(loss=0.9)
        project._mirroring.wait()
        assert project.mirror().pending == 0
        leaving = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"])  # past its last look
        project._mirroring = leaving
        with project.run("second") as run:
            run.log(loss=0.8)
        assert project.metadata.pending("mlflow")
    with Project(tmp_path, actor="ada") as project:
        assert project.metadata.pending("mlflow") == []
