"""A small project with a view, a function and a model, for tests of trainings."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

START = datetime(2024, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIME = pa.timestamp("us", "UTC")
PROJECT = """
from seatrial import *

carrier = Entity("carrier")
departures = ParquetSource("departures.parquet", event_timestamp="at", event_key=["flight"])


@feature_view(entity=carrier, source=departures, ttl="7d")
class carrier_delay:
    mean_24h = agg.mean("delay", window="24h")


@on_request
def share(distance: float, carrier_delay__mean_24h: float) -> float:
    return distance / (1 + carrier_delay__mean_24h)


Model("late", task="binary", target="late", key=["flight"],
      labels=ParquetSource("scheduled.parquet", event_timestamp="at", label_known_at="known"),
      features=[carrier_delay, share, "request:distance"],
      estimator="lightgbm.LGBMClassifier",
      params={"n_estimators": 20, "num_leaves": 7, "subsample": 0.8, "subsample_freq": 1},
      cv_folds=3, gates=[Gate.at_least("roc_auc", 0.55)])
"""


def write_project(folder: Path, rows: int = 400) -> Path:
    """The project file and its data."""
    (folder / "project.py").write_text(PROJECT)
    random = np.random.default_rng(0)
    at = [START + hour * HOUR for hour in range(rows)]
    distance, delay = random.normal(size=rows), np.round(random.gamma(2, 8, rows), 3)
    carrier = np.array(["AA", "BB", "CC"])[random.integers(0, 3, rows)]
    flight = [f"F{number:04}" for number in range(rows)]
    late = distance + 0.05 * delay + random.normal(size=rows) > 1
    known, times = pa.array([time + 3 * HOUR for time in at], TIME), pa.array(at, TIME)
    scheduled = {"flight": flight, "carrier": carrier, "distance": distance, "late": late, "at": times, "known": known}
    pq.write_table(pa.table(scheduled), folder / "scheduled.parquet")
    departures = {"flight": flight, "carrier": carrier, "delay": delay, "at": times}
    pq.write_table(pa.table(departures), folder / "departures.parquet")
    return folder


def edit(folder: Path, old: str, new: str) -> None:
    """Change the project file."""
    text = (folder / "project.py").read_text()
    assert old in text
    (folder / "project.py").write_text(text.replace(old, new))


def rewrite(folder: Path, source: str, change) -> None:
    """Change the rows of a source."""
    path = folder / f"{source}.parquet"
    pq.write_table(change(pq.read_table(path)), path)


def nudged(table: pa.Table, column: str = "delay", row: int = 7, by: float = 1e-12) -> pa.Table:
    """The table with one cell moved a little."""
    values = table[column].to_numpy().copy()
    values[row] += by
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def git(folder: Path, *words: str) -> str:
    """What git says in the folder."""
    who = {
        f"GIT_{role}_{part}": "tests@example.invalid" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    done = subprocess.run(
        ["git", "-C", str(folder), "-c", "commit.gpgsign=false", *words],
        env={**os.environ, **who}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()
