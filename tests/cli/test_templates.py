"""The project templates: what a new project starts with works, and is in the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial.cli import run
from tests.cli.test_verbs import make
from tests.house.tree import ROOT, SOURCE

TEMPLATES = SOURCE / "templates"
COMMON = TEMPLATES / "common"
PROMISED = """
    .gitattributes .github/workflows/seatrial.yml .gitignore CODEOWNERS docs/runbook.md seatrial.toml tests/conftest.py
    tests/test_data.py tests/test_inference.py tests/test_path.py
""".split()


def files_of(folder: Path) -> list[str]:
    return sorted(
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    )


def run_tests_of(project: Path) -> subprocess.CompletedProcess[str]:
    """The template's own tests, run in the project as its owner would."""
    shutil.copytree(COMMON, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("seatrial.toml", "__pycache__"))
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False)


def test_a_project_gets_what_is_promised():
    assert files_of(COMMON) == sorted(PROMISED)
    assert files_of(TEMPLATES / "empty") == ["project.py"]


@pytest.mark.slow
def test_the_templates_tests_pass_in_a_project_with_a_model(tmp_path):
    done = run_tests_of(make(tmp_path / "project"))
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout
    assert not (tmp_path / "project" / ".seatrial").exists()


def test_in_an_empty_project_they_are_skipped_and_say_why(tmp_path):
    shutil.copytree(TEMPLATES / "empty", tmp_path, dirs_exist_ok=True)
    done = run_tests_of(tmp_path)
    assert done.returncode == 0, done.stdout
    assert "9 skipped" in done.stdout
    assert "project.py declares no Model yet" in done.stdout


def test_the_comments_of_the_empty_project_are_a_working_model(tmp_path, capsys):
    text = (TEMPLATES / "empty" / "project.py").read_text()
    head, body = text.split('"""\n\n')
    (tmp_path / "project.py").write_text(f'{head}"""\n\n' + re.sub(r"(?m)^# ?", "", body))
    (tmp_path / "seatrial.toml").write_text('[stores]\nmlflow = ""\n')
    (tmp_path / "data").mkdir()
    orders, deliveries = orders_and_deliveries(400)
    pq.write_table(orders, tmp_path / "data" / "orders.parquet")
    pq.write_table(deliveries, tmp_path / "data" / "deliveries.parquet")
    for verb in ("validate", "train", "release", "deploy", "materialize"):
        assert run([verb, "--project", str(tmp_path)]) == 0, capsys.readouterr().err
    request = '{"distance": 20.0, "weekday": 2, "weight": 1.0}'
    assert run(["predict", "--project", str(tmp_path), "--request", request]) == 0


def orders_and_deliveries(count: int) -> tuple[pa.Table, pa.Table]:
    """Orders an hour apart, late when their distance is large; each delivered two hours later."""
    start = datetime(2024, 1, 1, tzinfo=UTC)
    ordered = [start + timedelta(hours=i) for i in range(count)]
    delivered = [at + timedelta(hours=2) for at in ordered]
    numbers = range(count)
    distance = [float(i * 37 % 100) for i in numbers]
    orders = pa.table(
        {
            "order_id": [f"o{i}" for i in numbers],
            "ordered_at": ordered,
            "delivered_at": delivered,
            "distance": distance,
            "weekday": [at.isoweekday() for at in ordered],
            "weight": [float(i % 7) for i in numbers],
            "late": [far > 60 for far in distance],
        }
    )
    couriers = [f"c{i % 5}" for i in numbers]
    deliveries = pa.table(
        {"order_id": orders["order_id"], "courier_id": couriers, "delivered_at": delivered, "delay": distance}
    )
    return orders, deliveries


def test_the_workflow_may_little_pins_what_it_uses_and_asks_before_it_deploys():
    workflow = (COMMON / ".github" / "workflows" / "seatrial.yml").read_text()
    assert "permissions:\n  contents: read\n" in workflow
    assert workflow.count("permissions:") == 1
    used = re.findall(r"uses: (\S+)(.*)", workflow)
    assert used
    assert [action for action, version in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []
    assert [action for action, version in used if not re.fullmatch(r" # v\d+\.\d+\.\d+", version)] == []
    deploy = workflow.split("  deploy:\n")[1]
    assert "environment: production" in deploy
    assert "seatrial deploy" in deploy
    assert "seatrial deploy" not in workflow.split("  deploy:\n")[0]


@pytest.mark.parametrize("page", [COMMON / "docs" / "runbook.md", ROOT / "docs" / "cli.md"])
def test_every_command_that_a_page_names_exists(page):
    from seatrial.cli import catalogue
    from seatrial.cli.nouns import NOUNS

    named = re.findall(r"(?:`|^    )seatrial ([a-z]+)(?: ([a-z]+))?", page.read_text(), flags=re.MULTILINE)
    assert named
    for first, second in named:
        if first in dict(catalogue.NOUNS):
            assert second in NOUNS[first].commands or not second, (first, second)
        else:
            assert first in catalogue.all_verbs() or first == "trian", first


def test_the_wheel_holds_every_template_file_with_its_dots(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name.removeprefix("seatrial/templates/") for name in zipfile.ZipFile(wheel).namelist()}
    assert {f"common/{name}" for name in files_of(COMMON)} <= held
    assert "empty/project.py" in held
    assert "flights/project.py" in held


def test_what_init_writes_names_routes_as_the_docs_do():
    text = (ROOT / "src" / "seatrial" / "templates" / "common" / "seatrial.toml").read_text()
    assert "# [routes]" in text
    assert "webhook:" not in text
