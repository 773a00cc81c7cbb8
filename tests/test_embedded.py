"""`seatrial.load`: a release that answers inside another program, as the service would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import seatrial
from seatrial import PredictionLog, Project
from seatrial.embedded import NoAnswer, NoTrustedKey, RowRefused
from seatrial.releases.signing import SignatureRefused, signing_key
from tests.cli.test_verbs import make

ROWS = [{"size": 0.25, "weight": 0.5}, {"size": 0.75, "weight": None}, {"size": 0.5, "weight": 0.9}]

WITH_VIEWS = """
    from datetime import datetime, timezone
    from seatrial import CsvSource, Entity, Model, agg, feature_view, on_request

    events = CsvSource("events.csv", event_timestamp="at", event_key=["event"])
    rows = CsvSource("rows.csv", event_timestamp="at", event_key=["row"])

    @feature_view(entity=Entity("shop"), source=events)
    class sales:
        last = agg.last("amount")
        kind = agg.last("kind")

    @on_request
    def ratio(asked: float, sales__last: float) -> float:
        return asked / (sales__last + 1.0)

    Model(
        "busy", task="binary", target="busy", labels=rows, key=["row"], features=[sales, ratio, "request:asked"],
        estimator="lightgbm.LGBMClassifier", params={"n_estimators": 5}, cv_folds=0, owner="o", runbook="r",
    )
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = make(tmp_path_factory.mktemp("embedded") / "project", weight=lambda i: i / 400 if i % 5 else "")
    with Project(made, actor="ada") as project:
        project.train("heavy")
        project.release("heavy")
        project.deploy("heavy")
    return made


@pytest.fixture(scope="module")
def bundle(folder):
    return next((folder / ".seatrial/objects/releases").glob("*.seatrial"))


@pytest.fixture(scope="module")
def keys(folder):
    return folder / ".seatrial/keys/trusted"


@pytest.fixture(scope="module")
def answers(folder):
    with Project(folder) as project:
        return [(one["prediction"], one["probability"]) for one in project.predict("heavy", ROWS)]


def told(found):
    return [(one["prediction"], one["probability"]) for one in found]


@pytest.mark.parametrize(
    "rows",
    [
        ROWS,
        tuple(ROWS),
        pa.Table.from_pylist(ROWS),
        pa.Table.from_pylist(ROWS).to_batches()[0],
        pd.DataFrame(ROWS),
        [{"size": np.float32(0.25), "weight": np.float64(0.5)}, ROWS[1] | {"weight": float("nan")}, ROWS[2]],
    ],
    ids=["dicts", "tuple", "arrow table", "arrow batch", "pandas", "numpy values"],
)
def test_rows_of_every_form_are_answered_as_the_service_would(folder, bundle, keys, answers, rows):
    with seatrial.load(bundle, trusted=keys) as model:
        assert told(model.predict(rows)) == answers


def test_one_dict_is_one_answer_that_says_which_release_made_it(folder, bundle, keys, answers):
    model = seatrial.load(bundle, trusted=keys)
    one = model.predict(ROWS[0])
    assert (one["prediction"], one["probability"]) == answers[0]
    assert (one["release"], one["model_version"]) == (model.release, "1") == (bundle.stem, model.version)
    assert set(model.example) == {"size", "weight"}
    assert model.predict(model.example)
    assert model.predict([]) == []


@pytest.mark.parametrize("name", ["heavy", "heavy:1", "heavy@champion", "heavy@candidate"])
def test_a_name_means_what_it_means_in_the_project(folder, bundle, name):
    assert seatrial.load(name, project=folder).release == bundle.stem


def test_more_rows_than_a_request_may_hold_and_many_threads_are_answered_in_order(bundle, keys):
    model = seatrial.load(bundle, trusted=keys)
    rows = [{"size": i / 2500, "weight": 1 - i / 2500} for i in range(2500)]
    every = told(model.predict(rows))
    assert len(every) == 2500
    with ThreadPoolExecutor(8) as pool:
        assert told(pool.map(model.predict, rows[::50])) == every[::50]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"size": "big", "weight": 1.0}], "size"),
        ([ROWS[0], {"size": 1.0, "weight": 1.0, "colour": "red"}], "colour"),
        ({"size": float("inf"), "weight": 1.0}, "infinite"),
        ([[1.0, 2.0]], "not a dict"),
        ("size", "str"),
        ([{"size": object(), "weight": 1.0}], "no plain value"),
    ],
)
def test_a_row_that_cannot_be_answered_is_refused_by_name(bundle, keys, rows, words):
    with seatrial.load(bundle, trusted=keys) as model, pytest.raises(RowRefused) as refused:
        model.predict(rows)
    message = str(refused.value) + json.dumps(refused.value.facts.get("problem", {}))
    assert words in message or refused.value.facts["problem"]["code"] == "request.unknown_field"


