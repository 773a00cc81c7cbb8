"""CatBoost with categorical features of its own, trained here or brought in, from its rows to answers over HTTP."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor

from seatrial import Project
from seatrial.core.signature import encode
from seatrial.core.types import Field
from seatrial.releases.ladder import choose
from seatrial.releases.native import capture
from seatrial.training.estimator import EstimatorFailed, controlled
from seatrial.training.evaluation import fit_part
from seatrial.training.rows import training_rows
from seatrial.verbs.external import BadSample
from tests.journeys.worlds import served

pytestmark = pytest.mark.slow

PROJECT = """
from seatrial import Model, ParquetSource

loans = ParquetSource("loans.parquet")
shared = dict(target="default", labels=loans, key=["loan"], cv_folds=0, owner="risk", runbook="https://r",
              features=["request:income", "request:term", "request:city", "request:job"])
cats = dict(iterations=10, depth=4, cat_features=["city", "job", "term"])
Model("named", "binary", estimator="catboost.CatBoostClassifier", params=cats, **shared)
Model("classes", "multiclass", estimator="catboost.CatBoostClassifier", params=cats, **shared | {"target": "grade"})
Model("forgot", "binary", estimator="catboost.CatBoostClassifier", inputs="named",
      params=cats | {"cat_features": ["city"]}, **shared)
"""
FEATURES = ["income", "term", "city", "job"]
CATEGORIES = ["city", "job", "term"]
ROWS = [
    {"income": 3000.0, "term": 12, "city": "Ulm", "job": "nurse"},
    {"income": None, "term": None, "city": None, "job": None},
    {"income": 900.0, "term": 99, "city": "Atlantis", "job": "mermaid"},
]


def loans(rows: int = 150, *, missing: float = 0.08) -> pa.Table:
    random = np.random.default_rng(3)
    income, job = random.normal(2500, 700, rows), random.choice(["nurse", "cook", "clerk"], rows)
    city, term = random.choice(["Ulm", "Kiel", "Trier"], rows), random.integers(1, 5, rows) * 12
    risk = -income / 700 + (job == "cook") * 1.5 + (city == "Kiel") + (term == 24) + random.normal(size=rows)
    holes = random.random((4, rows)) < missing
    return pa.table(
        {
            "loan": [f"L{row}" for row in range(rows)],
            "income": pa.array(np.where(holes[0], np.nan, income), from_pandas=True),
            "term": pa.array(term, mask=holes[3]),
            "city": pa.array(city, mask=holes[1]),
            "job": pa.array(job, mask=holes[2]),
            "default": risk > np.median(risk),
            "grade": np.digitize(risk, np.quantile(risk, [0.3, 0.7])).tolist(),
        }
    )


def as_catboost(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as somebody would give them to CatBoost by hand: text in categories, "" where there is none."""
    frame = rows[FEATURES].assign(income=rows.income.astype("float32").astype(float))
    for name in CATEGORIES:
        frame[name] = [
            "" if pd.isna(one) else str(int(one)) if isinstance(one, int | float) else one for one in rows[name]
        ]
    return frame


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cats")
    pq.write_table(loans(), folder / "loans.parquet")
    (folder / "project.py").write_text(PROJECT)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n[policy]\napproval = "none"\n')
    with Project(folder, actor="ada") as project:
        released = {}
        for name in ("named", "classes"):
            project.train(name)
            released[name] = project.release(name)
            project.deploy(name)
        yield project, released


def by_hand(kind, **params):
    frame = loans().to_pandas()
    given = {"iterations": 10, "depth": 4, "random_seed": 42, "thread_count": 1, "verbose": False}
    model = kind(**given | {"cat_features": CATEGORIES, "allow_writing_files": False} | params)
    return model, as_catboost(frame), frame


def test_a_trained_model_is_released_in_its_own_form_with_parity_and_answers_like_one_that_was_fitted_by_hand(world):
    project, released = world
    assert released["named"].format == "catboost"
    assert (released["named"].parity["passed"], released["named"].parity["flipped"]) == (True, 0)
    signature = project.release_show(released["named"].id)["signature"]
    assert signature["layout"] == "named"
    assert sorted(signature["categories"]) == ["city", "job"]
    model, rows, frame = by_hand(CatBoostClassifier)
    wanted = model.fit(rows, frame.default).predict_proba(as_catboost(pd.DataFrame(ROWS)))[:, 1]
    answers = project.predict("named", ROWS)
    assert [one["probability"] for one in answers] == pytest.approx(list(wanted), abs=1e-9)


