"""A team comes with a notebook, or with a script: the shipped examples, run as their pages say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from seatrial import Project
from tests.house.tree import ROOT

EXAMPLES = ROOT / "examples" / "adopt"


def commit(folder: Path) -> None:
    name = {f"GIT_{role}_{part}": "tests" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "A model"]):
        subprocess.run(["git", "-C", str(folder), *words], env={**os.environ, **name}, check=True)


@pytest.mark.filterwarnings("ignore")  # what Jupyter's own libraries say of each other
@pytest.mark.parametrize("saved", [False, True])
def test_the_shipped_notebook_runs_and_is_released_only_from_a_commit(tmp_path, saved):
    shutil.copy(EXAMPLES / "notebook.ipynb", tmp_path)
    if saved:
        commit(tmp_path)
    notebook = nbformat.read(tmp_path / "notebook.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [cell.outputs[-1].data for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]
    assert all("<table" in data["text/html"] for data in shown[1:3])
    last = " ".join(map(str, shown[-1].values()))
    with Project(tmp_path) as project:
        fit, tracked = project.runs()
        cells = json.loads(project.objects.read(project.run_show(fit["run"])["files"]["cells.json"]))
        assert "HistGradientBoostingClassifier(max_iter=50" in cells[0]
        assert [step for step, _ in project.run_show(tracked["run"])["series"]["accuracy"]] == [2, 4, 8]
        assert len(project.releases()) == saved
    assert ("churn 1.0.0" if saved else "in no commit") in last


def test_the_script_of_from_notebook_becomes_a_release_when_it_is_committed(tmp_path):
    shutil.copy(EXAMPLES / "from_notebook" / "train.py", tmp_path)
    commit(tmp_path)
    words = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
    run = subprocess.run([sys.executable, "train.py"], **words).stdout.split()[0]
    with Project(tmp_path) as project:
        done = project.release(run)
        project.deploy("churn")
        answer = project.predict("churn", [{"age": 30, "income": 41.5, "visits": 2}])[0]
    assert done.semantic_version == "1.0.0"
    assert 0 < answer["probability"] < 1
