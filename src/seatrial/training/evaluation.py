"""How good is a fit on rows that it has not seen?

One fit on the training part is measured on the test part; cross-validation measures as many fits as there are
folds, all within the training part, so that the test part is seen by nobody before the gates look at it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.signature import Rows, Signature, encode
from seatrial.core.types import Field
from seatrial.stats.metrics import measure
from seatrial.training.estimator import fit_estimator, layout, score
from seatrial.training.model import Model
from seatrial.training.rows import Indices, TrainingRows
from seatrial.training.split import Parts
from seatrial.training.threshold import HALF, Threshold, choose


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
        """Scores of some rows; how many of their values were not seen in training is kept."""
        inputs, unseen = encode(self.signature, rows.at(indices))
        self.unseen.update(unseen)
        return self._scores(model, inputs)

    def score_columns(self, model: Model, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """Scores of columns that need not be the training rows' own."""
        inputs, _ = encode(self.signature, columns)
        return self._scores(model, inputs)

    def _scores(self, model: Model, inputs: Rows) -> NDArray[np.float64]:
        scores = score(model, self.estimator, inputs, self.signature.inputs)
        if self.learned is None or self.learned.size == len(self.signature.classes):
            return scores
        of_all = np.zeros((len(scores), len(self.signature.classes)))  # nothing is known of the others
        of_all[:, self.learned] = scores
        return of_all


@dataclass(frozen=True)
class FoldScores:
    """What a fold's fit, which had not seen them, said of the fold's test rows."""

    parts: Parts
    scores: NDArray[np.float64]


def fit_part(model: Model, rows: TrainingRows, request: Sequence[Field], indices: Indices) -> PartFit:
    """Fit on some rows; categories are those of these rows alone. Raises EstimatorFailed."""
    signature = rows.signature(model.task, request, indices, layout(model))
    if model.continues is not None:
        signature = model.continues.fitting(signature, rows, indices)
    inputs, _ = encode(signature, rows.at(indices))
    labels = rows.labels[indices]
    learned = np.unique(labels).astype(np.intp) if rows.classes else None
    return PartFit(fit_estimator(model, inputs, labels, signature.inputs), signature, {}, learned)


def fold_scores(
    model: Model,
    rows: TrainingRows,
    request: Sequence[Field],
    made: Sequence[Parts],
    progress: Callable[[int], None],
) -> list[FoldScores]:
    """A fit for each of the folds, asked about the fold's own test rows. progress: called with the folds done."""
    scored = []
    for number, parts in enumerate(made, start=1):
        fitted = fit_part(model, rows, request, parts.train)
        scored.append(FoldScores(parts, fitted.score(model, rows, parts.test)))
        progress(number)
    return scored


def cross_validation(
    model: Model, rows: TrainingRows, scored: Sequence[FoldScores], threshold: float
) -> CrossValidation:
    """Each fold's metrics, decisions at `threshold`."""
    return CrossValidation(
        tuple(
            Fold(
                int(fold.parts.train.size),
                int(fold.parts.test.size),
                int(fold.parts.purged.size),
                measured(model, rows.labels[fold.parts.test], fold.scores, threshold),
            )
            for fold in scored
        )
    )


def chosen_threshold(model: Model, rows: TrainingRows, scored: Sequence[FoldScores]) -> Threshold:
    """The operating threshold: of least cost on the folds' predictions, or 0.5 when no costs are stated."""
    if model.costs is None or not scored:
        return Threshold()
    labels = np.concatenate([rows.labels[fold.parts.test] for fold in scored])
    return choose(labels, np.concatenate([fold.scores for fold in scored]), model.costs)


def measured(
    model: Model, labels: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> dict[str, float | None]:
    """Every metric of the model's task, decisions at `threshold`; None where the rows do not define it."""
    return measure(model.task, labels, scores, threshold=threshold, quantile=model.quantile)


def constant_baseline(
    model: Model, rows: TrainingRows, parts: Parts, threshold: float = HALF
) -> dict[str, float | None]:
    """Metrics on the test part of the training part's mean label, or its class shares, predicted for every row: what
    skill starts from."""
    if rows.classes:
        shares = np.bincount(rows.labels[parts.train].astype(np.intp), minlength=len(rows.classes)) / parts.train.size
        return measured(model, rows.labels[parts.test], np.tile(shares, (parts.test.size, 1)), threshold)
    constant = np.full(parts.test.size, rows.labels[parts.train].mean())
    return measured(model, rows.labels[parts.test], constant, threshold)
