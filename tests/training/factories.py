"""Training sets to learn from: small, seeded, with a signal that any estimator finds."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from seatrial.core.types import Field
from seatrial.data.sources import ParquetSource
from seatrial.features.plan import FeaturePlan
from seatrial.training.model import Model
from seatrial.training.pipeline import fit

START = datetime(2013, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
TIME = pa.timestamp("us", tz="UTC")
LOGISTIC = "sklearn.linear_model.LogisticRegression"
HISTOGRAM = "sklearn.ensemble.HistGradientBoostingClassifier"
LIGHTGBM = "lightgbm.LGBMClassifier"


def labels_source(*, timed=True):
    return ParquetSource(
        "labels.parquet",
        event_timestamp="at" if timed else None,
        label_known_at="label_known_at" if timed else None,
    )


def model(*, timed=True, **changes):
    given = {
        "name": "late",
        "task": "binary",
        "target": "late",
        "labels": labels_source(timed=timed),
        "key": ["flight"],
        "features": ["request:distance", "request:carrier", "request:stops"],
        "estimator": LOGISTIC,
        "cv_folds": 3,
    }
    return Model(**(given | changes))


def table(rows=400, *, timed=True, lag=3 * HOUR, task="binary", seed=0):
    """One row an hour; the label is known `lag` later and follows distance and carrier."""
    random = np.random.default_rng(seed)
    distance = random.normal(size=rows)
    late_carrier = random.random(rows) < 0.3
    signal = 1.5 * distance + 2 * late_carrier - 0.5
    target = signal + random.normal(size=rows)
    columns = {
        "flight": pa.array([f"F{number:05}" for number in range(rows)]),
        "distance": pa.array(distance),
        "carrier": pa.array(np.where(late_carrier, "ZZ", np.where(distance > 0, "AA", "BB")).tolist()),
        "stops": pa.array(random.integers(0, 4, rows)),
        "late": pa.array(target > 0) if task == "binary" else pa.array(target),
    }
    if timed:
        at = [START + hour * HOUR for hour in range(rows)]
        columns["at"] = pa.array(at, TIME)
        columns["label_known_at"] = pa.array([time + lag for time in at], TIME)
    return pa.table(columns)


def put(given, name, values, kind=None):
    """The table with one column replaced."""
    column = pa.array(values, kind) if kind else pa.array(values)
    return given.set_column(given.column_names.index(name), name, column)


def request_of(declared):
    kinds = {"carrier": "category", "stops": "int"}
    return tuple(Field(name, kinds.get(name, "float")) for name in declared.request_features)


def run(declared, rows, **options):
    return fit(declared, rows, FeaturePlan(), request_of(declared), **options)
