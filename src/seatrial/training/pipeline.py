"""From a training set to a judged fit: what was learned, how good is it, and may it become a version?

One function, `fit`, in a fixed order: rows that count, split, fit on the training part, evaluation on the test part,
cross-validation within the training part, the threshold that its predictions ask for, metrics with their intervals and
by slice, gates and, only when they pass, a refit on every row known at the cut-off. It takes values and returns values;
nothing is stored here, so a failure leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from seatrial.core.clock import monotonic
from seatrial.core.signature import Class, Rows, Signature, Task, aligned, encode
from seatrial.core.types import Field
from seatrial.features.plan import FeaturePlan
from seatrial.stats.bootstrap import Difference, Resampling, difference, intervals, resample
from seatrial.stats.calibration import reliability
from seatrial.stats.metrics import confusion, losses, multiclass_confusion
from seatrial.training.continuing import FORGOTTEN
from seatrial.training.estimator import controlled, describe, importance, make_estimator
from seatrial.training.evaluation import (
    CrossValidation,
    FoldScores,
    PartFit,
    chosen_threshold,
    constant_baseline,
    cross_validation,
    fit_part,
    fold_scores,
    measured,
)
from seatrial.training.gates import Evidence, Gate, GateResult, judge
from seatrial.training.importance import permutation_importance
from seatrial.training.model import Model
from seatrial.training.profile import reference_profile
from seatrial.training.repeatable import refuse, repeated
from seatrial.training.rows import AT, KNOWN_AT, Indices, TrainingRefused, TrainingRows, training_rows
from seatrial.training.slices import Sliced, check_columns, sliced
from seatrial.training.split import Parts, folds, group_codes, split, split_kind, summary
from seatrial.training.threshold import HALF, Threshold

if TYPE_CHECKING:
    from seatrial.releases.native import NativeModel

FORMAT = 1
METRICS_OF = "the fit on the training part, measured on the test part"

TRAIN_ROWS = 20_000
"""Rows learned from that are scored again, at most, for the overfit gap."""
MIN_NEW = 200
"""Test rows that the champion has not learned from, with which both are compared on the same rows."""
ALL_ROWS_US = 1 << 62
"""Of a champion whose rows had no times: whatever is known now it may have learned from."""
TIMED, ROUNDS = 40, 5  # rows in a round, after some that warm up
MOST_CONFUSED = 50
"""Classes up to which a run's record holds how often each was taken for each."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) as a fit goes on."""


class ChampionNotComparable(TrainingRefused):
    """The champion could not score the test rows, or gave something else than one score for each."""

    code = "training.champion_not_comparable"


