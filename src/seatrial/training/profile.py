"""What did the model's inputs, scores and labels look like when it was trained?

The reference profile goes into the release; drift reports compare production with it. Plain values, with a format
number. Only model inputs are profiled: keys that merely look features up may name persons and stay out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Class, Task
from seatrial.core.windows import DAY_US
from seatrial.stats.profile import FORMAT, category_profile, numeric_profile, weekly_distances

SCORE_BINS = 50


def reference_profile(
    task: Task,
    inputs: Mapping[str, NDArray[Any]],
    scores: NDArray[np.float64],
    labels: NDArray[np.float64],
    at_us: NDArray[np.int64] | None = None,
    *,
    classes: Sequence[Class] = (),
) -> dict[str, Any]:
    """The profile of the rows that a model was trained on.

    inputs: for each input (n,) float64 with NaN for missing, or objects (str or None) for a category.
    scores: (m,) of rows that the scoring fit had not seen: in-sample scores are too sure to compare with. (m, C) for
        multiclass, in the order of `classes`: then `scores` tells of the likeliest class's probability, and `predicted`
        how often each class was the likeliest.
    labels: (n,) of all rows. at_us: (n,) their instants, when they have any: then `weeks` of each input says how far
        each whole week lies from all of them, and `rows_per_day` how many there are.
    Returns plain values; missing numbers (of an all-missing column) are null.
    """
    told: dict[str, Any] = {}
    if classes:
        names = np.array([str(name) for name in classes], dtype=object)
        of_labels = category_profile(names[labels.astype(np.intp)])
        told = {"predicted": category_profile(names[scores.argmax(axis=1)]) | {"of": "test part"}}
        scores = scores.max(axis=1)
    else:
        of_labels = {"rate": float(labels.mean())} if task == "binary" else numeric_profile(labels)
    profile: dict[str, Any] = {
        "format": FORMAT,
        "rows": int(labels.size),
        "inputs": {name: _column(values, at_us) for name, values in inputs.items()},
        "scores": numeric_profile(scores) | {"of": "test part", "histogram": _histogram(task, scores)},
        "labels": of_labels,
    } | told
    if at_us is not None and at_us.size:
        profile["rows_per_day"] = at_us.size / max((int(at_us.max()) - int(at_us.min())) / DAY_US, 1.0)
    return profile


def _column(values: NDArray[Any], at_us: NDArray[np.int64] | None) -> dict[str, Any]:
    plain = category_profile(values) if values.dtype == object else numeric_profile(values)
    return plain if at_us is None else plain | {"weeks": weekly_distances(plain, values, at_us)}


def _histogram(task: Task, scores: NDArray[np.float64]) -> dict[str, Any]:
    """Rows in 50 bins of equal width: over [0, 1] for probabilities, else over the scores' own range."""
    within = (0.0, 1.0) if task != "regression" else (float(scores.min()), float(scores.max()))
    counts, edges = np.histogram(scores, SCORE_BINS, range=within)
    return {"edges": edges.tolist(), "counts": counts.tolist()}
