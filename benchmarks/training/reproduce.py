"""Does `reproduce` reach "identical" for the kinds of estimators that people use, at equal threads?

A small project is trained with each of six kinds, every one in a process of its own with a hash seed of its own, and
reproduced in another process. Prints the verdict of each, goal six of six, and one JSON line.

    PYTHONPATH=src python benchmarks/training/reproduce.py [--rows 5000] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

LOGISTIC = (
    "sklearn.pipeline.make_pipeline(sklearn.impute.SimpleImputer(), sklearn.preprocessing.StandardScaler(), "
    "sklearn.linear_model.LogisticRegression())"
)
KINDS = {
    "LogisticRegression": (LOGISTIC, {}),
    "RandomForest": ('"sklearn.ensemble.RandomForestClassifier"', {"n_estimators": 50, "max_depth": 8}),
    "HistGradientBoosting": ('"sklearn.ensemble.HistGradientBoostingClassifier"', {"max_iter": 50}),
    "LightGBM": ('"lightgbm.LGBMClassifier"', {"n_estimators": 50, "subsample": 0.8, "subsample_freq": 1}),
    "XGBoost": ('"xgboost.XGBClassifier"', {"n_estimators": 50, "subsample": 0.8}),
    "CatBoost": ('"catboost.CatBoostClassifier"', {"iterations": 50}),
}
PROJECT = """
import sklearn.impute, sklearn.linear_model, sklearn.pipeline, sklearn.preprocessing
from seatrial import Model, ParquetSource

Model("kind", task="binary", target="y", labels=ParquetSource("rows.parquet"), key=["id"],
      features=[{features}], estimator={estimator}, params={params}, threads={threads}, cv_folds=3)
"""
COLUMNS = 12


def write(folder: Path, rows: int, estimator: str, params: dict[str, object], threads: int) -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=(rows, COLUMNS)).astype(np.float32)
    target = values @ random.normal(size=COLUMNS) + random.normal(size=rows) > 0
    columns = {f"x{i}": pa.array(values[:, i].astype(float)) for i in range(COLUMNS)}
    table = pa.table({"id": pa.array(range(rows)), "y": pa.array(target), **columns})
    pq.write_table(table, folder / "rows.parquet")
    features = ", ".join(f'"request:{name}"' for name in columns)
    text = PROJECT.format(features=features, estimator=estimator, params=params, threads=threads)
    (folder / "project.py").write_text(text)


def ask(folder: Path, *words: str, hash_seed: int) -> dict[str, object]:
    """The answer of a command in a process of its own."""
    variables = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "SEATRIAL_STORES_MLFLOW": ""}
    command = [sys.executable, "-m", "seatrial", "--project", str(folder), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if not done.stdout.strip():
        raise SystemExit(f"{' '.join(words)}: {done.stderr[-2000:]}")
    found: dict[str, object] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    verdicts = {}
    for kind, (estimator, params) in KINDS.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            write(folder, options.rows, estimator, params, options.threads)
            run = ask(folder, "train", hash_seed=1)["run"]
            done = ask(folder, "reproduce", str(run), hash_seed=2)
        verdicts[kind] = done["verdict"]
        print(f"{kind:<22} {done['verdict']:<20} {done['because'] if done['verdict'] != 'identical' else ''}")
    identical = sum(verdict == "identical" for verdict in verdicts.values())
    print(f"identical: {identical} of {len(verdicts)} at {options.threads} thread(s), {options.rows:,} rows")
    print(json.dumps({"identical": identical, "of": len(verdicts), "verdicts": verdicts, "threads": options.threads}))


if __name__ == "__main__":
    main()
