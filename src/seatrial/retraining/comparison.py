"""Is the challenger better than the champion, on rows that neither was trained on?

Both score every row (predictions do not change what happens, so nobody needs to be split off). Rows of one day
share their weather and their staffing: on real flights the variance of a day's mean is 25 times what independent
rows would have, and a sequence that looks row by row calls a winner nearly always. So one day is one observation,
and the verdict is an anytime-valid confidence sequence of the daily mean gain: looking every week costs nothing.

That holds for observations that stay what they are. Labels that come first may be unlike the others (a parcel is known
to have arrived after two days, and to be lost after fourteen), so a day counts when its labels had the time to come,
and keeps the value with which it was first counted.

Better on the whole is not all there is. Declared margins say how much worse any slice may get, and how far the share of
positive decisions may move; a change beyond one is significant, and a person looks at it whatever the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.clock import from_us, iso, parse_time, to_us
from seatrial.core.gain import by_how_much
from seatrial.core.signature import Task
from seatrial.core.windows import DAY_US, HOUR_US, hours_text
from seatrial.stats.arrival import arrival_curve, slowest_age
from seatrial.stats.confidence import fewest_bounded, t_sequence
from seatrial.stats.metrics import MEAN, METRICS, losses, measure

ALPHA = 0.05
MIN_ROWS = 30
"""Labelled rows without which a day does not count; and without which nothing is said of an outcome's delay."""
USUAL = 0.95
"""Share of the labels that ever come which a day waits for."""
FEW = 200
"""Labelled rows below which a slice is not held to a margin: among many small ones the worst is the unluckiest."""
WHOLE = "all rows"

Verdict = Literal["better", "worse", "inconclusive", "too early"]


class Change(msgspec.Struct, frozen=True):
    """What the challenger changes in one place. what: a metric, "positive_rate" or "mean_prediction"; where: "all rows"
    or a slice ("carrier=EV"). worse: by how much it got worse (of a share: changed). margin: what is borne.

    state: "beyond" the margin is significant; "too few" rows, or rows that do not define the metric, are not judged.
    """

    what: str
    where: str
    rows: int
    champion: float | None
    challenger: float | None
    worse: float | None
    margin: float
    state: Literal["within", "beyond", "too few"]

    @property
    def words(self) -> str:
        """The change in one sentence."""
        if self.worse is None or self.champion is None or self.challenger is None:
            return f"{self.what} of {self.where}: not judged, {self.rows:,} rows"
        return (
            f"{self.what} of {self.where}: {self.challenger:.4g} after {self.champion:.4g} "
            f"({self.margin:g} is borne; {self.rows:,} rows)"
        )


class DayGain(msgspec.Struct, frozen=True):
    """One day (24 hours from the comparison's start). gain: champion's mean loss minus challenger's."""

    start: str
    rows: int
    gain: float


class Comparison(msgspec.Struct, frozen=True):
    """Challenger against champion up to `as_of`.

    loss: "log_loss" of classes, "squared_error" of a regression, "quantile_loss" of one that predicts a quantile.
    champion_metrics, challenger_metrics: over all rows.
    gain, low, high: the mean over days, and its 95 % confidence sequence; None with too few days to bound it.
    final: the time to judge is over, and so is the ripening of its days; an inconclusive verdict then stays.
    changes: what the declared margins look at. shadow: "live" when both answered the same live requests, "batch" when
        both were asked for the rows of history.
    needed: days without which there is no verdict, `min_days` or what the sequence itself needs; 0 in comparisons from
        before it was kept. expected_on: the date by which they will be there at the pace so far; "" if no day tells
        the pace, or they will not be there before the time to judge is over.
    ripening: days that are over and do not count yet, because their labels are not due. ripe_hours: how long after its
        end a day is ripe; None in comparisons from before days had to be.
    """

    model: str
    champion: str
    challenger: str
    start: str
    as_of: str
    rows: int
    loss: str
    days: list[DayGain]
    better_days: int
    gain: float | None
    low: float | None
    high: float | None
    champion_metrics: dict[str, float | None]
    challenger_metrics: dict[str, float | None]
    verdict: Verdict
    final: bool
    changes: list[Change] = []
    shadow: Literal["batch", "live"] = "batch"
    needed: int = 0
    expected_on: str = ""
    ripening: int = 0
    ripe_hours: float | None = None

    @property
    def significant(self) -> list[Change]:
        """The changes beyond their margins, which a person must look at."""
        return [one for one in self.changes if one.state == "beyond"]

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        of = self._ripening
        of += f"; significant change, needs a person: {self.significant[0].words}" if self.significant else ""
        if self.verdict == "too early" and self.needed:
            when = f", all of them about {self.expected_on}" if self.expected_on else ""
            return f"{self.verdict}: {len(self.days)} of {self.needed} whole days with labels{when}{of}"
        if self.gain is None or self.low is None or self.high is None:
            return f"{self.verdict}: whole days with labels so far: {len(self.days)}{of}"
        higher, by, low, high = by_how_much(self.gain, self.low, self.high)
        return (
            f"{self.verdict}: {self.loss} {'higher' if higher else 'lower'} by {by:.4f} a day on average "
            f"(95 % between {low:.4f} and {high:.4f}), better on {self.better_days} of {len(self.days)} days" + of
        )

    @property
    def _ripening(self) -> str:
        if not self.ripening or self.ripe_hours is None:
            return ""
        waits = hours_text(self.ripe_hours)
        return f"; days that still ripen: {self.ripening} ({waits} until their labels are there)"


