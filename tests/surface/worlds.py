"""Customers who leave or stay: frames to train on, files of features, small and seeded."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.core.clock import FixedClock
from seatrial.surface import FeatureDefinition, TrainingConfig

LOGISTIC = "sklearn.linear_model.LogisticRegression"
NOON = datetime(2024, 3, 10, 12, tzinfo=UTC)
CLOCK = FixedClock(NOON)
TIME = pa.timestamp("us", tz="UTC")


def config(**changes) -> TrainingConfig:
    given = {
        "experiment_name": "churn",
        "model_name": "churn_model",
        "target_column": "left",
        "feature_columns": ["spend", "visits"],
    }
    return TrainingConfig(**(given | changes))


def frame(rows=600, seed=0, signal=3.0) -> pd.DataFrame:
    """Customers with a spend and visits that tell who left; as float64 and int64."""
    random = np.random.default_rng(seed)
    spend = random.normal(size=rows)
    visits = random.integers(0, 10, rows)
    left = signal * spend + 0.1 * signal * (visits - 4.5) + random.normal(size=rows) > 0
    return pd.DataFrame({"spend": spend, "visits": visits, "left": left.astype(np.int64)})


def at(text: str) -> datetime:
    """2024 in UTC from "03-10T12:00"."""
    return datetime.fromisoformat(f"2024-{text}+00:00")


def feature(name, dtype="float", **changes) -> FeatureDefinition:
    given = {"description": f"{name} of a customer", "entity": "customer", "source_table": "customers"}
    return FeatureDefinition(name, dtype, **(given | changes))


def write(path, rows, **types) -> str:
    """A Parquet file of rows (customer_id, event, created, and values by name); the path as text."""
    names = [name for name in rows[0] if name not in ("event", "created")]
    columns = {name: pa.array([row[name] for row in rows], types.get(name)) for name in names}
    columns["event_timestamp"] = pa.array([row["event"] for row in rows], TIME)
    columns["created_timestamp"] = pa.array([row.get("created", row["event"]) for row in rows], TIME)
    pq.write_table(pa.table(columns), path)
    return str(path)
