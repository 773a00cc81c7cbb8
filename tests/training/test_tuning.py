"""Tuning: on training rows only, the same again, and on from where it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from sklearn.linear_model import LogisticRegression

from seatrial import Project
from seatrial.features.definitions import BadDefinition
from seatrial.training.estimator import BadEstimator
from seatrial.training.space import Tune
from seatrial.training.tuning import TuneExtraMissing, TuningFailed, tune
from tests.training.factories import model, request_of, table
from tests.worlds import edit, write_project

C = {"C": Tune.number(1e-3, 10, log=True)}
seen: set[float] = set()


class Recording(LogisticRegression):
    """Remembers the distance of every row that it is given."""

    def fit(self, X, y):
        seen.update(X[:, 0].tolist())
        return super().fit(X, y)

    def predict_proba(self, X):
        seen.update(X[:, 0].tolist())
        return super().predict_proba(X)


class Dying(LogisticRegression):
    """Ends its process at the fit of that number, as a machine that goes down does."""

    fits = 0

    def fit(self, X, y):
        Dying.fits += 1
        if Dying.fits == int(os.environ.get("DIES_AT", "0")):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(X, y)


def tuned(folder, space=C, *, rows=120, trials=6, declared=None, **how):
    declared = declared or model()
    given = {name: how.pop(name) for name in ("metric", "pruner", "timeout") if name in how}
    declared = replace(declared, tune=Tune(space, trials=trials, **given))
    return tune(declared, table(rows), request_of(declared), folder=folder, **how)


def without_seconds(record):
    trials = [{k: v for k, v in one.items() if k != "seconds"} for one in record["trials"]]
    return record | {"trials": trials, "resumed": 0}


def test_rows_of_the_test_part_are_never_seen(tmp_path):
    seen.clear()
    tuned(tmp_path, declared=model(estimator=Recording), trials=3)
    distances = table(120)["distance"].to_numpy().astype("float32").tolist()
    assert not seen & set(distances[96:])
    assert len(seen & set(distances[:96])) > 80


def test_the_same_seed_gives_the_same_trials_and_another_seed_others(tmp_path):
    first, again = tuned(tmp_path / "a"), tuned(tmp_path / "b")
    other = tuned(tmp_path / "c", declared=model(seed=7))
    assert without_seconds(first.record) == without_seconds(again.record)
    assert first.model.params == first.record["best"]["params"]
    assert other.record["best"]["params"] != first.record["best"]["params"]


@pytest.mark.parametrize(("metric", "choose"), [("log_loss", min), ("roc_auc", max)])
def test_the_best_is_the_finished_trial_whose_metric_is_best(tmp_path, metric, choose):
    record = tuned(tmp_path, metric=metric).record
    assert record["best"]["value"] == choose(one["value"] for one in record["trials"] if one["state"] == "finished")


def test_pruned_trials_are_recorded_and_none_without_a_pruner(tmp_path):
    record = tuned(tmp_path / "a", trials=16).record
    pruned = [one for one in record["trials"] if one["state"] == "pruned"]
    assert len(pruned) == record["pruned"] > 0
    assert all(0 < one["folds"] < 3 for one in pruned)
    assert tuned(tmp_path / "b", trials=16, pruner=False).record["pruned"] == 0


def test_a_tuning_that_was_killed_goes_on_and_ends_as_one_that_was_not(tmp_path):
    code = (
        "from pathlib import Path; import sys; from tests.training.test_tuning import *;"
        "tuned(Path(sys.argv[1]), declared=model(estimator=Dying), trials=8, pruner=False)"
    )
    env = {**os.environ, "DIES_AT": "11"}  # in the second fold of the fourth trial
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], env=env, check=False)
    assert ended.returncode == -signal.SIGKILL
    (journal,) = (tmp_path / "a").glob("*.log")
    journal.write_bytes(journal.read_bytes() + b'{"op_code": 4, "wor')  # and within a line
    told = []
    asked = {"declared": model(estimator=Dying), "trials": 8, "pruner": False}
    resumed = tuned(tmp_path / "a", **asked, progress=lambda *step: told.append(step))
    whole = tuned(tmp_path / "b", **asked)
    assert resumed.record["resumed"] == 3
    assert told == [*(("tuning", done, 8) for done in range(3, 8)), ("tuning", 8, 8)]
    assert without_seconds(resumed.record) == without_seconds(whole.record)


def test_a_failed_trial_is_recorded_and_when_all_fail_the_first_error_is_told(tmp_path):
    record = tuned(tmp_path, {"solver": Tune.choice(["nonsense", "lbfgs"])}, trials=8).record
    assert 0 < record["failed"] < 8
    assert record["best"]["params"] == {"solver": "lbfgs"}
    with pytest.raises(TuningFailed, match=r"all 2 trials .* the first: .*nonsense"):
        tuned(tmp_path, {"solver": Tune.choice(["nonsense"])}, trials=2)


def test_what_cannot_be_tuned_is_refused(tmp_path, monkeypatch):
    for wrong in (
        lambda: Tune({}),
        lambda: Tune({"C": 3}),
        lambda: Tune(C, trials=0),
        lambda: Tune(C, timeout="soon"),
        lambda: Tune.integer(3, 2),
        lambda: Tune.number(0, 1, log=True),
        lambda: Tune.choice([]),
        lambda: model(tune=Tune(C, metric="log_los")),
        lambda: model(tune=Tune(C), cv_folds=0),
        lambda: model(tune=C),
    ):
        with pytest.raises(BadDefinition):
            wrong()
    with pytest.raises(BadEstimator, match="'max_itr'"):
        tuned(tmp_path, {"max_itr": Tune.integer(1, 9)})
    with pytest.raises(BadEstimator, match="tunes 'n_jobs'"):
        tuned(tmp_path, {"n_jobs": Tune.integer(1, 9)})
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(TuneExtraMissing, match="optuna"):
        tuned(tmp_path)


def test_a_tuned_run_is_trained_with_the_best_and_reproduced_without_tuning(tmp_path):
    write_project(tmp_path)
    edit(tmp_path, "cv_folds=3,", "cv_folds=3, tune=Tune({'num_leaves': Tune.integer(4, 31)}, trials=3),")
    with Project(tmp_path) as project:
        trained = project.train()
        run, body = trained.run, project.record(trained.run).body
        assert [note for note in trained.notes if note.startswith("tuned by log_loss") and "of 3 trials" in note]
        best = body["tuning"]["best"]["params"]
        assert body["estimator"]["params"]["num_leaves"] == best["num_leaves"]
        assert body["definition"]["params"]["num_leaves"] == repr(best["num_leaves"])
        done = project.reproduce(run)
        assert (done.verdict, done.inputs, done.project) == ("identical", [], [])
        assert [note for note in done.notes if f"tuned in run {run}" in note]
        plain = project.record(project.train(tune=False).run).body
    assert "tuning" not in plain
    assert plain["definition"]["params"]["num_leaves"] == "7"


def test_which_parameters_mattered_is_told_of_two_parameters_and_eight_trials(tmp_path):
    space = {**C, "fit_intercept": Tune.choice([True, False])}
    weights = tuned(tmp_path / "a", space, trials=8, pruner=False).record["importance"]
    assert set(weights) == set(space)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-4)
    assert list(weights.values()) == sorted(weights.values(), reverse=True)
    assert tuned(tmp_path / "b", space, trials=7, pruner=False).record["importance"] == {}
    assert tuned(tmp_path / "c", trials=8, pruner=False).record["importance"] == {}
