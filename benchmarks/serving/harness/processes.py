"""Server processes on one core, and what they use."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from harness.models import World
from harness.peers import Kind, variables


class Server:
    """One server process tree on the last core. started_s: from its start to its first right answer."""

    def __init__(self, kind: Kind, world: World, home: Path, cache: Path, more: dict[str, str]) -> None:
        self.kind, self.name, self.world = kind, kind.name, world
        self.port = free_ports()
        self.url = f"http://127.0.0.1:{self.port}{kind.path}"
        home.mkdir(parents=True)
        command = kind.prepare(world, home, self.port, cache)
        self.bodies = world.bodies(kind.form)
        self.bodies_file = home / "bodies"
        self.bodies_file.write_bytes(b"\n".join(self.bodies) + b"\n")
        self.log = (home / "said").open("wb")
        path = os.pathsep.join([str(Path(command[0]).parent), os.environ.get("PATH", os.defpath)])
        self._began = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=home,
            stdout=self.log,
            stderr=self.log,
            env=variables(kind, {"PATH": path, **more}),
            preexec_fn=on_last_core,
            start_new_session=True,
        )
        self.started_s = 0.0

    def wait(self, seconds: float = 180) -> None:
        """Until it answers."""
        deadline = time.perf_counter() + seconds
        while True:
            with contextlib.suppress(OSError):
                self.ask(0)
                self.started_s = time.perf_counter() - self._began
                return
            if self.process.poll() is not None or time.perf_counter() > deadline:
                raise SystemExit(f"{self.name} did not start:\n{Path(self.log.name).read_text()[-2000:]}")
            time.sleep(0.05)

    def ask(self, number: int) -> Any:
        request = Request(self.url, self.bodies[number], {"content-type": "application/json"})
        with urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def check(self, numbers: range) -> None:
        """Compare answers with scikit-learn's. Ends the run when one is wrong."""
        if self.kind.probability is None:
            return
        for number in numbers:
            told, wanted = self.kind.probability(self.ask(number)), self.world.wanted[number]
            if abs(told - wanted) > 1e-4:
                raise SystemExit(f"{self.name} answers {told} to request {number}, scikit-learn {wanted}")

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree."""
        return sum(_ticks(pid) for pid in _tree(self.process.pid)) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Resident memory of the whole tree; what its processes share is counted once for each."""
        return sum(resident_kib(pid) for pid in _tree(self.process.pid)) / 1024

    def stop(self) -> None:
        tree = _tree(self.process.pid)
        for number in (15, 9):
            for pid in reversed(tree):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        self.log.close()


def free_ports() -> int:
    """A port that is free, with the two after it."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                for number in (port + 1, port + 2):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", number))
                return port


def resident_kib(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


def _tree(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def on_last_core() -> None:
    _pin(-1)


def on_first_core() -> None:
    _pin(0)


def _pin(position: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[position]})
    with contextlib.suppress(PermissionError):
        os.nice(-15)  # other work on the machine should disturb every server as little as it can
