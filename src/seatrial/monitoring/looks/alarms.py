"""Alarms: is a number beyond what was declared, and are there data enough to say so?

An alarm looks at the predictions of its own trailing window. It is judged only when the model has predicted for that
whole window (a quiet first night apart), and a metric of performance only with enough labels: three days are not
seven, and the first week of a model raises no alarm about its weekly figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from seatrial.core.signature import Task
from seatrial.core.windows import DAY_US, Window, duration_text
from seatrial.monitoring.definition import Alarm
from seatrial.monitoring.looks.performance import measure_sample
from seatrial.monitoring.looks.system import system
from seatrial.monitoring.report import AlarmResult, Drift
from seatrial.monitoring.rows.sample import FEATURE, Sample
from seatrial.stats.metrics import MEAN, METRICS, quantile_off

if TYPE_CHECKING:
    from seatrial.monitoring.rows.reference import Reference

MIN_ROWS = 200
"""Rows below which nothing is judged."""
QUIET_START = 14
"""A window counts as whole when less than this part of it lies before the model's first prediction: half a day of a
week. A log that begins on a morning has that day."""


def evaluate(
    alarm: Alarm,
    sample: Sample,
    as_of_us: int,
    reference: Reference | None = None,
    training: Mapping[str, float | None] | None = None,
    *,
    since_us: int | None = None,
    drifts: dict[Window, Drift] | None = None,
) -> AlarmResult:
    """`alarm` over the window that ends at `as_of_us`.

    sample: predictions back to before the window's start, with the labels known by now.
    training: metrics of the release's test part, for `Alarm.drop`.
    since_us: instant of the model's first prediction ever, when the sample does not reach back to it.
    drifts: what was computed for other alarms of the same window; added to.
    """
    window = Window(as_of_us - alarm.window_us, as_of_us)
    looked = _Look(
        alarm, sample.within(window), window, reference, dict(training or {}), {} if drifts is None else drifts
    )
    lacking = _days_missing(sample, window, since_us) or looked.lacking()
    threshold = looked.threshold()
    if lacking or threshold is None:
        lacking = lacking or f"the release has no {alarm.metric} of its test part to compare with"
        return looked.result("not_enough_data", None, threshold, note=lacking)
    value, note = looked.value()
    if value is None:
        return looked.result("not_enough_data", None, threshold, note=note)
    fired = value > threshold if looked.upward else value < threshold
    return looked.result("fired" if fired else "quiet", value, threshold)


@dataclass
class _Look:
    """One alarm and the predictions of its window."""

    alarm: Alarm
    sample: Sample
    window: Window
    reference: Reference | None
    training: dict[str, float | None]
    drifts: dict[Window, Drift]
    rows: int = field(init=False)
    labelled: int = field(init=False)

    def __post_init__(self) -> None:
        self.scores, self.labels = self.sample.scores(), self.sample.label_values()
        self.known = self.sample.answered() & np.isfinite(self.labels)
        self.rows, self.labelled = self.scores.size, int(np.count_nonzero(self.known))

    @property
    def upward(self) -> bool:
        """Whether a higher value is the wrong direction."""
        if self.alarm.kind != "drop":
            return self.alarm.kind == "above"
        return METRICS[self.sample.task][self.alarm.metric].better == "lower"

    def lacking(self) -> str:
        """What is missing before the alarm can be judged; empty when nothing is."""
        metric, task = self.alarm.metric, self.sample.task
        if self.alarm.of_performance and metric != "calibration_gap" and metric not in METRICS[task]:
            return f"{metric} is no metric of a {task} model"
        if metric == "calibration_gap" and self.sample.decided_only:
            return "the log does not say how sure the model was; watch its accuracy, or log probabilities"
        if self.alarm.of_performance and self.labelled < self.alarm.min_labels:
            return f"not enough data: {self.labelled:,} of {self.alarm.min_labels:,} labels"
        if not self.alarm.of_performance and self.rows < MIN_ROWS:
            return f"not enough data: {self.rows:,} of {MIN_ROWS:,} rows"
        return ""

    def threshold(self) -> float | None:
        """The bound; of a drop the figure of the test part, made worse by the share; None when there is none."""
        if self.alarm.kind != "drop":
            return self.alarm.threshold
        tested = self.training.get(self.alarm.metric)
        if tested is None or self.alarm.metric not in METRICS[self.sample.task]:
            return None
        worse = abs(tested) * self.alarm.threshold
        return tested + worse if self.upward else tested - worse

    def value(self) -> tuple[float | None, str]:
        """The number, or None and why there is none."""
        metric = self.alarm.metric
        name, _, column = metric.partition(":")
        if metric == "calibration_gap":
            gap = self._gap()
            return (None, "all labels are equal, so the gap has no unit") if gap is None else (abs(gap), "")
        if self.alarm.of_performance:
            measured, why = measure_sample(self.sample, self.known)
            return measured[metric], why.rstrip(".")
        if self.alarm.of_drift:
            return self._drift(column)
        if name == "missing":
            return self._missing(column)
        if metric == "label_share":
            return self.labelled / self.rows, ""
        found = system(self.sample)
        return (found.degraded, "the log does not say") if metric == "degraded" else (found.p99_ms, found.note)

    def _gap(self) -> float | None:
        if self.sample.answers is not None:
            return self.sample.answers.gap()
        labels, scores = self.labels[self.known], self.scores[self.known]
        return calibration_gap(self.sample.task, labels, scores, self.sample.quantile)

    def _missing(self, column: str) -> tuple[float | None, str]:
        if column not in self.sample.features:
            return None, f"the predictions have no input '{column}'"
        if self.sample.inputs is not None:
            return self.sample.inputs.missing(column), ""
        values = self.sample.rows[FEATURE + column]
        return values.null_count / self.rows, ""

    def _drift(self, column: str) -> tuple[float | None, str]:
        if self.reference is None:
            return None, "no reference to compare with"
        if self.window not in self.drifts:
            from seatrial.monitoring.looks.drift import drift

            self.drifts[self.window] = drift(self.sample, self.reference)
        found = self.drifts[self.window]
        if self.alarm.metric == "prediction_ks":
            one = found.prediction
            return (one.value, one.note) if one is not None else (None, found.note or "no scores to compare with")
        wanted = self.alarm.metric.partition(":")[0]
        if not column:
            values = [value for one in found.columns if (value := one.far(wanted)) is not None]
            return (max(values), "") if values else (None, found.note or "no input could be compared")
        for one in found.columns:
            if one.name == column:
                value = one.far(wanted)
                undefined = f"{wanted} is not defined for '{column}'" if one.value is not None and value is None else ""
                return value, undefined or one.note
        return None, f"the predictions have no input '{column}'"

    def result(self, state: str, value: float | None, threshold: float | None, *, note: str = "") -> AlarmResult:
        alarm = self.alarm
        return AlarmResult(
            name=alarm.name,
            state=state,  # type: ignore[arg-type]
            severity=alarm.severity,
            metric=alarm.metric,
            value=value,
            threshold=alarm.threshold if threshold is None else threshold,
            window=str(self.window),
            rows=self.rows,
            labelled=self.labelled,
            evidence="" if value is None or threshold is None else self._evidence(value, threshold),
            action=_action(alarm) if state == "fired" else "",
            note=note,
            means=self._means(),
        )

    def _means(self) -> tuple[float, float] | None:
        if not self.labelled or self.sample.decided_only or self.sample.quantile != MEAN:
            return None
        if self.sample.answers is not None:
            return self.sample.answers.means()
        return float(self.scores[self.known].mean()), float(self.labels[self.known].mean())

    def _evidence(self, value: float, threshold: float) -> str:
        alarm = self.alarm
        name, colon, column = alarm.metric.partition(":")
        found = f"{name.replace('_', ' ')}{colon}{column} {value:.3g}, bound {threshold:.3g}"
        if alarm.kind == "drop":
            found += f" (test part {self.training[alarm.metric]:.3g})"
        if alarm.metric == "calibration_gap" and self.sample.quantile != MEAN:
            below = self.sample.quantile + (self._gap() or 0.0)
            meant = f"where {self.sample.quantile:.1%} are meant"
            found = f"{below:.1%} of the labels lie at or below their prediction, {meant}; {threshold:.3g} is allowed"
        elif alarm.metric == "calibration_gap":
            unit = " standard deviations" if self.sample.task == "regression" else ""
            mean_score, observed = self._means() or (np.nan, np.nan)
            found = (
                f"mean prediction {mean_score:.3g}, mean label {observed:.3g}: a gap of {value:.3g}{unit}, "
                f"{threshold:.3g} is allowed"
            )
        counted = (
            f"{self.labelled:,} labels of {self.rows:,} predictions" if alarm.of_performance else f"{self.rows:,} rows"
        )
        return f"{found}; {counted} over {alarm.window}"


def calibration_gap(task: Task, labels: np.ndarray, scores: np.ndarray, quantile: float = MEAN) -> float | None:
    """Mean score minus mean label; of a regression in standard deviations of the label, None when that is 0. Of a model
    of another quantile than the middle one, the share of labels below their prediction minus the quantile."""
    if not labels.size:
        return None
    if quantile != MEAN:
        return float(quantile_off(labels, scores, quantile).mean())
    gap = float(scores.mean() - labels.mean())
    if task != "regression":
        return gap
    spread = float(labels.std())
    return gap / spread if spread > 0 else None


def _days_missing(sample: Sample, window: Window, since_us: int | None) -> str:
    """Says how much of the window the model has predicted for, when that is not all of it."""
    at = sample.at_us()
    first = min([*at[:1].tolist(), *([] if since_us is None else [since_us])], default=None)
    length = window.end_us - window.start_us
    if first is None or first >= window.end_us:
        return f"not enough data: no predictions before {window.end:%Y-%m-%d %H:%M} UTC"
    if first <= window.start_us + length // QUIET_START:
        return ""
    unit, word = (DAY_US, "days") if length >= 2 * DAY_US else (DAY_US // 24, "hours")
    if length % unit:
        minutes = (window.end_us - first) // 60_000_000
        return f"not enough data: {duration_text(minutes * 60_000_000) or '0m'} of {duration_text(length)}"
    return f"not enough data: {(window.end_us - first) // unit} of {length // unit} {word}"


def _action(alarm: Alarm) -> str:
    if alarm.metric == "calibration_gap":
        return (
            "Find out what changed in the world, then retrain on it, or roll back if there is a release before; "
            "until then do not trust the level."
        )
    if alarm.of_performance:
        return "Look at the days and inputs of the report; retrain, or roll back if there is a release before."
    if alarm.of_drift:
        return "Ask who delivers the input whether the change is meant; labels decide whether it does harm."
    if alarm.metric.startswith("missing:"):
        return "Ask who delivers the input; until it is back the model guesses without it."
    if alarm.metric == "label_share":
        return "Look at the feed of labels: without them nobody knows whether the model is right."
    return "Look at the service and its stores: `seatrial status`."
