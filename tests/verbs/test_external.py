"""Models that were trained elsewhere: released, deployed, served, watched and labelled with nothing declared."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from seatrial import Project
from seatrial.cli import run
from seatrial.core.errors import UsageError
from seatrial.folder.loading import NotAProject
from seatrial.releases.foreign import ForeignUnreadable, PickleRefused, WrongTask
from seatrial.releases.native import NotCaptured
from seatrial.verbs.external import AnswersOtherwise, BadSample, BadTarget, NotScored, TrainedElsewhere
from tests.journeys.worlds import served

ROWS = 400


def customers(seed: int = 0) -> pd.DataFrame:
    made = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": made.integers(18, 80, ROWS),
            "income": made.normal(50, 15, ROWS),
            "active": made.random(ROWS) > 0.5,
        }
    )
    frame["churned"] = (frame.age * 0.02 + frame.active + made.normal(0, 0.7, ROWS) > 1.5).astype(int)
    frame["spent"] = frame.income * 2 + made.normal(0, 1, ROWS)
    frame["plan"] = np.array(["free", "pro", "team"])[np.digitize(frame.income + made.normal(0, 5, ROWS), [40, 60])]
    return frame


FRAME = customers()
INPUTS = ["age", "income", "active"]


def sample(target: str, columns: list[str] = INPUTS) -> pd.DataFrame:
    return FRAME[[*columns, target]]


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path, actor="ada") as opened:
        yield opened


@pytest.fixture(scope="module")
def churn():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[INPUTS], FRAME.churned)


def answers(project, name, rows):
    project.deploy(name, reason="a test")
    return project.predict(name, rows)


def requests(count: int = 5) -> list[dict[str, object]]:
    return json.loads(FRAME[INPUTS].head(count).to_json(orient="records"))


def test_a_skops_file_in_an_empty_folder_becomes_an_answer_over_http(churn, tmp_path, capsys):
    folder = tmp_path / "empty"
    folder.mkdir()
    skops.io.dump(churn, tmp_path / "model.skops")
    sample("churned").to_parquet(tmp_path / "rows.parquet")
    words = ["--from", str(tmp_path / "model.skops"), "--sample", str(tmp_path / "rows.parquet")]
    at = ["--project", str(folder)]
    assert run(["release", "churn", *words, "--target", "churned", "--owner", "crm", "--runbook", "r.md", *at]) == 0
    assert "churn 1.0.0" in capsys.readouterr().out
    assert run(["deploy", *at]) == 0
    with served(folder) as (_, url), seatrial_client(url) as client:
        answer = client.predict(requests(1)[0], model="churn")
    assert answer["probability"] == pytest.approx(churn.predict_proba(FRAME[INPUTS])[0, 1], abs=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == [".seatrial"]


def seatrial_client(url):
    from seatrial.serving.clients.client import Client

    return Client(url, caller="a test")


def test_its_card_shows_the_metrics_of_the_sample_with_their_intervals(project, churn):
    done = project.release("churn", from_=churn, sample=sample("churned"), target="churned")
    intervals = project.record(project.record(done.id).inputs[1]).body["intervals"]["of"]
    measured = project.release_show(done.id)["metrics"]
    low, high = intervals["roc_auc"]
    assert low < measured["roc_auc"] < high
    card = project.release_card(done.id).text
    assert f"{measured['roc_auc']:.4g} | {low:.4g} to {high:.4g}" in card
    assert "the model may have been trained on these rows" in card
    assert "a good mean can hide a bad part" in card
    alone = project.release("alone", from_=churn, sample=sample("churned"))
    assert "roc_auc" not in project.release_card(alone.id).text
    again = project.release("churn", from_=churn, sample=sample("churned"), target="churned")
    assert (again.id, again.new) == (done.id, False)


def test_the_release_says_where_its_model_is_from_and_invents_nothing(project, churn, tmp_path):
    skops.io.dump(churn, tmp_path / "model.skops")
    done = project.release("churn", from_=tmp_path / "model.skops", sample=sample("churned"), target="churned")
    manifest = project.release_show(done.id)
    origin = manifest["lineage"]["more"]["origin"]
    assert origin == {"kind": "external", "from": "model.skops", "digest": origin["digest"]}
    assert len(origin["digest"]) == 64
    lineage = manifest["lineage"]
    assert [lineage[name] for name in ("run", "training_set", "snapshots", "commit", "lock")] == ["", "", [], "", ""]
    assert manifest["plan"] == {"views": [], "functions": []} or not any(manifest["plan"].values())
    assert manifest["gates"] == []
    assert manifest["estimator"] == "sklearn.pipeline.Pipeline"
    assert "requirements.lock" not in manifest["files"]
    assert manifest["parity"]["rows"] == ROWS
    assert manifest["parity"]["passed"]
    assert project.release_verify(done.id).golden_rows > 10


def test_a_model_without_a_target_has_no_metrics_and_says_so(project, churn):
    done = project.release("churn", from_=churn, sample=FRAME[INPUTS])
    assert project.release_show(done.id)["metrics"] == {}
    assert "no --target was named, so nothing was measured" in done.notes


def test_the_metrics_are_those_of_the_sample_by_scikit_learn(project, churn):
    from sklearn.metrics import roc_auc_score

    done = project.release("churn", from_=churn, sample=sample("churned"), target="churned")
    manifest = project.release_show(done.id)
    wanted = roc_auc_score(FRAME.churned, churn.predict_proba(FRAME[INPUTS])[:, 1])
    assert manifest["metrics"]["roc_auc"] == pytest.approx(wanted, abs=1e-9)
    assert "may have been trained" in manifest["lineage"]["more"]["metrics_of"]


def test_the_same_model_and_sample_again_are_the_same_release(project, churn):
    first, second = (project.release("churn", from_=churn, sample=sample("churned")) for _ in range(2))
    assert (first.id, first.new, second.new) == (second.id, True, False)
    assert project.release("churn").id == first.id
    assert [one["version"] for one in project.models()] == [1]


def test_versions_follow_the_same_rules_as_those_trained_here(project, churn):
    first = project.release("churn", from_=churn, sample=sample("churned"))
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[INPUTS][:200], FRAME.churned[:200])
    data = project.release("churn", from_=other, sample=sample("churned"))
    tuned = make_pipeline(StandardScaler(), LogisticRegression(C=0.5)).fit(FRAME[INPUTS], FRAME.churned)
    parameter = project.release("churn", from_=tuned, sample=sample("churned"))
    narrow = LogisticRegression().fit(FRAME[["age"]], FRAME.churned)
    asked = project.release("churn", from_=narrow, sample=FRAME[["age"]])
    numbers = [one.semantic_version for one in (first, data, parameter, asked)]
    assert numbers == ["1.0.0", "1.0.1", "1.1.0", "2.0.0"]
    assert data.explanation == "Patch: another model with the same signature and parameters since 1.0.0."


def test_a_release_says_what_changed_since_the_one_that_is_live(project, churn):
    """Its number follows the one that was packed before, which nobody may have deployed."""
    first = project.release("churn", from_=churn, sample=sample("churned"))
    project.deploy("churn", release=first.id, reason="test")
    narrow = LogisticRegression().fit(FRAME[["age"]], FRAME.churned)
    never_live = project.release("churn", from_=narrow, sample=FRAME[["age"]])
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[INPUTS][:200], FRAME.churned[:200])
    third = project.release("churn", from_=other, sample=sample("churned"))
    assert [one.semantic_version for one in (never_live, third)] == ["2.0.0", "3.0.0"]
    assert not [note for note in never_live.notes if "what is live" in note]
    wanted = "Against what is live: Patch: another model with the same signature and parameters since 1.0.0."
    assert wanted in third.notes


def _boosters(folder: Path):
    import catboost
    import xgboost

    X, y = FRAME[INPUTS].astype(float), FRAME.churned
    lightgbm = LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1).fit(X, y)
    lightgbm.booster_.save_model(folder / "booster.txt")
    boosted = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, y)
    boosted.save_model(folder / "model.json")
    boosted.save_model(folder / "model.ubj")
    cat = catboost.CatBoostClassifier(
        iterations=10, verbose=False, thread_count=1, allow_writing_files=False, train_dir=str(folder)
    ).fit(X, y)
    cat.save_model(str(folder / "model.cbm"))
    return {"booster.txt": lightgbm, "model.json": boosted, "model.ubj": boosted, "model.cbm": cat}


@pytest.fixture(scope="module")
def boosters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("boosters")
    return folder, _boosters(folder)


@pytest.mark.parametrize("file", ["booster.txt", "model.json", "model.ubj", "model.cbm"])
def test_a_boosters_own_file_answers_as_the_fitted_model_does(project, boosters, file):
    folder, models = boosters
    done = project.release("churn", from_=str(folder / file), sample=sample("churned"), target="churned")
    assert done.format == "onnx"
    wanted = models[file].predict_proba(FRAME[INPUTS].astype(float))[:5, 1]
    got = [one["probability"] for one in answers(project, "churn", requests())]
    assert got == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("file", ["booster.txt", "model.json", "model.cbm"])
def test_a_boosters_wrapper_in_memory_is_released_too(project, boosters, file):
    done = project.release("churn", from_=boosters[1][file], sample=FRAME[INPUTS])
    assert project.release_show(done.id)["lineage"]["more"]["origin"]["from"].endswith("Classifier in memory")


def stopped_early(library: str, file: Path):
    """A classifier that learned little and then noise, written by itself; and what its own library reads from it."""
    X, y = FRAME[INPUTS].astype(float), FRAME.churned
    train, test = (X[:200], y[:200]), (X[200:], y[200:])
    if library == "xgboost":
        import xgboost

        words = {"n_estimators": 50, "learning_rate": 1.0, "early_stopping_rounds": 5, "n_jobs": 1}
        xgboost.XGBClassifier(**words).fit(*train, eval_set=[test], verbose=False).save_model(file)
        back = xgboost.XGBClassifier()
        back.load_model(file)
        assert back.get_booster().num_boosted_rounds() > back.best_iteration + 1
        return back.predict_proba(X)[:, 1]
    if library == "lightgbm":
        import lightgbm

        rows = lightgbm.Dataset(*train)
        words = {"objective": "binary", "learning_rate": 1.0, "verbose": -1, "num_threads": 1}
        stop = lightgbm.early_stopping(5, verbose=False)
        lightgbm.train(words, rows, 50, [rows.create_valid(*test)], callbacks=[stop]).save_model(file)
        return lightgbm.Booster(model_file=file).predict(X)
    import catboost

    model = catboost.CatBoostClassifier(
        iterations=50, learning_rate=1.0, verbose=False, thread_count=1, allow_writing_files=False
    )
    model.fit(*train, eval_set=test, early_stopping_rounds=5, use_best_model=True).save_model(str(file))
    return catboost.CatBoostClassifier().load_model(str(file)).predict_proba(X)[:, 1]


@pytest.mark.parametrize(
    ("library", "ending"), [("xgboost", "json"), ("xgboost", "ubj"), ("lightgbm", "txt"), ("catboost", "cbm")]
)
def test_a_file_of_a_training_that_stopped_early_answers_as_its_own_library_reads_it(
    project, tmp_path, library, ending
):
    file = tmp_path / f"model.{ending}"
    wanted = stopped_early(library, file)
    done = project.release("churn", from_=file, sample=sample("churned"), target="churned")
    got = [one["probability"] for one in answers(project, "churn", requests(ROWS))]
    assert got == pytest.approx(wanted, abs=1e-6)
    assert project.release_show(done.id)["lineage"]["more"]["as_given"]["differ"] == 0
    assert [note for note in done.notes if "stopped early" in note] != [] or library != "xgboost"


def test_an_xgboost_file_that_is_read_otherwise_than_by_its_wrapper_is_refused(project, tmp_path, monkeypatch):
    from seatrial.releases import boosters as reader

    stopped_early("xgboost", tmp_path / "model.json")
    monkeypatch.setattr(reader, "until_best", lambda booster: booster)  # as it once was
    with pytest.raises(AnswersOtherwise, match="decisions differ"):
        project.release("churn", from_=tmp_path / "model.json", sample=sample("churned"))


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_booster_in_mlflow_has_the_rounds_of_the_class_that_was_logged(tmp_path, wrapped):
    import pyarrow as pa
    import xgboost

    from seatrial.releases.foreign import read_mlflow

    best = stopped_early("xgboost", tmp_path / "model.ubj")
    kind = "xgboost.sklearn.XGBClassifier" if wrapped else "xgboost.core.Booster"
    told = {"flavors": {"xgboost": {"data": "model.ubj", "model_class": kind}}}
    (tmp_path / "MLmodel").write_text(json.dumps(told))  # which is YAML too
    rows = FRAME[INPUTS].astype(float)
    every = xgboost.Booster(model_file=tmp_path / "model.ubj").predict(xgboost.DMatrix(rows))
    found, _ = read_mlflow(tmp_path, "binary", pa.Table.from_pandas(rows), 3)
    got = found.native.scorer()(rows.to_numpy(np.float32))
    assert got == pytest.approx(best if wrapped else every, abs=1e-6)
    assert np.abs(best - every).max() > 0.01


def test_a_linear_booster_that_stopped_early_answers_with_all_of_it_as_its_wrapper_does(project, tmp_path):
    import xgboost

    X, y = FRAME[INPUTS].astype(float), FRAME.churned
    model = xgboost.XGBClassifier(booster="gblinear", n_estimators=30, early_stopping_rounds=1, n_jobs=1)
    model.fit(X[:200], y[:200], eval_set=[(X[200:], y[200:])], verbose=False).save_model(tmp_path / "model.json")
    project.release("churn", from_=tmp_path / "model.json", sample=sample("churned"))
    got = [one["probability"] for one in answers(project, "churn", requests())]
    assert got == pytest.approx(model.predict_proba(X[:5])[:, 1], abs=1e-6)


def test_columns_are_taken_by_name_and_others_are_left_out(project, churn):
    shuffled = FRAME[["spent", "plan", "active", "churned", "income", "age"]]
    project.release("churn", from_=churn, sample=shuffled, target="churned")
    assert [one["name"] for one in project.release_show("churn")["signature"]["request"]] == INPUTS


def test_a_model_of_arrays_takes_the_samples_columns_in_their_order(project):
    model = LinearRegression().fit(FRAME[INPUTS].to_numpy(float), FRAME.spent)
    project.release("spend", from_=model, sample=sample("spent"), target="spent")
    got = [one["prediction"] for one in answers(project, "spend", requests())]
    assert got == pytest.approx(model.predict(FRAME[INPUTS].to_numpy(float))[:5], rel=1e-6)


def test_several_classes_are_those_of_the_model(project):
    model = LogisticRegression(max_iter=2000).fit(FRAME[INPUTS], FRAME.plan)
    project.release("plan", from_=model, sample=sample("plan"), target="plan")
    assert answers(project, "plan", requests(1))[0]["prediction"] == model.predict(FRAME[INPUTS])[0]


def test_a_booster_that_knows_only_positions_gets_its_classes_from_the_target(project, tmp_path):
    model = LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(FRAME[INPUTS], FRAME.plan)
    model.booster_.save_model(tmp_path / "booster.txt")
    project.release("plan", from_=tmp_path / "booster.txt", sample=sample("plan"), target="plan")
    assert answers(project, "plan", requests(1))[0]["prediction"] == model.predict(FRAME[INPUTS])[0]
    bare = project.release("bare", from_=tmp_path / "booster.txt", sample=FRAME[INPUTS])
    assert project.release_show(bare.id)["signature"]["classes"] == [0, 1, 2]


def test_a_pipeline_with_text_columns_is_released_with_named_inputs(project):
    columns = ["age", "income", "plan"]
    pipeline = make_pipeline(
        ColumnTransformer(
            [("number", SimpleImputer(), ["age", "income"]), ("text", OneHotEncoder(handle_unknown="ignore"), ["plan"])]
        ),
        LogisticRegression(max_iter=2000),
    ).fit(FRAME[columns], FRAME.churned)
    project.release("churn", from_=pipeline, sample=sample("churned", columns), target="churned")
    signature = project.release_show("churn")["signature"]
    assert (signature["layout"], signature["categories"]) == ("named", {"plan": ["free", "pro", "team"]})
    rows = json.loads(FRAME[columns].head(5).to_json(orient="records"))
    got = [one["probability"] for one in answers(project, "churn", rows)]
    assert got == pytest.approx(pipeline.predict_proba(FRAME[columns])[:5, 1], abs=1e-6)


def test_lightgbm_knows_the_categories_of_its_frame(project, tmp_path):
    frame = FRAME[["age", "plan"]].assign(plan=FRAME.plan.astype("category"))
    model = LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1, min_data_per_group=1).fit(frame, FRAME.churned)
    model.booster_.save_model(tmp_path / "booster.txt")
    project.release("churn", from_=tmp_path / "booster.txt", sample=sample("churned", ["age", "plan"]))
    rows = json.loads(FRAME[["age", "plan"]].head(20).to_json(orient="records"))
    got = [one["probability"] for one in answers(project, "churn", rows)]
    assert got == pytest.approx(model.predict_proba(frame)[:20, 1], abs=1e-6)


def test_rows_that_answer_otherwise_in_float32_are_counted_and_told(project):
    x = 1e9 + np.arange(200.0)  # neighbours that float32, with 24 bits, cannot tell apart
    model = LinearRegression().fit((x - 1e9).reshape(-1, 1), x - 1e9)
    model.intercept_ -= 1e9 * model.coef_[0]
    done = project.release("edges", from_=model, sample=pd.DataFrame({"x": x}))
    given = project.release_show(done.id)["lineage"]["more"]["as_given"]
    assert given["differ"] > 100
    assert any("inputs are float32 in serving: of 200 rows" in note for note in done.notes)


def test_a_model_that_was_brought_in_is_watched_and_labelled(project, churn):
    project.release("churn", from_=churn, sample=sample("churned"), target="churned", owner="crm", runbook="r.md")
    rows = requests(250)
    project.deploy("churn")
    ids = [f"r{number}" for number in range(len(rows))]
    project.predict("churn", rows, request_ids=ids)
    told = [{"request_id": id, "churned": int(label)} for id, label in zip(ids, FRAME.churned, strict=False)]
    assert project.label("churn", told).matched == 250
    report = project.monitor("churn")
    assert report.performance.labelled == 250
    assert report.verdict != "not known"
    (status,) = project.status()
    assert (status.model, status.live, status.owner) == ("churn", "1", "crm")
    (reviewed,) = project.review()
    assert reviewed.model == "churn"
    explained = project.explain(ids[0])
    assert explained.replays[0].same
    with pytest.raises(UsageError, match="have no times"):
        project.label("churn")


@pytest.mark.parametrize("verb", ["train", "retrain"])
def test_what_needs_a_declaration_is_refused_by_name(project, churn, verb):
    project.release("churn", from_=churn, sample=FRAME[INPUTS])
    with pytest.raises(TrainedElsewhere, match="nothing here declares how it is trained"):
        getattr(project, verb)("churn")


def test_a_release_from_elsewhere_is_loaded_and_rolled_back_like_any_other(project, churn, tmp_path):
    first = project.release("churn", from_=churn, sample=FRAME[INPUTS])
    project.deploy("churn", reason="a test")
    other = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)).fit(FRAME[INPUTS], FRAME.churned)
    second = project.release("churn", from_=other, sample=FRAME[INPUTS])
    project.deploy("churn", reason="a test")
    assert project.rollback("churn", reason="a drill").live == first.id
    assert project.release_diff(first.id, second.id)
    assert [node.kind for node in project.lineage(first.id).nodes][:3] == ["release", "version", "adoption"]
    assert project.model_show("churn").versions[0].metrics == {}


def test_a_folder_without_project_and_without_models_is_still_no_project(tmp_path):
    with Project(tmp_path) as project, pytest.raises(NotAProject):
        project.status()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_when_a_model_is_refused(project, churn):
    with pytest.raises(BadSample):
        project.release("churn", from_=churn, sample=FRAME[["age"]])
    assert project.models() == []
    assert not list((project.folder / ".seatrial").rglob("*.seatrial"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (["age", "active"], "lacks 1 of them: income"),
        (["age", "active", "spent"], "lacks 1 of them: income"),
    ],
)
def test_a_sample_that_lacks_what_the_model_was_fitted_on_is_refused_by_name(project, churn, columns, words):
    with pytest.raises(BadSample, match=words):
        project.release("churn", from_=churn, sample=FRAME[columns])


def test_a_model_of_arrays_refuses_a_sample_of_another_width(project):
    model = LinearRegression().fit(FRAME[INPUTS].to_numpy(float), FRAME.spent)
    with pytest.raises(BadSample, match="takes 3 inputs and does not say which; the sample has 4 columns"):
        project.release("spend", from_=model, sample=sample("spent"))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (FRAME[INPUTS].assign(income="much"), "column 'income' of the sample is text"),
        (FRAME[INPUTS].assign(income=None), "column 'income' of the sample has no value in any row"),
        (FRAME[INPUTS].assign(income=pd.Timestamp("2024-01-01")), "column 'income' of the sample is timestamp"),
        (FRAME[INPUTS].assign(income=[[1.0]] * ROWS), "column 'income' of the sample is list"),
        (FRAME[INPUTS].head(0), "the sample has no rows"),
        (None, "no sample was given"),
    ],
)
def test_a_sample_of_other_types_is_refused_by_column(project, churn, frame, words):
    with pytest.raises(BadSample, match=words):
        project.release("churn", from_=churn, sample=frame)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("churn", "no column 'churn'.*Did you mean 'churned'"),
        ("age", "'age' is an input of the model"),
        ("plan", "'free' in row|'pro' in row|'team' in row"),
        ("spent", "which is no class of 'churn'"),
    ],
)
def test_a_wrong_target_is_refused(project, churn, target, words):
    with pytest.raises(BadTarget) as refused:
        project.release("churn", from_=churn, sample=FRAME, target=target)
    assert re.search(words, str(refused.value).replace("\n", " "))


def test_a_target_of_text_is_no_number_to_compare_with(project):
    model = LinearRegression().fit(FRAME[INPUTS], FRAME.spent)
    with pytest.raises(BadTarget, match="answers with a number"):
        project.release("spend", from_=model, sample=sample("plan"), target="plan")


def test_a_model_that_cannot_score_the_sample_is_told_in_its_own_words(project, churn):
    frame = FRAME[INPUTS].assign(income=FRAME.income.mask(FRAME.age > 50))
    with pytest.raises(NotScored, match="NaN"):
        project.release("churn", from_=churn, sample=frame)


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (IsolationForest().fit(FRAME[INPUTS]), WrongTask, "cannot be told"),
        (LogisticRegression(), NotCaptured, "not fitted"),
        ("nothing.skops", ForeignUnreadable, "cannot be read"),
        (object(), UsageError, "cannot be told"),
    ],
)
def test_what_is_no_model_is_refused(project, model, error, words):
    with pytest.raises(error, match=words):
        project.release("x", from_=model, sample=FRAME[INPUTS])


def test_another_task_than_the_models_is_refused(project, churn):
    with pytest.raises(WrongTask, match="answers a binary task, and regression was asked for"):
        project.release("x", from_=churn, sample=FRAME[INPUTS], task="regression")


def test_a_pickle_is_never_opened(project, tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(PickleRefused):
        project.release("x", from_=tmp_path / "model.pkl", sample=FRAME[INPUTS])
    assert not (tmp_path / "sprung").exists()


def test_words_of_a_declared_model_are_not_taken_on_the_command_line(project):
    with pytest.raises(UsageError, match="owner of a release is said by the declaration"):
        project.release("x", owner="me")
    with pytest.raises(UsageError, match="sample of a release is said by the declaration"):
        project.release("x", sample=FRAME)


def test_forests_and_histograms_of_elsewhere_release_too(project):
    X, y = FRAME[INPUTS], FRAME.churned
    for model in (RandomForestClassifier(10, random_state=0, n_jobs=1), HistGradientBoostingClassifier(max_iter=10)):
        name = type(model).__name__.lower()
        assert project.release(name, from_=model.fit(X, y), sample=X).parity["passed"]


@pytest.mark.slow
def test_a_model_without_an_onnx_form_is_released_in_its_own(project):
    model = KNeighborsRegressor(weights="distance").fit(FRAME[["age", "income"]], FRAME.spent)
    done = project.release("spend", from_=model, sample=FRAME[["age", "income"]])
    assert (done.format, done.parity["passed"]) == ("skops", True)


def test_a_lightgbm_regressor_of_arrays_answers(project):
    model = LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1).fit(FRAME[INPUTS].to_numpy(float), FRAME.spent)
    project.release("spend", from_=model, sample=sample("spent"), target="spent")
    assert project.release_show("spend")["signature"]["inputs"] == INPUTS


def perceptron(task: str, *, seed: int = 0, by_column: bool = False) -> tuple[bytes, object]:
    """A network of two layers as PyTorch and Keras export it (Gemm, Relu, Sigmoid, Softmax), and it in numpy."""
    from onnx import TensorProto, helper, numpy_helper

    made = np.random.default_rng(seed)
    outputs = 3 if task == "multiclass" else 1
    shapes = {"w1": (3, 8), "b1": (8,), "w2": (8, outputs), "b2": (outputs,)}
    weights = {name: made.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    last = {"binary": "Sigmoid", "multiclass": "Softmax", "regression": "Identity"}[task]
    given = ["age", "income", "active"] if by_column else ["onnx::Gemm_0"]
    nodes = [helper.make_node("Concat", given, ["joined"], axis=1)] if by_column else []
    nodes += [
        helper.make_node("Gemm", ["joined" if by_column else given[0], "w1", "b1"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["active_1"]),
        helper.make_node("Gemm", ["active_1", "w2", "b2"], ["logits"]),
        helper.make_node(last, ["logits"], ["output_0"]),
    ]
    graph = helper.make_graph(
        nodes,
        "main_graph",
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, ["batch", 1 if by_column else 3]) for one in given],
        [helper.make_tensor_value_info("output_0", TensorProto.FLOAT, ["batch", outputs])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="pytorch")
    model.ir_version = 8

    def answer(rows):
        hidden = np.maximum(rows @ weights["w1"] + weights["b1"], 0)
        logits = hidden @ weights["w2"] + weights["b2"]
        if task == "binary":
            return 1 / (1 + np.exp(-logits[:, 0]))
        if task == "multiclass":
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            return odds / odds.sum(axis=1, keepdims=True)
        return logits[:, 0]

    return model.SerializeToString(), answer


@pytest.mark.parametrize("by_column", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_an_onnx_graph_of_another_library_is_released_and_answers(project, tmp_path, task, by_column):
    data, answer = perceptron(task, by_column=by_column)
    (tmp_path / "model.onnx").write_bytes(data)
    words = {"from_": tmp_path / "model.onnx", "sample": FRAME[INPUTS].astype(float), "task": task}
    done = project.release("net", **words)
    assert (done.format, done.parity["largest"]) == ("onnx", 0.0)
    wanted = answer(FRAME[INPUTS].to_numpy(np.float32)[:5])
    got = answers(project, "net", json.loads(FRAME[INPUTS].astype(float).head(5).to_json(orient="records")))
    if task == "multiclass":
        assert [one["prediction"] for one in got] == wanted.argmax(axis=1).tolist()
    else:
        name = "probability" if task == "binary" else "prediction"
        assert [one[name] for one in got] == pytest.approx(wanted, abs=1e-5)


def test_an_onnx_graph_needs_its_task_and_the_right_width(project, tmp_path):
    (tmp_path / "model.onnx").write_bytes(perceptron("binary")[0])
    with pytest.raises(WrongTask, match="ONNX graph answers cannot be told"):
        project.release("net", from_=tmp_path / "model.onnx", sample=FRAME[INPUTS])
    with pytest.raises(BadSample, match="takes 3 inputs"):
        project.release("net", from_=tmp_path / "model.onnx", sample=FRAME[["age", "income"]], task="binary")


def shuffled_classes(tmp_path) -> tuple[Path, pd.DataFrame]:
    """A file of XGBoost that names no classes, whose codes are not those of the sorted labels."""
    from xgboost import XGBClassifier

    code = {"pro": 0, "team": 1, "free": 2}
    model = XGBClassifier(n_estimators=5, max_depth=3).fit(FRAME[INPUTS], FRAME.plan.map(code))
    model.save_model(tmp_path / "plan.json")
    return tmp_path / "plan.json", sample("plan")


def test_classes_that_are_guessed_are_told_and_a_guess_that_answers_badly_is_warned_of(project, tmp_path):
    file, rows = shuffled_classes(tmp_path)
    done = project.release("plan", from_=file, sample=rows, target="plan")
    words = "\n".join(done.notes)
    assert "classes 0, 1, 2 are taken as free, pro, team: sorted, because the file names none" in words
    assert "is worse than always answering the most frequent class" in words


def test_classes_that_are_said_are_taken_in_the_order_of_the_model(project, tmp_path):
    file, rows = shuffled_classes(tmp_path)
    done = project.release("plan", from_=file, sample=rows, target="plan", classes=["pro", "team", "free"])
    assert "sorted" not in "\n".join(done.notes)
    shown = project.release_show(done.id)
    assert shown["signature"]["classes"] == ["pro", "team", "free"]
    assert shown["metrics"]["accuracy"] > 0.7
    found = answers(project, "plan", requests(40))
    right = [one["prediction"] == was for one, was in zip(found, FRAME.plan[:40], strict=True)]
    assert sum(right) > 28


@pytest.mark.parametrize(
    ("classes", "words"),
    [(["a", "b"], "of 3 classes"), (["a", "a", "b"], "of 3 classes"), (["0", "1", "2", "3"], "of 3 classes")],
)
def test_classes_that_do_not_fit_the_model_are_refused(project, tmp_path, classes, words):
    file, rows = shuffled_classes(tmp_path)
    with pytest.raises(WrongTask, match=words):
        project.release("plan", from_=file, sample=rows, target="plan", classes=classes)


def test_classes_of_a_model_that_names_its_own_are_not_said_otherwise(project, churn):
    with pytest.raises(WrongTask, match="it names them itself: 0, 1"):
        project.release("churn", from_=churn, sample=sample("churned"), target="churned", classes=["1", "0"])


def test_two_classes_of_a_file_without_names_are_said_and_shown(project, tmp_path, capsys):
    from xgboost import XGBClassifier

    XGBClassifier(n_estimators=3).fit(FRAME[INPUTS], FRAME.churned).save_model(tmp_path / "m.json")
    words = FRAME[INPUTS].assign(left=np.where(FRAME.churned == 1, "yes", "no"))
    with pytest.raises(BadTarget, match="--classes"):
        project.release("churn", from_=tmp_path / "m.json", sample=words, target="left")
    words.to_parquet(tmp_path / "rows.parquet")
    given = ["--from", str(tmp_path / "m.json"), "--sample", str(tmp_path / "rows.parquet"), "--target", "left"]
    at = ["--project", str(project.folder)]
    assert run(["release", "churn", *given, "--classes", "no,yes", *at]) == 0
    assert run(["releases", "show", project.releases()[0]["release"], *at]) == 0
    assert "1 = yes" in capsys.readouterr().out
    assert "positive is `yes`" in project.release_card("churn").text


def test_release_tells_what_goes_in_what_is_left_and_how_good_it_is(project, churn):
    done = project.release("churn", from_=churn, sample=FRAME[[*INPUTS, "plan", "churned"]], target="churned")
    assert "inputs age, income, active; left out: plan" in done.notes
    assert any(note.startswith("roc_auc 0.") and "400 rows of the sample" in note for note in done.notes)
    assert any("no owner and no runbook" in note and "--owner and --runbook" in note for note in done.notes)


@pytest.mark.parametrize("target", ["churned", None])
def test_what_is_measured_on_the_sample_is_said_to_be_of_no_test_part(project, churn, capsys, target):
    done = project.release("churn", from_=churn, sample=sample("churned"), target=target)
    words = "Measured on the sample of 400 rows" if target else "Nothing was measured: no target was named"
    at = ["--project", str(project.folder)]
    for form in ("md", "html"):
        card = project.release_card(done.id, form=form).text
        assert words in card
        assert "test part" not in card.replace("which is no test part", "")
        assert "| test |" not in card
    assert run(["releases", "show", done.id, *at]) == 0
    assert words in capsys.readouterr().out
    assert run(["models", "show", "churn", *at]) == 0
    shown = capsys.readouterr().out
    assert ("(sample)" if target else "not measured") in shown
    assert "test" not in shown


def test_the_same_model_with_a_runbook_is_said_to_be_the_same_model(project, churn):
    first = project.release("churn", from_=churn, sample=sample("churned"), target="churned")
    again = project.release("churn", from_=churn, sample=sample("churned"), target="churned", runbook="r.md", owner="o")
    assert again.semantic_version == "1.0.1"
    assert again.explanation == "Patch: the owner, the runbook changed since 1.0.0; it is the same model."
    found = project.release_diff(first.id, again.id)
    assert found.words.startswith("They answer the same on the golden rows of both")
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME[INPUTS][:200], FRAME.churned[:200])
    changed = project.release("churn", from_=other, sample=sample("churned"), target="churned", runbook="r.md")
    assert "another model" in changed.explanation


def test_a_deployment_says_how_a_model_from_elsewhere_gets_a_runbook(project, churn):
    from seatrial.deployment.deploy import NoOwner

    project.release("churn", from_=churn, sample=sample("churned"), target="churned", owner="crm")
    with pytest.raises(NoOwner) as refused:
        project.deploy("churn")
    assert "--runbook" in refused.value.next
    assert "Model(" not in refused.value.next
    (found,) = project.review()
    assert any("--runbook" in flag.next and "Model(" not in flag.evidence for flag in found.flags)


@pytest.mark.parametrize("model", [LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())])
def test_an_estimator_that_was_never_fitted_is_said_to_be_that(project, model):
    with pytest.raises(NotCaptured, match="is not fitted"):
        project.release("churn", from_=model, sample=sample("churned"), target="churned")


def test_categories_of_a_frame_are_refused_of_xgboost_for_what_they_are(project):
    from xgboost import XGBClassifier

    frame = FRAME[["age", "plan"]].astype({"plan": "category"})
    model = XGBClassifier(n_estimators=3, enable_categorical=True).fit(frame, FRAME.churned)
    with pytest.raises(NotCaptured, match=r"categorical features of XGBoost are not supported.*plan"):
        project.release("churn", from_=model, sample=frame.assign(churned=FRAME.churned), target="churned")


def test_a_deployment_that_is_not_there_is_answered_with_those_that_are(project, churn):
    project.release("churn", from_=churn, sample=sample("churned"))
    project.deploy("churn", reason="a test")
    for ask in (lambda: project.deploy("nope"), lambda: project.predict("nope", requests(1))):
        with pytest.raises(UsageError, match="no deployment is named 'nope'") as refused:
            ask()
        assert refused.value.expected == "There is churn."


def test_a_prediction_before_the_first_deployment_names_the_command_that_makes_it(project, churn):
    project.release("churn", from_=churn, sample=sample("churned"))
    with pytest.raises(UsageError, match="nothing is deployed as 'churn'") as refused:
        project.predict("churn", requests(1))
    assert "seatrial deploy churn" in refused.value.next


def test_status_says_approve_where_a_second_person_is_needed_first(tmp_path, churn, monkeypatch):
    monkeypatch.setenv("SEATRIAL_POLICY_APPROVAL", "required")
    with Project(tmp_path, actor="ada") as opened:
        done = opened.release("churn", from_=churn, sample=sample("churned"))
        assert opened.status()[0].next.startswith(f"seatrial approve {done.id}")
    with Project(tmp_path, actor="bob") as opened:
        opened.approve(done.id, reason="looked at")
        assert opened.status()[0].next == "seatrial deploy churn"


def test_a_field_that_a_loaded_model_does_not_know_is_named(project, churn):
    from seatrial.embedded import RowRefused, load

    project.release("churn", from_=churn, sample=sample("churned"))
    with load("churn", project=project.folder) as model, pytest.raises(RowRefused, match="Not a field: 'agge'"):
        model.predict({**requests(1)[0], "agge": 3})


def one_input(kind: int, subtract: float = 0.0) -> bytes:
    """sigmoid(x - subtract) of one input [n, 1] of an ONNX type; the difference is taken in that type."""
    from onnx import TensorProto, helper, numpy_helper

    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [
        helper.make_node("Sub", ["x", "off"], ["centred"]),
        helper.make_node("Cast", ["centred"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Sigmoid", ["single"], ["p"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ["n", 1])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([subtract], dtype), "off")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


DOUBLE, INT64 = 11, 7


def test_a_graph_whose_double_input_float32_cannot_hold_is_refused(project, tmp_path):
    (tmp_path / "m.onnx").write_bytes(one_input(DOUBLE, 1.6e9))
    rows = pd.DataFrame({"x": 1.6e9 + np.linspace(-50, 50, 101)})
    with pytest.raises(AnswersOtherwise, match="of 101 rows of the sample 'net'") as refused:
        project.release("net", from_=tmp_path / "m.onnx", sample=rows, task="binary")
    exact = 1 / (1 + np.exp(-np.linspace(-50, 50, 101)))
    rounded = 1 / (1 + np.exp(-(rows.x.to_numpy(np.float32).astype(float) - 1.6e9)))
    assert refused.value.facts["as_given"]["flipped"] == ((exact >= 0.5) != (rounded >= 0.5)).sum()
    assert project.releases() == []


def test_what_the_graph_itself_answers_on_double_is_in_the_manifest(project, tmp_path):
    (tmp_path / "m.onnx").write_bytes(one_input(DOUBLE, 1000.0))
    x = 1000 + np.linspace(-3, 3, 101)
    done = project.release("net", from_=tmp_path / "m.onnx", sample=pd.DataFrame({"x": x}), task="binary")
    given = project.release_show(done.id)["lineage"]["more"]["as_given"]
    exact, rounded = (1 / (1 + np.exp(-(one.astype(float) - 1000))) for one in (x, x.astype(np.float32)))
    assert given["largest"] == pytest.approx(np.abs(exact - rounded).max(), rel=0.05)
    assert 1e-6 < given["largest"] < 1e-4
    assert "answer otherwise" in "\n".join(done.notes)


def test_a_graph_of_integers_takes_no_fraction_and_no_null_in_the_sample_or_in_a_request(project, tmp_path):
    (tmp_path / "m.onnx").write_bytes(one_input(INT64))
    words = {"from_": tmp_path / "m.onnx", "task": "binary"}
    with pytest.raises(BadSample, match=r"column 'x' of the sample is 0\.5 in row 1"):
        project.release("net", sample=pd.DataFrame({"x": [1.0, 0.5, 2.0]}), **words)
    with pytest.raises(BadSample, match="column 'x' of the sample has nulls, and the model takes whole numbers"):
        project.release("net", sample=pd.DataFrame({"x": [1.0, None, 2.0]}), **words)
    project.release("net", sample=pd.DataFrame({"x": [1.0, 0.0, 2.0]}), **words)
    assert answers(project, "net", [{"x": 2}])[0]["probability"] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-6)
    with pytest.raises(UsageError, match="x"):
        project.predict("net", [{"x": 0.5}])
