"""The exported container without an engine: its requirements in an empty environment, its command as it stands."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Deployment, Gate, Model, ParquetSource, Project

ROWS = 400


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The build folder of a small model's release."""
    folder = tmp_path_factory.mktemp("project")
    size = [(i * 7 % ROWS) / ROWS for i in range(ROWS)]
    table = pa.table({"id": range(ROWS), "size": size, "weight": [i / ROWS for i in range(ROWS)]})
    heavy = [i > ROWS // 2 for i in range(ROWS)]
    pq.write_table(table.append_column("heavy", pa.array(heavy)), folder / "things.parquet")
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=ParquetSource("things.parquet"),
        key=["id"],
        features=["request:size", "request:weight"],
        estimator="lightgbm.LGBMClassifier",
        params={"n_estimators": 5},
        gates=[Gate.at_least("roc_auc", 0.6)],
        owner="tests",
        runbook="none",
    )
    with Project(folder, definitions=[model, Deployment("heavy")]) as project:
        project.train()
        project.release()
        project.export_docker("heavy", folder / "docker")
    return folder / "docker"


@pytest.fixture(scope="module")
def installed(image, tmp_path_factory) -> Path:
    """What the Dockerfile's RUN and COPY lines make, in a folder that stands for /app, with a venv for its Python."""
    app = tmp_path_factory.mktemp("app")
    uv = Path(sys.executable).parent / "uv"
    python = app / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, app / "venv"], check=True)
    wheel = next(image.glob("*.whl"))
    for what in (["--requirements", image / "requirements.txt"], ["--no-deps", wheel]):
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *what], check=True)
    (app / ".seatrial" / "keys").mkdir(parents=True)
    shutil.copytree(image / "keys", app / ".seatrial" / "keys" / "trusted")
    shutil.copyfile(image / "release.seatrial", app / "release.seatrial")
    return app


def command(image: Path, app: Path, port: int) -> list[str]:
    """The image's CMD, with /app where it lies here and a port that is free."""
    words = ast.literal_eval(re.findall(r"^CMD (\[.*\])$", (image / "Dockerfile").read_text(), re.MULTILINE)[-1])
    return [word.replace("/app", str(app)).replace("8000", str(port)) for word in words]


def test_the_image_holds_nothing_that_trains(installed):
    packages = {path.name.split("-")[0].lower() for path in (installed / "venv").rglob("*.dist-info")}
    assert "onnxruntime" in packages
    assert not packages & {"scikit_learn", "lightgbm", "mlflow_skinny", "pandas", "onnx", "skl2onnx"}


def test_its_command_answers_is_healthy_and_stops_on_sigterm(image, installed, free_port):
    environment = {"PATH": f"{installed / 'venv' / 'bin'}{os.pathsep}{os.defpath}", "HOME": str(installed)}
    process = subprocess.Popen(
        command(image, installed, free_port), cwd=installed, env=environment, stderr=subprocess.PIPE, text=True
    )
    url = f"http://127.0.0.1:{free_port}"
    try:
        assert json.loads(_get(process, f"{url}/health"))["live"] is True
        assert json.loads(_get(process, f"{url}/ready"))["ready"] is True
        body = json.dumps({"features": {"size": 0.25, "weight": 0.9}}).encode()
        answer = json.loads(urllib.request.urlopen(urllib.request.Request(f"{url}/predict", body), timeout=10).read())
        assert answer["prediction"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.stderr.close()
    assert list((installed / ".seatrial" / "log").rglob("*.log")) or list((installed / ".seatrial" / "log").rglob("*"))


def _get(process: subprocess.Popen[str], url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None, process.stderr.read()
        try:
            return urllib.request.urlopen(url, timeout=5).read().decode()
        except urllib.error.URLError:
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.1)
