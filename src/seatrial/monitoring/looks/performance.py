"""How right were the predictions, as far as their labels are known?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.clock import from_us, iso
from seatrial.core.errors import SeatrialError
from seatrial.core.signature import Task
from seatrial.core.windows import DAY_US, HOUR_US, Window
from seatrial.monitoring.report import Bin, Day, Performance
from seatrial.stats.metrics import METRICS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from seatrial.monitoring.rows.labels import LabelCounts
    from seatrial.monitoring.rows.sample import Sample

BINS = 10
OF_DECISIONS = ("accuracy", "precision", "recall", "f1")
"""Metrics of several classes that need no probability."""
NO_PROBABILITIES = "the log does not hold the probability of each class, so only decisions are measured"
MOST_DAYS = 1_000  # of a longer window only the days that have rows are listed


def performance(
    sample: Sample, window: Window, *, training: Mapping[str, float | None] | None = None, min_labels: int = 200
) -> Performance:
    """The figures of `sample`, which lies in `window`.

    training: metrics of the release's test part.
    A row counts as labelled when it has a label and an answer. With fewer than `min_labels` of them the figures are
    given all the same, and `note` says that they are not enough to judge by.
    """
    scores, labels = sample.scores(), sample.label_values()
    known = sample.answered() & np.isfinite(labels)
    rows, labelled, counts = scores.size, int(np.count_nonzero(known)), sample.labels
    if sample.answers is not None:
        labelled, counts = sample.answers.counted(window)
        rows = counts.predictions
    measured, why = measure_sample(sample, known)
    sure = known & np.isfinite(scores)
    mean_score = _mean(scores[sure])
    observed = _mean(labels[known])
    constant = _constant(sample, known, observed)
    found = Performance(
        rows=rows,
        labelled=labelled,
        metrics=measured,
        constant=constant,
        training=dict(training or {}),
        mean_score=mean_score,
        observed=observed,
        gap=None if mean_score is None or observed is None else mean_score - observed,
        bins=calibration_bins(sample.task, labels[sure], scores[sure]),
        days=days(sample, window),
        labels=counts.as_plain(),
        note=_note(counts, rows, labelled, min_labels, why),
    )
    if sample.answers is None:
        return found
    return sample.answers.performance(found, sample.threshold, sample.quantile, window)


def measure_sample(sample: Sample, known: NDArray[np.bool_]) -> tuple[dict[str, float | None], str]:
    """`measure` of the sample's `known` rows, which have a label and an answer. Where a log of several classes lacks
    the probability of each, only decisions are measured."""
    if sample.answers is not None:
        return sample.answers.measured(sample.threshold, sample.quantile)
    if sample.task != "multiclass":
        labels, scores = sample.label_values()[known], sample.scores()[known]
        return measure(sample.task, labels, scores, threshold=sample.threshold, quantile=sample.quantile)
    labels, scores = sample.class_scores()
    measured, why = measure(sample.task, labels[known], scores[known])
    if why and np.unique(labels[known]).size == 1:
        name = sample.rows["label_class"][int(np.flatnonzero(known)[0])].as_py()
        why = f"not every metric is defined: all {labels[known].size:,} labels are '{name}'"
    if sample.of_classes:
        return measured, why
    return {name: value if name in OF_DECISIONS else None for name, value in measured.items()}, why or NO_PROBABILITIES


def _constant(sample: Sample, known: NDArray[np.bool_], observed: float | None) -> dict[str, float | None]:
    """The metrics of the rows' own mean label, or class shares, as every prediction."""
    count = int(np.count_nonzero(known))
    if sample.task != "multiclass":
        constant = np.full(count, observed if observed is not None else np.nan)
        labels = sample.label_values()[known]
        return measure(sample.task, labels, constant, threshold=sample.threshold, quantile=sample.quantile)[0]
    labels = sample.class_scores()[0][known]
    shares = np.bincount(labels.astype(np.intp)) / count if count else np.empty(0)
    return measure(sample.task, labels, np.tile(shares, (count, 1)))[0]


