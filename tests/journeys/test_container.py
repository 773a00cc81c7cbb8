"""The exported container without an engine: its requirements in an empty environment; its command, environment and user
as the Dockerfile has them, in a file system that is read-only but for the volumes, as the first process that there is.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seatrial import Deployment, Gate, Model, ParquetSource, PredictionLog, Project
from seatrial.export import docker
from tests.servers import free_port as _free_port

ROWS = 400


@pytest.fixture(scope="module")
def image(tmp_path_factory) -> Path:
    """The build folder of a small model's release."""
    folder = tmp_path_factory.mktemp("project")
    size = [(i * 7 % ROWS) / ROWS for i in range(ROWS)]
    table = pa.table({"id": range(ROWS), "size": size, "weight": [i / ROWS for i in range(ROWS)]})
    heavy = [i > ROWS // 2 for i in range(ROWS)]
    pq.write_table(table.append_column("heavy", pa.array(heavy)), folder / "things.parquet")
    model = Model(
        "heavy",
        task="binary",
        target="heavy",
        labels=ParquetSource("things.parquet"),
        key=["id"],
        features=["request:size", "request:weight"],
        estimator="lightgbm.LGBMClassifier",
        params={"n_estimators": 5},
        gates=[Gate.at_least("roc_auc", 0.6)],
        owner="tests",
        runbook="none",
    )
    with Project(folder, definitions=[model, Deployment("heavy")]) as project:
        project.train()
        project.release()
        project.export_docker("heavy", folder / "docker")
    return folder / "docker"


OWN = [] if os.getuid() == 0 else ["--map-root-user"]
NAMESPACES = ["unshare", *OWN, "--mount", "--pid", "--fork", "--kill-child"]


@functools.cache
def namespaces() -> bool:
    """Whether this process may make namespaces, which containers often may not."""
    return not subprocess.run([*NAMESPACES, "true"], stderr=subprocess.DEVNULL, check=False).returncode


@dataclass
class Container:
    """What the Dockerfile makes of its folder, at another place than /: `at` is a path of the image, here."""

    image: Path
    root: Path
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def at(self, text: str) -> str:
        """Words of the Dockerfile with the places of the image where they are here."""
        for place in (docker.STATE, "/app"):
            text = text.replace(place, f"{self.root}{place}")
        return text.replace(docker.TEMPORARY, f"{self.root}/tmp") if text == docker.TEMPORARY else text

    def instruction(self, name: str) -> str:
        """The last instruction of this name, its lines joined."""
        text = (self.image / "Dockerfile").read_text().replace("\\\n", "")
        return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)[-1]

    def environment(self, port: int) -> dict[str, str]:
        """ENV, with a port that is free here, and nothing of this process's own environment but where Python is."""
        variables = dict(word.split("=", 1) for word in self.instruction("ENV").split())
        return {name: self.at(value) for name, value in variables.items()} | {
            "PATH": f"{self.root}/app/venv/bin{os.pathsep}{os.defpath}",
            "TMPDIR": f"{self.root}/tmp",
            "SEATRIAL_PORT": str(port),
        }

    def words(self, *arguments: str) -> list[str]:
        """What an engine starts: the entry point, with the arguments that it is given or the default ones."""
        return [*json.loads(self.instruction("ENTRYPOINT")), *(arguments or json.loads(self.instruction("CMD")))]

    def confined(self, words: list[str]) -> list[str]:
        """The words as the image's user, first of their process namespace, with nothing writable but the volumes.

        Where this process may make no namespaces, only the user is another one, if that one can reach Python.
        """
        uid = self.instruction("USER").partition(":")[0]
        user = f"setpriv --reuid {uid} --regid {uid} --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
        start = f'exec {user if self.is_another_user() else ""} "$@"'
        if not namespaces():
            return ["sh", "-c", start, "sh", *words]
        mounted = (*json.loads(self.instruction("VOLUME")), docker.OBJECTS)
        writable = [self.at(place) for place in mounted] + [f"{self.root}/tmp"]
        script = ["set -e", *self.reachable(), *(f"mount --bind {place} {place}" for place in writable)]
        script += ["mount -o remount,ro,bind /", f"cd {self.root}/app", start]
        return [*NAMESPACES, "sh", "-c", "\n".join(script), "sh", *words]

    def is_another_user(self) -> bool:
        return os.getuid() == 0 and (namespaces() or not self.reachable())

    def reachable(self) -> list[str]:
        """What lets another user reach the interpreter, where it lies in a folder that only root may enter."""
        python, kept = Path(sys.base_prefix).resolve(), self.root / "python"
        closed = next((one for one in reversed(python.parents) if not one.stat().st_mode & 1), None)
        if closed is None or os.getuid() != 0:
            return []
        kept.mkdir(exist_ok=True)
        hidden = [f"mount --bind {python} {kept}", f"mount -t tmpfs -o mode=755 tmpfs {closed}", f"mkdir -p {python}"]
        return [*hidden, f"mount --bind {kept} {python}"]

    @contextlib.contextmanager
    def running(self, port: int, *arguments: str, path: str = "/ready", **variables: str) -> Iterator[str]:
        """The address of the container's server, when it answers this path with 200. It is killed in the end."""
        self.process = subprocess.Popen(
            self.confined(self.words(*arguments)),
            cwd=self.root / "app",
            env=self.environment(port) | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        url = f"http://127.0.0.1:{port}"
        try:
            assert json.loads(self.asked(f"{url}{path}"))
            yield url
        finally:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError, IndexError):
                os.kill(self.first(), signal.SIGKILL)
            self.process.kill()
            self.process.wait()
            self.process.stderr.close()

    def first(self) -> int:
        """The id of the container's first process, seen from here."""
        if not namespaces():
            return self.process.pid
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(children.read_text().split()[0])

    def asked(self, url: str) -> str:
        """The answer of the server when it has come up."""
        deadline = time.monotonic() + 60
        while True:
            assert self.process.poll() is None, self.process.stderr.read()
            try:
                return urllib.request.urlopen(url, timeout=5).read().decode()
            except OSError:
                assert time.monotonic() < deadline, "the server did not come up"
                time.sleep(0.1)

    @property
    def log(self) -> PredictionLog:
        return PredictionLog(Path(self.at(docker.LOG)))


