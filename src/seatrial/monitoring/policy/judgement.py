"""The policy: which series have changed, when alarms may be wrong only so often a month?

It looks at statistics of whole windows, never at rows.

    fast    a distance beyond what is tolerated, and significant among all distances of the window (Benjamini-Hochberg)
    slow    two-sided CUSUMs of each level and share, standardised, beyond a tolerance of 0.05 standard deviations: one
            that is best for a move of one deviation of a window, and one for two
    season  once two weeks are known, of a series that moves by more than its rows explain: the same window of other
            weeks is what is usual. Slow is then the average of the last 24 hours, fast a jump (what a window does not
            share with the one before it), each beyond what these weeks themselves show when they are left out

The stated budget of false alarms is divided among the paths and sets their thresholds: a quarter of it is the level of
the fast path, and it moves the CUSUMs' thresholds, which are 10 and 5.25 for one a month over 36,000 looks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import msgspec
import numpy as np
from numpy.typing import NDArray

from seatrial.core.windows import DAY_US
from seatrial.monitoring.policy.series import (
    FAR_SHARE,
    TOLERANCE,
    TOLERATED_LOSS,
    TOLERATED_SHARE,
    Series,
    Windows,
    span,
)
from seatrial.stats import season as seasons
from seatrial.stats.cusum import cusum
from seatrial.stats.detectors import benjamini_hochberg
from seatrial.stats.ewma import ewma, weight

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MONTH_US = 30 * DAY_US
NEVER_US = -(2**62)

ALLOWANCE, STEEP = 0.5, 1.0
"""What CUSUM takes from each observation: half of the move, in standard deviations of a window, that it is best for.
Two sums, because a move of one deviation and one of two are each found late by the other's (Lorden 1971)."""
THRESHOLD, STEEP_THRESHOLD = 10.0, 5.25
LOOKS = 36_000
"""Looks a month for which the thresholds are meant: 50 features, hourly. Were every series off for ever by all that is
tolerated, Siegmund's formula gives the two sums .25 and .19 false alarms a month."""
LOWEST, STEEP_LOWEST, HIGHEST = 8.0, 5.0, 40.0
MOST_STEP = 6.0
"""A single window counts for no more, so that one absurd window is no alarm of the slow path."""
MOST_SCORE = 20.0
FALSE_DISCOVERIES = 0.001
OF_DISTANCES = 0.25
"""The part of the budget that the fast path may use up; CUSUM uses less than half, see LOOKS."""
OF_JUMPS, OF_AVERAGES = 0.2, 0.3
"""The parts of what has a season. What is left is for what few weeks do not tell of how far a level wanders."""
BEYOND_DISTANCE = 1.3
OVERDISPERSED = 1.3
"""How much more than its rows explain a series has to vary before it has a season."""
FEWEST_SEASON = 10
"""Windows with rows: the working days of two weeks."""
SEASON_US = 14 * DAY_US
SEASON_AGAIN_US = 28 * DAY_US
SURE = 3.0
SHARES = ("missing", "unseen")
LOSSES = ("error", "estimated")


class Learned(msgspec.Struct, frozen=True):
    """What is usual by the window of the week, of the series whose history was long enough.

    usual: by series the k windows of a week. extra: variance between windows that the rows of a window do not explain;
    sampling: variance of one row. Of what weeks that were left out deviate: average_spread, average_most: standard
    deviation and largest value of the average; kept: the part that the next window shares with a window; jump_spread,
    jump_most: of the rest. typical: of a window's standard deviation in the unit of the series. whole: mean of the
    whole weeks. crossings: how often a month the average crosses its own middle upward. far: the largest distance of a
    window from the reference.
    """

    from_us: int
    until_us: int
    usual: dict[str, list[float]]
    extra: dict[str, float]
    sampling: dict[str, float]
    average_spread: dict[str, float]
    average_most: dict[str, float]
    kept: dict[str, float]
    jump_spread: dict[str, float]
    jump_most: dict[str, float]
    typical: dict[str, float]
    whole: dict[str, float]
    crossings: dict[str, float]
    far: dict[str, float]


