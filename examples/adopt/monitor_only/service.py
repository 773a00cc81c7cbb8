"""A FastAPI service that was there before, and the three lines that write its log.

uvicorn service:app
seatrial monitor --log log --map served.toml

A reference (--reference FILE) has to have the inputs that this service is asked with; reference.parquet has more.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI

from seatrial import PredictionLog  # 1

app = FastAPI()
log = PredictionLog(Path("log"))  # 2


@app.post("/predict")
def predict(features: dict[str, float]) -> dict[str, float | str]:
    score = score_of(features)
    written = log.write(model="malignant", features=features, prediction=score > 0.5, probability=score)  # 3
    return {"p_malignant": score, "prediction_id": written}


def score_of(features: dict[str, float]) -> float:
    """Whatever answered before."""
    return min(1.0, features["mean_radius"] / 40)
