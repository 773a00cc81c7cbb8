"""A Redis server of the benchmark's own: on a free port, in memory, on the core of the load, gone afterwards."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, sleep

from harness.processes import on_first_core


@contextmanager
def redis_server() -> Iterator[int]:
    """The port of an empty server that lives as long as the block."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is needed (make services), or leave Redis out: --no-redis")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no", "dir": folder}
        command = [binary, *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=on_first_core
        )
        try:
            _wait(port, process)
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = perf_counter() + 10
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(100).startswith(b"+PONG"):
                    return
        except OSError:
            pass
        if process.poll() is not None or perf_counter() > deadline:
            raise SystemExit("redis-server did not start")
        sleep(0.05)