class Firing(msgspec.Struct, frozen=True):
    """A subject that is in alarm. since, seen: ends of the window that raised it and of the last one that showed it.
    path: "fast", "slow", "season", "jump", "level". value: of `series` in that window; usual: what is usual there."""

    since_us: int
    seen_us: int
    path: str
    series: str
    value: float
    usual: float


class Sums(msgspec.Struct, frozen=True):
    """What is carried from window to window, by series: CUSUM's upper and lower sum, and those of the steep one; the
    average and the last score of those that have a season; how many windows nothing was seen of it."""

    high: dict[str, float] = {}
    low: dict[str, float] = {}
    average: dict[str, float] = {}
    last: dict[str, float] = {}
    steep_high: dict[str, float] = {}
    steep_low: dict[str, float] = {}
    idle: dict[str, int] = {}


@dataclass(frozen=True)
class Thresholds:
    """What the budget comes to. q: of the fast path; h, steep: of CUSUM; factors: by what a series' thresholds are
    multiplied, by key, subject, kind or "*"."""

    q: float
    h: float
    steep: float
    budget: float
    looks_a_month: float
    factors: Mapping[str, float] = field(default_factory=dict)

    def factor(self, series: Series) -> float:
        return factor_of(series, self.factors)


def factor_of(series: Series, factors: Mapping[str, float]) -> float:
    """Of the most exact name that is given."""
    for name in (series.key, series.subject, series.kind, "*"):
        if name in factors:
            return factors[name]
    return 1.0


@dataclass(frozen=True)
class Judged:
    """fired: (w, m) which of m subjects are in alarm after each of w windows. firing: those in alarm at the end.
    ratios: by series and path (w,) what was seen as a part of its threshold; beyond 1 it is an alarm."""

    subjects: tuple[str, ...]
    fired: Bools
    sums: Sums
    firing: dict[str, Firing]
    ratios: Sequence[tuple[Series, str, Floats]] = ()

    def shown_by(self, row: int, subject: str) -> list[str]:
        """The series of a subject that were beyond their thresholds in a window."""
        seen = (one for one, _, ratio in self.ratios if one.subject == subject and np.nan_to_num(ratio[row]) > 1)
        return list(dict.fromkeys(one.key for one in seen))


def thresholds(budget: float, series: Sequence[Series], every_us: int, factors: Mapping[str, float]) -> Thresholds:
    """For at most `budget` false alarms in 30 days over all series."""
    windows = MONTH_US / every_us
    slow = sum(one.kind != "distance" for one in series)
    fast = sum(one.kind == "distance" for one in series)
    looks = max(slow, fast, 1) * windows
    more = math.log(looks / LOOKS / budget)  # false alarms are exp(-2 k h) of the looks
    h = min(max(THRESHOLD + more / (2 * ALLOWANCE), LOWEST), HIGHEST)
    steep = min(max(STEEP_THRESHOLD + more / (2 * STEEP), STEEP_LOWEST), HIGHEST)
    q = min(FALSE_DISCOVERIES * max(1.0, budget), OF_DISTANCES * budget / windows)
    return Thresholds(q, h, steep, budget, windows, dict(factors))


def judge(
    windows: Windows,
    limits: Thresholds,
    sums: Sums,
    firing: Mapping[str, Firing],
    learned: Learned | None = None,
) -> Judged:
    """Look at the windows in order, from what was carried so far. Nothing is kept but what is returned."""
    subjects = tuple(dict.fromkeys(one.subject for one in windows.series))
    ratios: list[tuple[Series, str, Floats]] = []
    idle = _idle(windows, sums)
    after = Sums({}, {}, {}, {}, {}, {}, _last(windows, idle))
    seasonal = set() if learned is None else set(learned.usual)
    plain = [n for n, one in enumerate(windows.series) if one.key not in seasonal]
    _slow(windows, plain, limits, sums, after, ratios, idle)
    _fast(windows, limits, learned, ratios)
    if learned is not None and seasonal:
        _season(windows, limits, learned, sums, after, ratios, idle)
    seen = np.zeros((len(windows), len(subjects)), dtype=bool)
    for series, _, ratio in ratios:
        place = subjects.index(series.subject)
        seen[:, place] |= np.nan_to_num(ratio) > 1
    fired = _held(windows, subjects, seen, firing)
    rings = _firing(windows, subjects, fired, seen, ratios, firing, learned)
    return Judged(subjects, fired, after, rings, ratios)


