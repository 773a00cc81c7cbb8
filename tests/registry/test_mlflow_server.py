"""The mirror on a real `mlflow server`: what it shows, that its models answer like ours, and that it may be away."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from seatrial import Project
from seatrial.core.errors import SeatrialError
from seatrial.registry.mlflow import mirror, run_message
from seatrial.stores.metadata import MetadataStore
from seatrial.verbs.tracking import Origin, log_fit
from tests.cli.test_verbs import make
from tests.servers import free_port

pytestmark = [pytest.mark.slow, pytest.mark.needs("mlflow")]
BROKEN = """

class Dying:
    def __init__(self, depth=1, random_state=0):
        self.depth, self.random_state = depth, random_state

    def get_params(self, deep=True):
        return {"depth": self.depth, "random_state": self.random_state}

    def fit(self, X, y):
        raise MemoryError("out of memory")

    def predict_proba(self, X):
        raise NotImplementedError


Model(
    "dying", task="binary", target="heavy", labels=things, key=["id"], features=["request:size"], estimator=Dying,
    params={"depth": 3}, cv_folds=2,
)
"""
ROWS = [{"size": i / 40, "weight": 1 - i / 40} for i in range(40)]


class Server:
    """A stock `mlflow server` on SQLite and a folder of artifacts, which keeps its state when it is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'mlflow.db'}", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
            )
        for _ in range(2400):  # a machine that is busy takes its time
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return self
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)
        self.kill()
        raise AssertionError("mlflow server did not start")

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("mlflow")).start()
    yield made
    made.kill()


