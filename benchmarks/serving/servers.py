"""What does a prediction cost? CPU of the whole server process tree per request, side by side in one run.

Three servers answer the same 200 rows of one logistic regression (20 numbers, scaled), one after the other, in turns:

- seatrial: POST /predict with everything on (validation, ids, the log on disk, metrics);
- echo: the same uvicorn (uvloop, httptools, raw ASGI) that reads the body and sends a fixed answer;
- `mlflow models serve` of the same fitted pipeline, in an environment of its own, made on the first run
  with `uv venv` under --cache (needs a package index; --no-mlflow leaves it out).

    python benchmarks/serving.py [--seconds 3] [--rounds 3] [--connections 1 16 64]

Needs the `train` extra and, for load that does not hold the servers back, wrk (Debian: `apt-get install wrk`);
without wrk a slower client in Python is used and says so. Goals: at most 1/100 of MLflow's CPU, at most 2.2 times
the echo's. Read ratios: absolute figures depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np

SOURCE = Path(__file__).resolve().parent.parent / "src"
sys.path.insert(0, str(SOURCE))

INPUTS = 20
MLFLOW = "mlflow==3.17.2"

SEATRIAL_SERVER = """
import sys
from pathlib import Path
from seatrial.releases.signing import trusted_keys
from seatrial.serving import service
from seatrial.stores.prediction_log import PredictionLog
home = Path(sys.argv[1])
trusted = trusted_keys(home / "keys")
serving = service.from_bundle(home / "bench.seatrial", trusted_keys=trusted, log=PredictionLog(home / "log"))
service.run(serving, port=int(sys.argv[2]))
"""

ECHO_SERVER = """
import sys
import uvicorn
ANSWER = b'{"prediction":1,"probability":0.5}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": ANSWER})
uvicorn.run(app, port=int(sys.argv[2]), lifespan="off", access_log=False, log_config=None, server_header=False,
            ws="none", proxy_headers=False)
"""

MLFLOW_MODEL = """
import sys
import mlflow.sklearn, numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
import pandas as pd
data = np.load(sys.argv[1] + "/rows.npz")
frame = pd.DataFrame(data["x"], columns=[f"x{i}" for i in range(data["x"].shape[1])])
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, data["y"])
mlflow.sklearn.save_model(model, sys.argv[1] + "/model", input_example=frame[:2])
"""

WRK_SCRIPT = """
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
  io.write(string.format("RESULT %d %d %d %d\\n", summary.requests,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


class Server:
    """One server process tree on its core."""

    def __init__(self, name: str, command: list[str], port: int, path: str, bodies: list[bytes], home: Path) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}{path}"
        self.bodies = bodies
        self.bodies_file = home / f"{name}.bodies"
        self.bodies_file.write_bytes(b"\n".join(bodies) + b"\n")
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        self.log = (home / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, env=environment, preexec_fn=_on_last_core, start_new_session=True
        )

    def wait(self, seconds: float = 120) -> bytes:
        """The first answer."""
        deadline = time.perf_counter() + seconds
        while True:
            with contextlib.suppress(OSError):
                request = Request(self.url, self.bodies[0], {"content-type": "application/json"})
                return urlopen(request, timeout=10).read()
            if self.process.poll() is not None or time.perf_counter() > deadline:
                raise SystemExit(f"{self.name} did not start; see {self.log.name}")
            time.sleep(0.2)

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree."""
        ticks = sum(_ticks(pid) for pid in _tree(self.process.pid))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        for pid in reversed(_tree(self.process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 15)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        self.log.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--no-mlflow", action="store_true")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "seatrial-bench")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    wrk = shutil.which("wrk")
    print(f"load: {'wrk, one thread' if wrk else 'a client in Python (install wrk for figures that compare)'}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        rows = _make_release(home)
        ours = [json.dumps({"features": row}).encode() for row in rows]
        theirs = [json.dumps({"dataframe_records": [row]}).encode() for row in rows]
        servers = [
            Server("echo", [sys.executable, "-c", ECHO_SERVER, str(home), "8611"], 8611, "/predict", ours, home),
            Server(
                "seatrial", [sys.executable, "-c", SEATRIAL_SERVER, str(home), "8612"], 8612, "/predict", ours, home
            ),
        ]
        if not options.no_mlflow:
            servers.append(_mlflow(options.cache, home, theirs))
        try:
            for server in servers:
                print(f"{server.name}: {server.wait()[:120].decode()}")
            figures = _measure(servers, wrk, options)
        finally:
            for server in servers:
                server.stop()
    _report(figures, options)


def _measure(servers: list[Server], wrk: str | None, options: argparse.Namespace) -> dict[str, dict[int, dict]]:
    load = _load_with_wrk if wrk else _load_with_python
    rounds: dict[tuple[str, int], list[dict]] = {}
    for server in servers:
        load(server, 1, 8)  # what the first requests pay for is not what is asked
    for _ in range(options.rounds):
        for connections in options.connections:
            for server in servers:
                before = server.cpu_seconds()
                requests, errors, p50, p99 = load(server, options.seconds, connections)
                used = server.cpu_seconds() - before
                if errors or not requests:
                    raise SystemExit(f"{server.name}: {errors} errors in {requests} requests")
                figure = {"cpu_us": used / requests * 1e6, "per_s": requests / options.seconds, "p50": p50, "p99": p99}
                rounds.setdefault((server.name, connections), []).append(figure)
    return {
        server.name: {
            connections: {
                key: statistics.median(one[key] for one in rounds[server.name, connections])
                for key in ("cpu_us", "per_s", "p50", "p99")
            }
            for connections in options.connections
        }
        for server in servers
    }


def _report(figures: dict[str, dict[int, dict]], options: argparse.Namespace) -> None:
    print(f"\nmedian of {options.rounds} rounds of {options.seconds:g} s")
    print(f"{'server':<10}{'connections':>12}{'CPU us/request':>16}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for name, by_connections in figures.items():
        for connections, one in by_connections.items():
            print(
                f"{name:<10}{connections:>12}{one['cpu_us']:>16.1f}{one['per_s']:>12.0f}"
                f"{one['p50']:>9.2f}{one['p99']:>9.2f}"
            )
    for connections in options.connections:
        ours = figures["seatrial"][connections]["cpu_us"]
        echo = ours / figures["echo"][connections]["cpu_us"]
        line = f"c={connections}: {echo:.2f} x the echo's CPU (goal at most 2.2: {'met' if echo <= 2.2 else 'MISSED'})"
        if "mlflow" in figures:
            ratio = figures["mlflow"][connections]["cpu_us"] / ours
            line += f"; mlflow uses {ratio:.0f} x ours (goal at least 100: {'met' if ratio >= 100 else 'MISSED'})"
        print(line)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def _make_release(home: Path) -> list[dict[str, float]]:
    """A signed bundle of the model, its training rows for MLflow, and 200 request rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from seatrial.core.signature import Signature
    from seatrial.core.types import Field
    from seatrial.features.plan import FeaturePlan
    from seatrial.releases import golden
    from seatrial.releases.bundle import GOLDEN, MODEL, pack
    from seatrial.releases.manifest import Lineage, Manifest, file_entries
    from seatrial.releases.native import capture
    from seatrial.releases.onnx_export import to_onnx
    from seatrial.releases.parity import compare
    from seatrial.releases.runtime import Runtime
    from seatrial.releases.signing import signing_key

    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, INPUTS)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] - x[:, 2] + rng.normal(size=len(x)) > 0).astype(int)
    np.savez(home / "rows.npz", x=x, y=y)
    names = tuple(f"x{i}" for i in range(INPUTS))
    native = capture(make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y), "binary")
    model = to_onnx(native, INPUTS)
    signature = Signature("binary", tuple(Field(name, "float") for name in names), names)
    files = {MODEL: model, GOLDEN: golden.record("binary", x[:500], Runtime(model))}
    manifest = Manifest(
        model="bench",
        version=1,
        semantic_version="1.0.0",
        explanation="",
        signature=signature,
        plan=FeaturePlan(),
        threshold=0.5,
        estimator="",
        parameters={},
        parity=compare(native, model, x[:500], signature),
        metrics={},
        gates=(),
        lineage=Lineage(),
        files=file_entries(files),
    )
    (home / "bench.seatrial").write_bytes(pack(manifest, files, signing_key(home / "keys")))
    return [{name: round(float(value), 6) for name, value in zip(names, row, strict=True)} for row in x[:200]]


