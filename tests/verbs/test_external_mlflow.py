"""Models that were trained with plain MLflow, on a stock `mlflow server`, become releases."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from seatrial import Project
from seatrial.registry.mlflow import ModelNotFetched, ServerUnreachable
from seatrial.releases.foreign import ForeignUnreadable, WrongTask
from seatrial.releases.throwaway import NotOpened, open_pickle
from tests.registry.test_mlflow_server import Server

pytestmark = [pytest.mark.slow, pytest.mark.needs("mlflow")]

TRAIN = Path(__file__).parents[2] / "examples" / "adopt" / "from_mlflow" / "train.py"

OTHERS = """
import sys, warnings
warnings.simplefilter("ignore")
import mlflow, pandas as pd
import mlflow.catboost, mlflow.lightgbm, mlflow.onnx, mlflow.pyfunc, mlflow.sklearn, mlflow.xgboost
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from xgboost import XGBClassifier
from onnx import numpy_helper
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
mlflow.set_tracking_uri(sys.argv[1])
rows = pd.read_parquet(sys.argv[2])
X, y = rows[["age", "income", "visits"]], rows["churned"]
needs = {"pip_requirements": ["scikit-learn"]}
with mlflow.start_run():
    mlflow.sklearn.log_model(LogisticRegression().fit(X, y), name="skops", registered_model_name="skops",
                             serialization_format="skops", **needs)
    light = LGBMClassifier(n_estimators=10, verbose=-1, n_jobs=1).fit(X, y)
    mlflow.lightgbm.log_model(light.booster_, name="lgb", registered_model_name="lgb", **needs)
    mlflow.lightgbm.log_model(light, name="wrapped", registered_model_name="wrapped", **needs)
    mlflow.xgboost.log_model(XGBClassifier(n_estimators=10, n_jobs=1).fit(X, y), name="xgb",
                             registered_model_name="xgb", **needs)
    quiet = {"iterations": 10, "verbose": False, "thread_count": 1, "allow_writing_files": False}
    cat = CatBoostClassifier(**quiet).fit(X, y)
    mlflow.catboost.log_model(cat, name="cat", registered_model_name="cat", **needs)
    mlflow.catboost.log_model(cat, name="text", registered_model_name="text", format="json", **needs)
    named = X.assign(visits=X.visits.astype(str))
    texts = CatBoostClassifier(cat_features=["visits"], **quiet).fit(named, y)
    mlflow.catboost.log_model(texts, name="texts", registered_model_name="texts", **needs)
    net = MLPClassifier((64, 64), max_iter=20, random_state=0).fit(X.astype("float32").to_numpy(), y)
    graph = to_onnx(net, initial_types=[("X", FloatTensorType([None, 3]))], options={"zipmap": False})
    for tensor in graph.graph.initializer:  # raw bytes, as PyTorch writes them: those MLflow puts beside the graph
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    mlflow.onnx.log_model(graph, name="net", registered_model_name="net", **needs)
    for name, model, rows in (("skops", LogisticRegression().fit(X, y), X), ("light", light, X), ("cat", cat, X),
                              ("texts", texts, named), ("net", net, X.to_numpy())):
        pd.Series(model.predict_proba(rows)[:, 1]).to_frame("p").to_parquet(f"{sys.argv[3]}/{name}.parquet")
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A stock server with models that plain MLflow logged: (its address, the folder with the sample)."""
    folder = tmp_path_factory.mktemp("mlflow")
    server = Server(folder).start()
    environment = {"MLFLOW_TRACKING_URI": server.uri, "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    try:
        subprocess.run([sys.executable, str(TRAIN), str(folder)], env=environment, check=True, timeout=120)
        others = [sys.executable, "-c", OTHERS, server.uri, str(folder / "rows.parquet"), str(folder)]
        subprocess.run(others, env=environment, check=True, timeout=120, capture_output=True)
        yield server.uri, folder
    finally:
        server.kill()


@pytest.fixture
def project(tmp_path):
    with Project(tmp_path, actor="ada") as opened:
        yield opened


def asked(project, name, folder):
    project.deploy(name, reason="a test")
    frame = pd.read_parquet(folder / "rows.parquet").head(10)
    rows = json.loads(frame[["age", "income", "visits"]].to_json(orient="records"))
    return [one["probability"] for one in project.predict(name, rows)]


def test_a_pickled_model_is_released_and_answers_as_it_did(project, world):
    uri, folder = world
    done = project.release(
        "churn",
        from_="mlflow:models:/churn/1",
        sample=folder / "rows.parquet",
        target="churned",
        mlflow_uri=uri,
    )
    manifest = project.release_show(done.id)
    origin = manifest["lineage"]["more"]["origin"]
    assert (origin["kind"], origin["from"], origin["opened"]) == ("external", "mlflow:models:/churn/1", "apart")
    assert origin["flavor"] == "sklearn"
    assert len(origin["run_id"]) == 32
    assert manifest["lineage"]["more"]["as_given"]["largest"] < 1e-6
    wanted = pd.read_parquet(folder / "answers.parquet").churn[:10]
    assert asked(project, "churn", folder) == pytest.approx(list(wanted), abs=1e-6)


def test_an_alias_is_written_down_as_the_version_that_it_meant(project, world, monkeypatch):
    uri, folder = world
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    done = project.release("churn", from_="mlflow:models:/churn@champion", sample=folder / "rows.parquet")
    assert project.release_show(done.id)["lineage"]["more"]["origin"]["from"] == "mlflow:models:/churn/1"


@pytest.mark.parametrize(
    ("name", "answers", "opened"),
    [("skops", "skops", None), ("lgb", "light", None), ("wrapped", "light", None), ("xgb", None, None)],
)
def test_other_flavors_are_read_as_they_are(project, world, name, answers, opened):
    uri, folder = world
    words = {"sample": folder / "rows.parquet", "target": "churned", "mlflow_uri": uri}
    done = project.release(name, from_=f"mlflow:models:/{name}/1", **words)
    assert project.release_show(done.id)["lineage"]["more"]["origin"].get("opened") == opened
    if answers:
        wanted = pd.read_parquet(folder / f"{answers}.parquet").p[:10]
        assert asked(project, name, folder) == pytest.approx(list(wanted), abs=1e-6)


def test_a_catboost_model_is_read_as_it_is_and_answers_as_it_did(project, world):
    uri, folder = world
    words = {"sample": folder / "rows.parquet", "target": "churned", "mlflow_uri": uri}
    done = project.release("cat", from_="mlflow:models:/cat/1", **words)
    origin = project.release_show(done.id)["lineage"]["more"]["origin"]
    assert (origin["flavor"], origin.get("opened"), done.parity["flipped"]) == ("catboost", None, 0)
    wanted = pd.read_parquet(folder / "cat.parquet").p[:10]
    assert asked(project, "cat", folder) == pytest.approx(list(wanted), abs=1e-6)


def test_a_catboost_model_with_categories_of_its_own_answers_as_it_did(project, world):
    uri, folder = world
    sample = pd.read_parquet(folder / "rows.parquet")
    sample["visits"] = sample.visits.astype(str)
    done = project.release(
        "texts",
        from_="mlflow:models:/texts/1",
        sample=sample,
        target="churned",
        mlflow_uri=uri,
        owner="crm",
        runbook="r",
    )
    assert (done.format, done.parity["passed"], done.parity["flipped"]) == ("catboost", True, 0)
    project.deploy("texts")
    rows = json.loads(sample[["age", "income", "visits"]][:10].to_json(orient="records"))
    found = [one["probability"] for one in project.predict("texts", rows)]
    assert found == pytest.approx(list(pd.read_parquet(folder / "texts.parquet").p[:10]), abs=1e-6)


def test_a_catboost_model_in_a_form_that_is_not_read_is_refused(project, world):
    uri, folder = world
    with pytest.raises(ForeignUnreadable, match="written as 'json'"):
        project.release("text", from_="mlflow:models:/text/1", sample=folder / "rows.parquet", mlflow_uri=uri)


def test_an_onnx_graph_whose_weights_lie_beside_it_answers_as_it_did(project, world):
    uri, folder = world
    words = {"sample": folder / "rows.parquet", "target": "churned", "mlflow_uri": uri}
    with pytest.raises(WrongTask, match="cannot be told"):
        project.release("net", from_="mlflow:models:/net/1", **words)
    done = project.release("net", from_="mlflow:models:/net/1", task="binary", **words)
    assert project.release_show(done.id)["lineage"]["more"]["origin"]["flavor"] == "onnx"
    assert all(path.stat().st_size < 64 * 64 * 4 for path in folder.rglob("model.onnx"))  # smaller than its weights
    assert list(folder.rglob("model.onnx"))
    wanted = pd.read_parquet(folder / "net.parquet").p[:10]
    assert asked(project, "net", folder) == pytest.approx(list(wanted), abs=1e-5)


def test_what_is_not_there_is_said_by_name(project, world):
    uri, folder = world
    words = {"sample": folder / "rows.parquet", "mlflow_uri": uri}
    for model in ("mlflow:models:/churn/9", "mlflow:models:/nobody/1", "mlflow:churn", "mlflow:runs:/0/model"):
        with pytest.raises(ModelNotFetched):
            project.release("churn", from_=model, **words)
    with pytest.raises(ModelNotFetched, match="no tracking server"):
        project.release("churn", from_="mlflow:models:/churn/1", sample=folder / "rows.parquet")


def test_a_server_that_does_not_answer_is_unavailable(project, world, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    words = {"sample": world[1] / "rows.parquet", "mlflow_uri": "http://127.0.0.1:9"}
    with pytest.raises(ServerUnreachable):
        project.release("churn", from_="mlflow:models:/churn/1", **words)


TRAP = """
import pickle, sys
class Trap:
    def __reduce__(self):
        return (exec, (CODE, {}))
