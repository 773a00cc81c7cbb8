"""The mirror on a real `mlflow server`: what it shows, that its models answer like ours, and that it may be away."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import warnings
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from seatrial import Project
from tests.cli.test_verbs import make
from tests.servers import free_port

pytestmark = pytest.mark.needs("mlflow")
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