def onsets(fired: Bools, before: Bools) -> Bools:
    """(w, m) where an alarm begins. before: (m,) which were on already."""
    found: Bools = fired & ~np.vstack([before[None, :], fired[:-1]])
    return found


def _idle(windows: Windows, sums: Sums) -> Ints:
    """(w, s) windows since something was seen of each series."""
    dark = np.isnan(windows.value) & np.isnan(windows.up) & np.isnan(windows.down)
    now = np.array([sums.idle.get(one.key, 0) for one in windows.series], dtype=np.int64)
    found = np.zeros(dark.shape, dtype=np.int64)
    for place, row in enumerate(dark):
        now = np.where(row, now + 1, 0)
        found[place] = now
    return found


def _last(windows: Windows, idle: Ints) -> dict[str, int]:
    return {one.key: int(idle[-1, n]) for n, one in enumerate(windows.series)} if len(windows) else {}


# The paths: each adds (w,) ratios of a statistic to its threshold


def _slow(
    windows: Windows,
    chosen: Sequence[int],
    limits: Thresholds,
    sums: Sums,
    after: Sums,
    ratios: list[tuple[Series, str, Floats]],
    idle: Ints,
) -> None:
    """CUSUM of every series with a standardised step that no season is known of."""
    chosen = [n for n in chosen if not (np.isnan(windows.up[:, n]).all() and np.isnan(windows.down[:, n]).all())]
    keys = [windows.series[n].key for n in chosen]
    long = int(span(windows.every_us))
    carried = (
        {one.key for one in windows.series} - set(keys) - {key for key, dark in after.idle.items() if dark >= long}
    )
    factors = np.array([limits.factor(windows.series[n]) for n in chosen])
    ratio = np.zeros((len(windows), len(chosen)))
    for steps, allowance, threshold, start, end in (
        (windows.up, ALLOWANCE, limits.h, sums.high, after.high),
        (windows.down, ALLOWANCE, limits.h, sums.low, after.low),
        (windows.up, STEEP, limits.steep, sums.steep_high, after.steep_high),
        (windows.down, STEEP, limits.steep, sums.steep_low, after.steep_low),
    ):
        end.update({key: start[key] for key in carried & start.keys()})
        if not chosen:
            continue
        first, h = np.array([start.get(key, 0.0) for key in keys]), threshold * factors
        cut, forget = np.clip(steps[:, chosen], -MOST_STEP, MOST_STEP), idle[:, chosen] == long
        found = cusum(cut, first, allowance=allowance, most=2 * h, forget=forget)
        end.update(zip(keys, found[-1].tolist(), strict=True))
        ratio = np.maximum(ratio, found / h)
    ratios.extend((windows.series[n], "slow", ratio[:, place]) for place, n in enumerate(chosen))


def _fast(
    windows: Windows, limits: Thresholds, learned: Learned | None, ratios: list[tuple[Series, str, Floats]]
) -> None:
    """Distances and shares of one window; a share that has a season is looked at with it."""
    chosen = [
        n
        for n, one in enumerate(windows.series)
        if one.kind == "distance" or (one.kind in SHARES and (learned is None or one.key not in learned.usual))
    ]
    if not chosen:
        return
    of = [windows.series[n] for n in chosen]
    bound = np.array([_far(one, learned) * limits.factor(one) for one in of])
    usual = np.array([one.usual for one in of])
    off = windows.value[:, chosen] - usual
    far = np.where([one.kind == "unseen" for one in of], off, np.abs(off)) / bound
    # what is significant and near is no discovery, so it makes none of the others easier
    p_values = windows.p_value[:, chosen]
    p_values = np.where((far > 1) | np.isnan(p_values), p_values, 1.0)
    sure = np.array([benjamini_hochberg(row, limits.q) for row in p_values]).reshape(far.shape)
    for place, one in enumerate(of):
        ratios.append((one, "fast", np.where(sure[:, place], far[:, place], np.minimum(far[:, place], 1.0))))


