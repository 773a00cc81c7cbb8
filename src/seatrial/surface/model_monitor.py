"""The reference's model monitor: has what comes in, or goes out, or is right, moved from a baseline?

Over the statistics of `seatrial.stats` and the policy of monitoring: an alert needs a distance that matters, and that
chance does not explain across all columns together. It holds the baseline in memory and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import Clock, MachineClock, as_utc, iso, parse_time
from seatrial.core.errors import UsageError
from seatrial.data.reading import Times, frame_table
from seatrial.data.sources import FrameSource, require_columns
from seatrial.monitoring.looks.drift import FALSE_DISCOVERIES
from seatrial.monitoring.rows.reference import TOLERATED, values_of
from seatrial.stats.detectors import benjamini_hochberg
from seatrial.stats.distances import (
    chi_square_p_value,
    kolmogorov_smirnov_exact,
    kolmogorov_smirnov_p_value,
    total_variation,
)
from seatrial.stats.metrics import MetricUndefined, roc_auc

if TYPE_CHECKING:
    import pyarrow as pa

FEATURE, PREDICTION, TIMESTAMP = "feature_", "prediction", "timestamp"
USUAL_THRESHOLD = 0.05
MIN_VALUES, MIN_LABELS = 30, 100
HIGH, MEDIUM = 0.3, 0.15
HIGH_DROP = 10.0  # per cent

Values = NDArray[Any]


class BadBaseline(UsageError):
    """There is no baseline to compare with, or its span of time cannot be."""

    code = "surface.bad_baseline"


class BadOutcomes(UsageError):
    """Actual outcomes and predictions do not belong together."""

    code = "surface.bad_outcomes"


@dataclass(frozen=True)
class DriftAlert:
    """Something moved.

    feature_name: the column; "prediction", or "auc" for performance. current_value, baseline_value: means; of text the
    share of the baseline's most frequent value; of performance the AUC. drift_score: the distance, Kolmogorov-Smirnov
    for numbers and total variation for text, in [0, 1]; of performance the share lost. detected_at: aware, UTC.
    """

    drift_type: Literal["data", "prediction", "performance"]
    feature_name: str
    severity: Literal["low", "medium", "high"]
    current_value: float
    baseline_value: float
    drift_score: float
    detected_at: datetime
    recommended_action: str


class ModelMonitor:
    """Compares with the rows whose timestamp is at or after `baseline_start` and before `baseline_end`.

    baseline_start, baseline_end: aware times, ISO 8601 texts, or dates, which are midnight in UTC.
    clock: where the instant of an alert comes from.
    not_compared: after each call of a `detect_` method, what could not be looked at, and why.
    """

    def __init__(
        self,
        model_name: str,
        baseline_start: datetime | str,
        baseline_end: datetime | str,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.model_name = model_name
        self.baseline_start = _instant(baseline_start, "baseline_start")
        self.baseline_end = _instant(baseline_end, "baseline_end")
        if self.baseline_end <= self.baseline_start:
            raise BadBaseline(
                f"the baseline of '{model_name}' ends at {iso(self.baseline_end)}, before it starts.",
                expected="baseline_start before baseline_end is expected.",
            )
        self.not_compared: dict[str, str] = {}
        self._clock = clock or MachineClock()
        self._baseline: dict[str, Values] | None = None

    def compute_baseline(self, prediction_logs: Any) -> dict[str, dict[str, float]]:
        """Take the baseline from the logs: columns `feature_NAME`, `prediction` and `timestamp`.

        prediction_logs: a table of pandas, Arrow or polars; `PredictionLog.prediction_logs()` gives one.
        Times without a zone are read as UTC, with a warning. Returns per column count, missing, and of numbers mean,
        std, min and max. Raises ColumnMissing, and BadBaseline when no row lies in the baseline.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        table = self._table(prediction_logs, PREDICTION, TIMESTAMP, timed=True)
        start, end = (pa.scalar(at, pa.timestamp("us", tz="UTC")) for at in (self.baseline_start, self.baseline_end))
        table = table.filter(pc.and_(pc.greater_equal(table[TIMESTAMP], start), pc.less(table[TIMESTAMP], end)))
        if not table.num_rows:
            raise BadBaseline(
                f"no row of the logs lies in the baseline of '{self.model_name}', "
                f"{iso(self.baseline_start)} to {iso(self.baseline_end)}.",
                expected="Rows whose timestamp lies in it are expected.",
            )
        self._baseline = {name: values_of(table[name]) for name in table.column_names if _is_compared(name)}
        return {name: _statistics(values) for name, values in self._baseline.items()}

    def detect_data_drift(self, current: Any, threshold: float = USUAL_THRESHOLD) -> list[DriftAlert]:
        """The inputs that moved, furthest first.

        current: a table with the columns `feature_NAME`; other columns are left alone.
        threshold: smaller means fewer alerts. The usual 0.05 stands for a false discovery rate of 0.001 over all
            columns of a call. A distance of 0.05 or less never alerts.
        """
        baseline = self._taken()
        table = self._table(current)
        self.not_compared = {}
        names = [name for name in baseline if name.startswith(FEATURE)]
        compared = []
        for name in names:
            if name not in table.column_names:
                self.not_compared[name] = "the current rows do not have it"
            elif (found := self._compare(name, baseline[name], values_of(table[name]))) is not None:
                compared.append(found)
        for name in table.column_names:
            if name.startswith(FEATURE) and name not in baseline:
                self.not_compared[name] = "the baseline does not have it"
        return self._alerts("data", compared, threshold)

    def detect_prediction_drift(self, current: Any, threshold: float = USUAL_THRESHOLD) -> DriftAlert | None:
        """Whether the predictions moved; None when not, or when there are too few (see `not_compared`).

        current: a table with the column `prediction`, or the predictions. threshold: as in `detect_data_drift`.
        """
        baseline = self._taken()
        self.not_compared = {}
        if _is_table(current):
            values = values_of(self._table(current, PREDICTION)[PREDICTION])
        else:
            values = np.asarray(current, dtype=np.float64).ravel()
        found = self._compare(PREDICTION, baseline[PREDICTION], values)
        alerts = self._alerts("prediction", [found] if found else [], threshold)
        return alerts[0] if alerts else None

    def detect_performance_degradation(
        self, actuals: Any, predictions: Any, baseline_auc: float, threshold_pct: float = 5.0
    ) -> DriftAlert | None:
        """Whether the AUC is more than `threshold_pct` per cent below `baseline_auc`.

        actuals: 0 and 1; missing ones, and missing predictions, are left out. Fewer than 100 pairs, or outcomes of one
        class only, give None and a line in `not_compared`. Raises BadOutcomes.
        """
        labels, scores = (_floats(values) for values in (actuals, predictions))
        if labels.shape != scores.shape:
            raise BadOutcomes(
                f"there are {labels.size:,} actual outcomes and {scores.size:,} predictions.",
                expected="One prediction for each outcome is expected.",
            )
        if not (np.isfinite(baseline_auc) and 0 < baseline_auc <= 1):
            raise BadOutcomes(f"baseline_auc is {baseline_auc!r}.", expected="A number in (0, 1] is expected.")
        self.not_compared = {}
        known = np.isfinite(labels) & np.isfinite(scores)
        if np.count_nonzero(known) < MIN_LABELS:
            self.not_compared["auc"] = f"not enough data: {np.count_nonzero(known)} of {MIN_LABELS} labels"
            return None
        try:
            auc = roc_auc(labels[known], scores[known])
        except MetricUndefined as undefined:
            self.not_compared["auc"] = undefined.found
            return None
        lost = (baseline_auc - auc) / baseline_auc
        if lost * 100 <= threshold_pct:
            return None
        high = lost * 100 > HIGH_DROP
        action = (
            "Retrain, or roll back to the version before."
            if high
            else "Look at the labels by day; consider to retrain."
        )
        return DriftAlert(
            "performance",
            "auc",
            "high" if high else "medium",
            auc,
            float(baseline_auc),
            lost,
            self._clock.now(),
            action,
        )

    def _taken(self) -> dict[str, Values]:
        if self._baseline is None:
            raise BadBaseline(
                f"the baseline of '{self.model_name}' is not computed yet.", next="Call compute_baseline(logs) first."
            )
        return self._baseline

    def _table(self, frame: Any, *needed: str, timed: bool = False) -> pa.Table:
        source = FrameSource(
            name=f"logs of {self.model_name}", frame=frame, event_timestamp=TIMESTAMP if timed else None
        )
        table = frame_table(source)
        require_columns(source, table, needed)
        table = table.select(
            [name for name in table.column_names if _is_compared(name) or (timed and name == TIMESTAMP)]
        )
        times = Times(source)
        table = times.read(table)
        times.warn()
        return table

    def _compare(self, name: str, before: Values, now: Values) -> _Compared | None:
        if (before.dtype == object) != (now.dtype == object):
            kinds = {True: "text", False: "numbers"}
            self.not_compared[name] = f"it is {kinds[now.dtype == object]} now and was {kinds[before.dtype == object]}"
            return None
        before, now = _present(before), _present(now)
        least = min(before.size, now.size)
        if least < MIN_VALUES:
            which = "baseline" if before.size < MIN_VALUES else "current"
            self.not_compared[name] = f"not enough data: {least} of {MIN_VALUES} values in the {which} rows"
            return None
        if now.dtype != object:
            distance = kolmogorov_smirnov_exact(before, now)
            p_value = kolmogorov_smirnov_p_value(distance, before.size, now.size)
            return _Compared(name, distance, p_value, float(now.mean()), float(before.mean()))
        values, codes = np.unique(np.concatenate([before, now]).astype(str), return_inverse=True)
        was = np.bincount(codes[: before.size], minlength=values.size)
        counts = np.bincount(codes[before.size :], minlength=values.size)
        most = int(was.argmax())
        return _Compared(
            name,
            total_variation(was, counts),
            chi_square_p_value(was, counts),
            float(counts[most] / now.size),
            float(was[most] / before.size),
        )

    def _alerts(
        self, kind: Literal["data", "prediction"], compared: Sequence[_Compared], threshold: float
    ) -> list[DriftAlert]:
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
            raise UsageError(f"threshold is {threshold!r}.", expected="A number in (0, 1] is expected.", state="")
        level = FALSE_DISCOVERIES * threshold / USUAL_THRESHOLD
        sure = benjamini_hochberg(np.array([one.p_value for one in compared], dtype=np.float64), level)
        moved = [one for one, found in zip(compared, sure, strict=True) if found and one.distance > TOLERATED]
        now = self._clock.now()
        return [
            DriftAlert(
                kind,
                one.name,
                _severity(one.distance),
                one.current,
                one.baseline,
                one.distance,
                now,
                _action(kind, one),
            )
            for one in sorted(moved, key=lambda one: -one.distance)
        ]


