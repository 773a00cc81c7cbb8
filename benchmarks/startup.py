"""How much longer than bare Python does the command line take to answer?

CPU seconds (user and system, best of many runs) of `seatrial --help` and other ways to start, as a multiple of
`python -c pass` in the same run. Compiled modules are kept in a folder of their own, so that the figures are
those of an installed package, whatever PYTHONDONTWRITEBYTECODE says.

    python benchmarks/startup.py
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from time import perf_counter

GOAL_CPU, GOAL_SECONDS = 4.0, 0.25

STARTS = {
    "python -c pass": ["-c", "pass"],
    "import seatrial": ["-c", "import seatrial"],
    "seatrial --help": ["-c", "from seatrial.cli import main; main()", "--help"],
    "seatrial --help --all": ["-c", "from seatrial.cli import main; main()", "--help", "--all"],
    "seatrial train --help": ["-c", "from seatrial.cli import main; main()", "train", "--help"],
    "import click (for comparison)": ["-c", "import click"],
    "every public name": ["-c", "from seatrial import *"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as compiled:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = compiled
        best = {name: (float("inf"), float("inf")) for name in STARTS}
        for arguments in STARTS.values():
            measure(arguments, env)  # compiles
        for _ in range(runs):  # in turn, so that a busy moment meets all alike
            for name, arguments in STARTS.items():
                best[name] = tuple(map(min, best[name], measure(arguments, env)))  # type: ignore[assignment]
    bare = best["python -c pass"][0]
    print(f"{'':<32} {'CPU ms':>8} {'x python':>9} {'wall ms':>8}")
    for name, (cpu, wall) in best.items():
        print(f"{name:<32} {cpu * 1000:8.1f} {cpu / bare:9.2f} {wall * 1000:8.1f}")
    cpu, wall = best["seatrial --help"]
    met = cpu / bare <= GOAL_CPU and wall <= GOAL_SECONDS
    print(f"\nseatrial --help: {cpu / bare:.2f}x bare python in CPU (goal {GOAL_CPU:g}x), {wall:.3f} s", end="")
    print(f" (goal {GOAL_SECONDS:g} s): {'met' if met else 'NOT met'}")


def measure(arguments: list[str], env: dict[str, str]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one start."""
    started = perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=env)
    _, status, used = os.wait4(process.pid, 0)
    seconds = perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, seconds


if __name__ == "__main__":
    main()