BODY = json.dumps({"features": {"size": 0.25, "weight": 0.9}}).encode()


def predicted(url: str) -> str:
    """The id of a prediction that was answered."""
    answer = json.loads(urllib.request.urlopen(urllib.request.Request(f"{url}/predict", BODY), timeout=60).read())
    assert answer["prediction"] == 1
    return answer["prediction_id"]


@pytest.fixture(scope="module")
def installed(image) -> Iterator[Path]:
    """What the Dockerfile's RUN and COPY lines make, below a folder that stands for /, with a venv for its Python.

    Not in pytest's own folder, which only its owner may enter.
    """
    root = Path(tempfile.mkdtemp(prefix="seatrial-image-"))
    root.chmod(0o755)
    app = root / "app"
    uv = Path(sys.executable).parent / "uv"
    python = app / "venv" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, app / "venv"], check=True)
    wheel = next(image.glob("*.whl"))
    for what in (["--requirements", image / "requirements.txt"], ["--no-deps", wheel]):
        subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *what], check=True)
    (app / ".seatrial" / "keys").mkdir(parents=True)
    shutil.copytree(image / "keys", app / ".seatrial" / "keys" / "trusted")
    shutil.copyfile(image / "release.seatrial", app / "release.seatrial")
    yield root
    shutil.rmtree(root)


def with_empty_volumes(image: Path, installed: Path) -> Container:
    made = Container(image, installed)
    for place in (*json.loads(made.instruction("VOLUME")), docker.OBJECTS, docker.TEMPORARY):
        folder = Path(made.at(place))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            os.chown(folder, docker.USER, docker.USER)
    return made


@dataclass
class Life:
    """What was seen of two containers on the same volumes, the first killed, the second stopped by SIGTERM."""

    predicted: list[str] = field(default_factory=list)
    status: str = ""
    is_another_user: bool = True
    healthy: list[int] = field(default_factory=list)
    half_sent: bytes = b""
    ended: int | None = None
    logged: list[str] = field(default_factory=list)
    shipped: int = 0