CODE = '''
import os, pathlib, socket
found = {"environment": sorted(os.environ)}
def attempt(name, harm):
    try:
        harm()
        found[name] = True
    except OSError:
        found[name] = False
attempt("wrote", lambda: pathlib.Path(%r).write_text("sprung"))
attempt("called", lambda: socket.socket())
attempt("looked", lambda: os.listdir("/proc"))
raise ValueError(repr(found))
'''
pickle.dump(Trap(), open(sys.argv[1], "wb"))
"""


def test_a_pickle_that_means_harm_finds_no_network_no_secrets_and_no_file_to_change(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    harmed, trap = tmp_path / "harmed", tmp_path / "trap.pkl"
    subprocess.run([sys.executable, "-c", TRAP % str(harmed), str(trap)], check=True)
    with pytest.raises(NotOpened) as told:
        open_pickle(trap.read_bytes(), pa.table({"a": [1.0]}))
    said = told.value.found
    assert "ValueError" in said
    assert "AWS_SECRET_ACCESS_KEY" not in said
    assert "'wrote': False, 'called': False, 'looked': False" in said
    assert not harmed.exists()


def test_no_pickle_is_opened_where_the_kernel_cannot_confine_it(monkeypatch):
    from seatrial.releases import throwaway

    asked = "import platform; platform.machine = lambda: 'riscv64'; "
    popen = subprocess.Popen
    monkeypatch.setattr(
        throwaway.subprocess, "Popen", lambda words, **more: popen([*words[:-1], asked + words[-1]], **more)
    )
    with pytest.raises(NotOpened, match="this process cannot be confined: it runs on linux riscv64") as told:
        open_pickle(b"\x80\x04N.", pa.table({"a": [1.0]}))
    assert "Landlock and seccomp" in told.value.expected
