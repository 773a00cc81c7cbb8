"""What does it cost to record a run and register its model, over the fit itself?

LogisticRegression on 5,000 rows of 10 inputs; 10 metrics, parameters, signature, model file, version and alias. In one
process, warm (a first round is not counted), medians:

- bare: `fit` on the arrays;
- ours, recorded: environment described, files kept, run, version and alias in our store, with every write synced;
- ours, whole `train`: also sources read and hashed, snapshot, leak guard, training set kept, metrics, reference
  profile, refit; over both of its fits;
- ours, mirrored: until MLflow has the run and the version, too;
- MLflow as it comes (log_model looks for the model's requirements in a process of its own), and tuned
  (`pip_requirements` and `signature` given, no input example), on SQLite.

Goals: 25 ms recorded, 150 ms until the mirror has it. Prints one JSON line.

    PYTHONPATH=src python benchmarks/training/run.py [--repeat 10]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

os.environ["SEATRIAL_STORES_MLFLOW"] = ""  # the mirror is told in this process, when it is measured

from seatrial import FrameSource, Model, Project
from seatrial.core.clock import machine_us, monotonic
from seatrial.core.identity import new_id
from seatrial.core.records import Record
from seatrial.registry.mlflow import mirror
from seatrial.training.environment import describe
from seatrial.training.pipeline import fit

ROWS, INPUTS = 5000, 10
GOALS = {"recorded": 25.0, "mirrored": 150.0}


def world() -> tuple[pa.Table, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, INPUTS)).astype(np.float32)
    y = x[:, 0] + random.normal(size=ROWS) > 0
    table = pa.table({"id": range(ROWS), "y": y, **{f"x{i}": x[:, i].astype(float) for i in range(INPUTS)}})
    model = Model(
        "m",
        task="binary",
        target="y",
        labels=FrameSource(table, name="rows"),
        key=["id"],
        features=[f"request:x{i}" for i in range(INPUTS)],
        estimator="sklearn.linear_model.LogisticRegression",
        cv_folds=0,
    )
    return table, model


def median_ms(work: Callable[[], float | None], repeat: int) -> float:
    """work: may say itself how many seconds count."""
    times = []
    for _ in range(repeat + 1):
        started = monotonic()
        counted = work()
        times.append(monotonic() - started if counted is None else counted)
    return statistics.median(times[1:]) * 1000


def ours(model: Any, folder: Path, repeat: int) -> dict[str, float]:
    with Project(folder, definitions=[model]) as project:
        inputs = project._inputs
        rows, plan, request, snapshots = inputs.rows(model)
        fitted = fit(model, rows, plan, request)
        trained = project.run_show(project.train().run)

        def record() -> None:
            environment = describe(project.folder, (), model.threads, seed=model.seed)
            run = new_id("run")
            files = project._keep_run_files(run, fitted, environment)
            body = {name: value for name, value in trained.items() if name not in ("id", "training_set", "snapshots")}
            body |= {"files": files, "environment": environment.facts}
            kept = Record(run, "run", model.name, (trained["training_set"], *snapshots), body)
            project._keep_run(kept, fitted, machine_us())

        def train() -> float:
            started = monotonic()
            run = project.train().run
            seconds = monotonic() - started
            timings = project.run_show(run)["timings"]
            return seconds - timings["fit"] - timings["refit"]

        recorded = median_ms(record, repeat)
        whole = median_ms(train, repeat)
        uri, place = f"sqlite:///{folder}/mlflow.db", folder / "mlflow-artifacts"
        mirror(project.metadata, uri, place)

        def mirrored() -> None:
            record()
            mirror(project.metadata, uri, place)

        return {"recorded": recorded, "whole train": whole, "mirrored": median_ms(mirrored, repeat)}


def mlflow_runs(table: pa.Table, folder: Path, repeat: int) -> dict[str, float]:
    import mlflow
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression

    mlflow.set_tracking_uri(f"sqlite:///{folder}/stock.db")
    mlflow.create_experiment("e", artifact_location=str(folder / "stock"))
    mlflow.set_experiment("e")
    client = mlflow.MlflowClient()
    x = np.column_stack([table[f"x{i}"].to_numpy() for i in range(INPUTS)])
    y = table["y"].to_numpy(zero_copy_only=False)
    estimator = LogisticRegression().fit(x, y)

    def record(**given: Any) -> None:
        with mlflow.start_run():
            mlflow.log_params({f"p{i}": i for i in range(10)})
            mlflow.log_metrics({f"m{i}": i / 10 for i in range(10)})
            signature = infer_signature(x, estimator.predict(x))
            logged = mlflow.sklearn.log_model(estimator, name="model", signature=signature, **given)
        version = mlflow.register_model(logged.model_uri, "m")
        client.set_registered_model_alias("m", "candidate", version.version)

    tuned = median_ms(lambda: record(pip_requirements=["scikit-learn"]), repeat)
    default = median_ms(record, 1)
    bare = median_ms(lambda: LogisticRegression().fit(x, y) and None, repeat)
    return {"bare": bare, "mlflow tuned": tuned, "mlflow default": default}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repeat", type=int, default=10)
    repeat = parser.parse_args().repeat
    warnings.simplefilter("ignore")
    table, model = world()
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        found = ours(model, Path(first), repeat) | mlflow_runs(table, Path(second), repeat)
    for name in ("bare", "recorded", "whole train", "mirrored", "mlflow tuned", "mlflow default"):
        goal = f" (goal {GOALS[name]:g})" if name in GOALS else ""
        print(f"{name:<15} {found[name]:>9.1f} ms{goal}")
    print(f"MLflow over ours: tuned {found['mlflow tuned'] / found['recorded']:.1f}, ", end="")
    print(f"default {found['mlflow default'] / found['recorded']:.0f}")
    print(json.dumps({name.replace(" ", "_") + "_ms": round(value, 2) for name, value in found.items()}))


if __name__ == "__main__":
    main()
