"""A release that another process scores keeps nobody else waiting: not when it thinks, not when it was killed."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pytest

from seatrial.core.signature import Signature
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan
from seatrial.releases.bundle import pack
from seatrial.releases.supervised import SupervisedRuntime
from seatrial.serving.clients.client import Client
from seatrial.serving.meters.metrics import Metrics
from seatrial.serving.scoring import queue
from seatrial.serving.scoring.predictor import Predictor, Release, Share
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
from seatrial.stores.routes import Arm, RouteFile, RouteStore
from tests.releases.factories import INPUTS, crashing, manifest_and_files, own_format
from tests.serving.workers.test_supervisor import serving
from tests.serving.worlds import Keys, server

pytestmark = pytest.mark.slow

ROW = dict.fromkeys(INPUTS, 1.0)
LONG = 60.0


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two deployments of one model: `quick` answers with ONNX, `child` with scikit-learn in a process of its own."""
    home = tmp_path_factory.mktemp("world")
    keys, objects, routes = Keys(home / "keys"), ObjectStore(home / "objects"), RouteStore(home / "routes")
    for name, (manifest, files) in (("quick", manifest_and_files()), ("child", own_format("hist"))):
        data = pack(msgspec.structs.replace(manifest, plan=FeaturePlan()), files, keys.key)
        objects.put(f"releases/{name}.seatrial", data)
        arm = Arm("live", keys.open(data).id, 10_000, f"releases/{name}.seatrial")
        routes.write(RouteFile(name, 1, "late", "salt", (arm,)), keys.sign, keys.verify)
    with server(home) as (process, url):
        until(lambda: get(url, "/ready")[0] == 200)
        yield home, process, url


def ask(url: str, name: str) -> tuple[int, dict[str, str], dict]:
    return get(url, f"/models/{name}/predict", json.dumps({"features": ROW}))


