"""What is kept of a training that failed half-way: a record like any other, with the reason instead of a model."""

from __future__ import annotations

from typing import Any

from seatrial.core.errors import SeatrialError
from seatrial.training.model import Model
from seatrial.training.pipeline import FORMAT, METRICS_OF
from seatrial.training.rows import input_names


def failed_body(model: Model, error: Exception, stage: str) -> dict[str, Any]:
    """The body of a failed run: `state` "failed", and `error` with code, words and the stage.

    Every key that readers of runs look for is there; what was not reached is empty.
    """
    told = error if isinstance(error, SeatrialError) else None
    return {
        "format": FORMAT,
        "state": "failed",
        "error": {
            "code": told.code if told else "unexpected",
            "found": told.found if told else f"{type(error).__name__}: {error}",
            "expected": told.expected if told else "",
            "next": told.next if told else "",
            "stage": stage,
        },
        "model": model.name,
        "task": model.task,
        "metrics": {},
        "metrics_of": METRICS_OF,
        "baseline": {},
        "cv": None,
        "gates": [],
        "passed": False,
        "split": None,
        "importance": {},
        "estimator": {},
        "inputs": list(input_names(model)),
        "seed": model.seed,
        "threads": model.threads,
        "warnings": [],
        "timings": {},
        "files": {},
    }
