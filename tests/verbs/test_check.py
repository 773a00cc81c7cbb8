"""Check: definitions are looked at without data, servers or stores, and everything wrong is named."""

from __future__ import annotations

import msgspec
import pytest

from seatrial.cli import run as cli
from tests.worlds import edit, write_project


@pytest.fixture
def folder(tmp_path):
    """The project without its data."""
    write_project(tmp_path, rows=50)
    for name in ("scheduled", "departures"):
        (tmp_path / f"{name}.parquet").unlink()
    return tmp_path


def checked(folder, capsys):
    code = cli(["--project", str(folder), "check", "--json"])
    return code, {(one["what"], one["check"]): one for one in msgspec.json.decode(capsys.readouterr().out)}


def test_a_project_in_order_passes_without_its_data_and_opens_no_store(folder, capsys):
    code, found = checked(folder, capsys)
    assert code == 0
    assert found["model late", "estimator"]["found"].startswith("lightgbm.sklearn.LGBMClassifier(n_estimators=20")
    assert found["model late", "features"]["found"] == "3 inputs; a request carries carrier, distance"
    assert found["model late", "people"]["passed"] is None
    assert not (folder / ".seatrial").exists()


@pytest.mark.parametrize(
    ("old", "new", "what", "words"),
    [
        (
            "lightgbm.LGBMClassifier",
            "lightgbm.LGBMClasifier",
            ("model late", "estimator"),
            "Did you mean 'LGBMClassifier'",
        ),
        ("lightgbm.LGBM", "nowhere_at_all.LGBM", ("model late", "estimator"), "no module 'nowhere_at_all'"),
        (
            'lightgbm.LGBMClassifier",',
            'sklearn.linear_model.LogisticRegression",',
            ("model late", "estimator"),
            "does not take",
        ),
        ('Gate.at_least("roc_auc"', 'Gate.at_least("roc_au"', ("project", "definitions"), "Did you mean 'roc_auc'"),
        (
            "from seatrial import *",
            "from seatrial import *\n1 / 0",
            ("project", "definitions"),
            "project.py:3: ZeroDivision",
        ),
        ('event_key=["flight"]', "event_key=[]", ("view carrier_delay", "event key"), "event_key"),
        ("carrier_delay__mean_24h: float) ", "carrier_delay__mean_7h: float) ", ("model late", "features"), ""),
        ("cv_folds=3", 'cv_folds=3, personal={"email": "drop"}', ("model late", "personal"), "'email' as personal"),
        (
            "Model(",
            'Monitor("late", alarms=[Alarm.above("ks:distanc", 0.2)])\nModel(',
            ("monitor late", "alarms"),
            "no input",
        ),
        (
            "Model(",
            'Monitor("late", thresholds={"level:carier": 2.0, "*": 1.5})\nModel(',
            ("monitor late", "thresholds"),
            "no input",
        ),
        ("Model(", 'Deployment("lat")\nModel(', ("deployment lat", "model"), "no model is named 'lat'"),
    ],
)
def test_what_is_wrong_is_named_and_ends_with_1(folder, capsys, old, new, what, words):
    edit(folder, old, new)
    if "mean_7h" in new:
        edit(folder, "(1 + carrier_delay__mean_24h)", "(1 + carrier_delay__mean_7h)")
    code, found = checked(folder, capsys)
    assert found[what]["passed"] is False, found
    assert words in found[what]["found"]
    assert code == 1


def test_validate_refuses_a_personal_column_that_no_request_has_as_train_does(tmp_path, capsys):
    edit(write_project(tmp_path, rows=50), "cv_folds=3", 'cv_folds=3, personal={"email": "drop"}')
    assert cli(["--project", str(tmp_path), "validate"]) != 0
    assert "'email' as personal" in capsys.readouterr().err


def test_a_parameter_that_an_estimator_swallows_unknown_is_noted(folder, capsys):
    edit(folder, '"num_leaves": 7', '"num_leafs": 7')
    code, found = checked(folder, capsys)
    assert code == 0
    words = found["model late", "estimator"]["found"]
    assert "hands num_leafs on unlooked-at. Did you mean 'num_leaves'?" in words
