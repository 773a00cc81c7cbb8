"""A team comes with a notebook, or with a script: the shipped examples, run as their pages say."""

from __future__ import annotations

import ast
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from seatrial import Project
from tests.house.tree import ROOT
from tests.journeys.worlds import served
from tests.servers import free_port

pytestmark = pytest.mark.slow

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


def commands(example: str) -> list[str]:
    """Every command of an example's README, in order."""
    blocks = re.findall(r"```console\n(.*?)```", (EXAMPLES / example / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.strip().splitlines()]


def shell(folder: Path, lines: list[str], **more: str) -> str:
    """What these commands print, run as they are, one after the other in one shell that ends at the first failure."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_WORKERS": "1"}
    own = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            ["bash", "-e", "-o", "pipefail", "-c", "\n".join(lines)],
            cwd=folder,
            env=own | quiet | {"PATH": path} | more,
            stdout=out,
            stderr=said,
            start_new_session=True,
        )
        try:
            ended = process.wait(timeout=240)
        finally:  # also what it started in the background
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        said.seek(0)
        printed = out.read()
        assert ended == 0, f"{printed}\n{said.read()}"
    return printed


def serves(folder: Path, command: str) -> None:
    """A command that serves answers over HTTP, on a port of its own."""
    assert command == "seatrial serve"
    with served(folder) as (_, url):
        body = json.dumps({"features": {"age": 30, "income": 41.5, "visits": 2}}).encode()
        asked = urllib.request.Request(f"{url}/models/churn/predict", body, method="POST")
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert 0 < json.loads(answer.read())["probability"] < 1


@pytest.mark.needs("mlflow")
def test_every_command_of_from_mlflow_does_what_its_page_says(tmp_path):
    shutil.copy(EXAMPLES / "from_mlflow" / "train.py", tmp_path)
    *lines, last = commands("from_mlflow")
    port = str(free_port())
    printed = shell(tmp_path, [line.replace("5000", port) for line in lines])
    with Project(tmp_path) as project:
        (release,) = project.releases("churn")
        origin = project.release_show(release["release"])["lineage"]["more"]["origin"]
        assert (origin["from"], origin["opened"]) == ("mlflow:models:/churn/1", "apart")
        assert project.status()[0].live == "1"
    assert "probability" in printed
    serves(tmp_path, last)


def test_every_command_of_from_notebook_does_what_its_page_says(tmp_path):
    shutil.copy(EXAMPLES / "from_notebook" / "train.py", tmp_path)
    lines = commands("from_notebook")
    place = lines.index("python train.py") + 1
    name = {f"GIT_{role}_{part}": "tests" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    run = shell(tmp_path, lines[:place], **name).split()[-1]
    assert run.startswith("run_")
    printed = shell(tmp_path, [line.replace("RUN", run) for line in lines[place:]], **name)
    assert run[:12] in printed
    with Project(tmp_path) as project:
        (release,) = project.releases("churn")
        assert project.release_show(release["release"])["lineage"]["run"] == run
        assert project.release_show(release["release"])["lineage"]["commit"]
        assert project.status()[0].live == "1"
    assert "probability" in printed


def test_without_the_commit_the_release_says_what_is_missing(tmp_path):
    shutil.copy(EXAMPLES / "from_notebook" / "train.py", tmp_path)
    lines = commands("from_notebook")
    run = shell(tmp_path, ["python train.py"]).split()[0]
    with pytest.raises(AssertionError, match="in no git repository"):
        shell(tmp_path, [lines[-3].replace("RUN", run)])


def changed_lines(before: Path, after: Path) -> list[str]:
    """The lines that were taken out or put in, of the code alone."""
    one, two = (ast.unparse(ast.parse(path.read_text()).body[1:]).splitlines() for path in (before, after))
    return [line for line in difflib.ndiff(one, two) if line[:2] in ("- ", "+ ")]


def test_every_command_of_behind_my_fastapi_does_what_its_page_says(tmp_path):
    example = EXAMPLES / "behind_my_fastapi"
    shutil.copytree(example, tmp_path, dirs_exist_ok=True)
    port = str(free_port())
    printed = shell(tmp_path, [line.replace("8000", port) for line in commands("behind_my_fastapi")])
    assert "churn_risk" in printed
    assert printed.count("churn 1.0.0") == 1
    (report,) = re.findall(r"^(ACT|WATCH|OK): (.*)", printed, re.MULTILINE)
    assert report[0] == "WATCH"
    assert "'age' moved" in report[1]
    assert "400 predictions; 100 % of their labels have arrived" in printed
    assert len(changed_lines(example / "before.py", example / "service.py")) < 30
    script = """
import before, service
for age in (18, 40, 79):
    told = [one.advise(str(7), one.Customer(age=age, income=51.5, visits=3)) for one in (before, service)]
    assert abs(told[0].churn_risk - told[1].churn_risk) < 1e-5, told
    assert (told[0].number, told[0].call) == (told[1].number, told[1].call), told
"""
    shell(tmp_path, [f"python -W ignore -c '{script}'"])