def test_a_bundle_counts_only_when_a_trusted_key_signed_it(folder, bundle, tmp_path, monkeypatch):
    with pytest.raises(NoTrustedKey, match="no public key"):
        seatrial.load(bundle, project=tmp_path)
    signing_key(tmp_path / "others")
    with pytest.raises(SignatureRefused):
        seatrial.load(bundle, trusted=tmp_path / "others")
    (file,) = (folder / ".seatrial/keys/trusted").glob("*.pub")
    assert seatrial.load(bundle, trusted=file).release == bundle.stem
    monkeypatch.setenv("SEATRIAL_TRUSTED_KEYS", str(file))
    assert seatrial.load(bundle, project=tmp_path).release == bundle.stem


def test_a_fresh_interpreter_imports_nothing_that_trains(bundle, folder, keys):
    code = f"""
        import sys, json, seatrial
        for reference, how in (({str(bundle)!r}, dict(trusted={str(keys)!r})), ("heavy@champion", {{}})):
            with seatrial.load(reference, project={str(folder)!r}, **how) as model:
                answer = model.predict({ROWS[0]!r})
        print(json.dumps([answer["prediction"], sorted(sys.modules)]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    prediction, modules = json.loads(done.stdout)
    assert prediction in (0, 1)
    heavy = ("pandas", "sklearn", "mlflow", "lightgbm", "xgboost", "catboost", "scipy", "duckdb", "onnx", "fastapi")
    assert [name for name in heavy if name in modules] == []


@pytest.fixture(scope="module")
def shops(tmp_path_factory):
    """A project whose model looks features up, with an online store that holds them."""
    made = tmp_path_factory.mktemp("shops") / "project"
    made.mkdir()
    (made / "project.py").write_text(textwrap.dedent(WITH_VIEWS))
    (made / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    days = [f"2024-01-{day:02}T00:00:00Z" for day in range(1, 29)]
    events = [
        f"{day}{shop},{at},{shop},{shop * 10 + day},{'ab'[day % 2]}" for day, at in enumerate(days) for shop in range(4)
    ]
    (made / "events.csv").write_text("event,at,shop,amount,kind\n" + "\n".join(events) + "\n")
    rows = [
        f"{day}{shop}{n},{at},{shop},{n},{(shop * 10 + day + n) % 7 > 3}"
        for day, at in enumerate(days)
        for shop in range(4)
        for n in range(3)
    ]
    (made / "rows.csv").write_text("row,at,shop,asked,busy\n" + "\n".join(rows) + "\n")
    with Project(made, actor="ada") as project:
        project.materialize()
        project.train("busy")
        project.release("busy")
        project.deploy("busy")
    return made


def test_features_of_views_are_given_in_the_rows_or_looked_up(shops):
    at = datetime(2024, 2, 1, tzinfo=UTC)
    with Project(shops) as project:
        (served,) = project.predict("busy", [{"shop": 2, "asked": 1}], at=at)
    given = {"asked": 1, "sales__last": 47.0, "sales__kind": "b"}
    with seatrial.load("busy", project=shops) as model:
        assert not model.looks_up
        assert told([model.predict(given)]) == told([served])
        assert told([model.predict(given | {"shop": 2})]) == told([served])
        with pytest.raises(RowRefused):
            model.predict({"shop": 2, "asked": 1})
        assert model.predict(given | {"sales__last": None, "sales__kind": None})["prediction"] in (0, 1)
    for address in ("project", "sqlite:///.seatrial/online.db"):
        with seatrial.load("busy", project=shops, online=address) as model:
            assert model.looks_up
            assert told([model.predict({"shop": 2, "asked": 1}, at=at)]) == told([served])
            assert model.predict({"shop": 99, "asked": 1}, at=at)["views"] == {"sales": "missing"}


def test_a_bundle_that_was_moved_away_from_its_project_still_answers(bundle, keys, answers, tmp_path, monkeypatch):
    shutil.copy(bundle, tmp_path / "late.seatrial")
    shutil.copytree(keys, tmp_path / "keys")
    monkeypatch.chdir(tmp_path)
    assert told(seatrial.load("late.seatrial", trusted="keys").predict(ROWS)) == answers


KINDS = """
    from seatrial import CsvSource, Model

    things = CsvSource("things.csv", event_key=["id"])
    Model(
        "kind", task="multiclass", target="kind", labels=things, key=["id"], inputs="named", cv_folds=0,
        features=["request:size", "request:colour"], estimator=pipeline, owner="o", runbook="r",
    )
