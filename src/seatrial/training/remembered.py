"""Remembered folds: cross-validation that was done before with the very same rows, folds, estimator and machine.

Folds are most of a training's time, and what comes after them (gates, thresholds, slices) is what is tried most often.
Only an installed estimator that is named by its path, with plain parameters, is told by its name; anything else is
fitted again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from seatrial.core.identity import digest, value_digest
from seatrial.core.types import Field
from seatrial.data.snapshot import content
from seatrial.training.closure import INSTALLED
from seatrial.training.estimator import describe, layout, make_estimator
from seatrial.training.evaluation import FoldScores, fold_scores
from seatrial.training.model import Model
from seatrial.training.rows import TrainingRows, input_names
from seatrial.training.split import Parts
from seatrial.training.steps import Input, Steps


def remembered_folds(
    steps: Steps,
    machine: str,
    model: Model,
    rows: TrainingRows,
    request: Sequence[Field],
    made: Sequence[Parts],
    progress: Callable[[int], None],
) -> list[FoldScores]:
    """As `evaluation.fold_scores`. machine: the digest of packages, processor, BLAS and threads."""
    if not told_by_name(model):
        return fold_scores(model, rows, request, made, progress)
    facts = {
        "estimator": describe(make_estimator(model)),
        "seed": model.seed,
        "threads": model.threads,
        "task": model.task,
        "target": model.target,
        "inputs": list(input_names(model)),
        "layout": layout(model),
    }
    indices = [digest(part.astype(np.int64).tobytes()) for one in made for part in (one.train, one.test)]
    given: dict[str, Input[Any]] = {
        "model": Input(value_digest([facts, repr(sorted(model.params.items()))]), lambda: model),
        "rows": Input(content(rows.table).id, lambda: rows),
        "request": Input(value_digest(msgspec.to_builtins(list(request))), lambda: request),
        "made": Input(value_digest(indices), lambda: made),
        "progress": Input("changes nothing", lambda: progress),
    }
    kept = steps.run(scores_of_folds, inputs=given, name="cross-validate", uses={"machine": machine})
    scored = [FoldScores(parts, np.asarray(one, dtype=np.float64)) for parts, one in zip(made, kept.value, strict=True)]
    progress(len(scored))
    return scored


def scores_of_folds(
    model: Model,
    rows: TrainingRows,
    request: Sequence[Field],
    made: Sequence[Parts],
    progress: Callable[[int], None],
) -> list[Any]:
    """The scores of each fold's test rows, as lists."""
    return [fold.scores.tolist() for fold in fold_scores(model, rows, request, made, progress)]


def told_by_name(model: Model) -> bool:
    """Whether an import path and plain parameters say all of the estimator that its package's version does not."""
    if not isinstance(model.estimator, str) or not all(_plain(value) for value in model.params.values()):
        return False
    try:
        found = find_spec(model.estimator.partition(".")[0])
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None and bool(INSTALLED & set(Path(found.origin).parts))


def _plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_plain(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _plain(one) for name, one in value.items())
    return value is None or isinstance(value, bool | int | float | str)
