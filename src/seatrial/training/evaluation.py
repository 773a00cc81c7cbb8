"""How good is a fit on rows that it has not seen?

One fit on the training part is measured on the test part; cross-validation measures as many fits as there are
folds, all within the training part, so that the test part is seen by nobody before the gates look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Signature, encode
from seatrial.core.types import Field
from seatrial.stats.metrics import measure
from seatrial.training.estimator import fit_estimator, score
from seatrial.training.model import Model
from seatrial.training.rows import Indices, TrainingRows
from seatrial.training.split import Parts


@dataclass(frozen=True)
class Fold:
    """One fold: how many rows it learned from, was tested on and purged, and its metrics."""

    train: int
    test: int
    purged: int
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class CrossValidation:
    """The folds, in order. mean, std: over the folds, std in the population form; None where a fold has none."""

    folds: tuple[Fold, ...]

    @property
    def mean(self) -> dict[str, float | None]:
        return self._over(np.mean)

    @property
    def std(self) -> dict[str, float | None]:
        return self._over(np.std)

    def as_plain(self) -> dict[str, Any]:
        return {
            "folds": [
                {"train": fold.train, "test": fold.test, "purged": fold.purged, "metrics": fold.metrics}
                for fold in self.folds
            ],
            "mean": self.mean,
            "std": self.std,
        }

    def _over(self, fold_statistic: Callable[[list[float]], Any]) -> dict[str, float | None]:
        over: dict[str, float | None] = {}
        for name in self.folds[0].metrics:
            values = [value for fold in self.folds if (value := fold.metrics[name]) is not None]
            over[name] = float(fold_statistic(values)) if len(values) == len(self.folds) else None
        return over


@dataclass(frozen=True)
class PartFit:
    """An estimator fitted on one part of the rows, and the signature that encodes for it.

    learned: of a multiclass target the places, among all classes, of those that the part has.
    """

    estimator: Any
    signature: Signature
    unseen: dict[str, int]
    learned: NDArray[np.intp] | None = None

    def score(self, model: Model, rows: TrainingRows, indices: Indices) -> NDArray[np.float64]:
        inputs, unseen = encode(self.signature, rows.at(indices))
        self.unseen.update(unseen)
        scores = score(model, self.estimator, inputs, self.signature.inputs)
        if self.learned is None or self.learned.size == len(self.signature.classes):
            return scores
        of_all = np.zeros((len(scores), len(self.signature.classes)))  # nothing is known of the others
        of_all[:, self.learned] = scores
        return of_all


def fit_part(model: Model, rows: TrainingRows, request: Sequence[Field], indices: Indices) -> PartFit:
    """Fit on some rows; categories are those of these rows alone. Raises EstimatorFailed."""
    signature = rows.signature(model.task, request, indices)
    inputs, _ = encode(signature, rows.at(indices))
    labels = rows.labels[indices]
    learned = np.unique(labels).astype(np.intp) if rows.classes else None
    return PartFit(fit_estimator(model, inputs, labels, signature.inputs), signature, {}, learned)


def cross_validate(
    model: Model,
    rows: TrainingRows,
    request: Sequence[Field],
    made: Sequence[Parts],
    progress: Callable[[int], None],
) -> CrossValidation:
    """A fit for each of the folds, measured on the fold's own test rows. progress: called with the folds done."""
    measured = []
    for number, parts in enumerate(made, start=1):
        fitted = fit_part(model, rows, request, parts.train)
        metrics = measure(model.task, rows.labels[parts.test], fitted.score(model, rows, parts.test))
        measured.append(Fold(int(parts.train.size), int(parts.test.size), int(parts.purged.size), metrics))
        progress(number)
    return CrossValidation(tuple(measured))


def constant_baseline(model: Model, rows: TrainingRows, parts: Parts) -> dict[str, float | None]:
    """Metrics on the test part of the training part's mean label, or its class shares, predicted for every row: what
    skill starts from."""
    if rows.classes:
        shares = np.bincount(rows.labels[parts.train].astype(np.intp), minlength=len(rows.classes)) / parts.train.size
        return measure(model.task, rows.labels[parts.test], np.tile(shares, (parts.test.size, 1)))
    constant = np.full(parts.test.size, rows.labels[parts.train].mean())
    return measure(model.task, rows.labels[parts.test], constant)
