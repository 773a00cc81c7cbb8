"""From a training set to a judged fit: what was learned, how good is it, and may it become a version?

One function, `fit`, in a fixed order: rows that count, split, fit on the training part, evaluation on the test
part, cross-validation within the training part, gates and, only when they pass, a refit on every row known at
the cut-off. It takes values and returns values; nothing is stored here, so a failure leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seatrial.core.clock import monotonic
from seatrial.core.signature import Class, Rows, Signature, Task, encode, places
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan
from seatrial.stats.metrics import measure
from seatrial.training.estimator import controlled, describe, importance, make_estimator
from seatrial.training.evaluation import CrossValidation, PartFit, constant_baseline, cross_validate, fit_part
from seatrial.training.gates import Evidence, GateResult, judge
from seatrial.training.model import Model
from seatrial.training.profile import reference_profile
from seatrial.training.rows import AT, KNOWN_AT, Indices, TrainingRefused, TrainingRows, training_rows
from seatrial.training.split import Parts, folds, split, summary

if TYPE_CHECKING:
    from seatrial.releases.native import NativeModel

FORMAT = 1
METRICS_OF = "the fit on the training part, measured on the test part"

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as a fit goes on."""


class ChampionNotComparable(TrainingRefused):
    """The champion could not score the test rows, or gave something else than one score for each."""

    code = "training.champion_not_comparable"


@dataclass(frozen=True)
class ChampionScores:
    """The model that is live now, for the gate that compares with it.

    name: how messages call it ("late 3"). score: given the test rows (a table with the training set's columns),
    answers float64 (n,) in their order, or (n, C) in the order of its own `classes`.
    """

    name: str
    score: Callable[[pa.Table], NDArray[np.float64]]
    classes: tuple[Class, ...] = ()


@dataclass(frozen=True)
class Fitted:
    """A judged fit.

    signature, native: of the refit on every known row; `native` is None when a gate refused, and `signature` is then
        that of the training part.
    metrics: of the test part, by the fit on the training part (`metrics_of` says so); None where not defined.
    baseline: the same metrics for the training part's mean label as a constant prediction.
    cv: cross-validation on training rows; None with cv_folds=0.
    split: kind, counts, times, rows purged and left out. importance: inputs by weight, heaviest first; may be empty.
    estimator: class and effective parameters.
    warnings: inputs that never change, and what the estimator warned of in its own words.
    timings: seconds by stage. profile: see `training.profile`.
    parity_rows: float32 (m, k), the test rows, then the other known rows, encoded with `signature`.
    test_scores: key columns, at, label_known_at, label, score of the test part; of a multiclass model the score is the
        likeliest class's probability, `predicted` that class, and `score_CLASS` the probability of each.
    """

    model: str
    task: Task
    signature: Signature
    plan: FeaturePlan
    native: NativeModel | None
    metrics: dict[str, float | None]
    baseline: dict[str, float | None]
    cv: CrossValidation | None
    gates: tuple[GateResult, ...]
    passed: bool
    split: dict[str, Any]
    importance: dict[str, float]
    estimator: dict[str, Any]
    seed: int
    threads: int
    warnings: tuple[str, ...]
    timings: dict[str, float]
    profile: dict[str, Any]
    parity_rows: Rows
    test_scores: pa.Table
    metrics_of: str = METRICS_OF

    def as_plain(self) -> dict[str, Any]:
        """What a run's record keeps of the fit; arrays, the native model and the profile are kept as objects."""
        return {
            "format": FORMAT,
            "model": self.model,
            "task": self.task,
            "metrics": self.metrics,
            "metrics_of": self.metrics_of,
            "baseline": self.baseline,
            "cv": None if self.cv is None else self.cv.as_plain(),
            "gates": [result.as_plain() for result in self.gates],
            "passed": self.passed,
            "split": self.split,
            "importance": self.importance,
            "estimator": self.estimator,
            "inputs": list(self.signature.inputs),
            "seed": self.seed,
            "threads": self.threads,
            "warnings": list(self.warnings),
            "timings": self.timings,
        }