def _mlflow(cache: Path, home: Path, bodies: list[bytes]) -> Server:
    import sklearn

    environment = cache / "mlflow"
    python = environment / "bin" / "python"
    if not (environment / "bin" / "mlflow").exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        print(f"making an environment for {MLFLOW} in {environment} (once)")
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
        wanted = [MLFLOW, f"scikit-learn=={sklearn.__version__}"]
        subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *wanted], check=True)
    subprocess.run([str(python), "-c", MLFLOW_MODEL, str(home)], check=True, capture_output=True, cwd=home)
    command = [str(environment / "bin" / "mlflow"), "models", "serve", "-m", str(home / "model"), "-p", "8613"]
    command += ["--env-manager", "local"]
    os.environ["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return Server("mlflow", command, 8613, "/invocations", bodies, home)


def _load_with_wrk(server: Server, seconds: float, connections: int) -> tuple[int, int, float, float]:
    """Requests, errors, and p50 and p99 in milliseconds."""
    script = server.bodies_file.with_suffix(".lua")
    script.write_text(WRK_SCRIPT.replace("BODIES", str(server.bodies_file)))
    duration = f"{max(1, round(seconds))}s"
    command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "20s", "-s", str(script), server.url]
    text = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=_on_first_core).stdout
    requests, errors, p50, p99 = map(int, re.search(r"RESULT (\d+) (\d+) (\d+) (\d+)", text).groups())
    return requests, errors, p50 / 1000, p99 / 1000


def _load_with_python(server: Server, seconds: float, connections: int) -> tuple[int, int, float, float]:
    took: list[float] = []
    errors = 0
    stop = time.perf_counter() + seconds
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
    return len(ordered), errors, ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]


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


def _on_last_core() -> None:
    _pin(-1)


def _on_first_core() -> None:
    _pin(0)


def _pin(position: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[position]})
    with contextlib.suppress(PermissionError):
        os.nice(-15)  # other work on the machine should disturb every server as little as it can


if __name__ == "__main__":
    main()
