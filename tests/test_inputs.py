"""Inputs: what verbs read, and what stops them."""

from __future__ import annotations

import pyarrow as pa
import pytest

from seatrial import FrameSource, Model, Project, QuerySource, expect
from seatrial.data.expectations import DataRefused
from seatrial.loading import UnknownName

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
