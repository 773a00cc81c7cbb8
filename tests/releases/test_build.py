"""The threshold that costs choose is the one that is packed, compared at and answered with."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from seatrial import Costs, FrameSource, Gate, Model, Project, ProjectGates

ROWS = 2000


def parcels():
    random = np.random.default_rng(0)
    size = random.normal(size=ROWS)
    late = size + random.normal(size=ROWS) > 1
    region = random.choice(["north", "south"], ROWS).tolist()
    return pa.table({"size": size, "late": late, "region": region})


def opened(folder, *more, **changes):
    given = {
        "task": "binary",
        "target": "late",
        "labels": FrameSource(parcels(), name="parcels"),
        "features": ["request:size"],
        "estimator": "lightgbm.LGBMClassifier",
        "params": {"n_estimators": 20},
    }
    return Project(folder, definitions=[Model("late", **(given | changes)), *more])


def test_a_release_decides_at_the_threshold_that_the_costs_chose(tmp_path):
    with opened(tmp_path, costs=Costs(false_positive=1, false_negative=9)) as project:
        trained = project.train()
        chosen = trained.threshold["value"]
        assert chosen < 0.3
        released = project.release()
        manifest = project.release_show(released.id)
        assert manifest["threshold"] == chosen
        assert released.parity["threshold"] == chosen
        assert released.parity["flipped"] == 0
        project.deploy(reason="a test")
        answers = project.predict(None, [{"size": size} for size in np.linspace(-2, 2, 60).tolist()])
    assert [one["prediction"] for one in answers] == [int(one["probability"] >= chosen) for one in answers]
    assert any(chosen <= one["probability"] < 0.5 for one in answers)


def test_other_costs_move_the_version_and_say_why(tmp_path):
    with opened(tmp_path, costs=Costs(1, 9)) as project:
        project.train()
        project.release()
    with opened(tmp_path, costs=Costs(9, 1)) as project:
        assert project.train().threshold["value"] > 0.7
        assert "threshold" in project.release().explanation


def test_a_gate_of_the_project_refuses_a_model_until_it_is_waived_in_words(tmp_path):
    gates = ProjectGates(Gate.at_least("roc_auc", 0.99), Gate.slice_at_least("roc_auc", 0.5, by="region", min_rows=50))
    with opened(tmp_path, gates) as project:
        refused = project.train()
        assert (refused.passed, refused.version) == (False, None)
        assert [(one["of_project"], one["passed"]) for one in refused.gates] == [(True, False), (True, True)]
    with opened(tmp_path, gates, waives={"roc_auc at least 0.99": "a pilot until May"}) as project:
        done = project.train()
        assert (done.passed, done.version) == (True, 1)
        shown = project.run_show(done.run)
        assert shown["definition"]["waives"] == {"roc_auc at least 0.99": "a pilot until May"}
        flags = {flag.name: flag for flag in project.review()[0].flags}
        assert "a pilot until May" in flags["waived gates"].evidence
        assert "not passed" in flags["waived gates"].evidence


def test_slices_may_be_columns_that_the_model_does_not_see(tmp_path):
    with opened(tmp_path, slices=["region"]) as project:
        trained = project.train()
        assert {one["value"] for one in trained.slices["region"]["slices"]} == {"north", "south"}
        assert project.release().format == "onnx"
