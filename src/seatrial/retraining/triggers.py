"""Is there a reason to retrain now? Triggers look at predictions with their labels, at open alerts, at the clock and at
the labels that became known since the champion was trained. Each says what it found, fired or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.signature import Task
from seatrial.core.timing import Timing
from seatrial.core.windows import DAY_US, Window, duration_us
from seatrial.retraining.definition import SEVERITIES, Trigger
from seatrial.stats.bootstrap import LEVEL, intervals, resample
from seatrial.stats.confidence import clustered
from seatrial.stats.metrics import MEAN, METRICS, measure, quantile_off
from seatrial.stats.student import t_quantile

MIN_LABELS = 200
APART = 0.01
"""By how much labels that come late may move a gap and not matter."""


@dataclass(frozen=True)
class Labelled:
    """Predictions of the live release with what is known of them, (n,) each, in any order.

    at_us: instants of the predictions; known_us: when the label was known, NaN where it is not; labels: NaN likewise.
    happened, probabilities: of a multiclass model, places among C classes and (n, C). threshold: from which score on a
    decision is positive. ripe_us: the age by which labels are there, of the slowest outcome; 0: at once.
    """

    at_us: NDArray[np.int64]
    known_us: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.float64]
    task: Task = "binary"
    happened: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None
    threshold: float = 0.5
    quantile: float = 0.5
    ripe_us: int = 0

    def told(self, window: Window, known_us: int) -> NDArray[np.bool_]:
        """(n,) which were predicted in the window and have a label that was known by `known_us`."""
        inside: NDArray[np.bool_] = (self.at_us >= window.start_us) & (self.at_us < window.end_us)
        return inside & (self.known_us <= known_us)


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is open. metric: what its alarm looks at. words: its headline."""

    id: str
    alarm: str
    metric: str
    severity: str
    words: str


@dataclass(frozen=True)
class Seen:
    """What triggers may look at, each asked only when one of them does.

    predictions: of the live release. alerts: those that are open. since_us: instants of a schedule count after it: when
    the last proposal was opened, or what is live went live. cutoff_us: of the champion's training. known: instants at
    which the labels of the label source became known, (n,).
    """

    predictions: Callable[[], Labelled]
    alerts: Callable[[], Sequence[OpenAlert]]
    since_us: int
    cutoff_us: int
    known: Callable[[], NDArray[np.int64]]


@dataclass(frozen=True)
class Reason:
    """What one trigger found. evidence: the numbers, for the proposal's record."""

    trigger: str
    fired: bool
    words: str
    evidence: dict[str, Any]


def look(triggers: Sequence[Trigger], seen: Seen, now_us: int) -> list[Reason]:
    """What every trigger says at `now_us`."""
    return [_look(trigger, seen, now_us) for trigger in triggers]


def _look(trigger: Trigger, seen: Seen, now_us: int) -> Reason:
    match trigger.kind:
        case "alarm":
            return _alarm(trigger, seen.alerts())
        case "schedule":
            return _schedule(trigger, seen.since_us, now_us)
        case "performance":
            return _performance(trigger, seen.predictions(), now_us)
        case "new data":
            return _new_data(trigger, seen.known(), seen.cutoff_us, now_us)
    return _calibration(trigger, seen.predictions(), now_us)


@dataclass(frozen=True)
class Gap:
    """How far predictions are off on average, positive when too high; value: None without labels that tell.

    low, high: of a regression its 95 % interval over days; None where nothing bounds it. labelled: how many labels it
    rests on. full: whether predictions reach back over the whole window.
    """

    value: float | None
    labelled: int
    full: bool
    low: float | None = None
    high: float | None = None


