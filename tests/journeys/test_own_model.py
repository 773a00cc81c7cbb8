"""docs/own_model.md, done as it is written: its files are written out and its commands are run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "own_model.md"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> tuple[Path, list[str]]:
    """The page's folder after its commands ran, and what the last command printed."""
    folder = tmp_path_factory.mktemp("own_model")
    text = PAGE.read_text()
    for name, code in re.findall(r"```python\n# (\S+\.py)\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(code)
    (folder / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    commands = re.search(r"```sh\n(python get_rows.*?)```", text, re.DOTALL).group(1).strip().splitlines()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    printed = []
    for command in commands:
        words = shlex.split(command)
        if words[1] == "predict":
            words.append("--json")
        done = subprocess.run(
            words, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
    return folder, printed


def test_the_model_is_one_file_of_thirty_lines_without_a_view(project):
    code = (project[0] / "project.py").read_text()
    assert len(code.strip().splitlines()) <= 30
    assert "feature_view" not in code


def test_its_commands_end_with_a_prediction_that_is_logged(project):
    folder, printed = project
    (answer,) = json.loads(printed[-1])
    assert answer["prediction"] in (0, 1)
    assert 0 < answer["probability"] < 1
    assert answer["model_version"] == "1"
    assert list((folder / ".seatrial" / "log").rglob("*"))


def test_a_model_without_views_makes_no_online_store(project):
    assert not (project[0] / ".seatrial" / "online.db").exists()
