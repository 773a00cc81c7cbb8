"""What a project keeps of a training that cannot be finished, and how it goes on."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from seatrial import FrameSource, Gate, Model, Project
from seatrial.cli.render import run as rendered
from seatrial.core.errors import SeatrialError, UsageError
from seatrial.training.repeatable import NotRepeatable
from seatrial.training.rows import TrainingRefused

SIZE = [(number * 7 % 40) / 10 for number in range(40)]
HEAVY = [size > 2 for size in SIZE]


class Full(LogisticRegression):
    def fit(self, inputs, labels):
        raise MemoryError("the machine is full")


def gives_up(full=[False]):  # noqa: B006  what is full stays full from call to call
    """A regression, until the machine is full."""
    return Full() if full[0] else LogisticRegression()


def full_from(wanted):
    """A progress that lets the machine be full from a stage on."""
    gives_up.__defaults__[0][0] = False

    def progress(stage, done, total):
        gives_up.__defaults__[0][0] |= stage == wanted

    return progress


def opened(folder, columns, **changes):
    given = {
        "task": "binary",
        "target": "heavy",
        "labels": FrameSource(pa.table(columns), name="labels"),
        "features": ["request:size"],
        "estimator": "sklearn.linear_model.LogisticRegression",
        "cv_folds": 3,
        "key": [],
    }
    return Project(folder, definitions=[Model("heavy", **(given | changes))])


CASES = {
    "one class only": ({"size": SIZE, "heavy": [True] * 40}, {}, "training.one_class"),
    "three rows": ({"size": SIZE[:3], "heavy": [True, False, True]}, {}, "training.too_few_rows"),
    "a text target": ({"size": SIZE, "heavy": ["yes", "no"] * 20}, {}, "training.bad_target"),
    "a target of three numbers": ({"size": SIZE, "heavy": [0, 1, 2, 1] * 10}, {}, "training.bad_target"),
    "an empty column": ({"size": pa.nulls(40, pa.float64()), "heavy": HEAVY}, {}, "training.bad_input"),
    "no label at all": ({"size": SIZE, "heavy": pa.nulls(40, pa.bool_())}, {}, "training.too_few_rows"),
    "one positive": ({"size": SIZE, "heavy": [number == 0 for number in range(40)]}, {}, "training.one_class"),
    "missing values that are not taken": (
        {"size": [None, *SIZE[1:]], "heavy": HEAVY},
        {},
        "training.missing_values_not_taken",
    ),
    "neighbours that are not there": (
        {"size": SIZE, "heavy": HEAVY},
        {"estimator": "sklearn.neighbors.KNeighborsClassifier", "params": {"n_neighbors": 30}},
        "training.estimator_failed",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_that_cannot_be_learned_from_are_a_failed_run_with_the_reason(tmp_path, case):
    columns, changes, code = CASES[case]
    with opened(tmp_path, columns, **changes) as project:
        with pytest.raises(TrainingRefused) as caught:
            project.train()
        assert caught.value.code == code
        (run,) = project.runs()
        assert (run["state"], run["passed"]) == ("failed", False)
        assert f"Run {run['run']} is recorded as failed; no version was made." in str(caught.value)
        shown = project.run_show(run["run"])
        assert shown["error"]["code"] == code
        assert shown["error"]["found"] == caught.value.found
        assert project.models() == []


@pytest.mark.parametrize(
    ("columns", "changes", "words"),
    [
        ({"size": SIZE, "heavy": HEAVY}, {"features": ["request:heavy"]}, "target 'heavy' among its features"),
        ({"size": SIZE, "heavy": HEAVY}, {"slices": ["shop"]}, "'shop'"),
        ({"size": SIZE, "heavy": HEAVY}, {"params": {"depth": 3}}, "does not take"),
        ({"size": SIZE, "heavy": HEAVY}, {"target": "haevy"}, "'haevy'"),
    ],
)
def test_a_wrong_declaration_is_told_and_is_no_run(tmp_path, columns, changes, words):
    with pytest.raises(SeatrialError, match=words), opened(tmp_path, columns, **changes) as project:
        project.train()
    with opened(tmp_path, {"size": SIZE, "heavy": HEAVY}) as project:
        assert project.runs() == []


def test_two_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([pa.array(SIZE), pa.array(SIZE), pa.array(HEAVY)], names=["size", "size", "heavy"])
    with Project(
        tmp_path,
        definitions=[
            Model(
                "heavy",
                task="binary",
                target="heavy",
                labels=FrameSource(table, name="labels"),
                features=["request:size"],
                estimator="sklearn.linear_model.LogisticRegression",
            )
        ],
    ) as project:
        with pytest.raises(SeatrialError, match="size"):
            project.train()
        assert project.runs() == []


def test_a_column_that_never_changes_is_learned_from_with_a_warning(tmp_path):
    with opened(
        tmp_path, {"size": SIZE, "shop": [1] * 40, "heavy": HEAVY}, features=["request:size", "request:shop"]
    ) as project:
        shown = project.run_show(project.train().run)
        assert "input 'shop' has the same value in every row" in shown["warnings"]


@pytest.mark.parametrize("stage", ["fit", "cross-validate", "refit"])
def test_an_estimator_that_raises_half_way_says_where_and_the_next_try_starts_from_the_same_data(tmp_path, stage):
    columns = {"size": SIZE, "heavy": HEAVY}
    with opened(tmp_path, columns, estimator=gives_up, cv_folds=3) as project:
        with pytest.raises(TrainingRefused, match="MemoryError: the machine is full"):
            project.train(progress=full_from(stage))
        (failed,) = (project.run_show(run["run"]) for run in project.runs())
        assert (failed["state"], failed["error"]["stage"]) == ("failed", stage)
        assert failed["definition"]["estimator"].endswith("gives_up")
        (status,) = project.status()
        assert status.refused == failed["id"]
        assert "the machine is full" in status.refused_because[0]
        assert [event.kind for event in project.audit_list() if event.subject == failed["id"]] == ["run.failed"]
        assert project.audit_verify().intact
        assert project.review()[0].model == "heavy"
        assert project.lineage(failed["id"]) is not None
        with pytest.raises(UsageError, match="was made no version: it failed"):
            project.release(failed["id"])
    with opened(tmp_path, columns) as project:
        done = project.train()
        assert done.passed
        assert (done.training_set, done.snapshots) == (failed["training_set"], failed["snapshots"])
        assert [run["state"] for run in project.runs()] == ["failed", "finished"]


def test_an_error_that_nobody_foresaw_is_recorded_too(tmp_path):
    with opened(tmp_path, {"size": SIZE, "heavy": HEAVY}) as project:
        with pytest.raises(ZeroDivisionError):
            project.train(progress=at_stage("judge"))
        shown = project.run_show(project.runs()[0]["run"])
        assert shown["error"] == {
            "code": "unexpected",
            "found": "ZeroDivisionError: division by zero",
            "expected": "",
            "next": "",
            "stage": "judge",
        }


def at_stage(wanted):
    def progress(stage, done, total):
        if stage == wanted:
            1 / 0  # noqa: B018

    return progress


def test_a_failed_run_is_shown_with_its_reason_and_is_plain_json(tmp_path):
    with opened(tmp_path, {"size": SIZE, "heavy": [True] * 40}) as project:
        with pytest.raises(TrainingRefused):
            project.train()
        shown = project.run_show(project.runs()[0]["run"])
    assert json.loads(json.dumps(shown))["state"] == "failed"
    text = "\n".join(getattr(block, "text", "") for block in rendered(shown))
    assert "failed [training.one_class]" in text
    assert "the target 'heavy' is 1 in all 40 rows" in text


def test_a_gate_that_refuses_is_no_failure(tmp_path):
    with opened(tmp_path, {"size": SIZE, "heavy": np.array(HEAVY)}, gates=[Gate.at_most("log_loss", 0.0)]) as project:
        assert project.train().passed is False
        assert project.runs()[0]["state"] == "finished"


def unseeded():
    """A forest seeded by the machine's entropy."""
    return RandomForestClassifier(n_estimators=3, random_state=int(np.random.default_rng().integers(2**31)))


def test_policy_says_whether_an_estimator_that_cannot_be_repeated_is_noted_or_refused(tmp_path):
    columns = {"size": SIZE, "heavy": [number % 3 == 0 for number in range(40)]}
    with opened(tmp_path, columns, estimator=unseeded) as project:
        noted = project.train()
        assert any("ignores its seed" in note for note in noted.notes)
        assert "not repeatable" in [flag.name for flag in project.review()[0].flags]
    (tmp_path / "seatrial.toml").write_text('[policy]\nunrepeatable = "refuse"\n')
    with opened(tmp_path, columns, estimator=unseeded) as project:
        with pytest.raises(NotRepeatable):
            project.train()
        assert [run["state"] for run in project.runs()] == ["finished", "failed"]