def get(url: str, path: str, body: str | None = None) -> tuple[int, dict[str, str], dict]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=LONG)
    try:
        connection.request("GET" if body is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def until(reached):
    end = time.monotonic() + LONG
    while not (found := reached()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.002)
    return found


def child_of(pid: int, *, other_than: int = 0) -> int | None:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z" and int(stat.parent.name) != other_than:
            return int(stat.parent.name)
    return None


@contextmanager
def asked_all_the_time(url: str, name: str):
    """Ask a deployment and /health one after the other in a thread of its own; what they answered."""
    answers, done = [], threading.Event()

    def go_on():
        with Client(url) as client:
            while not done.is_set():
                answers.append((client.predict(ROW, model=name)["prediction_id"], client.get("/health")))

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield answers
    finally:
        done.set()
        thread.join()


def some_more(answers: list) -> None:
    """Return when 10 further answers came: well before a child is given up for being silent, which takes 5 s."""
    wanted = len(answers) + 10
    until(lambda: len(answers) >= wanted)


def test_a_prediction_that_takes_long_keeps_only_its_own_release_waiting(world):
    _, process, url = world
    child = child_of(process.pid)
    with asked_all_the_time(url, "quick") as answers, ThreadPoolExecutor(3) as pool:
        os.kill(child, signal.SIGSTOP)
        try:
            slow = [pool.submit(ask, url, "child") for _ in range(3)]
            some_more(answers)
            assert not any(one.done() for one in slow)
        finally:
            os.kill(child, signal.SIGCONT)
        assert [one.result()[0] for one in slow] == [200, 200, 200]


def test_a_killed_child_is_started_again_while_everything_else_is_answered(world):
    home, process, url = world
    child = child_of(process.pid)
    with asked_all_the_time(url, "quick") as answers, ThreadPoolExecutor(3) as pool:
        some_more(answers)
        os.kill(child, signal.SIGKILL)
        asked = [pool.submit(ask, url, "child") for _ in range(3)]
        again = until(lambda: child_of(process.pid, other_than=child))
        os.kill(again, signal.SIGSTOP)  # so that the start lasts until it was looked at
        try:
            some_more(answers)
            refused = [one.result() for one in asked]
            some_more(answers)
        finally:
            os.kill(again, signal.SIGCONT)
        assert {(status, document["code"]) for status, _, document in refused} == {(503, "runtime.child_restarting")}
        assert all(int(headers["retry-after"]) >= 1 for _, headers, _ in refused)
        until(lambda: ask(url, "child")[0] == 200)
        assert child_of(process.pid) == again
    logged = set(PredictionLog(home / "log").rows(columns=["prediction_id"])["prediction_id"].to_pylist())
    assert {id for id, _ in answers} <= logged


def test_requests_on_one_connection_are_answered_in_their_order(world):
    _, _, url = world
    host, _, port = urlsplit(url).netloc.partition(":")
    ids = [f"number {number}" for number in range(12)]
    sent = b""
    for number, id in enumerate(ids):
        body = json.dumps({"features": ROW, "request_id": id}).encode()
        name = "child" if number % 3 else "quick"
        sent += (
            f"POST /models/{name}/predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )
    with socket.create_connection((host, int(port)), timeout=LONG) as connection:
        connection.sendall(sent)
        found = b""
        while found.count(b"prediction_id") < len(ids):
            found += connection.recv(65536)
    places = [found.index(id.encode()) for id in ids]
    assert places == sorted(places)


def test_a_request_that_kills_its_child_twice_is_refused_and_the_next_is_answered(monkeypatch):
    monkeypatch.setattr(queue, "RESTART_SECONDS", LONG)
    native, kills, good = crashing()
    runtime = SupervisedRuntime(native.format, native.data, native.task, 1)
    signature = Signature("binary", (Field("age", "float"),), ("age",))
    release = Release("rel_1", "late", "1", signature, FeaturePlan(), runtime.score_now, elsewhere=True)
    predictor = Predictor("late", [Share("live", release)], metrics=Metrics(), log=None)

    async def answers(*rows):
        waiting = queue.Queue()
        bodies = [json.dumps({"features": {"age": float(row[0, 0])}}).encode() for row in rows]
        return [(await waiting.draft(predictor, body, "")).answer for body in bodies]

    bad, fine = asyncio.run(answers(kills, good))
    assert (bad.status, json.loads(bad.body)["code"]) == (503, "runtime.child_unavailable")
    assert fine.status == 200
    assert predictor.handle(json.dumps({"features": {"age": float(kills[0, 0])}}).encode()).status == 503
    assert predictor.handle(json.dumps({"features": {"age": float(good[0, 0])}}).encode()).status == 200
    runtime.close()


def test_more_than_it_can_hold_and_what_waits_too_long_is_refused_and_told_when_to_come_back(monkeypatch):
    monkeypatch.setattr(queue, "MOST_WAITING", 2)
    monkeypatch.setattr(queue, "LONGEST_SECONDS", 0.05)
    go_on = threading.Event()

    def score(rows):
        go_on.wait(LONG)
        return np.full(len(rows), 0.5)

    signature = Signature("binary", (Field("age", "float"),), ("age",))
    release = Release("rel_1", "late", "1", signature, FeaturePlan(), score, elsewhere=True)
    predictor = Predictor("late", [Share("live", release)], metrics=Metrics(), log=None)

    async def answers():
        waiting = queue.Queue()
        drafts = await asyncio.gather(*(waiting.draft(predictor, b'{"features": {"age": 1}}', "") for _ in range(3)))
        go_on.set()
        return [draft.answer for draft in drafts]

    found = asyncio.run(answers())
    assert {(one.status, json.loads(one.body)["code"], one.retry_after) for one in found} == {
        (503, "serving.too_busy", 1)
    }


def test_each_worker_has_a_child_of_its_own_and_tells_what_it_takes(world, tmp_path):
    for name in ("keys", "objects", "routes"):
        (tmp_path / name).symlink_to(world[0] / name)
    with serving(tmp_path) as many:
        workers = [one["pid"] for one in many.workers]
        children = [child_of(pid) for pid in workers]
        assert len(set(children)) == 2
        for _ in range(12):
            assert ask(many.url, "child")[0] == 200
        (arm,) = many.ready()["deployments"]["child"]["arms"]
        assert arm["process"]["bytes"] > 10**6
        assert arm["process"]["start_s"] > 0
        assert "process" not in many.ready()["deployments"]["quick"]["arms"][0]
        many.process.send_signal(signal.SIGTERM)
        assert many.process.wait(30) == 0
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children))


def test_a_child_that_is_let_go_ends_and_is_started_again_when_it_is_asked(world, tmp_path):
    for name in ("keys", "objects", "routes"):
        (tmp_path / name).symlink_to(world[0] / name)
    with serving(tmp_path, memory_budget=1, workers=1) as few:
        assert ask(few.url, "child")[0] == 200
        first = child_of(few.process.pid)
        assert ask(few.url, "quick")[0] == 200
        until(lambda: not few.ready()["deployments"]["child"]["arms"][0]["loaded"])
        until(lambda: child_of(few.process.pid) is None)
        assert ask(few.url, "child")[0] == 200
        assert child_of(few.process.pid) not in (None, first)
