"""Several processes on one port: none of them can lose an answer, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from seatrial.serving.clients.client import Client
from seatrial.serving.workers.supervisor import WorkersWrong, run_workers
from seatrial.stores.prediction_log import PredictionLog
from tests.serving.test_service import World
from tests.serving.worlds import GOOD

SERVER = """
import json, sys, time
from pathlib import Path
from seatrial.core.errors import Failed, SeatrialError
from seatrial.releases.keyring import WatchedKeys
from seatrial.serving import service
from seatrial.serving.workers import draining
from seatrial.serving.workers import supervisor as workers
from seatrial.stores.objects import ObjectStore
from seatrial.stores.prediction_log import PredictionLog
home, options = Path(sys.argv[1]), json.loads(sys.argv[2])
draining.DRAIN_SECONDS = options.pop("drain", 25.0)
broken = options.pop("broken", False)
budget = options.pop("memory_budget", None)
def make(place):
    if broken:
        raise Failed("this cannot be served.", next="Mend it.")
    return service.load(routes=home / "routes", read_bundle=ObjectStore(home / "objects").read, place=place,
                        trusted_keys=WatchedKeys(home / "keys"), online=None, log=PredictionLog(home / "log"),
                        memory_budget=budget)
def started(url):
    print(url, flush=True)
try:
    if options.get("workers", 2) == 1:
        workers.serve(make, port=0, started=started)
    else:
        workers.run_workers(make, **{"workers": 2, "port": 0, "started": started} | options)