def measure(
    task: Task,
    labels: NDArray[np.float64],
    scores: NDArray[np.float64],
    *,
    threshold: float = 0.5,
    quantile: float = 0.5,
) -> tuple[dict[str, float | None], str]:
    """Every metric of the task, None where the rows do not define it; and the first reason why not.

    Production holds what training refuses: no rows, one class, scores outside of [0, 1]. None of it raises.
    """
    given = {"threshold": threshold, "quantile": quantile}
    measured: dict[str, float | None] = {}
    why = ""
    for name, metric in METRICS[task].items():
        more = {metric.at: given[metric.at]} if metric.at else {}
        try:
            measured[name] = metric.function(labels, scores, **more) if labels.size else None
        except SeatrialError as error:
            measured[name] = None
            why = why or error.found
    return measured, why


def calibration_bins(task: Task, labels: NDArray[np.float64], scores: NDArray[np.float64]) -> list[Bin]:
    """Bins of equal width over [0, 1] for probabilities, of equal rows for a regression; empty ones are left out."""
    if not scores.size:
        return []
    if task != "regression" and scores.min() >= 0 and scores.max() <= 1:
        edges = np.linspace(0, 1, BINS + 1)
    else:
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)))
    place = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, max(edges.size - 2, 0))
    found = []
    for one in np.unique(place):
        inside = place == one
        high = edges[min(one + 1, edges.size - 1)]
        found.append(
            Bin(
                low=float(edges[one]),
                high=float(high),
                rows=int(np.count_nonzero(inside)),
                mean_score=float(scores[inside].mean()),
                observed=float(labels[inside].mean()),
            )
        )
    return found


def days(sample: Sample, window: Window) -> list[Day]:
    """Every day of the window, also those without rows; see `first_day_us` for where days begin."""
    scores, labels, answered = sample.scores(), sample.label_values(), sample.answered()
    origin = first_day_us(window)
    place = (sample.at_us() - origin) // DAY_US
    count = -(-(window.end_us - origin) // DAY_US)
    listed = range(count) if count <= MOST_DAYS else np.unique(place).tolist()
    bounds = np.searchsorted(place, [[day, day + 1] for day in listed]).reshape(-1, 2)
    found = []
    for number, (first, end) in zip(listed, bounds.tolist(), strict=True):
        of_day, told = scores[first:end], labels[first:end]
        known = answered[first:end] & np.isfinite(told)
        found.append(
            day(
                window,
                number,
                rows=end - first,
                labelled=int(np.count_nonzero(known)),
                mean_score=_mean(of_day[np.isfinite(of_day)]),
                mean_score_labelled=_mean(of_day[known & np.isfinite(of_day)]),
                observed=_mean(told[known]),
            )
        )
    return found


def first_day_us(window: Window) -> int:
    """Where the first day shown begins: at the window's start if that is a whole hour (midnight somewhere), else, as of
    a window that rolls with the clock, at the midnight UTC before it."""
    return window.start_us if window.start_us % HOUR_US == 0 else window.start_us // DAY_US * DAY_US


def day(
    window: Window,
    number: int,
    *,
    rows: int,
    labelled: int,
    mean_score: float | None,
    mean_score_labelled: float | None,
    observed: float | None,
) -> Day:
    """The day of that number of the window, as much of it as the window holds."""
    begins = first_day_us(window) + number * DAY_US
    start, end = max(begins, window.start_us), min(begins + DAY_US, window.end_us)
    return Day(
        start=iso(from_us(start)),
        rows=rows,
        labelled=labelled,
        mean_score=mean_score,
        mean_score_labelled=mean_score_labelled,
        observed=observed,
        end=iso(from_us(end)),
        partial=end - start < DAY_US,
    )


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _note(counts: LabelCounts, rows: int, labelled: int, min_labels: int, why: str) -> str:
    if not rows:
        return "no predictions in this window"
    notes = []
    if not labelled:
        notes.append("no label has arrived for these predictions")
    elif labelled < min_labels:
        notes.append(f"not enough data: {labelled} of {min_labels} labels")
    if counts.before:
        notes.append(f"labels known before their prediction was made, which do not count: {counts.before:,}")
    if counts.unmatched:
        notes.append(f"labels that belong to no known prediction: {counts.unmatched:,}")
    if why and labelled >= min_labels:
        notes.append(why.rstrip("."))
    return "; ".join(notes)