@dataclass(frozen=True)
class _Compared:
    name: str
    distance: float
    p_value: float
    current: float
    baseline: float


def _severity(distance: float) -> Literal["low", "medium", "high"]:
    return "high" if distance > HIGH else "medium" if distance > MEDIUM else "low"


def _action(kind: str, one: _Compared) -> str:
    if kind == "prediction":
        return "Look at which inputs moved; labels decide whether the predictions are still right."
    words = "Ask who delivers it whether the change is meant; labels decide whether it does harm."
    return f"{words} Do not retrain before." if one.distance > HIGH else words


def _is_compared(name: str) -> bool:
    return name.startswith(FEATURE) or name == PREDICTION


def _is_table(thing: Any) -> bool:
    """A frame of named columns; a pandas Series or an Arrow array is none."""
    return hasattr(thing, "columns") or hasattr(thing, "column_names")


def _floats(values: Any) -> NDArray[np.float64]:
    if hasattr(values, "to_numpy"):
        values = (
            values.to_numpy(zero_copy_only=False)
            if type(values).__module__.startswith("pyarrow")
            else values.to_numpy()
        )
    return np.asarray(values, dtype=np.float64).ravel()


def _present(values: Values) -> Values:
    if values.dtype == object:
        there = np.array([value is not None for value in values], dtype=bool)
    else:
        there = np.isfinite(values)
    present: Values = values[there]
    return present


def _statistics(values: Values) -> dict[str, float]:
    present = _present(values)
    plain: dict[str, float] = {"count": float(values.size), "missing": float(values.size - present.size)}
    if values.dtype == object or not present.size:
        return plain
    numbers = {"mean": present.mean(), "std": present.std(), "min": present.min(), "max": present.max()}
    return plain | {name: float(number) for name, number in numbers.items()}


def _instant(value: datetime | date | str, name: str) -> datetime:
    if isinstance(value, datetime):
        return as_utc(value, name=name)
    text = value.isoformat() if isinstance(value, date) else str(value)
    return parse_time(f"{text}T00:00:00Z" if len(text) == 10 else text, name=name)
