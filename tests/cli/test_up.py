"""`seatrial up`: the server and what runs by itself, in one command that survives what happens to its parts."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seatrial import Project
from seatrial.scheduling.metering import memory_below
from tests.verbs.test_scheduled import command, project_at

MOST_IDLE = 300_000_000
"""Bytes; 175 million of 5 processes were measured."""


def started(folder, *words):
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "SEATRIAL_STORES_MLFLOW": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "seatrial", "--project", str(folder), "up", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        text=True,
    )


def until(true, seconds=60):
    deadline = time.time() + seconds
    while not true():
        assert time.time() < deadline
        time.sleep(0.1)


def children(pid):
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_up_serves_runs_what_is_due_restarts_what_is_killed_and_ends_with_sigterm(tmp_path):
    made = project_at(tmp_path / "p", 'Schedule("materialize", every="2s", retries=0)\n')
    port = free_port()
    up = started(made, "--port", str(port), "--log", "json")
    line = up.stderr.readline()
    while "Serving at" not in line:
        assert line, up.wait(10)
        line = up.stderr.readline()
    with Project(made) as project:
        until(lambda: any(job.state == "done" for job in project.schedule_history()))
        (control, server) = children(up.pid)
        assert project.schedule_show("materialize").run_by == [f"{socket.gethostname()}:{control}"]
        again = started(made, "--port", str(port), "--only", "server")
        _, err = again.communicate(timeout=60)
        assert again.returncode == 6
        assert f"{port}" in err  # it says that the port is taken
        os.kill(control, signal.SIGKILL)
        until(lambda: len(children(up.pid)) == 2 and children(up.pid)[1] != server)
        count = len(project.schedule_history(limit=None))
        until(lambda: len(project.schedule_history(limit=None)) > count)
        up.send_signal(signal.SIGTERM)
        _, err = up.communicate(timeout=60)
        assert up.returncode == 0
        assert "The control process was ended by SIGKILL; it is started again." in err
        assert "materialize: done in" in err
        assert not any(job.state == "running" for job in project.schedule_history(limit=None)[-1:])
        assert project.schedule_show("materialize").run_by == []


def test_without_schedules_it_says_that_nothing_runs_by_itself(tmp_path):
    up = started(project_at(tmp_path / "p", ""), "--port", "0")
    line = up.stderr.readline()
    assert line == "No schedule is declared: nothing runs by itself.\n"
    while "Serving at" not in line:
        assert line
        line = up.stderr.readline()
    until(lambda: len(children(up.pid)) == 2)
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=60)
    assert up.returncode == 0


def test_killed_itself_it_takes_its_parts_along(tmp_path):
    up = started(project_at(tmp_path / "p", 'Schedule("materialize", every="1h")\n'), "--port", "0")
    while "Serving at" not in up.stderr.readline():
        assert up.poll() is None
    parts = children(up.pid)
    assert len(parts) == 2
    up.kill()
    up.wait(10)
    until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in parts))
    up.communicate(timeout=60)


@pytest.mark.slow
def test_the_memory_of_an_idle_up_is_read_beside_it_and_told_by_status(tmp_path, capsys):
    """It is read every ten seconds, from the second reading on, and kept when it ends."""
    made = project_at(tmp_path / "p", 'Schedule("materialize", every="1h")\n')
    up = started(made, "--port", str(free_port()))
    while "Serving at" not in up.stderr.readline():
        assert up.poll() is None
    until(lambda: len(children(up.pid)) == 2)
    time.sleep(30)
    seen, processes = memory_below(up.pid)
    up.send_signal(signal.SIGTERM)
    up.communicate(timeout=60)
    assert up.returncode == 0
    code, out, _ = command(made, "status", "--cost", "--json", capsys=capsys)
    assert code == 0
    (idle,) = [one for one in json.loads(out)["figures"] if one["of"] == "an idle `seatrial up`"]
    assert idle["value"] == pytest.approx(seen, rel=0.2)
    assert f"memory of its {processes} processes" in idle["words"]
    assert idle["value"] < MOST_IDLE


def test_what_is_wrong_with_a_schedule_ends_up_before_anything_is_served(tmp_path, capsys):
    made = project_at(tmp_path / "p", 'Schedule("monitor", "laet", every="1h")\n')
    up = started(made, "--port", "0")
    _, err = up.communicate(timeout=60)
    assert up.returncode == 2
    assert "Did you mean 'late'?" in err
    assert "Serving" not in err
    assert command(made, "up", "--at", "2024-01-01T00:00:00Z", capsys=capsys)[0] == 2
