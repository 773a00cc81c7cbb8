"""A project with a model that is live and may be retrained: two hundred rows a day, each label known an hour later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seatrial import Project
from seatrial.testing import FakeClock

START = datetime(2024, 1, 1, tzinfo=UTC)
TRAINED = START + timedelta(days=10)
PER_DAY = 200
PROJECT = """
from seatrial import *

rows = ParquetSource("rows.parquet", event_timestamp="at", label_known_at="known",
                     expectations=[expect.between("x", -50, 50)])
Model("late", task="binary", target="late", key=["flight"], labels=rows, features=[{features}],
      estimator="{estimator}", params={params}, cv_folds=0,
      slices=["where"], gates=[Gate.at_least("roc_auc", {gate}){more}], owner="ops", runbook="docs/runbook.md")
Deployment("late", strategy={strategy})
Retrain("late", {retrain})
"""
LOGISTIC = "sklearn.linear_model.LogisticRegression"


def write(
    folder: Path,
    *,
    retrain: str = 'on=["performance"]',
    strategy: str = "BlueGreen()",
    estimator: str = LOGISTIC,
    params: str = "{}",
    gate: float = 0.5,
    features: str = '"request:x", "request:y"',
    more: str = "",
) -> None:
    """The project file."""
    text = PROJECT.format(
        retrain=retrain, strategy=strategy, estimator=estimator, params=params, gate=gate, features=features, more=more
    )
    (folder / "project.py").write_text(text)


def rows(days: int = 40, *, turns: int | None = 10, per_day: int = PER_DAY, seed: int = 0) -> pa.Table:
    """Rows of so many days. turns: the day from which on x matters, which it did not before; None: never."""
    random = np.random.default_rng(seed)
    n = days * per_day
    day = np.repeat(np.arange(days), per_day)
    x, y = random.normal(size=(2, n))
    matters = np.where(day >= (days if turns is None else turns), 2.0, 0.0)
    late = random.random(n) < 1 / (1 + np.exp(-(matters * x + y - 1)))
    at = [START + timedelta(seconds=round(place * 86_400 / per_day)) for place in range(n)]
    times = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "flight": [f"F{number}" for number in range(n)], "x": x, "y": y, "late": late,
            "where": np.array(["north", "south"])[random.integers(0, 2, n)],
            "at": pa.array(at, times), "known": pa.array([one + timedelta(hours=1) for one in at], times),
        }
    )  # fmt: skip


def made(folder: Path, table: pa.Table | None = None, **declared: object) -> Project:
    """A project whose first release is live since `TRAINED`."""
    write(folder, **declared)  # type: ignore[arg-type]
    pq.write_table(rows() if table is None else table, folder / "rows.parquet")
    project = opened(folder, TRAINED)
    project.release(project.train("late").run)
    project.deploy("late")
    return project


def opened(folder: Path, when: datetime, actor: str = "ada") -> Project:
    """The project, when it is `when`."""
    return Project(folder, clock=FakeClock(when), actor=actor)