def _far(series: Series, learned: Learned | None) -> float:
    """By how much one window has to be off: what is tolerated, and the most that the learned weeks had."""
    if series.kind in SHARES:
        return max(FAR_SHARE, series.tolerated)
    most = learned.far.get(series.key, 0.0) if learned is not None else 0.0
    return max(series.tolerated, BEYOND_DISTANCE * most)


def _season(
    windows: Windows,
    limits: Thresholds,
    learned: Learned,
    sums: Sums,
    after: Sums,
    ratios: list[tuple[Series, str, Floats]],
    idle: Ints,
) -> None:
    chosen = [n for n, one in enumerate(windows.series) if one.key in learned.usual]
    keys = [windows.series[n].key for n in chosen]
    usual = np.array([learned.usual[key] for key in keys]).T
    slot = seasons.slots(windows.starts, windows.every_us)
    noise = _noise(windows, keys, learned)
    scores = (windows.value[:, chosen] - usual[slot]) / noise
    start = np.array([sums.average.get(key, 0.0) for key in keys])
    last = np.array([sums.last.get(key, 0.0) for key in keys])
    forget = idle[:, chosen] == int(span(windows.every_us))
    cut = np.clip(scores, -MOST_SCORE, MOST_SCORE)
    averages = ewma(cut, start, weight(span(windows.every_us)), forget=forget)
    jumps = _jumps(scores, last, np.array([learned.kept[key] for key in keys]))
    rare = OF_JUMPS * limits.budget / (2 * len(keys) * limits.looks_a_month)
    reach = NormalDist().inv_cdf(1 - min(rare, 0.1))
    for place, n in enumerate(chosen):
        series, key = windows.series[n], keys[place]
        after.average[key], after.last[key] = float(averages[-1, place]), float(np.nan_to_num(scores[-1, place]))
        looks = max(2 * len(keys) * learned.crossings[key] / (OF_AVERAGES * limits.budget), 2.0)
        tolerated = tolerance(series) / learned.typical[key]
        slow = max(math.sqrt(2 * math.log(looks)) * learned.average_spread[key], learned.average_most[key], tolerated)
        fast = max(reach * learned.jump_spread[key], learned.jump_most[key], 2 * tolerated)
        factor = limits.factor(series)
        average, jump = (one[:, place] if _only_up(series) else np.abs(one[:, place]) for one in (averages, jumps))
        ratios.append((series, "season", average / (slow * factor)))
        ratios.append((series, "jump", jump / (fast * factor)))
        if series.kind != "distance":
            count = (learned.until_us - learned.from_us) / windows.every_us
            doubt = (
                SURE * learned.average_spread[key] * learned.typical[key] * math.sqrt(span(windows.every_us) / count)
            )
            off = learned.whole[key] - series.usual
            level = (off if _only_up(series) else abs(off)) / ((series.tolerated + doubt) * factor)
            ratios.append((series, "level", np.full(len(windows), level)))


def _jumps(scores: Floats, last: Floats, kept: Floats) -> Floats:
    """(w, s) what each window does not share with the one before it."""
    before = np.vstack([last[None, :], np.nan_to_num(scores[:-1])])
    return scores - kept * before


def tolerance(series: Series) -> float:
    """How far from the usual of its hour counts as nothing, in the unit of the series."""
    if series.kind in LOSSES:
        return TOLERATED_LOSS
    return {"level": TOLERANCE, "distance": TOLERANCE / 2}.get(series.kind, TOLERATED_SHARE)


def _only_up(series: Series) -> bool:
    return series.kind in (*LOSSES, "unseen", "distance")