@pytest.fixture
def up(server):
    if server.process is None:
        server.start()
    return server


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """MLflow's own patience, shortened, so that a server which does not answer is given up soon."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.delenv("SEATRIAL_STORES_MLFLOW", raising=False)


@contextmanager
def client_of(server):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        yield MlflowClient(server.uri, server.uri)


def project_of(folder, uri, name):
    if not folder.exists():
        make(folder)
    (folder / "seatrial.toml").write_text(f'name = "{name}"\n[stores]\nmlflow = "{uri}"\n')
    text = (folder / "project.py").read_text()
    (folder / "project.py").write_text(
        text.replace('"heavy", task', f'"{name}", task').replace('Deployment("heavy")', f'Deployment("{name}")')
    )
    return Project(folder, actor="ada")


def live(project, name):
    trained, released = project.train(name), project.release(name)
    project.deploy(name)
    return trained, released


def told(project):
    """Everything that waits is told, whoever tells it: the verbs have started a mirror of their own."""
    for _ in range(3000):
        if not project.metadata.pending("mlflow"):
            return
        done = project.mirror()
        assert done.problem == "" or "another process" in done.problem, done
        time.sleep(0.05)
    pytest.fail("the mirror's own process has not told everything")


def seen(client, name):
    """Runs and versions that MLflow has of a project."""
    experiment = client.get_experiment_by_name(name)
    return client.search_runs([experiment.experiment_id]), client.search_model_versions(f"name = '{name}'")


def test_the_server_shows_all_and_its_champion_answers_like_our_release(up, tmp_path):
    with project_of(tmp_path / "project", up.uri, "shown") as project:
        trained, released = live(project, "shown")
        told(project)
        ours = project.predict("shown", ROWS)
    with client_of(up) as client:
        (run,), (version,) = seen(client, "shown")
        assert run.data.params["n_estimators"] == "5"
        assert run.data.metrics["test_roc_auc"] == pytest.approx(trained.metrics["roc_auc"])
        assert run.data.tags["seatrial.run_id"] == trained.run
        assert version.tags["seatrial.release"] == released.id
        assert version.tags["seatrial.semantic_version"] == "1.0.0"
        names = {Path(one.path).name for one in client.list_artifacts(run.info.run_id, "model")}
        assert {"MLmodel", "shown.seatrial", "model.onnx", "profile.json", "native.lightgbm"} <= names
        assert set(client.get_registered_model("shown").aliases) == {"candidate", "champion"}
        import mlflow

        mlflow.set_tracking_uri(up.uri)
        mlflow.set_registry_uri(up.uri)
        theirs = mlflow.pyfunc.load_model("models:/shown@champion").predict(pd.DataFrame(ROWS))
        graph = mlflow.onnx.load_model("models:/shown@champion")
    assert theirs["prediction"].tolist() == [one["prediction"] for one in ours]
    assert theirs["probability"].tolist() == [one["probability"] for one in ours]
    assert [one.name for one in graph.graph.input] == ["input"]


def test_aliases_that_move_and_versions_that_are_deleted_are_told(up, tmp_path):
    with project_of(tmp_path / "project", up.uri, "moving") as project:
        live(project, "moving")
        project.train("moving")
        project.model_alias("moving", "shadow", 1)
        project.model_alias("moving", "shadow", None)
        project.model_delete("moving:2", reason="wrong labels")
        told(project)
    with client_of(up) as client:
        # MLflow's own numbers are ours, as long as nobody else writes to the model there
        assert client.get_registered_model("moving").aliases == {"champion": "1"}
        assert client.get_model_version("moving", "2").tags["seatrial.deleted"] == "wrong labels"


def test_a_run_that_failed_is_there_as_failed_with_its_reason(up, tmp_path):
    with project_of(tmp_path / "project", up.uri, "broken") as project:
        file = project.folder / "project.py"
        file.write_text(file.read_text() + BROKEN)
    with Project(tmp_path / "project", actor="ada") as project:
        with pytest.raises(SeatrialError):
            project.train("dying")
        (failed,) = project.runs("dying")
        with contextlib.suppress(ZeroDivisionError), project.run("tried") as tracked:
            tracked.log(loss=0.5)
            raise ZeroDivisionError
        told(project)
    with client_of(up) as client:
        found = {run.info.run_name: run for run in seen(client, "broken")[0]}
        dying, by_hand = found["dying"], found["tried"]
        assert [dying.info.status, by_hand.info.status] == ["FAILED", "FAILED"]
        assert dying.data.tags["seatrial.run_id"] == failed["run"]
        assert dying.data.tags["seatrial.error"] == "training.estimator_failed"
        assert "out of memory" in dying.data.tags["mlflow.note.content"]
        assert dying.data.params["depth"] == "3"
        assert "ZeroDivisionError" in by_hand.data.tags["mlflow.note.content"]
        assert by_hand.data.metrics["loss"] == 0.5


def test_what_was_logged_by_hand_is_there_with_every_step_and_under_names_that_mlflow_takes(up, tmp_path):
    (tmp_path / "curve.png").write_bytes(b"png")
    with project_of(tmp_path / "project", up.uri, "byhand") as project:
        with project.run("depths") as tracked:
            for step, loss in ((2, 0.5), (4, 0.4), (8, 0.45)):
                tracked.log(step=step, **{"loss": loss, "share@10%": loss / 2})
            tracked.log_params(**{"depth": 3, "what?": "odd"})
            tracked.tag(idea="wider")
            tracked.artifact(tmp_path / "curve.png", "drawn/curve.png")
        told(project)
        with project.metadata.transaction() as transaction:  # as when the mirror was killed before it had noted it
            transaction.enqueue("mlflow", project._record_message(project.record(tracked.id)))
        told(project)
    with client_of(up) as client:
        ((run,), versions) = seen(client, "byhand")
        assert versions == []
        series = client.get_metric_history(run.info.run_id, "loss")
        assert [(one.step, one.value) for one in series] == [(2, 0.5), (4, 0.4), (8, 0.45)]
        assert (run.data.params["depth"], run.data.params["what_"]) == ("3", "odd")
        assert (run.data.tags["idea"], run.data.tags["logged"], run.info.status) == ("wider", "script", "FINISHED")
        assert "share_10_" in run.data.metrics
        (kept,) = client.list_artifacts(run.info.run_id, "model")
        assert Path(kept.path).name == "drawn_curve.png"


def test_a_fit_that_was_logged_is_a_run_and_with_its_release_a_version_that_loads(up, tmp_path):
    rows, outcome = pd.DataFrame(ROWS), [int(row["size"] > 0.5) for row in ROWS]
    model = LogisticRegression().fit(rows, outcome)
    with project_of(tmp_path / "project", up.uri, "logged") as project:
        origin = Origin("script", "train.py", "a" * 40, "")
        words = {"name": "fitted", "params": {"why": "a try"}, "task": None, "target": "heavy", "words": {}}
        logged = log_fit(project, model, (rows, outcome, rows, outcome), origin=origin, **words)
        told(project)
        with client_of(up) as client:
            ((run,), versions) = seen(client, "logged")
            assert client.search_model_versions("name = 'fitted'") == versions == []
            assert run.data.metrics["test_roc_auc"] == logged.metrics["roc_auc"]
            assert (run.data.params["why"], run.data.params["C"]) == ("'a try'", "1.0")
            assert run.data.tags["commit"] == "a" * 40
        released = project.release(logged.run)
        project.deploy("fitted", reason="a test")
        told(project)
        ours = project.predict("fitted", ROWS)
    assert released.id in described(up, "logged", "fitted")
    assert loaded(up, "fitted")["probability"].tolist() == pytest.approx([one["probability"] for one in ours], abs=1e-6)


def test_a_model_that_was_brought_in_is_a_run_with_its_origin_and_a_version_that_loads(up, tmp_path):
    rows = pd.DataFrame(ROWS).assign(heavy=[int(row["size"] > 0.5) for row in ROWS])
    model = LogisticRegression().fit(rows[["size", "weight"]], rows.heavy)
    with project_of(tmp_path / "project", up.uri, "brought") as project:
        for _ in range(2):
            released = project.release("theirs", from_=model, sample=rows, target="heavy")
        project.deploy("theirs", reason="a test")
        told(project)
        ours = project.predict("theirs", ROWS)
        digest = project.release_show(released.id)["lineage"]["more"]["origin"]["digest"]
    with client_of(up) as client:
        ((run,), _) = seen(client, "brought")
        assert run.data.tags["seatrial.origin"].endswith("LogisticRegression in memory")
        assert run.data.tags["digest"] == digest
        assert run.data.metrics["sample_roc_auc"] == 1.0
        assert run.data.params["C"] == "1.0"
    assert released.id in described(up, "brought", "theirs")
    assert loaded(up, "theirs")["probability"].tolist() == pytest.approx([one["probability"] for one in ours], abs=1e-6)


def described(server, project, model):
    """How MLflow describes the champion, the only version that it has of the model."""
    with client_of(server) as client:
        (version,) = client.search_model_versions(f"name = '{model}'")
        assert client.get_model_version_by_alias(model, "champion").version == version.version
        assert client.get_run(version.run_id).info.experiment_id == client.get_experiment_by_name(project).experiment_id
        return version.description


def loaded(server, model):
    """What the champion that MLflow loads answers."""
    with client_of(server):
        import mlflow

        mlflow.set_tracking_uri(server.uri)
        mlflow.set_registry_uri(server.uri)
        return mlflow.pyfunc.load_model(f"models:/{model}@champion").predict(pd.DataFrame(ROWS))


def test_a_version_that_was_not_released_says_how_it_can_be_loaded(up, tmp_path):
    with project_of(tmp_path / "project", up.uri, "waiting") as project:
        project.train("waiting")
        told(project)
        with client_of(up) as client:
            (version,) = client.search_model_versions("name = 'waiting'")
            assert "seatrial release waiting:1" in version.description
        released = project.release("waiting")
        project.deploy("waiting")
        told(project)
    assert released.id in described(up, "waiting", "waiting")


def test_a_server_that_is_killed_half_way_and_stays_down_is_caught_up_without_doubles(up, tmp_path):
    folder = tmp_path / "project"
    with project_of(folder, "", "halfway") as project:
        for _ in range(4):
            project.train("halfway")
    with project_of(folder, up.uri, "halfway") as project:
        done = threading.Event()

        def kill_when_it_has_begun() -> None:
            store = project.metadata
            while len(store.pending("mlflow")) > 3 and not done.is_set():
                time.sleep(0.005)
            up.kill()

        killer = threading.Thread(target=kill_when_it_has_begun)
        killer.start()
        report = project.mirror()
        done.set()
        killer.join()
        assert report.problem
        assert 0 < report.pending < 4
        # while it is down, nothing waits for it
        _, released = live(project, "halfway")
        assert project.mirror().pending == report.pending + 3  # the run with its version, the release, champion
        up.start()
        told(project)
    with client_of(up) as client:
        runs, versions = seen(client, "halfway")
        assert len({run.data.tags["seatrial.run_id"] for run in runs}) == len(runs) == 5
        assert sorted(int(one.tags["seatrial.version"]) for one in versions) == [1, 2, 3, 4, 5]
        champion = client.get_model_version_by_alias("halfway", "champion")
        assert champion.tags["seatrial.release"] == released.id


def test_a_wrong_address_and_a_server_that_never_answers_block_nothing(tmp_path):
    with socket.socket() as silent:  # takes connections, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        addresses = [f"http://127.0.0.1:{silent.getsockname()[1]}", "http://no-such-host.invalid:5000"]
        for number, uri in enumerate(addresses):
            name = f"alone{number}"
            with project_of(tmp_path / name, uri, name) as project:
                live(project, name)
                assert project.predict(name, ROWS[:1])
                report = project.mirror()
                assert (report.written, report.pending) == (0, 3)
                assert report.problem


class Proxy:
    """Passes requests on to a server. The first answers to runs/create are lost: 500 instead, or nothing for long."""

    def __init__(self, uri: str, *, late: float, lost: int) -> None:
        proxy = self
        self.lost = lost

        class Handler(BaseHTTPRequestHandler):
            def _pass(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or None
                headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                asked = urllib.request.Request(f"{uri}{self.path}", body, headers, method=self.command)
                try:
                    with urllib.request.urlopen(asked, timeout=30) as answer:
                        status, data = answer.status, answer.read()
                except urllib.error.HTTPError as refused:
                    status, data = refused.code, refused.read()
                if self.path.endswith("/runs/create") and proxy.lost:
                    proxy.lost -= 1
                    time.sleep(late)
                    status, data = 500, b"{}"
                with contextlib.suppress(OSError):  # whoever asked has gone
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("late", [0.0, 3.0], ids=["500", "slow"])
def test_a_run_whose_making_was_answered_badly_is_there_once(up, tmp_path, monkeypatch, late):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # of the user; asking again would make another run
    proxy = Proxy(up.uri, late=late, lost=1)
    name = f"once{late:g}"
    metadata = MetadataStore(tmp_path / "metadata.db")
    try:
        with metadata.transaction() as transaction:
            transaction.enqueue(
                "mlflow",
                run_message(
                    "run_1", experiment=name, name=name, started_us=0, ended_us=0, params={}, metrics={"auc": 0.5}
                ),
            )
        first = mirror(metadata, proxy.uri)
        assert (first.written, first.pending) == (0, 1)
        assert mirror(metadata, proxy.uri).written == 1
    finally:
        metadata.close()
        proxy.close()
    with client_of(up) as client:
        ((one,), _) = seen(client, name)
        assert (one.info.status, one.data.metrics) == ("FINISHED", {"auc": 0.5})