def ripe_after(
    at_us: NDArray[np.int64],
    known_us: NDArray[np.float64],
    as_of_us: int,
    outcome: NDArray[np.int64] | None = None,
) -> int:
    """The age of a prediction, in microseconds, by which 95 % of the labels that ever come are there; 0 without any.

    at_us: (n,) instants of predictions, of as long a history as there is. known_us: (n,) when the label of each became
    known, NaN where it did not. outcome: (n,) of classes, which one: the slowest is waited for, however rare it is.
    Predictions without a label count for as long as they were waited for, see `stats.arrival`.
    """
    past = at_us <= as_of_us
    waited = (as_of_us - at_us[past]).astype(np.float64)
    delays = np.where(known_us[past] <= as_of_us, np.maximum(known_us[past] - at_us[past], 0), np.nan)
    curve = arrival_curve(delays, waited)
    return math.ceil(slowest_age(curve, delays, None if outcome is None else outcome[past], USUAL) or 0.0)


def compare(
    *,
    model: str,
    task: Task,
    champion: str,
    challenger: str,
    at_us: NDArray[np.int64],
    labels: NDArray[np.float64],
    champion_scores: NDArray[np.float64],
    challenger_scores: NDArray[np.float64],
    start_us: int,
    as_of_us: int,
    min_days: int,
    judge_for_us: int,
    margins: Mapping[str, float] = {},
    slices: Mapping[str, NDArray[np.str_]] = {},
    thresholds: tuple[float, float] = (0.5, 0.5),
    quantile: float = 0.5,
    shadow: Literal["batch", "live"] = "batch",
    ripe_after_us: int = 0,
    earlier: Comparison | None = None,
) -> Comparison:
    """Judge the rows of [start, as_of).

    at_us: (n,) instants of the predictions. labels: (n,), NaN where not known at `as_of`.
    champion_scores, challenger_scores: (n,), or (n, C) of the same classes, for the same rows; rows that either could
        not score do not count.
    margins: as `Retrain` declares them. slices: by column, the value of each row, (n,). thresholds: from which score on
        champion and challenger decide "positive". quantile: which one a regression predicts.
    ripe_after_us: how long after its end a day's labels are waited for, see `ripe_after`.
    earlier: the look before this one; a day that it counted counts as it did then, whatever was told of it since.
    Only whole days that are ripe at `as_of` count, and of those the ones with 30 labelled rows or more.
    """
    until = min(as_of_us, start_us + judge_for_us)
    whole = max((until - start_us) // DAY_US, 0)
    loss = _loss(task, quantile)
    facts = (iso(from_us(start_us)), champion, challenger, loss, shadow)
    kept = _counted(earlier, facts, start_us)
    numbers = np.arange(whole)
    ripe = start_us + (numbers + 1) * DAY_US + ripe_after_us <= as_of_us
    counts = ripe | np.isin(numbers, [*kept])
    scored = (at_us >= start_us) & (at_us < start_us + whole * DAY_US)
    for scores in (champion_scores, challenger_scores):
        scored &= ~np.isnan(scores if scores.ndim == 1 else scores.sum(axis=1))
    day = (at_us - start_us) // DAY_US
    rows_of_day = np.bincount(day[scored], minlength=whole)
    usable = scored & ~np.isnan(labels)
    usable[usable] = counts[day[usable]]

    def measured(scores: NDArray[np.float64], threshold: float) -> dict[str, float | None]:
        if not usable.any():
            return {}
        return measure(task, labels[usable], scores[usable], threshold=threshold, quantile=quantile)

    lost = [losses(task, labels, scores, quantile=quantile) for scores in (champion_scores, challenger_scores)]
    gains = lost[0] - lost[1]
    days = []
    for number in np.flatnonzero(counts).tolist():
        of_day = usable & (day == number)
        if number in kept:
            days.append(kept[number])
        elif of_day.sum() >= MIN_ROWS:
            start = iso(from_us(start_us + number * DAY_US))
            days.append(DayGain(start, int(of_day.sum()), float(gains[of_day].mean())))
    ripening = int((~counts & (rows_of_day >= MIN_ROWS)).sum())
    values = np.array([one.gain for one in days])
    needed = max(min_days, fewest_bounded(alpha=ALPHA))
    gain = low = high = None
    if values.size >= 2:
        gain = float(values.mean())
        low, high = t_sequence(values, alpha=ALPHA) or (None, None)
    return Comparison(
        model=model,
        champion=champion,
        challenger=challenger,
        start=iso(from_us(start_us)),
        as_of=iso(from_us(as_of_us)),
        rows=int(usable.sum()),
        loss=loss,
        days=days,
        better_days=int((values > 0).sum()),
        gain=gain,
        low=low,
        high=high,
        champion_metrics=measured(champion_scores, thresholds[0]),
        challenger_metrics=measured(challenger_scores, thresholds[1]),
        verdict=_verdict(len(days), low, high, min_days),
        final=as_of_us >= start_us + judge_for_us and not ripening,
        changes=_changes(
            task,
            labels[usable],
            (champion_scores[usable], challenger_scores[usable]),
            {column: values[usable] for column, values in slices.items()},
            margins,
            thresholds,
            quantile,
        ),
        shadow=shadow,
        needed=needed,
        expected_on=_expected_on(days, needed, ripening, start_us, as_of_us, judge_for_us, ripe_after_us),
        ripening=ripening,
        ripe_hours=ripe_after_us / HOUR_US,
    )


def _loss(task: Task, quantile: float) -> str:
    if task != "regression":
        return "log_loss"
    return "squared_error" if quantile == MEAN else "quantile_loss"


def _counted(earlier: Comparison | None, facts: tuple[str, ...], start_us: int) -> dict[int, DayGain]:
    """The days that an earlier look at the same counted, by their number."""
    if earlier is None or earlier.ripe_hours is None:
        return {}
    if (earlier.start, earlier.champion, earlier.challenger, earlier.loss, earlier.shadow) != facts:
        return {}
    return {(to_us(parse_time(one.start)) - start_us) // DAY_US: one for one in earlier.days}


def _expected_on(
    days: list[DayGain],
    needed: int,
    ripening: int,
    start_us: int,
    as_of_us: int,
    judge_for_us: int,
    ripe_after_us: int,
) -> str:
    """The date by which `needed` days count, if as many days stay thin as so far and labels come as late."""
    if len(days) >= needed or not (days or ripening):
        return ""
    if days:
        seen = (to_us(parse_time(days[-1].start)) - start_us) // DAY_US + 1
        late = (as_of_us - start_us) // DAY_US - seen
        last = seen - (len(days) - needed) * seen // len(days)
    else:
        last, late = needed, math.ceil(ripe_after_us / DAY_US)
    return "" if last * DAY_US > judge_for_us else iso(from_us(start_us + (last + late) * DAY_US))[:10]


def _changes(
    task: Task,
    labels: NDArray[np.float64],
    scores: tuple[NDArray[np.float64], NDArray[np.float64]],
    slices: Mapping[str, NDArray[np.str_]],
    margins: Mapping[str, float],
    thresholds: tuple[float, float],
    quantile: float,
) -> list[Change]:
    """What each margin looks at: all rows, and every value of every column to slice by."""
    if not margins or not labels.size:
        return []
    places = [(WHOLE, np.ones(labels.size, dtype=bool))]
    for column, values in slices.items():
        places += [(f"{column}={value}", values == value) for value in np.unique(values)]
    found = []
    for where, mask in places:
        rows = int(mask.sum())
        before, after = (
            measure(task, labels[mask], one[mask], threshold=threshold, quantile=quantile)
            for one, threshold in zip(scores, thresholds, strict=True)
        )
        shares = _shares(task, scores[0][mask], scores[1][mask], thresholds)
        for what, margin in margins.items():
            if what not in METRICS[task] and what not in shares:
                continue
            then, now = shares[what] if what in shares else (before[what], after[what])
            worse = None if then is None or now is None else _worse(task, what, then, now)
            few = worse is None or (rows < FEW and where != WHOLE)
            beyond = worse is not None and worse > margin
            state: Literal["within", "beyond", "too few"] = "too few" if few else "beyond" if beyond else "within"
            found.append(Change(what, where, rows, then, now, worse, float(margin), state))
    return found


def _shares(
    task: Task, champion: NDArray[np.float64], challenger: NDArray[np.float64], thresholds: tuple[float, float]
) -> dict[str, tuple[float, float]]:
    """How much is decided which way, by the champion and by the challenger; of several classes, the share of the one
    that moved furthest."""
    if task == "regression":
        return {"mean_prediction": (float(champion.mean()), float(challenger.mean()))}
    if task == "binary":
        shares = (float((one >= at).mean()) for one, at in zip((champion, challenger), thresholds, strict=True))
        return {"positive_rate": (next(shares), next(shares))}
    of_each = [np.bincount(one.argmax(axis=1), minlength=one.shape[1]) / len(one) for one in (champion, challenger)]
    furthest = int(np.abs(of_each[1] - of_each[0]).argmax())
    return {"positive_rate": (float(of_each[0][furthest]), float(of_each[1][furthest]))}


def _worse(task: Task, what: str, before: float, after: float) -> float:
    """By how much `what` got worse, negative when it got better; of a share how far it moved."""
    metric = METRICS[task].get(what)
    if metric is None:
        return abs(after - before)
    return before - after if metric.better == "higher" else after - before


def _verdict(days: int, low: float | None, high: float | None, min_days: int) -> Verdict:
    if days < min_days or low is None or high is None:
        return "too early"
    if low > 0:
        return "better"
    return "worse" if high < 0 else "inconclusive"