"""
PIPELINE = """
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    def pipeline():
        encoded = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["colour"]), remainder="passthrough"
        )
        return make_pipeline(encoded, LogisticRegression(max_iter=200))
"""


def test_a_model_of_several_classes_with_columns_by_name_answers_as_the_service(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "project.py").write_text(textwrap.dedent(PIPELINE) + textwrap.dedent(KINDS))
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    rows = [f"{i},{i / 300},{'red green blue'.split()[i % 3]},{'abc'[(i * 3 // 300 + i % 3) % 3]}" for i in range(300)]
    (folder / "things.csv").write_text("id,size,colour,kind\n" + "\n".join(rows) + "\n")
    asked = [{"size": 0.1, "colour": "red"}, {"size": 0.9, "colour": "blue"}, {"size": 0.5, "colour": "pink"}]
    with Project(folder, actor="ada") as project:
        project.train("kind")
        released = project.release("kind")
        project.deploy("kind")
        served = project.predict("kind", asked)
        again = project.release_diff("kind", released.id)
        assert (again.verdict, again.equal, again.replays[0].rows) == ("identical", True, 200)
        assert "multiclass" in project.model_card("kind").text
        assert project.release_sbom("kind").libraries > 10
    with seatrial.load("kind", project=folder) as model:
        found = model.predict(asked)
        assert told(found) == told(served)
        assert set(found[0]["probability"]) == set("abc")
        assert told(model.predict(pd.DataFrame(asked))) == told(served)


def test_with_a_log_each_answer_is_in_it_before_it_is_returned(bundle, keys, tmp_path):
    with seatrial.load(bundle, trusted=keys, log=tmp_path / "log") as model:
        one = model.predict(ROWS[0], request_id="order-1", caller="shop")
        rows = PredictionLog(tmp_path / "log").rows()
        assert rows["prediction_id"].to_pylist() == [one["prediction_id"]]
        assert rows.select(["request_id", "caller", "model", "release", "probability", "feature_size"]).to_pylist() == [
            {
                "request_id": "order-1",
                "caller": "shop",
                "model": "heavy",
                "release": one["release"],
                "probability": one["probability"],
                "feature_size": 0.25,
            }
        ]
        many = model.predict(ROWS)
    logged = set(PredictionLog(tmp_path / "log").rows()["prediction_id"].to_pylist())
    assert logged == {one["prediction_id"], *(answer["prediction_id"] for answer in many)}


def test_threads_and_a_log_of_ones_own_lose_and_double_nothing(bundle, keys, tmp_path):
    log = PredictionLog(tmp_path / "log")
    with seatrial.load(bundle, trusted=keys, log=log) as model, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(model.predict, [ROWS[n % 3] for n in range(200)]))
    log.write(model="heavy", features=ROWS[0], prediction=1)  # it is still open
    log.close()
    logged = PredictionLog(tmp_path / "log").rows()["prediction_id"].to_pylist()
    assert len(logged) == 201
    assert set(logged) > {answer["prediction_id"] for answer in found}


def test_without_a_log_nothing_is_written_and_an_answer_has_no_id(bundle, keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "prediction_id" not in seatrial.load(bundle, trusted=keys).predict(ROWS[0])
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_cannot_be_logged_is_not_returned(bundle, keys, tmp_path):
    (tmp_path / "log").write_text("in the way")
    with seatrial.load(bundle, trusted=keys, log=tmp_path / "log") as model, pytest.raises(NoAnswer) as refused:
        model.predict(ROWS[0])
    assert refused.value.facts["problem"]["code"] == "log.unwritable"


def test_one_request_id_for_more_rows_than_a_request_may_hold_is_refused(bundle, keys):
    with pytest.raises(RowRefused, match="one request_id"):
        seatrial.load(bundle, trusted=keys).predict([ROWS[0]] * 1001, request_id="x")