def _noise(windows: Windows, keys: Sequence[str], learned: Learned) -> Floats:
    """(w, s) standard deviations of each window by its rows."""
    extra, sampling = (np.array([one[key] for key in keys]) for one in (learned.extra, learned.sampling))
    found: Floats = np.sqrt(extra + sampling / np.maximum(windows.rows, 1)[:, None])
    return found


def _held(windows: Windows, subjects: Sequence[str], seen: Bools, before: Mapping[str, Firing]) -> Bools:
    """(w, m) which are in alarm: an alarm is over when nothing was seen of it for as long as the average looks back."""
    if not len(windows):
        return seen
    long = int(span(windows.every_us)) * windows.every_us
    past = np.array([before[one].seen_us if one in before else NEVER_US for one in subjects], dtype=np.int64)
    latest = np.maximum.accumulate(np.where(seen, windows.ends[:, None], past[None, :]), axis=0)
    held: Bools = windows.ends[:, None] - latest < long
    return held


def _firing(
    windows: Windows,
    subjects: Sequence[str],
    fired: Bools,
    seen: Bools,
    ratios: Sequence[tuple[Series, str, Floats]],
    before: Mapping[str, Firing],
    learned: Learned | None,
) -> dict[str, Firing]:
    """What is in alarm after the last window, since when, and what showed it last."""
    if not len(windows):
        return dict(before)
    found = {}
    places = {series.key: n for n, series in enumerate(windows.series)}
    for place, subject in enumerate(subjects):
        if not fired[-1, place]:
            continue
        quiet = np.flatnonzero(~fired[:, place])
        first = int(quiet[-1]) + 1 if quiet.size else 0
        since = before[subject].since_us if first == 0 and subject in before else int(windows.ends[first])
        showed = np.flatnonzero(seen[:, place])
        if not showed.size:
            found[subject] = before[subject]
            continue
        at = int(showed[-1])
        mine = [(float(np.nan_to_num(ratio[at])), path, series) for series, path, ratio in ratios]
        _, path, series = max((one for one in mine if one[2].subject == subject), key=lambda one: one[0])
        values = windows.value[: at + 1, places[series.key]]
        known = values[~np.isnan(values)]
        value, usual = float(known[-1]) if known.size else series.usual, series.usual
        if path == "level" and learned is not None:
            value = learned.whole[series.key]
        elif learned is not None and series.key in learned.usual and path != "fast":
            usual = learned.usual[series.key][int(seasons.slots(windows.starts[at : at + 1], windows.every_us)[0])]
        found[subject] = Firing(since, int(windows.ends[at]), path, series.key, value, usual)
    return found


# Learning what is usual


def learnable(windows: Windows) -> bool:
    """Whether there are two weeks, and rows in the same windows of both."""
    every = windows.every_us
    if not len(windows) or DAY_US % every or int(windows.ends[-1] - windows.starts[0]) < SEASON_US:
        return False
    slot = seasons.slots(windows.starts[windows.rows > 0], every)
    times = np.bincount(slot)
    return slot.size >= FEWEST_SEASON and float(np.median(times[times > 0])) >= 2


