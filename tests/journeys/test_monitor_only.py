"""A log from elsewhere is monitored: by its example, in three commands, without a project."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from seatrial.core.clock import parse_time, to_us
from seatrial.monitoring.imported import monitor_log
from tests.house.tree import ROOT

EXAMPLE = ROOT / "examples" / "adopt" / "monitor_only"
NOW = "2026-03-30T12:00:00Z"


def module(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("monitor_only")
    module("make_log").main(path)
    for name in ("columns.toml", "served.toml"):
        (path / name).write_bytes((EXAMPLE / name).read_bytes())
    return path


def report(folder: Path, at: str = NOW):
    return monitor_log(
        folder / "predictions.parquet",
        folder / "columns.toml",
        folder / "reference.parquet",
        as_of_us=to_us(parse_time(at)),
    )


def test_the_week_of_the_new_device_is_found(folder):
    found = report(folder)
    assert found.window == "2026-03-23T00:00:00Z/2026-03-30T00:00:00Z"
    assert found.verdict == "act"
    assert [one.name for one in found.drift.columns if one.drifted] == ["mean_texture"]
    assert {one.metric: one.state for one in found.alarms}["recall"] == "fired"
    assert found.owner == "radiology"


def test_the_week_before_is_quiet(folder):
    found = report(folder, "2026-03-23T00:00:00Z")
    assert found.verdict == "ok", found.headline
    assert {one.state for one in found.alarms} == {"quiet"}


def test_labels_that_were_not_known_yet_do_not_count(folder):
    found = report(folder, "2026-03-03T00:00:00Z")
    assert 0 < found.performance.labelled < found.performance.rows / 2
    assert found.verdict == "unknown"


def test_the_commands_of_the_readme_run(folder):
    commands = re.findall(
        r"^seatrial (monitor --log predictions.*?)$", (EXAMPLE / "README.md").read_text(), re.MULTILINE
    )
    assert len(commands) == 2
    before = {path.name for path in folder.iterdir()}
    for command in commands:
        done = subprocess.run(
            [sys.executable, "-m", "seatrial", *command.split()],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("ACT: ")
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}
    assert "<h1>" in (folder / "report.html").read_text(encoding="utf-8")
    plain = subprocess.run(
        [sys.executable, "-m", "seatrial", "--json", *commands[0].split()], cwd=folder, capture_output=True, check=True
    )
    assert json.loads(plain.stdout)["verdict"] == "act"


def test_three_lines_in_a_handler_write_a_log_that_can_be_monitored(folder, monkeypatch):
    monkeypatch.chdir(folder)
    service = module("service")
    answers = [service.predict({"mean_radius": 10.0 + n % 20, "mean_texture": 18.0}) for n in range(300)]
    service.log.close()
    assert len({one["prediction_id"] for one in answers}) == 300
    source = (EXAMPLE / "service.py").read_text()
    assert len(re.findall(r"# \d$", source, re.MULTILINE)) == 3
    found = monitor_log(folder / "log", folder / "served.toml", as_of_us=to_us(parse_time("2100-01-01T00:00:00Z")))
    assert found.performance.rows == 300
    said = sum(day.rows * day.mean_score for day in found.performance.days if day.rows)
    assert said == pytest.approx(sum(one["p_malignant"] for one in answers))
    assert any("the log ends" in one for one in found.findings)
    (command,) = re.findall(r"^seatrial (monitor .*)$", service.__doc__, re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-m", "seatrial", *command.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "data are broken" in done.stdout) == (0, False), done.stdout + done.stderr
