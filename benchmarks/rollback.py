"""How long does `seatrial rollback` take on a host, with the metadata store there and with it away?

A small project with two releases of a logistic regression. Each roll-back is the whole command, Python's start
included; wall seconds, the median of the runs, and the ratio to `python -c pass` in the same run. The releases are
deployed anew between the runs.

    PYTHONPATH=src python benchmarks/rollback.py
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from seatrial import Project
from seatrial.core.clock import monotonic

GOAL = 1.0
SETTINGS = {"SEATRIAL_POLICY_APPROVAL": "none", "SEATRIAL_STORES_MLFLOW": ""}
PROJECT = """
import pyarrow as pa
from seatrial import BlueGreen, Deployment, FrameSource, Model

ROWS = pa.table({"size": [i / 10 for i in range(400)], "heavy": [(i * 7) % 400 > 200 for i in range(400)]})
model = Model(
    "heavy", task="binary", target="heavy", labels=FrameSource(ROWS, name="rows"), features=["request:size"],
    estimator="sklearn.linear_model.LogisticRegression", params={"C": 1.0}, cv_folds=0, owner="ops", runbook="run.md",
)
deployment = Deployment("heavy", strategy=BlueGreen())
"""
ROLLBACK = ["-c", "from seatrial.cli import main; main()", "rollback", "heavy", "--reason", "measured"]


def seconds(arguments: list[str], folder: Path) -> float:
    started = monotonic()
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    taken = monotonic() - started
    if done.returncode:
        raise SystemExit(f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    os.environ.update(SETTINGS)
    measured: dict[str, list[float]] = {"python": [], "store there": [], "store away": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for penalty in ("1.0", "0.1"):
            (folder / "project.py").write_text(PROJECT.replace("1.0}", f"{penalty}}}"))
            seconds(["-c", "from seatrial.cli import main; main()", "train", "heavy"], folder)
            seconds(["-c", "from seatrial.cli import main; main()", "release", "heavy"], folder)
            seconds(["-c", "from seatrial.cli import main; main()", "deploy", "heavy"], folder)
        with Project(folder) as project:
            store = project.sqlite_path("metadata")
        for _ in range(runs):
            measured["python"].append(seconds(["-c", "pass"], folder))
            measured["store there"].append(seconds(ROLLBACK, folder))
            seconds(["-c", "from seatrial.cli import main; main()", "deploy", "heavy"], folder)
            away = store.with_suffix(".away")
            store.rename(away)
            measured["store away"].append(seconds(ROLLBACK, folder))
            away.rename(store)
            with Project(folder) as project:
                project.reconcile()
            seconds(["-c", "from seatrial.cli import main; main()", "deploy", "heavy"], folder)
    middle = {name: statistics.median(each) for name, each in measured.items()}
    for name, wall in middle.items():
        ratio, slowest = wall / middle["python"], max(measured[name])
        print(f"{name:<12} {wall:8.3f} s {ratio:8.1f} x python -c pass   worst {slowest:.3f} s")
    worst = max(max(measured["store there"]), max(measured["store away"]))
    print(f"goal {GOAL:g} s, worst of all {worst:.3f} s: {'reached' if worst < GOAL else 'MISSED'}")
    print(json.dumps({"benchmark": "rollback", "median_seconds": middle, "worst_seconds": worst, "goal": GOAL}))


if __name__ == "__main__":
    main()
