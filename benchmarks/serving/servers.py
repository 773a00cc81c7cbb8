"""What does a prediction cost? CPU of the whole server process tree per request, side by side in one run.

Servers answer the same 200 rows of the same fitted model (20 numbers; a scaled logistic regression, and histogram
gradient boosting with 200 trees), one after the other, in turns, each on one core, wrk on another:

- echo: bare uvicorn (uvloop, httptools, raw ASGI) that reads the body and sends a fixed answer;
- bare: seatrial's own stack with validation and the model, and nothing else: no ids, log, metrics;
- seatrial: `seatrial serve --bundle`, everything on; seatrial+redis: the same, 10 of the 20 numbers looked up in Redis;
- handwritten: FastAPI, pydantic, a DataFrame, joblib, prometheus-client and an A/B split, as many teams write it;
- mlserver (parallel_workers=0), bentoml (ndarray API), mlflow (`mlflow models serve`): as they come.

    python benchmarks/serving/servers.py [--seconds 3] [--rounds 3] [--connections 1 16 64] [--only mlflow] [--quick]

The last four run in environments of their own, made on the first run with `uv venv` under --cache (needs a package
index). Before each round every server's answers are compared with scikit-learn's. Needs the `train` extra,
redis-server for its line, and wrk (Debian: `apt-get install wrk`); without wrk a slower client in Python is used and
says so. Read ratios: absolute figures depend on the machine and on what else it does. The boosted model is 443 KiB of
ONNX, about the size for which the goal on memory was set.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[2] / "src"
sys.path.insert(0, str(SOURCE))

from harness.load import WRK, load  # noqa: E402
from harness.models import ESTIMATORS, World, fill, make_world  # noqa: E402
from harness.peers import KINDS, PEERS  # noqa: E402
from harness.processes import Server  # noqa: E402
from harness.redis_server import redis_server  # noqa: E402
from harness.resources import megabytes_a_release, seconds_to_ready  # noqa: E402

AT_LEAST = {"mlflow": 100.0, "bentoml": 30.0, "mlserver": 15.0, "handwritten": 30.0}
OURS = ("echo", "bare", "seatrial", "seatrial+redis")


class Figure(NamedTuple):
    """Of one server at one number of connections; medians over rounds."""

    cpu_us: float
    per_s: float
    p50_ms: float
    p99_ms: float


Figures = dict[str, dict[int, Figure]]
"""By server and connections."""


class Line(NamedTuple):
    """One goal, and what was found."""

    what: str
    found: float
    goal: float
    unit: str = "x"
    at_least: bool = False

    def shown(self) -> str:
        met = self.found >= self.goal if self.at_least else self.found <= self.goal
        word = "at least" if self.at_least else "at most"
        return f"{self.what:<66}{self.found:>9.2f} {self.unit:<3}{word:>9} {self.goal:<6g}{'met' if met else 'MISSED'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--models", nargs="+", choices=list(ESTIMATORS), default=list(ESTIMATORS))
    parser.add_argument("--only", nargs="*", choices=[*PEERS], default=[*PEERS], help="of the peers, only these")
    parser.add_argument("--no-redis", action="store_true")
    parser.add_argument("--quick", action="store_true", help="one short round of everything: does it all still run?")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "seatrial-bench")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.rounds, options.connections = 1.0, 1, [1, 16]
    print(f"load: {'wrk, one thread' if WRK else 'a client in Python (install wrk for figures that compare)'}")
    found: dict[str, Figures] = {}
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            world = make_world(Path(folder) / name, name)
            found[name] = side_by_side(world, Path(folder) / f"servers-{name}", options)
            lines += goals(name, found[name])
            if name == options.models[-1]:
                lines += resources(world, options)
    print()
    for line in lines:
        print(line.shown())
    if options.json:
        plain = {
            name: {server: {c: one._asdict() for c, one in by.items()} for server, by in figures.items()}
            for name, figures in found.items()
        }
        goals_told = [line._asdict() for line in lines]
        options.json.write_text(json.dumps({"figures": plain, "goals": goals_told}, indent=2) + "\n")


def side_by_side(world: World, folder: Path, options: argparse.Namespace) -> Figures:
    """Every server of one model, in turns."""
    print(f"\n{world.name}: {world.onnx_bytes / 1024:.0f} KiB of ONNX", flush=True)
    wanted = [*(name for name in OURS if not (options.no_redis and name.endswith("redis"))), *options.only]
    with contextlib.ExitStack() as stack:
        more: dict[str, dict[str, str]] = {}
        if "seatrial+redis" in wanted:
            address = f"redis://127.0.0.1:{stack.enter_context(redis_server())}/0"
            fill(address, world)
            more["seatrial+redis"] = {"SEATRIAL_STORES_ONLINE": address}
        servers = []
        for name in wanted:
            server = Server(KINDS[name], world, folder / name, options.cache, more.get(name, {}))
            stack.callback(server.stop)
            server.wait()
            server.check(range(len(server.bodies)))
            servers.append(server)
        print("first answer after: " + ", ".join(f"{one.name} {one.started_s:.1f} s" for one in servers), flush=True)
        figures = _measure(servers, options)
        print("resident, MB: " + ", ".join(f"{one.name} {one.megabytes():.0f}" for one in servers))
    _show(figures, options)
    return figures


def _measure(servers: list[Server], options: argparse.Namespace) -> Figures:
    rounds: dict[tuple[str, int], list[Figure]] = {}
    for server in servers:
        load(server, 1, 8)  # what the first requests pay for is not what is asked
    for _ in range(options.rounds):
        for connections in options.connections:
            for server in servers:
                server.check(range(5))
                before = server.cpu_seconds()
                done = load(server, options.seconds, connections)
                used = server.cpu_seconds() - before
                if done.errors or not done.requests:
                    raise SystemExit(f"{server.name}: {done.errors} errors in {done.requests} requests")
                one = Figure(used / done.requests * 1e6, done.requests / done.seconds, done.p50_ms, done.p99_ms)
                rounds.setdefault((server.name, connections), []).append(one)
    return {
        server.name: {
            connections: Figure(*map(statistics.median, zip(*rounds[server.name, connections], strict=True)))
            for connections in options.connections
        }
        for server in servers
    }


def _show(figures: Figures, options: argparse.Namespace) -> None:
    print(f"median of {options.rounds} rounds of {options.seconds:g} s")
    print(f"{'server':<16}{'connections':>12}{'CPU us/request':>16}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}")
    for name, by_connections in figures.items():
        for connections, one in by_connections.items():
            print(
                f"{name:<16}{connections:>12}{one.cpu_us:>16.1f}{one.per_s:>12.0f}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}"
            )
    sys.stdout.flush()


def goals(model: str, figures: Figures) -> list[Line]:
    """What was asked for, of one model."""
    ours, lines = figures["seatrial"], []
    for peer, goal in AT_LEAST.items():
        for connections, one in figures.get(peer, {}).items():
            cpu, per_s = one.cpu_us / ours[connections].cpu_us, ours[connections].per_s / one.per_s
            lines.append(Line(f"{model}, c={connections}: CPU a request of {peer} over ours", cpu, goal, at_least=True))
            lines.append(Line(f"{model}, c={connections}: requests/s, ours over {peer}", per_s, goal, at_least=True))
    for connections, one in ours.items():
        where = f"{model}, c={connections}"
        lines.append(Line(f"{where}: CPU over the bare echo's", one.cpu_us / figures["echo"][connections].cpu_us, 2.2))
        beyond = one.cpu_us - figures["bare"][connections].cpu_us
        lines.append(Line(f"{where}: ids, log, metrics beside validation and model", beyond, 15, "us"))
        if connections == 1:
            lines.append(Line(f"{where}: p50", one.p50_ms, 0.25, "ms"))
        if connections == 16:
            lines.append(Line(f"{where}: p99, the log on", one.p99_ms, 5, "ms"))
    return lines


def resources(world: World, options: argparse.Namespace) -> list[Line]:
    ready = seconds_to_ready(world, options.cache, 1 if options.quick else 5)
    memory = megabytes_a_release(world, 10 if options.quick else 40)
    return [
        Line("from the start of `seatrial serve` to /ready", ready, 3, "s"),
        Line(f"memory for each release of {world.onnx_bytes / 1024:.0f} KiB", memory, 0.6, "MB"),
    ]


if __name__ == "__main__":
    main()
