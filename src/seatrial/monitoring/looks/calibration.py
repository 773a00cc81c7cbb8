"""Calibration: can the scores be taken at their word?

By bins, by the mean gap, by the expected calibration error, and by the line that would put the scores right
(`stats.calibration`). Intervals draw blocks of time, as those of the metrics do. Of several classes what is looked at
is the probability of the class that was predicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from seatrial.monitoring.figures import Calibration, CalibrationBin, Interval
from seatrial.monitoring.rows.baseline import labelled
from seatrial.stats.bootstrap import Resampling, intervals
from seatrial.stats.calibration import realigned, recalibrated
from seatrial.stats.metrics import MEAN, expected_calibration_error, quantile_off
from seatrial.stats.parts import means
from seatrial.stats.student import t_quantile

if TYPE_CHECKING:
    from seatrial.monitoring.rows.sample import Sample

FEWEST = 50
BINS = 10

Floats = NDArray[np.float64]


def calibration(inside: Sample, drawn: Resampling | None) -> Calibration:
    """Of the window's labelled predictions. drawn: the draws of those of them that have a score, in their order."""
    if inside.decided_only:
        return Calibration(0, note="the log does not say how sure the model was")
    sample = labelled(inside)
    scores, labels = sample.scores(), sample.label_values()
    sure = np.isfinite(scores)
    scores, labels = scores[sure], labels[sure]
    if not scores.size:
        return Calibration(0, note="no label is known")
    middle = inside.quantile == MEAN
    off = scores - labels if middle else quantile_off(labels, scores, inside.quantile)
    gap = float(off.mean())
    if scores.size < FEWEST or drawn is None:
        return Calibration(scores.size, gap, note=f"not enough data: {scores.size} of {FEWEST} labels")
    probabilities = inside.task != "regression"
    if probabilities and (scores.min() < 0 or scores.max() > 1):
        return Calibration(scores.size, gap, note=f"scores reach from {scores.min():g} to {scores.max():g}")
    if probabilities and not np.isin(labels, (0.0, 1.0)).all():
        return Calibration(scores.size, gap, note="labels are not 0 and 1")
    cluster = drawn.cluster
    whole = means(off, np.zeros(scores.size, np.intp), 1, cluster)
    line = (recalibrated if probabilities else realigned)(labels, scores, cluster) if middle else None
    t = t_quantile(0.95, float(whole.degrees[0])) if whole.degrees[0] > 0 else float("nan")
    error, error_interval = None, None
    if probabilities:
        error = expected_calibration_error(labels, scores)
        error_interval = intervals("binary", labels, scores, drawn)["expected_calibration_error"]
    notes = [] if line is not None else ["no line is defined: one class only, or scores that are all equal or part it"]
    if not middle:
        notes = [f"the gap is the share of labels at or below their prediction, less {inside.quantile:g}"]
    if drawn.few:
        notes.append(f"intervals rest on {drawn.words} and are too narrow")
    return Calibration(
        rows=scores.size,
        gap=gap,
        gap_interval=_around(gap, float(np.sqrt(whole.variance[0])), t),
        error=error,
        error_interval=error_interval,
        slope=None if line is None else line.slope,
        slope_interval=None if line is None else _around(line.slope, line.slope_error, t),
        intercept=None if line is None else line.intercept,
        intercept_interval=None if line is None else _around(line.intercept, line.intercept_error, t),
        level=None if line is None else line.level,
        bins=_bins(scores, labels, cluster, probabilities) if middle else [],
        unit=blocks(drawn),
        few=drawn.few,
        note="; ".join(notes),
    )


def blocks(drawn: Resampling) -> str:
    """What intervals draw, in words: "28 blocks of 6 hours"."""
    if drawn.few:
        return drawn.words
    if drawn.unit in ("row",) or drawn.unit.startswith("1/"):
        return "single rows"
    unit = drawn.unit if drawn.unit[0].isdigit() else f"a{'n' if drawn.unit == 'hour' else ''} {drawn.unit}"
    return f"{drawn.clusters} blocks of {unit}"


def _bins(scores: Floats, labels: Floats, cluster: NDArray[np.intp], probabilities: bool) -> list[CalibrationBin]:
    if probabilities:
        edges = np.linspace(0, 1, BINS + 1)
        place = np.searchsorted(edges[1:-1], scores)
    else:
        edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)))
        edges = np.append(edges, edges) if edges.size == 1 else edges
        place = np.searchsorted(edges[1:-1], scores)
    found = means(labels, place, edges.size - 1, cluster)
    said = np.bincount(place, weights=scores, minlength=edges.size - 1)
    told = []
    for number in np.flatnonzero(found.rows).tolist():
        rows, mean = int(found.rows[number]), float(found.mean[number])
        error, degrees = float(np.sqrt(found.variance[number])), float(found.degrees[number])
        interval = _around(mean, error, t_quantile(0.95, degrees)) if degrees > 0 and error > 0 else None
        if probabilities and interval is not None:
            interval = (max(interval[0], 0.0), min(interval[1], 1.0))
        low, high = float(edges[number]), float(edges[number + 1])
        told.append(CalibrationBin(low, high, rows, float(said[number] / rows), mean, interval))
    return told


def _around(value: float, error: float, t: float) -> Interval | None:
    half = t * error
    return (value - half, value + half) if np.isfinite(half) else None
