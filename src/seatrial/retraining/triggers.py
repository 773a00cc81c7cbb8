"""Is there a reason to retrain now? Triggers look at predictions with their labels, and at open alerts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso
from seatrial.core.timing import Timing
from seatrial.core.windows import duration_us
from seatrial.retraining.definition import Trigger

MIN_LABELS = 200


@dataclass(frozen=True)
class Labelled:
    """Predictions of the live release with what is known of them, (n,) each, in any order.

    at_us: instants of the predictions; known_us: when the label was known, NaN where it is not; labels: NaN likewise.
    """

    at_us: NDArray[np.int64]
    known_us: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.float64]


@dataclass(frozen=True)
class Reason:
    """What one trigger found. evidence: the numbers, for the proposal's record."""

    trigger: str
    fired: bool
    words: str
    evidence: dict[str, Any]


def look(
    triggers: Sequence[Trigger],
    predictions: Callable[[], Labelled],
    open_alerts: Sequence[tuple[str, str]],
    now_us: int,
    *,
    since_us: int | None = None,
) -> list[Reason]:
    """What every trigger says at `now_us`.

    predictions: asked only when a trigger needs them. open_alerts: (id, words) of the open ones of high severity.
    since_us: instants of a schedule count after it: when the last proposal was opened, or the champion went live.
    """
    found = []
    for trigger in triggers:
        if trigger.kind == "alarm":
            found.append(_alarm(trigger, open_alerts))
        elif trigger.kind == "schedule":
            found.append(_schedule(trigger, since_us, now_us))
        else:
            found.append(_calibration(trigger, predictions(), now_us))
    return found


def trailing_gap(rows: Labelled, now_us: int, window_us: int) -> tuple[float | None, int, bool]:
    """Mean prediction minus observed rate of the rows predicted in [now - window, now) whose label is known by now.

    Returns the gap (None without such rows), how many they are, and whether predictions reach back that far.
    """
    known = (rows.at_us >= now_us - window_us) & (rows.at_us < now_us) & (rows.known_us <= now_us)
    known &= ~np.isnan(rows.labels) & ~np.isnan(rows.scores)
    full = bool(rows.at_us.size) and int(rows.at_us.min()) < now_us - window_us + _FIRST_DAY_US
    if not known.any():
        return None, 0, full
    return float(rows.scores[known].mean() - rows.labels[known].mean()), int(known.sum()), full


_FIRST_DAY_US = 86_400_000_000
"""A window is full when the first prediction lies in its first day: traffic seldom starts on the stroke."""


def _alarm(trigger: Trigger, open_alerts: Sequence[tuple[str, str]]) -> Reason:
    words = "; ".join(words for _, words in open_alerts) or "no alert of high severity is open"
    return Reason(str(trigger), bool(open_alerts), words, {"alerts": [alert for alert, _ in open_alerts]})


def _schedule(trigger: Trigger, since_us: int | None, now_us: int) -> Reason:
    timing = Timing(cron=trigger.cron, timezone=trigger.timezone)
    count, last = timing.between(now_us if since_us is None else since_us, now_us)
    shown = iso(from_us(timing.after(now_us) if last is None else last))
    words = f"{trigger}: next at {shown}" if last is None else f"{trigger}: came at {shown}"
    return Reason(str(trigger), last is not None, words, {"instants": count, "at": shown})


def _calibration(trigger: Trigger, rows: Labelled, now_us: int) -> Reason:
    window, every = duration_us(trigger.window), duration_us(trigger.every)
    looks = []
    for back in range(trigger.looks - 1, -1, -1):
        at = now_us - back * every
        gap, labelled, full = trailing_gap(rows, at, window)
        enough = full and gap is not None and labelled >= MIN_LABELS
        over = enough and gap is not None and abs(gap) > trigger.gap
        looks.append({"at": iso(from_us(at)), "gap": gap, "labelled": labelled, "enough": enough, "over": over})
    fired = all(one["over"] for one in looks)
    told = [
        f"{one['gap']:+.3f} on {str(one['at'])[:10]}" if one["enough"] else f"not enough data on {str(one['at'])[:10]}"
        for one in looks
    ]
    words = f"calibration gap over {trigger.window}: {', '.join(told)}"
    return Reason(str(trigger), fired, words, {"looks": looks, "gap": trigger.gap})
