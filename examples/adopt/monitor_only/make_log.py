"""Makes a log as another service would have left it, so that there is something to monitor.

A clinic's model says which of the tumours that scikit-learn's data set describes are malignant. Four weeks of its
predictions are written, 150 an hour of the working day; in the last week another laboratory's device measures the
texture, and the malignant ones it shows are missed. The same rows come out every time; nothing is fetched.

    python make_log.py [FOLDER]     writes predictions.parquet and reference.parquet there (default: here)
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FEATURES = ["mean radius", "mean texture", "mean smoothness", "mean symmetry"]
START = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
DAYS, A_DAY = 28, 120
DEVICE = 21  # the day from which on the new device measures


def main(folder: Path) -> None:
    """Write both files."""
    random = np.random.default_rng(7)
    data = load_breast_cancer(as_frame=True).frame
    measured, malignant = data[FEATURES].to_numpy(), (data["target"] == 0).to_numpy().astype(int)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(measured, malignant)

    rows = random.integers(len(measured), size=DAYS * A_DAY)
    features = measured[rows] * random.normal(1, 0.02, (rows.size, len(FEATURES)))
    day = np.arange(rows.size) // A_DAY
    features[day >= DEVICE, 1] *= 0.7  # texture, by the new device
    scores = model.predict_proba(features)[:, 1]
    at = [START + timedelta(days=int(d), hours=8, minutes=4 * int(n % A_DAY)) for n, d in enumerate(day)]
    known = [one + timedelta(hours=float(hours)) for one, hours in zip(at, random.gamma(4, 6, rows.size), strict=True)]

    log = pa.table(
        {
            "request": [f"req-{n:05d}" for n in range(rows.size)],
            "scored_at": pa.array(at, pa.timestamp("ms", tz="UTC")),
            "model_version": ["2025-11"] * rows.size,
            **{name.replace(" ", "_"): features[:, i] for i, name in enumerate(FEATURES)},
            "clinic": random.choice(["north", "south"], rows.size).tolist(),
            "p_malignant": scores,
            "took_ms": random.gamma(2, 3, rows.size),
            "malignant": malignant[rows],
            "biopsy_at": pa.array(known, pa.timestamp("ms", tz="UTC")),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(log, folder / "predictions.parquet")
    pq.write_table(log.slice(0, 14 * A_DAY), folder / "reference.parquet")  # the two weeks that were looked through


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
