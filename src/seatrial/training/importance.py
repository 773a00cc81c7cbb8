"""Which inputs does the fit rely on? What is lost when the values of one are shuffled.

What an estimator tells of itself (gains of splits, coefficients) says what it used in training; permutation says what
the predictions of rows that it has not seen would lose (Breiman 2001, section 10). Correlated inputs stand in for each
other, so two of them may both seem to matter little.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Task

ROWS = 1000
"""Test rows that are looked at, at most."""
REPEATS = 3
SCORED = 60_000
"""Rows scored in all, at most: with many inputs fewer rows are looked at, but never fewer than 50."""

Column = NDArray[Any]
Score = Callable[[Mapping[str, Column]], NDArray[np.float64]]


def permutation_importance(
    task: Task, columns: Mapping[str, Column], labels: NDArray[np.float64], score: Score, *, seed: int
) -> dict[str, Any]:
    """By input how much the mean loss of the rows rises when its values are shuffled among them.

    columns: the test part's inputs, (m,) each. labels: (m,). score: the fit's scores of such columns.
    The loss is `log_loss`, for regression `squared_error`. Returns the loss, the rows looked at, repeats, and for each
    input mean and standard deviation (population form) over the repeats, the largest first; near 0: not relied on.
    """
    random = np.random.default_rng(seed)
    most = min(ROWS, max(50, SCORED // (REPEATS * max(len(columns), 1))))
    chosen = np.arange(labels.size)
    if labels.size > most:
        chosen = np.sort(random.choice(labels.size, most, replace=False))
    rows, known = {name: column[chosen] for name, column in columns.items()}, labels[chosen]
    own = _loss(task, known, score(rows)).mean()
    orders = [random.permutation(chosen.size) for _ in range(REPEATS)]
    repeated = {name: np.concatenate([column] * REPEATS) for name, column in rows.items()}
    found = {}
    for name, column in rows.items():
        shuffled = repeated | {name: np.concatenate([column[order] for order in orders])}
        losses = _loss(task, np.tile(known, REPEATS), score(shuffled)).reshape(REPEATS, -1).mean(axis=1) - own
        found[name] = {"mean": float(losses.mean()), "std": float(losses.std())}
    return {
        "loss": "squared_error" if task == "regression" else "log_loss",
        "rows": int(chosen.size),
        "repeats": REPEATS,
        "inputs": dict(sorted(found.items(), key=lambda pair: (-pair[1]["mean"], pair[0]))),
    }


def _loss(task: Task, labels: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each row's loss, (m,)."""
    if task == "regression":
        return (labels - scores) ** 2
    told = scores[np.arange(labels.size), labels.astype(np.intp)] if scores.ndim == 2 else scores
    right = told if scores.ndim == 2 else np.where(labels == 1, told, 1 - told)
    return -np.log(np.maximum(right, float(np.finfo(np.float64).eps)))
