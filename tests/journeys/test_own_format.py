"""A model that has no ONNX form, from training to answers over HTTP: it is scored by a child of the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Project
from seatrial.cli import render
from seatrial.releases.bundle import open_bundle
from seatrial.serving.batch.table import score

pytestmark = pytest.mark.slow

ROWS = 300
HEAVY = {"size": 0.25, "weight": 0.9, "kind": "a"}
PROJECT = """
from seatrial import Deployment, Gate, Model, ParquetSource
from sklearn.ensemble import HistGradientBoostingClassifier

Model(
    "heavy",
    task="binary",
    target="heavy",
    labels=ParquetSource("things.parquet"),
    key=["id"],
    features=["request:size", "request:weight", "request:kind"],
    estimator=HistGradientBoostingClassifier(categorical_features=[2], max_iter=5),
    gates=[Gate.at_least("roc_auc", 0.6)],
    cv_folds=0,
    owner="tests",
    runbook="none",
)
Deployment("heavy")
"""


def things() -> pa.Table:
    kinds = ["abcdefgh"[i % 8] for i in range(ROWS)]
    return pa.table(
        {
            "id": range(ROWS),
            "size": [(i * 7 % ROWS) / ROWS for i in range(ROWS)],
            "weight": [i / ROWS for i in range(ROWS)],
            "kind": kinds,
            "heavy": [(i > ROWS // 2) != (kind in "bdg") for i, kind in enumerate(kinds)],
        }
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    pq.write_table(things(), folder / "things.parquet")
    (folder / "project.py").write_text(PROJECT)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n\n[policy]\napproval = "none"\n')
    with Project(folder) as opened:
        opened.train()
        yield opened


@pytest.fixture(scope="module")
def released(project):
    return project.release()


def test_it_is_released_in_its_own_format_and_says_why(project, released):
    assert released.format == "skops"
    assert "differs by up to" in released.parity["refused"]
    assert released.parity["passed"]
    shown = project.release_show(released.id)
    assert shown["model_format"] == "skops"
    assert shown["cost"] == released.cost
    assert shown["cost"]["start_s"] > 0
    told = "\n".join(block.text for block in render.release(json.loads(json.dumps(shown))) if hasattr(block, "text"))
    assert "not ONNX" in told
    assert "to start" in told


def test_the_same_run_packed_again_is_the_same_release(project, released):
    again = project.release()
    assert (again.id, again.new, again.bytes) == (released.id, False, released.bytes)
    assert project.release_verify(released.id).golden_rows == 200


def test_it_predicts_in_this_process_in_batch_and_over_http_alike(project, released, free_port):
    project.deploy("heavy")
    (here,) = project.predict("heavy", [HEAVY])
    bundle = open_bundle(Path(released.path), project.trusted)
    rows = pa.table({name: [value] * 3 for name, value in HEAVY.items()})
    np.testing.assert_allclose(score(bundle, rows), [here["probability"]] * 3, rtol=0, atol=1e-12)

    server = subprocess.Popen(
        [sys.executable, "-m", "seatrial", "serve", "--port", str(free_port)],
        cwd=project.folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(project.folder)},
        stderr=subprocess.DEVNULL,
    )
    try:
        there = ask(free_port, server)
        assert there["probability"] == here["probability"]
        (child,) = scorers(server.pid)
        assert "sklearn" not in Path(f"/proc/{server.pid}/maps").read_text()
        assert "sklearn" in Path(f"/proc/{child}/maps").read_text()

        os.kill(child, signal.SIGKILL)
        assert ask(free_port, server)["probability"] == here["probability"]
        (child,) = scorers(server.pid)
        server.kill()
        server.wait()
        end = time.monotonic() + 30
        while running(child):
            assert time.monotonic() < end, "the child outlives its server"
            time.sleep(0.05)
    finally:
        server.kill()
        server.wait()


def ask(port, server):
    """The answer for HEAVY, once the server is up."""
    body = json.dumps({"features": HEAVY}).encode()
    end = time.monotonic() + 120
    while True:
        assert server.poll() is None
        try:
            return json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/predict", body, timeout=60).read())
        except (urllib.error.URLError, ConnectionError):
            assert time.monotonic() < end, "the server did not come up"
            time.sleep(0.1)


def scorers(pid):
    """The child processes that score; the one that keeps the log is none."""
    found = [stat.parent for stat in Path("/proc").glob("[0-9]*/stat") if parent_of(stat) == pid]
    return [int(one.name) for one in found if b"seatrial.releases.child" in (one / "cmdline").read_bytes()]


def parent_of(stat):
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
