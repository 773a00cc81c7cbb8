"""The flights project, made once for every journey on it: from raw tables to an April that was served over HTTP."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from seatrial import Project
from seatrial.core.errors import NotAllowed
from seatrial.core.windows import parse_window
from seatrial.data.expectations import DataRefused
from seatrial.testing import FakeClock

MIDNIGHT = datetime(2013, 4, 1, 4, tzinfo=UTC)  # of 1 April in New York
APRIL = parse_window("2013-04-01T04:00:00Z/2013-05-01T04:00:00Z")
RULE = 'set_aside=[SetAside(where="wind_speed > 150", reason="beyond any wind measured on the ground")],'
ENGINEER, REVIEWER = "engineer", "reviewer"


@dataclass
class Journey:
    folder: Path
    project: Project
    refused: DataRefused
    written_before_the_rule: list[str]
    taken: list[Any]
    again: list[Any]
    materialized: list[Any]
    repeated: list[Any]
    trained: Any
    released: Any
    repacked: Any
    not_approved: NotAllowed
    own_approval: NotAllowed
    approved: Any
    deployed: Any
    pages: dict[str, str]
    replayed: Any
    commit: str
    twin: Path
    """The folder as it was after April, for whoever goes on from there."""


def journey(folder: Path) -> Journey:
    """Make the project in `folder` and take it through April. A second person approves what goes live."""
    Project.init(folder, "flights").close()
    file = folder / "project.py"
    text = file.read_text()
    assert RULE in text
    file.write_text(text.replace(RULE, "set_aside=[],"))
    with Project(folder) as project, pytest.raises(DataRefused) as refused:
        project.snapshot()
    before = sorted(path.name for path in (folder / ".seatrial").rglob("*") if path.is_file())
    file.write_text(text)
    (folder / "seatrial.toml").write_text('[webhooks]\nops = "${OPS_WEBHOOK}"\n\n[alerts]\ninternal = ["127.0.0.1"]\n')
    commit = committed(folder)

    project = opened(folder, MIDNIGHT, mirrored=True)
    taken, again = project.snapshot(), project.snapshot()
    materialized, repeated = project.materialize(), project.materialize()
    trained = project.train("late")
    released = project.release("late", parity_window=APRIL)
    repacked = project.release("late")
    with pytest.raises(NotAllowed) as not_approved:
        project.deploy("late")
    with pytest.raises(NotAllowed) as own_approval:
        project.approve("late", reason="every gate passed")
    project.actor = REVIEWER
    approved = project.approve("late", reason="every gate passed")
    project.actor = ENGINEER
    deployed = project.deploy("late")
    with served(folder, "--replay") as (_, url):
        pages = {name: page(f"{url}/{name}") for name in ("health", "ready", "openapi.json", "docs")}
        replayed = project.replay("late", APRIL, url=url)
        pages["metrics"] = page(f"{url}/metrics")
    project.close()
    copied = twin(folder, folder.with_name("twin"))
    return Journey(
        folder, opened(folder, MIDNIGHT, mirrored=True), refused.value, before, taken, again, materialized, repeated,
        trained, released, repacked, not_approved.value, own_approval.value, approved, deployed, pages, replayed,
        commit, copied,
    )  # fmt: skip


def opened(
    folder: Path, at: datetime, *, actor: str = ENGINEER, approval: str = "required", mirrored: bool = False
) -> Project:
    """The project, at a time of the domain. mirrored: MLflow is told of what is trained, as by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEATRIAL_POLICY_APPROVAL", approval)
        if mirrored:
            patch.delenv("SEATRIAL_STORES_MLFLOW", raising=False)
        return Project(folder, clock=FakeClock(at), actor=actor)


def twin(folder: Path, to: Path) -> Path:
    """A copy of a project's folder that nobody has open: what is written once is shared, the rest is copied."""

    def shared(source: str, target: str) -> None:
        (os.link if source.endswith((".parquet", ".seatrial")) else shutil.copy2)(source, target)

    return Path(shutil.copytree(folder, to, copy_function=shared))


def committed(folder: Path) -> str:
    """Commit the folder in a git repository of its own; the commit."""
    name = {f"GIT_{role}_{part}": "tests" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "The flights project"]):
        subprocess.run(["git", "-C", str(folder), *words], env={**os.environ, **name}, check=True)
    head = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return head.stdout.strip()


@contextmanager
def served(folder: Path, *options: str):
    """A server process of the project; (process, address)."""
    command = [sys.executable, "-m", "seatrial", "--project", str(folder), "serve", "--port", "0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if "http://" in line)
        yield process, line[line.find("http://") :].strip().strip('",}')
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()
