"""Load on a server: wrk, or a slower client in Python where there is none."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from harness.processes import Server, on_first_core

SCRIPT = """
local bodies = {}
for line in io.lines("BODIES") do bodies[#bodies + 1] = line end
local requests, turn = {}, 0
init = function()
  for i, body in ipairs(bodies) do
    requests[i] = wrk.format("POST", nil, {["content-type"] = "application/json"}, body)
  end
end
request = function() turn = turn % #requests + 1; return requests[turn] end
done = function(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %d\\n", summary.requests,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99), summary.duration))
end
"""
WRK = shutil.which("wrk")


class Loaded(NamedTuple):
    """requests: that were answered, errors among them. p50_ms, p99_ms: of their latency. seconds: that it took."""

    requests: int
    errors: int
    p50_ms: float
    p99_ms: float
    seconds: float


def load(server: Server, seconds: float, connections: int) -> Loaded:
    return _with_wrk(server, seconds, connections) if WRK else _with_python(server, seconds, connections)


def _with_wrk(server: Server, seconds: float, connections: int) -> Loaded:
    script = server.bodies_file.with_suffix(".lua")
    script.write_text(SCRIPT.replace("BODIES", str(server.bodies_file)))
    duration = f"{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "20s", "-s", str(script), server.url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=on_first_core).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+)", text)
    if found is None:
        raise SystemExit(f"wrk said nothing of {server.name}: {text[-500:]}")
    requests, errors, p50, p99, took = map(int, found.groups())
    return Loaded(requests, errors, p50 / 1000, p99 / 1000, took / 1e6)


def _with_python(server: Server, seconds: float, connections: int) -> Loaded:
    took: list[float] = []
    errors = 0
    began = time.perf_counter()
    stop = began + seconds
    path = urlsplit(server.url).path.encode()

    def ask(offset: int) -> None:
        nonlocal errors
        with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            turn = offset
            while time.perf_counter() < stop:
                body = server.bodies[turn % len(server.bodies)]
                turn += 1
                head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                start = time.perf_counter()
                connection.sendall(head % (path, len(body)) + body)
                answer = connection.recv(65536)
                took.append((time.perf_counter() - start) * 1000)
                errors += not answer.startswith(b"HTTP/1.1 200")

    threads = [threading.Thread(target=ask, args=(17 * number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ordered = sorted(took)
    whole = time.perf_counter() - began
    return Loaded(len(ordered), errors, ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], whole)
