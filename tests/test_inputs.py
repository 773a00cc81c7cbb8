"""Inputs: what verbs read, and what stops them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from seatrial import FrameSource, Model, Project, QuerySource, expect
from seatrial.data.expectations import DataRefused
from seatrial.loading import BrokenProject, UnknownName
from seatrial.project import PredictionRefused

RAW = FrameSource(pa.table({"size": [i / 10 for i in range(40)], "heavy": [i > 20 for i in range(40)]}), name="raw")


def project(folder, *, at_most):
    derived = QuerySource(
        "SELECT size * 2 AS size, heavy FROM raw",
        name="derived",
        tables={"raw": RAW},
        expectations=[expect.between("size", 0, at_most)],
    )
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=derived,
        features=["request:size"],
        estimator="sklearn.linear_model.LogisticRegression",
        cv_folds=0,
    )
    return Project(folder, definitions=[model])


def test_a_derived_source_is_held_to_its_expectations_too(tmp_path):
    with project(tmp_path, at_most=5) as refused:
        assert {report.source: report.passed for report in refused.validate()} == {"raw": True, "derived": False}
        with pytest.raises(DataRefused, match="derived"):
            refused.train()
        assert refused.runs() == []
    with project(tmp_path, at_most=8) as sound:
        assert all(report.passed for report in sound.validate())
        assert sound.train().passed


def test_an_unknown_source_is_named_with_those_there_are(tmp_path):
    with project(tmp_path, at_most=8) as opened, pytest.raises(UnknownName, match="Did you mean 'derived'"):
        opened.validate("derivd")


def test_a_project_file_may_print_and_does_not_reach_the_answer(tmp_path, capsys):
    (tmp_path / "project.py").write_text("print('hello')\n")
    with Project(tmp_path) as opened:
        assert opened.validate() == []
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize("cause", ["raise BaseException('stop')", "raise SystemExit(3)", "1 / 0", "def ("])
def test_a_project_file_that_does_not_run_is_named_with_its_line(tmp_path, cause):
    (tmp_path / "project.py").write_text(f"x = 1\n{cause}\n")
    with Project(tmp_path) as opened, pytest.raises(BrokenProject, match=r"project\.py:2"):
        opened.validate()


def test_a_run_is_released_by_its_id(tmp_path):
    with project(tmp_path, at_most=8) as sound:
        trained = sound.train()
        released = sound.release(trained.run)
        assert (released.version, released.id) == (1, sound.release("heavy").id)


def test_an_infinite_number_is_refused_and_not_taken_for_missing(tmp_path):
    with project(tmp_path, at_most=8) as sound:
        sound.train()
        sound.release()
        sound.deploy(reason="a test")
        with pytest.raises(PredictionRefused, match="'size' is infinite"):
            sound.predict(None, [{"size": float("inf")}])