@pytest.fixture(scope="module")
def life(image, installed) -> Life:
    container, seen, port = with_empty_volumes(image, installed), Life(), _free_port()
    seen.is_another_user = container.is_another_user()
    python = installed / "app" / "venv" / "bin" / "python"
    _, *check = json.loads(container.instruction("HEALTHCHECK").partition("CMD ")[2])

    def healthy() -> int:
        command = [python, *check]
        return subprocess.run(command, env=container.environment(port), stderr=subprocess.DEVNULL).returncode

    with container.running(port) as url:
        seen.predicted.append(predicted(url))
        seen.status = Path(f"/proc/{container.first()}/status").read_text()
        seen.healthy.append(healthy())
        os.kill(container.first(), signal.SIGKILL)
        container.process.wait(30)
        seen.healthy.append(healthy())
    ships = {"SEATRIAL_LOG_SHIP": "60s"}
    with (
        container.running(port, "serve", **ships) as url,
        socket.create_connection(("127.0.0.1", port), 20) as connection,
    ):
        seen.predicted.append(predicted(url))
        head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(BODY)}\r\n\r\n".encode()
        connection.sendall(head + BODY[:10])
        time.sleep(0.1)
        os.kill(container.first(), signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(BODY[10:])
        seen.half_sent = connection.recv(65536)
        seen.ended = container.process.wait(30)
    seen.predicted.append(json.loads(seen.half_sent.partition(b"\r\n\r\n")[2])["prediction_id"])
    files = Path(container.at(docker.OBJECTS)).rglob("*.parquet")
    seen.shipped = sum(pq.read_metadata(file).num_rows for file in files)
    seen.logged = container.log.rows()["prediction_id"].to_pylist()
    return seen


def test_the_image_holds_nothing_that_trains(installed):
    packages = {path.name.split("-")[0].lower() for path in (installed / "app" / "venv").rglob("*.dist-info")}
    assert "onnxruntime" in packages
    assert not packages & {"scikit_learn", "lightgbm", "mlflow_skinny", "pandas", "onnx", "skl2onnx"}


pytestmark = [pytest.mark.slow, pytest.mark.needs("unshare", "setpriv")]


def test_it_answers_as_the_images_user_without_capabilities_and_as_the_first_process(life):
    if namespaces():
        assert re.search(r"^NSpid:.*\t1$", life.status, re.MULTILINE)
    if life.is_another_user:
        assert re.search(rf"^Uid:\t{docker.USER}\t", life.status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", life.status, re.MULTILINE)


def test_its_health_check_passes_while_it_lives_and_fails_when_it_does_not(life):
    assert life.healthy == [0, 1]


def test_on_sigterm_it_answers_what_has_begun_to_come_in_and_ends_with_0(life):
    assert life.half_sent.startswith(b"HTTP/1.1 200")
    assert life.ended == 0


def test_the_next_container_on_the_volume_goes_on_with_the_log_of_one_that_was_killed(life):
    assert len(life.predicted) == 3
    assert sorted(life.logged) == sorted(life.predicted)


def test_what_was_not_shipped_yet_is_shipped_when_it_is_stopped(life):
    assert life.shipped == 3


def test_nothing_that_it_is_made_of_can_be_written_by_its_user(image):
    text = (image / "Dockerfile").read_text()
    assert "--chown" not in text
    assert re.findall(r"chown -R \S+ (\S+)", text) == [docker.STATE]
    assert not any(path.stat().st_mode & 0o022 for path in image.rglob("*"))


def test_a_log_volume_that_its_user_may_not_write_is_an_unavailable_answer_and_not_a_lost_row(
    image, installed, free_port
):
    container = with_empty_volumes(image, installed)
    if not container.is_another_user():
        pytest.skip("whoever owns the folder may write there")
    folder = Path(container.at(docker.LOG))
    os.chown(folder, 0, 0)
    folder.chmod(0o555)
    with container.running(free_port, path="/health") as url:
        with pytest.raises(urllib.error.HTTPError) as refused:
            predicted(url)
        assert refused.value.code == 503
        assert json.loads(refused.value.read())["code"] == "log.unwritable"
        with pytest.raises(urllib.error.HTTPError) as unready:
            urllib.request.urlopen(f"{url}/ready", timeout=5)
        assert "log" in json.loads(unready.value.read())["reason"]