@dataclass(frozen=True)
class ChampionScores:
    """The model that is live now, for the gate that compares with it.

    name: how messages call it ("late 3"). score: given the test rows (a table with the training set's columns),
    answers float64 (n,) in their order, or (n, C) with columns in the order of `classes`. threshold: from which score
    on it decides "positive". learned_until_us: it was refitted on every row whose label was known by then; None:
    nobody knows which rows it learned from. metrics, intervals: of its own test part, before that refit.
    """

    name: str
    score: Callable[[pa.Table], NDArray[np.float64]]
    classes: tuple[Class, ...] = ()
    threshold: float = HALF
    learned_until_us: int | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Fitted:
    """A judged fit.

    signature, native: of the refit on every known row; `native` is None when a gate refused, and `signature` is then
        that of the training part.
    metrics: of the test part, by the fit on the training part (`metrics_of` says so); None where not defined.
    baseline: the same metrics for the training part's mean label as a constant prediction.
    cv: cross-validation on training rows; None with cv_folds=0.
    split: kind, counts, times, rows purged and left out. importance: inputs by weight, heaviest first; may be empty.
    permutation: what shuffling each input costs on test rows. estimator: class and effective parameters.
    threshold: from which score on a decision is positive, with the costs that chose it. confusion: of the test part,
        four counts for binary, for up to 50 classes a matrix. calibration: bins of a binary model's scores.
    intervals: of the metrics, with the method.
    slices: the test part by column. repeatable: whether two fits with one seed are the same.
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
    threshold: dict[str, Any] | None = None
    confusion: dict[str, Any] | None = None
    calibration: list[dict[str, float | int]] = field(default_factory=list)
    intervals: dict[str, Any] = field(default_factory=dict)
    slices: dict[str, Any] = field(default_factory=dict)
    permutation: dict[str, Any] = field(default_factory=dict)
    repeatable: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    metrics_of: str = METRICS_OF

    def as_plain(self) -> dict[str, Any]:
        """What a run's record keeps of the fit; arrays, the native model and the profile are kept as objects."""
        return {
            "format": FORMAT,
            "state": "finished",
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
            "permutation": self.permutation,
            "threshold": self.threshold,
            "confusion": self.confusion,
            "calibration": self.calibration,
            "intervals": self.intervals,
            "slices": self.slices,
            "repeatable": self.repeatable,
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
    of_project: Sequence[Gate] = (),
    unrepeatable: Literal["note", "refuse"] = "note",
    folds_by: Callable[..., list[FoldScores]] = fold_scores,
    progress: Progress | None = None,
) -> Fitted:
    """Fit, evaluate and judge `model` on a training set.

    rows: one row per thing to predict: the model's key, `at` and `label_known_at` (timestamp[us, UTC]; both absent
        for labels without times), its target, every request field and every feature column.
    request: the fields of a request; they go into the signature.
    cutoff_us: only labels known by then count (microseconds since 1970, UTC); None: all that are known.
    of_project: gates that every model of the project has. unrepeatable: what is done about an estimator that gives
        another model with the same seed. folds_by: what scores the folds, called like `evaluation.fold_scores`.

    The same arguments give the same model, in any process with the same environment and number of threads.
    Raises a TrainingRefused when the rows or the estimator do not allow it; a gate that says no is no error but
    `passed=False`, and then nothing is refitted.
    """
    watch = _Watch(progress or _silent)
    heard: list[str] = []
    make_estimator(model)  # a wrong estimator is told before the rows are touched
    with watch.stage("rows"):
        known = training_rows(model, rows, cutoff_us=cutoff_us)
        check_columns(f"model '{model.name}'", known.table, _sliced_by(model, known, of_project))
        parts = split(model, known)
        made = folds(model, known, parts.train) if model.cv_folds else []
    heard += [f"input '{name}' has the same value in every row" for name in known.constant]
    heard += [words for words in (known.first_labels,) if words and model.task != "regression"]
    with controlled(model, heard):
        with watch.stage("fit"):
            fitted = fit_part(model, known, request, parts.train)
            size = len(_capture(fitted, model.task).data)  # what cannot be kept is told before the long stages
        with watch.stage("repeat"):
            again = repeated(model, known, request, parts.train)
            if unrepeatable == "refuse":
                refuse(model, again)
        with watch.stage("evaluate"):
            scores = fitted.score(model, known, parts.test)
        scored = []
        if made:
            with watch.stage("cross-validate", total=len(made)) as done:
                scored = folds_by(model, known, request, made, done)
        with watch.stage("measure"):
            threshold = chosen_threshold(model, known, scored)
            cv = cross_validation(model, known, scored, threshold.value) if scored else None
            test = _test_part(model, known, parts, scores, threshold, of_project)
            labels = known.labels[parts.test]
            permuted = permutation_importance(
                model.task, known.at(parts.test), labels, partial(fitted.score_columns, model), seed=model.seed
            )
        with watch.stage("judge"):
            own = list(model.gates)
            if model.continues is not None and not any(gate.kind == "remembers" for gate in own):
                own.append(Gate.remembers(FORGOTTEN))
            asked = [*of_project, *own]
            latency = _latency_ms(model, known, fitted, parts, asked)
            evidence = _evidence(model, known, parts, test, cv, champion, asked)
            evidence = replace(
                evidence,
                size=size,
                train_metrics=_train_metrics(model, known, fitted, parts, threshold.value, asked),
                latency_ms=None if latency is None else float(np.median(latency)),
                latency_range=None if latency is None else (min(latency), max(latency)),
                memory=_memory(model, fitted),
            )
            gates = judge(own, evidence, of_project=of_project, waives=model.waives)
            passed = not any(result.refuses for result in gates)
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
        metrics=test.metrics,
        baseline=constant_baseline(model, known, parts, threshold.value),
        cv=cv,
        gates=gates,
        passed=passed,
        split=summary(model, known, parts) | {"unseen": fitted.unseen, "refit_rows": known.size if passed else 0},
        importance=importance(last.estimator, last.signature.inputs),
        estimator=describe(last.estimator),
        seed=model.seed,
        threads=model.threads,
        permutation=permuted,
        threshold=threshold.as_plain(labels, scores) if model.task == "binary" else None,
        confusion=_confusion(model, known, labels, scores, threshold.value),
        calibration=reliability(labels, scores) if model.task == "binary" else [],
        intervals=test.drawn.as_plain() | {"of": test.intervals},
        slices={name: one.as_plain() for name, one in test.slices.items()},
        repeatable=again.as_plain(),
        notes=(again.words,) if again.words else (),
        warnings=(*((again.words,) if again.words else ()), *heard),
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


