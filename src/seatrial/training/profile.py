"""What did the model's inputs, scores and labels look like when it was trained?

The reference profile goes into the release; drift reports compare production with it. Plain values, with a format
number. Only model inputs are profiled: keys that merely look features up may name persons and stay out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task

FORMAT = 1
MOST_VALUES = 200
QUANTILES = 100
SCORE_BINS = 50


def reference_profile(
    task: Task, inputs: Mapping[str, NDArray[Any]], scores: NDArray[np.float64], labels: NDArray[np.float64]
) -> dict[str, Any]:
    """The profile of the rows that a model was trained on.

    inputs: for each input (n,) float64 with NaN for missing, or objects (str or None) for a category.
    scores: (m,) of rows that the scoring fit had not seen: in-sample scores are too sure to compare with.
    labels: (n,) of all rows. Returns plain values; missing numbers (of an all-missing column) are null.
    """
    profile: dict[str, Any] = {
        "format": FORMAT,
        "rows": int(labels.size),
        "inputs": {
            name: _category(values) if values.dtype == object else _numeric(values) for name, values in inputs.items()
        },
        "scores": _numeric(scores) | {"of": "test part", "histogram": _histogram(task, scores)},
        "labels": {"rate": float(labels.mean())} if task == "binary" else _numeric(labels),
    }
    return profile


def _numeric(values: NDArray[np.float64]) -> dict[str, Any]:
    """Counts, moments, and the edges of up to 100 bins of equal mass with the rows in each.

    edges: the distinct quantiles, ascending; counts: rows between neighbours, the last bin closed on both sides.
    """
    present = values[~np.isnan(values)]
    plain: dict[str, Any] = {
        "type": "numeric",
        "count": int(values.size),
        "missing": int(values.size - present.size),
    }
    if not present.size:
        return plain | {"mean": None, "std": None, "min": None, "max": None, "edges": [], "counts": []}
    edges = np.unique(np.quantile(present, np.linspace(0, 1, QUANTILES + 1)))
    counts = np.histogram(present, edges)[0] if edges.size > 1 else np.array([present.size])
    return plain | {
        "mean": float(present.mean()),
        "std": float(present.std()),
        "min": float(present.min()),
        "max": float(present.max()),
        "edges": edges.tolist(),
        "counts": counts.tolist(),
    }


def _category(values: NDArray[Any]) -> dict[str, Any]:
    """The counts of the 200 most frequent values, the rest as one number."""
    found = Counter(value for value in values if value is not None)
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
        "type": "category",
        "count": int(values.size),
        "missing": int(values.size - found.total()),
        "distinct": len(ranked),
        "values": dict(ranked[:MOST_VALUES]),
        "other": sum(count for _, count in ranked[MOST_VALUES:]),
    }


def _histogram(task: Task, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Rows in 50 bins of equal width: over [0, 1] for probabilities, else over the scores' own range."""
    within = (0.0, 1.0) if task == "binary" else (float(scores.min()), float(scores.max()))
    counts, edges = np.histogram(scores, SCORE_BINS, range=within)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
