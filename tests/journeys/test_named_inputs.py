"""A scikit-learn pipeline over named columns, strings among them, from training to answers over HTTP."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from seatrial import Project
from seatrial.releases.bundle import open_bundle
from seatrial.serving.batch.table import score
from seatrial.verbs.answering import PredictionRefused
from tests.journeys.worlds import served

PROJECT = """
from seatrial import Model, ParquetSource, Split
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

loans = ParquetSource("loans.parquet")
numbers = make_pipeline(SimpleImputer(), StandardScaler())
shared = dict(target="default", labels=loans, key=["loan"], cv_folds=0, owner="risk", runbook="https://r",
              features=["request:income", "request:term", "request:city", "request:job"])
pipe = make_pipeline(
    make_column_transformer(
        (numbers, ["income", "term"]),
        (OneHotEncoder(handle_unknown="ignore"), ["job"]),
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), ["city"]),
    ),
    LogisticRegression(),
)
default = Model("default", "binary", estimator=pipe, **shared)
strict = Model(
    "strict", "binary", estimator=make_pipeline(
        make_column_transformer((numbers, make_column_selector(dtype_include=float)), (OneHotEncoder(), ["job"])),
        LogisticRegression(),
    ), **shared)
"""
ROWS = [
    {"income": 3000.0, "term": 12, "city": "Ulm", "job": "nurse"},
    {"income": None, "term": 24, "city": None, "job": None},
    {"income": 900.0, "term": None, "city": "Atlantis", "job": "mermaid"},
]


def loans(rows: int = 600) -> pa.Table:
    random = np.random.default_rng(3)
    income, job = random.normal(2500, 700, rows), random.choice(["nurse", "cook", "clerk"], rows)
    city = random.choice(["Ulm", "Kiel", "Trier", "score"], rows)
    risk = -income / 700 + (job == "cook") * 1.5 + (city == "Kiel") + random.normal(size=rows)
    missing = random.random((3, rows)) < 0.08
    return pa.table(
        {
            "loan": [f"L{row}" for row in range(rows)],
            "income": pa.array(np.where(missing[0], np.nan, income), from_pandas=True),
            "term": pa.array(random.integers(1, 5, rows) * 12, mask=missing[2]),
            "city": pa.array(city, mask=missing[1]),
            "job": pa.array(job, mask=missing[2]),
            "default": risk > np.median(risk),
        }
    )


def as_frame(rows: list[dict]) -> pd.DataFrame:
    """Rows as training hands them to an estimator: numbers as float32 has them, NaN for what is missing."""
    frame = pd.DataFrame(rows)
    numbers = frame[["income", "term"]].astype("float32").astype(float)
    strings = {
        name: pd.Series([row[name] if isinstance(row[name], str) else np.nan for row in rows], dtype=object)
        for name in ("city", "job")
    }
    return pd.concat([numbers, pd.DataFrame(strings)], axis=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("named")
    pq.write_table(loans(), folder / "loans.parquet")
    (folder / "project.py").write_text(PROJECT)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n[policy]\napproval = "none"\n')
    project = Project(folder)
    released = {}
    for name in ("default", "strict"):
        project.train(name)
        released[name] = project.release(name)
        project.deploy(name)
    yield project, released
    project.close()


def test_a_pipeline_over_named_columns_is_released_exactly(world):
    _, released = world
    parity = released["default"].parity
    assert parity["passed"]
    assert parity["refuses_missing"] == ()
    assert parity["largest"] < 1e-6


def test_it_is_released_as_a_graph_with_an_input_for_each_column(world):
    project, released = world
    bundle = open_bundle(Path(released["default"].path), project.trusted)
    graph = onnx.load_from_string(bundle.files["model.onnx"])
    kinds = {one.name: one.type.tensor_type.elem_type for one in graph.graph.input}
    text, number = onnx.TensorProto.STRING, onnx.TensorProto.FLOAT
    assert kinds == {"income": number, "term": number, "city": text, "job": text}
    assert bundle.manifest.signature.layout == "named"
    assert {one.key: one.value for one in graph.metadata_props} == {"missing_string": "\ufdd0"}


def test_known_unknown_and_missing_values_are_answered_as_the_pipeline_answers_them(world):
    project, _ = world
    frame = as_frame(loans().drop_columns(["loan", "default"]).to_pylist())
    own = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), ["income", "term"]),
            (OneHotEncoder(handle_unknown="ignore"), ["job"]),
            (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2), ["city"]),
        ),
        LogisticRegression(),
    )
    own.fit(frame, loans()["default"].to_numpy().astype(int))
    wanted = own.predict_proba(as_frame(ROWS))[:, 1]
    answers = project.predict("default", ROWS)
    with served(project.folder) as (_, url):
        asked = urllib.request.Request(
            f"{url}/models/default/predict", json.dumps({"instances": ROWS}).encode(), method="POST"
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            there = json.loads(answer.read())["predictions"]
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            metrics = answer.read().decode()
    np.testing.assert_allclose([one["probability"] for one in there], wanted, atol=1e-6)
    np.testing.assert_allclose([one["probability"] for one in answers], wanted, atol=1e-6)
    assert any("unseen" in line and '"city"' in line and line.endswith(" 1.0") for line in metrics.splitlines())


def test_the_log_keeps_strings_as_they_came(world):
    project, _ = world
    answers = project.predict("default", ROWS)
    logged = [project.log.find(one["prediction_id"])[0] for one in answers]
    assert [one["feature_job"] for one in logged] == ["nurse", None, "mermaid"]
    assert [one["feature_income"] for one in logged] == [3000.0, None, 900.0]
    explained = project.explain(answers[2]["prediction_id"])
    assert [one.same for one in explained.replays] == [True]


def test_an_encoder_that_refuses_what_it_does_not_know_refuses_in_service_too(world):
    project, released = world
    assert "job" in released["strict"].parity["refuses_unseen"]
    known, _, unknown = ROWS
    assert project.predict("strict", [known])[0]["prediction"] in (0, 1)
    with pytest.raises(PredictionRefused, match="'job' is a category that was never seen"):
        project.predict("strict", [unknown])


def test_a_batch_scores_the_same_graph(world):
    project, released = world
    bundle = open_bundle(Path(released["default"].path), project.trusted)
    rows = pa.Table.from_pylist(ROWS)
    scores = score(bundle, rows)
    answers = [one["probability"] for one in project.predict("default", ROWS)]
    np.testing.assert_allclose(scores, answers, atol=1e-6)