@dataclass(frozen=True)
class _TestPart:
    """What is measured of the test part."""

    scores: NDArray[np.float64]
    threshold: float
    metrics: dict[str, float | None]
    drawn: Resampling
    intervals: dict[str, tuple[float, float] | None]
    slices: dict[str, Sliced]


def _sliced_by(model: Model, rows: TrainingRows, of_project: Sequence[Gate]) -> list[str]:
    """The columns that the test part is sliced by."""
    asked = [*model.slices, *(gate.by for gate in model.gates if gate.by)]
    # a gate of the project may look at a column that this model's rows do not have; it then does not pass
    asked += [gate.by for gate in of_project if gate.by in rows.table.column_names]
    return list(dict.fromkeys(asked))


def _test_part(
    model: Model,
    rows: TrainingRows,
    parts: Parts,
    scores: NDArray[np.float64],
    threshold: Threshold,
    of_project: Sequence[Gate],
) -> _TestPart:
    labels, at = rows.labels[parts.test], threshold.value
    drawn = _drawn(model, rows, parts.test)
    return _TestPart(
        scores=scores,
        threshold=at,
        metrics=measured(model, labels, scores, at),
        drawn=drawn,
        intervals=intervals(model.task, labels, scores, drawn, threshold=at, quantile=model.quantile),
        slices=sliced(
            model,
            rows,
            _sliced_by(model, rows, of_project),
            (parts.train, parts.test),
            lambda labels, scores: measured(model, labels, scores, at),
            scores,
            at,
        ),
    )


def _evidence(
    model: Model,
    rows: TrainingRows,
    parts: Parts,
    test: _TestPart,
    cv: CrossValidation | None,
    champion: ChampionScores | None,
    asked: Sequence[Gate],
) -> Evidence:
    evidence = Evidence(
        task=model.task,
        metrics=test.metrics,
        cv_mean=cv.mean if cv else {},
        cv_std=cv.std if cv else {},
        intervals=test.intervals,
        slices=test.slices,
    )
    compared = [gate for gate in asked if gate.kind == "not_worse_than_champion"]
    if champion is None or not compared:
        return evidence
    new = _new_to(champion, rows, parts.test)
    margins = [gate.metric for gate in compared if gate.value is not None and gate.fits(model.task)]
    if new.sum() < min(MIN_NEW, new.size):
        return replace(
            evidence,
            champion=dict(champion.metrics),
            champion_name=f"{champion.name} on its own test part, since it has learned from {_most(new)}",
            differences={name: _unpaired(name, test, champion) for name in margins},
        )
    whole = bool(new.all())
    chosen, own = parts.test[new], test.scores[new]
    labels, scores = rows.labels[chosen], _champion_scores(model, rows, chosen, champion)
    drawn = test.drawn if whole else _drawn(model, rows, chosen)
    differences = {
        name: difference(
            model.task,
            name,
            labels,
            (own, scores),
            drawn,
            thresholds=(test.threshold, champion.threshold),
            quantile=model.quantile,
        )
        for name in margins
    }
    rest = "" if whole else f", on the {labels.size:,} of {new.size:,} test rows that it has not learned from"
    return replace(
        evidence,
        beside_champion=evidence.metrics if whole else measured(model, labels, own, test.threshold),
        champion=measured(model, labels, scores, champion.threshold),
        champion_name=champion.name + rest,
        differences=differences,
        few=drawn.words if drawn.few else "",
    )


def _new_to(champion: ChampionScores, rows: TrainingRows, test: Indices) -> NDArray[np.bool_]:
    """Which test rows the champion has not learned from; a champion is refitted on its own test part, too."""
    if champion.learned_until_us is None:
        return np.ones(test.size, dtype=bool)
    if rows.known_us is None:
        return np.zeros(test.size, dtype=bool)
    return rows.known_us[test] > champion.learned_until_us


def _most(new: NDArray[np.bool_]) -> str:
    return f"all but {int(new.sum()):,} of these" if new.any() else "these"


def _unpaired(metric: str, test: _TestPart, champion: ChampionScores) -> Difference:
    """The difference of two figures of different rows; its interval is that of two independent ones."""
    mine, other = test.metrics.get(metric), champion.metrics.get(metric)
    around, around_other = test.intervals.get(metric), champion.intervals.get(metric)
    if mine is None or other is None:
        return Difference(None, None)
    value = mine - other
    if around is None or around_other is None:
        return Difference(value, None)
    down = float(np.hypot(mine - around[0], around_other[1] - other))
    up = float(np.hypot(around[1] - mine, other - around_other[0]))
    return Difference(value, (value - down, value + up))