def fit(
    model: Model,
    rows: pa.Table,
    plan: FeaturePlan,
    request: Sequence[Field],
    *,
    cutoff_us: int | None = None,
    champion: ChampionScores | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Fit, evaluate and judge `model` on a training set.

    rows: one row per thing to predict: the model's key, `at` and `label_known_at` (timestamp[us, UTC]; both absent
        for labels without times), its target, every request field and every feature column.
    request: the fields of a request; they go into the signature.
    cutoff_us: only labels known by then count (microseconds since 1970, UTC); None: all that are known.

    The same arguments give the same model, in any process with the same environment and number of threads.
    Raises a TrainingRefused when the rows or the estimator do not allow it; a gate that says no is no error but
    `passed=False`, and then nothing is refitted.
    """
    watch = _Watch(progress or _silent)
    heard: list[str] = []
    make_estimator(model)  # a wrong estimator is told before the rows are touched
    with watch.stage("rows"):
        known = training_rows(model, rows, cutoff_us=cutoff_us)
        parts = split(model, known)
        made = folds(model, known, parts.train) if model.cv_folds else []
    heard += [f"input '{name}' has the same value in every row" for name in known.constant]
    with controlled(model, heard):
        with watch.stage("fit"):
            fitted = fit_part(model, known, request, parts.train)
            _capture(fitted, model.task)  # what cannot be kept is told before the long stages
        with watch.stage("evaluate"):
            scores = fitted.score(model, known, parts.test)
            metrics = measure(model.task, known.labels[parts.test], scores)
        cv = None
        if made:
            with watch.stage("cross-validate", total=len(made)) as done:
                cv = cross_validate(model, known, request, made, done)
        with watch.stage("judge"):
            gates = judge(model.gates, _evidence(model, known, parts, metrics, cv, champion))
            passed = all(result.passed for result in gates)
        native = None
        last = fitted
        if passed:
            with watch.stage("refit"):
                last = fit_part(model, known, request, np.arange(known.size))
                native = _capture(last, model.task)
    with watch.stage("profile"):
        rest = np.setdiff1d(np.arange(known.size), parts.test)
        parity_rows, _ = encode(last.signature, known.at(np.concatenate([parts.test, rest])))
        profile = reference_profile(model.task, known.columns, scores, known.labels, known.at_us, classes=known.classes)
    return Fitted(
        model=model.name,
        task=model.task,
        signature=last.signature,
        plan=plan,
        native=native,
        metrics=metrics,
        baseline=constant_baseline(model, known, parts),
        cv=cv,
        gates=gates,
        passed=passed,
        split=summary(model, known, parts) | {"unseen": fitted.unseen, "refit_rows": known.size if passed else 0},
        importance=importance(last.estimator, last.signature.inputs),
        estimator=describe(last.estimator),
        seed=model.seed,
        threads=model.threads,
        warnings=tuple(heard),
        timings=watch.seconds,
        profile=profile,
        parity_rows=parity_rows,
        test_scores=_test_scores(model, known, parts.test, scores),
    )


class _Watch:
    """Measures stages and tells the caller's progress of them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, *, total: int = 1) -> Iterator[Callable[[int], None]]:
        def done(count: int) -> None:
            self._progress(name, count, total)

        begun = monotonic()
        done(0)
        yield done
        self.seconds[name] = round(monotonic() - begun, 6)
        done(total)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _capture(fitted: PartFit, task: Task) -> NativeModel:
    from seatrial.releases.native import capture

    return capture(fitted.estimator, task)


def _evidence(
    model: Model,
    rows: TrainingRows,
    parts: Parts,
    metrics: dict[str, float | None],
    cv: CrossValidation | None,
    champion: ChampionScores | None,
) -> Evidence:
    compared = champion is not None and any(gate.kind == "not_worse_than_champion" for gate in model.gates)
    return Evidence(
        task=model.task,
        metrics=metrics,
        cv_mean=cv.mean if cv else {},
        cv_std=cv.std if cv else {},
        champion=_champion_metrics(model, rows, parts.test, champion) if champion and compared else None,
        champion_name=champion.name if champion else "",
    )


def _champion_metrics(
    model: Model, rows: TrainingRows, test: Indices, champion: ChampionScores
) -> dict[str, float | None]:
    scores = np.asarray(champion.score(rows.table.take(pa.array(test))), dtype=np.float64)
    if rows.classes:
        of_all = np.zeros((test.size, len(rows.classes) + 1))  # what the champion says of other classes is left out
        if scores.shape == (test.size, len(champion.classes)):
            of_all[:, places(champion.classes, rows.classes).astype(np.intp)] = scores
            scores = of_all[:, :-1]
    if scores.shape[:1] != test.shape or scores.ndim != 1 + bool(rows.classes) or not np.isfinite(scores).all():
        raise ChampionNotComparable(
            f"the champion ({champion.name}) gave scores of the shape {scores.shape}, "
            f"{int((~np.isfinite(scores)).sum())} of them not finite, for {test.size} test rows of '{model.name}'.",
            expected="One finite score for each test row is expected.",
        )
    return measure(model.task, rows.labels[test], scores)


def _test_scores(model: Model, rows: TrainingRows, test: Indices, scores: NDArray[np.float64]) -> pa.Table:
    named = [name for name in dict.fromkeys((*model.key, AT, KNOWN_AT)) if name in rows.table.column_names]
    columns = {name: rows.table.column(name).take(pa.array(test)) for name in named}
    if not rows.classes:
        return pa.table(columns | {"label": pa.array(rows.labels[test]), "score": pa.array(scores)})
    of_labels, decided = (
        pa.array([rows.classes[place] for place in found.astype(np.intp).tolist()])
        for found in (rows.labels[test], scores.argmax(axis=1))
    )
    columns |= {"label": of_labels, "predicted": decided, "score": pa.array(scores.max(axis=1))}
    return pa.table(
        columns | {f"score_{name}": pa.array(of) for name, of in zip(rows.classes, scores.T.copy(), strict=True)}
    )