def learn(windows: Windows, *, inputs_only: bool = False) -> Learned:
    """What is usual, of windows that count as normal; see `learnable`.

    inputs_only: neither predictions nor errors, of which another release made those windows.
    """
    from seatrial.monitoring.looks.drift import PREDICTION

    chosen = [
        n
        for n, one in enumerate(windows.series)
        if _has_season(one, windows) and not (inputs_only and one.column in (PREDICTION, ""))
    ]
    keys = [windows.series[n].key for n in chosen]
    values, starts = windows.value[:, chosen], windows.starts
    found = Learned(int(starts[0]), int(windows.ends[-1]), *({} for _ in range(12)))
    for n, one in enumerate(windows.series):
        if one.kind == "distance" and not np.isnan(windows.value[:, n]).all():
            found.far[one.key] = float(np.nanmax(windows.value[:, n]))
    if not chosen:
        return found
    model = seasons.learn(values, starts, windows.every_us)
    rest = seasons.left_out(values, starts, windows.every_us)
    rows = np.maximum(windows.rows, 1)[:, None]
    sampling = np.array([_sampling(windows.series[n]) for n in chosen])
    extra = np.maximum(np.nanmean(rest**2 - sampling / rows, axis=0), 0.0)
    noise = np.sqrt(extra + sampling / rows)
    noise[:, (noise == 0).any(axis=0)] = np.inf  # a series that never moves has no season
    scores = rest / noise
    newest = weight(span(windows.every_us))
    averages = ewma(np.clip(scores, -MOST_SCORE, MOST_SCORE), np.zeros(len(chosen)), newest)
    settled = averages[int(span(windows.every_us)) :]
    kept = np.array([_correlation(scores[:, place]) for place in range(len(chosen))])
    jumps = _jumps(scores, np.zeros(len(chosen)), kept)[1:]
    whole_weeks = (int(windows.ends[-1] - starts[0]) // seasons.WEEK_US) * seasons.WEEK_US // windows.every_us
    for place, key in enumerate(keys):
        if not np.isfinite(noise[0, place]) or np.isnan(model.usual[:, place]).any():
            continue
        average, jump = settled[:, place], jumps[:, place]
        found.usual[key] = model.usual[:, place].tolist()
        found.extra[key], found.sampling[key] = float(extra[place]), float(sampling[place])
        found.average_spread[key] = max(float(np.sqrt((average**2).mean())), 1e-9)
        found.average_most[key] = float(np.abs(average).max())
        found.kept[key] = float(kept[place])
        found.jump_spread[key] = max(float(np.sqrt(np.nanmean(jump**2))), 1e-9)
        found.jump_most[key] = float(np.nanmax(np.abs(jump)))
        found.typical[key] = float(np.sqrt(np.mean(noise[windows.rows > 0, place] ** 2)))
        found.whole[key] = float(np.nanmean(values[-whole_weeks:, place]))
        found.crossings[key] = _crossings(average, windows.every_us)
    for spreads in (found.average_spread, found.jump_spread):
        # few weeks tell a spread badly: none counts as calmer than the series are in the middle
        middle = float(np.median(list(spreads.values()))) if spreads else 0.0
        spreads.update({key: max(one, middle) for key, one in spreads.items()})
    return found


def _has_season(series: Series, windows: Windows) -> bool:
    """Levels, shares, errors, and of categories the distance; where most windows with rows have a value, and these vary
    by more than the rows explain."""
    n = windows.series.index(series)
    values = windows.value[:, n]
    slow = not (np.isnan(windows.up[:, n]).all() and np.isnan(windows.down[:, n]).all())
    if not slow or np.isnan(values[windows.rows > 0]).mean() >= 0.5:
        return False
    if series.kind == "distance":  # nobody knows what its rows explain
        return True
    known = ~np.isnan(values)
    if series.kind in LOSSES:
        off = windows.up[known & np.isfinite(windows.up[:, n]), n]
        return bool(off.size and off.var() > OVERDISPERSED)
    explained = float((_sampling(series) / windows.rows[known]).mean())
    return float(values[known].var()) > OVERDISPERSED * explained


def _sampling(series: Series) -> float:
    """The variance that one row brings to the value of its window."""
    if series.kind == "level":
        return 1.0
    if series.kind in ("missing", "unseen"):
        return max(series.usual * (1 - series.usual), 0.0005)
    return 0.0


def _crossings(average: Floats, every_us: int) -> float:
    """Upward crossings of the middle that a month has, by the correlation of neighbours: Rice 1944, for steps."""
    return MONTH_US / every_us * math.acos(min(_correlation(average), 0.999)) / (2 * math.pi)


def _correlation(values: Floats) -> float:
    """Of neighbours, in [0, 0.99]."""
    centred = values - np.nanmean(values)
    both = centred[1:] * centred[:-1]
    power = float(np.nanmean(centred**2))
    if power <= 0 or np.isnan(both).all():
        return 0.0
    return float(min(max(np.nanmean(both) / power, 0.0), 0.99))