def judged_window(rows: Labelled, now_us: int, window_us: int) -> Window:
    """The window of this length that a trigger judges: up to now, or up to the newest prediction that is old enough for
    its label, where the labels that come first mislead.

    They do when the gap of the window that ended a ripe age ago has moved by more than `APART` since then. Where there
    are not as many predictions yet, nobody knows, and what is old enough is waited for.
    """
    if not rows.ripe_us:
        return Window(now_us - window_us, now_us)
    ripe = Window(now_us - rows.ripe_us - window_us, now_us - rows.ripe_us)
    early, all_ = (gap_of(rows, ripe, known_us) for known_us in (ripe.end_us, now_us))
    if not early.full or early.value is None or all_.value is None or abs(early.value - all_.value) > APART:
        return ripe
    return Window(now_us - window_us, now_us)


def gap_of(rows: Labelled, window: Window, known_us: int) -> Gap:
    """The gap of the rows predicted in the window whose label was known by `known_us`.

    Of classes mean prediction minus observed rate; of a regression the same in standard deviations of the labels; of
    one that predicts a quantile the share of labels at or below the prediction minus the quantile.
    """
    known = rows.told(window, known_us) & ~np.isnan(rows.labels) & ~np.isnan(rows.scores)
    # traffic seldom starts on the stroke: a window is full when the first prediction lies in its first day
    full = bool(rows.at_us.size) and int(rows.at_us.min()) < window.start_us + DAY_US
    labelled = int(known.sum())
    labels, scores = rows.labels[known], rows.scores[known]
    if rows.task != "regression":
        return Gap(float(scores.mean() - labels.mean()) if labelled else None, labelled, full)
    off = _off(labels, scores, rows.quantile)
    if off is None:
        return Gap(None, labelled, full)
    by_day = clustered(off, (window.end_us - rows.at_us[known]) // DAY_US)
    if by_day.n < 2:
        return Gap(by_day.mean, labelled, full)
    half = t_quantile(LEVEL, by_day.n - 1) * math.sqrt(by_day.variance / by_day.n)
    return Gap(by_day.mean, labelled, full, by_day.mean - half, by_day.mean + half)


def _off(labels: NDArray[np.float64], scores: NDArray[np.float64], quantile: float) -> NDArray[np.float64] | None:
    """(n,) by how much each prediction of a regression is off; None where labels say nothing of their spread."""
    if not labels.size:
        return None
    if quantile != MEAN:
        return quantile_off(labels, scores, quantile)
    spread = float(labels.std())
    return (scores - labels) / spread if spread > 0 else None


def _alarm(trigger: Trigger, alerts: Sequence[OpenAlert]) -> Reason:
    least = SEVERITIES.index(trigger.severity)
    meant = [
        one
        for one in alerts
        if SEVERITIES.index(one.severity) >= least
        and trigger.name in ("", one.alarm)
        and trigger.metric in ("", one.metric)
    ]
    words = "; ".join(one.words for one in meant) or f"there is not {trigger}"
    return Reason(str(trigger), bool(meant), words, {"alerts": [one.id for one in meant]})


def _schedule(trigger: Trigger, since_us: int, now_us: int) -> Reason:
    timing = Timing(cron=trigger.cron, timezone=trigger.timezone)
    count, last = timing.between(since_us, now_us)
    shown = iso(from_us(timing.after(now_us) if last is None else last))
    words = f"{trigger}: next at {shown}" if last is None else f"{trigger}: came at {shown}"
    return Reason(str(trigger), last is not None, words, {"instants": count, "at": shown})


def _new_data(trigger: Trigger, known_us: NDArray[np.int64], cutoff_us: int, now_us: int) -> Reason:
    new = int(np.count_nonzero((known_us > cutoff_us) & (known_us <= now_us)))
    since = iso(from_us(cutoff_us))
    words = f"{new:,} of {trigger.rows:,} labels became known since {since}, when the champion was trained"
    return Reason(str(trigger), new >= trigger.rows, words, {"new": new, "rows": trigger.rows, "since": since})


def _performance(trigger: Trigger, rows: Labelled, now_us: int) -> Reason:
    name = trigger.metric
    evidence: dict[str, Any] = {"metric": name, "value": None, "low": None, "high": None, "worse_than": trigger.value}
    if name not in METRICS[rows.task]:
        words = f"{name} is no metric of a {rows.task} model: the trigger can never fire"
        return Reason(str(trigger), False, words, evidence)
    window = judged_window(rows, now_us, duration_us(trigger.window))
    known = rows.told(window, now_us)
    labels, scores = rows.labels, rows.scores
    if rows.happened is not None and rows.probabilities is not None:
        labels, scores = rows.happened, rows.probabilities
    known &= ~np.isnan(labels) & np.isfinite(scores if scores.ndim == 1 else scores.sum(axis=1))
    evidence |= {"labelled": int(known.sum()), "window": trigger.window}
    if known.sum() < MIN_LABELS:
        words = f"{name} over {trigger.window}: not enough data ({int(known.sum())} of {MIN_LABELS} labels)"
        words += _until(window, now_us)
        return Reason(str(trigger), False, words, evidence)
    drawn = resample(int(known.sum()), seed=0, at_us=rows.at_us[known])
    at: dict[str, Any] = {"threshold": rows.threshold, "quantile": rows.quantile}
    value = measure(rows.task, labels[known], scores[known], **at)[name]
    found = intervals(rows.task, labels[known], scores[known], drawn, **at)[name]
    if value is None or found is None:
        return Reason(str(trigger), False, f"{name} over {trigger.window}: these rows do not define it", evidence)
    low, high = found
    higher = METRICS[rows.task][name].better == "higher"
    worse = high < trigger.value if higher else low > trigger.value
    evidence |= {"value": value, "low": low, "high": high, "unit": drawn.unit, "few": drawn.few}
    words = f"{name} over {trigger.window}: {value:.4g} (95 % between {low:.4g} and {high:.4g}), worse than "
    words += f"{trigger.value:g} is {'shown' if worse else 'not shown'}"
    if worse and drawn.few:
        words += f"; but {drawn.unit}s are too few to say so"
    words += _until(window, now_us)
    return Reason(str(trigger), worse and not drawn.few, words, evidence)


def _calibration(trigger: Trigger, rows: Labelled, now_us: int) -> Reason:
    window, every = duration_us(trigger.window), duration_us(trigger.every)
    looks, judged = [], Window(now_us, now_us)
    for back in range(trigger.looks - 1, -1, -1):
        at = now_us - back * every
        judged = judged_window(rows, at, window)
        found = gap_of(rows, judged, at)
        enough = found.full and found.value is not None and found.labelled >= MIN_LABELS
        looked: dict[str, Any] = {"at": iso(from_us(at)), "gap": found.value, "labelled": found.labelled}
        if rows.task == "regression":
            looked |= {"low": found.low, "high": found.high}
        looks.append(looked | {"enough": enough, "over": enough and _beyond(found, trigger.gap, rows.task)})
    fired = all(one["over"] for one in looks)
    told = [
        f"{one['gap']:+.3f} on {str(one['at'])[:10]}" if one["enough"] else f"not enough data on {str(one['at'])[:10]}"
        for one in looks
    ]
    words = f"calibration gap over {trigger.window}{_unit(rows)}: {', '.join(told)}{_until(judged, now_us)}"
    return Reason(str(trigger), fired, words, {"looks": looks, "gap": trigger.gap})


def _until(window: Window, now_us: int) -> str:
    """Which predictions were judged, in words that go on; empty where it is all of them."""
    if window.end_us == now_us:
        return ""
    return f"; of predictions until {iso(from_us(window.end_us))}, whose labels had the time to come"


def _beyond(found: Gap, gap: float, task: Task) -> bool:
    if task != "regression":
        return found.value is not None and abs(found.value) > gap
    return found.low is not None and found.high is not None and (found.low > gap or found.high < -gap)


def _unit(rows: Labelled) -> str:
    if rows.task != "regression":
        return ""
    return (
        " in standard deviations of the label" if rows.quantile == MEAN else " of the share at or below the prediction"
    )