def _drawn(model: Model, rows: TrainingRows, chosen: Indices) -> Resampling:
    """How these rows are drawn again: in blocks of time or by group where there are such."""
    return resample(
        chosen.size,
        seed=model.seed,
        at_us=None if rows.at_us is None else rows.at_us[chosen],
        groups=group_codes(model, rows)[chosen] if split_kind(model, rows) == "group" else None,
        unit=model.split.by or "group",
    )


def _memory(model: Model, fitted: PartFit) -> tuple[float, float] | None:
    """The mean loss, on rows that it learned from, of the fit that was gone on from, and of this one; None when it
    learned anew. Rows without a label or without a score of either do not count."""
    start = model.continues
    if start is None or not start.remembered.num_rows:
        return None
    rows = training_rows(model, start.remembered, cutoff_us=None)
    every = np.arange(rows.size)
    inputs, _ = encode(start.signature, rows.at(every))
    before, after = start.native.scorer()(inputs), fitted.score(model, rows, every)
    labels = rows.labels
    if rows.classes:  # places among the classes of the rows, of which the fit may know more
        labels = np.array([start.signature.classes.index(one) for one in rows.classes], dtype=float)[labels.astype(int)]
    then, now = (losses(model.task, labels, scores, quantile=model.quantile) for scores in (before, after))
    known = np.isfinite(then) & np.isfinite(now)
    return (float(then[known].mean()), float(now[known].mean())) if known.any() else None


def _confusion(
    model: Model, rows: TrainingRows, labels: NDArray[np.float64], scores: NDArray[np.float64], threshold: float
) -> dict[str, Any] | None:
    """Decisions against labels: four counts, or {"classes", "counts"} with a row for each class that happened."""
    if model.task == "binary":
        return confusion(labels, scores, threshold=threshold).as_plain()
    if not 0 < len(rows.classes) <= MOST_CONFUSED:
        return None
    return {"classes": list(rows.classes), "counts": multiclass_confusion(labels, scores).tolist()}


def _train_metrics(
    model: Model, rows: TrainingRows, fitted: PartFit, parts: Parts, threshold: float, asked: Sequence[Gate]
) -> dict[str, float | None]:
    """Metrics of the rows that were learned from, or of 20,000 of them; empty when no gate asks for them."""
    if not any(gate.kind == "overfit_gap_at_most" for gate in asked):
        return {}
    chosen = parts.train
    if chosen.size > TRAIN_ROWS:
        chosen = np.sort(np.random.default_rng(model.seed).choice(chosen, TRAIN_ROWS, replace=False))
    inputs = fitted.score_columns(model, rows.at(chosen))
    return measured(model, rows.labels[chosen], inputs, threshold)


def _latency_ms(
    model: Model, rows: TrainingRows, fitted: PartFit, parts: Parts, asked: Sequence[Gate]
) -> list[float] | None:
    """Milliseconds in which the fitted estimator scores one row, the median of each round; None when no gate asks."""
    if not any(gate.kind == "latency_at_most" for gate in asked):
        return None
    medians = []
    for round_ in range(ROUNDS):
        taken = []
        for number in range(TIMED + 5):
            one = rows.at(parts.test[(round_ * TIMED + number) % parts.test.size :][:1])
            begun = monotonic()
            fitted.score_columns(model, one)
            taken.append(monotonic() - begun)
        medians.append(float(np.median(taken[5:])) * 1000)
    return medians


def _champion_scores(model: Model, rows: TrainingRows, test: Indices, champion: ChampionScores) -> NDArray[np.float64]:
    scores = np.asarray(champion.score(rows.table.take(pa.array(test))), dtype=np.float64)
    if rows.classes and scores.shape == (test.size, len(champion.classes)):
        scores = aligned(scores, champion.classes, rows.classes)
    if scores.shape[:1] != test.shape or scores.ndim != 1 + bool(rows.classes) or not np.isfinite(scores).all():
        raise ChampionNotComparable(
            f"the champion ({champion.name}) gave scores of the shape {scores.shape}, "
            f"{int((~np.isfinite(scores)).sum())} of them not finite, for {test.size} test rows of '{model.name}'.",
            expected="One finite score for each test row is expected.",
        )
    return scores


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