except SeatrialError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
print("stopped", flush=True)
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A home with two releases, the first of them live."""
    world = World(tmp_path_factory.mktemp("released"))
    world.arms = [world.put(), world.put(seed=1, version=2)]
    world.route(1, world.arms[0])
    return world


@pytest.fixture
def home(released, tmp_path):
    """A home of its own over the same bundles and keys."""
    return over(released, tmp_path)


@pytest.fixture(scope="module", name="server")
def server_of_all(released, tmp_path_factory):
    """A server of two workers, for what leaves it as it was."""
    with serving(over(released, tmp_path_factory.mktemp("many"))) as server:
        yield server


def over(released, home: Path) -> Path:
    (home / "routes").mkdir()
    for name in ("keys", "objects"):
        (home / name).symlink_to(released.home / name)
    (home / "routes" / "late.json").write_bytes((released.home / "routes" / "late.json").read_bytes())
    return home


class Server:
    def __init__(self, home: Path, process: subprocess.Popen[str], url: str) -> None:
        self.home, self.process, self.url = home, process, url

    @property
    def workers(self) -> list[dict]:
        return self.ready()["workers"]

    def ready(self) -> dict:
        with Client(self.url) as client:
            return client.ready()

    def until(self, holds) -> dict:
        for _ in range(1200):
            with suppress(Exception):
                found = self.ready()
                if holds(found):
                    return found
            time.sleep(0.02)
        raise AssertionError(found)

    def logged(self) -> Counter:
        return Counter(PredictionLog(self.home / "log").rows(columns=["request_id"])["request_id"].to_pylist())

    def said(self) -> str:
        return (self.home / "stderr").read_text()


@contextmanager
def serving(home: Path, **options) -> Iterator[Server]:
    with (home / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(home), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
            env=os.environ | {"TMPDIR": str(home)},
        )
    try:
        yield Server(home, process, process.stdout.readline().strip())
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


class Caller(threading.Thread):
    """Asks as fast as it is answered, on one connection as long as it is kept, or on a new one each time.

    answered: the ids that were. broken: those whose connection broke without an answer, and when they were sent.
    """

    numbers = iter(range(1_000_000))

    def __init__(self, url: str, *, keep: bool) -> None:
        super().__init__(daemon=True)
        self.at = urlsplit(url)
        self.keep = keep
        self.answered: list[str] = []
        self.broken: list[tuple[str, float]] = []
        self.stop = False
        self.start()

    def run(self) -> None:
        connection = None
        while not self.stop:
            try:
                connection = connection or socket.create_connection((self.at.hostname, self.at.port), timeout=30)
            except ConnectionError:
                connection = None
                if self.stop:
                    return
                time.sleep(0.01)
                continue
            asked = f"r{next(self.numbers)}"
            sent = time.perf_counter()
            try:
                connection.sendall(request(asked))
                closes = self.read(connection, asked)
            except OSError:
                self.broken.append((asked, sent))
                closes = True
            if closes or not self.keep or self.stop:
                connection.close()
                connection = None

    def read(self, connection: socket.socket, asked: str) -> bool:
        data = b""
        while True:
            part = connection.recv(65536)
            if not part:
                raise ConnectionError
            data += part
            head, _, body = data.partition(b"\r\n\r\n")
            if body.endswith(b"}"):
                assert head.startswith(b"HTTP/1.1 200"), data
                assert json.loads(body)["request_id"] == asked
                self.answered.append(asked)
                return b"connection: close" in head.lower()


def request(asked: str) -> bytes:
    body = json.dumps({"features": GOOD, "request_id": asked}).encode()
    return b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def callers(url: str, each: int = 3) -> list[Caller]:
    return [Caller(url, keep=keep) for keep in (True, False) for _ in range(each)]


def enough(asking: list[Caller], more: int = 20) -> None:
    """Wait until every caller was answered some more."""
    before = [len(one.answered) for one in asking]
    for _ in range(2000):
        if all(len(one.answered) >= was + more for one, was in zip(asking, before, strict=True)):
            return
        time.sleep(0.01)
    raise AssertionError([len(one.answered) for one in asking])


def end(asking: list[Caller]) -> tuple[list[str], list[tuple[str, float]]]:
    for one in asking:
        one.stop = True
    for one in asking:
        one.join(30)
    return [asked for one in asking for asked in one.answered], [it for one in asking for it in one.broken]


def test_any_worker_answers_for_all_and_knows_who_is_behind(home, released):
    with serving(home) as server:
        state = server.ready()
        assert state["ready"]
        assert [one["slot"] for one in state["workers"]] == [0, 1]
        assert len({one["pid"] for one in state["workers"]} | {server.process.pid}) == 3
        assert not any("behind" in one for one in state["workers"])
        (home / "routes" / "fare.json").write_bytes(b"broken")
        state = server.until(lambda state: all(one["reason"] for one in state["workers"]))
        assert not state["ready"]
        assert "'fare' is not served" in state["reason"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_under_load_loses_no_answer(home, workers):
    with serving(home, workers=workers) as server:
        asking = callers(server.url)
        enough(asking)
        told = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        answered, broken = end(asking)
        assert [asked for asked, sent in broken if sent < told] == []
        logged = server.logged()
        assert set(answered) <= set(logged) <= set(answered) | {asked for asked, _ in broken}
        assert set(logged.values()) == {1}
        assert server.said() == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_connections_that_wait_to_be_accepted_are_answered_before_the_end(home, workers):
    with serving(home, workers=workers) as server:
        pids = [one["pid"] for one in server.ready().get("workers", [{"pid": server.process.pid}])]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        at = urlsplit(server.url)
        waiting = []
        for number in range(50):
            connection = socket.create_connection((at.hostname, at.port), timeout=30)
            connection.sendall(request(f"waits {number}"))
            waiting.append(connection)
        server.process.send_signal(signal.SIGTERM)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for connection in waiting:
            with connection:
                assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.process.wait(30) == 0
        assert server.logged() == Counter(f"waits {number}" for number in range(50))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((at.hostname, at.port))


def test_a_worker_that_dies_takes_only_its_own_connections_and_is_started_again_in_its_slot(server):
    asking = callers(server.url)
    enough(asking)
    first = server.workers
    os.kill(first[0]["pid"], signal.SIGKILL)
    state = server.until(lambda state: state["workers"][0]["pid"] not in (0, first[0]["pid"]))
    assert state["workers"][1]["pid"] == first[1]["pid"]
    server.until(lambda state: state["workers"][0]["accepting"])
    enough(asking)
    answered, broken = end(asking)
    logged = server.logged()
    assert set(answered) <= set(logged)
    assert set(logged.values()) == {1}
    assert len(broken) <= len(asking)
    assert server.said().count(f"worker 0 (pid {first[0]['pid']}) was ended by SIGKILL; it is started again\n") == 1


def test_killing_every_worker_under_load_loses_and_doubles_no_acknowledged_answer(server):
    asking = callers(server.url)
    for _ in range(2):
        enough(asking)
        for one in server.workers:
            os.kill(one["pid"], signal.SIGKILL)
        server.until(lambda state: state["ready"] and all(one["accepting"] for one in state["workers"]))
    enough(asking)
    answered, _ = end(asking)
    logged = server.logged()
    assert set(answered) <= set(logged)
    assert set(logged.values()) == {1}


def test_one_worker_that_is_told_to_stop_breaks_no_connection_and_is_followed_by_another(server):
    asking = callers(server.url)
    enough(asking)
    first = server.workers[0]["pid"]
    told = time.perf_counter()
    os.kill(first, signal.SIGTERM)
    server.until(lambda state: state["workers"][0]["pid"] not in (0, first) and state["workers"][0]["accepting"])
    enough(asking)
    _, broken = end(asking)
    assert [asked for asked, sent in broken if sent < told] == []


def test_a_worker_that_stands_still_takes_nothing_new_and_is_killed(home):
    with serving(home, silent_seconds=2.0) as server:
        stopped, other = server.workers
        os.kill(stopped["pid"], signal.SIGSTOP)
        with Client(server.url) as client:
            for _ in range(20):
                client.predict(GOOD)
        state = server.until(lambda state: state["workers"][0]["pid"] not in (0, stopped["pid"]))
        assert state["workers"][1]["pid"] == other["pid"]
        assert server.said().count("has not moved for 2 s and is killed") == 1


def test_a_new_route_is_taken_up_by_every_worker_without_a_lost_request(server, released):
    asking = callers(server.url)
    enough(asking)
    route = released.route(2, released.arms[1])
    routes = server.home / "routes"
    (routes / "next").write_bytes(released.routes.path("late").read_bytes())
    (routes / "next").replace(routes / "late.json")
    server.until(
        lambda state: (
            state["deployments"]["late"]["generation"] == route.generation
            and not any("behind" in one for one in state["workers"])
        )
    )
    enough(asking)
    _, broken = end(asking)
    assert broken == []


def test_control_c_in_a_terminal_stops_all_without_a_traceback(home):
    with serving(home) as server, Client(server.url) as client:
        client.predict(GOOD)
        pids = [one["pid"] for one in server.workers]
        os.killpg(server.process.pid, signal.SIGINT)
        assert server.process.wait(30) == 0
        assert server.said() == ""
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_workers_whose_supervisor_is_gone_end(home):
    with serving(home) as server:
        pids = [one["pid"] for one in server.workers]
        server.process.kill()
        server.process.wait()
        for _ in range(500):
            if not any(Path(f"/proc/{pid}").exists() and not zombie(pid) for pid in pids):
                break
            time.sleep(0.02)
        else:
            raise AssertionError("they live on")
        assert not any(any(str(pid) in text for pid in pids) for text in told_in_runtime_folders(home))


def told_in_runtime_folders(home: Path) -> list[str]:
    found = []
    for path in home.glob("seatrial-serve-*/slot-*.json"):
        with suppress(OSError):
            found.append(path.read_text())
    return found


def zombie(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_a_request_that_never_ends_is_cut_off_at_the_deadline_and_the_exit_code_says_so(home):
    with serving(home, drain=1.0) as server:
        at = urlsplit(server.url)
        with socket.create_connection((at.hostname, at.port), timeout=30) as connection:
            connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{")
            time.sleep(0.2)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 1
        assert "serving.drain_too_long" in server.said()


def test_a_service_that_no_worker_can_make_is_not_started(home):
    with serving(home, broken=True) as server:
        assert server.process.wait(30) == 1
        assert server.url == ""
        assert "this cannot be served." in server.said()
        assert "Traceback" not in server.said()


@pytest.mark.parametrize("workers", [0, -1, 257])
def test_a_number_of_workers_that_makes_no_sense_is_refused(workers):
    with pytest.raises(WorkersWrong) as error:
        run_workers(lambda place: None, workers=workers)
    assert error.value.exit_code == 2


def test_any_worker_tells_the_numbers_of_all_and_they_never_fall_when_one_is_killed(home):
    with serving(home) as server:

        def told(name: str) -> float:
            with Client(server.url) as client:
                return sum(
                    float(line.rpartition(" ")[2])
                    for line in client.get("/metrics").decode().splitlines()
                    if line.startswith(name) and line[len(name)] in " {"
                )

        asking = callers(server.url)
        enough(asking)
        seen = [told("model_predictions_total")]
        os.kill(server.workers[0]["pid"], signal.SIGKILL)
        while told("seatrial_worker_restarts_total") < 1:
            seen.append(told("model_predictions_total"))
        server.until(lambda state: state["workers"][0]["accepting"])
        enough(asking)
        answered, _ = end(asking)
        time.sleep(0.5)  # more than twice what passes before a worker's numbers are written
        seen += [told("model_predictions_total") for _ in range(8)]
        assert seen == sorted(seen)
        assert len(set(seen[-8:])) == 1
        assert seen[-1] <= sum(server.logged().values())
        assert told("seatrial_workers") == 2
        assert told("seatrial_worker_restarts_total") == 1
        assert told("seatrial_ready") == 1
        assert len(answered) > 0


def test_connections_that_come_together_are_shared_out(server):
    at = urlsplit(server.url)
    connections = [socket.create_connection((at.hostname, at.port), timeout=30) for _ in range(60)]
    workers = Counter()
    for connection in connections:
        connection.sendall(b"GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        with connection, connection.makefile("rb") as answer:
            workers[json.loads(answer.read().partition(b"\r\n\r\n")[2])["worker"]] += 1
    assert min(workers[0], workers[1]) >= 15
