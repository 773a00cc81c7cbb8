"""The kept log: what `seatrial serve` answered is in the object store when the command has ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seatrial.releases.signing import KEY_FILE, signing_key
from seatrial.serving.clients.client import Client
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.worlds import GOOD, bundle
from tests.stores.test_log_keeper import until


@pytest.fixture
def home(tmp_path):
    """A folder without a project file, with a bundle and the key that signed it."""
    (tmp_path / "late.seatrial").write_bytes(bundle(signing_key(tmp_path / ".seatrial" / "keys")))
    assert (tmp_path / ".seatrial" / "keys" / KEY_FILE).exists()
    return tmp_path


@contextmanager
def serving(home: Path, *words: str, **settings: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = ["-m", "seatrial", "serve", "--bundle", str(home / "late.seatrial"), "--port", "0", "--json", *words]
    command += ["--project", str(home)]
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    )
    try:
        said = "".join(process.stdout.readline() for _ in range(3))
        assert said, process.stderr.read()
        yield process, json.loads(said)["url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def the_log(home: Path) -> PredictionLog:
    return PredictionLog(home / ".seatrial" / "log", objects=ObjectStore(home / ".seatrial" / "objects"))


def found(home: Path) -> list[str]:
    return the_log(home).rows(columns=["prediction_id"])["prediction_id"].to_pylist()


def metric(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics") as page:
        (line,) = [line for line in page.read().decode().splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def test_the_rest_is_shipped_before_the_command_ends(home):
    with serving(home) as (process, url):
        with Client(url) as client:
            answered = [client.predict(GOOD)["prediction_id"] for _ in range(20)]
        assert metric(url, "seatrial_unshipped_records") == 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert the_log(home).unshipped() == 0
    assert not list((home / ".seatrial" / "log").rglob("*.parquet"))
    assert found(home) == answered


def test_what_a_killed_server_answered_is_shipped_all_the_same(home):
    with serving(home) as (process, url):
        with Client(url) as client:
            answered = [client.predict(GOOD)["prediction_id"] for _ in range(20)]
        process.kill()
        process.wait()
        until(lambda: the_log(home).unshipped() == 0)
    assert found(home) == answered


def test_of_two_workers_every_answer_is_shipped_though_their_supervisor_was_killed(home):
    with serving(home, "--workers", "2") as (process, url):
        with Client(url) as client:
            answered = [client.predict(GOOD)["prediction_id"] for _ in range(20)]
        process.kill()
        process.wait()
        until(lambda: the_log(home).unshipped() == 0)
    assert sorted(found(home)) == sorted(answered)


@pytest.mark.long  # ten seconds of waiting
def test_an_object_store_that_takes_nothing_is_said_at_the_end_and_nothing_is_lost(home):
    (home / ".seatrial" / "objects").write_text("in the way")
    with serving(home) as (process, url):
        with Client(url) as client:
            answered = [client.predict(GOOD)["prediction_id"] for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert "3 predictions are not shipped" in said
    assert "Traceback" not in said
    (home / ".seatrial" / "objects").unlink()
    assert found(home) == answered
    with serving(home) as (process, url):
        assert metric(url, "seatrial_unshipped_records") in (0, 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert the_log(home).unshipped() == 0
    assert found(home) == answered


def test_a_log_that_is_not_to_be_shipped_is_compacted_only(home):
    with serving(home, SEATRIAL_LOG_SHIP="never") as (process, url):
        with Client(url) as client:
            answered = [client.predict(GOOD)["prediction_id"]]
        with urllib.request.urlopen(f"{url}/metrics") as page:
            assert b"seatrial_unshipped_records" not in page.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert len(list((home / ".seatrial" / "log").rglob("*.parquet"))) == 1
    assert not (home / ".seatrial" / "objects").exists()
    assert found(home) == answered


@pytest.mark.parametrize("value", ["soon", "0s", ""])
def test_a_time_to_ship_that_cannot_be_read_is_refused(home, value):
    words = [sys.executable, "-m", "seatrial", "status", "--project", str(home)]
    done = subprocess.run(words, env=os.environ | {"SEATRIAL_LOG_SHIP": value}, capture_output=True, text=True)
    assert done.returncode == 2
    assert "log_ship" in done.stderr