def test_a_model_of_classes_answers_over_http_like_one_that_was_fitted_by_hand(world):
    project, _ = world
    model, rows, frame = by_hand(CatBoostClassifier)
    wanted = model.fit(rows, frame.grade).predict_proba(as_catboost(pd.DataFrame(ROWS)))
    with served(project.folder) as (_, url):
        body = json.dumps({"instances": ROWS}).encode()
        asked = urllib.request.Request(f"{url}/models/classes/predict", body, method="POST")
        with urllib.request.urlopen(asked, timeout=30) as answer:
            found = json.loads(answer.read())["predictions"]
    assert [list(one["probability"].values()) for one in found] == [pytest.approx(list(one)) for one in wanted]


def test_a_text_that_was_not_declared_as_a_category_is_refused_in_catboosts_words(world):
    project, _ = world
    with pytest.raises(EstimatorFailed, match="Bad value for num_feature"):
        project.train("forgot")


@pytest.mark.parametrize("maker", ["catboost.CatBoostClassifier", "lightgbm.LGBMClassifier", "xgboost.XGBClassifier"])
def test_a_booster_that_is_given_numbers_by_name_is_released_in_its_own_form(world, maker):
    project, _ = world
    named, table = project.definitions.model("forgot"), loans()
    declared = replace(named, estimator=maker, params={}, features=["request:income", "request:term"])
    rows = training_rows(declared, table, cutoff_us=None)
    request = tuple(Field(name, "float", nullable=True) for name in ("income", "term"))
    with controlled(declared, []):
        fitted = fit_part(declared, rows, request, np.arange(rows.size))
    native = capture(fitted.estimator, "binary")
    inputs, _ = encode(fitted.signature, rows.at(np.arange(rows.size)))
    form = choose(native, inputs, fitted.signature, "named", threshold=0.5)
    assert (form.format, form.parity.flipped) == (native.format, 0)
    assert form.runtime.score(inputs) == pytest.approx(fitted.score(declared, rows, np.arange(rows.size)), abs=1e-9)


@pytest.mark.parametrize(("kind", "form"), [(CatBoostClassifier, "file"), (CatBoostRegressor, "object")])
def test_a_model_that_is_brought_in_answers_as_it_did(tmp_path, kind, form):
    frame = loans(missing=0).to_pandas()
    frame["income"] = frame.income.astype("float32").astype(float)
    frame["target"] = frame.default.astype(int) if kind is CatBoostClassifier else frame.income + (frame.job == "cook")
    model, _, _ = by_hand(kind)
    model.fit(frame[FEATURES], frame.target)
    model.save_model(str(tmp_path / "model.cbm"))
    with Project(tmp_path, actor="ada") as project:
        done = project.release(
            "brought",
            from_=str(tmp_path / "model.cbm") if form == "file" else model,
            sample=frame[[*FEATURES, "target"]],
            target="target",
        )
        assert (done.format, done.parity["passed"], done.parity["flipped"]) == ("catboost", True, 0)
        assert project.release_show(done.id)["lineage"]["more"]["as_given"]["flipped"] == 0
        project.deploy("brought", reason="a test")
        rows = json.loads(frame[FEATURES][:5].to_json(orient="records"))
        answers = project.predict("brought", rows)
    if kind is CatBoostClassifier:
        wanted = model.predict_proba(frame[FEATURES][:5])[:, 1]
        assert [one["probability"] for one in answers] == pytest.approx(list(wanted), abs=1e-6)
    else:
        wanted = model.predict(frame[FEATURES][:5])
        assert [one["prediction"] for one in answers] == pytest.approx(list(wanted), rel=1e-6)


def test_a_sample_whose_categories_are_missing_is_refused_because_the_model_cannot_have_been_given_them(tmp_path):
    frame = loans(missing=0).to_pandas()
    model, _, _ = by_hand(CatBoostClassifier)
    model.fit(frame[FEATURES], frame.default)
    holes = frame[FEATURES].assign(job=[None, *frame.job[1:]])
    with Project(tmp_path, actor="ada") as project, pytest.raises(BadSample, match="'job'"):
        project.release("brought", from_=model, sample=holes)
